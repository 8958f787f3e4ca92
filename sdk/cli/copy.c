#include "files.h"

#include "archive.h"
#include "progress.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/*
 * paddock cp. Files travel by Files.Read and Files.Write, directories as tar streams. As with cp: a target that is a
 * directory receives the source under its own name; another target is what the source becomes.
 */

#define CHUNK_SIZE (256u << 10)

struct copying {
	struct cli *cli;
	struct remote remote;
	struct progress progress;
	uint64_t done;
	struct paddock_stream *stream;
	Paddock__V1__FileChunk *chunk;
};

static char *join(const char *directory, const char *name)
{
	size_t length = strlen(directory);
	char *path;

	if (asprintf(&path, "%s%s%s", directory, length && directory[length - 1] != '/' ? "/" : "", name) < 0)
		abort();
	return path;
}

static const char *last_component(const char *path, char **ret_copy)
{
	const char *name;

	*ret_copy = strdup(path);
	if (!*ret_copy)
		abort();
	name = basename(*ret_copy);
	return strcmp(name, "..") != 0 && strcmp(name, "/") != 0 ? name : ".";
}

/* 1: a directory, 0: something else, -ENOENT: nothing. */
static int remote_kind(struct copying *copying, const char *path, Paddock__V1__FileInfo **ret_info)
{
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;
	Paddock__V1__FileInfo *info = NULL;
	int rc;

	request.sandbox_id = copying->remote.sandbox_id;
	request.path = path_data(path);
	request.user = (char *)copying->remote.user;
	request.follow = true;
	rc = paddock_file_stat(copying->cli->client, &request, &info, &copying->cli->err);
	if (rc < 0)
		return rc;
	rc = info->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_DIRECTORY;
	if (ret_info)
		*ret_info = info;
	else
		paddock_free(info);
	return rc;
}

/* Where something called `name` goes, when the user said `target`. A missing sandbox is not a missing file. */
static int upload_target(struct copying *copying, const char *name, char **ret_path)
{
	const char *target = *copying->remote.path ? copying->remote.path : ".";
	size_t length = strlen(target);
	int kind = remote_kind(copying, target, NULL);

	if (kind < 0 && !(kind == -ENOENT && !strstr(copying->cli->err.text, "sandbox")))
		return kind;
	if (kind == 1 || (length && target[length - 1] == '/'))
		*ret_path = join(target, name);
	else
		*ret_path = strdup(target);
	return 0;
}

static int upload_bytes(struct copying *copying, int fd)
{
	Paddock__V1__WriteFileRequest message = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;
	_cleanup_free_ uint8_t *buffer = malloc(CHUNK_SIZE);
	int rc = 0;

	if (!buffer)
		return pdk_fail_errno(&copying->cli->err, -ENOMEM, "buffer");
	message.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_DATA;
	while (rc == 0) {
		ssize_t n = read(fd, buffer, CHUNK_SIZE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pdk_fail_errno(&copying->cli->err, -errno, "cannot read");
		if (n == 0)
			return 0;
		message.data = (ProtobufCBinaryData){.len = (size_t)n, .data = buffer};
		rc = paddock_stream_send(copying->stream, &message, &copying->cli->err);
		copying->done += (uint64_t)n;
		progress_update(&copying->progress, copying->done);
	}
	return rc;
}

static int upload_file(struct copying *copying, int fd, const char *path, uint32_t mode)
{
	Paddock__V1__WriteFileHeader header = PADDOCK__V1__WRITE_FILE_HEADER__INIT;
	Paddock__V1__WriteFileRequest first = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;
	struct pdk_error *err = &copying->cli->err;
	Paddock__V1__FileInfo *info = NULL;
	int rc;

	copying->stream = paddock_file_write(copying->cli->client, err);
	if (!copying->stream)
		return -EIO;
	header.sandbox_id = copying->remote.sandbox_id;
	header.path = path_data(path);
	header.user = (char *)copying->remote.user;
	header.mode = mode;
	header.make_parents = true;
	first.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_HEADER;
	first.header = &header;
	rc = paddock_stream_send(copying->stream, &first, err);
	if (rc == 0)
		rc = upload_bytes(copying, fd);
	/* -EPIPE: the server refused; the end of the call says why. A local error must not complete the file. */
	if (rc == 0 || rc == -EPIPE)
		rc = paddock_stream_finish(copying->stream, &info, err);
	paddock_stream_free(copying->stream);
	paddock_free(info);
	return rc;
}

static int unpack_sink(void *arg, const void *data, size_t length, struct pdk_error *err)
{
	Paddock__V1__UnpackArchiveRequest message = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__INIT;
	struct copying *copying = arg;

	message.message_case = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__MESSAGE_DATA;
	message.data = (ProtobufCBinaryData){.len = length, .data = (uint8_t *)data};
	copying->done += length;
	progress_update(&copying->progress, copying->done);
	return paddock_stream_send(copying->stream, &message, err);
}

static int upload_tree(struct copying *copying, const char *local, const char *path)
{
	Paddock__V1__UnpackArchiveHeader header = PADDOCK__V1__UNPACK_ARCHIVE_HEADER__INIT;
	Paddock__V1__UnpackArchiveRequest first = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__INIT;
	struct pdk_error *err = &copying->cli->err;
	Paddock__V1__UnpackArchiveResponse *reply = NULL;
	int rc;

	copying->stream = paddock_file_unpack_archive(copying->cli->client, err);
	if (!copying->stream)
		return -EIO;
	header.sandbox_id = copying->remote.sandbox_id;
	header.path = path_data(path);
	header.user = (char *)copying->remote.user;
	first.message_case = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__MESSAGE_HEADER;
	first.header = &header;
	rc = paddock_stream_send(copying->stream, &first, err);
	if (rc == 0)
		rc = archive_pack(local, unpack_sink, copying, err);
	if (rc == 0 || rc == -EPIPE)
		rc = paddock_stream_finish(copying->stream, &reply, err);
	paddock_stream_free(copying->stream);
	paddock_free(reply);
	return rc;
}

static int upload(struct copying *copying, const char *local)
{
	bool is_stdin = !strcmp(local, "-");
	_cleanup_fd_ int fd = is_stdin ? dup(STDIN_FILENO) : open(local, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *copy = NULL, *path = NULL;
	const char *name = last_component(local, &copy);
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pdk_fail_errno(&copying->cli->err, -errno, "%s", local);
	progress_start(&copying->progress, name, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0);
	if (is_stdin) {
		if (!*copying->remote.path)
			return cli_usage(copying->cli, "cp: name the file that standard input becomes");
		rc = upload_file(copying, fd, copying->remote.path, 0);
	} else {
		rc = upload_target(copying, name, &path);
		if (rc == 0)
			rc = S_ISDIR(st.st_mode) ? upload_tree(copying, local, path)
						 : upload_file(copying, fd, path, st.st_mode & 0777);
	}
	progress_end(&copying->progress);
	return rc;
}

static int download_bytes(struct copying *copying, const char *path, int fd)
{
	Paddock__V1__ReadFileRequest request = PADDOCK__V1__READ_FILE_REQUEST__INIT;
	struct pdk_error *err = &copying->cli->err;
	int rc;

	request.sandbox_id = copying->remote.sandbox_id;
	request.path = path_data(path);
	request.user = (char *)copying->remote.user;
	copying->stream = paddock_file_read(copying->cli->client, &request, err);
	rc = copying->stream ? 1 : -EIO;
	while (rc > 0) {
		const uint8_t *data;
		size_t left;

		rc = paddock_stream_next(copying->stream, PADDOCK_NO_TIMEOUT, &copying->chunk, err);
		if (rc <= 0)
			break;
		data = copying->chunk->data.data;
		left = copying->chunk->data.len;
		copying->done += left;
		while (left > 0 && rc > 0) {
			ssize_t n = write(fd, data, left);

			if (n < 0 && errno != EINTR)
				rc = pdk_fail_errno(err, -errno, "cannot write");
			data += n > 0 ? n : 0;
			left -= n > 0 ? (size_t)n : 0;
		}
		progress_update(&copying->progress, copying->done);
		paddock_free(copying->chunk);
	}
	paddock_stream_free(copying->stream);
	return rc;
}

/* Written aside and renamed, so that a broken copy leaves the old file. */
static int download_file(struct copying *copying, const char *path, const char *local, uint32_t mode)
{
	_cleanup_free_ char *aside = NULL;
	_cleanup_fd_ int fd = -1;
	mode_t mask = umask(0);
	struct stat st;
	int rc;

	umask(mask);
	/* A device or a FIFO is written, not replaced. */
	if (stat(local, &st) == 0 && !S_ISREG(st.st_mode)) {
		fd = open(local, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			return pdk_fail_errno(&copying->cli->err, -errno, "%s", local);
		return download_bytes(copying, path, fd);
	}
	if (asprintf(&aside, "%s.XXXXXX", local) < 0)
		abort();
	fd = mkostemp(aside, O_CLOEXEC);
	if (fd < 0)
		return pdk_fail_errno(&copying->cli->err, -errno, "%s", local);
	rc = download_bytes(copying, path, fd);
	if (rc == 0 && (fchmod(fd, (mode & 0777) & ~mask) < 0 || rename(aside, local) < 0))
		rc = pdk_fail_errno(&copying->cli->err, -errno, "%s", local);
	if (rc < 0)
		unlink(aside);
	return rc;
}

static ssize_t pack_source(void *arg, const void **ret_data, struct pdk_error *err)
{
	struct copying *copying = arg;
	int rc;

	paddock_free(copying->chunk);
	copying->chunk = NULL;
	do {
		rc = paddock_stream_next(copying->stream, PADDOCK_NO_TIMEOUT, &copying->chunk, err);
	} while (rc > 0 && copying->chunk->data.len == 0);
	if (rc <= 0)
		return rc;
	copying->done += copying->chunk->data.len;
	progress_update(&copying->progress, copying->done);
	*ret_data = copying->chunk->data.data;
	return (ssize_t)copying->chunk->data.len;
}

static int download_tree(struct copying *copying, const char *path, const char *directory, const char *name)
{
	Paddock__V1__PackArchiveRequest request = PADDOCK__V1__PACK_ARCHIVE_REQUEST__INIT;
	struct pdk_error *err = &copying->cli->err;
	uint64_t entries;
	int rc;

	request.sandbox_id = copying->remote.sandbox_id;
	request.path = path_data(path);
	request.user = (char *)copying->remote.user;
	request.compression = (char *)"";
	copying->stream = paddock_file_pack_archive(copying->cli->client, &request, err);
	if (!copying->stream)
		return -EIO;
	rc = archive_unpack(directory, name, pack_source, copying, &entries, err);
	paddock_free(copying->chunk);
	paddock_stream_free(copying->stream);
	return rc;
}

/* Split a local target into the directory that must exist and the name in it. */
static int local_target(const char *local, const char *name, char **ret_directory, char **ret_name)
{
	_cleanup_free_ char *copy = strdup(local), *last = NULL;
	struct stat st;

	if (stat(local, &st) == 0 && S_ISDIR(st.st_mode)) {
		*ret_directory = strdup(local);
		*ret_name = strdup(name);
	} else {
		*ret_name = strdup(last_component(local, &last));
		*ret_directory = strdup(dirname(copy));
	}
	return 0;
}

static int download(struct copying *copying, const char *local)
{
	_cleanup_free_ char *copy = NULL, *directory = NULL, *target = NULL, *whole = NULL;
	const char *path = *copying->remote.path ? copying->remote.path : ".";
	const char *name = last_component(path, &copy);
	Paddock__V1__FileInfo *info = NULL;
	int kind, rc;

	kind = remote_kind(copying, path, &info);
	if (kind < 0)
		return kind;
	if (kind == 1 && !strcmp(local, "-")) {
		paddock_free(info);
		return cli_usage(copying->cli, "cp: a directory cannot go to standard output");
	}
	progress_start(&copying->progress, name, kind == 0 ? info->size : 0);
	local_target(local, name, &directory, &target);
	if (!directory || !target)
		abort();
	whole = join(directory, target);
	if (!strcmp(local, "-"))
		rc = download_bytes(copying, path, STDOUT_FILENO);
	else if (kind == 1)
		/* "." is the directory's content, into the target itself. */
		rc = download_tree(copying, path, directory, strcmp(target, ".") ? target : NULL);
	else
		rc = download_file(copying, path, whole, info->mode);
	progress_end(&copying->progress);
	paddock_free(info);
	return rc;
}

int cmd_cp(struct cli *cli, const struct args *args)
{
	const char *from = args->argv[0], *to = args->argv[1];
	struct copying copying = {.cli = cli};
	int rc;

	if (remote_is(from) == remote_is(to))
		return cli_usage(cli, "cp: one of the two is SANDBOX:PATH, the other a local file or -");
	rc = remote_parse(cli, args, remote_is(from) ? from : to, &copying.remote);
	if (rc < 0)
		return rc;
	rc = remote_is(from) ? download(&copying, to) : upload(&copying, from);
	remote_clear(&copying.remote);
	return rc;
}
