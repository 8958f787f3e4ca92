#include "sandbox/init/files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

/*
 * Metadata of files: extended attributes "user.e2b.NAME", where programs in the sandbox that know hosted sandboxes look for
 * them. What is read may have been set by anybody inside, so it is bounded; what is written was checked by paddockd,
 * and its bounds are checked again.
 */

#define PREFIX "user.e2b."
#define PREFIX_LENGTH (sizeof(PREFIX) - 1)
#define BYTES_MAX 4096u    /* names and values of one file */
#define ENTRIES_MAX 128u   /* of them */
#define ATTRIBUTE_MAX 255u /* the kernel's limits of a name, */
#define LIST_MAX 65536u    /* and of all names of a file */

/* /proc/self/fd/DIR[/NAME]: the calls that take a descriptor do not take one that was opened with O_PATH. */
struct place {
	char path[64 + NAME_MAX];
	bool is_link; /* the path itself leads to the file; otherwise a link at its end is not followed */
};

static ssize_t get_value(const struct place *place, const char *attribute, char *value)
{
	return place->is_link ? getxattr(place->path, attribute, value, BYTES_MAX)
			      : lgetxattr(place->path, attribute, value, BYTES_MAX);
}

static int add(guest_message(File) * file, const char *name, const char *value, size_t length)
{
	guest_message(Metadata) *entry = malloc(sizeof(*entry) + strlen(name) + length);
	char *bytes = (char *)(entry + 1);

	if (!file->metadata)
		file->metadata = calloc(ENTRIES_MAX, sizeof(*file->metadata));
	if (!entry || !file->metadata) {
		free(entry);
		return -ENOMEM;
	}
	paddock__internal__guest_metadata__init(entry);
	entry->name = (ProtobufCBinaryData){.data = (uint8_t *)bytes, .len = strlen(name)};
	entry->value = (ProtobufCBinaryData){.data = (uint8_t *)bytes + strlen(name), .len = length};
	memcpy(bytes, name, strlen(name));
	memcpy(bytes + strlen(name), value, length);
	file->metadata[file->n_metadata++] = entry;
	return 0;
}

int files_metadata_load(int dir, const char *name, mode_t mode, guest_message(File) * file, size_t *ret_bytes)
{
	static char names[LIST_MAX], value[BYTES_MAX];
	struct place place = {.is_link = !name[0]};
	ssize_t length, n;
	int rc = 0;

	*ret_bytes = 0;
	if (!S_ISREG(mode) && !S_ISDIR(mode)) /* nothing else has attributes of users */
		return 0;
	snprintf(place.path, sizeof(place.path), "/proc/self/fd/%d%s%.*s", dir, name[0] ? "/" : "", NAME_MAX, name);
	length = place.is_link ? listxattr(place.path, names, sizeof(names))
			       : llistxattr(place.path, names, sizeof(names));
	for (ssize_t at = 0; at < length && rc == 0; at += (ssize_t)strlen(names + at) + 1) {
		const char *key = names + at + PREFIX_LENGTH;

		if (strncmp(names + at, PREFIX, PREFIX_LENGTH) != 0)
			continue;
		n = get_value(&place, names + at, value);
		if (n < 0) /* too large, gone, or not for this user to read */
			continue;
		if (file->n_metadata == ENTRIES_MAX || *ret_bytes + strlen(key) + (size_t)n > BYTES_MAX)
			break;
		*ret_bytes += strlen(key) + (size_t)n;
		rc = add(file, key, value, (size_t)n);
	}
	return rc;
}

int files_metadata_store(int fd, const guest_message(Write) * request, const char *path, struct pdk_error *err)
{
	char attribute[ATTRIBUTE_MAX + 1];
	size_t bytes = 0;

	if (request->n_metadata > ENTRIES_MAX)
		return pdk_fail(err, -E2BIG, PDK_INVALID_ARGUMENT, "metadata: at most %u entries", ENTRIES_MAX);
	for (size_t i = 0; i < request->n_metadata; i++) {
		const guest_message(Metadata) *entry = request->metadata[i];

		bytes += entry->name.len + entry->value.len;
		if (!entry->name.len || entry->name.len > ATTRIBUTE_MAX - PREFIX_LENGTH || bytes > BYTES_MAX ||
		    memchr(entry->name.data, '\0', entry->name.len))
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "metadata: too large, or a malformed name");
		snprintf(attribute, sizeof(attribute), PREFIX "%.*s", (int)entry->name.len, (char *)entry->name.data);
		if (fsetxattr(fd, attribute, entry->value.data, entry->value.len, 0) == 0)
			continue;
		if (errno == EOPNOTSUPP)
			return pdk_fail(err, -EOPNOTSUPP, PDK_FAILED_PRECONDITION,
					"%.300s: the file system there keeps no metadata", path);
		return path_fail(err, -errno, path);
	}
	return 0;
}
