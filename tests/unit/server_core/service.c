#include "service.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core_descriptors.h"
#include "core_test.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "server/health.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/reflection.h"
#include "server/rpc.h"
#include "server/rpc_internal.h"

const uint8_t *const rpc_descriptor_set = core_descriptor_set;
const size_t rpc_descriptor_set_size = sizeof(core_descriptor_set);

atomic_int hang_cancelled, releases;
atomic_llong bytes_produced;

static char folder[64];
static _Thread_local char address[96];
static pthread_t loop_thread;

/* Handlers */

static void echo(struct rpc_call *call, const ProtobufCMessage *request)
{
	const Paddock__Test__Text *text = (const void *)request;
	struct pdk_error err;

	rpc_audit_object(call, NULL, text->text);
	if (strcmp(text->text, "fail") == 0) {
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "no such \xe2\x9c\x93 thing\n%%");
		rpc_fail(call, &err);
		return;
	}
	if (strcmp(text->text, "kept") == 0)
		rpc_finish_kept(call, store_batch_create(), request);
	else
		rpc_finish(call, request);
}

static void hang_end(struct rpc_call *call, const struct pdk_error *why)
{
	atomic_store(&hang_cancelled, (int)why->code);
	rpc_fail(call, why);
}

static void hang(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {.on_cancel = hang_end};

	rpc_audit_object(call, ((const Paddock__Test__Text *)(const void *)request)->text, NULL);
	rpc_set_events(call, &events, NULL);
}

struct counter {
	int64_t next, end;
};

/* The last message goes with the status. */
static void count_on(struct rpc_call *call)
{
	struct counter *counter = rpc_user(call);
	Paddock__Test__Number number = PADDOCK__TEST__NUMBER__INIT;

	if (counter->next < counter->end) {
		number.value = counter->next++;
		rpc_send(call, &number.base);
	}
	if (counter->next == counter->end)
		rpc_finish(call, NULL);
}

static void count(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {.on_sent = count_on};
	struct counter *counter = rpc_alloc(call, sizeof(*counter));

	counter->end = ((const Paddock__Test__Number *)(const void *)request)->value;
	rpc_set_events(call, &events, counter);
	count_on(call);
}

#define BLOCK (256u << 10)

static void release(void *block)
{
	/* Released without the lock, so it may be taken here. */
	loop_lock();
	loop_unlock();
	atomic_fetch_add(&releases, 1);
	free(block);
}

static void bytes_on(struct rpc_call *call)
{
	struct counter *counter = rpc_user(call);
	Paddock__Test__Block head = PADDOCK__TEST__BLOCK__INIT;
	uint8_t packed[32];
	uint8_t *block;

	if (counter->next >= counter->end) {
		rpc_finish(call, NULL);
		return;
	}
	block = malloc(BLOCK);
	memset(block, (int)(counter->next / BLOCK), BLOCK);
	head.offset = counter->next;
	counter->next += BLOCK;
	atomic_store(&bytes_produced, counter->next);
	rpc_send_bytes(call, packed, paddock__test__block__pack(&head, packed), 2, block, BLOCK, release, block);
}

static void bytes(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {.on_sent = bytes_on};
	struct counter *counter = rpc_alloc(call, sizeof(*counter));

	counter->end = ((const Paddock__Test__Number *)(const void *)request)->value;
	rpc_set_events(call, &events, counter);
	bytes_on(call);
}

static void sum_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	struct counter *counter = rpc_user(call);

	counter->next += ((const Paddock__Test__Number *)(const void *)message)->value;
	rpc_read(call);
}

static void sum_done(struct rpc_call *call)
{
	struct counter *counter = rpc_user(call);
	Paddock__Test__Number number = PADDOCK__TEST__NUMBER__INIT;

	number.value = counter->next;
	rpc_finish(call, &number.base);
}

static void sum(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {.on_message = sum_message, .on_half_close = sum_done};

	rpc_set_events(call, &events, rpc_alloc(call, sizeof(struct counter)));
}

/* Each text comes back; the next is read when it has left. */
static void chat_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	rpc_send(call, message);
}

static void chat_done(struct rpc_call *call)
{
	rpc_finish(call, NULL);
}

static void chat(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {
		.on_message = chat_message, .on_sent = rpc_read, .on_half_close = chat_done};

	rpc_set_events(call, &events, NULL);
}

#define ROW(name, kind_, audit_, scope_, in, out, handler)                                                             \
	{                                                                                                              \
		.path = "/paddock.test.Test/" #name, .kind = kind_, .audit = audit_, .scope = scope_,                  \
		.default_deadline_ms = 20000, .max_request_bytes = 64u << 10,                                          \
		.request = &paddock__test__##in##__descriptor, .response = &paddock__test__##out##__descriptor,        \
		.start = handler                                                                                       \
	}

const struct rpc_method rpc_table[] = {
	ROW(Echo, RPC_UNARY, RPC_AUDIT_READ, SCOPE_SANDBOX, text, text, echo),
	ROW(Change, RPC_UNARY, RPC_AUDIT_CHANGE, SCOPE_SANDBOX, text, text, echo),
	ROW(Hang, RPC_UNARY, RPC_AUDIT_CHANGE, SCOPE_SANDBOX, text, text, hang),
	ROW(Token, RPC_UNARY, RPC_AUDIT_READ, SCOPE_SANDBOX | SCOPE_TOKEN, text, text, echo),
	ROW(Admin, RPC_UNARY, RPC_AUDIT_READ, SCOPE_ADMIN, text, text, echo),
	ROW(Count, RPC_SERVER_STREAM, RPC_AUDIT_READ, SCOPE_SANDBOX, number, number, count),
	ROW(Bytes, RPC_SERVER_STREAM, RPC_AUDIT_READ, SCOPE_SANDBOX, number, block, bytes),
	ROW(Sum, RPC_CLIENT_STREAM, RPC_AUDIT_CHANGE, SCOPE_SANDBOX, number, number, sum),
	ROW(Chat, RPC_BIDI, RPC_AUDIT_READ, SCOPE_ANY, text, text, chat),
	HEALTH_ROWS,
	REFLECTION_ROWS,
};
const size_t rpc_table_size = ARRAY_SIZE(rpc_table);

/* Start and stop */

static void *run(void *arg)
{
	loop_run();
	return NULL;
}

void service_start(void (*adjust)(struct config *config))
{
	struct pdk_error err = {};

	config_defaults(&server_config);
	log_set_level(LOG_ERROR);
	strcpy(folder, "/tmp/paddock-core.XXXXXX");
	if (!mkdtemp(folder))
		abort();
	strcpy(server_config.runtime_dir, folder);
	server_config.listen[0] = '\0';
	server_config.reflection = true;
	if (adjust)
		adjust(&server_config);
	if (loop_init() < 0 || pthread_create(&loop_thread, NULL, run, NULL) != 0)
		abort();
	if (rpc_start(&server_config, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
}

void service_stop(uint32_t grace_ms)
{
	rpc_stop(grace_ms);
	loop_stop();
	pthread_join(loop_thread, NULL);
	loop_destroy();
	rmdir(folder);
}

const char *service_address(const char *socket)
{
	snprintf(address, sizeof(address), "unix:%s/%s", folder, socket);
	return address;
}

const char *service_folder(void)
{
	return folder;
}
