#include "json_time.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECONDS_MIN (-62135596800ll)
#define SECONDS_MAX 253402300799ll
#define SPAN_MAX 315576000000ll
#define BILLION 1000000000

enum json_time_kind json_time_kind(const ProtobufCMessageDescriptor *type)
{
	if (strncmp(type->name, "google.protobuf.", 16) != 0)
		return JSON_TIME_NONE;
	if (strcmp(type->name + 16, "Timestamp") == 0)
		return JSON_TIME_STAMP;
	return strcmp(type->name + 16, "Duration") == 0 ? JSON_TIME_SPAN : JSON_TIME_NONE;
}

/* Both have the fields seconds = 1 (int64) and nanos = 2 (int32). */
static int64_t *seconds_of(const ProtobufCMessage *message)
{
	return (int64_t *)((uintptr_t)message + message->descriptor->fields[0].offset);
}

static int32_t *nanos_of(const ProtobufCMessage *message)
{
	return (int32_t *)((uintptr_t)message + message->descriptor->fields[1].offset);
}

/* ".5", ".000001" and so on in groups of three digits; nothing for 0. */
static void format_fraction(int32_t nanos, char text[16])
{
	if (!nanos)
		text[0] = '\0';
	else if (nanos % 1000000 == 0)
		snprintf(text, 16, ".%03d", nanos / 1000000);
	else if (nanos % 1000 == 0)
		snprintf(text, 16, ".%06d", nanos / 1000);
	else
		snprintf(text, 16, ".%09d", nanos);
}

int json_time_format(int64_t seconds, int32_t nanos, char text[JSON_TIME_SIZE])
{
	time_t when = (time_t)seconds;
	char fraction[16];
	struct tm tm;

	if (seconds < SECONDS_MIN || seconds > SECONDS_MAX || nanos < 0 || nanos >= BILLION)
		return -EINVAL;
	gmtime_r(&when, &tm);
	format_fraction(nanos, fraction);
	snprintf(text, JSON_TIME_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", (tm.tm_year + 1900) % 10000, tm.tm_mon + 1,
		 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, fraction);
	return 0;
}

void json_time_format_ms(int64_t unix_ms, char text[JSON_TIME_SIZE])
{
	int64_t seconds = unix_ms / 1000;
	int32_t ms = (int32_t)(unix_ms % 1000);

	if (ms < 0) {
		seconds--;
		ms += 1000;
	}
	if (json_time_format(seconds, ms * 1000000, text) < 0)
		strcpy(text, "1970-01-01T00:00:00Z");
}

static int put_span(int64_t seconds, int32_t nanos, struct buffer *out)
{
	bool negative = seconds < 0 || nanos < 0;
	char fraction[16];

	if (seconds < -SPAN_MAX || seconds > SPAN_MAX || nanos <= -BILLION || nanos >= BILLION ||
	    (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0))
		return -EINVAL;
	format_fraction(abs(nanos), fraction);
	return json_put_format(out, "\"%s%" PRId64 "%ss\"", negative ? "-" : "", seconds < 0 ? -seconds : seconds,
			       fraction);
}

int json_time_put(const ProtobufCMessage *message, struct buffer *out)
{
	char text[JSON_TIME_SIZE];

	if (json_time_kind(message->descriptor) == JSON_TIME_SPAN)
		return put_span(*seconds_of(message), *nanos_of(message), out);
	if (json_time_format(*seconds_of(message), *nanos_of(message), text) < 0)
		return -EINVAL;
	return json_put_format(out, "\"%s\"", text);
}

/* Exactly `digits` digits. */
static int read_digits(const char **text, int digits, int *ret)
{
	*ret = 0;
	for (; digits > 0; digits--, ++*text) {
		if (!isdigit((unsigned char)**text))
			return -EINVAL;
		*ret = *ret * 10 + (**text - '0');
	}
	return 0;
}

/* An optional '.' and 1 to 9 digits. */
static int read_fraction(const char **text, int32_t *ret)
{
	int digits = 0;

	*ret = 0;
	if (**text != '.')
		return 0;
	for (++*text; isdigit((unsigned char)**text); ++*text, digits++) {
		if (digits == 9)
			return -EINVAL;
		*ret = *ret * 10 + (**text - '0');
	}
	if (!digits)
		return -EINVAL;
	for (; digits < 9; digits++)
		*ret *= 10;
	return 0;
}

static int read_offset(const char *text, int *ret_seconds)
{
	int hours, minutes, sign = *text == '-' ? -1 : 1;

	*ret_seconds = 0;
	if (*text == 'Z')
		return text[1] ? -EINVAL : 0;
	if (*text != '+' && *text != '-')
		return -EINVAL;
	text++;
	if (read_digits(&text, 2, &hours) < 0 || *text++ != ':' || read_digits(&text, 2, &minutes) < 0 || *text ||
	    hours > 23 || minutes > 59)
		return -EINVAL;
	*ret_seconds = sign * (hours * 3600 + minutes * 60);
	return 0;
}

static bool date_exists(const struct tm *tm)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year = tm->tm_year + 1900;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return year >= 1 && tm->tm_mon >= 0 && tm->tm_mon < 12 && tm->tm_mday >= 1 &&
	       tm->tm_mday <= days[tm->tm_mon] + (leap && tm->tm_mon == 1) && tm->tm_hour < 24 && tm->tm_min < 60 &&
	       tm->tm_sec < 60;
}

int json_time_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos)
{
	struct tm tm = {};
	int32_t nanos;
	int offset;
	int64_t seconds;

	if (read_digits(&text, 4, &tm.tm_year) < 0 || *text++ != '-' || read_digits(&text, 2, &tm.tm_mon) < 0 ||
	    *text++ != '-' || read_digits(&text, 2, &tm.tm_mday) < 0 || *text++ != 'T' ||
	    read_digits(&text, 2, &tm.tm_hour) < 0 || *text++ != ':' || read_digits(&text, 2, &tm.tm_min) < 0 ||
	    *text++ != ':' || read_digits(&text, 2, &tm.tm_sec) < 0)
		return -EINVAL;
	if (read_fraction(&text, &nanos) < 0 || read_offset(text, &offset) < 0)
		return -EINVAL;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	if (!date_exists(&tm))
		return -EINVAL;
	seconds = timegm(&tm) - offset;
	if (seconds < SECONDS_MIN || seconds > SECONDS_MAX)
		return -EINVAL;
	*ret_seconds = seconds;
	*ret_nanos = nanos;
	return 0;
}

static int parse_span(const char *text, int64_t *ret_seconds, int32_t *ret_nanos)
{
	bool negative = *text == '-';
	int64_t seconds = 0;
	int32_t nanos;

	text += negative;
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	for (; isdigit((unsigned char)*text); text++) {
		seconds = seconds * 10 + (*text - '0');
		if (seconds > SPAN_MAX)
			return -EINVAL;
	}
	if (read_fraction(&text, &nanos) < 0 || strcmp(text, "s") != 0)
		return -EINVAL;
	*ret_seconds = negative ? -seconds : seconds;
	*ret_nanos = negative ? -nanos : nanos;
	return 0;
}

int json_time_get(const char *text, ProtobufCMessage *message)
{
	if (json_time_kind(message->descriptor) == JSON_TIME_SPAN)
		return parse_span(text, seconds_of(message), nanos_of(message));
	return json_time_parse(text, seconds_of(message), nanos_of(message));
}
