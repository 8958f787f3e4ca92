#include "e2b_entry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "validate.h"

/* Go's FileMode.String(), which is what the SDKs show: the letters of what it is, then the nine bits. */
static void write_permissions(char text[16], const Paddock__V1__FileInfo *file)
{
	static const char bits[] = "rwxrwxrwx";
	char *to = text;

	if (file->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_DIRECTORY)
		*to++ = 'd';
	else if (file->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_SYMLINK)
		*to++ = 'L';
	else if (file->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_OTHER)
		*to++ = '?';
	if (file->mode & 04000)
		*to++ = 'u';
	if (file->mode & 02000)
		*to++ = 'g';
	if (file->mode & 01000)
		*to++ = 't';
	if (to == text)
		*to++ = '-';
	for (int i = 0; i < 9; i++)
		*to++ = file->mode & (0400u >> i) ? bits[i] : '-';
	*to = '\0';
}

static Filesystem__FileType type_of(const Paddock__V1__FileInfo *file)
{
	if (file->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_REGULAR)
		return FILESYSTEM__FILE_TYPE__FILE_TYPE_FILE;
	if (file->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_DIRECTORY)
		return FILESYSTEM__FILE_TYPE__FILE_TYPE_DIRECTORY;
	if (file->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_SYMLINK)
		return FILESYSTEM__FILE_TYPE__FILE_TYPE_SYMLINK;
	return FILESYSTEM__FILE_TYPE__FILE_TYPE_UNSPECIFIED;
}

static char *copy_bytes(struct arena *arena, const ProtobufCBinaryData *bytes)
{
	char *text = arena_alloc(arena, bytes->len + 1);

	if (text && bytes->len)
		memcpy(text, bytes->data, bytes->len);
	return text;
}

static char *copy_text(struct arena *arena, const char *text)
{
	return copy_bytes(arena, &(ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)(uintptr_t)text});
}

static int copy_metadata(struct arena *arena, Filesystem__EntryInfo *info, const Paddock__V1__FileInfo *file)
{
	Filesystem__EntryInfo__MetadataEntry *entries;

	if (!file->n_metadata)
		return 0;
	entries = arena_alloc(arena, file->n_metadata * sizeof(*entries));
	info->metadata = arena_alloc(arena, file->n_metadata * sizeof(*info->metadata));
	if (!entries || !info->metadata)
		return -ENOMEM;
	for (size_t i = 0; i < file->n_metadata; i++) {
		filesystem__entry_info__metadata_entry__init(&entries[i]);
		entries[i].key = copy_text(arena, file->metadata[i]->key);
		entries[i].value = copy_text(arena, file->metadata[i]->value);
		if (!entries[i].key || !entries[i].value)
			return -ENOMEM;
		info->metadata[i] = &entries[i];
	}
	info->n_metadata = file->n_metadata;
	return 0;
}

int e2b_entry_fill(struct arena *arena, struct e2b_entry *entry, const Paddock__V1__FileInfo *file)
{
	Filesystem__EntryInfo *info = &entry->info;
	char *slash;

	if (!utf8_valid((const char *)file->path.data, file->path.len))
		return -EILSEQ;
	filesystem__entry_info__init(info);
	google__protobuf__timestamp__init(&entry->time);
	write_permissions(entry->permissions, file);
	info->path = copy_bytes(arena, &file->path);
	info->owner = copy_text(arena, file->user);
	info->group = copy_text(arena, file->group);
	if (!info->path || !info->owner || !info->group)
		return -ENOMEM;
	slash = strrchr(info->path, '/');
	info->name = slash && slash[1] ? slash + 1 : info->path;
	info->type = type_of(file);
	info->size = (int64_t)file->size;
	info->mode = file->mode & 0777;
	info->permissions = entry->permissions;
	info->modified_time = &entry->time;
	entry->time.seconds = file->modified_unix_ms / 1000 - (file->modified_unix_ms % 1000 < 0);
	entry->time.nanos = (int32_t)(file->modified_unix_ms - entry->time.seconds * 1000) * 1000000;
	if (copy_metadata(arena, info, file) < 0)
		return -ENOMEM;
	if (!e2b_entry_is_link(entry) || !utf8_valid((const char *)file->symlink_target.data, file->symlink_target.len))
		return 0;
	info->symlink_target = copy_bytes(arena, &file->symlink_target);
	info->optional_symlink_target_case = FILESYSTEM__ENTRY_INFO__OPTIONAL_SYMLINK_TARGET_SYMLINK_TARGET;
	return info->symlink_target ? 0 : -ENOMEM;
}

bool e2b_entry_is_link(const struct e2b_entry *entry)
{
	return entry->info.type == FILESYSTEM__FILE_TYPE__FILE_TYPE_SYMLINK;
}

void e2b_entry_resolve(struct e2b_entry *entry, const Paddock__V1__FileInfo *target)
{
	entry->info.type = target ? type_of(target) : FILESYSTEM__FILE_TYPE__FILE_TYPE_UNSPECIFIED;
	if (target)
		entry->info.mode = target->mode & 0777;
}

/* '/' before everything else, and the end before that. */
static int rank(unsigned char c)
{
	return c == '/' ? 1 : c ? c + 1 : 0;
}

int e2b_entry_compare(const void *a, const void *b)
{
	const unsigned char *left = (const unsigned char *)(*(const Filesystem__EntryInfo *const *)a)->path;
	const unsigned char *right = (const unsigned char *)(*(const Filesystem__EntryInfo *const *)b)->path;

	while (*left && *left == *right) {
		left++;
		right++;
	}
	return rank(*left) - rank(*right);
}
