#include "multipart.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/*
 * BEGIN  before the first boundary; a CRLF is put in front of the body, so that it looks like every other
 * TAIL   behind a boundary: CRLF (a part), or "--" (the end)
 * HEAD   the fields of a part
 * DATA   its content, up to the next boundary
 */
enum { BEGIN, TAIL, HEAD, DATA, DONE };

int multipart_start(struct multipart *multipart, const char *type)
{
	const char *boundary = strcasestr(type, "boundary=");
	size_t length;

	*multipart = (struct multipart){.in = BUFFER(MULTIPART_IN_MAX)};
	if (strncasecmp(type, "multipart/form-data", 19) != 0 || !boundary)
		return -EINVAL;
	boundary += 9;
	if (*boundary == '"')
		boundary++;
	length = strspn(boundary, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,-./:=?");
	if (!length || length > 70 || (boundary[length] && !strchr("\"; \t", boundary[length])))
		return -EINVAL;
	multipart->delimiter_length = (size_t)snprintf(multipart->delimiter, sizeof(multipart->delimiter), "\r\n--%.*s",
						       (int)length, boundary);
	return buffer_append(&multipart->in, "\r\n", 2);
}

void multipart_free(struct multipart *multipart)
{
	buffer_free(&multipart->in);
}

/* The value of `name="..."` in a Content-Disposition; quotes end at the next quote. */
static bool parameter(const char *line, const char *name, char *ret, size_t size)
{
	char wanted[32];
	const char *at, *end;

	snprintf(wanted, sizeof(wanted), "; %s=\"", name);
	at = strcasestr(line, wanted);
	if (!at)
		return false;
	at += strlen(wanted);
	end = strchr(at, '"');
	if (!end || (size_t)(end - at) >= size)
		return false;
	memcpy(ret, at, (size_t)(end - at));
	ret[end - at] = '\0';
	return true;
}

static enum multipart_event take_head(struct multipart *multipart, struct multipart_part *part)
{
	static const char field[] = "content-disposition:";
	char text[MULTIPART_HEAD_MAX + 1];
	const char *bytes = (const char *)buffer_data(&multipart->in);
	size_t have = buffer_length(&multipart->in);
	const char *end = have ? memmem(bytes, have, "\r\n\r\n", 4) : NULL;
	char *line, *rest = text;

	if (!end)
		return have > MULTIPART_HEAD_MAX ? MULTIPART_BAD : MULTIPART_MORE;
	if (end - bytes > (ptrdiff_t)MULTIPART_HEAD_MAX || memchr(bytes, '\0', (size_t)(end - bytes)))
		return MULTIPART_BAD;
	memcpy(text, bytes, (size_t)(end - bytes));
	text[end - bytes] = '\0';
	buffer_take(&multipart->in, (size_t)(end - bytes) + 4);
	*part = (struct multipart_part){};
	while ((line = strsep(&rest, "\n"))) {
		line[strcspn(line, "\r")] = '\0';
		if (strncasecmp(line, field, sizeof(field) - 1) != 0)
			continue;
		parameter(line, "name", part->name, sizeof(part->name));
		part->has_filename = parameter(line, "filename", part->filename, sizeof(part->filename));
		if (!part->has_filename && strcasestr(line, "; filename="))
			return MULTIPART_BAD;
	}
	multipart->state = DATA;
	return part->name[0] ? MULTIPART_PART : MULTIPART_BAD;
}

static enum multipart_event take_tail(struct multipart *multipart)
{
	const uint8_t *bytes = buffer_data(&multipart->in);

	if (buffer_length(&multipart->in) < 2)
		return MULTIPART_MORE;
	if (memcmp(bytes, "--", 2) == 0) {
		multipart->state = DONE;
		return MULTIPART_END;
	}
	if (memcmp(bytes, "\r\n", 2) != 0)
		return MULTIPART_BAD;
	buffer_take(&multipart->in, 2);
	multipart->state = HEAD;
	return MULTIPART_MORE;
}

/* Content, as far as it cannot be the beginning of a boundary. */
static enum multipart_event take_data(struct multipart *multipart, const uint8_t **ret_bytes, size_t *ret_length)
{
	const uint8_t *bytes = buffer_data(&multipart->in);
	size_t have = buffer_length(&multipart->in);
	const uint8_t *found = have ? memmem(bytes, have, multipart->delimiter, multipart->delimiter_length) : NULL;
	size_t n = found                                ? (size_t)(found - bytes)
		   : have < multipart->delimiter_length ? 0
							: have - multipart->delimiter_length + 1;

	if (n) {
		*ret_bytes = bytes;
		*ret_length = n;
		return MULTIPART_DATA;
	}
	if (!found)
		return MULTIPART_MORE;
	buffer_take(&multipart->in, multipart->delimiter_length);
	multipart->state = TAIL;
	return MULTIPART_PART_END;
}

static enum multipart_event take_begin(struct multipart *multipart)
{
	size_t have = buffer_length(&multipart->in);

	if (have < multipart->delimiter_length)
		return MULTIPART_MORE;
	/* A preamble is allowed by the RFC, sent by nobody, and not read here. */
	if (memcmp(buffer_data(&multipart->in), multipart->delimiter, multipart->delimiter_length) != 0)
		return MULTIPART_BAD;
	buffer_take(&multipart->in, multipart->delimiter_length);
	multipart->state = TAIL;
	return MULTIPART_MORE;
}

enum multipart_event multipart_next(struct multipart *multipart, struct multipart_part *part, const uint8_t **ret_bytes,
				    size_t *ret_length)
{
	enum multipart_event event = MULTIPART_MORE;
	int before;

	do {
		before = multipart->state;
		switch (before) {
		case BEGIN:
			event = take_begin(multipart);
			break;
		case TAIL:
			event = take_tail(multipart);
			break;
		case HEAD:
			event = take_head(multipart, part);
			break;
		case DATA:
			event = take_data(multipart, ret_bytes, ret_length);
			break;
		default:
			return MULTIPART_END;
		}
	} while (event == MULTIPART_MORE && multipart->state != before);
	return event;
}

void multipart_take(struct multipart *multipart, size_t length)
{
	buffer_take(&multipart->in, length);
}
