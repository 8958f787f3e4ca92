#include "process_audit.h"

#include "validate.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Together below the 4,096 bytes that a record's detail may have. */
#define NAMES_MAX 800u
#define CWD_MAX 600u

/* Append a text as JSON, at most `max` bytes of it, escapes counted. Of a text that is no UTF-8 every odd byte becomes
 * one escape, so that nothing is lost and nothing can leave the string. False: it was cut. */
static bool put_string(FILE *out, const char *text, size_t *max)
{
	size_t length = strlen(text);
	bool utf8 = utf8_valid(text, length);
	size_t i;

	fputc('"', out);
	for (i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];
		bool plain = (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') || (c >= 0x80 && utf8);
		size_t cost = plain ? 1 : c == '"' || c == '\\' ? 2 : 6;

		/* A character of several bytes fits as a whole or not at all. */
		if (*max < (utf8 && c >= 0xc0 ? 4 : cost) && (c & 0xc0) != 0x80)
			break;
		if (*max < cost)
			break;
		*max -= cost;
		if (plain)
			fputc(c, out);
		else if (cost == 2)
			fprintf(out, "\\%c", c);
		else
			fprintf(out, "\\u%04x", c);
	}
	fputc('"', out);
	return i == length;
}

/* An array of as many strings as fit `max` bytes. True when something was left out. */
static bool put_array(FILE *out, char *const *texts, size_t count, size_t max)
{
	bool whole = true;

	fputc('[', out);
	for (size_t i = 0; i < count && whole; i++) {
		whole = max > 3;
		if (!whole)
			break;
		max -= 3;
		if (i > 0)
			fputc(',', out);
		whole = put_string(out, texts[i], &max);
	}
	fputc(']', out);
	return !whole;
}

static void put_argv(FILE *out, char *const *argv, size_t count)
{
	size_t bytes = 0;

	fputs("{\"argv\":", out);
	if (!put_array(out, argv, count, PROCESS_AUDIT_ARGV_MAX))
		return;
	for (size_t i = 0; i < count; i++)
		bytes += strlen(argv[i]) + 1;
	fprintf(out, ",\"argc\":%zu,\"argv_bytes\":%zu", count, bytes);
}

static void put_field(FILE *out, const char *name, const char *text)
{
	size_t max = CWD_MAX;

	fprintf(out, ",\"%s\":", name);
	put_string(out, text, &max);
}

char *process_audit_start(const Paddock__Internal__StoredProcess *process)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	put_argv(out, process->argv, process->n_argv);
	if (process->cwd[0])
		put_field(out, "cwd", process->cwd);
	put_field(out, "user", process->user);
	fputs(",\"env\":", out);
	if (put_array(out, process->env_names, process->n_env_names, NAMES_MAX))
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
	put_field(out, "cwd", sudo->cwd);
	fprintf(out, ",\"caller_pid\":%u}", sudo->caller_pid);
	return fclose(out) == 0 ? text : NULL;
}
