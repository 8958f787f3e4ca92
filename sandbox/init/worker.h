#ifndef PADDOCK_INIT_WORKER_H
#define PADDOCK_INIT_WORKER_H

#include "sandbox/base/link.h"
#include "sandbox/init/account.h"
#include "sandbox/init/init.h"
#include "sandbox/init/message.h"

/*
 * The worker's side of a file operation: a fork of init that has become the user for good. It is not
 * dumpable, so the user cannot trace it, but may kill or stop it: then the operation ends, nothing else.
 */

struct worker {
	struct link *link;
	int pipe;    /* its end, or -1 */
	int archive; /* the helper's memfd, or -1 */
	struct account account;
	struct account_names names;
	bool committed; /* paddockd has sent everything */
	bool stopped;   /* nobody wants the result any more */
};

/* The child's main; does not return. */
void worker_run(const guest_request *request, int channel, int pipe, int archive) __attribute__((noreturn));

void worker_reply(struct worker *worker, const guest_reply *reply, bool with_pipe);
void worker_reply_file(struct worker *worker, guest_message(File) * file, bool with_pipe);
void worker_reply_count(struct worker *worker, uint64_t entries, uint64_t bytes);
void worker_event(struct worker *worker, const guest_message(WatchEvent) * event);
/* True: nothing waits to be read by init. */
bool worker_is_flushed(const struct worker *worker);

/* Wait until `fd` (-1: none) is ready, or init has something to say, at most `timeout_ms` (-1: for ever). 1 = fd is
 * ready, 0 = not; -ECANCELED = stop. */
int worker_wait(struct worker *worker, int fd, short events, int timeout_ms);
/* Wait for the commit; -ECANCELED instead. */
int worker_wait_commit(struct worker *worker);

/* The operations: 0 after the last reply but before END, or an error that is replied. */
int files_stat(struct worker *worker, const guest_message(Stat) * request, struct pdk_error *err);
int files_list(struct worker *worker, const guest_message(List) * request, struct pdk_error *err);
int files_read(struct worker *worker, const guest_message(Read) * request, struct pdk_error *err);
int files_write(struct worker *worker, const guest_message(Write) * request, struct pdk_error *err);
int files_make_dir(struct worker *worker, const guest_message(MakeDir) * request, struct pdk_error *err);
int files_move(struct worker *worker, const guest_message(Move) * request, struct pdk_error *err);
int files_remove(struct worker *worker, const guest_message(Remove) * request, struct pdk_error *err);
int files_watch(struct worker *worker, const guest_message(Watch) * request, struct pdk_error *err);
int files_unpack(struct worker *worker, const guest_message(Unpack) * request, struct pdk_error *err);
int files_pack(struct worker *worker, const guest_message(Pack) * request, struct pdk_error *err);

#endif
