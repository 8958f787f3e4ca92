#ifndef PADDOCK_TESTS_GUEST_CLIENT_H
#define PADDOCK_TESTS_GUEST_CLIENT_H

#include "sandbox/base/link.h"
#include "sandbox/init/message.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A small paddockd for tests: starts paddock-init as pid 1 of new pid and mount namespaces (with its own /run,
 * /home and /proc) and speaks to it over its socket. Anything that goes wrong fails the test.
 */

#define CLIENT_FRAMES_MAX 16384

struct client_frame {
	uint32_t stream;
	enum link_kind kind;
	guest_reply *reply; /* NULL: END */
	int fds[LINK_FDS_MAX];
	unsigned int n_fds;
};

struct client {
	pid_t pid;
	char socket[64];
	struct link *link;
	uint32_t last_stream;
	struct client_frame frames[CLIENT_FRAMES_MAX]; /* that arrived and were not taken */
	size_t n_frames;
};

void client_start(struct client *client);
void client_stop(struct client *client);
void client_connect(struct client *client);
void client_disconnect(struct client *client);

/* Send a request on a new stream, or on an open one. */
uint32_t client_call(struct client *client, guest_request *request);
void client_continue(struct client *client, uint32_t stream, guest_request *request);
/* The next frame of the stream; waits up to 10 s. The caller frees it with client_frame_free(). */
struct client_frame client_next(struct client *client, uint32_t stream);
/* Is there one within `ms`? */
bool client_has(struct client *client, uint32_t stream, int ms);
void client_frame_free(struct client_frame *frame);
/* The next frame must be END. */
void client_expect_end(struct client *client, uint32_t stream);
/* Call, take one reply and END. */
struct client_frame client_ask(struct client *client, guest_request *request);

/* Read until the end; the descriptor may be non-blocking. Returns the number of bytes, at most `size`. */
size_t client_read_all(int fd, char *bytes, size_t size);
void client_write_all(int fd, const char *bytes, size_t length);

/* protobuf-c's strings are not const, a test's are. */
#define TEXT(text) ((char *)(uintptr_t)(text))

#define REQUEST(name, field, ...)                                                                                      \
	(&(guest_request){                                                                                             \
		.base = PROTOBUF_C_MESSAGE_INIT(&paddock__internal__guest_request__descriptor),                        \
		.op_case = GUEST_OP(name),                                                                             \
		.field = (void *)(__VA_ARGS__),                                                                        \
	})

#endif
