#include "sandbox/init/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/*
 * A tree, sorted so that the content of a directory follows it, in pages. Of each directory only as many names
 * are kept as the page can still take: the smallest ones behind where the last page ended, in a heap whose
 * top is the largest. So a directory of a million names costs time, not memory.
 */

#define DEPTH_MAX 64u
#define LIMIT_DEFAULT 1000u
#define LIMIT_MAX 10000u
#define PAGE_BYTES_MAX (1u << 20)

struct listing {
	struct worker *worker;
	guest_message(File) * files;
	guest_message(File) * *pointers;
	size_t n_files;
	size_t limit;
	size_t bytes;
	uint32_t depth;
	bool full;           /* there is more than the page takes */
	char path[PATH_MAX]; /* of the directory being read */
	size_t path_length;
};

struct heap {
	char **names;
	size_t n;
	size_t maximum;
};

static void sift_down(struct heap *heap, size_t at)
{
	for (;;) {
		size_t child = 2 * at + 1;
		char *name;

		if (child >= heap->n)
			return;
		if (child + 1 < heap->n && strcmp(heap->names[child + 1], heap->names[child]) > 0)
			child++;
		if (strcmp(heap->names[at], heap->names[child]) >= 0)
			return;
		name = heap->names[at];
		heap->names[at] = heap->names[child];
		heap->names[child] = name;
		at = child;
	}
}

static void sift_up(struct heap *heap, size_t at)
{
	while (at) {
		size_t parent = (at - 1) / 2;
		char *name = heap->names[at];

		if (strcmp(heap->names[parent], name) >= 0)
			return;
		heap->names[at] = heap->names[parent];
		heap->names[parent] = name;
		at = parent;
	}
}

static int heap_offer(struct heap *heap, const char *name)
{
	char *copy;

	if (heap->n == heap->maximum && strcmp(name, heap->names[0]) >= 0)
		return 0;
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	if (heap->n == heap->maximum) {
		free(heap->names[0]);
		heap->names[0] = copy;
		sift_down(heap, 0);
	} else {
		heap->names[heap->n++] = copy;
		sift_up(heap, heap->n - 1);
	}
	return 0;
}

static void heap_free(struct heap *heap)
{
	for (size_t i = 0; i < heap->n; i++)
		free(heap->names[i]);
	free(heap->names);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the directory from `first` on (NULL: all), at most as many as the page can take, and one. */
static int read_names(struct listing *listing, int fd, const char *first, struct heap *heap)
{
	_cleanup_fd_ int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *entry;
	int rc = 0;

	if (!stream)
		return copy < 0 ? -errno : -ENOMEM;
	STEAL_FD(copy);
	heap->maximum = listing->limit - listing->n_files + 2;
	heap->names = calloc(heap->maximum, sizeof(*heap->names));
	if (!heap->names)
		rc = -ENOMEM;
	while (rc == 0 && (entry = readdir(stream))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		if (!first || strcmp(name, first) >= 0)
			rc = heap_offer(heap, name);
	}
	closedir(stream);
	if (rc == 0)
		qsort(heap->names, heap->n, sizeof(*heap->names), compare_names);
	return rc;
}

static int add_file(struct listing *listing, int dir, const char *name, const struct stat *st)
{
	guest_message(File) *file = &listing->files[listing->n_files];
	char target[PATH_MAX];
	ssize_t n = S_ISLNK(st->st_mode) ? readlinkat(dir, name, target, sizeof(target)) : 0;
	char *path = strdup(listing->path);
	size_t bytes;

	if (!path)
		return -ENOMEM;
	paddock__internal__guest_file__init(file);
	files_describe(listing->worker, path, st, file);
	file->user = strdup(file->user);
	file->group = strdup(file->group);
	if (n > 0) {
		file->symlink_target.data = malloc((size_t)n);
		file->symlink_target.len = (size_t)n;
		if (file->symlink_target.data)
			memcpy(file->symlink_target.data, target, (size_t)n);
	}
	if (!file->user || !file->group || (n > 0 && !file->symlink_target.data) ||
	    files_metadata_load(dir, name, st->st_mode, file, &bytes) < 0)
		return -ENOMEM;
	listing->bytes += strlen(path) + (size_t)(n > 0 ? n : 0) + 128 + bytes + 16 * file->n_metadata;
	listing->pointers[listing->n_files] = file;
	listing->n_files++;
	return 0;
}

static int list_directory(struct listing *listing, int fd, uint32_t depth, const char *after);

/* One name: itself, unless the last page had it, then what is below it. */
static int list_entry(struct listing *listing, int dir, const char *name, uint32_t depth, bool had, const char *after)
{
	size_t length = listing->path_length;
	_cleanup_fd_ int fd = -1;
	struct stat st;
	int rc = 0;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* gone meanwhile */
	if (length + strlen(name) + 2 > PATH_MAX)
		return 0; /* nobody could name it */
	listing->path_length += (size_t)sprintf(listing->path + length, "%s%s", length > 1 ? "/" : "", name);
	if (!had)
		rc = add_file(listing, dir, name, &st);
	if (rc == 0 && S_ISDIR(st.st_mode) && depth < listing->depth) {
		fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			rc = list_directory(listing, fd, depth + 1, after);
	}
	listing->path_length = length;
	listing->path[length] = '\0';
	return rc;
}

/* `after`: where the last page ended, relative to this directory; NULL: list all. */
static int list_directory(struct listing *listing, int fd, uint32_t depth, const char *after)
{
	struct heap heap = {};
	char first[NAME_MAX + 1] = "";
	size_t length = after ? strcspn(after, "/") : 0;
	int rc;

	if (length > NAME_MAX)
		return -EINVAL;
	if (after)
		snprintf(first, sizeof(first), "%.*s", (int)length, after);
	rc = read_names(listing, fd, after ? first : NULL, &heap);
	for (size_t i = 0; rc == 0 && i < heap.n; i++) {
		bool had = after && strcmp(heap.names[i], first) == 0;

		if (!had && (listing->n_files == listing->limit || listing->bytes >= PAGE_BYTES_MAX)) {
			listing->full = true;
			break;
		}
		rc = list_entry(listing, fd, heap.names[i], depth, had,
				had && after[length] == '/' ? after + length + 1 : NULL);
		if (listing->full)
			break;
	}
	heap_free(&heap);
	return rc == -EACCES && depth > 1 ? 0 : rc;
}

/* The part of `after` below the listed directory. */
static int relative_after(const guest_message(List) * request, const char *path, char after[PATH_MAX],
			  struct pdk_error *err)
{
	size_t length = strcmp(path, "/") == 0 ? 0 : strlen(path);
	const char *bytes = (const char *)request->after.data;

	if (request->after.len >= PATH_MAX || request->after.len < length + 2 || memcmp(bytes, path, length) != 0 ||
	    bytes[length] != '/' || memchr(bytes, '\0', request->after.len))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "after: not below the path");
	snprintf(after, PATH_MAX, "%.*s", (int)(request->after.len - length - 1), bytes + length + 1);
	return 0;
}

static void reply_listing(struct listing *listing)
{
	guest_message(Files) files = PADDOCK__INTERNAL__GUEST_FILES__INIT;
	guest_reply reply = GUEST_REPLY_INIT;

	files.n_file = listing->n_files;
	files.file = listing->pointers;
	if (listing->full)
		files.next = listing->files[listing->n_files - 1].path;
	reply.result_case = GUEST_RESULT(FILES);
	reply.files = &files;
	worker_reply(listing->worker, &reply, false);
}

int files_list(struct worker *worker, const guest_message(List) * request, struct pdk_error *err)
{
	/* Large, and freed with the process. */
	struct listing *listing = calloc(1, sizeof(*listing));
	_cleanup_fd_ int fd = -1;
	char after[PATH_MAX];
	int rc;

	if (!listing)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	listing->worker = worker;
	listing->limit = request->limit ? request->limit : LIMIT_DEFAULT;
	listing->depth = request->depth ? request->depth : 1;
	if (listing->limit > LIMIT_MAX || listing->depth > DEPTH_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "at most depth %u and %u files at once", DEPTH_MAX,
				LIMIT_MAX);
	rc = files_make_path(worker, &request->path, listing->path, err);
	if (rc == 0 && request->after.len)
		rc = relative_after(request, listing->path, after, err);
	if (rc < 0)
		return rc;
	listing->path_length = strlen(listing->path);
	listing->files = calloc(listing->limit + 1, sizeof(*listing->files));
	listing->pointers = calloc(listing->limit + 1, sizeof(*listing->pointers));
	if (!listing->files || !listing->pointers)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	fd = path_open_at(AT_FDCWD, listing->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
	rc = fd < 0 ? fd : list_directory(listing, fd, 1, request->after.len ? after : NULL);
	if (rc < 0)
		return path_fail(err, rc, listing->path);
	reply_listing(listing);
	return 0;
}
