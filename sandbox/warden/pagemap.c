#include "pagemap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "images_field.h"
#include "sandbox/base/cleanup.h"

/*
 * An image is two words of magic, then entries: a 32-bit length and a protobuf message. Numbers as in CRIU's images/:
 * first { pages_id = 1 }, then each { vaddr = 1, nr_pages = 2 (or 5, wider), flags = 4 }.
 *
 * Their pages lie one behind the other in the file.
 */

#define FILE_MAX (64u << 20)
#define MAGIC_BYTES 8
#define ENTRIES_MAX (1u << 20)
#define ADDRESS_MAX (1ull << 56)

#define FLAG_LAZY 2u
#define FLAG_PRESENT 4u

struct image {
	uint8_t *bytes;
	size_t length, at;
};

static void image_free(struct image *image)
{
	free(image->bytes);
}

static int image_read(int dir, const char *name, struct image *ret)
{
	ret->at = MAGIC_BYTES;
	return images_read_whole(dir, name, MAGIC_BYTES, FILE_MAX, &ret->bytes, &ret->length);
}

/* The next message. 1, 0 at the end, or -EBADMSG. */
static int image_next(struct image *image, const uint8_t **ret_start, const uint8_t **ret_end)
{
	uint32_t length;

	if (image->at == image->length)
		return 0;
	if (image->length - image->at < sizeof(length))
		return -EBADMSG;
	memcpy(&length, image->bytes + image->at, sizeof(length));
	image->at += sizeof(length);
	if (length > image->length - image->at)
		return -EBADMSG;
	*ret_start = image->bytes + image->at;
	image->at += length;
	*ret_end = image->bytes + image->at;
	return 1;
}

/* The plain numbers of a message, by field. */
static int read_numbers(const uint8_t *at, const uint8_t *end, uint64_t numbers[16])
{
	struct field field;
	bool bad;

	memset(numbers, 0, 16 * sizeof(*numbers));
	while (images_take_field(at, end, &field, &bad)) {
		if (field.kind == 0 && field.number < 16)
			numbers[field.number] = field.value;
		at = field.end;
	}
	return bad ? -EBADMSG : 0;
}

static int add_entry(struct pagemap *map, const uint64_t numbers[16], uint64_t *offset)
{
	const struct pagemap_entry *last = map->n ? &map->entries[map->n - 1] : NULL;
	uint64_t start = numbers[1], pages = numbers[5] ? numbers[5] : numbers[2], flags = numbers[4];
	struct pagemap_entry entry = {.start = start, .offset = *offset, .lazy = flags & FLAG_LAZY};

	/* Others are in another set of images, which ours are never. */
	if (!(flags & FLAG_PRESENT) || start % PAGE_BYTES || start >= ADDRESS_MAX || pages == 0 ||
	    pages > ADDRESS_MAX / PAGE_BYTES || (last && last->end > start))
		return -EBADMSG;
	entry.end = start + pages * PAGE_BYTES;
	if ((map->n & (map->n - 1)) == 0) {
		void *more = map->n < ENTRIES_MAX ? reallocarray(map->entries, map->n ? 2 * map->n : 1, sizeof(entry))
						  : NULL;

		if (!more)
			return -ENOMEM;
		map->entries = more;
	}
	*offset += pages * PAGE_BYTES;
	map->entries[map->n++] = entry;
	return 0;
}

static int read_entries(struct image *image, struct pagemap *map)
{
	const uint8_t *start, *end;
	uint64_t numbers[16], offset = 0;
	int rc = image_next(image, &start, &end);

	if (rc <= 0 || read_numbers(start, end, numbers) < 0 || numbers[1] == 0 || numbers[1] > UINT32_MAX)
		return -EBADMSG;
	map->pages = (unsigned int)numbers[1];
	while ((rc = image_next(image, &start, &end)) > 0) {
		rc = read_numbers(start, end, numbers);
		if (rc == 0)
			rc = add_entry(map, numbers, &offset);
		if (rc < 0)
			return rc;
	}
	return rc;
}

int pagemap_read(int dir, const char *name, struct pagemap *ret)
{
	_cleanup_(image_free) struct image image = {0};
	_cleanup_(pagemap_free) struct pagemap map = {0};
	int rc = image_read(dir, name, &image);

	if (rc == 0)
		rc = read_entries(&image, &map);
	if (rc < 0)
		return rc;
	(void)sscanf(name, "pagemap-%d.img", &map.pid); /* others are "pagemap-shmem-N.img" */
	for (size_t i = 0; map.pid && i < map.n; i++)
		if (map.entries[i].lazy)
			map.lazy_bytes += map.entries[i].end - map.entries[i].start;
	*ret = map;
	map.entries = NULL;
	return 0;
}

void pagemap_free(struct pagemap *map)
{
	free(map->entries);
	map->entries = NULL;
}
