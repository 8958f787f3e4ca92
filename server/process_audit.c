#include "process_audit.h"

#include "validate.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 1024u

/* Append `length` bytes of text as JSON. Of a text that is no UTF-8 every odd byte becomes one escape, so that nothing is
 * lost and nothing can leave the string. */
static void put_string(FILE *out, const char *text, size_t length)
{
	bool utf8 = utf8_valid(text, length);

	fputc('"', out);
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if ((c >= 0x20 && c < 0x7f) || (c >= 0x80 && utf8))
			fputc(c, out);
		else
			fprintf(out, "\\u%04x", c);
	}
	fputc('"', out);
}

/* An array of as many strings as fit `max` bytes. True when something was left out. */
static bool put_array(FILE *out, char *const *texts, size_t count, size_t max, size_t *ret_bytes)
{
	size_t shown = 0;
	bool cut = false;

	*ret_bytes = 0;
	fputc('[', out);
	for (size_t i = 0; i < count; i++) {
		size_t length = strlen(texts[i]);
		size_t room = max - shown;

		*ret_bytes += length;
		if (cut)
			continue;
		cut = length > room;
		if (cut && room == 0)
			continue;
		if (i > 0)
			fputc(',', out);
		put_string(out, texts[i], cut ? room : length);
		shown += cut ? room : length;
	}
	fputc(']', out);
	return cut;
}

static void put_argv(FILE *out, char *const *argv, size_t count)
{
	size_t bytes;

	fputs("{\"argv\":", out);
	if (put_array(out, argv, count, PROCESS_AUDIT_ARGV_MAX, &bytes))
		fprintf(out, ",\"argv_bytes\":%zu,\"argc\":%zu", bytes, count);
}

char *process_audit_start(const Paddock__Internal__StoredProcess *process)
{
	char *text = NULL;
	size_t size, bytes;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	put_argv(out, process->argv, process->n_argv);
	fputs(",\"cwd\":", out);
	put_string(out, process->cwd, strnlen(process->cwd, 512));
	fputs(",\"user\":", out);
	put_string(out, process->user, strlen(process->user));
	fputs(",\"env\":", out);
	if (put_array(out, process->env_names, process->n_env_names, NAMES_MAX, &bytes))
		fprintf(out, ",\"env_count\":%zu", process->n_env_names);
	fputc('}', out);
	return fclose(out) == 0 ? text : NULL;
}

char *process_audit_sudo(const Paddock__Internal__GuestSudo *sudo)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	put_argv(out, sudo->argv, sudo->n_argv);
	fputs(",\"cwd\":", out);
	put_string(out, sudo->cwd, strnlen(sudo->cwd, 512));
	fprintf(out, ",\"caller_pid\":%u}", sudo->caller_pid);
	return fclose(out) == 0 ? text : NULL;
}
