#include "private.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

/*
 * A unary call is one batch of six operations on a completion queue of its own, plucked by the calling thread:
 * no other thread takes part, and the answer is picked up by the thread that waits for it.
 */

struct unary {
	grpc_call *call;
	grpc_completion_queue *cq;
	grpc_byte_buffer *request;
	grpc_byte_buffer *reply;
	grpc_metadata_array headers;
	grpc_metadata_array trailers;
	grpc_metadata metadata[1];
	grpc_status_code status;
	grpc_slice details;
};

static bool unary_exchange(struct unary *unary, size_t n_metadata)
{
	grpc_op ops[6];
	grpc_event event;

	memset(ops, 0, sizeof(ops));
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[0].data.send_initial_metadata.count = n_metadata;
	ops[0].data.send_initial_metadata.metadata = unary->metadata;
	ops[1].op = GRPC_OP_SEND_MESSAGE;
	ops[1].data.send_message.send_message = unary->request;
	ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &unary->headers;
	ops[4].op = GRPC_OP_RECV_MESSAGE;
	ops[4].data.recv_message.recv_message = &unary->reply;
	ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	ops[5].data.recv_status_on_client.trailing_metadata = &unary->trailers;
	ops[5].data.recv_status_on_client.status = &unary->status;
	ops[5].data.recv_status_on_client.status_details = &unary->details;
	if (grpc_call_start_batch(unary->call, ops, 6, unary, NULL) != GRPC_CALL_OK)
		return false;
	event = grpc_completion_queue_pluck(unary->cq, unary, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	return event.type == GRPC_OP_COMPLETE;
}

static void unary_clear(struct unary *unary)
{
	grpc_metadata_array_destroy(&unary->headers);
	grpc_metadata_array_destroy(&unary->trailers);
	grpc_slice_unref(unary->details);
	if (unary->request)
		grpc_byte_buffer_destroy(unary->request);
	if (unary->reply)
		grpc_byte_buffer_destroy(unary->reply);
	if (unary->call)
		grpc_call_unref(unary->call);
	grpc_completion_queue_shutdown(unary->cq);
	while (grpc_completion_queue_pluck(unary->cq, NULL, gpr_inf_past(GPR_CLOCK_MONOTONIC), NULL).type ==
	       GRPC_OP_COMPLETE)
		;
	grpc_completion_queue_destroy(unary->cq);
}

static int unary_result(struct paddock_client *client, struct unary *unary, const ProtobufCMessageDescriptor *response,
			ProtobufCMessage **ret_message, struct pdk_error *err)
{
	struct scratch scratch = {0};
	ProtobufCMessage *message;

	if (unary->status != GRPC_STATUS_OK)
		return client_fail(client, unary->status, unary->details, err);
	message = unary->reply ? message_unpack(unary->reply, response, &scratch) : NULL;
	free(scratch.data);
	if (!message)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the server's answer cannot be read");
	*ret_message = message;
	return 0;
}

int paddock_call(struct paddock_client *client, const char *path, const void *request,
		 const ProtobufCMessageDescriptor *response, int64_t timeout_ms, void *ret_message,
		 struct pdk_error *err)
{
	struct unary unary = {.details = grpc_empty_slice()};
	ProtobufCMessage *message = NULL;
	int rc;

	unary.request = message_pack(request);
	if (!unary.request)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "the request is larger than %u bytes",
				PADDOCK_MESSAGE_MAX);
	unary.cq = grpc_completion_queue_create_for_pluck(NULL);
	unary.call = client_new_call(client, unary.cq, path, timeout_ms);
	if (!unary_exchange(&unary, client_metadata(client, unary.metadata)))
		rc = pdk_fail(err, -EIO, PDK_INTERNAL, "the call could not be started");
	else
		rc = unary_result(client, &unary, response, &message, err);
	unary_clear(&unary);
	if (rc == 0)
		*(ProtobufCMessage **)ret_message = message;
	return rc;
}
