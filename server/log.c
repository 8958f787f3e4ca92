#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "validate.h"

/* A line is put together in one buffer and written with one write(), so that lines of several threads never mix. */

#define LINE_MAX_BYTES 4096
#define VALUE_MAX_BYTES 1024

static atomic_int level_now = LOG_INFO;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_set_level(enum log_level level)
{
	atomic_store(&level_now, level);
}

int log_level_parse(const char *name)
{
	for (int i = 0; i <= LOG_DEBUG; i++) {
		if (strcmp(name, level_names[i]) == 0)
			return i;
	}
	return -EINVAL;
}

struct line {
	size_t length;
	char text[LINE_MAX_BYTES];
};

/* Keep room for the end of a string, an object and a line. */
static int has_room(const struct line *line, size_t size)
{
	return line->length + size + 4 <= sizeof(line->text);
}

static void put_raw(struct line *line, const char *text, size_t length)
{
	memcpy(line->text + line->length, text, length);
	line->length += length;
}

/* Bytes of the UTF-8 character at `text`, 0 if it is none. */
static size_t character_length(const char *text)
{
	unsigned char c = (unsigned char)*text;
	size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

	return strnlen(text, length) == length && utf8_valid(text, length) ? length : 0;
}

static size_t put_character(struct line *line, const char *text)
{
	size_t length = character_length(text);
	unsigned char c = (unsigned char)*text;
	char escaped[8];

	if (!length) {
		put_raw(line, "\\ufffd", 6);
		return 1;
	}
	if (c == '"' || c == '\\') {
		snprintf(escaped, sizeof(escaped), "\\%c", c);
		put_raw(line, escaped, 2);
	} else if (c < 0x20 || c == 0x7f) {
		snprintf(escaped, sizeof(escaped), "\\u%04x", c);
		put_raw(line, escaped, 6);
	} else {
		put_raw(line, text, length);
	}
	return length;
}

static void put_string(struct line *line, const char *text)
{
	size_t start = line->length;

	put_raw(line, "\"", 1);
	while (*text && line->length - start < VALUE_MAX_BYTES && has_room(line, 8))
		text += put_character(line, text);
	put_raw(line, "\"", 1);
}

static void put_pair(struct line *line, const char *name, const char *value)
{
	/* A pair that does not fit at all is left out, not cut in its name. */
	if (!has_room(line, strlen(name) + 16))
		return;
	put_raw(line, ",", 1);
	put_string(line, name);
	put_raw(line, ":", 1);
	put_string(line, value);
}

static void put_head(struct line *line, enum log_level level, const char *event)
{
	struct timespec now;
	struct tm utc;
	char text[96];
	int length;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	length = snprintf(text, sizeof(text), "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\",\"level\":\"%s\"",
			  utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
			  now.tv_nsec / 1000000, level_names[level]);
	put_raw(line, text, (size_t)length);
	put_pair(line, "event", event);
}

void log_event(enum log_level level, const char *event, ...)
{
	int saved_errno = errno;
	struct line line;
	const char *name;
	va_list pairs;

	if ((int)level > atomic_load_explicit(&level_now, memory_order_relaxed))
		return;
	line.length = 0;
	put_head(&line, level, event);
	va_start(pairs, event);
	while ((name = va_arg(pairs, const char *))) {
		const char *value = va_arg(pairs, const char *);

		if (value)
			put_pair(&line, name, value);
	}
	va_end(pairs);
	put_raw(&line, "}\n", 2);
	/* There is nobody to tell that the log cannot be written. */
	if (write(STDERR_FILENO, line.text, line.length) < 0)
		errno = saved_errno;
	errno = saved_errno;
}

static char *next_number(void)
{
	static _Thread_local char ring[16][24];
	static _Thread_local unsigned int next;

	return ring[next++ % 16];
}

const char *log_u64(uint64_t value)
{
	char *text = next_number();

	snprintf(text, 24, "%llu", (unsigned long long)value);
	return text;
}

const char *log_i64(int64_t value)
{
	char *text = next_number();

	snprintf(text, 24, "%lld", (long long)value);
	return text;
}
