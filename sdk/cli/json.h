#ifndef PADDOCK_CLI_JSON_H
#define PADDOCK_CLI_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

/*
 * Any message as JSON: field names as in proto/, numbers as numbers, enums by their name without the prefix in
 * small letters ("running"), bytes as a string when they are UTF-8 without NUL, else { "base64": "..." }, hashes in
 * hexadecimal, maps as objects. Fields that are not set are there with their default; messages that are not are null.
 */
json_t *json_of_message(const ProtobufCMessage *message);

/* Print and forget. `lines`: on one line, for streams. */
void json_print(json_t *value, bool lines);
void json_print_message(const void *message, bool lines);

#endif
