#ifndef PADDOCK_INIT_JOB_H
#define PADDOCK_INIT_JOB_H

#include "sandbox/init/init.h"
#include "sandbox/init/message.h"
#include <sys/types.h>

/*
 * File operations, from init's side. Each runs in a forked worker that is the user who asked, so the kernel
 * decides what may be touched, and nothing that it waits for stops init. init passes the worker's packed
 * replies on without reading them; between the two runs another `link`.
 */

#define JOBS_MAX 64u
#define JOB_WATCHES_MAX 16u

/* Frames from a worker: kind REPLY or EVENT, on one of these streams; END when it is done. To a worker:
 * REQUEST = commit, END = stop. */
#define JOB_STREAM_PLAIN 1u
#define JOB_STREAM_PIPE 3u /* the reply takes the pipe end with it */

struct job;

int job_start(struct init *init, uint32_t stream, const guest_request *request, struct pdk_error *err);
struct job *job_of_stream(const struct init *init, uint32_t stream);
/* GuestForget on the stream of a write or unpack. -EPROTO: the operation has no such step. */
int job_finish(struct init *init, struct job *job, bool commit);
void job_credit(struct init *init, struct job *job, uint32_t credit);
void job_cancel(struct init *init, struct job *job);
void job_cancel_all(struct init *init);
void job_ended(struct init *init, pid_t pid, int status);
void job_check_deadlines(struct init *init);
void job_postpone(struct init *init, uint64_t by_ms);

#endif
