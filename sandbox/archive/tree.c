#include "sandbox/archive/tree.h"

#include "sandbox/archive/archive.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct names {
	char **names;
	size_t n;
	size_t size;
};

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->names[i]);
	free(names->names);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_add(struct names *names, const char *name)
{
	if (names->n == names->size) {
		size_t size = names->size ? names->size * 2 : 64;
		char **larger = realloc(names->names, size * sizeof(*larger));

		if (!larger)
			return -1;
		names->names = larger;
		names->size = size;
	}
	names->names[names->n] = strdup(name);
	return names->names[names->n] ? (names->n++, 0) : -1;
}

static int names_read(struct names *names, int fd)
{
	_cleanup_fd_ int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *entry;
	int rc = 0;

	if (!stream)
		return -1;
	STEAL_FD(copy);
	while (rc == 0 && (entry = readdir(stream))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = names_add(names, entry->d_name);
	}
	closedir(stream);
	if (names->n)
		qsort(names->names, names->n, sizeof(*names->names), compare);
	return rc;
}

static int walk_directory(int dir, const char *name, const char *path, tree_visitor visit, void *arg)
{
	_cleanup_fd_ int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_free_ char *child = malloc(PATH_MAX);
	struct names names = {};
	int rc = 0;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : -1;
	if (!child || names_read(&names, fd) < 0)
		rc = -1;
	for (size_t i = 0; rc == 0 && i < names.n; i++) {
		int n = snprintf(child, PATH_MAX, "%s%s%s", path, path[0] ? "/" : "", names.names[i]);

		if (n >= PATH_MAX) {
			errno = ENAMETOOLONG;
			rc = -1;
			break;
		}
		rc = tree_walk(fd, names.names[i], child, visit, arg);
	}
	names_free(&names);
	return rc;
}

int tree_walk(int dir, const char *name, const char *path, tree_visitor visit, void *arg)
{
	struct stat st;
	int rc;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -1;
	rc = visit(&(struct tree_entry){path, dir, name, &st}, arg);
	if (rc == TREE_SKIP)
		return 0;
	return rc || !S_ISDIR(st.st_mode) ? rc : walk_directory(dir, name, path, visit, arg);
}
