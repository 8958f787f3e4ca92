#include "lazy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "checkpoint_private.h"
#include "criu.h"
#include "images.h"
#include "kernel.h"
#include "lazy_private.h"
#include "log.h"
#include "netns.h"
#include "options.h"
#include "record.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"

#define DEVICE "/dev/userfaultfd"
#define FILES_MAX 4096
#define ANSWER_SECONDS 60
#define FINISH_MS 60000
#define FINISH_STEP_MS 2

/*
 * Below this a plain restore answers as soon: the server, its sockets and the faults cost what reading saves. Measured
 * side by side, first answers of both are the same at 16 MB, and at 32 MB that of the lazy one comes in half the time
 * (tests/bench/README.md).
 */
#define WORTH_BYTES (24u << 20)
/* Processes that were forked share pages, and a plain restore has them share again. A lazy one does not know of it, so what
 * all but the largest of them hold together must be little. */
#define SHARED_MAX (64u << 20)

static const char *missing = "not tried";

/* --- can this host --- */

/* A page that is missing is asked for, and is what was given. */
static const char *try_it(int device)
{
	_cleanup_fd_ int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = {.api = UFFD_API, .features = LAZY_FEATURES};
	struct uffdio_register area = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	struct uffdio_copy copy = {0};
	char page[PAGE_BYTES];
	const char *wrong = NULL;
	char *memory;

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || (api.features & LAZY_FEATURES) != LAZY_FEATURES)
		return "userfaultfd does not tell of forks (CAP_SYS_PTRACE, Linux 4.11)";
	memory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return "no memory";
	memset(page, 7, sizeof(page));
	area.range.start = copy.dst = (uintptr_t)memory;
	area.range.len = copy.len = sizeof(page);
	copy.src = (uintptr_t)page;
	if (ioctl(fd, UFFDIO_REGISTER, &area) < 0 || ioctl(fd, UFFDIO_COPY, &copy) < 0 || memory[1] != 7)
		wrong = "userfaultfd does not work";
	/* Else the end of the mapping would be told of, and wait for us to read that. */
	ioctl(fd, UFFDIO_UNREGISTER, &area.range);
	munmap(memory, PAGE_BYTES);
	return wrong;
}

void lazy_setup(void)
{
	_cleanup_fd_ int device = open(DEVICE, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	if (!options.lazy_restore)
		missing = "--lazy-restore is off";
	else if (device < 0)
		missing = "there is no /dev/userfaultfd (Linux 6.1, CONFIG_USERFAULTFD)";
	else
		missing = try_it(device);
}

const char *lazy_missing(void)
{
	return missing;
}

/* --- is it worth it --- */

void lazy_free(struct lazy *lazy)
{
	if (!lazy)
		return;
	for (unsigned int i = 0; i < lazy->n; i++) {
		pagemap_free(&lazy->files[i].map);
		chunk_file_close(&lazy->files[i].pages);
	}
	free(lazy->files);
	if (lazy->boss >= 0)
		close(lazy->boss);
	free(lazy);
}

static void free_unfinished(struct lazy **lazy)
{
	lazy_free(*lazy);
}

static int is_pagemap(const struct dirent *entry)
{
	return strncmp(entry->d_name, "pagemap-", 8) == 0;
}

static int add_file(struct lazy *lazy, int dir, const char *name)
{
	struct lazy_file *file = &lazy->files[lazy->n];
	int rc = pagemap_read(dir, name, &file->map);

	if (rc < 0)
		return rc;
	rc = images_open_pages(dir, file->map.pages, &file->pages);
	/* All pages of the map must be in the file. */
	if (rc == 0 && file->map.n > 0) {
		const struct pagemap_entry *last = &file->map.entries[file->map.n - 1];

		if (last->offset + (last->end - last->start) > file->pages.size) {
			chunk_file_close(&file->pages);
			rc = -EBADMSG;
		}
	}
	if (rc < 0)
		pagemap_free(&file->map);
	else
		lazy->n++;
	return rc;
}

static int add_files(struct lazy *lazy, int dir)
{
	struct dirent **entries = NULL;
	char path[32];
	int n, rc = 0;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
	n = scandir(path, &entries, is_pagemap, alphasort);
	if (n < 0)
		return -errno;
	lazy->files = n > 0 && n <= FILES_MAX ? calloc((size_t)n, sizeof(*lazy->files)) : NULL;
	if (!lazy->files)
		rc = -ENOMEM;
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = add_file(lazy, dir, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

bool lazy_is_large(int dir)
{
	uint64_t bytes = 0;
	struct stat st;
	char name[32];

	/* CRIU numbers them from 1. */
	for (unsigned int i = 1; !missing && bytes < WORTH_BYTES && i <= FILES_MAX; i++) {
		snprintf(name, sizeof(name), "pages-%u.img", i);
		if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			break;
		bytes += (uint64_t)st.st_size;
	}
	return bytes >= WORTH_BYTES;
}

static bool is_worth_it(struct lazy *lazy, uint64_t memory_bytes)
{
	uint64_t sum = 0, largest = 0;

	for (unsigned int i = 0; i < lazy->n; i++) {
		uint64_t bytes = lazy->files[i].map.lazy_bytes;

		sum += bytes;
		if (bytes > largest)
			largest = bytes;
	}
	lazy->tight = memory_bytes && 2 * sum > memory_bytes;
	return sum >= WORTH_BYTES && sum - largest <= SHARED_MAX;
}

int lazy_prepare(const struct checkpoint_plan *plan, int dir, struct lazy **ret)
{
	_cleanup_(free_unfinished) struct lazy *lazy = calloc(1, sizeof(*lazy));
	int rc;

	if (!lazy)
		return -ENOMEM;
	lazy->boss = -1;
	lazy->is_copy = plan->snapshot;
	rc = add_files(lazy, dir);
	if (rc < 0)
		return rc;
	if (!is_worth_it(lazy, plan->rootfs.memory_bytes))
		return 0;
	*ret = STEAL_PTR(lazy);
	return 1;
}

/* --- the pages that are there from the start --- */

static int check_file(const struct lazy_file *file)
{
	static uint8_t bytes[CHUNK_BYTES];
	size_t next = 0; /* those before are good */

	for (size_t i = 0; i < file->map.n; i++) {
		const struct pagemap_entry *entry = &file->map.entries[i];
		size_t last = (size_t)((entry->offset + (entry->end - entry->start) - 1) / CHUNK_BYTES);
		size_t at = (size_t)(entry->offset / CHUNK_BYTES);

		if (entry->lazy && file->map.pid)
			continue;
		for (at = at > next ? at : next; at <= last; at++) {
			int rc = chunk_file_read(&file->pages, at, bytes);

			if (rc < 0)
				return rc;
			next = at + 1;
		}
	}
	return 0;
}

int lazy_check_rest(const struct lazy *lazy, struct pdk_error *err)
{
	for (unsigned int i = 0; i < lazy->n; i++) {
		int rc = check_file(&lazy->files[i]);

		if (rc == -EBADMSG)
			return pdk_fail(err, rc, PDK_DATA_LOSS, "the checkpoint is damaged: pages-%u.img",
					lazy->files[i].map.pages);
		if (rc < 0)
			return pdk_fail_errno(err, rc, "check the images");
	}
	return 0;
}

/* --- the server's start --- */

/* CRIU connects to this name in its working directory. */
static int listen_in(int work)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/lazy-pages.socket", work);
	/* For the sandbox's root, in a directory that only it can enter. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(address.sun_path, 0666) < 0 ||
	    listen(fd, 4) < 0)
		return -errno;
	return STEAL_FD(fd);
}

/* In the sandbox's network: a restored process is in its own file system when it calls here (sandbox/criu/preload.c). It
 * is gone before anything runs, and the name is one that nothing in the images can have taken. */
static int listen_for_makers(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "%s", name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 64) < 0)
		return -errno;
	return STEAL_FD(fd);
}

static int make_name(char name[40])
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	snprintf(name, 40, "paddock-pages-%016" PRIx64, random);
	criu_set_pages(name);
	return 0;
}

static int open_turn(void)
{
	_cleanup_fd_ int run = open(options.runtime_dir, O_DIRECTORY | O_PATH | O_CLOEXEC);
	int fd = run < 0 ? -1 : openat(run, "lazy.turn", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? -errno : fd;
}

static int open_ends(const struct checkpoint_plan *plan, int work, int boss, struct lazy_ends *ends)
{
	int *const all[] = {&ends->pages, &ends->makers, &ends->device, &ends->record,
			    &ends->hurry, &ends->killer, &ends->turn};
	char name[40];
	int rc = make_name(name);

	*ends = (struct lazy_ends){.boss = boss};
	if (rc < 0)
		return rc;
	ends->pages = listen_in(work);
	ends->makers = netns_inside(plan->netns, listen_for_makers, name);
	ends->device = open(DEVICE, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	ends->record = record_open_lazy(plan->id, true);
	ends->hurry = record_open_hurry(plan->id, true);
	ends->killer = cgroup_open_kill(plan->id);
	ends->turn = open_turn();
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (*all[i] < 0)
			return *all[i] == -1 ? -ENODEV : *all[i];
	return flock(ends->record, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

static void close_ends(const struct lazy_ends *ends)
{
	const int all[] = {ends->pages, ends->makers, ends->device, ends->record,
			   ends->hurry, ends->killer, ends->turn};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i] > 0)
			close(all[i]);
}

int lazy_start(struct lazy *lazy, const struct checkpoint_plan *plan, int work, struct pdk_error *err)
{
	struct timeval patience = {.tv_sec = ANSWER_SECONDS};
	struct lazy_ends ends;
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pdk_fail_errno(err, -errno, "make a socket");
	lazy->boss = pair[0];
	setsockopt(lazy->boss, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	rc = open_ends(plan, work, pair[1], &ends);
	if (rc == 0) {
		lazy->server = fork();
		if (lazy->server == 0)
			lazy_serve(lazy, &ends);
		rc = lazy->server < 0 ? -errno : 0;
	}
	close_ends(&ends);
	close(pair[1]);
	return rc < 0 ? pdk_fail_errno(err, rc, "start the server of pages") : 0;
}

int lazy_admit(struct lazy *lazy, pid_t first, struct pdk_error *err)
{
	struct lazy_answer answer;

	FAULT("lazy_admit");
	/* One that has given up before it was asked has left its answer. */
	(void)!send(lazy->boss, &first, sizeof(first), MSG_NOSIGNAL);
	if (recv(lazy->boss, &answer, sizeof(answer), 0) != (ssize_t)sizeof(answer))
		return pdk_fail(err, -EIO, PDK_UNAVAILABLE, "the server of pages was ended");
	if (answer.error)
		return pdk_fail(err, -answer.error, answer.error == EBADMSG ? PDK_DATA_LOSS : PDK_UNAVAILABLE, "%.159s",
				answer.text);
	FAULT("lazy_admitted");
	return 0;
}

/* --- from outside --- */

bool lazy_pending(const char *id)
{
	_cleanup_fd_ int fd = record_open_lazy(id, false);

	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

int lazy_finish(const char *id, struct pdk_error *err)
{
	_cleanup_fd_ int hurry = record_open_hurry(id, false);
	char reason[160];

	/* When nobody reads any more, nothing is missing. */
	if (hurry >= 0 && write(hurry, "!", 1) < 0 && errno != EAGAIN && errno != EPIPE)
		return pdk_fail_errno(err, -errno, "ask for the missing memory");
	for (unsigned int waited = 0; lazy_pending(id); waited += FINISH_STEP_MS) {
		if (waited > FINISH_MS)
			return pdk_fail(err, -ETIMEDOUT, PDK_UNAVAILABLE,
					"the memory of the sandbox has not all come back yet; try again");
		usleep(FINISH_STEP_MS * 1000);
	}
	lazy_read_reason(id, reason);
	return reason[0] ? pdk_fail(err, -EIO, PDK_DATA_LOSS, "%s", reason) : 0;
}

void lazy_read_reason(const char *id, char text[160])
{
	_cleanup_fd_ int fd = record_open_lazy(id, false);
	ssize_t n = fd < 0 ? 0 : pread(fd, text, 159, 0);

	text[n > 0 ? n : 0] = '\0';
}
