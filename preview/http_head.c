#include "http_head.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

bool http_token_char(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

size_t http_head_length(const char *bytes, size_t length)
{
	const char *end = memmem(bytes, length, "\r\n\r\n", 4);

	return end ? (size_t)(end - bytes) + 4 : 0;
}

bool http_lines_valid(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\0' || (text[i] == '\r' && (i + 1 == length || text[i + 1] != '\n')) ||
		    (text[i] == '\n' && (!i || text[i - 1] != '\r')))
			return false;
	}
	return true;
}

char *http_next_line(char **text)
{
	char *line = *text;
	char *end = strstr(line, "\r\n");

	*end = '\0';
	*text = end + 2;
	return line;
}

static int parse_target(char *target, struct http_head *ret)
{
	char *query;

	if (strlen(target) > HTTP_TARGET_MAX)
		return 414;
	if (target[0] != '/' && strcmp(target, "*") != 0)
		return 400;
	for (const char *c = target; *c; c++) {
		if (*c <= 0x20 || *c >= 0x7f || *c == '#')
			return 400;
	}
	query = strchr(target, '?');
	if (query)
		*query++ = '\0';
	ret->path = target;
	ret->query = query ? query : "";
	return 0;
}

static int parse_request_line(char *line, struct http_head *ret)
{
	char *target = strchr(line, ' ');
	char *version = target ? strchr(target + 1, ' ') : NULL;

	if (!version || target == line || target - line > 20)
		return 400;
	*target++ = '\0';
	*version++ = '\0';
	for (const char *c = line; *c; c++) {
		if (!isupper((unsigned char)*c) && *c != '-')
			return 400;
	}
	if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
		return strncmp(version, "HTTP/", 5) == 0 && isdigit((unsigned char)version[5]) && !strchr(version, ' ')
			       ? 505
			       : 400;
	ret->method = line;
	ret->minor = version[7] - '0';
	return parse_target(target, ret);
}

int http_field_parse(char *line, struct http_field *ret)
{
	char *colon = line;
	char *value, *end;

	while (http_token_char(*colon))
		colon++;
	if (*colon != ':' || colon == line)
		return 400;
	*colon = '\0';
	value = colon + 1 + strspn(colon + 1, " \t");
	end = value + strlen(value);
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	for (const char *c = value; *c; c++) {
		if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
			return 400;
	}
	ret->name = line;
	ret->value = value;
	return 0;
}

const char *http_head_get(const struct http_head *head, const char *name)
{
	for (unsigned int i = 0; i < head->n_fields; i++) {
		if (strcasecmp(head->fields[i].name, name) == 0)
			return head->fields[i].value;
	}
	return NULL;
}

bool http_list_has(const char *list, const char *token)
{
	size_t wanted = strlen(token);

	while (list && *list) {
		size_t length = strcspn(list, ",");
		const char *item = list;

		list += length + (list[length] == ',');
		while (length && (*item == ' ' || *item == '\t')) {
			item++;
			length--;
		}
		while (length && (item[length - 1] == ' ' || item[length - 1] == '\t'))
			length--;
		if (length == wanted && strncasecmp(item, token, length) == 0)
			return true;
	}
	return false;
}

/* The value of a field that may be there once. `*ret_bad` when it is there twice. */
static const char *single(const struct http_head *head, const char *name, bool *ret_bad)
{
	const char *value = NULL;

	for (unsigned int i = 0; i < head->n_fields; i++) {
		if (strcasecmp(head->fields[i].name, name) != 0)
			continue;
		if (value)
			*ret_bad = true;
		value = head->fields[i].value;
	}
	return value;
}

int http_length_parse(const char *text, int64_t *ret)
{
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 15 || text[digits])
		return 400;
	*ret = 0;
	for (; *text; text++)
		*ret = *ret * 10 + (*text - '0');
	return 0;
}

static int parse_framing(struct http_head *ret)
{
	bool bad = false;
	const char *length = single(ret, "content-length", &bad);
	const char *coding = single(ret, "transfer-encoding", &bad);
	const char *host = single(ret, "host", &bad);
	const char *expect = single(ret, "expect", &bad);

	if (bad || (length && coding) || (!host && ret->minor == 1))
		return 400;
	ret->host = host ? host : "";
	ret->content_length = -1;
	if (length && http_length_parse(length, &ret->content_length))
		return 400;
	if (coding && (strcasecmp(coding, "chunked") != 0 || ret->minor == 0))
		return 400;
	ret->chunked = coding;
	if (expect && strcasecmp(expect, "100-continue") != 0)
		return 417;
	ret->expects_continue = expect && ret->minor == 1;
	return 0;
}

/* All Connection lines together. */
static bool connection_has(const struct http_head *head, const char *token)
{
	for (unsigned int i = 0; i < head->n_fields; i++) {
		if (strcasecmp(head->fields[i].name, "connection") == 0 && http_list_has(head->fields[i].value, token))
			return true;
	}
	return false;
}

int http_head_parse(char *text, size_t length, struct http_head *ret)
{
	char *line;
	int status;

	*ret = (struct http_head){};
	if (length < 4 || !http_lines_valid(text, length))
		return 400;
	text[length - 2] = '\0'; /* of the empty line: now a string, which ends with CRLF */
	status = parse_request_line(http_next_line(&text), ret);
	if (status)
		return status;
	while (*text) {
		if (ret->n_fields == HTTP_FIELDS_MAX)
			return 431;
		line = http_next_line(&text);
		status = http_field_parse(line, &ret->fields[ret->n_fields++]);
		if (status)
			return status;
	}
	ret->keep_alive = ret->minor == 1 && !connection_has(ret, "close");
	ret->upgrade = ret->minor == 1 && connection_has(ret, "upgrade") && http_head_get(ret, "upgrade");
	return parse_framing(ret);
}
