#ifndef PADDOCK_TESTS_FAKE_RPC_H
#define PADDOCK_TESTS_FAKE_RPC_H

#include "fake_loop.h"
#include "server/rpc.h"

/* server/rpc.h for tests: a call is a struct whose result can be looked at. The modules that Admin asks (sandboxes,
 * templates) are numbers here. */

struct rpc_call {
	struct principal principal;
	const struct rpc_events *events;
	void *user;
	bool cancelled;
	bool finished;
	enum pdk_code code;
	char text[PDK_ERROR_TEXT_MAX];
	char object[600];
	uint8_t *reply; /* packed; the newest message of a stream */
	size_t reply_length;
	unsigned int sent; /* messages of a stream */
	bool sending;      /* until fake_sent() */
	void (*committed)(struct rpc_call *call, int rc);
	void *arena[16];
	unsigned int arena_used;
};

/* A call by the operator. */
struct rpc_call *fake_call(void);
/* Wait for its end and check the status. */
void fake_expect(struct rpc_call *call, enum pdk_code code);
/* The same for an error, whose text must begin so; frees the call. */
void fake_expect_error(struct rpc_call *call, enum pdk_code code, const char *text);
/* The reply of a call that ended well, unpacked. */
ProtobufCMessage *fake_reply(struct rpc_call *call, const ProtobufCMessageDescriptor *descriptor);
void fake_call_free(struct rpc_call *call);
void fake_cancel(struct rpc_call *call);
/* The message has left. */
void fake_sent(struct rpc_call *call);

extern char fake_cancelled_key[64]; /* the newest rpc_cancel_key() */
extern uint32_t fake_sandboxes;     /* living, of every tenant */
extern unsigned int fake_templates_removed;
extern bool fake_kill_waits; /* sandboxes_kill_tenant() does not end before fake_kill_done() */
void fake_kill_done(void);

#endif
