#include "admin.h"

#include "format.h"
#include "json.h"
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * `paddock doctor`: what this machine lacks (asked of the warden's program), whether the server answers, and whether a
 * pause to disk works: that is done, with a sandbox of its own that is gone afterwards.
 */

#define CHECK_OUTPUT_MAX 65536
#define PAUSE_CHECK "pause to disk and back"
#define PAUSE_CHECK_MS 120000 /* the life of its sandbox, should nobody end it */
#define PAUSE_CHECK_MEMORY (64u << 20)

extern char **environ;

/* One line of the doctor's report, in both forms. */
struct report {
	struct cli *cli;
	json_t *array;
	int missing;
};

/* `needed`: nothing works without it. */
static void report_item(struct report *report, const char *name, bool ok, bool needed, const char *mend)
{
	const char *red = report->cli->color ? "\033[31m" : "", *green = report->cli->color ? "\033[32m" : "";
	const char *plain = report->cli->color ? "\033[0m" : "";

	report->missing += !ok && needed;
	if (report->array) {
		json_array_append_new(report->array, json_pack("{s:s, s:b, s:b, s:s}", "name", name, "ok", ok, "needed",
							       needed, "mend", ok ? "" : mend));
		return;
	}
	printf("  %s%-7s%s ", ok ? green : needed ? red : "", ok ? "ok" : needed ? "MISSING" : "without", plain);
	text_print(stdout, name);
	if (!ok && *mend) {
		fputs("\n          ", stdout);
		text_print(stdout, mend);
	}
	putchar('\n');
}

static void report_add(struct report *report, const char *name, bool ok, const char *mend)
{
	report_item(report, name, ok, true, mend);
}

/* Where the warden is: as PADDOCK_WARDEN says, else beside this program in a build tree, else where it is installed. */
static const char *warden_path(void)
{
	static char path[1024];
	const char *named = getenv("PADDOCK_WARDEN");
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 64);
	char *end;

	if (named && *named)
		return named;
	path[length > 0 ? length : 0] = '\0';
	end = strstr(path, "/sdk/paddock");
	if (end && !strcmp(end, "/sdk/paddock")) {
		strcpy(end, "/sandbox/warden/paddock-warden");
		if (access(path, X_OK) == 0)
			return path;
	}
	return PADDOCK_SBINDIR "/paddock-warden";
}

/* Run `paddock-warden --check -o json` and read what it prints. */
static int run_check(char *out, size_t size)
{
	char *argv[] = {(char *)warden_path(), (char *)"--check", (char *)"-o", (char *)"json", NULL};
	posix_spawn_file_actions_t actions;
	int fds[2], rc, status;
	size_t length = 0;
	ssize_t n;
	pid_t pid;

	if (pipe(fds) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, fds[0]);
	posix_spawn_file_actions_addclose(&actions, fds[1]);
	rc = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	while (rc == 0 && length < size - 1 && (n = read(fds[0], out + length, size - 1 - length)) > 0)
		length += (size_t)n;
	close(fds[0]);
	out[length] = '\0';
	if (rc == 0)
		waitpid(pid, &status, 0);
	return -rc;
}

static void check_host(struct report *report)
{
	_cleanup_free_ char *out = malloc(CHECK_OUTPUT_MAX);
	json_t *list, *item;
	size_t i;

	if (!out)
		abort();
	if (run_check(out, CHECK_OUTPUT_MAX) < 0 || !(list = json_loads(out, 0, NULL))) {
		report_add(report, "paddock-warden", false,
			   "the program is not installed here; PADDOCK_WARDEN names it elsewhere");
		return;
	}
	json_array_foreach(list, i, item)
	{
		const char *name = json_string_value(json_object_get(item, "name"));
		const char *mend = json_string_value(json_object_get(item, "mend"));

		report_item(report, name ? name : "?", json_is_true(json_object_get(item, "ok")),
			    !json_is_false(json_object_get(item, "needed")), mend ? mend : "");
	}
	json_decref(list);
}

static void check_server(struct report *report)
{
	struct cli *cli = report->cli;
	Paddock__V1__WhoAmIResponse *me = NULL;
	char name[256];
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_ping(cli->client, SERVER_PING_MS, &cli->err);
	snprintf(name, sizeof(name), "server%s%.200s", cli->client ? " at " : "",
		 cli->client ? paddock_address(cli->client) : "");
	report_add(report, name, rc == 0, cli->err.text);
	if (rc < 0)
		return;
	rc = server_who_am_i(cli, &me);
	if (rc < 0) {
		report_add(report, "access", false, cli->err.text);
		return;
	}
	snprintf(name, sizeof(name), "access as %.64s", me->operator_ ? "operator" : me->tenant);
	report_add(report, name, true, "");
	snprintf(name, sizeof(name), "version %.64s", me->server_version);
	report_add(report, name, !strcmp(me->server_version, paddock_version()),
		   "this command is version " PADDOCK_VERSION "; install the same on both sides");
	paddock_free(me);
}

static void check_template(struct report *report)
{
	Paddock__V1__GetTemplateRequest request = PADDOCK__V1__GET_TEMPLATE_REQUEST__INIT;
	Paddock__V1__Template *template = NULL;
	int rc;

	if (!report->cli->client || report->missing)
		return;
	request.template_ = (char *)"base";
	rc = paddock_template_get(report->cli->client, &request, &template, &report->cli->err);
	report_add(report, "template base", rc == 0, "`sudo paddock template build base` makes it");
	paddock_free(template);
}

/* --- a pause to disk and back --- */

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* A process that is to come back, with its pid. */
static int start_witness(struct cli *cli, char *sandbox_id, uint32_t *ret_pid)
{
	Paddock__V1__StartProcessRequest request = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	Paddock__V1__ProcessEvent *event = NULL;
	struct paddock_stream *stream;
	char *argv[] = {(char *)"sleep", (char *)"600"};
	int rc;

	request.sandbox_id = sandbox_id;
	request.argv = argv;
	request.n_argv = 2;
	request.detach = true;
	stream = paddock_process_start(cli->client, &request, &cli->err);
	if (!stream)
		return -ENOMEM;
	rc = paddock_stream_next(stream, PAUSE_CHECK_MS, &event, &cli->err);
	if (rc > 0 && event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED) {
		*ret_pid = event->started->pid;
		rc = 0;
	} else if (rc >= 0) {
		rc = pdk_fail(&cli->err, -EPROTO, PDK_INTERNAL, "the process did not start");
	}
	paddock_free(event);
	paddock_stream_free(stream);
	return rc;
}

static int see_witness(struct cli *cli, char *sandbox_id, uint32_t pid)
{
	Paddock__V1__StartProcessRequest request = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	struct paddock_result result = {0};
	char path[32];
	char *argv[] = {(char *)"cat", path};
	int rc;

	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	request.sandbox_id = sandbox_id;
	request.argv = argv;
	request.n_argv = 2;
	rc = paddock_run(cli->client, &request, 64, &result, &cli->err);
	if (rc == 0 && strcmp(result.out, "sleep\n") != 0)
		rc = pdk_fail(&cli->err, -EIO, PDK_DATA_LOSS, "its process did not come back");
	paddock_result_clear(&result);
	return rc;
}

static int pause_and_resume(struct cli *cli, char *sandbox_id, double *ret_pause_ms, double *ret_resume_ms)
{
	Paddock__V1__PauseSandboxRequest pause = PADDOCK__V1__PAUSE_SANDBOX_REQUEST__INIT;
	Paddock__V1__ResumeSandboxRequest resume = PADDOCK__V1__RESUME_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	double began;
	uint32_t pid = 0;
	int rc = start_witness(cli, sandbox_id, &pid);

	if (rc < 0)
		return rc;
	pause.sandbox_id = resume.sandbox_id = sandbox_id;
	pause.mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT;
	began = now_ms();
	rc = paddock_sandbox_pause(cli->client, &pause, &sandbox, &cli->err);
	if (rc < 0)
		return rc;
	paddock_free(sandbox);
	*ret_pause_ms = now_ms() - began;
	began = now_ms();
	rc = paddock_sandbox_resume(cli->client, &resume, &sandbox, &cli->err);
	if (rc < 0)
		return rc;
	paddock_free(sandbox);
	*ret_resume_ms = now_ms() - began;
	return see_witness(cli, sandbox_id, pid);
}

static void report_pause(struct report *report, int rc, double pause_ms, double resume_ms)
{
	char name[96] = PAUSE_CHECK, mend[sizeof(report->cli->err.text) + 96];

	if (rc == 0 && report->array) {
		json_array_append_new(report->array,
				      json_pack("{s:s, s:b, s:s, s:f, s:f}", "name", PAUSE_CHECK, "ok", true, "mend",
						"", "pause_ms", pause_ms, "resume_ms", resume_ms));
		return;
	}
	if (rc == 0)
		snprintf(name, sizeof(name), PAUSE_CHECK " (%.0f ms, %.0f ms)", pause_ms, resume_ms);
	snprintf(mend, sizeof(mend), "%s%s", report->cli->err.text,
		 rc < 0 && strstr(report->cli->err.text, "CRIU is") ? "; as root, `paddock-fetch-criu` installs it"
								    : "");
	report_add(report, name, rc == 0, mend);
}

/* With a sandbox of its own. Somebody who may make none is not told that anything is missing. */
static void check_pause(struct report *report)
{
	Paddock__V1__CreateSandboxRequest create = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__KillSandboxRequest kill = PADDOCK__V1__KILL_SANDBOX_REQUEST__INIT;
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;
	Paddock__V1__Sandbox *sandbox = NULL, *ended;
	struct cli *cli = report->cli;
	double pause_ms = 0, resume_ms = 0;
	int rc;

	if (!cli->client || report->missing)
		return;
	create.timeout_ms = PAUSE_CHECK_MS;
	create.resources = &resources;
	resources.memory_bytes = PAUSE_CHECK_MEMORY;
	paddock_set_timeout(cli->client, PAUSE_CHECK_MS);
	rc = paddock_sandbox_create(cli->client, &create, &sandbox, &cli->err);
	if (rc < 0 && cli->err.code == PDK_PERMISSION_DENIED)
		return;
	if (rc == 0)
		rc = pause_and_resume(cli, sandbox->id, &pause_ms, &resume_ms);
	report_pause(report, rc, pause_ms, resume_ms);
	if (!sandbox)
		return;
	kill.sandbox_id = sandbox->id;
	if (paddock_sandbox_kill(cli->client, &kill, &ended, &cli->err) == 0)
		paddock_free(ended);
	paddock_free(sandbox);
}

int cmd_doctor(struct cli *cli, const struct args *args)
{
	const char *address = cli->address ? cli->address : getenv("PADDOCK_ADDR");
	bool local = !address || !*address || !strncmp(address, "unix:", 5);
	struct report report = {.cli = cli, .array = cli->json ? json_array() : NULL};

	if (local && geteuid() == 0) {
		if (!cli->json)
			printf("This machine\n");
		check_host(&report);
	} else if (local && !cli->json) {
		printf("(as root, `paddock doctor` also checks this machine)\n");
	}
	if (!cli->json)
		printf("The server\n");
	check_server(&report);
	check_template(&report);
	check_pause(&report);
	if (report.array)
		json_print(report.array, false);
	else if (report.missing)
		printf("%d thing%s to mend\n", report.missing, report.missing == 1 ? "" : "s");
	return report.missing ? EXIT_ERROR : EXIT_OK;
}
