#include <stdlib.h>
#include <string.h>

#include "preview/h2_head.h"

/* The head of an HTTP/2 request, field by field: a byte of length and a name, a byte of length and a value. The first
 * byte says whether it came by TLS, and whether a body follows. What is let through must be one request in everybody's
 * eyes. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *take(const uint8_t **data, size_t *size, size_t *ret_length)
{
	const uint8_t *bytes = *data + 1;
	size_t n = *size ? **data : 0;

	if (!*size)
		return NULL;
	n = n < *size - 1 ? n : *size - 1;
	*data += n + 1;
	*size -= n + 1;
	*ret_length = n;
	return bytes;
}

static void must(bool holds)
{
	if (!holds)
		__builtin_trap();
}

static bool is_one_line(const char *text)
{
	return !strpbrk(text, "\r\n");
}

static void check(const struct http_head *head, bool body)
{
	must(head->host[0] && is_one_line(head->host) && is_one_line(head->method) && is_one_line(head->path));
	must((head->path[0] == '/' || strcmp(head->path, "*") == 0) && !strchr(head->path, ' '));
	must(!head->upgrade && !(head->chunked && head->content_length >= 0) && !(head->chunked && !body));
	must(!http_head_get(head, "transfer-encoding") && !http_head_get(head, "connection"));
	for (unsigned int i = 0; i < head->n_fields; i++)
		must(is_one_line(head->fields[i].name) && is_one_line(head->fields[i].value));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_head parsed;
	struct h2_head head;
	bool tls = size && data[0] & 1, body = size && data[0] & 2;
	size_t name_length = 0, value_length = 0;
	char *text;

	if (!size)
		return 0;
	data++;
	size--;
	h2_head_init(&head);
	while (size) {
		const uint8_t *name = take(&data, &size, &name_length);
		const uint8_t *value = take(&data, &size, &value_length);

		if (value)
			h2_head_add(&head, name, name_length, value, value_length);
	}
	if (h2_head_finish(&head, tls, body, &text, &parsed) == 0)
		check(&parsed, body);
	free(text);
	h2_head_free(&head);
	return 0;
}
