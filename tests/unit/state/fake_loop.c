#include "fake_loop.h"

#include "server/log.h"
#include "server/metrics.h"
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Atomic int64_t fake_wall_offset_ms;
_Atomic uint64_t fake_boot_offset_ns;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop_timer *timers[16];
static struct {
	void (*fn)(void *arg);
	void *arg;
} deferred[64];
static unsigned int deferred_count;

void loop_lock(void)
{
	pthread_mutex_lock(&lock);
}

void loop_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

uint64_t loop_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec + fake_boot_offset_ns;
}

int64_t loop_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000 + fake_wall_offset_ms;
}

int loop_timer_set(struct loop_timer *timer, uint64_t due_ns)
{
	timer->due_ns = due_ns;
	for (unsigned int i = 0; i < 16; i++)
		if (!timers[i] || timers[i] == timer) {
			timers[i] = timer;
			return 0;
		}
	return -ENOMEM;
}

int loop_defer(void (*fn)(void *arg), void *arg)
{
	if (deferred_count == 64)
		return -ENOMEM;
	deferred[deferred_count].fn = fn;
	deferred[deferred_count++].arg = arg;
	return 0;
}

void fake_run(void)
{
	unsigned int count = deferred_count;

	for (unsigned int i = 0; i < count; i++)
		deferred[i].fn(deferred[i].arg);
	memmove(deferred, deferred + count, (deferred_count - count) * sizeof(deferred[0]));
	deferred_count -= count;
	for (unsigned int i = 0; i < 16 && timers[i]; i++) {
		if (!timers[i]->due_ns || timers[i]->due_ns > loop_now_ns())
			continue;
		timers[i]->due_ns = 0;
		timers[i]->handler(timers[i]->arg);
	}
}

void fake_wait(const bool *flag)
{
	uint64_t end = loop_now_ns() + 10000000000ull;

	while (!*flag) {
		fake_run();
		if (*flag)
			return;
		loop_unlock();
		usleep(200);
		loop_lock();
		assert_true(loop_now_ns() < end);
	}
}

struct waited {
	bool done;
	int rc;
};

static void committed(int rc, void *arg)
{
	struct waited *waited = arg;

	waited->rc = rc;
	waited->done = true;
}

int commit_wait(struct store_batch *batch)
{
	struct waited waited = {0};

	store_commit(batch, committed, &waited);
	fake_wait(&waited.done);
	return waited.rc;
}

char *fake_make_dir(void)
{
	char template[] = "/tmp/paddock-state-XXXXXX";

	assert_non_null(mkdtemp(template));
	return strdup(template);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

void fake_remove_dir(char *dir)
{
	assert_int_equal(nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(dir);
}

void log_event(enum log_level level, const char *event, ...)
{
}

const char *log_u64(uint64_t value)
{
	static char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return text;
}

void metric_add(enum metric metric, int64_t delta)
{
}
