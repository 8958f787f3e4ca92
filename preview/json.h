#ifndef PADDOCK_PREVIEW_JSON_H
#define PADDOCK_PREVIEW_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/base/buffer.h"
#include "sandbox/base/error.h"
#include "server/arena.h"

/*
 * JSON: its syntax (parsed by jansson, inside the call's bounded arena), and proto3's mapping of it to messages, driven
 * by protobuf-c's descriptors: one generic piece for every message that the ingress carries.
 */

/* Everything nested deeper is refused. */
#define JSON_DEPTH_MAX 64

/* Once, at the start of the process, before any thread: jansson's memory comes from the arena of the parse that runs.
 */
void json_start(void);

/* Parse a whole text. The tree and its strings live in the arena: never json_decref() it. INVALID_ARGUMENT: not JSON, a
 * name twice in one object, \u0000 in a string, not UTF-8, too deep; RESOURCE_EXHAUSTED: the arena is full. */
int json_read(const void *text, size_t length, struct arena *arena, json_t **ret, struct pdk_error *err);

/* Proto3 JSON to a message in the arena. Names are accepted in lowerCamelCase and as written in the .proto, enums by
 * name and number, 64-bit numbers as strings and as numbers; null means "not given"; unknown names are ignored. The
 * errors are those of json_read(), and INVALID_ARGUMENT that names the field whose value does not fit. */
int json_decode(const ProtobufCMessageDescriptor *type, const void *text, size_t length, struct arena *arena,
		ProtobufCMessage **ret, struct pdk_error *err);

/* Append a message as proto3 JSON: lowerCamelCase, fields with their default value left out. -ENOBUFS, -ENOMEM, or
 * -EINVAL for what has no JSON form (a time out of range, nested too deep); `out` holds half a text then. */
int json_encode(const ProtobufCMessage *message, struct buffer *out);

/* Pieces of text, each returning 0, -ENOBUFS or -ENOMEM. json_put_string() quotes and escapes; what is not UTF-8
 * becomes U+FFFD. */
int json_put(struct buffer *out, const char *text);
int json_put_format(struct buffer *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
int json_put_string(struct buffer *out, const char *text, size_t length);
int json_put_base64(struct buffer *out, const uint8_t *bytes, size_t length);

/* True for the messages that protoc makes for the pairs of a map field. */
bool json_field_is_map(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field);
/* The size of one value of the field in memory. */
size_t json_value_size(ProtobufCType type);

#endif
