/* What lies beside the images of a checkpoint, and the three kinds of image that are rewritten: whatever they hold, a manifest is only
 * taken whole and with its HMAC, notes only with strings that end, and rewriting stays within its memory. The first byte of an input
 * says as which of the files the rest is taken. */
#include "sandbox/warden/checkpoint_private.h"
#include "sandbox/warden/criu.h"
#include "sandbox/warden/images.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct options options;
static const struct images_binding binding = {.id = "iaaaaaaaaaaaaaaaaaaaa", .template_id = "t", .token = 1};
static int dir = -1;
static char folder[] = "/dev/shm/images-fuzz-XXXXXX";

static void teardown(void)
{
	static const char *const names[] = {"manifest", "paddock.img", "ids-1.img", "inventory.img", "core-1.img"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(dir, names[i], 0);
	rmdir(folder);
}

static void put_file(const char *name, const uint8_t *data, size_t size)
{
	_cleanup_fd_ int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size))
		__builtin_trap();
}

static void try_manifest(const uint8_t *data, size_t size)
{
	struct pdk_error err;

	put_file("manifest", data, size);
	/* Nobody makes the HMAC by chance: with this key none of them is right. */
	if (images_check(dir, &binding, IMAGES_STRUCTURE, &err) >= 0 || images_check_binding(dir, &binding, &err) >= 0)
		__builtin_trap();
	if (strnlen(err.text, sizeof(err.text)) == sizeof(err.text) || err.code != PDK_DATA_LOSS)
		__builtin_trap();
}

/* The same text, sealed: what follows the HMAC's check sees it, too. */
static void try_sealed(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = malloc(size + 100);
	uint8_t digest[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1];
	struct pdk_error err;

	if (!text)
		return;
	memcpy(text, data, size);
	if (size)
		text[size - 1] = '\n';
	hmac(text, size, digest);
	sha256_hex(digest, hex);
	size += (size_t)sprintf(text + size, "hmac %s\n", hex);
	put_file("manifest", (uint8_t *)text, size);
	images_check(dir, &binding, IMAGES_STRUCTURE, &err);
	images_check(dir, &binding, IMAGES_PAGES, &err);
	images_check_binding(dir, &binding, &err);
}

static void try_notes(const uint8_t *data, size_t size)
{
	struct checkpoint_notes notes;

	put_file("paddock.img", data, size);
	if (checkpoint_read_notes(dir, &notes) == 0 &&
	    strnlen(notes.template_id, sizeof(notes.template_id)) == sizeof(notes.template_id))
		__builtin_trap();
}

static void try_image(const uint8_t *data, size_t size)
{
	static const uint8_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 6, 0, 0, 0, 0x30, 1, 0x40, 2, 0x50, 3};

	put_file("ids-1.img", ids, sizeof(ids));
	put_file("inventory.img", data, size);
	put_file("core-1.img", data, size);
	images_adapt(dir);
	put_file("ids-1.img", data, size);
	images_adapt(dir);
	unlinkat(dir, "core-1.img", 0);
	unlinkat(dir, "inventory.img", 0);
	unlinkat(dir, "ids-1.img", 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const tries[])(const uint8_t *data, size_t size) = {try_manifest, try_sealed, try_notes,
									  try_image};

	if (dir < 0) {
		if (!mkdtemp(folder) || (dir = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC)) < 0)
			__builtin_trap();
		memset(key, 7, sizeof(key));
		atexit(teardown);
	}
	if (size > 0 && size < 65536)
		tries[data[0] % ARRAY_SIZE(tries)](data + 1, size - 1);
	return 0;
}
