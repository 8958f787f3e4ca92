#include "build_internal.h"

#include "paddock/v1/processes.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* RUN, ENV, WORKDIR and USER. COPY is in build_copy.c. What they mean is in templates.proto. */

#define STEP_TIMEOUT_MS 3600000u
#define SHORT_TIMEOUT_MS 60000u
#define SHOWN_MAX 160

static const Paddock__V1__TemplateBuildStep *current(const struct build_run *run)
{
	return run->plan->steps[run->step];
}

/* --- contexts --- */

int build_context_set(struct build_context *context, const char *name, const char *value)
{
	_cleanup_free_ char **items = calloc(context->env->count + 1, sizeof(char *));
	_cleanup_free_ char *entry = NULL;
	size_t length = strlen(name), n = 0, bytes = 0;
	struct text_list *env;

	if (!items || asprintf(&entry, "%s=%s", name, value) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < context->env->count; i++)
		if (strncmp(context->env->item[i], name, length) != 0 || context->env->item[i][length] != '=')
			items[n++] = context->env->item[i];
	items[n++] = entry;
	for (size_t i = 0; i < n; i++)
		bytes += strlen(items[i]) + 1;
	if (n > VALIDATE_ENV_PAIRS_MAX || bytes > BUILD_ENV_BYTES_MAX)
		return -E2BIG;
	env = text_list_copy(items, n);
	if (!env)
		return -ENOMEM;
	free(context->env);
	context->env = env;
	return 0;
}

/* --- RUN --- */

static void run_done(struct build_run *run, const struct pdk_error *err)
{
	struct pdk_error failure;
	char what[SHOWN_MAX + 64];

	if (err) {
		build_run_fail(run, err);
		return;
	}
	snprintf(what, sizeof(what), "failed to run command '%.160s'", current(run)->args[0]);
	if (build_command_check(run, what, &failure) < 0)
		build_run_fail(run, &failure);
	else
		build_run_layer(run);
}

static bool user_known(const char *user)
{
	return strcmp(user, "user") == 0 || strcmp(user, "root") == 0;
}

static void step_run(struct build_run *run, const Paddock__V1__TemplateBuildStep *step)
{
	const char *argv[] = {"/bin/bash", "-l", "-c", step->args[0], NULL};
	const struct build_command command = {.argv = argv,
					      .user = step->n_args > 1 && step->args[1][0] ? step->args[1] : NULL,
					      .timeout_ms = STEP_TIMEOUT_MS};
	struct pdk_error err;

	if (command.user && !user_known(command.user)) {
		/* As the hosted service says it: clients look for this. */
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT,
			 "failed to run command '%.160s': command failed: unauthenticated: invalid username: '%.60s'",
			 step->args[0], step->args[1]);
		build_run_fail(run, &err);
		return;
	}
	build_command(run, &command, run_done);
}

/* --- ENV: a value with '$' in it is what the shell makes of it, in the sandbox --- */

static void env_next(struct build_run *run);

/* False: the build has failed. */
static bool env_set(struct build_run *run, const char *value)
{
	const Paddock__V1__TemplateBuildStep *step = current(run);
	Paddock__V1__StartProcessRequest__EnvEntry entry = PADDOCK__V1__START_PROCESS_REQUEST__ENV_ENTRY__INIT;
	const struct validate_entry *entries[] = {(const void *)&entry};
	struct pdk_error err;
	int rc;

	entry.key = step->args[run->pair];
	entry.value = (char *)(uintptr_t)value;
	rc = validate_env("ENV", entries, 1, &err);
	if (rc >= 0) {
		rc = build_context_set(&run->context, entry.key, value);
		if (rc < 0)
			pdk_fail(&err, rc, PDK_INVALID_ARGUMENT, "ENV: %s",
				 rc == -E2BIG ? "more than 256 variables, or 256 KiB of them" : "out of memory");
	}
	if (rc < 0) {
		build_run_fail(run, &err);
		return false;
	}
	run->pair += 2;
	return true;
}

static void env_expanded(struct build_run *run, const struct pdk_error *err)
{
	struct pdk_error failure;

	if (err) {
		build_run_fail(run, err);
	} else if (build_command_check(run, "ENV: the value could not be expanded", &failure) < 0) {
		build_run_fail(run, &failure);
	} else {
		run->kept[run->kept_length] = '\0';
		if (env_set(run, run->kept))
			env_next(run);
	}
}

/* printf %s "VALUE", where only variables mean something. */
static char *env_script(const char *value)
{
	char *script = malloc(2 * strlen(value) + 32), *at = script;

	if (!script)
		return NULL;
	at = stpcpy(at, "printf %s \"");
	for (; *value; value++) {
		bool variable =
			*value == '$' && (value[1] == '_' || value[1] == '{' || (value[1] >= 'A' && value[1] <= 'Z') ||
					  (value[1] >= 'a' && value[1] <= 'z'));

		if (strchr("\\\"`", *value) || (*value == '$' && !variable))
			*at++ = '\\';
		*at++ = *value;
	}
	strcpy(at, "\"");
	return script;
}

static void env_expand(struct build_run *run, const char *value)
{
	_cleanup_free_ char *script = env_script(value);
	struct pdk_error err;

	if (script) {
		const char *argv[] = {"/bin/bash", "-l", "-c", script, NULL};
		const struct build_command command = {.argv = argv, .quiet = true, .timeout_ms = SHORT_TIMEOUT_MS};

		build_command(run, &command, env_expanded);
		return;
	}
	pdk_fail_errno(&err, -ENOMEM, "ENV");
	build_run_fail(run, &err);
}

/* A loop: 128 steps of 256 pairs would be too deep for the stack. */
static void env_next(struct build_run *run)
{
	const Paddock__V1__TemplateBuildStep *step = current(run);

	while (run->pair < step->n_args) {
		const char *value = step->args[run->pair + 1];

		if (strchr(value, '$')) {
			env_expand(run, value);
			return;
		}
		if (!env_set(run, value))
			return;
	}
	build_run_next(run);
}

/* --- WORKDIR --- */

static void workdir_done(struct build_run *run, const struct pdk_error *err)
{
	struct pdk_error failure;

	if (err)
		build_run_fail(run, err);
	else if (build_command_check(run, "WORKDIR: the directory could not be made", &failure) < 0)
		build_run_fail(run, &failure);
	else
		build_run_layer(run);
}

static void step_workdir(struct build_run *run, const Paddock__V1__TemplateBuildStep *step)
{
	/* New directories belong to the user. */
	static const char script[] =
		"d=$1; new=; while [ ! -e \"$d\" ]; do new=$d; d=${d%/*}; [ -n \"$d\" ] || d=/; done; "
		"mkdir -p -- \"$1\" && { [ -z \"$new\" ] || chown -R \"$2:$2\" -- \"$new\"; }";
	const char *path = step->args[0], *before = run->context.cwd ? run->context.cwd : "";
	_cleanup_free_ char *whole = NULL;
	struct pdk_error err;
	int rc = 0;

	if (asprintf(&whole, "%s%s%s", path[0] == '/' ? "" : before, path[0] == '/' ? "" : "/", path) < 0)
		rc = pdk_fail_errno(&err, -ENOMEM, "WORKDIR");
	if (rc >= 0)
		rc = validate_path_text("WORKDIR", whole, true, &err);
	if (rc < 0) {
		build_run_fail(run, &err);
		return;
	}
	free(run->context.cwd);
	run->context.cwd = STEAL_PTR(whole);
	{
		const char *argv[] = {"/bin/sh", "-c", script, "workdir", run->context.cwd, run->context.user, NULL};
		const struct build_command command = {
			.argv = argv, .user = "root", .cwd = "/", .plain = true, .timeout_ms = SHORT_TIMEOUT_MS};

		build_command(run, &command, workdir_done);
	}
}

/* --- USER --- */

static void step_user(struct build_run *run, const Paddock__V1__TemplateBuildStep *step)
{
	struct pdk_error err;

	if (!user_known(step->args[0])) {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT,
			 "USER: 'user' and 'root' are the users of sandboxes on this server, '%.60s' is not",
			 step->args[0]);
		build_run_fail(run, &err);
		return;
	}
	run->context.user = strcmp(step->args[0], "root") == 0 ? "root" : "user";
	build_run_next(run);
}

void build_step(struct build_run *run)
{
	const Paddock__V1__TemplateBuildStep *step = current(run);

	snprintf(run->label, sizeof(run->label), "%zu", run->step + 1);
	build_log_format(run->build, run->label, "%s %.300s%s%.100s", step->type, step->args[0],
			 strcmp(step->type, "COPY") == 0 ? " " : "",
			 strcmp(step->type, "COPY") == 0 ? step->args[1] : "");
	run->pair = 0;
	if (strcmp(step->type, "RUN") == 0)
		step_run(run, step);
	else if (strcmp(step->type, "COPY") == 0)
		build_step_copy(run, step);
	else if (strcmp(step->type, "ENV") == 0)
		env_next(run);
	else if (strcmp(step->type, "WORKDIR") == 0)
		step_workdir(run, step);
	else
		step_user(run, step);
}
