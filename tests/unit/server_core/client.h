#ifndef PADDOCK_TEST_CLIENT_H
#define PADDOCK_TEST_CLIENT_H

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A small blocking client on the same C core: one thread for each client. */

struct client {
	grpc_channel *channel;
	grpc_completion_queue *queue;
	const char *key; /* value of "authorization", or NULL */
};

struct client_call {
	struct client *client;
	grpc_call *grpc;
	grpc_metadata_array initial, trailing;
	bool headers_asked;
	grpc_status_code status;
	grpc_slice details;
	char text[512];
};

void client_open(struct client *client, const char *address, const char *key);
void client_open_with(struct client *client, const char *address, const char *key,
		      grpc_channel_credentials *credentials);
void client_close(struct client *client);

/* A call step by step. `timeout_ms` 0: none. */
void client_begin(struct client_call *call, struct client *client, const char *path, int timeout_ms);
bool client_send(struct client_call *call, const void *bytes, size_t length);
bool client_send_message(struct client_call *call, const ProtobufCMessage *message);
void client_half_close(struct client_call *call);
/* NULL at the end. malloc'ed. */
uint8_t *client_receive(struct client_call *call, size_t *ret_length);
/* The length of the next message, which is dropped; -1 at the end. */
int64_t client_skip(struct client_call *call);
/* Wait for the status; its text is in call->text. Frees all but the text. */
int client_finish(struct client_call *call);

/* One unary call in one batch. `ret_reply` (malloc'ed, may be NULL) is set on OK. */
int client_unary(struct client *client, const char *path, int timeout_ms, const void *request, size_t length,
		 uint8_t **ret_reply, size_t *ret_length, char ret_text[512]);

#endif
