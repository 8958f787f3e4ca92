#ifndef PADDOCK_SERVER_VALIDATE_H
#define PADDOCK_SERVER_VALIDATE_H

#include "sandbox/base/error.h"
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Checks of what clients send. Each function returns 0, or -EINVAL with INVALID_ARGUMENT and a text that
 * starts with the field's name ("timeout_ms: must be 1000 to 86400000"). Values of clients are never
 * repeated in the text.
 */

/* The limits that proto/paddock/v1 states for more than one message. */
#define VALIDATE_PATH_MAX 4095
#define VALIDATE_COMPONENT_MAX 255
#define VALIDATE_ENV_PAIRS_MAX 256
#define VALIDATE_ENV_VALUE_MAX 32768
#define VALIDATE_ENV_NAME_MAX 255
#define VALIDATE_ARGV_MAX 4096
#define VALIDATE_ARGUMENT_MAX 131071
#define VALIDATE_ARGV_BYTES_MAX (1u << 20)

/* Every map<string, string> of protobuf-c has entries of this shape, whatever the message it belongs to.
 * Pass the field as `(const struct validate_entry *const *)request->env`. */
struct validate_entry {
	ProtobufCMessage base;
	char *key;
	char *value;
};

/* Strict UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
bool utf8_valid(const char *text, size_t length);

/* UTF-8 of at most `max` bytes; may be empty. */
int validate_text(const char *field, const char *text, size_t max, struct pdk_error *err);
/* As above, without control characters: for what is shown to people (names, tags, keys). */
int validate_label(const char *field, const char *text, size_t max, struct pdk_error *err);
/* min <= value <= max. */
int validate_range(const char *field, uint64_t value, uint64_t min, uint64_t max, struct pdk_error *err);
/* As validate_range(), but 0 = "not given" passes. */
int validate_optional_range(const char *field, uint64_t value, uint64_t min, uint64_t max, struct pdk_error *err);
/* At most `max` elements of a repeated field. */
int validate_count(const char *field, size_t count, size_t max, struct pdk_error *err);
/* A map: at most `max_pairs`, keys of 1..max_key bytes, values of at most max_value bytes, all UTF-8. */
int validate_map(const char *field, const struct validate_entry *const *entries, size_t count, size_t max_pairs,
		 size_t max_key, size_t max_value, struct pdk_error *err);
/* Environment: names [A-Za-z_][A-Za-z0-9_]*, the limits above. */
int validate_env(const char *field, const struct validate_entry *const *entries, size_t count, struct pdk_error *err);
/* A command line: 1..4,096 arguments with the limits above, the first not empty. */
int validate_argv(const char *field, char *const *argv, size_t count, struct pdk_error *err);
/* RFC 1123 label, 1..63 bytes: lower and upper case letters, digits, '-' not first or last. Empty passes. */
int validate_hostname(const char *field, const char *text, struct pdk_error *err);
/* What an application is to see as its Host: a host with or without a port, in which "${PORT}" may stand once. Empty
 * passes. */
#define VALIDATE_HOST_PATTERN_MAX 255
int validate_host_pattern(const char *field, const char *text, struct pdk_error *err);
/* Path bytes of the Files service: 1..4,095 bytes, each component at most 255, no NUL. */
int validate_path(const char *field, const ProtobufCBinaryData *path, struct pdk_error *err);
/* The same for a string; `absolute`: it must start with '/'. Empty passes. */
int validate_path_text(const char *field, const char *path, bool absolute, struct pdk_error *err);
/* "", "user" or "root". */
int validate_user(const char *field, const char *user, struct pdk_error *err);
/* A name of a template: [a-z0-9][a-z0-9._-]{0,62}. Empty does not pass. */
int validate_template_name(const char *field, const char *name, struct pdk_error *err);

/* True when a later entry has the same key: protobuf says that the last one counts. */
bool validate_entry_repeated(const struct validate_entry *const *entries, size_t count, size_t index);

#endif
