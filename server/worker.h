#ifndef PADDOCK_SERVER_WORKER_H
#define PADDOCK_SERVER_WORKER_H

/*
 * One thread for what may wait for a disk: files that clients upload for builds, and the logs of builds. Jobs run one
 * after another, in order.
 * The store has a writer of its own.
 */

struct worker_job {
	void (*work)(struct worker_job *job); /* without the lock; may block */
	void (*done)(struct worker_job *job); /* lock held; the job may be submitted again, or freed */
	struct worker_job *next;
};

int worker_start(void);
/* Every job that was submitted is done when this returns. Called without the lock, when nobody submits any more. */
void worker_stop(void);
/* With the lock. The job is embedded in its owner and must stay until `done`. */
void worker_submit(struct worker_job *job);
/* Close a descriptor there: the last one of a file that has no name any more gives its blocks back. -1 is fine. */
void worker_close(int fd);

#endif
