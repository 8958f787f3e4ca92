#include "build_internal.h"

#include "paddock/v1/processes.pb-c.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A command of a build, by Processes.Start as any client's, and its output in the log, line by line. */

#define KEPT_MAX (64u << 10)

static void flush_line(struct build_run *run, unsigned int stream)
{
	if (run->line_length[stream])
		build_log(run->build, run->label, false, run->line[stream], run->line_length[stream]);
	run->line_length[stream] = 0;
}

static void take_bytes(struct build_run *run, unsigned int stream, const uint8_t *data, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (data[i] == '\n' || run->line_length[stream] == BUILD_LOG_MESSAGE_MAX)
			flush_line(run, stream);
		if (data[i] != '\n' && data[i] != '\r' && data[i])
			run->line[stream][run->line_length[stream]++] = (char)data[i];
	}
}

static void keep_bytes(struct build_run *run, const uint8_t *data, size_t length)
{
	length = length < KEPT_MAX - run->kept_length ? length : KEPT_MAX - run->kept_length;
	if (length)
		memcpy(run->kept + run->kept_length, data, length);
	run->kept_length += length;
}

static void take_output(struct build_run *run, const Paddock__V1__ProcessOutput *output)
{
	bool is_error = output->stream == PADDOCK__V1__STREAM__STREAM_STDERR;

	if (run->quiet && !is_error)
		keep_bytes(run, output->data.data, output->data.len);
	else
		take_bytes(run, is_error, output->data.data, output->data.len);
}

static void on_event(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__ProcessEvent *event = (const void *)message;
	struct build_run *run = arg;

	if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT) {
		take_output(run, event->output);
	} else if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED) {
		run->exited = !event->exited->sandbox_ended;
		run->exit_code = event->exited->exit_code;
		run->exit_signal = event->exited->signal;
		run->timed_out = event->exited->timed_out;
	}
	rpc_local_next(run->inner);
}

static void on_end(void *arg, const struct pdk_error *end)
{
	struct build_run *run = arg;

	run->inner = NULL;
	flush_line(run, 0);
	flush_line(run, 1);
	run->then(run, end->code == PDK_OK ? NULL : end);
}

/* NAME=value into a map; in one allocation. */
static Paddock__V1__StartProcessRequest__EnvEntry **make_env(const struct text_list *env, char **ret_text)
{
	typedef Paddock__V1__StartProcessRequest__EnvEntry entry_t;
	entry_t **pointers = malloc(env->count * (sizeof(entry_t *) + sizeof(entry_t)) + 1);
	entry_t *entries = (entry_t *)(pointers ? (void *)(pointers + env->count) : NULL);
	size_t size = 1;
	char *at;

	for (size_t i = 0; i < env->count; i++)
		size += strlen(env->item[i]) + 1;
	*ret_text = at = malloc(size);
	if (!pointers || !at) {
		free(pointers);
		return NULL;
	}
	for (size_t i = 0; i < env->count; i++) {
		paddock__v1__start_process_request__env_entry__init(&entries[i]);
		entries[i].key = at;
		at = stpcpy(at, env->item[i]) + 1;
		entries[i].value = strchr(entries[i].key, '=') + 1;
		entries[i].value[-1] = '\0';
		pointers[i] = &entries[i];
	}
	return pointers;
}

static int prepare(struct build_run *run)
{
	for (unsigned int i = 0; i < 2; i++) {
		if (!run->line[i])
			run->line[i] = malloc(BUILD_LOG_MESSAGE_MAX);
		run->line_length[i] = 0;
		if (!run->line[i])
			return -ENOMEM;
	}
	if (!run->kept)
		run->kept = malloc(KEPT_MAX + 1);
	run->kept_length = 0;
	run->exited = run->timed_out = false;
	run->exit_code = run->exit_signal = 0;
	return run->kept ? 0 : -ENOMEM;
}

void build_command(struct build_run *run, const struct build_command *command,
		   void (*then)(struct build_run *run, const struct pdk_error *err))
{
	static const struct rpc_local_events events = {.on_message = on_event, .on_end = on_end};
	Paddock__V1__StartProcessRequest request = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	_cleanup_free_ Paddock__V1__StartProcessRequest__EnvEntry **env = NULL;
	_cleanup_free_ char *text = NULL;
	const char *cwd = command->cwd ? command->cwd : run->context.cwd;
	struct pdk_error err;

	run->then = then;
	run->quiet = command->quiet;
	request.sandbox_id = run->sandbox_id;
	request.argv = (char **)(uintptr_t)command->argv;
	while (command->argv[request.n_argv])
		request.n_argv++;
	request.user = (char *)(uintptr_t)(command->user ? command->user : run->context.user);
	request.cwd = (char *)(uintptr_t)(cwd ? cwd : "");
	request.timeout_ms = command->timeout_ms;
	request.detach = command->detach;
	request.tag = (char *)(command->detach ? "start" : "");
	env = command->plain ? NULL : make_env(run->context.env, &text);
	request.env = env;
	request.n_env = env ? run->context.env->count : 0;
	if ((env || command->plain) && prepare(run) >= 0)
		run->inner =
			rpc_local_open_as(&run->principal, "/paddock.v1.Processes/Start", &request.base, &events, run);
	if (run->inner)
		return;
	pdk_fail_errno(&err, -ENOMEM, "running a command");
	build_run_fail(run, &err);
}

int build_command_check(const struct build_run *run, const char *what, struct pdk_error *err)
{
	if (!run->exited)
		return pdk_fail(err, -ECANCELED, PDK_ABORTED, "%s: its sandbox has ended", what);
	if (run->timed_out)
		return pdk_fail(err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "%s: its time is over", what);
	if (run->exit_signal)
		return pdk_fail(err, -EIO, PDK_ABORTED, "%s: signal %u", what, run->exit_signal);
	if (run->exit_code)
		return pdk_fail(err, -EIO, PDK_ABORTED, "%s: exit status %u", what, run->exit_code);
	return 0;
}

void build_command_clear(struct build_run *run)
{
	free(run->line[0]);
	free(run->line[1]);
	free(run->kept);
}
