#ifndef PADDOCK_INIT_INIT_H
#define PADDOCK_INIT_INIT_H

#include "sandbox/base/cleanup.h"
#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

/*
 * paddock-init: pid 1 of a sandbox. One thread, one epoll loop; everything that may block, or that looks at
 * files which the sandbox can change, happens in a forked child (see spawn.c and worker.c).
 */

#define INIT_LISTEN_FD 3
#define INIT_ARCHIVE_FD 4
#define INIT_FDS_USED 5 /* all above are closed at start */

struct init;
struct session;
struct process;
struct job;
struct sudo;

/* One descriptor in the loop. With no events it is taken out of epoll, so that a hang-up does not spin. */
struct source {
	int fd;
	uint32_t events;
	void (*ready)(struct init *init, struct source *source, uint32_t events);
};

struct init {
	int epoll;
	int archive_fd; /* -1: this init was started without the helper */
	struct source listen;
	struct source signals;
	struct source timer; /* CLOCK_BOOTTIME, set to the earliest deadline */
	struct rlimit nofile;

	struct session *session; /* NULL: no paddockd is connected */
	struct process *processes;
	unsigned int n_running;
	unsigned int n_handles;
	struct job *jobs;
	unsigned int n_jobs;
	struct sudo *sudo;

	pid_t spare_pid; /* of spare.c; 0: there is none */
	int spare_fd;
	uint64_t spare_deadline; /* to make one, or to let it go; 0: nothing is due */

	char **env; /* what GuestSetup said, NULL-terminated */
	bool sudo_allowed;
};

#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

int source_add(struct init *init, struct source *source, int fd, uint32_t events,
	       void (*ready)(struct init *init, struct source *source, uint32_t events));
/* Change what is waited for. */
void source_set(struct init *init, struct source *source, uint32_t events);
/* Take it out of the loop and close the descriptor. Harmless when it was never added and fd is -1. */
void source_close(struct init *init, struct source *source);

/* Milliseconds of CLOCK_BOOTTIME. */
uint64_t init_now(void);
/* Wake up at `deadline` (init_now() units) at the latest. */
void init_wake_at(struct init *init, uint64_t deadline);

#endif
