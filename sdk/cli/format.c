#include "format.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LARGEST 9.0e18

static int parse_decimal(const char **text, double *ret_number)
{
	const char *start = *text;
	char *end;

	if (!isdigit((unsigned char)*start) || (start[0] == '0' && (start[1] == 'x' || start[1] == 'X')))
		return -EINVAL;
	errno = 0;
	*ret_number = strtod(start, &end);
	if (end == start || errno)
		return -EINVAL;
	*text = end;
	return 0;
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGTP";
	double number;
	const char *unit;

	if (parse_decimal(&text, &number) < 0)
		return -EINVAL;
	if (*text) {
		unit = strchr(units, toupper((unsigned char)*text));
		if (unit) {
			number *= pow(1024, (double)(unit - units + 1));
			text++;
		}
		if (*text == 'i')
			text++;
		if (*text == 'B' || *text == 'b')
			text++;
	}
	if (*text)
		return -EINVAL;
	if (number > LARGEST)
		return -ERANGE;
	*ret_bytes = (uint64_t)number;
	return 0;
}

static int duration_unit(const char **text, double *ret_ms)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60e3}, {"h", 3600e3}, {"d", 86400e3}, {NULL, 0}};
	size_t length = strspn(*text, "abcdefghijklmnopqrstuvwxyz");
	int i;

	for (i = 0; units[i].name; i++) {
		if (strlen(units[i].name) == length && !strncmp(*text, units[i].name, length)) {
			*text += length;
			*ret_ms = units[i].ms;
			return 0;
		}
	}
	return -EINVAL;
}

int parse_duration(const char *text, uint64_t *ret_ms)
{
	double number, unit, total = 0;

	if (!*text)
		return -EINVAL;
	while (*text) {
		if (parse_decimal(&text, &number) < 0)
			return -EINVAL;
		if (!*text && total == 0)
			unit = 1000;
		else if (duration_unit(&text, &unit) < 0)
			return -EINVAL;
		total += number * unit;
	}
	if (total > LARGEST)
		return -ERANGE;
	*ret_ms = (uint64_t)(total + 0.5);
	return 0;
}

const char *format_size(char out[FORMAT_SIZE], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double number = (double)bytes;
	size_t unit = 0;

	while (number >= 1024 && unit < 6) {
		number /= 1024;
		unit++;
	}
	snprintf(out, FORMAT_SIZE, unit && number < 10 && number != floor(number) ? "%.1f %s" : "%.0f %s", number,
		 units[unit]);
	return out;
}

const char *format_duration(char out[FORMAT_SIZE], uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (ms < 1000)
		snprintf(out, FORMAT_SIZE, "%llums", (unsigned long long)ms);
	else if (s < 60)
		snprintf(out, FORMAT_SIZE, "%llus", (unsigned long long)s);
	else if (s < 3600)
		snprintf(out, FORMAT_SIZE, s % 60 ? "%llum %llus" : "%llum", (unsigned long long)(s / 60),
			 (unsigned long long)(s % 60));
	else if (s < 86400)
		snprintf(out, FORMAT_SIZE, s / 60 % 60 ? "%lluh %llum" : "%lluh", (unsigned long long)(s / 3600),
			 (unsigned long long)(s / 60 % 60));
	else
		snprintf(out, FORMAT_SIZE, s / 3600 % 24 ? "%llud %lluh" : "%llud", (unsigned long long)(s / 86400),
			 (unsigned long long)(s / 3600 % 24));
	return out;
}

int64_t now_unix_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const char *format_age(char out[FORMAT_SIZE], int64_t unix_ms)
{
	int64_t difference = unix_ms - now_unix_ms();
	char text[FORMAT_SIZE];

	if (unix_ms == 0)
		snprintf(out, FORMAT_SIZE, "-");
	else if (difference > 0)
		snprintf(out, FORMAT_SIZE, "in %.32s", format_duration(text, (uint64_t)difference));
	else
		snprintf(out, FORMAT_SIZE, "%.32s ago", format_duration(text, (uint64_t)-difference / 1000 * 1000));
	if (unix_ms && difference <= 0 && difference > -1000)
		snprintf(out, FORMAT_SIZE, "now");
	return out;
}

const char *format_time(char out[FORMAT_SIZE], int64_t unix_ms)
{
	time_t seconds = unix_ms / 1000;
	struct tm parts;

	if (unix_ms == 0 || !localtime_r(&seconds, &parts) || !strftime(out, FORMAT_SIZE, "%Y-%m-%d %H:%M:%S", &parts))
		snprintf(out, FORMAT_SIZE, "-");
	return out;
}

/* Length of the printable UTF-8 character at `s`, or 0. Controls (C0, DEL, C1) and marks that turn the direction of
 * text are not printable here. */
static size_t printable_length(const unsigned char *s, size_t left)
{
	unsigned int code;
	size_t i, length;

	if (s[0] < 0x80)
		return s[0] >= 0x20 && s[0] != 0x7f;
	length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4 || left < length)
		return 0;
	code = s[0] & (0xffu >> (length + 1));
	for (i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (code < 0xa0 || (length == 3 && code < 0x800) || (length == 4 && code < 0x10000) || code > 0x10ffff ||
	    (code >= 0xd800 && code < 0xe000))
		return 0;
	if (code == 0x061c || (code >= 0x200e && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
	    (code >= 0x2066 && code <= 0x2069))
		return 0;
	return length;
}

char *text_safe(const void *bytes, size_t length)
{
	const unsigned char *s = bytes;
	char *out = malloc(length * 4 + 1), *o = out;
	size_t i = 0;

	if (!out)
		abort();
	while (i < length) {
		size_t n = printable_length(s + i, length - i);

		if (n) {
			memcpy(o, s + i, n);
			o += n;
			i += n;
		} else {
			o += sprintf(o, "\\x%02x", s[i++]);
		}
	}
	*o = '\0';
	return out;
}

void text_print(FILE *out, const char *text)
{
	char *safe = text_safe(text, strlen(text));

	fputs(safe, out);
	free(safe);
}
