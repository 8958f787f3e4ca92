#include "sandbox/init/path.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINKS_MAX 40

static int append(char path[PATH_MAX], size_t *length, const char *component, size_t n)
{
	if (n > NAME_MAX)
		return -ENAMETOOLONG;
	if (*length + 1 + n >= PATH_MAX)
		return -ENAMETOOLONG;
	path[(*length)++] = '/';
	memcpy(path + *length, component, n);
	*length += n;
	path[*length] = '\0';
	return 0;
}

static int append_all(char path[PATH_MAX], size_t *length, const char *text, size_t n)
{
	const char *end = text + n;

	while (text < end) {
		const char *slash = memchr(text, '/', (size_t)(end - text));
		size_t component = (size_t)((slash ? slash : end) - text);
		int rc = 0;

		if (component && !(component == 1 && text[0] == '.'))
			rc = append(path, length, text, component);
		if (rc < 0)
			return rc;
		text += component + 1;
	}
	return 0;
}

int path_make(const ProtobufCBinaryData *bytes, const char *home, char path[PATH_MAX], struct pdk_error *err)
{
	const char *text = (const char *)bytes->data;
	size_t length = 0;
	int rc = 0;

	if (!bytes->len)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "path: is empty");
	if (bytes->len >= PATH_MAX)
		return pdk_fail(err, -ENAMETOOLONG, PDK_INVALID_ARGUMENT, "path: longer than %d bytes", PATH_MAX - 1);
	if (memchr(text, '\0', bytes->len))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "path: contains a NUL byte");
	if (text[0] != '/')
		rc = append_all(path, &length, home, strlen(home));
	if (rc == 0)
		rc = append_all(path, &length, text, bytes->len);
	if (rc < 0)
		return pdk_fail(err, rc, PDK_INVALID_ARGUMENT, "path: a component or the whole is too long");
	if (!length)
		memcpy(path, "/", 2);
	return 0;
}

int path_open_at(int dir, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (unsigned int)(flags | O_CLOEXEC), .mode = mode, .resolve = RESOLVE_NO_MAGICLINKS};
	long fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* Split `path` below `dir` into its last component and an open directory. */
static int open_parent_at(int dir, const char *path, char name[NAME_MAX + 1])
{
	const char *slash = strrchr(path, '/');
	const char *last = slash ? slash + 1 : path;
	char parent[PATH_MAX];

	if (!last[0] || strcmp(last, "..") == 0 || strcmp(last, ".") == 0)
		return -EINVAL;
	if (strlen(last) > NAME_MAX)
		return -ENAMETOOLONG;
	strcpy(name, last);
	if (!slash)
		return path_open_at(dir, ".", O_PATH | O_DIRECTORY, 0);
	snprintf(parent, sizeof(parent), "%.*s/", (int)(slash - path), path);
	return path_open_at(dir, parent, O_PATH | O_DIRECTORY, 0);
}

int path_open_parent(const char *path, char name[NAME_MAX + 1])
{
	return open_parent_at(AT_FDCWD, path, name);
}

int path_open_target_parent(const char *path, char name[NAME_MAX + 1])
{
	_cleanup_fd_ int dir = path_open_parent(path, name);
	char target[PATH_MAX];

	if (dir < 0)
		return dir;
	for (int links = 0; links < LINKS_MAX; links++) {
		ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);
		int next;

		if (n < 0)
			return STEAL_FD(dir); /* no link, or nothing there: what follows will say */
		/* A link of /proc leads past the path; reading it as a name would give a wrong file. */
		target[n] = '\0';
		while (n > 1 && target[n - 1] == '/')
			target[--n] = '\0';
		next = open_parent_at(dir, target, name);
		if (next < 0)
			return next;
		close(dir);
		dir = next;
	}
	return -ELOOP;
}

static int make_dirs(char *path, mode_t mode)
{
	for (char *at = path + 1;; at++) {
		struct stat st;
		char kept;

		at += strcspn(at, "/");
		kept = *at;
		*at = '\0';
		if (mkdir(path, mode) < 0 && (errno != EEXIST || stat(path, &st) < 0 || !S_ISDIR(st.st_mode))) {
			int rc = errno == EEXIST ? -ENOTDIR : -errno;

			if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
				return rc;
		}
		*at = kept;
		if (!kept)
			return 0;
	}
}

int path_make_dirs(const char *path, mode_t mode)
{
	char copy[PATH_MAX];

	snprintf(copy, sizeof(copy), "%s", path);
	return make_dirs(copy, mode);
}

int path_make_parents(const char *path)
{
	char copy[PATH_MAX];
	char *slash;

	snprintf(copy, sizeof(copy), "%s", path);
	slash = strrchr(copy, '/');
	if (!slash || slash == copy)
		return 0;
	*slash = '\0';
	return make_dirs(copy, 0755);
}

int path_fail(struct pdk_error *err, int rc, const char *path)
{
	return pdk_fail_errno(err, rc, "%.300s", path);
}
