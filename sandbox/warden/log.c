#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void log_json_string(char *out, unsigned long size, const char *text)
{
	unsigned long used = 0;

	out[used++] = '"';
	for (; *text && used + 8 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\') {
			out[used++] = '\\';
			out[used++] = (char)c;
		} else if (c < 0x20 || c == 0x7f) {
			used += (unsigned long)snprintf(out + used, size - used, "\\u%04x", c);
		} else {
			out[used++] = (char)c;
		}
	}
	out[used++] = '"';
	out[used] = '\0';
}

static void log_write(const char *level, const char *event, const char *id, const char *text)
{
	char escaped[1200], escaped_id[160], line[1600], when[32];
	struct timespec now;
	struct tm tm;
	int length;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	log_json_string(escaped, sizeof(escaped), text);
	log_json_string(escaped_id, sizeof(escaped_id), id ? id : "");
	length = snprintf(line, sizeof(line),
			  "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"event\":\"%s\",\"id\":%s,\"text\":%s}\n", when,
			  now.tv_nsec / 1000000, level, event, escaped_id, escaped);
	/* A log that cannot be written must not stop the warden. */
	if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
		return;
}

void log_info(const char *event, const char *id, const char *fmt, ...)
{
	char text[700];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_write("info", event, id, text);
}

void log_warning(const char *event, const char *id, const char *fmt, ...)
{
	char text[700];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_write("warning", event, id, text);
}

void log_error(const char *event, const char *id, const struct pdk_error *err)
{
	log_write("error", event, id, err->text);
}
