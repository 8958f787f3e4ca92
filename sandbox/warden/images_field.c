#include "images_field.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"

int images_read_whole(int dir, const char *name, size_t least, size_t most, uint8_t **ret, size_t *ret_length)
{
	_cleanup_fd_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_free_ uint8_t *bytes = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)least || st.st_size > (off_t)most)
		return -EBADMSG;
	bytes = malloc((size_t)st.st_size);
	if (!bytes)
		return -ENOMEM;
	if (read(fd, bytes, (size_t)st.st_size) != st.st_size)
		return -EIO;
	*ret = STEAL_PTR(bytes);
	*ret_length = (size_t)st.st_size;
	return 0;
}

static const uint8_t *take_varint(const uint8_t *at, const uint8_t *end, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; at < end && shift < 64; shift += 7) {
		value |= (uint64_t)(*at & 0x7f) << shift;
		if (!(*at++ & 0x80)) {
			*ret = value;
			return at;
		}
	}
	return NULL;
}

bool images_take_field(const uint8_t *at, const uint8_t *end, struct field *field, bool *bad)
{
	uint64_t key;

	*bad = false;
	if (at >= end)
		return false;
	field->start = at;
	*bad = true;
	at = take_varint(at, end, &key);
	if (!at)
		return false;
	field->number = (unsigned int)(key >> 3);
	field->kind = key & 7;
	field->value = field->kind == 1 ? 8 : 4;
	if (field->kind == 0 || field->kind == 2)
		at = take_varint(at, end, &field->value);
	if (!at || (field->kind != 0 && field->value > (uint64_t)(end - at)))
		return false;
	if (field->kind != 0 && field->kind != 1 && field->kind != 2 && field->kind != 5)
		return false;
	field->content = at;
	field->end = field->kind == 0 ? at : at + field->value;
	*bad = false;
	return true;
}
