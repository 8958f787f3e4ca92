#include "template_private.h"

#include "build_context.h"
#include "build_follow.h"
#include "format.h"
#include "json.h"
#include "paddockfile.h"
#include "progress.h"
#include "sandbox.h"
#include "table.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * `template build NAME DIR`: from the steps of a file in the form of a Dockerfile (paddockfile.c), with the files of a
 * folder (build_context.c); what the server says of it is followed (build_follow.c). Ctrl-C stops the build.
 */

#define TAGS_MAX 16
#define UPLOAD_PIECE (512u << 10)

struct steps {
	struct cli *cli;
	struct paddockfile file;
	char file_name[256]; /* for people */
	struct build_context *context;
	struct build_tree trees[PADDOCKFILE_STEPS_MAX]; /* of the steps that are COPY */
	Paddock__V1__TemplateBuild *build;
};

static volatile sig_atomic_t caught;

static void on_signal(int signal)
{
	caught = signal;
}

static bool is_unwanted(void)
{
	return caught;
}

/* The second one ends this program at once. */
static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* --- the file --- */

static int read_stream(FILE *stream, const char *name, char **ret, size_t *ret_length, struct pdk_error *err)
{
	char *text = malloc(PADDOCKFILE_MAX + 2);

	if (!text)
		abort();
	*ret_length = fread(text, 1, PADDOCKFILE_MAX + 1, stream);
	*ret = text;
	return ferror(stream) ? pdk_fail_errno(err, -errno, "%s", name) : 0;
}

static int read_named(const char *path, char **ret, size_t *ret_length, struct pdk_error *err)
{
	_cleanup_file_ FILE *file = fopen(path, "re");

	return file ? read_stream(file, path, ret, ret_length, err) : pdk_fail_errno(err, -errno, "%s", path);
}

/* --file, or one of the two names that the folder may have. */
static int read_file(struct steps *steps, const char *path, const char *folder, char **ret, size_t *ret_length)
{
	static const char *const names[] = {"Paddockfile", "Dockerfile"};
	struct pdk_error *err = &steps->cli->err;
	int rc = -ENOENT;

	if (path) {
		bool is_input = strcmp(path, "-") == 0;

		snprintf(steps->file_name, sizeof(steps->file_name), "%.200s", is_input ? "standard input" : path);
		return is_input ? read_stream(stdin, steps->file_name, ret, ret_length, err)
				: read_named(path, ret, ret_length, err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names) && rc == -ENOENT; i++) {
		snprintf(steps->file_name, sizeof(steps->file_name), "%s", names[i]);
		rc = build_context_read(steps->context, names[i], PADDOCKFILE_MAX, ret, ret_length, err);
	}
	if (rc == -ENOENT)
		return pdk_fail(err, rc, PDK_INVALID_ARGUMENT,
				"%s has no Paddockfile and no Dockerfile; --file names one", folder);
	return rc;
}

static int read_steps(struct steps *steps, const struct args *args)
{
	struct pdk_error *err = &steps->cli->err;
	_cleanup_free_ char *text = NULL;
	size_t length = 0;
	int rc;

	steps->context = build_context_open(args->argv[1], err);
	rc = steps->context ? read_file(steps, args_value(args, "file"), args->argv[1], &text, &length) : -EIO;
	if (rc >= 0)
		rc = paddockfile_parse(text, length, steps->file_name, &steps->file, err);
	for (size_t i = 0; i < steps->file.n_steps && rc >= 0; i++) {
		const struct paddockfile_step *step = &steps->file.steps[i];
		const char *target = strcmp(step->type, "COPY") == 0 ? step->args[step->n_args - 1] : NULL;

		if (!target)
			continue;
		rc = build_context_collect(steps->context, step->args, step->n_args - 1,
					   *target && target[strlen(target) - 1] == '/', &steps->trees[i], err);
		if (rc < 0)
			pdk_wrap(err, rc, "%s:%u: COPY", steps->file_name, step->line);
	}
	return rc;
}

/* --- uploads --- */

struct sending {
	struct paddock_stream *stream;
	struct progress progress;
	uint64_t sent;
};

static int send_piece(void *arg, const void *data, size_t length, struct pdk_error *err)
{
	struct sending *sending = arg;

	for (size_t at = 0; at < length;) {
		Paddock__V1__UploadBuildFilesRequest request = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__INIT;
		size_t n = length - at < UPLOAD_PIECE ? length - at : UPLOAD_PIECE;
		int rc;

		if (caught)
			return pdk_fail(err, -EINTR, PDK_CANCELLED, "interrupted");
		request.message_case = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_DATA;
		request.data = (ProtobufCBinaryData){.len = n, .data = (uint8_t *)(uintptr_t)data + at};
		rc = paddock_stream_send(sending->stream, &request, err);
		if (rc < 0)
			return rc;
		at += n;
		sending->sent += n;
		progress_update(&sending->progress, sending->sent);
	}
	return 0;
}

static int upload(struct steps *steps, const struct build_tree *tree, char *token)
{
	Paddock__V1__UploadBuildFilesHeader header = PADDOCK__V1__UPLOAD_BUILD_FILES_HEADER__INIT;
	Paddock__V1__UploadBuildFilesRequest first = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__INIT;
	struct sending sending = {.stream = paddock_build_upload(steps->cli->client, &steps->cli->err)};
	Paddock__V1__UploadBuildFilesResponse *reply = NULL;
	struct pdk_error *err = &steps->cli->err;
	int rc;

	if (!sending.stream)
		return -EIO;
	header.hash = (char *)(uintptr_t)tree->hash;
	header.upload_token = token;
	first.message_case = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_HEADER;
	first.header = &header;
	progress_start(&sending.progress, "sending files", tree->bytes);
	rc = paddock_stream_send(sending.stream, &first, err);
	if (rc >= 0)
		rc = build_context_pack(steps->context, tree, send_piece, &sending, err);
	/* What was refused, the end of the call says why. What is not whole is not ended: so the server drops it. */
	if (rc >= 0 || rc == -EPIPE)
		rc = paddock_stream_finish(sending.stream, &reply, err);
	progress_end(&sending.progress);
	paddock_stream_free(sending.stream);
	paddock_free(reply);
	return rc;
}

static int upload_if_missing(struct steps *steps, const struct build_tree *tree)
{
	Paddock__V1__GetBuildFilesRequest request = PADDOCK__V1__GET_BUILD_FILES_REQUEST__INIT;
	Paddock__V1__BuildFiles *files = NULL;
	int rc;

	request.hash = (char *)(uintptr_t)tree->hash;
	rc = paddock_build_files(steps->cli->client, &request, &files, &steps->cli->err);
	if (rc >= 0 && !files->present)
		rc = upload(steps, tree, files->upload_token);
	paddock_free(files);
	return rc;
}

static int upload_all(struct steps *steps)
{
	int rc = 0;

	for (size_t i = 0; i < steps->file.n_steps && rc >= 0; i++)
		if (steps->trees[i].n)
			rc = upload_if_missing(steps, &steps->trees[i]);
	return rc;
}

/* --- the build --- */

static int create(struct steps *steps, const struct args *args)
{
	Paddock__V1__CreateTemplateBuildRequest request = PADDOCK__V1__CREATE_TEMPLATE_BUILD_REQUEST__INIT;
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;
	char *tags[TAGS_MAX];
	const char *tag;
	int index = 0, rc = resources_from_args(steps->cli, args, &resources);

	while (rc >= 0 && (tag = args_next(args, "tag", &index))) {
		if (request.n_tags == TAGS_MAX)
			return cli_usage(steps->cli, "--tag: more than %d times", TAGS_MAX);
		tags[request.n_tags++] = (char *)(uintptr_t)tag;
	}
	request.name = (char *)(uintptr_t)args->argv[0];
	request.tags = tags;
	request.resources = &resources;
	if (rc >= 0)
		rc = cli_connect(steps->cli);
	return rc < 0 ? rc : paddock_build_create(steps->cli->client, &request, &steps->build, &steps->cli->err);
}

/* As the contract wants it; what it points to is the file's and the tree's. */
static void fill_step(const struct paddockfile_step *from, const struct build_tree *tree, char *args[4],
		      Paddock__V1__TemplateBuildStep *step)
{
	paddock__v1__template_build_step__init(step);
	step->type = (char *)(uintptr_t)from->type;
	step->args = from->args;
	step->n_args = from->n_args;
	if (!tree->n)
		return;
	args[0] = (char *)(uintptr_t)tree->source;
	args[1] = from->args[from->n_args - 1];
	args[2] = from->owner ? from->owner : (char *)"";
	args[3] = from->mode ? from->mode : (char *)"";
	step->args = args;
	step->n_args = 4;
	step->files_hash = (char *)(uintptr_t)tree->hash;
}

/* "steps[2].args: ..." is of a line of the file. */
static void name_line(const struct steps *steps, int rc)
{
	size_t index;

	if (sscanf(steps->cli->err.text, "steps[%zu]", &index) == 1 && index < steps->file.n_steps)
		pdk_wrap(&steps->cli->err, rc, "%s:%u", steps->file_name, steps->file.steps[index].line);
}

static int start(struct steps *steps, const struct args *args)
{
	Paddock__V1__StartTemplateBuildRequest request = PADDOCK__V1__START_TEMPLATE_BUILD_REQUEST__INIT;
	Paddock__V1__TemplateBuildStep all[PADDOCKFILE_STEPS_MAX], *pointers[PADDOCKFILE_STEPS_MAX];
	char *copies[PADDOCKFILE_STEPS_MAX][4];
	const char *ready = args_value(args, "ready");
	Paddock__V1__TemplateBuild *reply = NULL;
	int rc;

	for (size_t i = 0; i < steps->file.n_steps; i++) {
		fill_step(&steps->file.steps[i], &steps->trees[i], copies[i], &all[i]);
		pointers[i] = &all[i];
	}
	request.build_id = steps->build->id;
	request.from_template = steps->file.from;
	request.steps = pointers;
	request.n_steps = steps->file.n_steps;
	request.start_command = steps->file.start_command ? steps->file.start_command : (char *)"";
	request.ready_command = (char *)(uintptr_t)(ready ? ready : "");
	request.force = args_has(args, "no-cache");
	rc = paddock_build_start(steps->cli->client, &request, &reply, &steps->cli->err);
	paddock_free(reply);
	if (rc < 0)
		name_line(steps, rc);
	return rc;
}

/* Where it failed, in the words of who wrote the file. */
static int tell_failure(const struct steps *steps, const Paddock__V1__TemplateBuild *build)
{
	size_t number = strtoul(build->reason_step, NULL, 10);
	unsigned int line = strcmp(build->reason_step, "finalize") == 0 ? steps->file.start_line : 0;

	if (number && number <= steps->file.n_steps)
		line = steps->file.steps[number - 1].line;
	if (!line)
		return pdk_fail(&steps->cli->err, -EIO, PDK_ABORTED, "the build has failed: %s", build->reason);
	return pdk_fail(&steps->cli->err, -EIO, PDK_ABORTED, "%s:%u: %s", steps->file_name, line, build->reason);
}

static int print_template(struct cli *cli, const Paddock__V1__TemplateBuild *build)
{
	Paddock__V1__GetTemplateRequest request = PADDOCK__V1__GET_TEMPLATE_REQUEST__INIT;
	Paddock__V1__Template *template = NULL;
	char name[256];
	int rc;

	snprintf(name, sizeof(name), "%s:%s", build->name, build->n_tags ? build->tags[0] : "default");
	request.template_ = name;
	rc = paddock_template_get(cli->client, &request, &template, &cli->err);
	if (rc >= 0)
		template_print(cli, template);
	paddock_free(template);
	return rc < 0 ? rc : EXIT_OK;
}

static int follow(struct steps *steps, const struct args *args)
{
	struct build_follow follow = {.cli = steps->cli,
				      .id = steps->build->id,
				      .file = &steps->file,
				      .out = args_has(args, "quiet") ? NULL : stderr,
				      .is_unwanted = is_unwanted};
	Paddock__V1__TemplateBuild *build = NULL;
	int rc = build_follow(&follow, &build);

	if (rc < 0)
		return rc;
	if (steps->cli->json)
		json_print_message(build, false);
	if (build->state != PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_READY)
		rc = tell_failure(steps, build);
	else
		rc = steps->cli->json ? EXIT_OK : print_template(steps->cli, build);
	if (rc < 0 && follow.stopped) {
		fputs("paddock: the build was stopped\n", stderr);
		rc = 128 + caught;
	}
	paddock_free(build);
	return rc;
}

/* Files, steps, and then what the server makes of them. */
static int run(struct steps *steps, const struct args *args)
{
	int rc;

	catch_signals();
	rc = upload_all(steps);
	if (rc >= 0)
		rc = start(steps, args);
	if (rc >= 0)
		return follow(steps, args);
	build_stop(steps->cli, steps->build->id);
	return caught ? 128 + caught : rc;
}

int template_build_steps(struct cli *cli, const struct args *args)
{
	struct steps *steps = calloc(1, sizeof(*steps));
	int rc;

	if (!steps)
		abort();
	steps->cli = cli;
	rc = read_steps(steps, args);
	if (rc >= 0)
		rc = create(steps, args);
	if (rc >= 0)
		rc = run(steps, args);
	for (size_t i = 0; i < PADDOCKFILE_STEPS_MAX; i++)
		build_tree_clear(&steps->trees[i]);
	paddockfile_clear(&steps->file);
	build_context_close(steps->context);
	paddock_free(steps->build);
	free(steps);
	return rc;
}

/* --- builds that are told of --- */

int cmd_template_builds(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {"BUILD", "NAME", "TAGS", "STATE", "CREATED", "REASON", NULL};
	Paddock__V1__ListTemplateBuildsRequest request = PADDOCK__V1__LIST_TEMPLATE_BUILDS_REQUEST__INIT;
	Paddock__V1__ListTemplateBuildsResponse *reply = NULL;
	char age[FORMAT_SIZE], tags[64];
	struct table *table;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_build_list(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_t *object = json_of_message(&reply->base);

		json_print(json_incref(json_object_get(object, "builds")), false);
		json_decref(object);
		paddock_free(reply);
		return EXIT_OK;
	}
	table = table_create(heads, cli->color);
	for (size_t i = 0; i < reply->n_builds; i++) {
		const Paddock__V1__TemplateBuild *build = reply->builds[i];

		snprintf(tags, sizeof(tags), "%.40s%s", build->n_tags ? build->tags[0] : "",
			 build->n_tags > 1 ? ",..." : "");
		table_add(table, build->id);
		table_add(table, build->name);
		table_add(table, tags);
		table_add(table, build_state_name(build->state));
		table_add(table, format_age(age, build->created_unix_ms));
		table_addf(table, "%.60s", build->reason);
	}
	table_print(table);
	paddock_free(reply);
	return EXIT_OK;
}

int cmd_template_logs(struct cli *cli, const struct args *args)
{
	struct build_follow follow = {
		.cli = cli, .id = args->argv[0], .out = stdout, .json = cli->json, .once = !args_has(args, "follow")};
	Paddock__V1__TemplateBuild *build = NULL;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = build_follow(&follow, &build);
	if (rc < 0)
		return rc;
	rc = follow.once || build->state == PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_READY ? EXIT_OK
													  : EXIT_ERROR;
	paddock_free(build);
	return rc;
}

int cmd_template_stop(struct cli *cli, const struct args *args)
{
	Paddock__V1__StopTemplateBuildRequest request = PADDOCK__V1__STOP_TEMPLATE_BUILD_REQUEST__INIT;
	Paddock__V1__StopTemplateBuildResponse *reply = NULL;
	int rc = cli_connect(cli);

	request.build_id = (char *)(uintptr_t)args->argv[0];
	if (rc == 0)
		rc = paddock_build_stop(cli->client, &request, &reply, &cli->err);
	paddock_free(reply);
	return rc < 0 ? rc : EXIT_OK;
}
