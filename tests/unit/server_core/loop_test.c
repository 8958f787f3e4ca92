#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"
#include "server/loop.h"

static pthread_t thread;

static void *run(void *arg)
{
	loop_run();
	return NULL;
}

static int setup(void **state)
{
	return loop_init() < 0 || pthread_create(&thread, NULL, run, NULL) != 0 ? -1 : 0;
}

static int teardown(void **state)
{
	loop_stop();
	pthread_join(thread, NULL);
	loop_destroy();
	return 0;
}

/* Wait, without the lock, until *number (changed under it) has the value. */
static void wait_for(const int *number, int value)
{
	for (int i = 0; i < 2000; i++) {
		int seen;

		loop_lock();
		seen = *number;
		loop_unlock();
		if (seen == value)
			return;
		usleep(1000);
	}
	fail_msg("waited in vain for %d", value);
}

struct order {
	struct loop_timer timer;
	int number;
};

static int fired[8], n_fired;

static void note(void *arg)
{
	loop_assert_locked();
	fired[n_fired++] = ((struct order *)arg)->number;
}

static void timers_fire_in_order(void **state)
{
	static struct order orders[6];
	uint64_t now = loop_now_ns();

	loop_lock();
	n_fired = 0;
	for (int i = 0; i < 6; i++) {
		orders[i] = (struct order){.timer = {.handler = note, .arg = &orders[i]}, .number = i};
		assert_int_equal(loop_timer_set(&orders[i].timer, now + (uint64_t)(60 - 10 * i) * 1000000), 0);
	}
	loop_timer_cancel(&orders[2].timer);
	loop_timer_cancel(&orders[2].timer);
	loop_timer_set(&orders[5].timer, now + 100 * 1000000);
	loop_unlock();
	wait_for(&n_fired, 5);
	assert_int_equal(fired[0], 4);
	assert_int_equal(fired[1], 3);
	assert_int_equal(fired[2], 1);
	assert_int_equal(fired[3], 0);
	assert_int_equal(fired[4], 5);
}

/* The heap, against a plain sort. */
static void many_timers(void **state)
{
	static struct loop_timer timers[500];
	uint64_t far = loop_now_ns() + 3600 * 1000000000ull;

	loop_lock();
	srand(1);
	for (int round = 0; round < 20000; round++) {
		struct loop_timer *timer = &timers[rand() % 500];

		if (rand() % 3)
			assert_int_equal(loop_timer_set(timer, far + (uint64_t)rand()), 0);
		else
			loop_timer_cancel(timer);
	}
	for (int i = 0; i < 500; i++)
		loop_timer_cancel(&timers[i]);
	loop_unlock();
}

struct pipe_reader {
	struct loop_watch *watch;
	int fd;
	int n_bytes;
	int n_calls;
	bool remove;
};

static void readable(uint32_t events, void *arg)
{
	struct pipe_reader *reader = arg;
	char bytes[16];
	ssize_t n = read(reader->fd, bytes, sizeof(bytes));

	reader->n_calls++;
	if (n > 0)
		reader->n_bytes += (int)n;
	if (n <= 0 || reader->remove) {
		loop_watch_remove(reader->watch);
		reader->watch = NULL;
	}
}

static void watches_pause_and_go(void **state)
{
	struct pipe_reader reader = {};
	int fds[2], calls;

	assert_int_equal(pipe(fds), 0);
	reader.fd = fds[0];
	loop_lock();
	reader.watch = loop_watch_add(fds[0], EPOLLIN, readable, &reader);
	assert_non_null(reader.watch);
	loop_unlock();
	assert_int_equal(write(fds[1], "abc", 3), 3);
	wait_for(&reader.n_bytes, 3);
	loop_lock();
	assert_int_equal(loop_watch_set(reader.watch, 0), 0);
	calls = reader.n_calls;
	loop_unlock();
	/* Neither data nor the hang-up is reported while it is paused. */
	assert_int_equal(write(fds[1], "def", 3), 3);
	close(fds[1]);
	usleep(30000);
	loop_lock();
	assert_int_equal(reader.n_calls, calls);
	assert_int_equal(loop_watch_set(reader.watch, EPOLLIN), 0);
	loop_unlock();
	wait_for(&reader.n_bytes, 6);
	wait_for(&reader.n_calls, calls + 2);
	loop_lock();
	assert_null(reader.watch);
	loop_unlock();
	close(fds[0]);
}

/* Two descriptors ready in one batch, and the first handler removes the other's watch. */
static struct loop_watch *rivals[2];
static int n_served;

static void remove_rival(uint32_t events, void *arg)
{
	int self = (int)(intptr_t)arg;

	n_served++;
	loop_watch_remove(rivals[1 - self]);
	loop_watch_remove(rivals[self]);
	rivals[0] = rivals[1] = NULL;
}

static void removed_watch_is_not_called(void **state)
{
	int fds[2][2];

	loop_lock();
	for (intptr_t i = 0; i < 2; i++) {
		assert_int_equal(pipe(fds[i]), 0);
		assert_int_equal(write(fds[i][1], "x", 1), 1);
		rivals[i] = loop_watch_add(fds[i][0], EPOLLIN, remove_rival, (void *)i);
	}
	loop_unlock();
	wait_for(&n_served, 1);
	usleep(20000);
	wait_for(&n_served, 1);
	for (int i = 0; i < 2; i++) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

static int n_deferred;

static void deferred(void *arg)
{
	if (++n_deferred < 100)
		loop_defer(deferred, NULL);
}

static void deferred_runs_on_the_loop(void **state)
{
	loop_lock();
	assert_int_equal(loop_defer(deferred, NULL), 0);
	assert_int_equal(n_deferred, 0);
	loop_unlock();
	wait_for(&n_deferred, 100);
}

static char trace[8];

static void add_a(struct loop_task *task)
{
	loop_lock();
	strcat(trace, "a");
	loop_unlock();
}

static void add_b(struct loop_task *task)
{
	strcat(trace, "b");
}

static void tasks_run_after_the_lock(void **state)
{
	struct loop_task a = {.run = add_a}, b = {.run = add_b};
	uint64_t turn;

	loop_lock();
	turn = loop_turn();
	loop_after_unlock(&a);
	loop_after_unlock(&b);
	assert_string_equal(trace, "");
	assert_int_equal(loop_turn(), turn);
	loop_unlock();
	assert_string_equal(trace, "ab");
	loop_lock();
	assert_int_not_equal(loop_turn(), turn);
	loop_unlock();
}

/* What is to be done at the end of a turn is done before the lock is free, by whoever has it, and once. */
static struct loop_task final_a = {.run = add_b}, final_b = {.run = add_b};

static void finally_with_the_lock(void **state)
{
	struct loop_task after = {.run = add_a};

	trace[0] = '\0';
	loop_lock();
	loop_after_unlock(&after);
	loop_finally(&final_a);
	loop_finally(&final_b);
	loop_finally_not(&final_a);
	loop_finally_not(&final_a);
	assert_string_equal(trace, "");
	loop_unlock();
	assert_string_equal(trace, "ba");
	loop_lock();
	loop_unlock();
	assert_string_equal(trace, "ba");
}

static void want_final(void *arg)
{
	if (*(int *)arg == 0)
		loop_finally(&final_a);
	(*(int *)arg)++;
}

static void finally_after_a_handler(void **state)
{
	int calls = 0;

	trace[0] = '\0';
	loop_lock();
	assert_int_equal(loop_defer(want_final, &calls), 0);
	assert_int_equal(loop_defer(want_final, &calls), 0);
	loop_unlock();
	wait_for(&calls, 2);
	loop_lock();
	assert_string_equal(trace, "b");
	loop_unlock();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_fire_in_order),      cmocka_unit_test(many_timers),
		cmocka_unit_test(watches_pause_and_go),      cmocka_unit_test(removed_watch_is_not_called),
		cmocka_unit_test(deferred_runs_on_the_loop), cmocka_unit_test(tasks_run_after_the_lock),
		cmocka_unit_test(finally_with_the_lock),     cmocka_unit_test(finally_after_a_handler),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
