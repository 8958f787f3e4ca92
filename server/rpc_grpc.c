#include "rpc_grpc.h"

#include <errno.h>
#include <grpc/support/time.h>
#include <openssl/evp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sandbox/base/cleanup.h"

/* gRPC, the way in: arrivals, messages, the end of the stream. See rpc_grpc.h. */

static void reset(struct rpc_call *call);
static void release(struct rpc_call *call);

static const struct rpc_transport transport = {
	.name = "grpc",
	.read = rpc_grpc_prepare_read,
	.pack = rpc_grpc_pack,
	.pack_bytes = rpc_grpc_pack_bytes,
	.drop = rpc_grpc_drop,
	.send = rpc_grpc_send,
	.end = rpc_grpc_end,
	.reset = reset,
	.release = release,
};

/* Life of the object */

struct rpc_grpc_call *rpc_grpc_create(struct rpc_listener *listener)
{
	struct rpc_grpc_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	rpc_call_init(&call->call, &transport);
	call->listener = listener;
	for (int i = 0; i < RPC_OP_COUNT; i++)
		call->tags[i] = (struct rpc_tag){.call = call, .operation = i};
	grpc_call_details_init(&call->details);
	grpc_metadata_array_init(&call->metadata);
	return call;
}

void rpc_grpc_request(struct rpc_grpc_call *call)
{
	grpc_completion_queue *queue = call->listener->queue;

	RPC_HAND_OVER(&call->tags[RPC_OP_ARRIVAL]);
	if (grpc_server_request_call(call->listener->server, &call->grpc, &call->details, &call->metadata, queue, queue,
				     &call->tags[RPC_OP_ARRIVAL]) != GRPC_CALL_OK)
		abort();
}

static void release(struct rpc_call *base)
{
	struct rpc_grpc_call *call = rpc_grpc_of(base);
	struct rpc_listener *listener = call->slot_lost ? call->listener : NULL;

	rpc_call_clear(base);
	if (call->grpc)
		grpc_call_unref(call->grpc);
	grpc_call_details_destroy(&call->details);
	grpc_metadata_array_destroy(&call->metadata);
	free(call);
	call = listener ? rpc_grpc_create(listener) : NULL;
	if (call)
		rpc_grpc_request(call);
}

/* Arrivals */

/* The one value of this name in `text`, or NULL. Several, or one that is too long, are as good as a wrong one. */
static const char *find_metadata(const grpc_metadata_array *metadata, const char *name,
				 char text[RPC_AUTHORIZATION_MAX + 1])
{
	const char *found = NULL;

	for (size_t i = 0; i < metadata->count; i++) {
		grpc_slice value = metadata->metadata[i].value;

		if (grpc_slice_str_cmp(metadata->metadata[i].key, name) != 0)
			continue;
		if (found || GRPC_SLICE_LENGTH(value) > RPC_AUTHORIZATION_MAX)
			return strcpy(text, "?");
		memcpy(text, GRPC_SLICE_START_PTR(value), GRPC_SLICE_LENGTH(value));
		text[GRPC_SLICE_LENGTH(value)] = '\0';
		found = text;
	}
	return found;
}

/* "Basic base64(NAME:)": no credential here, but whom to act as. NULL when it is anything else. */
static const char *basic_user(const char *authorization, char user[RPC_AUTHORIZATION_MAX + 1])
{
	unsigned char plain[RPC_AUTHORIZATION_MAX + 4] = "";
	size_t length;

	if (!authorization || strncasecmp(authorization, "Basic ", 6) != 0)
		return NULL;
	length = strlen(authorization + 6);
	if (length % 4 || length > RPC_AUTHORIZATION_MAX ||
	    EVP_DecodeBlock(plain, (const unsigned char *)authorization + 6, (int)length) < 0)
		return NULL;
	length = strcspn((const char *)plain, ":");
	memcpy(user, plain, length);
	user[length] = '\0';
	return user;
}

/* What the client gave itself, from now on. */
static uint64_t timeout_of(const grpc_call_details *details)
{
	gpr_timespec left;

	if (gpr_time_cmp(details->deadline, gpr_inf_future(details->deadline.clock_type)) >= 0)
		return RPC_NO_TIMEOUT;
	left = gpr_time_sub(details->deadline, gpr_now(details->deadline.clock_type));
	if (left.tv_sec > 365 * 86400) /* cannot overflow */
		left.tv_sec = 365 * 86400;
	return left.tv_sec < 0 ? 0 : (uint64_t)left.tv_sec * 1000000000u + (uint64_t)left.tv_nsec;
}

static void arrived(struct rpc_grpc_call *call)
{
	struct rpc_grpc_call *next = rpc_grpc_create(call->listener);
	char authorization[RPC_AUTHORIZATION_MAX + 1], token[RPC_AUTHORIZATION_MAX + 1];
	char sandbox_id[RPC_AUTHORIZATION_MAX + 1], user[RPC_AUTHORIZATION_MAX + 1];
	struct rpc_arrival arrival = {
		.path = (const char *)GRPC_SLICE_START_PTR(call->details.method),
		.path_length = GRPC_SLICE_LENGTH(call->details.method),
		.timeout_ns = timeout_of(&call->details),
		.authorization = find_metadata(&call->metadata, "authorization", authorization),
		.access_token = find_metadata(&call->metadata, "x-access-token", token),
		.sandbox_id = find_metadata(&call->metadata, "e2b-sandbox-id", sandbox_id),
		.trusted = call->listener->trusted,
		.refused = next ? NULL : "the server is out of memory",
	};

	arrival.user = basic_user(arrival.authorization, user);
	if (next)
		rpc_grpc_request(next);
	call->slot_lost = !next;
	loop_lock();
	rpc_grpc_prepare_close(call);
	rpc_arrive(&call->call, &arrival);
	loop_unlock();
	explicit_bzero(authorization, sizeof(authorization));
	explicit_bzero(token, sizeof(token));
}

/* Messages */

/* The bytes of a message in one piece; `ret_copy` is to be freed. */
static const uint8_t *message_bytes(const grpc_slice_buffer *slices, uint8_t **ret_copy)
{
	uint8_t *copy, *to;

	*ret_copy = NULL;
	if (slices->count == 0)
		return (const uint8_t *)"";
	if (slices->count == 1)
		return GRPC_SLICE_START_PTR(slices->slices[0]);
	copy = to = malloc(slices->length + 1);
	if (!copy)
		return NULL;
	for (size_t i = 0; i < slices->count; i++) {
		memcpy(to, GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
		to += GRPC_SLICE_LENGTH(slices->slices[i]);
	}
	*ret_copy = copy;
	return copy;
}

static int unpack(struct rpc_grpc_call *call, ProtobufCMessage **ret, struct pdk_error *err)
{
	const grpc_byte_buffer *buffer = call->read_buffer;
	const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
	_cleanup_free_ uint8_t *copy = NULL;
	const uint8_t *bytes;

	if (buffer->data.raw.compression != GRPC_COMPRESS_NONE)
		return pdk_fail(err, -EOPNOTSUPP, PDK_UNIMPLEMENTED, "compressed messages are not accepted");
	bytes = message_bytes(slices, &copy);
	if (!bytes)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	return rpc_unpack(&call->call, bytes, slices->length, ret, err);
}

/* `success` is false, or gRPC says that the read failed, when the stream broke: `close` follows and says why. */
static void was_read(struct rpc_grpc_call *call, bool success)
{
	bool broken = !success || (!call->read_buffer && grpc_call_failed_before_recv_message(call->grpc));
	struct pdk_error err = {};
	ProtobufCMessage *message = NULL;
	int rc = 0;

	if (call->read_buffer) {
		rc = unpack(call, &message, &err);
		grpc_byte_buffer_destroy(call->read_buffer);
		call->read_buffer = NULL;
	}
	loop_lock();
	call->call.pending--;
	if (broken)
		call->call.reading = false;
	else
		rpc_received(&call->call, message, rc, &err);
	rpc_call_settle(&call->call);
	loop_unlock();
}

/* Ends */

static void run_reset(struct loop_task *task)
{
	struct rpc_grpc_call *call =
		(struct rpc_grpc_call *)((char *)task - offsetof(struct rpc_grpc_call, cancel_task));

	grpc_call_cancel(call->grpc, NULL);
	loop_lock();
	call->call.pending--;
	rpc_call_settle(&call->call);
	loop_unlock();
}

static void reset(struct rpc_call *base)
{
	struct rpc_grpc_call *call = rpc_grpc_of(base);

	base->pending++;
	call->cancel_task.run = run_reset;
	loop_after_unlock(&call->cancel_task);
}

static void closed(struct rpc_grpc_call *call)
{
	loop_lock();
	call->call.pending--;
	rpc_closed(&call->call, call->close_cancelled);
	rpc_call_settle(&call->call);
	loop_unlock();
}

void rpc_grpc_event(const struct rpc_tag *tag, bool success)
{
	RPC_TAKE_OVER(tag);
	switch (tag->operation) {
	case RPC_OP_ARRIVAL:
		if (success)
			arrived(tag->call);
		else
			release(&tag->call->call); /* the server is shutting down */
		break;
	case RPC_OP_CLOSE:
		closed(tag->call);
		break;
	case RPC_OP_READ:
		was_read(tag->call, success);
		break;
	case RPC_OP_SEND:
		rpc_grpc_sent(tag->call, success);
		break;
	case RPC_OP_COUNT:
		break;
	}
}
