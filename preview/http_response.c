#include "http_response.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

const char *http_response_get(const struct http_response *response, const char *name)
{
	for (unsigned int i = 0; i < response->n_fields; i++) {
		if (strcasecmp(response->fields[i].name, name) == 0)
			return response->fields[i].value;
	}
	return NULL;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK"; the reason may be empty, and is not looked at. */
static int parse_status(const char *line, struct http_response *ret)
{
	if (strncmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') || line[8] != ' ' || line[9] < '1' ||
	    line[9] > '9' || !is_digit(line[10]) || !is_digit(line[11]) || (line[12] && line[12] != ' '))
		return -EPROTO;
	for (const char *c = line + 12; *c; c++) {
		if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
			return -EPROTO;
	}
	ret->minor = line[7] - '0';
	ret->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
	return 0;
}

static bool connection_has(const struct http_response *response, const char *token)
{
	for (unsigned int i = 0; i < response->n_fields; i++) {
		if (strcasecmp(response->fields[i].name, "connection") == 0 &&
		    http_list_has(response->fields[i].value, token))
			return true;
	}
	return false;
}

/* The value of a field that may be there once; -EPROTO when it is there twice. */
static int single(const struct http_response *response, const char *name, const char **ret)
{
	*ret = NULL;
	for (unsigned int i = 0; i < response->n_fields; i++) {
		if (strcasecmp(response->fields[i].name, name) != 0)
			continue;
		if (*ret)
			return -EPROTO;
		*ret = response->fields[i].value;
	}
	return 0;
}

static int parse_framing(const char *method, struct http_response *ret)
{
	const char *length, *coding;

	if (single(ret, "content-length", &length) < 0 || single(ret, "transfer-encoding", &coding) < 0 ||
	    (length && coding))
		return -EPROTO;
	ret->content_length = -1;
	if (length && http_length_parse(length, &ret->content_length))
		return -EPROTO;
	if (coding && (strcasecmp(coding, "chunked") != 0 || ret->minor == 0))
		return -EPROTO;
	ret->keep_alive = ret->minor == 1 ? !connection_has(ret, "close") : connection_has(ret, "keep-alive");
	if (strcmp(method, "HEAD") == 0 || ret->status < 200 || ret->status == 204 || ret->status == 304)
		ret->body = HTTP_BODY_NONE;
	else if (coding)
		ret->body = HTTP_BODY_CHUNKED;
	else
		ret->body = length ? HTTP_BODY_LENGTH : HTTP_BODY_UNTIL_END;
	return 0;
}

int http_response_parse(char *text, size_t length, const char *method, struct http_response *ret)
{
	ret->n_fields = 0;
	if (length < 4 || !http_lines_valid(text, length))
		return -EPROTO;
	text[length - 2] = '\0';
	if (parse_status(http_next_line(&text), ret) < 0)
		return -EPROTO;
	while (*text) {
		if (ret->n_fields == HTTP_RESPONSE_FIELDS_MAX ||
		    http_field_parse(http_next_line(&text), &ret->fields[ret->n_fields++]))
			return -EPROTO;
	}
	return parse_framing(method, ret);
}
