#include "server/log.h"
#include "server/loop.h"
#include "server/metrics.h"
#include <pthread.h>
#include <time.h>

/* The parts of server/ that the store needs, without a daemon around it. */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

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
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int64_t loop_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void log_event(enum log_level level, const char *event, ...)
{
}

const char *log_u64(uint64_t value)
{
	return "";
}

void metric_add(enum metric metric, int64_t delta)
{
}
