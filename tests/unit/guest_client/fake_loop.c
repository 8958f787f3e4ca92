#include "fake.h"
#include "server/loop.h"
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

/* server/loop.h in one thread: fake_turn() polls, runs what is ready, then timers and deferred functions. */

#define WATCHES_MAX 256
#define TIMERS_MAX 256
#define DEFERRED_MAX 1024

struct loop_watch {
	int fd;
	uint32_t events;
	loop_fd_handler handler;
	void *arg;
};

static struct loop_watch *watches[WATCHES_MAX];
static struct loop_timer *timers[TIMERS_MAX];
static struct {
	void (*fn)(void *arg);
	void *arg;
} deferred[DEFERRED_MAX];
static unsigned int n_deferred;
static uint64_t skipped_ns;

uint64_t loop_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + skipped_ns;
}

int64_t loop_wall_ms(void)
{
	return 1700000000000;
}

struct loop_watch *loop_watch_add(int fd, uint32_t events, loop_fd_handler handler, void *arg)
{
	for (int i = 0; i < WATCHES_MAX; i++) {
		if (watches[i])
			continue;
		watches[i] = calloc(1, sizeof(*watches[i]));
		*watches[i] = (struct loop_watch){fd, events, handler, arg};
		return watches[i];
	}
	return NULL;
}

int loop_watch_set(struct loop_watch *watch, uint32_t events)
{
	watch->events = events;
	return 0;
}

void loop_watch_remove(struct loop_watch *watch)
{
	for (int i = 0; watch && i < WATCHES_MAX; i++) {
		if (watches[i] == watch) {
			watches[i] = NULL;
			free(watch);
			return;
		}
	}
}

unsigned int fake_watches(void)
{
	unsigned int n = 0;

	for (int i = 0; i < WATCHES_MAX; i++)
		n += watches[i] != NULL;
	return n;
}

int loop_timer_set(struct loop_timer *timer, uint64_t due_ns)
{
	int slot = -1;

	timer->due_ns = due_ns ? due_ns : 1;
	for (int i = 0; i < TIMERS_MAX; i++) {
		if (timers[i] == timer)
			return 0;
		if (!timers[i] && slot < 0)
			slot = i;
	}
	timers[slot] = timer;
	return 0;
}

void loop_timer_cancel(struct loop_timer *timer)
{
	timer->due_ns = 0;
	for (int i = 0; i < TIMERS_MAX; i++) {
		if (timers[i] == timer)
			timers[i] = NULL;
	}
}

int loop_defer(void (*fn)(void *arg), void *arg)
{
	assert_true(n_deferred < DEFERRED_MAX);
	deferred[n_deferred].fn = fn;
	deferred[n_deferred++].arg = arg;
	return 0;
}

void fake_advance(uint64_t ms)
{
	skipped_ns += ms * 1000000;
}

static void run_deferred(void)
{
	unsigned int n = n_deferred;

	for (unsigned int i = 0; i < n; i++)
		deferred[i].fn(deferred[i].arg);
	memmove(deferred, deferred + n, (n_deferred - n) * sizeof(deferred[0]));
	n_deferred -= n;
}

static void run_timers(void)
{
	for (int i = 0; i < TIMERS_MAX; i++) {
		struct loop_timer *timer = timers[i];

		if (!timer || timer->due_ns > loop_now_ns())
			continue;
		loop_timer_cancel(timer);
		timer->handler(timer->arg);
	}
}

static int run_watches(int ms)
{
	struct pollfd polls[WATCHES_MAX];
	struct loop_watch *which[WATCHES_MAX];
	int slots[WATCHES_MAX];
	int n = 0, ready;

	for (int i = 0; i < WATCHES_MAX; i++) {
		if (!watches[i] || !watches[i]->events)
			continue;
		slots[n] = i;
		which[n] = watches[i];
		polls[n++] = (struct pollfd){.fd = watches[i]->fd, .events = (short)watches[i]->events};
	}
	ready = poll(polls, (nfds_t)n, ms);
	for (int i = 0; i < n && ready > 0; i++) {
		assert_false(polls[i].revents & POLLNVAL);
		if (polls[i].revents && watches[slots[i]] == which[i])
			which[i]->handler((uint32_t)polls[i].revents, which[i]->arg);
	}
	return ready;
}

void fake_turn(int ms)
{
	run_watches(n_deferred ? 0 : ms);
	run_timers();
	run_deferred();
}

void fake_settle(void)
{
	for (int i = 0; i < 3; i++) {
		while (run_watches(0) > 0 || n_deferred)
			fake_turn(0);
		fake_turn(1);
	}
}
