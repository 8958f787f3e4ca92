#include "sandbox/init/files.h"

#include "sandbox/base/buffer.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/*
 * Tar streams are packed and unpacked by paddock-archive, a second program: libarchive sees hostile bytes,
 * and this way it sees them in a process that has nothing else, as the user, with no descriptor but its pipes.
 */

#define WORDS_MAX 4096u
#define EXCLUDES_MAX 64u
#define EXCLUDE_MAX 255u

struct helper {
	pid_t pid;
	int out;   /* what it prints: its result, or for a pack nothing */
	int words; /* its error line */
	struct buffer out_text;
	struct buffer words_text;
};

static void __attribute__((noreturn)) run_helper(struct worker *worker, const char *const *argv, const int fds[3])
{
	static char *const env[] = {NULL};

	signal(SIGPIPE, SIG_DFL);
	for (int i = 0; i < 3; i++) {
		if (dup2(fds[i], i) < 0)
			_exit(126);
	}
	syscall(SYS_execveat, worker->archive, "", argv, env, AT_EMPTY_PATH);
	_exit(126);
}

static int start_helper(struct worker *worker, struct helper *helper, const char *const *argv, bool pack,
			struct pdk_error *err)
{
	int out[2] = {-1, -1}, words[2];
	int rc = 0;

	if (worker->archive < 0)
		return pdk_fail(err, -ENOENT, PDK_UNIMPLEMENTED, "this sandbox has no archive helper");
	if (pipe2(words, O_CLOEXEC) < 0 || (!pack && pipe2(out, O_CLOEXEC) < 0))
		return pdk_fail_errno(err, -errno, "cannot open pipes");
	helper->words = words[0];
	helper->out = out[0];
	helper->pid = fork();
	if (helper->pid == 0)
		run_helper(worker, argv,
			   pack ? (int[]){0, worker->pipe, words[1]} : (int[]){worker->pipe, out[1], words[1]});
	if (helper->pid < 0)
		rc = pdk_fail_errno(err, -errno, "cannot start the archive helper");
	close(words[1]);
	cleanup_fd(&out[1]);
	close(worker->pipe);
	worker->pipe = -1;
	return rc;
}

/* 1 = more may come, 0 = the end. Text beyond the maximum is dropped. */
static int take_text(int fd, struct buffer *buffer)
{
	char bytes[512];
	ssize_t n = read(fd, bytes, sizeof(bytes));

	if (n <= 0)
		return n < 0 && errno == EINTR;
	if ((size_t)n > buffer_room(buffer))
		n = (ssize_t)buffer_room(buffer);
	(void)buffer_append(buffer, bytes, (size_t)n);
	return 1;
}

/* Wait until the helper has closed its outputs. -ECANCELED: it was told to stop. */
static int hear_helper(struct worker *worker, struct helper *helper)
{
	int *const fds[] = {&helper->out, &helper->words};
	struct buffer *const texts[] = {&helper->out_text, &helper->words_text};

	for (int i = 0; i < 2; i++) {
		while (*fds[i] >= 0) {
			int rc = worker_wait(worker, *fds[i], POLLIN, -1);

			if (rc < 0)
				return rc;
			if (rc && !take_text(*fds[i], texts[i])) {
				cleanup_fd(fds[i]);
				*fds[i] = -1;
			}
		}
	}
	return 0;
}

static int reap_helper(struct helper *helper, bool kill_it)
{
	int status = 0;

	if (helper->pid <= 0)
		return -ECHILD;
	if (kill_it)
		kill(helper->pid, SIGKILL);
	while (waitpid(helper->pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* Exit codes of paddock-archive: 2 = the archive is refused, 3 = a limit; else its text tells. */
static int explain(struct helper *helper, int status, struct pdk_error *err)
{
	char text[256] = "the archive helper failed";
	size_t n = buffer_length(&helper->words_text);
	enum pdk_code code = PDK_FAILED_PRECONDITION;

	if (n > sizeof(text) - 1)
		n = sizeof(text) - 1;
	if (n) {
		memcpy(text, buffer_data(&helper->words_text), n);
		text[n] = '\0';
		text[strcspn(text, "\n")] = '\0';
	}
	if (WIFSIGNALED(status))
		return pdk_fail(err, -EIO, WTERMSIG(status) == SIGPIPE ? PDK_CANCELLED : PDK_ABORTED,
				"the archive helper was ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == 2)
		code = PDK_INVALID_ARGUMENT;
	else if (WEXITSTATUS(status) == 3)
		code = PDK_RESOURCE_EXHAUSTED;
	return pdk_fail(err, -EIO, code, "%s", text);
}

int files_unpack(struct worker *worker, const guest_message(Unpack) * request, struct pdk_error *err)
{
	struct helper helper = {.out_text = BUFFER(WORDS_MAX), .words_text = BUFFER(WORDS_MAX)};
	unsigned long long entries = 0, bytes = 0;
	guest_reply ready = GUEST_REPLY_INIT;
	char path[PATH_MAX], max_bytes[32], max_entries[32];
	const char *argv[] = {"paddock-archive",
			      "extract",
			      "--max-bytes",
			      max_bytes,
			      "--max-entries",
			      max_entries,
			      "--owner",
			      worker->account.uid ? "self" : "keep",
			      "--",
			      path,
			      NULL};
	int rc = files_make_path(worker, &request->path, path, err);
	int status;

	if (rc < 0)
		return rc;
	snprintf(max_bytes, sizeof(max_bytes), "%llu", (unsigned long long)request->max_bytes);
	snprintf(max_entries, sizeof(max_entries), "%llu", (unsigned long long)request->max_entries);
	rc = path_make_dirs(path, 0755);
	if (rc < 0)
		return path_fail(err, rc, path);
	worker_reply(worker, &ready, true);
	rc = start_helper(worker, &helper, argv, false, err);
	if (rc < 0)
		return rc;
	rc = hear_helper(worker, &helper);
	status = reap_helper(&helper, rc < 0);
	if (rc == 0 && status)
		return explain(&helper, status, err);
	if (rc == 0)
		rc = worker_wait_commit(worker);
	if (rc < 0)
		return pdk_fail(err, rc, PDK_CANCELLED, "the unpacking was given up");
	(void)buffer_append(&helper.out_text, "", 1);
	if (sscanf((const char *)buffer_data(&helper.out_text), "entries %llu bytes %llu", &entries, &bytes) != 2)
		return pdk_fail(err, -EIO, PDK_INTERNAL, "the archive helper gave no result");
	worker_reply_count(worker, entries, bytes);
	return 0;
}

/* argv of a pack; the strings that are made here live as long as the worker. */
static int pack_arguments(const guest_message(Pack) * request, char *path, const char **argv, struct pdk_error *err)
{
	size_t n = 0;

	argv[n++] = "paddock-archive";
	argv[n++] = "create";
	if (request->compression[0]) {
		if (strcmp(request->compression, "gzip") != 0 && strcmp(request->compression, "zstd") != 0)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "compression: \"\", gzip or zstd");
		argv[n++] = "--compress";
		argv[n++] = request->compression;
	}
	if (request->n_exclude > EXCLUDES_MAX)
		return pdk_fail(err, -E2BIG, PDK_INVALID_ARGUMENT, "exclude: more than %u patterns", EXCLUDES_MAX);
	for (size_t i = 0; i < request->n_exclude; i++) {
		const ProtobufCBinaryData *pattern = &request->exclude[i];

		if (!pattern->len || pattern->len > EXCLUDE_MAX || memchr(pattern->data, '\0', pattern->len))
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "exclude: 1 to %u bytes", EXCLUDE_MAX);
		argv[n++] = "--exclude";
		argv[n] = strndup((const char *)pattern->data, pattern->len);
		if (!argv[n++])
			return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	}
	argv[n++] = "--";
	argv[n++] = path;
	return 0;
}

int files_pack(struct worker *worker, const guest_message(Pack) * request, struct pdk_error *err)
{
	struct helper helper = {.out_text = BUFFER(WORDS_MAX), .words_text = BUFFER(WORDS_MAX)};
	const char *argv[2 * EXCLUDES_MAX + 8] = {};
	guest_reply empty = GUEST_REPLY_INIT;
	char path[PATH_MAX];
	struct stat st;
	int rc = files_make_path(worker, &request->path, path, err);
	int status;

	if (rc == 0)
		rc = pack_arguments(request, path, argv, err);
	if (rc < 0)
		return rc;
	if (lstat(path, &st) < 0)
		return path_fail(err, -errno, path);
	worker_reply(worker, &empty, true);
	rc = start_helper(worker, &helper, argv, true, err);
	if (rc < 0)
		return rc;
	rc = hear_helper(worker, &helper);
	status = reap_helper(&helper, rc < 0);
	if (rc < 0)
		return pdk_fail(err, rc, PDK_CANCELLED, "the packing was given up");
	if (status)
		return explain(&helper, status, err);
	worker_reply(worker, &empty, false);
	return 0;
}
