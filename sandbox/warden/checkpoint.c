#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "btrfs.h"
#include "checkpoint_private.h"
#include "criu.h"
#include "images.h"
#include "kernel.h"
#include "lazy.h"
#include "log.h"
#include "options.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"

/* What both kinds of work share, and what the warden itself asks. */

#define FULL_BYTES (1u << 20)
#define NOTES "paddock.img" /* the name makes it one of the files that are sealed */

static const char *const mount_points[] = {"stage", "work"}; /* in the warden's own mounts nothing is on them */

static const char *missing;

int checkpoint_setup(struct pdk_error *err)
{
	char path[600];
	int rc = images_setup(err);

	if (rc < 0)
		return rc;
	/* Nothing inherits it from there: this only asks the kernel. */
	rc = strcmp(options.compress, "none") ? btrfs_compress(pool_dir(POOL_CHECKPOINTS), options.compress) : 0;
	if (rc < 0)
		return pdk_fail_errno(err, rc, "have btrfs compress by %s", options.compress);
	/* CRIU keeps what it found out about the kernel in /run, if that is memory. */
	snprintf(path, sizeof(path), "%s/criu", options.runtime_dir);
	if (file_mkdir(AT_FDCWD, path, 0700) < 0 || mount("tmpfs", path, "tmpfs", 0, "mode=700,size=1m") < 0)
		return pdk_fail_errno(err, -errno, "mount a tmpfs");
	for (size_t i = 0; i < sizeof(mount_points) / sizeof(mount_points[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", options.runtime_dir, mount_points[i]);
		rc = file_mkdir(AT_FDCWD, path, 0755);
		if (rc < 0)
			return pdk_fail_errno(err, rc, "make a mount point");
	}
	lazy_setup();
	rc = criu_setup();
	if (rc < 0) {
		missing = rc == -ENOSYS ? "CRIU is older than 4.1" : "CRIU is not installed";
		log_warning("checkpoint", NULL, "%s: sandboxes can only be frozen", missing);
	} else if (lazy_missing()) {
		log_info("lazy_restore", NULL, "%s: every restore is a plain one", lazy_missing());
	}
	return 0;
}

const char *checkpoint_missing(void)
{
	return missing;
}

bool checkpoint_exists(const char *id, char *template_id)
{
	_cleanup_fd_ int dir = pool_open_directory(POOL_CHECKPOINTS, id);
	struct checkpoint_notes notes;

	if (dir < 0 || checkpoint_read_notes(dir, &notes) < 0)
		return false;
	if (template_id)
		memcpy(template_id, notes.template_id, sizeof(notes.template_id));
	return true;
}

int checkpoint_discard(const char *id)
{
	char aside[40];
	int rc = pool_discard(POOL_CHECKPOINTS, id);

	snprintf(aside, sizeof(aside), "%.24s.new", id);
	return rc < 0 ? rc : pool_discard(POOL_CHECKPOINTS, aside);
}

/* --- in the children --- */

void checkpoint_tell(int status, int rc, const struct pdk_error *err, const struct checkpoint_result *told)
{
	struct checkpoint_result result = *told;

	if (rc < 0) {
		result.error = -rc;
		result.code = (int)err->code;
		snprintf(result.text, sizeof(result.text), "%.239s", err->text);
	}
	if (write(status, &result, sizeof(result)) < 0)
		_exit(2);
	_exit(0);
}

int checkpoint_place_devpts(void)
{
	return mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0") < 0 ? -errno : 0;
}

void checkpoint_mount_key(const char *path, char key[64])
{
	snprintf(key, 64, "%s", path);
	for (; *key; key++)
		if (*key == '/')
			*key = '_';
}

int checkpoint_write_notes(int dir, const struct checkpoint_notes *notes)
{
	_cleanup_fd_ int fd = openat(dir, NOTES, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	char text[128];
	int n = snprintf(text, sizeof(text), "%lu %s\n", notes->listener, notes->template_id);

	if (fd < 0)
		return -errno;
	return write(fd, text, (size_t)n) == n ? 0 : -EIO;
}

int checkpoint_read_notes(int dir, struct checkpoint_notes *ret)
{
	char text[128];
	int rc = file_read(dir, NOTES, text, sizeof(text));

	if (rc < 0)
		return rc;
	return sscanf(text, "%lu %47s", &ret->listener, ret->template_id) == 2 ? 0 : -EBADMSG;
}

uint64_t checkpoint_layer_token(const char *id)
{
	_cleanup_fd_ int layer = pool_open_directory(POOL_SANDBOXES, id);
	uint64_t token;
	char text[32];

	if (layer < 0 || file_read(layer, "checkpoint", text, sizeof(text)) <= 0 ||
	    sscanf(text, "%" SCNx64, &token) != 1)
		return 0;
	return token;
}

int checkpoint_put_token(int layer, uint64_t token)
{
	_cleanup_fd_ int fd = -1;
	char text[32];
	int n = snprintf(text, sizeof(text), "%016" PRIx64, token);

	if (token == 0)
		return unlinkat(layer, "checkpoint", 0) < 0 && errno != ENOENT ? -errno : 0;
	fd = openat(layer, "checkpoint", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	return write(fd, text, (size_t)n) != n ? -EIO : 0;
}

int checkpoint_set_layer_token(const char *id, uint64_t token)
{
	_cleanup_fd_ int layer = pool_open_directory(POOL_SANDBOXES, id);
	int rc = layer < 0 ? layer : checkpoint_put_token(layer, token);

	return rc < 0 ? rc : fsync(layer) < 0 ? -errno : 0;
}

int checkpoint_unmark_layer(int layer)
{
	if ((unlinkat(layer, "work/work/incompat/volatile/dirty", 0) < 0 && errno != ENOENT) ||
	    (unlinkat(layer, "work/work/incompat/volatile", AT_REMOVEDIR) < 0 && errno != ENOENT) ||
	    (unlinkat(layer, "work/work/incompat", AT_REMOVEDIR) < 0 && errno != ENOENT))
		return -errno;
	return 0;
}

/* The first line of the log that says "Error" and is not one of those that every run has. */
static bool find_reason(int dir, const char *log, char text[160], pid_t *ret_pid)
{
	_cleanup_fd_ int fd = openat(dir, log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_file_ FILE *lines = fd < 0 ? NULL : fdopen(fd, "re");
	static const char *const usual[] = {"RLIMIT_NOFILE", "tun: Unable", "suspend", "killed by signal"};
	char line[1024], *at;
	bool found = false;
	int pid;

	if (lines)
		(void)STEAL_FD(fd);
	*ret_pid = 0;
	while (lines && fgets(line, sizeof(line), lines)) {
		bool skip = !(at = strstr(line, "Error ("));

		for (size_t i = 0; !skip && i < sizeof(usual) / sizeof(usual[0]); i++)
			skip = strstr(at, usual[i]) != NULL;
		if (skip)
			continue;
		if (sscanf(at, "Error (%*[^)]): Dump %*[a-z] (pid: %d", &pid) == 1 && !*ret_pid)
			*ret_pid = pid;
		at = strstr(at, "): ");
		if (!at || found)
			continue;
		snprintf(text, 160, "%.150s", at + 3);
		text[strcspn(text, "\n")] = '\0';
		found = true;
	}
	return found;
}

void checkpoint_name_process(pid_t pid, char text[64])
{
	char path[64], status[4096], comm[17] = "?", *at;
	int inside = 0;

	text[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (pid <= 0 || file_read(AT_FDCWD, path, status, sizeof(status)) <= 0)
		return;
	sscanf(status, "Name:\t%16s", comm);
	at = strstr(status, "\nNSpid:");
	if (at) {
		at[1 + strcspn(at + 1, "\n")] = '\0';
		at = strrchr(at, '\t');
	}
	if (at)
		sscanf(at + 1, "%d", &inside);
	for (char *c = comm; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	snprintf(text, 64, "process %d (%s)", inside, comm);
}

/* Then there is no room for a log either. */
static bool is_full(int dir)
{
	struct statvfs st;

	return fstatvfs(dir, &st) == 0 && (uint64_t)st.f_bavail * st.f_frsize < FULL_BYTES;
}

int checkpoint_explain(int status, int dir, const char *log, struct pdk_error *err)
{
	char reason[160] = "CRIU gave no reason", who[64];
	pid_t pid;

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFSIGNALED(status))
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "CRIU was ended by signal %d", WTERMSIG(status));
	find_reason(dir, log, reason, &pid);
	checkpoint_name_process(pid, who);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHECKPOINT_NOT_PREPARED)
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE,
				"the sandbox's file systems or namespaces could not be made");
	if (strstr(reason, "No space left") || strstr(reason, "quota") || is_full(dir))
		return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED, "the storage pool is full");
	return pdk_fail(err, -EIO, PDK_FAILED_PRECONDITION, "%s%s%s", who, *who ? ": " : "", reason);
}

int checkpoint_wait(pid_t criu, int dir, const char *log, struct pdk_error *err)
{
	int status = 0;

	if (criu < 0 || waitpid(criu, &status, 0) < 0)
		return pdk_fail_errno(err, -errno, "run CRIU");
	return checkpoint_explain(status, dir, log, err);
}
