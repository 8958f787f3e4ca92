#ifndef PADDOCK_WARDEN_LOOP_H
#define PADDOCK_WARDEN_LOOP_H

#include <stdint.h>

/*
 * One thread, one epoll. Each turn takes exactly one event, so a handler may remove and free any watch,
 * its own included. When no event waits, `idle` runs: it does at most one short piece of work and returns
 * how long it may be left alone in milliseconds (0: it has more to do; -1: until the next event).
 */
struct watch {
	int fd; /* -1: not watched. Not owned */
	void (*handler)(struct watch *watch, uint32_t events);
};

int loop_open(void);
int loop_add(struct watch *watch, int fd, uint32_t events, void (*handler)(struct watch *, uint32_t));
void loop_remove(struct watch *watch);
/* Run until loop_stop(). */
void loop_run(int (*idle)(void));
void loop_stop(void);
/* For a forked child: forget the epoll descriptor. */
int loop_fd(void);

#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer) - __builtin_offsetof(type, member)))

#endif
