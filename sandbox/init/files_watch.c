#include "sandbox/init/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

/*
 * Theory of operation
 *
 * One inotify watch per directory, its path relative to the root of the watch in `dirs`, by descriptor. A
 * new directory is watched first and then read: what is found in it is told as created, so nothing
 * falls between; what inotify tells about the same file again is harmless (a second "created").
 *
 * A rename is two inotify events with one cookie, next to each other: the first is held back until the second
 * comes, or something else, or nothing for RENAME_WAIT_MS. A directory that is renamed keeps its watches; the
 * paths below it are changed. One that leaves the tree loses them.
 *
 * A tree is read with one path for all of its levels (`walk`), because it can be as deep as a path has components.
 *
 * Events wait in a ring until init takes them (it stops reading when it has no credit). When the ring is full,
 * or the kernel says so, all waiting ones become one overflow.
 */

#define DIRS_MAX 8192u
#define EVENTS_MAX 4096u
#define RENAME_WAIT_MS 20
#define LOOK_MS 1000
#define MASK                                                                                                           \
	(IN_CREATE | IN_CLOSE_WRITE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR |   \
	 IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_DELETE_SELF)

enum watch_type { READY = 1, CREATED, WRITTEN, REMOVED, RENAMED, ATTRIBUTES, OVERFLOW };

struct event {
	enum watch_type type;
	uint32_t file_type;
	char *path;
	char *old_path;
};

struct dir {
	int wd;
	char *path; /* "" for the root of the watch */
};

struct watch {
	struct worker *worker;
	int inotify;
	int root;
	bool recursive;
	struct dir *dirs; /* sorted by wd */
	size_t n_dirs;
	bool overflowed; /* an overflow waits to be told, behind nothing else */
	struct event events[EVENTS_MAX];
	size_t first;
	size_t n_events;
	char *moved_from; /* held back */
	uint32_t moved_cookie;
	bool moved_is_dir;
	char walk[PATH_MAX]; /* where add_tree() is */
};

static int add_tree(struct watch *watch, size_t length, bool announce);

static void event_clear(struct event *event)
{
	free(event->path);
	free(event->old_path);
	*event = (struct event){};
}

static void overflow(struct watch *watch)
{
	while (watch->n_events) {
		event_clear(&watch->events[watch->first]);
		watch->first = (watch->first + 1) % EVENTS_MAX;
		watch->n_events--;
	}
	watch->overflowed = true;
}

static uint32_t type_at(struct watch *watch, const char *path, bool is_dir)
{
	struct stat st;

	if (is_dir)
		return files_type(S_IFDIR);
	return fstatat(watch->root, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : files_type(st.st_mode);
}

static void tell(struct watch *watch, enum watch_type type, const char *path, const char *old_path, uint32_t file_type)
{
	struct event *event = &watch->events[(watch->first + watch->n_events) % EVENTS_MAX];

	if (watch->overflowed)
		return;
	if (type == WRITTEN && watch->n_events) {
		struct event *last = &watch->events[(watch->first + watch->n_events - 1) % EVENTS_MAX];

		/* A file that is being written makes many of these. */
		if (last->type == WRITTEN && strcmp(last->path, path) == 0)
			return;
	}
	if (watch->n_events == EVENTS_MAX) {
		overflow(watch);
		return;
	}
	*event = (struct event){.type = type, .file_type = file_type, .path = strdup(path)};
	if (old_path)
		event->old_path = strdup(old_path);
	if (!event->path || (old_path && !event->old_path)) {
		event_clear(event);
		overflow(watch);
		return;
	}
	watch->n_events++;
}

/* Where the directory of `wd` is, or would be put. */
static size_t find_dir(const struct watch *watch, int wd)
{
	size_t low = 0, high = watch->n_dirs;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (watch->dirs[middle].wd < wd)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void drop_dir(struct watch *watch, size_t at)
{
	free(watch->dirs[at].path);
	memmove(&watch->dirs[at], &watch->dirs[at + 1], (watch->n_dirs - at - 1) * sizeof(*watch->dirs));
	watch->n_dirs--;
}

/* 1 = added, 0 = there already or gone. */
static int add_dir(struct watch *watch, const char *path)
{
	char real[64 + PATH_MAX];
	size_t at;
	char *copy;
	int wd;

	snprintf(real, sizeof(real), "/proc/self/fd/%d/%s", watch->root, path[0] ? path : ".");
	wd = inotify_add_watch(watch->inotify, real, MASK);
	if (wd < 0)
		return errno == ENOSPC || errno == ENOMEM ? -ENOSPC : path[0] ? 0 : -errno;
	at = find_dir(watch, wd);
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	if (at < watch->n_dirs && watch->dirs[at].wd == wd) {
		free(watch->dirs[at].path);
		watch->dirs[at].path = copy;
		return 0;
	}
	if (watch->n_dirs == DIRS_MAX) {
		free(copy);
		inotify_rm_watch(watch->inotify, wd);
		return -ENOSPC;
	}
	memmove(&watch->dirs[at + 1], &watch->dirs[at], (watch->n_dirs - at) * sizeof(*watch->dirs));
	watch->dirs[at] = (struct dir){wd, copy};
	watch->n_dirs++;
	return 1;
}

static int join(char joined[PATH_MAX], const char *dir, const char *name)
{
	int n = snprintf(joined, PATH_MAX, "%s%s%s", dir, dir[0] ? "/" : "", name);

	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* One entry of the directory watch->walk, whose path has `length` bytes. */
static int add_entry(struct watch *watch, size_t length, const struct dirent *entry, bool announce)
{
	size_t n = strlen(entry->d_name);
	size_t whole = length + (length ? 1 : 0) + n;
	bool is_dir = entry->d_type == DT_DIR;
	int rc = 0;

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || whole >= sizeof(watch->walk))
		return 0;
	if (length)
		watch->walk[length] = '/';
	memcpy(watch->walk + whole - n, entry->d_name, n + 1);
	if (announce)
		tell(watch, CREATED, watch->walk, NULL, type_at(watch, watch->walk, is_dir));
	if (is_dir)
		rc = add_tree(watch, whole, announce);
	watch->walk[length] = '\0';
	return rc;
}

/* Watch the directory watch->walk, and what is below it. `announce`: tell what is found there. */
static int add_tree(struct watch *watch, size_t length, bool announce)
{
	int rc = add_dir(watch, watch->walk);
	struct dirent *entry;
	DIR *stream;
	int fd;

	if (rc < 0 || !watch->recursive)
		return rc < 0 ? rc : 0;
	fd = openat(watch->root, length ? watch->walk : ".",
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? -ENOSPC : 0;
	stream = fdopendir(fd);
	if (!stream) {
		close(fd);
		return -ENOMEM;
	}
	rc = 0;
	while (rc == 0 && (entry = readdir(stream)))
		rc = add_entry(watch, length, entry, announce);
	closedir(stream);
	return rc;
}

static int add_tree_at(struct watch *watch, const char *path)
{
	snprintf(watch->walk, sizeof(watch->walk), "%s", path);
	return add_tree(watch, strlen(watch->walk), true);
}

static bool is_below(const char *path, const char *dir)
{
	size_t length = strlen(dir);

	return strncmp(path, dir, length) == 0 && (!path[length] || path[length] == '/');
}

/* A directory left the tree, or was renamed to `to`. */
static void move_dirs(struct watch *watch, const char *from, const char *to)
{
	size_t length = strlen(from);
	char path[PATH_MAX];

	for (size_t i = watch->n_dirs; i-- > 0;) {
		struct dir *dir = &watch->dirs[i];
		char *copy = NULL;

		if (!is_below(dir->path, from))
			continue;
		if (to && snprintf(path, sizeof(path), "%s%s", to, dir->path + length) < (int)sizeof(path))
			copy = strdup(path);
		if (copy) {
			free(dir->path);
			dir->path = copy;
		} else {
			inotify_rm_watch(watch->inotify, dir->wd);
			drop_dir(watch, i);
		}
	}
}

/* The other half of a rename did not come: it went out of the tree. */
static void settle_move(struct watch *watch)
{
	if (!watch->moved_from)
		return;
	tell(watch, REMOVED, watch->moved_from, NULL, watch->moved_is_dir ? files_type(S_IFDIR) : 0);
	if (watch->moved_is_dir)
		move_dirs(watch, watch->moved_from, NULL);
	free(STEAL_PTR(watch->moved_from));
}

static int moved_to(struct watch *watch, const struct inotify_event *event, const char *path, bool is_dir)
{
	if (!watch->moved_from || watch->moved_cookie != event->cookie) {
		settle_move(watch);
		tell(watch, CREATED, path, NULL, type_at(watch, path, is_dir));
		return is_dir && watch->recursive ? add_tree_at(watch, path) : 0;
	}
	tell(watch, RENAMED, path, watch->moved_from, type_at(watch, path, is_dir));
	if (is_dir)
		move_dirs(watch, watch->moved_from, path);
	free(STEAL_PTR(watch->moved_from));
	return 0;
}

/* -ESTALE: the watched directory itself is gone. */
static int digest(struct watch *watch, const struct inotify_event *event)
{
	size_t at = find_dir(watch, event->wd);
	bool is_dir = event->mask & IN_ISDIR;
	char path[PATH_MAX];

	if (event->mask & IN_Q_OVERFLOW) {
		overflow(watch);
		return 0;
	}
	if (at == watch->n_dirs || watch->dirs[at].wd != event->wd)
		return 0;
	if (event->mask & IN_IGNORED) {
		bool is_root = !watch->dirs[at].path[0];

		drop_dir(watch, at);
		return is_root ? -ESTALE : 0;
	}
	if (!event->len || join(path, watch->dirs[at].path, event->name) < 0)
		return 0;
	if (event->mask & IN_MOVED_TO)
		return moved_to(watch, event, path, is_dir);
	settle_move(watch);
	if (event->mask & IN_MOVED_FROM) {
		watch->moved_from = strdup(path);
		watch->moved_cookie = event->cookie;
		watch->moved_is_dir = is_dir;
	} else if (event->mask & IN_CREATE) {
		tell(watch, CREATED, path, NULL, type_at(watch, path, is_dir));
		return is_dir && watch->recursive ? add_tree_at(watch, path) : 0;
	} else if (event->mask & (IN_CLOSE_WRITE | IN_MODIFY)) {
		tell(watch, WRITTEN, path, NULL, type_at(watch, path, is_dir));
	} else if (event->mask & IN_DELETE) {
		tell(watch, REMOVED, path, NULL, is_dir ? files_type(S_IFDIR) : 0);
	} else if (event->mask & IN_ATTRIB) {
		tell(watch, ATTRIBUTES, path, NULL, type_at(watch, path, is_dir));
	}
	return 0;
}

static int read_events(struct watch *watch)
{
	static char bytes[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(watch->inotify, bytes, sizeof(bytes));
	int rc = 0;

	for (char *at = bytes; rc == 0 && n > 0 && at < bytes + n;) {
		const struct inotify_event *event = (const struct inotify_event *)(void *)at;

		at += sizeof(*event) + event->len;
		rc = digest(watch, event);
	}
	return rc;
}

static void send_event(struct watch *watch, enum watch_type type, const struct event *event)
{
	guest_message(WatchEvent) message = PADDOCK__INTERNAL__GUEST_WATCH_EVENT__INIT;

	message.type = type;
	if (event) {
		message.file_type = event->file_type;
		message.path.data = (uint8_t *)event->path;
		message.path.len = strlen(event->path);
		message.old_path.data = (uint8_t *)event->old_path;
		message.old_path.len = event->old_path ? strlen(event->old_path) : 0;
	}
	worker_event(watch->worker, &message);
}

/* Give init as much as its socket takes. */
static void send_events(struct watch *watch)
{
	while (watch->n_events && worker_is_flushed(watch->worker)) {
		struct event *event = &watch->events[watch->first];

		send_event(watch, event->type, event);
		event_clear(event);
		watch->first = (watch->first + 1) % EVENTS_MAX;
		watch->n_events--;
	}
	if (watch->overflowed && worker_is_flushed(watch->worker)) {
		watch->overflowed = false;
		send_event(watch, OVERFLOW, NULL);
	}
}

/* No event tells it, because our own descriptor keeps the directory. */
static int look_for_root(const struct watch *watch)
{
	static const char gone[] = " (deleted)";
	char self[64], path[PATH_MAX + sizeof(gone)];
	ssize_t n;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", watch->root);
	n = readlink(self, path, sizeof(path) - 1);
	if (n < (ssize_t)sizeof(gone) - 1 || memcmp(path + n - (sizeof(gone) - 1), gone, sizeof(gone) - 1) != 0)
		return 0;
	/* A directory may be called that. */
	path[n] = '\0';
	return access(path, F_OK) == 0 ? 0 : -ESTALE;
}

static int follow(struct watch *watch)
{
	for (;;) {
		int rc = worker_wait(watch->worker, watch->inotify, POLLIN,
				     watch->moved_from ? RENAME_WAIT_MS : LOOK_MS);

		if (rc < 0)
			return rc;
		if (rc)
			rc = read_events(watch);
		else if (watch->moved_from)
			settle_move(watch);
		else
			rc = look_for_root(watch);
		send_events(watch);
		if (rc < 0)
			return rc;
	}
}

int files_watch(struct worker *worker, const guest_message(Watch) * request, struct pdk_error *err)
{
	static struct watch watch;
	char path[PATH_MAX];
	int rc = files_make_path(worker, &request->path, path, err);

	if (rc < 0)
		return rc;
	watch = (struct watch){.worker = worker, .recursive = request->recursive};
	watch.root = path_open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
	if (watch.root < 0)
		return path_fail(err, watch.root, path);
	watch.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	watch.dirs = calloc(DIRS_MAX, sizeof(*watch.dirs));
	if (watch.inotify < 0 || !watch.dirs)
		return pdk_fail_errno(err, watch.inotify < 0 ? -errno : -ENOMEM, "cannot watch");
	rc = add_tree(&watch, 0, false);
	if (rc == 0) {
		send_event(&watch, READY, NULL);
		rc = follow(&watch);
	}
	if (rc == -ENOSPC)
		return pdk_fail(err, rc, PDK_RESOURCE_EXHAUSTED, "%.200s: more than %u directories", path, DIRS_MAX);
	if (rc == -ESTALE)
		return pdk_fail(err, rc, PDK_NOT_FOUND, "%.200s: the directory was removed", path);
	if (rc == -ECANCELED)
		return pdk_fail(err, rc, PDK_CANCELLED, "the watch was ended");
	return path_fail(err, rc, path);
}
