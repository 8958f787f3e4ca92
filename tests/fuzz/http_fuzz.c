#include <stdlib.h>
#include <string.h>

#include "preview/envelope.h"
#include "preview/http_chunk.h"
#include "preview/http_head.h"
#include "preview/multipart.h"
#include "preview/url.h"

/* The first byte chooses the parser: a request head (and its Host and query), a chunked body fed in two pieces,
 * envelopes. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_head(const uint8_t *data, size_t size)
{
	struct http_head head;
	struct url_host host;
	char value[64];
	size_t length = http_head_length((const char *)data, size);
	char *text = malloc(length + 1);

	memcpy(text, data, length);
	text[length] = '\0';
	if (length && http_head_parse(text, length, &head) == 0) {
		if (head.chunked && head.content_length >= 0)
			__builtin_trap();
		if (url_parse_host(head.host, "d.test", &host) == 0 && host.is_sandbox && !host.port)
			__builtin_trap();
		url_query(head.query, "path", value, sizeof(value));
		url_decode(head.path, false);
	}
	free(text);
}

/* However a body is cut, the same comes out. */
static void fuzz_chunks(const uint8_t *data, size_t size)
{
	uint64_t sums[2] = {};
	int ends[2];

	for (int pass = 0; pass < 2; pass++) {
		struct http_chunk chunk = {};
		size_t at = 0, end = pass ? size / 2 : size;
		enum http_chunk_result result;

		for (;;) {
			size_t used = 0, n = 0;

			result = http_chunk_feed(&chunk, data + at, end - at, &used, &n);
			if (result == HTTP_CHUNK_BAD)
				break;
			for (size_t i = at + used - n; i < at + used; i++)
				sums[pass] = sums[pass] * 31 + data[i] + 1;
			at += used;
			if (result == HTTP_CHUNK_END || (result == HTTP_CHUNK_MORE && end == size))
				break;
			if (result == HTTP_CHUNK_MORE)
				end = size;
		}
		ends[pass] = (int)result;
	}
	if (ends[0] != ends[1] || sums[0] != sums[1])
		__builtin_trap();
}

static void fuzz_envelopes(const uint8_t *data, size_t size)
{
	struct buffer in = BUFFER(1 << 20), out = BUFFER(1 << 16);
	struct envelope envelope;
	struct pdk_error err;

	if (buffer_append(&in, data, size) < 0)
		return;
	while (envelope_next(&in, &envelope, &err) > 0) {
		if (envelope.flags & ENVELOPE_COMPRESSED)
			envelope_gunzip(envelope.bytes, envelope.length, &out, &err);
		buffer_free(&out);
		buffer_take(&in, ENVELOPE_HEADER + envelope.length);
	}
	buffer_free(&in);
}

/* The content of all parts, however the body is cut. */
static uint64_t multipart_sum(const uint8_t *data, size_t size, size_t cut)
{
	struct multipart multipart;
	struct multipart_part part;
	const uint8_t *bytes = NULL;
	size_t length = 0, given = cut;
	uint64_t sum = 0;

	if (multipart_start(&multipart, "multipart/form-data; boundary=b") < 0 ||
	    buffer_append(&multipart.in, data, given) < 0)
		__builtin_trap();
	for (;;) {
		enum multipart_event event = multipart_next(&multipart, &part, &bytes, &length);

		if (event == MULTIPART_DATA) {
			for (size_t i = 0; i < length; i++)
				sum = sum * 31 + bytes[i] + 1;
			multipart_take(&multipart, length);
			continue;
		}
		if (event == MULTIPART_MORE && given < size) {
			if (buffer_append(&multipart.in, data + given, size - given) < 0)
				break;
			given = size;
			continue;
		}
		sum = sum * 31 + (unsigned int)event;
		if (event != MULTIPART_PART && event != MULTIPART_PART_END)
			break;
	}
	multipart_free(&multipart);
	return sum;
}

static void fuzz_multipart(const uint8_t *data, size_t size)
{
	if (size < MULTIPART_HEAD_MAX && multipart_sum(data, size, size) != multipart_sum(data, size, size / 2))
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (data[0] % 4) {
	case 0:
		fuzz_head(data + 1, size - 1);
		break;
	case 1:
		fuzz_chunks(data + 1, size - 1);
		break;
	case 2:
		fuzz_envelopes(data + 1, size - 1);
		break;
	default:
		fuzz_multipart(data + 1, size - 1);
		break;
	}
	return 0;
}
