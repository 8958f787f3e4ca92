#include "template_private.h"

#include "format.h"
#include "json.h"
#include "progress.h"
#include "recipe.h"
#include "table.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_SIZE (256u << 10)
#define TICK_MS 200

static int cmd_template_list(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {"NAME", "ID", ">SIZE", ">FILES", "CREATED", ">SANDBOXES", "OWNER", NULL};
	Paddock__V1__ListTemplatesRequest request = PADDOCK__V1__LIST_TEMPLATES_REQUEST__INIT;
	Paddock__V1__ListTemplatesResponse *reply = NULL;
	char size[FORMAT_SIZE], age[FORMAT_SIZE];
	struct table *table;
	size_t i;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_template_list(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_t *object = json_of_message(&reply->base);

		json_print(json_incref(json_object_get(object, "templates")), false);
		json_decref(object);
		paddock_free(reply);
		return EXIT_OK;
	}
	table = table_create(heads, cli->color);
	for (i = 0; i < reply->n_templates; i++) {
		const Paddock__V1__Template *template = reply->templates[i];

		table_add(table, template->name);
		table_addf(table, "%.13s", template->id);
		table_add(table, format_size(size, template->size_bytes));
		table_addf(table, "%llu", (unsigned long long)template->files);
		table_add(table, format_age(age, template->created_unix_ms));
		table_addf(table, "%u", template->sandboxes);
		table_add(table, *template->tenant ? template->tenant : "(public)");
	}
	table_print(table);
	paddock_free(reply);
	return EXIT_OK;
}

void template_print(const struct cli *cli, const Paddock__V1__Template *template)
{
	char text[FORMAT_SIZE], size[FORMAT_SIZE], line[512];
	size_t i;

	if (cli->json) {
		json_print_message(template, false);
		return;
	}
	field_print(cli->color, "Template", template->name);
	field_print(cli->color, "Id", template->id);
	if (*template->digest) {
		field_print(cli->color, "Digest", template->digest);
		snprintf(line, sizeof(line), "%s in %llu files", format_size(size, template->size_bytes),
			 (unsigned long long)template->files);
	} else {
		snprintf(line, sizeof(line), "%s on what is below it%s", format_size(size, template->size_bytes),
			 template->has_memory ? ", with memory" : "");
	}
	field_print(cli->color, "Size", line);
	if (*template->build_id)
		field_print(cli->color, "Build", template->build_id);
	field_print(cli->color, "Owner", *template->tenant ? template->tenant : "(public)");
	field_print(cli->color, "Created", format_time(text, template->created_unix_ms));
	for (i = 0; i < template->n_labels; i++) {
		snprintf(line, sizeof(line), "%s=%s", template->labels[i]->key, template->labels[i]->value);
		field_print(cli->color, "Label", line);
	}
	snprintf(line, sizeof(line), "%u", template->sandboxes);
	field_print(cli->color, "Sandboxes", line);
}

static int get_template(struct cli *cli, const char *name, Paddock__V1__Template **ret_template)
{
	Paddock__V1__GetTemplateRequest request = PADDOCK__V1__GET_TEMPLATE_REQUEST__INIT;
	int rc = cli_connect(cli);

	request.template_ = (char *)name;
	return rc < 0 ? rc : paddock_template_get(cli->client, &request, ret_template, &cli->err);
}

static int cmd_template_get(struct cli *cli, const struct args *args)
{
	Paddock__V1__Template *template = NULL;
	int rc = get_template(cli, args->argv[0], &template);

	if (rc < 0)
		return rc;
	template_print(cli, template);
	paddock_free(template);
	return EXIT_OK;
}

static int cmd_template_remove(struct cli *cli, const struct args *args)
{
	Paddock__V1__RemoveTemplateRequest request = PADDOCK__V1__REMOVE_TEMPLATE_REQUEST__INIT;
	Paddock__V1__RemoveTemplateResponse *reply = NULL;
	int rc = cli_connect(cli);

	request.template_ = (char *)args->argv[0];
	request.force = args_has(args, "force");
	if (rc == 0)
		rc = paddock_template_remove(cli->client, &request, &reply, &cli->err);
	paddock_free(reply);
	if (rc == -EBUSY)
		snprintf(cli->hint, sizeof(cli->hint), "kill its sandboxes first, or give --force");
	return rc;
}

/* An upload of a tar stream into Templates.Build, with what the server says about it. */
struct upload {
	struct cli *cli;
	struct paddock_stream *stream;
	struct progress progress;
	uint64_t sent;
	int keep; /* where a copy of the tar goes; 0: nowhere */
	char phase[96];
	Paddock__V1__Template *result; /* points into `last` */
	Paddock__V1__BuildTemplateProgress *last;
};

static int upload_begin(struct upload *upload, Paddock__V1__BuildTemplateHeader *header)
{
	Paddock__V1__BuildTemplateRequest first = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__INIT;

	upload->stream = paddock_template_build(upload->cli->client, &upload->cli->err);
	if (!upload->stream)
		return -EIO;
	first.message_case = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__MESSAGE_HEADER;
	first.header = header;
	return paddock_stream_send(upload->stream, &first, &upload->cli->err);
}

/* What the server has said so far, waiting at most `timeout_ms` for it. 1: it spoke, 0: the end, -EAGAIN: nothing. */
static int upload_listen(struct upload *upload, int64_t timeout_ms)
{
	Paddock__V1__BuildTemplateProgress *message = NULL;
	int rc = paddock_stream_next(upload->stream, timeout_ms, &message, &upload->cli->err);

	if (rc <= 0)
		return rc;
	snprintf(upload->phase, sizeof(upload->phase), "%s", message->phase);
	paddock_free(upload->last);
	upload->last = message;
	upload->result = message->template_;
	return 1;
}

static int upload_data(struct upload *upload, const void *data, size_t length)
{
	Paddock__V1__BuildTemplateRequest message = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__INIT;
	int rc;

	message.message_case = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__MESSAGE_DATA;
	message.data = (ProtobufCBinaryData){.len = length, .data = (uint8_t *)data};
	rc = paddock_stream_send(upload->stream, &message, &upload->cli->err);
	upload->sent += length;
	while (rc == 0 && upload_listen(upload, 0) > 0)
		;
	upload->progress.what = *upload->phase ? upload->phase : "sending";
	progress_update(&upload->progress, upload->sent);
	return rc;
}

/* Everything is sent: wait for the template. */
static int upload_end(struct upload *upload)
{
	int rc;

	paddock_stream_close_send(upload->stream, NULL);
	upload->progress.total = 0;
	while ((rc = upload_listen(upload, TICK_MS)) != 0) {
		if (rc < 0 && rc != -EAGAIN)
			return rc;
		upload->progress.what = *upload->phase ? upload->phase : "unpacking";
		progress_update(&upload->progress, upload->sent);
	}
	if (!upload->result)
		return pdk_fail(&upload->cli->err, -EBADMSG, PDK_DATA_LOSS,
				"the server ended the call without a template");
	return 0;
}

/* -EPIPE from a send means that the server has refused: ask why. */
static int upload_reason(struct upload *upload, int rc)
{
	if (rc == -EPIPE)
		while ((rc = upload_listen(upload, PADDOCK_NO_TIMEOUT)) > 0)
			;
	return rc == 0 ? pdk_fail(&upload->cli->err, -EBADMSG, PDK_DATA_LOSS, "the server ended the call early") : rc;
}

static void upload_clear(struct upload *upload)
{
	progress_end(&upload->progress);
	paddock_stream_free(upload->stream);
	paddock_free(upload->last);
}

/* For --keep. */
static int keep_copy(struct upload *upload, const uint8_t *data, size_t length)
{
	while (upload->keep > 0 && length > 0) {
		ssize_t n = write(upload->keep, data, length);

		if (n < 0)
			return pdk_fail_errno(&upload->cli->err, -errno, "cannot keep the tar");
		data += n;
		length -= (size_t)n;
	}
	return 0;
}

/* Send all of `fd`. With a recipe, its phase is shown until bytes come. */
static int upload_fd(struct upload *upload, int fd, const struct recipe_run *run)
{
	_cleanup_free_ uint8_t *buffer = malloc(CHUNK_SIZE);
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	char phase[96] = "starting";
	int rc = 0;

	if (!buffer)
		return pdk_fail_errno(&upload->cli->err, -ENOMEM, "buffer");
	while (rc == 0) {
		ssize_t n;

		if (run && upload->sent == 0 && poll(&poll_fd, 1, TICK_MS) == 0) {
			recipe_phase(run, phase, sizeof(phase));
			upload->progress.what = phase;
			progress_update(&upload->progress, 0);
			/* A refusal, before minutes of work are done for nothing. */
			while ((rc = upload_listen(upload, 0)) > 0)
				;
			rc = rc == -EAGAIN ? 0 : rc == 0 ? -EPIPE : rc;
			continue;
		}
		n = read(fd, buffer, CHUNK_SIZE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pdk_fail_errno(&upload->cli->err, -errno, "cannot read");
		if (n == 0)
			return 0;
		rc = upload_data(upload, buffer, (size_t)n);
		if (rc == 0)
			rc = keep_copy(upload, buffer, (size_t)n);
	}
	return rc;
}

static int cmd_template_import(struct cli *cli, const struct args *args)
{
	Paddock__V1__BuildTemplateHeader header = PADDOCK__V1__BUILD_TEMPLATE_HEADER__INIT;
	const char *path = args->argv[1];
	_cleanup_fd_ int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
	struct upload upload = {.cli = cli};
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pdk_fail_errno(&cli->err, -errno, "%s", path);
	rc = cli_connect(cli);
	if (rc == 0)
		rc = args_size(cli, args, "max-size", &header.max_bytes);
	if (rc < 0)
		return rc;
	header.name = (char *)args->argv[0];
	header.replace = args_has(args, "replace");
	header.public_ = args_has(args, "public");
	progress_start(&upload.progress, "sending", S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0);
	rc = upload_begin(&upload, &header);
	if (rc == 0)
		rc = upload_fd(&upload, fd, NULL);
	rc = rc == 0 ? upload_end(&upload) : upload_reason(&upload, rc);
	progress_end(&upload.progress);
	if (rc == 0)
		template_print(cli, upload.result);
	else if (rc == -EEXIST)
		snprintf(cli->hint, sizeof(cli->hint), "--replace lets the name move to the new content");
	upload_clear(&upload);
	return rc;
}

static bool is_built(struct cli *cli, const char *name, const char *digest)
{
	Paddock__V1__Template *template = NULL;
	bool same = false;
	size_t i;

	if (get_template(cli, name, &template) < 0)
		return false;
	for (i = 0; i < template->n_labels; i++)
		same |= !strcmp(template->labels[i]->key, "recipe") && !strcmp(template->labels[i]->value, digest);
	if (same)
		template_print(cli, template);
	paddock_free(template);
	return same;
}

/* Ask before two minutes of work whether its result would be taken. */
static int check_rights(struct cli *cli, bool *ret_operator)
{
	Paddock__V1__WhoAmIRequest request = PADDOCK__V1__WHO_AM_IREQUEST__INIT;
	Paddock__V1__WhoAmIResponse *me = NULL;
	bool allowed;
	size_t i;
	int rc = paddock_who_am_i(cli->client, &request, &me, &cli->err);

	if (rc < 0)
		return rc;
	*ret_operator = me->operator_;
	allowed = me->operator_;
	for (i = 0; i < me->n_scopes; i++)
		allowed |= !strcmp(me->scopes[i], "template") || !strcmp(me->scopes[i], "admin");
	paddock_free(me);
	if (!allowed)
		return pdk_fail(&cli->err, -EACCES, PDK_PERMISSION_DENIED, "the key lacks the scope \"template\"");
	return 0;
}

static int run_recipe(struct cli *cli, char *const argv[], Paddock__V1__BuildTemplateHeader *header, int keep)
{
	struct upload upload = {.cli = cli, .keep = keep};
	struct recipe_run run;
	void (*old)(int) = signal(SIGINT, SIG_IGN);
	int rc, finish;

	/* Ctrl-C reaches mmdebstrap itself, which cleans up and fails. */
	rc = recipe_start(argv, &run, &cli->err);
	if (rc < 0)
		return rc;
	progress_start(&upload.progress, "starting", 0);
	rc = upload_begin(&upload, header);
	if (rc == 0)
		rc = upload_fd(&upload, run.out, &run);
	progress_end(&upload.progress);
	if (rc < 0) {
		kill(run.pid, SIGTERM);
		rc = upload_reason(&upload, rc);
	}
	finish = recipe_finish(&run, rc < 0 ? NULL : &cli->err);
	signal(SIGINT, old);
	/* A tar that was cut short must not become a template: without the end of the call, the server drops it. */
	if (rc == 0)
		rc = finish < 0 ? finish : upload_end(&upload);
	progress_end(&upload.progress);
	if (rc == 0)
		template_print(cli, upload.result);
	upload_clear(&upload);
	return rc;
}

/* Write the tar to a file, aside and then renamed, so that a build that fails leaves none. */
static int save_recipe(struct cli *cli, char *const argv[], const char *path)
{
	struct progress progress = {0};
	struct recipe_run run;
	_cleanup_free_ char *aside = NULL;
	_cleanup_fd_ int fd = -1;
	char phase[96] = "starting";
	uint64_t written = 0;
	ssize_t n = 0;
	int rc;

	if (asprintf(&aside, "%s.new", path) < 0)
		return pdk_fail_errno(&cli->err, -ENOMEM, "%s", path);
	fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return pdk_fail_errno(&cli->err, -errno, "%s", aside);
	rc = recipe_start(argv, &run, &cli->err);
	if (rc < 0)
		return rc;
	progress_start(&progress, phase, 0);
	do {
		struct pollfd poll_fd = {.fd = run.out, .events = POLLIN};

		if (written == 0 && poll(&poll_fd, 1, TICK_MS) == 0)
			recipe_phase(&run, phase, sizeof(phase));
		else if ((n = splice(run.out, NULL, fd, NULL, 1 << 20, 0)) > 0)
			written += (uint64_t)n;
		else
			break;
		progress_update(&progress, written);
	} while (true);
	progress_end(&progress);
	if (n < 0)
		rc = pdk_fail_errno(&cli->err, -errno, "%s", aside);
	if (recipe_finish(&run, rc < 0 ? NULL : &cli->err) < 0)
		rc = -EIO;
	if (rc == 0 && rename(aside, path) < 0)
		rc = pdk_fail_errno(&cli->err, -errno, "%s", path);
	if (rc < 0)
		unlink(aside);
	return rc;
}

/* Written aside and renamed: the kept tar is whole, or it is not there, also when two builds keep the same one. */
static int keep_recipe(struct cli *cli, const char *path, char *const argv[], Paddock__V1__BuildTemplateHeader *header)
{
	_cleanup_free_ char *aside = NULL;
	_cleanup_fd_ int fd = -1;
	int rc;

	if (asprintf(&aside, "%s.XXXXXX", path) < 0)
		abort();
	fd = mkostemp(aside, O_CLOEXEC);
	if (fd < 0)
		return pdk_fail_errno(&cli->err, -errno, "%s", path);
	rc = run_recipe(cli, argv, header, fd);
	if (rc == 0 && (fchmod(fd, 0644) < 0 || rename(aside, path) < 0))
		rc = pdk_fail_errno(&cli->err, -errno, "%s", path);
	if (rc < 0)
		unlink(aside);
	return rc;
}

static int build_recipe(struct cli *cli, const struct args *args, char *argv[RECIPE_ARGS_MAX])
{
	Paddock__V1__BuildTemplateHeader__LabelsEntry label = PADDOCK__V1__BUILD_TEMPLATE_HEADER__LABELS_ENTRY__INIT;
	Paddock__V1__BuildTemplateHeader__LabelsEntry *labels[] = {&label};
	Paddock__V1__BuildTemplateHeader header = PADDOCK__V1__BUILD_TEMPLATE_HEADER__INIT;
	const char *name = args_value(args, "name");
	const char *keep_path = args_value(args, "keep");
	char digest[RECIPE_DIGEST_SIZE];
	bool is_operator = false;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = check_rights(cli, &is_operator);
	if (rc < 0)
		return rc;
	recipe_digest(argv, digest);
	header.name = (char *)(name ? name : recipe_template(args->argv[0]));
	if (!args_has(args, "force") && is_built(cli, header.name, digest))
		return EXIT_OK;
	label.key = (char *)"recipe";
	label.value = digest;
	header.labels = labels;
	header.n_labels = 1;
	header.replace = true;
	header.public_ = is_operator && !args_has(args, "private");
	return keep_path ? keep_recipe(cli, keep_path, argv, &header) : run_recipe(cli, argv, &header, 0);
}

/* Options of one of the two forms that were given to the other. */
static int refuse_options(struct cli *cli, const struct args *args, const char *const *names, const char *form)
{
	for (; *names; names++)
		if (args_has(args, *names))
			return cli_usage(cli, "template build: --%s is for %s", *names, form);
	return 0;
}

static int check_form(struct cli *cli, const struct args *args)
{
	static const char *const of_recipes[] = {"suite",   "name",  "mirror", "include", "keep",
						 "private", "force", "to-tar", NULL};
	static const char *const of_steps[] = {"file",   "tag", "no-cache", "ready", "quiet",
					       "memory", "cpu", "pids",     "disk",  NULL};

	if (args->argc == 2)
		return refuse_options(cli, args, of_recipes, "the recipes 'base' and 'code-interpreter'");
	if (strcmp(args->argv[0], "base") != 0 && strcmp(args->argv[0], "code-interpreter") != 0)
		return cli_usage(
			cli,
			"template build: NAME DIR builds from the steps of a file; alone stand the recipes 'base' and "
			"'code-interpreter'");
	return refuse_options(cli, args, of_steps, "builds from steps: NAME DIR");
}

static int build_by_recipe(struct cli *cli, const struct args *args)
{
	struct recipe recipe = {
		.name = args->argv[0], .suite = args_value(args, "suite"), .mirror = args_value(args, "mirror")};
	char *argv[RECIPE_ARGS_MAX] = {};
	const char *text;
	int index = 0, rc;

	while ((text = args_next(args, "include", &index))) {
		if (recipe.n_include == (int)ARRAY_SIZE(recipe.include))
			return cli_usage(cli, "--include: more than %zu times", ARRAY_SIZE(recipe.include));
		recipe.include[recipe.n_include++] = text;
	}
	text = args_value(args, "to-tar");
	rc = recipe_args(&recipe, argv, &cli->err);
	if (rc == 0)
		rc = text ? save_recipe(cli, argv, text) : build_recipe(cli, args, argv);
	recipe_args_clear(argv);
	return rc;
}

static int cmd_template_build(struct cli *cli, const struct args *args)
{
	int rc = check_form(cli, args);

	if (rc < 0)
		return rc;
	return args->argc == 2 ? template_build_steps(cli, args) : build_by_recipe(cli, args);
}

static const struct option_spec no_options[] = {{}};

static const struct option_spec remove_options[] = {
	{"force", 'f', NULL, "even while sandboxes use it"},
	{},
};

static const struct option_spec from_snapshot_options[] = {
	{"replace", 0, NULL, "let the name move to the snapshot"},
	{},
};

static const struct option_spec import_options[] = {
	{"replace", 0, NULL, "let the name move to the new content"},
	{"public", 0, NULL, "for all tenants (operator only)"},
	{"max-size", 0, "SIZE", "limit of unpacked bytes"},
	{},
};

static const struct option_spec logs_options[] = {
	{"follow", 'f', NULL, "go on until it has ended; 1 if it has failed"},
	{},
};

static const struct option_spec build_options[] = {
	{"file", 'f', "FILE", "what is done (default: DIR/Paddockfile, else DIR/Dockerfile); - is stdin"},
	{"tag", 't', "TAG", "one more tag; may be repeated"},
	{"no-cache", 0, NULL, "no step is taken over from an earlier build"},
	{"ready", 0, "COMMAND", "says by success that the start command is ready"},
	{"quiet", 'q', NULL, "no log"},
	{"memory", 'm', "SIZE", "limit of memory, also of what is made from it"},
	{"cpu", 0, "CORES", "limit of CPU, likewise"},
	{"pids", 0, "N", "limit of processes, likewise"},
	{"disk", 0, "SIZE", "limit of what is added, likewise"},
	{"suite", 0, "SUITE", "Debian suite: bookworm (default) or trixie"},
	{"name", 0, "NAME", "name of the template (default: base, or code-interpreter-v1)"},
	{"mirror", 0, "URL", "where packages come from (default: this machine's apt sources)"},
	{"include", 0, "PKG,...", "further packages; may be repeated"},
	{"keep", 0, "FILE", "keep the tar too, for `paddock template import` elsewhere"},
	{"private", 0, NULL, "only for the caller's tenant"},
	{"force", 0, NULL, "build even if the recipe has not changed"},
	{"to-tar", 0, "FILE", "write the tar there instead of sending it (for `template import`)"},
	{},
};

const struct command template_commands[] = {
	{.name = "list",
	 .group = "",
	 .summary = "List templates",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_template_list},
	{.name = "get",
	 .group = "",
	 .summary = "Show one template",
	 .synopsis = "TEMPLATE",
	 .options = no_options,
	 .run = cmd_template_get,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_TEMPLATE},
	{.name = "build",
	 .group = "",
	 .summary = "Make a template from steps, or of Debian packages",
	 .synopsis = "NAME[:TAG] DIR [OPTIONS] | base|code-interpreter [OPTIONS]",
	 .options = build_options,
	 .run = cmd_template_build,
	 .min_operands = 1,
	 .max_operands = 2,
	 .operand = OPERAND_FILE,
	 .details =
		 "With DIR: the server runs the steps of a file in a sandbox, and keeps what each leaves for the "
		 "next build.\n"
		 "The file has the form of a Dockerfile: FROM a template, RUN, COPY files of DIR, ENV, WORKDIR, USER "
		 "(user\n"
		 "or root), CMD and ENTRYPOINT (what is left running, with its memory). All else is refused. --file,\n"
		 "--tag, --no-cache, --ready, --quiet and limits are for this form. Ctrl-C stops the build.\n\n"
		 "base, code-interpreter: runs mmdebstrap on this machine and sends the result to the server. An\n"
		 "unchanged recipe is not built twice. All other options are for this form.\n\nExamples\n"
		 "  paddock template build web ./web --tag v2 --ready 'curl -fs localhost:8000'\n"
		 "  sudo paddock template build base\n"
		 "  sudo paddock template build base --suite trixie --name trixie --include golang-go,jq\n"
		 "  sudo paddock template build code-interpreter --include python3-matplotlib,python3-pandas\n"},
	{.name = "builds",
	 .group = "",
	 .summary = "List builds from steps, also those that ended today",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_template_builds},
	{.name = "logs",
	 .group = "",
	 .summary = "Print the log of a build",
	 .synopsis = "BUILD",
	 .options = logs_options,
	 .run = cmd_template_logs,
	 .min_operands = 1,
	 .max_operands = 1},
	{.name = "stop",
	 .group = "",
	 .summary = "Stop a build",
	 .synopsis = "BUILD",
	 .options = no_options,
	 .run = cmd_template_stop,
	 .min_operands = 1,
	 .max_operands = 1},
	{.name = "import",
	 .group = "",
	 .summary = "Make a template of a tar file",
	 .synopsis = "NAME FILE|-",
	 .options = import_options,
	 .run = cmd_template_import,
	 .min_operands = 2,
	 .max_operands = 2,
	 .operand = OPERAND_FILE,
	 .details = "The tar (plain, gzip, zstd or xz) holds a root file system with /bin/sh.\n\nExamples\n"
		    "  docker export $(docker create alpine) | paddock template import alpine -\n"
		    "  paddock template import mine rootfs.tar.zst --replace\n"},
	{.name = "from-snapshot",
	 .group = "",
	 .summary = "Make a template of a snapshot",
	 .synopsis = "SNAPSHOT NAME[:TAG]",
	 .options = from_snapshot_options,
	 .run = cmd_template_from_snapshot,
	 .min_operands = 2,
	 .max_operands = 2,
	 .operand = OPERAND_SNAPSHOT,
	 .details = "It stays when the snapshot is removed. Processes of the snapshot go on in every sandbox that is "
		    "made\n"
		    "from it.\n\nExamples\n"
		    "  paddock template from-snapshot warm web:v2\n  paddock create --template web:v2\n"},
	{.name = "tag",
	 .group = "",
	 .summary = "Let tags of a template mean what it means now",
	 .synopsis = "NAME[:TAG] TAG...",
	 .options = no_options,
	 .run = cmd_template_tag,
	 .min_operands = 2,
	 .max_operands = -1,
	 .operand = OPERAND_TEMPLATE},
	{.name = "untag",
	 .group = "",
	 .summary = "Take tags away",
	 .synopsis = "NAME TAG...",
	 .options = no_options,
	 .run = cmd_template_untag,
	 .min_operands = 2,
	 .max_operands = -1,
	 .operand = OPERAND_TEMPLATE},
	{.name = "remove",
	 .group = "",
	 .summary = "Take a template's name away",
	 .synopsis = "TEMPLATE",
	 .options = remove_options,
	 .run = cmd_template_remove,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_TEMPLATE},
	{.name = NULL},
};
