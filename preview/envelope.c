#include "envelope.h"

#include <errno.h>
#include <zlib.h>

int envelope_next(const struct buffer *in, struct envelope *ret, struct pdk_error *err)
{
	const uint8_t *bytes = buffer_data(in);
	size_t length;

	if (buffer_length(in) < ENVELOPE_HEADER)
		return 0;
	if (bytes[0] & ~ENVELOPE_COMPRESSED)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "envelope: unknown flags");
	length = (size_t)bytes[1] << 24 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 8 | bytes[4];
	if (length > MESSAGE_MAX)
		return pdk_fail(err, -EMSGSIZE, PDK_RESOURCE_EXHAUSTED, "the message is larger than 4 MiB");
	if (buffer_length(in) < ENVELOPE_HEADER + length)
		return 0;
	*ret = (struct envelope){.flags = bytes[0], .bytes = bytes + ENVELOPE_HEADER, .length = length};
	return 1;
}

int envelope_put_header(struct buffer *out, uint8_t flags, size_t length)
{
	uint8_t header[ENVELOPE_HEADER] = {flags, (uint8_t)(length >> 24), (uint8_t)(length >> 16),
					   (uint8_t)(length >> 8), (uint8_t)length};

	return buffer_append(out, header, sizeof(header));
}

static int gunzip_all(z_stream *stream, struct buffer *out, struct pdk_error *err)
{
	int rc = Z_OK;

	while (rc == Z_OK) {
		size_t room = buffer_room(out) < 65536 ? buffer_room(out) : 65536;
		int failed = 0;
		uint8_t *to;

		if (!room)
			return pdk_fail(err, -EMSGSIZE, PDK_RESOURCE_EXHAUSTED, "the message is larger than 4 MiB");
		to = buffer_reserve(out, room, &failed);
		if (!to)
			return pdk_fail(err, failed, PDK_RESOURCE_EXHAUSTED, "out of memory");
		stream->next_out = to;
		stream->avail_out = (unsigned int)room;
		rc = inflate(stream, Z_NO_FLUSH);
		buffer_commit(out, room - stream->avail_out);
	}
	if (rc != Z_STREAM_END || stream->avail_in)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "gzip: damaged or incomplete");
	return 0;
}

int envelope_gunzip(const uint8_t *bytes, size_t length, struct buffer *out, struct pdk_error *err)
{
	z_stream stream = {.next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (unsigned int)length};
	int rc;

	if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	rc = gunzip_all(&stream, out, err);
	inflateEnd(&stream);
	return rc;
}
