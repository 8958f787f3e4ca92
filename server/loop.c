#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"

/*
 * Theory of operation. One epoll set holds the watched descriptors, a timerfd and an eventfd. The loop thread
 * waits without the lock, takes it, serves a batch of events, timers and deferred functions, and lets go.
 *
 * Any thread that holds the lock may add, change and remove watches. A batch that is already fetched can then
 * name a watch that was removed meanwhile, so removed watches are only marked, and freed after the next batch.
 * A watch that waits for nothing is taken out of the epoll set, because a hang-up is reported regardless of
 * the mask and would spin.
 *
 * Timers sit in a binary heap. The timerfd is armed for the earliest and never moved later: most timers are
 * cancelled long before they are due (deadlines), and a wake-up for nothing is cheaper than a system call each.
 */

#define BATCH 64

struct loop_watch {
	int fd;
	uint32_t events;
	bool removed;
	loop_fd_handler handler;
	void *arg;
	struct loop_watch *next_removed;
};

struct deferred {
	void (*fn)(void *arg);
	void *arg;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool lock_held;
static _Thread_local struct loop_task *tasks_head;
static _Thread_local struct loop_task **tasks_tail;
static struct loop_task *finally_head; /* empty whenever the lock is free */
static uint64_t turn;

static int epoll_fd = -1;
static int timer_fd = -1;
static int wake_fd = -1;
static atomic_bool stopping;

static struct loop_watch *removed_watches;

static struct loop_timer **heap;
static size_t heap_size;
static size_t heap_capacity;
static uint64_t armed_ns;

static struct deferred *queue;
static size_t queue_size;
static size_t queue_capacity;

static void run_finally(void)
{
	while (finally_head) {
		struct loop_task *task = finally_head;

		finally_head = task->next;
		task->run(task);
	}
}

void loop_lock(void)
{
	pthread_mutex_lock(&lock);
	lock_held = true;
	tasks_head = NULL;
	tasks_tail = &tasks_head;
}

void loop_unlock(void)
{
	struct loop_task *task;

	run_finally();
	task = tasks_head;
	turn++;
	tasks_head = NULL;
	lock_held = false;
	pthread_mutex_unlock(&lock);
	while (task) {
		struct loop_task *next = task->next;

		task->run(task);
		task = next;
	}
}

void loop_assert_locked(void)
{
	if (!lock_held)
		abort();
}

void loop_after_unlock(struct loop_task *task)
{
	loop_assert_locked();
	task->next = NULL;
	*tasks_tail = task;
	tasks_tail = &task->next;
}

void loop_finally(struct loop_task *task)
{
	loop_assert_locked();
	task->next = finally_head;
	finally_head = task;
}

void loop_finally_not(struct loop_task *task)
{
	struct loop_task **at = &finally_head;

	loop_assert_locked();
	while (*at && *at != task)
		at = &(*at)->next;
	if (*at)
		*at = task->next;
}

uint64_t loop_turn(void)
{
	loop_assert_locked();
	return turn;
}

uint64_t loop_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int64_t loop_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wake(void)
{
	uint64_t one = 1;

	/* EAGAIN means that the counter is full: the loop is awake already. */
	if (write(wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* Watches */

static int watch_control(struct loop_watch *watch, int operation)
{
	struct epoll_event event = {.events = watch->events, .data.ptr = watch};

	return epoll_ctl(epoll_fd, operation, watch->fd, &event) < 0 ? -errno : 0;
}

struct loop_watch *loop_watch_add(int fd, uint32_t events, loop_fd_handler handler, void *arg)
{
	struct loop_watch *watch;

	loop_assert_locked();
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return NULL;
	watch->fd = fd;
	watch->events = events;
	watch->handler = handler;
	watch->arg = arg;
	if (events && watch_control(watch, EPOLL_CTL_ADD) < 0) {
		free(watch);
		return NULL;
	}
	return watch;
}

int loop_watch_set(struct loop_watch *watch, uint32_t events)
{
	uint32_t before = watch->events;
	int operation = !before ? EPOLL_CTL_ADD : !events ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
	int rc;

	loop_assert_locked();
	if (events == before)
		return 0;
	watch->events = events;
	rc = watch_control(watch, operation);
	if (rc < 0)
		watch->events = before;
	return rc;
}

void loop_watch_remove(struct loop_watch *watch)
{
	if (!watch)
		return;
	loop_watch_set(watch, 0);
	watch->removed = true;
	watch->next_removed = removed_watches;
	removed_watches = watch;
}

static void free_removed_watches(void)
{
	while (removed_watches) {
		struct loop_watch *watch = removed_watches;

		removed_watches = watch->next_removed;
		free(watch);
	}
}

/* Timers: heap[0] is due first; a timer's heap_index is its place. */

static void heap_place(struct loop_timer *timer, size_t index)
{
	heap[index] = timer;
	timer->heap_index = (unsigned int)index;
}

static void heap_up(struct loop_timer *timer, size_t index)
{
	while (index > 0) {
		size_t parent = (index - 1) / 2;

		if (heap[parent]->due_ns <= timer->due_ns)
			break;
		heap_place(heap[parent], index);
		index = parent;
	}
	heap_place(timer, index);
}

static void heap_down(struct loop_timer *timer, size_t index)
{
	for (;;) {
		size_t child = 2 * index + 1;

		if (child >= heap_size)
			break;
		if (child + 1 < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns)
			child++;
		if (timer->due_ns <= heap[child]->due_ns)
			break;
		heap_place(heap[child], index);
		index = child;
	}
	heap_place(timer, index);
}

static int heap_reserve(void)
{
	size_t capacity = heap_capacity ? 2 * heap_capacity : 64;
	struct loop_timer **grown;

	if (heap_size < heap_capacity)
		return 0;
	grown = reallocarray(heap, capacity, sizeof(*heap));
	if (!grown)
		return -ENOMEM;
	heap = grown;
	heap_capacity = capacity;
	return 0;
}

static void arm(void)
{
	struct itimerspec when = {};

	if (!heap_size || (armed_ns && armed_ns <= heap[0]->due_ns))
		return;
	armed_ns = heap[0]->due_ns;
	when.it_value.tv_sec = (time_t)(armed_ns / 1000000000u);
	when.it_value.tv_nsec = (long)(armed_ns % 1000000000u);
	timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

int loop_timer_set(struct loop_timer *timer, uint64_t due_ns)
{
	uint64_t before = timer->due_ns;

	loop_assert_locked();
	if (!before && heap_reserve() < 0)
		return -ENOMEM;
	timer->due_ns = due_ns ? due_ns : 1;
	if (!before)
		heap_up(timer, heap_size++);
	else if (timer->due_ns < before)
		heap_up(timer, timer->heap_index);
	else
		heap_down(timer, timer->heap_index);
	arm();
	return 0;
}

void loop_timer_cancel(struct loop_timer *timer)
{
	struct loop_timer *last;
	size_t index = timer->heap_index;

	loop_assert_locked();
	if (!timer->due_ns)
		return;
	timer->due_ns = 0;
	last = heap[--heap_size];
	if (last == timer)
		return;
	if (index > 0 && last->due_ns < heap[(index - 1) / 2]->due_ns)
		heap_up(last, index);
	else
		heap_down(last, index);
}

static void run_timers(void)
{
	uint64_t now = loop_now_ns();

	/* What a handler arms for "now" waits for the next round, so that other work gets its turn. */
	while (heap_size && heap[0]->due_ns <= now) {
		struct loop_timer *timer = heap[0];

		loop_timer_cancel(timer);
		timer->handler(timer->arg);
	}
	armed_ns = 0;
	arm();
}

/* Deferred functions */

int loop_defer(void (*fn)(void *arg), void *arg)
{
	loop_assert_locked();
	if (queue_size == queue_capacity) {
		size_t capacity = queue_capacity ? 2 * queue_capacity : 64;
		struct deferred *grown = reallocarray(queue, capacity, sizeof(*queue));

		if (!grown)
			return -ENOMEM;
		queue = grown;
		queue_capacity = capacity;
	}
	if (!queue_size)
		wake();
	queue[queue_size++] = (struct deferred){.fn = fn, .arg = arg};
	return 0;
}

static void run_deferred(void)
{
	struct deferred *batch = queue;
	size_t n = queue_size;

	queue = NULL;
	queue_size = queue_capacity = 0;
	for (size_t i = 0; i < n; i++)
		batch[i].fn(batch[i].arg);
	free(batch);
}

/* The loop */

/* Level-triggered, so both must be emptied; what they hold says nothing more than that they fired. */
static void drain(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
}

static void serve(const struct epoll_event *event)
{
	struct loop_watch *watch = event->data.ptr;
	uint32_t events;

	if (event->data.ptr == &timer_fd) {
		drain(timer_fd);
		run_timers();
		return;
	}
	if (event->data.ptr == &wake_fd) {
		drain(wake_fd);
		run_deferred();
		return;
	}
	/* An earlier handler of this batch may have removed or paused it. */
	events = event->events & (watch->events | EPOLLERR | EPOLLHUP);
	if (!watch->removed && watch->events && events)
		watch->handler(events, watch->arg);
}

void loop_run(void)
{
	struct epoll_event events[BATCH];

	while (!atomic_load(&stopping)) {
		int n = epoll_wait(epoll_fd, events, BATCH, -1);

		if (n < 0 && errno != EINTR)
			abort();
		loop_lock();
		for (int i = 0; i < n; i++) {
			serve(&events[i]);
			run_finally();
		}
		free_removed_watches();
		loop_unlock();
	}
}

void loop_stop(void)
{
	atomic_store(&stopping, true);
	wake();
}

static int add_own(int fd, void *tag)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int loop_init(void)
{
	int rc;

	atomic_store(&stopping, false);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (epoll_fd < 0 || timer_fd < 0 || wake_fd < 0) {
		rc = -errno;
		loop_destroy();
		return rc;
	}
	rc = add_own(timer_fd, &timer_fd);
	if (rc >= 0)
		rc = add_own(wake_fd, &wake_fd);
	if (rc < 0)
		loop_destroy();
	return rc;
}

static void close_own(int *fd)
{
	cleanup_fd(fd);
	*fd = -1;
}

void loop_destroy(void)
{
	close_own(&epoll_fd);
	close_own(&timer_fd);
	close_own(&wake_fd);
	free_removed_watches();
	free(heap);
	heap = NULL;
	heap_size = heap_capacity = 0;
	armed_ns = 0;
	free(queue);
	queue = NULL;
	queue_size = queue_capacity = 0;
}
