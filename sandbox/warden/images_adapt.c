#include "images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "images_field.h"
#include "sandbox/base/cleanup.h"

/*
 * A CRIU image is a magic number of one or two words, then entries: a 32-bit length and a protobuf message. Three
 * small kinds of file are rewritten, each with one entry. Fields are numbered as in the .proto files of CRIU's images/:
 *
 *	inventory.img	root_ids = 3: { net_ns_id = 6, uts_ns_id = 8, user_ns_id = 10 }
 *	ids-1.img	the same numbers, for the first process
 *	core-N.img	thread_core = 5: { cg_set = 16 }
 *
 * A namespace of the first process that has the id of CRIU's own ("root") is the one that CRIU runs in.
 */

#define FILE_MAX (1u << 20)
#define FIELD_ROOT_IDS 3u
#define FIELD_THREAD_CORE 5u
#define FIELD_CG_SET 16u
#define FIELD_USER_NS 10u

static const unsigned int shared_ids[] = {6, 8, FIELD_USER_NS};

struct bytes {
	uint8_t *at;
	size_t length;
};

static void put(struct bytes *to, const uint8_t *from, size_t length)
{
	memcpy(to->at + to->length, from, length);
	to->length += length;
}

static void put_varint(struct bytes *to, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		to->at[to->length++] = (uint8_t)(value | 0x80);
	to->at[to->length++] = (uint8_t)value;
}

/* Numbers of namespaces by field. */
struct ids {
	uint64_t number[16];
};

typedef void (*edit_function)(const struct field *field, struct bytes *to, const void *arg);

/* Every field of a message goes through `edit`. The result never needs more than 10 bytes a field beyond the input. */
static int edit_message(const uint8_t *at, const uint8_t *end, struct bytes *to, edit_function edit, const void *arg)
{
	struct field field;
	bool bad;

	while (images_take_field(at, end, &field, &bad)) {
		edit(&field, to, arg);
		at = field.end;
	}
	return bad ? -EBADMSG : 0;
}

static void edit_id(const struct field *field, struct bytes *to, const void *arg)
{
	const struct ids *ids = arg;

	for (size_t i = 0; i < ARRAY_SIZE(shared_ids); i++) {
		if (field->number != shared_ids[i] || field->kind != 0)
			continue;
		put_varint(to, (uint64_t)field->number << 3);
		put_varint(to, ids->number[field->number]);
		return;
	}
	put(to, field->start, (size_t)(field->end - field->start));
}

static void drop_cg_set(const struct field *field, struct bytes *to, const void *arg)
{
	if (field->number != FIELD_CG_SET)
		put(to, field->start, (size_t)(field->end - field->start));
}

struct nested {
	unsigned int number; /* the field that is edited */
	edit_function edit;
	const void *arg;
	int *rc;
};

static void edit_nested(const struct field *field, struct bytes *to, const void *arg)
{
	const struct nested *nested = arg;
	size_t room = 2 * (size_t)(field->end - field->start) + 64;
	_cleanup_free_ uint8_t *space = NULL;
	struct bytes inner = {0};

	if (field->number != nested->number || field->kind != 2) {
		put(to, field->start, (size_t)(field->end - field->start));
		return;
	}
	inner.at = space = malloc(room * 6);
	if (!space || edit_message(field->content, field->end, &inner, nested->edit, nested->arg) < 0) {
		*nested->rc = space ? -EBADMSG : -ENOMEM;
		return;
	}
	put_varint(to, (uint64_t)field->number << 3 | 2);
	put_varint(to, inner.length);
	put(to, inner.at, inner.length);
}

/* The whole file, with its one entry behind `header` bytes of magic. */
static int read_image(int dir, const char *name, size_t header, struct bytes *ret)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	uint32_t length;
	size_t size = 0;
	int rc = images_read_whole(dir, name, header + 4, FILE_MAX, &bytes, &size);

	if (rc < 0)
		return rc;
	memcpy(&length, bytes + header, sizeof(length));
	if (length != size - header - 4)
		return -EBADMSG;
	ret->at = STEAL_PTR(bytes);
	ret->length = size;
	return 0;
}

static int write_image(int dir, const char *name, const struct bytes *head, const struct bytes *entry)
{
	_cleanup_fd_ int fd = openat(dir, name, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
	uint32_t length = (uint32_t)entry->length;

	if (fd < 0)
		return -errno;
	if (write(fd, head->at, head->length) != (ssize_t)head->length || write(fd, &length, 4) != 4 ||
	    write(fd, entry->at, entry->length) != (ssize_t)entry->length)
		return -EIO;
	return 0;
}

static int rewrite(int dir, const char *name, size_t header, unsigned int number, edit_function edit, const void *arg)
{
	int rc = 0;
	struct nested nested = {.number = number, .edit = edit, .arg = arg, .rc = &rc};
	struct bytes whole = {0}, entry = {0}, head;
	_cleanup_free_ uint8_t *space = NULL, *owned = NULL;
	int error = read_image(dir, name, header, &whole);

	if (error < 0)
		return error;
	owned = whole.at;
	entry.at = space = malloc(12 * whole.length + 512);
	if (!space)
		return -ENOMEM;
	error = edit_message(whole.at + header + 4, whole.at + whole.length, &entry, edit_nested, &nested);
	if (error < 0 || rc < 0)
		return error < 0 ? error : rc;
	head = (struct bytes){whole.at, header};
	return write_image(dir, name, &head, &entry);
}

static void note_id(const struct field *field, struct bytes *to, const void *arg)
{
	struct ids *ids = (struct ids *)(uintptr_t)arg;

	if (field->kind == 0 && field->number < ARRAY_SIZE(ids->number))
		ids->number[field->number] = field->value;
}

static int read_ids(int dir, struct ids *ids)
{
	struct bytes whole = {0}, nothing = {0};
	_cleanup_free_ uint8_t *owned = NULL;
	int rc = read_image(dir, "ids-1.img", 8, &whole);

	if (rc < 0)
		return rc;
	owned = whole.at;
	rc = edit_message(whole.at + 12, whole.at + whole.length, &nothing, note_id, ids);
	return rc == 0 && !ids->number[FIELD_USER_NS] ? -EBADMSG : rc;
}

static int adapt_cores(int dir)
{
	_cleanup_fd_ int copy = fcntl(dir, F_DUPFD_CLOEXEC, 3);
	DIR *list = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	int rc = 0;

	if (!list)
		return -errno;
	(void)STEAL_FD(copy);
	rewinddir(list);
	while (rc == 0 && (entry = readdir(list)))
		if (strncmp(entry->d_name, "core-", 5) == 0)
			rc = rewrite(dir, entry->d_name, 8, FIELD_THREAD_CORE, drop_cg_set, NULL);
	closedir(list);
	return rc;
}

int images_adapt(int dir)
{
	struct ids ids = {0};
	int rc = read_ids(dir, &ids);

	if (rc == 0)
		rc = rewrite(dir, "inventory.img", 4, FIELD_ROOT_IDS, edit_id, &ids);
	return rc < 0 ? rc : adapt_cores(dir);
}
