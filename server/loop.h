#ifndef PADDOCK_SERVER_LOOP_H
#define PADDOCK_SERVER_LOOP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The daemon's one lock and its event loop.
 *
 * Three kinds of threads run: the completion-queue threads (calls arrive and stream), the loop thread
 * (links to sandboxes, the warden, pipes, timers) and the store's writer. All daemon state belongs to the
 * loop lock; every callback named in server/ headers runs with it held, on whichever thread had the news, so
 * a call is answered without a hand-over. Nothing blocks while holding it: no disk, no fsync, no waiting.
 */

void loop_lock(void);
void loop_unlock(void);
/* Abort unless this thread holds the lock (debug builds). */
void loop_assert_locked(void);

struct loop_watch;
/* `events` is an EPOLL* mask of what happened. */
typedef void (*loop_fd_handler)(uint32_t events, void *arg);

/* Watch a descriptor (level-triggered). The fd stays the caller's. NULL when out of memory or fds. */
struct loop_watch *loop_watch_add(int fd, uint32_t events, loop_fd_handler handler, void *arg);
/* Change what is waited for; 0 pauses. */
int loop_watch_set(struct loop_watch *watch, uint32_t events);
/* Stop watching, before the fd is closed. Safe inside any handler; NULL is fine. */
void loop_watch_remove(struct loop_watch *watch);

/* A timer is embedded in its owner. Zero-initialise it, set handler and arg, then arm it. */
struct loop_timer {
	void (*handler)(void *arg);
	void *arg;
	uint64_t due_ns; /* CLOCK_BOOTTIME; 0 = not armed */
	unsigned int heap_index;
};
/* (Re-)arm to fire once at `due_ns` on CLOCK_BOOTTIME. -ENOMEM. */
int loop_timer_set(struct loop_timer *timer, uint64_t due_ns);
void loop_timer_cancel(struct loop_timer *timer);

uint64_t loop_now_ns(void); /* CLOCK_BOOTTIME */
int64_t loop_wall_ms(void); /* Unix milliseconds */

/* Run `fn(arg)` soon on the loop thread with the lock held. For leaving deep stacks. -ENOMEM. */
int loop_defer(void (*fn)(void *arg), void *arg);

/* Run `task` on this thread as soon as it has let go of the lock: for calls into libraries that may take long or
 * call back. The task is embedded in its owner and must stay alive until `run` starts. In order of queueing. */
struct loop_task {
	void (*run)(struct loop_task *task);
	struct loop_task *next;
};
void loop_after_unlock(struct loop_task *task);
/* Run `task` with the lock held, when what is being done now is done: the handler of this event or timer, or else whatever
 * this thread does until it lets go of the lock. For what is worth doing once, like a write. At most once in the list. */
void loop_finally(struct loop_task *task);
/* Its owner goes. Fine if it is not in the list. */
void loop_finally_not(struct loop_task *task);
/* A number that changes with every release of the lock: equal means "nobody else has run since". */
uint64_t loop_turn(void);

int loop_init(void);
/* Run until loop_stop(). Called by main without the lock. */
void loop_run(void);
void loop_stop(void);
void loop_destroy(void);

#endif
