#ifndef PADDOCK_PREVIEW_JSON_TIME_H
#define PADDOCK_PREVIEW_JSON_TIME_H

#include "json.h"

/* The two well-known types of the contract: google.protobuf.Timestamp ("2024-05-01T12:00:00.5Z") and Duration ("1.5s").
 * The others (Struct, Any, FieldMask, wrappers) appear in none of its messages. */

#define JSON_TIME_SIZE 96

enum json_time_kind { JSON_TIME_NONE, JSON_TIME_STAMP, JSON_TIME_SPAN };

enum json_time_kind json_time_kind(const ProtobufCMessageDescriptor *type);
/* -EINVAL when it is out of the years 1 to 9999 (a span: 315,576,000,000 s). */
int json_time_put(const ProtobufCMessage *message, struct buffer *out);
int json_time_get(const char *text, ProtobufCMessage *message);

/* RFC 3339 in UTC with as many digits of a second as are needed (0, 3, 6 or 9). -EINVAL as above. */
int json_time_format(int64_t seconds, int32_t nanos, char text[JSON_TIME_SIZE]);
/* Of Unix milliseconds, and always a time: what is out of range is the beginning of 1970. */
void json_time_format_ms(int64_t unix_ms, char text[JSON_TIME_SIZE]);
/* The other way; an offset and 1 to 9 digits of a second are understood. */
int json_time_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos);

#endif
