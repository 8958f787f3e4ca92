#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec_test.pb-c.h"
#include "preview/json.h"
#include "sandbox/base/cleanup.h"

/*
 * The codec as a filter for json_oracle.py. A line in is one case, a line out its result:
 *
 *	e HEX    a message in binary form -> "ok" and its JSON
 *	d JSON   -> "ok" and the message in binary form, as HEX
 *
 * or "error" and why.
 */

static void encode(const char *hex)
{
	size_t length = strlen(hex) / 2;
	_cleanup_free_ uint8_t *bytes = malloc(length + 1);
	struct buffer out = BUFFER(1 << 20);
	CodecTest__All *message;
	unsigned int byte;

	for (size_t i = 0; i < length && sscanf(hex + 2 * i, "%2x", &byte) == 1; i++)
		bytes[i] = (uint8_t)byte;
	message = codec_test__all__unpack(NULL, length, bytes);
	if (!message)
		puts("error cannot unpack");
	else if (json_encode(&message->base, &out) < 0)
		puts("error cannot encode");
	else
		printf("ok %.*s\n", (int)buffer_length(&out), (const char *)buffer_data(&out));
	if (message)
		codec_test__all__free_unpacked(message, NULL);
	buffer_free(&out);
}

static void decode(const char *text)
{
	struct arena arena;
	struct pdk_error err = {};
	ProtobufCMessage *message;

	arena_init(&arena, 1 << 20);
	if (json_decode(&codec_test__all__descriptor, text, strlen(text), &arena, &message, &err) < 0) {
		printf("error %s\n", err.text);
	} else {
		size_t length = protobuf_c_message_get_packed_size(message);
		uint8_t *bytes = malloc(length + 1);

		protobuf_c_message_pack(message, bytes);
		printf("ok ");
		for (size_t i = 0; i < length; i++)
			printf("%02x", bytes[i]);
		putchar('\n');
		free(bytes);
	}
	arena_clear(&arena);
}

int main(void)
{
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	ssize_t n;

	json_start();
	while ((n = getline(&line, &size, stdin)) > 1) {
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		if (line[0] == 'e')
			encode(line + 2);
		else
			decode(line + 2);
	}
	return 0;
}
