#include "worker.h"

#include "loop.h"
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct worker_job *first, **last = &first;
static bool stopping, running;
static pthread_t thread;

/* NULL: there is none, and there will be none. */
static struct worker_job *take(void)
{
	struct worker_job *job;

	pthread_mutex_lock(&mutex);
	while (!first && !stopping)
		pthread_cond_wait(&changed, &mutex);
	job = first;
	if (job) {
		first = job->next;
		if (!first)
			last = &first;
	}
	pthread_mutex_unlock(&mutex);
	return job;
}

static void *run(void *unused)
{
	struct worker_job *job;

	while ((job = take())) {
		job->work(job);
		loop_lock();
		job->done(job);
		loop_unlock();
	}
	return NULL;
}

int worker_start(void)
{
	int rc = pthread_create(&thread, NULL, run, NULL);

	running = rc == 0;
	return -rc;
}

void worker_stop(void)
{
	if (!running)
		return;
	pthread_mutex_lock(&mutex);
	stopping = true;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	running = false;
}

void worker_submit(struct worker_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&mutex);
	*last = job;
	last = &job->next;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&mutex);
}

struct closing {
	struct worker_job job;
	int fd;
};

static void close_work(struct worker_job *job)
{
	close(((struct closing *)job)->fd);
}

static void close_done(struct worker_job *job)
{
	free((struct closing *)job);
}

void worker_close(int fd)
{
	struct closing *closing = fd >= 0 && running ? malloc(sizeof(*closing)) : NULL;

	if (closing) {
		*closing = (struct closing){.job = {.work = close_work, .done = close_done}, .fd = fd};
		worker_submit(&closing->job);
	} else if (fd >= 0) {
		close(fd);
	}
}
