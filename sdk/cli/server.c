#include "admin.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK_OUTPUT_MAX 65536
#define PING_MS 5000

extern char **environ;

int cmd_status(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetStatusRequest request = PADDOCK__V1__GET_STATUS_REQUEST__INIT;
	Paddock__V1__ServerStatus *status = NULL;
	char a[FORMAT_SIZE], b[FORMAT_SIZE], line[192];
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_status(cli->client, &request, &status, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_print_message(status, false);
		paddock_free(status);
		return EXIT_OK;
	}
	field_print(cli->color, "Server", paddock_address(cli->client));
	field_print(cli->color, "Version", status->version);
	field_print(cli->color, "Kernel", status->kernel);
	snprintf(line, sizeof(line), "%s (%s)", format_time(a, status->started_unix_ms),
		 format_age(b, status->started_unix_ms));
	field_print(cli->color, "Started", line);
	snprintf(line, sizeof(line), "%u, and %u ready to be claimed", status->sandboxes, status->pooled);
	field_print(cli->color, "Sandboxes", line);
	snprintf(line, sizeof(line), "%s of %s reserved", format_size(a, status->reserved_memory_bytes),
		 format_size(b, status->reservable_memory_bytes));
	field_print(cli->color, "Memory", line);
	snprintf(line, sizeof(line), "%s of %s reserved", format_size(a, status->reserved_disk_bytes),
		 format_size(b, status->reservable_disk_bytes));
	field_print(cli->color, "Disk", line);
	snprintf(line, sizeof(line), "%llu", (unsigned long long)status->audit_records);
	field_print(cli->color, "Audit records", line);
	paddock_free(status);
	return EXIT_OK;
}

/* Who we are to the server, and its version. */
static int ask_server(struct cli *cli, Paddock__V1__WhoAmIResponse **ret_me)
{
	Paddock__V1__WhoAmIRequest request = PADDOCK__V1__WHO_AM_IREQUEST__INIT;
	int rc = cli_connect(cli);

	if (rc < 0)
		return rc;
	paddock_set_timeout(cli->client, PING_MS);
	return paddock_who_am_i(cli->client, &request, ret_me, &cli->err);
}

int cmd_version(struct cli *cli, const struct args *args)
{
	Paddock__V1__WhoAmIResponse *me = NULL;
	int rc = args_has(args, "client") ? -ENOENT : ask_server(cli, &me);

	if (cli->json) {
		json_print(json_pack("{s:s, s:s?}", "client", paddock_version(), "server",
				     rc == 0 ? me->server_version : NULL),
			   false);
	} else {
		printf("paddock %s\n", paddock_version());
		if (rc == 0) {
			fputs("server ", stdout);
			text_print(stdout, me->server_version);
			printf(" at %s\n", paddock_address(cli->client));
		}
	}
	paddock_free(me);
	return EXIT_OK;
}

/* One line of the doctor's report, in both forms. */
struct report {
	struct cli *cli;
	json_t *array;
	int missing;
};

static void report_add(struct report *report, const char *name, bool ok, const char *mend)
{
	const char *red = report->cli->color ? "\033[31m" : "", *green = report->cli->color ? "\033[32m" : "";
	const char *plain = report->cli->color ? "\033[0m" : "";

	report->missing += !ok;
	if (report->array) {
		json_array_append_new(report->array,
				      json_pack("{s:s, s:b, s:s}", "name", name, "ok", ok, "mend", ok ? "" : mend));
		return;
	}
	printf("  %s%-7s%s ", ok ? green : red, ok ? "ok" : "MISSING", plain);
	text_print(stdout, name);
	if (!ok && *mend) {
		fputs("\n          ", stdout);
		text_print(stdout, mend);
	}
	putchar('\n');
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

		report_add(report, name ? name : "?", json_is_true(json_object_get(item, "ok")), mend ? mend : "");
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
		rc = paddock_ping(cli->client, PING_MS, &cli->err);
	snprintf(name, sizeof(name), "server%s%.200s", cli->client ? " at " : "",
		 cli->client ? paddock_address(cli->client) : "");
	report_add(report, name, rc == 0, cli->err.text);
	if (rc < 0)
		return;
	rc = ask_server(cli, &me);
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
	if (report.array)
		json_print(report.array, false);
	else if (report.missing)
		printf("%d thing%s to mend\n", report.missing, report.missing == 1 ? "" : "s");
	return report.missing ? EXIT_ERROR : EXIT_OK;
}
