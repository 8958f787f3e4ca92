#ifndef PADDOCK_TESTS_GUEST_CLIENT_FAKE_H
#define PADDOCK_TESTS_GUEST_CLIENT_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "paddock/internal/guest.pb-c.h"
#include "paddock/internal/store.pb-c.h"
#include "paddock/v1/files.pb-c.h"
#include "paddock/v1/processes.pb-c.h"
#include "sandbox/base/link.h"
#include "server/guest.h"
#include "server/rpc.h"
#include "server/sandboxes.h"

/* The loop: one turn waits at most `ms` for something to happen. */
void fake_turn(int ms);
/* Turns until nothing is ready for a moment. */
void fake_settle(void);
/* Let time pass without waiting for it. */
void fake_advance(uint64_t ms);
unsigned int fake_watches(void);

/* Calls. Sent messages are kept packed; while `slow` is set they do not leave before fake_sent(). */
struct sent {
	uint8_t *bytes;
	size_t length;
};
struct rpc_call {
	struct rpc_events events;
	void *user;
	bool slow;
	bool sending;
	bool cancelled;
	bool finished;
	bool want_read;
	uint64_t deadline_ns;
	struct pdk_error end;
	struct sent reply;
	struct sent *sent;
	size_t n_sent;
	uint64_t sent_bytes;
	bool keep; /* keep what was sent (default) */
	char sandbox[64];
	char *object;
	char *detail;
	void *arena;
	unsigned int commits;
};
struct rpc_call *fake_call(void);
void fake_call_free(struct rpc_call *call);
void fake_sent(struct rpc_call *call);
void fake_cancel(struct rpc_call *call, enum pdk_code code);
/* Give a client's message to the call, waiting until it wants one. */
void fake_message(struct rpc_call *call, const ProtobufCMessage *message);
void fake_half_close(struct rpc_call *call);
/* Turns until it is finished (2 s at most); asserts the code. */
void fake_finished(struct rpc_call *call, enum pdk_code code);
/* The n-th message, waiting for it; to be freed with protobuf-c. */
Paddock__V1__ProcessEvent *fake_event(struct rpc_call *call, size_t n);

/* The server around: store, sandbox, metrics. */
extern struct sandbox fake_sandbox;
extern char fake_lost[256];   /* text of sandbox_guest_lost(), empty: it was not called */
extern bool fake_store_holds; /* commits wait for fake_store_commit() */
extern int fake_store_rc;
extern char fake_data_dir[256];
void fake_store_commit(void);
/* The row of a process, or NULL; to be freed. */
Paddock__Internal__StoredProcess *fake_stored(uint64_t id);
size_t fake_stored_count(void);
/* The newest record of audit_event(). */
extern char fake_audit_action[64], fake_audit_outcome[64], fake_audit_detail[4200];
extern unsigned int fake_audits;

/* init, as the test plays it */
struct request {
	uint32_t stream;
	enum link_kind kind;
	Paddock__Internal__GuestRequest *message; /* NULL for END and CREDIT */
	uint32_t credit;
};
extern struct link *fake_link; /* NULL when the daemon has closed it */
extern int fake_link_fd;
/* Setup and teardown of a test: a data directory, a sandbox, a guest that has said hello. */
int fake_setup(void **state);
int fake_teardown(void **state);
/* A new link to the same sandbox, as after a restart; hello is answered. */
void fake_connect(void);
void fake_disconnect(void);
/* The next frame of the daemon (END and CREDIT are passed over unless asked for); asserts that it comes. */
struct request fake_next(void);
struct request fake_next_frame(void);
bool fake_nothing(void);
void fake_request_free(struct request *request);
void fake_reply(uint32_t stream, enum link_kind kind, const Paddock__Internal__GuestReply *reply, const int *fds,
		unsigned int n_fds);
void fake_end(uint32_t stream);
void fake_ok(uint32_t stream);
void fake_error(uint32_t stream, enum pdk_code code, const char *text);

/* A process as init has it. */
struct job {
	uint32_t stream;
	uint64_t handle;
	int out[2]; /* [0] is given to the daemon */
	int err[2];
	int in[2]; /* [1] is given to the daemon */
};
/* Start /bin/x through `call`, answer as init; `request` may be NULL. */
void fake_start(struct rpc_call *call, struct job *job, Paddock__V1__StartProcessRequest *request);
void fake_answer_start(struct job *job, bool with_stdin);
/* Close the writing ends and say how it ended. */
void fake_exit(struct job *job, uint32_t exit_code, uint32_t signal);
void fake_job_close(struct job *job);

unsigned int fake_open_fds(void);

#endif
