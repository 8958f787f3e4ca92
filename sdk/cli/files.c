#include "files.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool remote_is(const char *text)
{
	const char *colon = strchr(text, ':');
	const char *slash = strchr(text, '/');

	return colon && colon > text && (!slash || slash > colon);
}

int remote_parse(struct cli *cli, const struct args *args, const char *text, struct remote *ret_remote)
{
	const char *colon = strchr(text, ':');
	_cleanup_free_ char *name = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
	const char *user = args_value(args, "user");
	int rc;

	if (!name)
		return pdk_fail_errno(&cli->err, -ENOMEM, "path");
	rc = cli_sandbox(cli, name, &ret_remote->sandbox_id);
	if (rc < 0)
		return rc;
	ret_remote->path = colon ? colon + 1 : "";
	ret_remote->user = user ? user : "";
	return 0;
}

int remote_operands(struct cli *cli, const struct args *args, struct remote *ret_remote)
{
	int rc;

	if (args->argc > 1 && remote_is(args->argv[0]))
		return cli_usage(cli, "%s: write SANDBOX:PATH, or SANDBOX and PATH", args->command->name);
	rc = remote_parse(cli, args, args->argv[0], ret_remote);
	if (rc == 0 && args->argc > 1)
		ret_remote->path = args->argv[1];
	return rc;
}

void remote_clear(struct remote *remote)
{
	free(remote->sandbox_id);
	remote->sandbox_id = NULL;
}

ProtobufCBinaryData path_data(const char *path)
{
	if (!*path)
		path = ".";
	return (ProtobufCBinaryData){.len = strlen(path), .data = (uint8_t *)path};
}

static const char *mode_text(char out[11], const Paddock__V1__FileInfo *info)
{
	static const char types[] = "?-dl?";
	int i;

	out[0] = (unsigned int)info->type < 5 ? types[info->type] : '?';
	for (i = 0; i < 9; i++)
		out[1 + i] = info->mode & (0400u >> i) ? "rwx"[i % 3] : '-';
	if (info->mode & 04000)
		out[3] = info->mode & 0100 ? 's' : 'S';
	if (info->mode & 02000)
		out[6] = info->mode & 010 ? 's' : 'S';
	if (info->mode & 01000)
		out[9] = info->mode & 1 ? 't' : 'T';
	out[10] = '\0';
	return out;
}

/* What is below the listed directory, or the last component. */
static ProtobufCBinaryData shown_name(const Paddock__V1__FileInfo *info, uint32_t depth)
{
	ProtobufCBinaryData name = info->path;
	const uint8_t *slash = memrchr(name.data, '/', name.len);

	if (depth > 1 || !slash || slash + 1 == name.data + name.len)
		return name;
	name.len -= (size_t)(slash + 1 - name.data);
	name.data += slash + 1 - name.data;
	return name;
}

static void ls_long(struct table *table, const Paddock__V1__FileInfo *info, uint32_t depth)
{
	char mode[11], time[FORMAT_SIZE];
	ProtobufCBinaryData name = shown_name(info, depth);
	_cleanup_free_ char *text = malloc(name.len + info->symlink_target.len + 5);
	size_t length = name.len;

	if (!text)
		abort();
	memcpy(text, name.data, name.len);
	if (info->symlink_target.len) {
		memcpy(text + length, " -> ", 4);
		memcpy(text + length + 4, info->symlink_target.data, info->symlink_target.len);
		length += 4 + info->symlink_target.len;
	}
	table_add(table, mode_text(mode, info));
	table_add(table, info->user);
	table_add(table, info->group);
	table_addf(table, "%llu", (unsigned long long)info->size);
	table_add(table, format_time(time, info->modified_unix_ms));
	table_add_bytes(table, text, length);
}

static void ls_short(const Paddock__V1__FileInfo *info, uint32_t depth)
{
	ProtobufCBinaryData name = shown_name(info, depth);
	char *safe = text_safe(name.data, name.len);

	printf("%s%s\n", safe, info->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_DIRECTORY ? "/" : "");
	free(safe);
}

struct ls_output {
	json_t *array;
	struct table *table;
	uint32_t depth;
};

static void ls_add(struct ls_output *output, const Paddock__V1__FileInfo *info)
{
	if (output->array)
		json_array_append_new(output->array, json_of_message(&info->base));
	else if (output->table)
		ls_long(output->table, info, output->depth);
	else
		ls_short(info, output->depth);
}

static int ls_stat(struct cli *cli, const struct remote *remote, struct ls_output *output, bool *ret_is_dir)
{
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;
	Paddock__V1__FileInfo *info = NULL;
	int rc;

	request.sandbox_id = remote->sandbox_id;
	request.path = path_data(remote->path);
	request.user = (char *)remote->user;
	request.follow = true;
	rc = paddock_file_stat(cli->client, &request, &info, &cli->err);
	if (rc < 0)
		return rc;
	*ret_is_dir = info->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_DIRECTORY;
	if (!*ret_is_dir)
		ls_add(output, info);
	paddock_free(info);
	return 0;
}

static int ls_pages(struct cli *cli, const struct remote *remote, struct ls_output *output)
{
	Paddock__V1__ListFilesRequest request = PADDOCK__V1__LIST_FILES_REQUEST__INIT;
	Paddock__V1__ListFilesResponse *page = NULL;
	_cleanup_free_ char *token = NULL;
	size_t i;
	int rc;

	request.sandbox_id = remote->sandbox_id;
	request.path = path_data(remote->path);
	request.user = (char *)remote->user;
	request.depth = output->depth;
	request.page_size = 1000;
	do {
		request.page_token = token ? token : (char *)"";
		rc = paddock_file_list(cli->client, &request, &page, &cli->err);
		if (rc < 0)
			return rc;
		for (i = 0; i < page->n_files; i++)
			ls_add(output, page->files[i]);
		free(token);
		token = strdup(page->next_page_token);
		paddock_free(page);
	} while (token && *token);
	return 0;
}

int cmd_ls(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {"MODE", "USER", "GROUP", ">SIZE", "MODIFIED", "NAME", NULL};
	struct ls_output output = {.depth = 1};
	struct remote remote = {0};
	uint64_t depth = args_has(args, "recursive") ? 64 : 1;
	bool is_dir = true;
	int rc = args_number(cli, args, "depth", 64, &depth);

	output.depth = (uint32_t)depth;
	if (rc == 0)
		rc = remote_operands(cli, args, &remote);
	if (rc < 0)
		return rc;
	output.array = cli->json ? json_array() : NULL;
	output.table = args_has(args, "long") && !cli->json ? table_create(heads, cli->color) : NULL;
	rc = ls_stat(cli, &remote, &output, &is_dir);
	if (rc == 0 && is_dir)
		rc = ls_pages(cli, &remote, &output);
	remote_clear(&remote);
	if (rc < 0)
		return rc;
	if (output.array)
		json_print(output.array, false);
	else if (output.table)
		table_print(output.table);
	return EXIT_OK;
}

int cmd_cat(struct cli *cli, const struct args *args)
{
	Paddock__V1__ReadFileRequest request = PADDOCK__V1__READ_FILE_REQUEST__INIT;
	struct remote remote = {0};
	Paddock__V1__FileChunk *chunk = NULL;
	struct paddock_stream *stream;
	int rc = remote_operands(cli, args, &remote);

	if (rc == 0)
		rc = args_number(cli, args, "offset", INT64_MAX, &request.offset);
	if (rc == 0)
		rc = args_number(cli, args, "length", INT64_MAX, &request.length);
	if (rc < 0)
		return rc;
	request.sandbox_id = remote.sandbox_id;
	request.path = path_data(remote.path);
	request.user = (char *)remote.user;
	stream = paddock_file_read(cli->client, &request, &cli->err);
	rc = stream ? 1 : -EIO;
	while (rc > 0 && (rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &chunk, &cli->err)) > 0) {
		if (fwrite(chunk->data.data, 1, chunk->data.len, stdout) != chunk->data.len)
			rc = pdk_fail_errno(&cli->err, -errno, "cannot write the output");
		paddock_free(chunk);
	}
	paddock_stream_free(stream);
	remote_clear(&remote);
	return rc;
}

static void watch_print(const struct cli *cli, const Paddock__V1__WatchEvent *event)
{
	static const char *const types[] = {"?",       "ready",      "created",  "written",  "removed",
					    "renamed", "attributes", "overflow", "keepalive"};
	char *path, *old;

	if (event->type == PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_KEEPALIVE)
		return;
	if (cli->json) {
		json_print_message(event, true);
		return;
	}
	path = text_safe(event->path.data, event->path.len);
	old = text_safe(event->old_path.data, event->old_path.len);
	printf("%-10s %s%s%s\n", (unsigned int)event->type < ARRAY_SIZE(types) ? types[event->type] : "?", old,
	       *old ? " -> " : "", path);
	fflush(stdout);
	free(path);
	free(old);
}

int cmd_watch(struct cli *cli, const struct args *args)
{
	Paddock__V1__WatchRequest request = PADDOCK__V1__WATCH_REQUEST__INIT;
	struct remote remote = {0};
	Paddock__V1__WatchEvent *event = NULL;
	struct paddock_stream *stream;
	int rc = remote_operands(cli, args, &remote);

	if (rc < 0)
		return rc;
	request.sandbox_id = remote.sandbox_id;
	request.path = path_data(remote.path);
	request.user = (char *)remote.user;
	request.recursive = args_has(args, "recursive");
	stream = paddock_file_watch(cli->client, &request, &cli->err);
	rc = stream ? 1 : -EIO;
	while (rc > 0 && (rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &cli->err)) > 0) {
		watch_print(cli, event);
		paddock_free(event);
	}
	paddock_stream_free(stream);
	remote_clear(&remote);
	return rc;
}

int cmd_rm(struct cli *cli, const struct args *args)
{
	Paddock__V1__RemoveRequest request = PADDOCK__V1__REMOVE_REQUEST__INIT;
	Paddock__V1__RemoveResponse *reply = NULL;
	struct remote remote = {0};
	int rc = remote_operands(cli, args, &remote);

	if (rc == 0 && !*remote.path)
		rc = cli_usage(cli, "rm: name a file: %s:PATH", args->argv[0]);
	request.sandbox_id = remote.sandbox_id;
	request.path = path_data(rc == 0 ? remote.path : "");
	request.user = (char *)(remote.user ? remote.user : "");
	request.recursive = args_has(args, "recursive");
	if (rc == 0)
		rc = paddock_file_remove(cli->client, &request, &reply, &cli->err);
	if (rc == 0 && cli->json)
		json_print_message(reply, false);
	paddock_free(reply);
	remote_clear(&remote);
	return rc;
}

static int parse_mode(struct cli *cli, const struct args *args, uint32_t *ret_mode)
{
	const char *text = args_value(args, "mode");
	char *end;
	unsigned long mode;

	if (!text)
		return 0;
	mode = strtoul(text, &end, 8);
	if (end == text || *end || mode > 07777)
		return cli_usage(cli, "--mode: '%s' is not an octal mode; write 0755", text);
	*ret_mode = (uint32_t)mode;
	return 0;
}

int cmd_mkdir(struct cli *cli, const struct args *args)
{
	Paddock__V1__MakeDirRequest request = PADDOCK__V1__MAKE_DIR_REQUEST__INIT;
	Paddock__V1__FileInfo *info = NULL;
	struct remote remote = {0};
	int rc = parse_mode(cli, args, &request.mode);

	if (rc == 0)
		rc = remote_operands(cli, args, &remote);
	if (rc == 0) {
		request.sandbox_id = remote.sandbox_id;
		request.path = path_data(remote.path);
		request.user = (char *)remote.user;
		request.parents = args_has(args, "parents");
		rc = paddock_file_make_dir(cli->client, &request, &info, &cli->err);
	}
	if (rc == 0 && cli->json)
		json_print_message(info, false);
	paddock_free(info);
	remote_clear(&remote);
	return rc;
}

int cmd_mv(struct cli *cli, const struct args *args)
{
	Paddock__V1__MoveRequest request = PADDOCK__V1__MOVE_REQUEST__INIT;
	Paddock__V1__FileInfo *info = NULL;
	struct remote from = {0};
	const char *to = args->argv[1];
	int rc;

	if (!remote_is(args->argv[0]))
		return cli_usage(cli, "mv: write SANDBOX:FROM TO");
	rc = remote_parse(cli, args, args->argv[0], &from);
	if (rc < 0)
		return rc;
	/* Both ends are in the same sandbox; saying it twice is allowed. */
	if (remote_is(to) && !strncmp(to, args->argv[0], (size_t)(strchr(to, ':') - to + 1)))
		to = strchr(to, ':') + 1;
	request.sandbox_id = from.sandbox_id;
	request.from = path_data(from.path);
	request.to = path_data(to);
	request.user = (char *)from.user;
	request.no_replace = args_has(args, "no-replace");
	rc = paddock_file_move(cli->client, &request, &info, &cli->err);
	if (rc == 0 && cli->json)
		json_print_message(info, false);
	paddock_free(info);
	remote_clear(&from);
	return rc;
}
