#include "h2_head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sandbox/base/cleanup.h"

static const char *const pseudo_names[H2_PSEUDOS] = {
	[H2_METHOD] = ":method", [H2_SCHEME] = ":scheme", [H2_AUTHORITY] = ":authority", [H2_PATH] = ":path"};

void h2_head_init(struct h2_head *head)
{
	*head = (struct h2_head){.fields = BUFFER(HTTP_HEAD_MAX), .cookies = BUFFER(HTTP_HEAD_MAX)};
}

void h2_head_free(struct h2_head *head)
{
	for (int i = 0; i < H2_PSEUDOS; i++)
		free(head->pseudo[i]);
	free(head->host);
	buffer_free(&head->fields);
	buffer_free(&head->cookies);
	*head = (struct h2_head){};
}

static void refuse(struct h2_head *head, int status)
{
	if (!head->status)
		head->status = status;
}

/* Visible ASCII: of what becomes a part of the first line, or a host. */
static bool is_visible(const uint8_t *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (text[i] <= 0x20 || text[i] >= 0x7f)
			return false;
	}
	return length;
}

static bool is_name(const uint8_t *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (!http_token_char((char)text[i]) || (text[i] >= 'A' && text[i] <= 'Z'))
			return false;
	}
	return length;
}

static bool is_value(const uint8_t *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if ((text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f)
			return false;
	}
	return true;
}

static bool same(const uint8_t *text, size_t length, const char *wanted)
{
	return length == strlen(wanted) && memcmp(text, wanted, length) == 0;
}

/* A piece that may be there once. */
static void set_once(struct h2_head *head, char **piece, const uint8_t *value, size_t length)
{
	if (*piece || !is_visible(value, length)) {
		refuse(head, 400);
		return;
	}
	if (length >= HTTP_HEAD_MAX) {
		refuse(head, 431);
		return;
	}
	*piece = strndup((const char *)value, length);
	if (!*piece)
		refuse(head, 503);
}

static void add_pseudo(struct h2_head *head, const uint8_t *name, size_t name_length, const uint8_t *value,
		       size_t length)
{
	for (int i = 0; i < H2_PSEUDOS; i++) {
		if (same(name, name_length, pseudo_names[i])) {
			set_once(head, &head->pseudo[i], value, length);
			return;
		}
	}
	refuse(head, 400);
}

static int append_cookie(struct buffer *cookies, const uint8_t *value, size_t length)
{
	int rc = buffer_length(cookies) ? buffer_append(cookies, "; ", 2) : 0;

	return rc < 0 ? rc : buffer_append(cookies, value, length);
}

static int append_field(struct buffer *fields, const uint8_t *name, size_t name_length, const uint8_t *value,
			size_t length)
{
	int rc = buffer_append(fields, name, name_length);

	if (rc == 0)
		rc = buffer_append(fields, ": ", 2);
	if (rc == 0)
		rc = buffer_append(fields, value, length);
	return rc < 0 ? rc : buffer_append(fields, "\r\n", 2);
}

static bool is_of_connection(const uint8_t *name, size_t length)
{
	static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "transfer-encoding",
					    "upgrade"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (same(name, length, names[i]))
			return true;
	}
	return false;
}

void h2_head_add(struct h2_head *head, const uint8_t *name, size_t name_length, const uint8_t *value, size_t length)
{
	int rc;

	if (head->status)
		return;
	if (name_length && name[0] == ':') {
		add_pseudo(head, name, name_length, value, length);
		return;
	}
	if (!is_name(name, name_length) || !is_value(value, length) || is_of_connection(name, name_length)) {
		refuse(head, 400);
		return;
	}
	if (same(name, name_length, "host")) {
		set_once(head, &head->host, value, length);
		return;
	}
	if (same(name, name_length, "cookie"))
		rc = append_cookie(&head->cookies, value, length);
	else if (head->n_fields++ < HTTP_FIELDS_MAX)
		rc = append_field(&head->fields, name, name_length, value, length);
	else
		rc = -1;
	if (rc < 0)
		refuse(head, 431);
}

/* Whose request it is: :authority, or Host where there is none. NULL: they disagree, or neither is there. */
static const char *host_of(const struct h2_head *head)
{
	const char *authority = head->pseudo[H2_AUTHORITY];

	if (!authority || !head->host)
		return authority ? authority : head->host;
	return strcasecmp(authority, head->host) == 0 ? authority : NULL;
}

static int put(struct buffer *out, const char *text)
{
	return buffer_append(out, text, strlen(text));
}

static int write_head(const struct h2_head *head, const char *host, struct buffer *out)
{
	const char *const pieces[] = {head->pseudo[H2_METHOD], " ",  head->pseudo[H2_PATH],
				      " HTTP/1.1\r\nhost: ",   host, "\r\n"};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(pieces); i++)
		rc = put(out, pieces[i]);
	if (rc == 0)
		rc = buffer_append(out, buffer_data(&head->fields), buffer_length(&head->fields));
	if (rc == 0 && buffer_length(&head->cookies))
		rc = append_field(out, (const uint8_t *)"cookie", 6, buffer_data(&head->cookies),
				  buffer_length(&head->cookies));
	return rc < 0 ? rc : put(out, "\r\n");
}

static int parse(const struct h2_head *head, const char *host, char **ret_text, struct http_head *ret)
{
	struct buffer out = BUFFER(HTTP_HEAD_MAX);
	int status = write_head(head, host, &out) < 0 ? 431 : 0;

	if (status == 0) {
		*ret_text = strndup((const char *)buffer_data(&out), buffer_length(&out));
		status = *ret_text ? http_head_parse(*ret_text, buffer_length(&out), ret) : 503;
	}
	buffer_free(&out);
	return status;
}

/* The frames say where the body ends; towards an application its length has to be said, or that it comes in chunks. */
static int set_framing(struct http_head *head, bool body)
{
	bool expected = strcmp(head->method, "POST") == 0 || strcmp(head->method, "PUT") == 0 ||
			strcmp(head->method, "PATCH") == 0;

	if (!body && head->content_length > 0)
		return 400;
	if (!body && head->content_length < 0 && expected)
		head->content_length = 0;
	head->chunked = body && head->content_length < 0;
	return 0;
}

int h2_head_finish(struct h2_head *head, bool tls, bool body, char **ret_text, struct http_head *ret)
{
	const char *host = host_of(head);
	int status = head->status;

	*ret_text = NULL;
	*ret = (struct http_head){};
	if (!status && (!head->pseudo[H2_METHOD] || !head->pseudo[H2_PATH] || !head->pseudo[H2_SCHEME] || !host ||
			strcmp(head->pseudo[H2_SCHEME], tls ? "https" : "http") != 0))
		status = 400;
	if (!status)
		status = parse(head, host, ret_text, ret);
	return status ? status : set_framing(ret, body);
}

bool h2_host_is(const char *host, const char *name)
{
	size_t length = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");

	if (!name || !name[0])
		return true;
	if (length && host[length - 1] == '.')
		length--;
	return length == strlen(name) && strncasecmp(host, name, length) == 0;
}
