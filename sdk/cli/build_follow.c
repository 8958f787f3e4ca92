#include "build_follow.h"

#include "format.h"
#include "json.h"
#include "progress.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_PAUSE_MS 20
#define LAST_PAUSE_MS 200
#define TURN_MS 100
#define AWAY_MS 60000 /* a server that is started again */

void build_stop(struct cli *cli, const char *id)
{
	Paddock__V1__StopTemplateBuildRequest request = PADDOCK__V1__STOP_TEMPLATE_BUILD_REQUEST__INIT;
	Paddock__V1__StopTemplateBuildResponse *reply = NULL;
	struct pdk_error err = {};

	request.build_id = (char *)(uintptr_t)id;
	paddock_build_stop(cli->client, &request, &reply, &err);
	paddock_free(reply);
}

const char *build_state_name(Paddock__V1__TemplateBuildState state)
{
	static const char *const names[] = {"?", "waiting", "building", "ready", "failed"};

	return (unsigned int)state < ARRAY_SIZE(names) ? names[state] : "?";
}

static bool has_ended(const Paddock__V1__TemplateBuild *build)
{
	return build->state == PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_READY ||
	       build->state == PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_FAILED;
}

/* "[3/7]", "[base]" */
static void make_label(const struct build_follow *follow, const char *step, char out[48])
{
	if (follow->file && strspn(step, "0123456789") == strlen(step))
		snprintf(out, 48, "[%.10s/%zu]", step, follow->file->n_steps);
	else
		snprintf(out, 48, "[%.20s]", step);
}

static void show(struct build_follow *follow, const Paddock__V1__TemplateBuild *build)
{
	for (size_t i = 0; i < build->n_log; i++) {
		char label[48];

		if (!follow->out)
			break;
		if (follow->json) {
			json_print_message(build->log[i], true);
			continue;
		}
		make_label(follow, build->log[i]->step, label);
		fprintf(follow->out, "%-10s ", label);
		text_print(follow->out, build->log[i]->message);
		fputc('\n', follow->out);
	}
	if (follow->out)
		fflush(follow->out);
	follow->offset += build->n_log;
}

/* What it is at, for the line of progress: the step of the last entry. */
static void make_phase(const struct build_follow *follow, const Paddock__V1__TemplateBuild *build, char out[128])
{
	const char *step = build->n_log ? build->log[build->n_log - 1]->step : "";
	size_t number = strtoul(step, NULL, 10);
	char label[48];

	if (!*step)
		return;
	make_label(follow, step, label);
	if (follow->file && number && number <= follow->file->n_steps) {
		const struct paddockfile_step *at = &follow->file->steps[number - 1];
		_cleanup_free_ char *text = text_safe(at->args[0], strnlen(at->args[0], 50));

		snprintf(out, 128, "%s %s %.60s", label, at->type, text);
	} else {
		snprintf(out, 128, "%s", label);
	}
}

static int look(struct build_follow *follow, Paddock__V1__TemplateBuild **ret_build)
{
	Paddock__V1__GetTemplateBuildRequest request = PADDOCK__V1__GET_TEMPLATE_BUILD_REQUEST__INIT;
	int rc;

	request.build_id = (char *)(uintptr_t)follow->id;
	request.log_offset = follow->offset;
	rc = paddock_build_get(follow->cli->client, &request, ret_build, &follow->cli->err);
	if (rc >= 0 || follow->cli->err.code != PDK_UNAVAILABLE || follow->once)
		return rc;
	/* It may be started again, and tells what became of the build then. */
	rc = paddock_wait_ready(follow->cli->client, AWAY_MS, &follow->cli->err);
	return rc < 0 ? rc : paddock_build_get(follow->cli->client, &request, ret_build, &follow->cli->err);
}

static void check_unwanted(struct build_follow *follow)
{
	if (follow->stopped || !follow->is_unwanted || !follow->is_unwanted())
		return;
	follow->stopped = true;
	build_stop(follow->cli, follow->id);
}

static void pause_for(struct build_follow *follow, struct progress *progress, int ms)
{
	while (ms > 0) {
		int turn = ms < TURN_MS ? ms : TURN_MS;

		nanosleep(&(struct timespec){.tv_nsec = turn * 1000000L}, NULL);
		progress_update(progress, 0);
		check_unwanted(follow);
		ms -= turn;
	}
}

int build_follow(struct build_follow *follow, Paddock__V1__TemplateBuild **ret_build)
{
	Paddock__V1__TemplateBuild *build = NULL;
	struct progress progress;
	char phase[128] = "building";
	int pause = FIRST_PAUSE_MS, rc;

	progress_start(&progress, phase, 0);
	while ((rc = look(follow, &build)) >= 0) {
		bool news = build->n_log;

		if (news)
			progress_end(&progress);
		make_phase(follow, build, phase);
		show(follow, build);
		if (!news && (has_ended(build) || follow->once))
			break;
		paddock_free(STEAL_PTR(build));
		check_unwanted(follow);
		pause = news ? FIRST_PAUSE_MS : pause * 2 < LAST_PAUSE_MS ? pause * 2 : LAST_PAUSE_MS;
		if (!news)
			pause_for(follow, &progress, pause);
	}
	progress_end(&progress);
	if (rc >= 0)
		*ret_build = build;
	return rc;
}
