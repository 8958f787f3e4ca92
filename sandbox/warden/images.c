#include "images.h"

#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "chunks.h"
#include "criu.h"
#include "options.h"
#include "sandbox/archive/sha256.h"
#include "sandbox/base/buffer.h"
#include "sandbox/base/cleanup.h"

#define MANIFEST "manifest"
#define MANIFEST_MAX (4u << 20)
#define KEY_SIZE 32
#define FILES_MAX 65536

#define FOLLOW_MAX 64 /* those behind are read when they are sealed */

/* A file on its way into the manifest. Files of pages are digested in chunks. */
struct image {
	char name[256];
	int fd;
	uint64_t size; /* read so far */
	bool chunked;
	int failed; /* it cannot be digested any more */
	struct sha256 sha;
	struct chunks chunks;
};

struct images_follower {
	int dir;
	bool durable;
	unsigned int n;
	struct image image[FOLLOW_MAX]; /* number i holds pages-(i + 1).img */
};

static uint8_t key[KEY_SIZE];

static int key_read(int data)
{
	_cleanup_fd_ int fd = openat(data, "checkpoint.key", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || (st.st_mode & 077) || st.st_uid != 0)
		return -EPERM;
	return read(fd, key, sizeof(key)) == (ssize_t)sizeof(key) ? 0 : -EBADMSG;
}

static int key_make(int data)
{
	_cleanup_fd_ int fd =
		openat(data, "checkpoint.key.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return -errno;
	if (write(fd, key, sizeof(key)) != (ssize_t)sizeof(key) || fsync(fd) < 0 ||
	    renameat(data, "checkpoint.key.new", data, "checkpoint.key") < 0 || fsync(data) < 0)
		return -EIO;
	return 0;
}

int images_setup(struct pdk_error *err)
{
	_cleanup_fd_ int data = open(options.data_dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	int rc = data < 0 ? -errno : key_read(data);

	if (rc == -ENOENT)
		rc = key_make(data);
	return rc < 0 ? pdk_fail_errno(err, rc, "read or make the key of checkpoints") : 0;
}

static void hmac(const void *bytes, size_t length, uint8_t digest[SHA256_SIZE])
{
	uint8_t pad[64] = {0};
	struct sha256 sha;

	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] = (i < KEY_SIZE ? key[i] : 0) ^ 0x36;
	sha256_init(&sha);
	sha256_update(&sha, pad, sizeof(pad));
	sha256_update(&sha, bytes, length);
	sha256_finish(&sha, digest);
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36 ^ 0x5c;
	sha256_init(&sha);
	sha256_update(&sha, pad, sizeof(pad));
	sha256_update(&sha, digest, SHA256_SIZE);
	sha256_finish(&sha, digest);
}

/* What a program may have found out about the processor and go on to use. */
static void cpu_text(char text[160])
{
	static const unsigned int leaves[][2] = {{1, 0}, {7, 0}, {7, 1}, {0xd, 0}, {0x80000001u, 0}};
	size_t at = 0;

	for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		unsigned int a = 0, b = 0, c = 0, d = 0;

		__get_cpuid_count(leaves[i][0], leaves[i][1], &a, &b, &c, &d);
		if (leaves[i][0] == 1)
			b = 0; /* the number of the processor that this runs on */
		at += (size_t)snprintf(text + at, 160 - at, "%x.%x.%x.", b, leaves[i][0] == 1 ? c & ~(1u << 27) : c,
				       leaves[i][0] == 0xd ? 0 : d);
	}
}

/* Where the lines of files come from. */
struct source {
	struct images_follower *follower; /* what it has read need not be read again; or NULL */
	const char *
		sealed; /* a manifest to take the lines of all other parts from; NULL: there is none, or nothing else */
	enum images_part part;
	bool keep_sums; /* write the digests of chunks beside the pages */
};

static bool is_pages(const char *name)
{
	return strncmp(name, "pages-", 6) == 0;
}

/* "pages-1.img" -> "pages-1.sums". */
static void sums_name(const char *name, char sums[300])
{
	snprintf(sums, 300, "%.*s.sums", (int)strcspn(name, "."), name);
}

static int open_image(int dir, const char *name, struct image *image)
{
	image->fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (image->fd < 0)
		return -errno;
	snprintf(image->name, sizeof(image->name), "%s", name);
	image->size = 0;
	image->failed = 0;
	image->chunked = is_pages(name);
	if (image->chunked)
		chunks_begin(&image->chunks);
	else
		sha256_init(&image->sha);
	return 0;
}

/* What there is behind what was read. */
static int digest_image(struct image *image)
{
	static uint8_t chunk[1 << 18];
	ssize_t n = 0;

	while (image->failed == 0 && (n = read(image->fd, chunk, sizeof(chunk))) > 0) {
		if (image->chunked)
			image->failed = chunks_add(&image->chunks, chunk, (size_t)n);
		else
			sha256_update(&image->sha, chunk, (size_t)n);
		image->size += (uint64_t)n;
	}
	return image->failed < 0 ? image->failed : n < 0 ? -errno : 0;
}

static void close_image(struct image *image)
{
	if (image->fd < 0)
		return;
	close(image->fd);
	image->fd = -1;
	if (image->chunked)
		chunks_free(&image->chunks);
}

static int write_sums(int dir, const struct image *image)
{
	const struct buffer *digests = &image->chunks.digests;
	_cleanup_fd_ int fd = -1;
	char name[300];

	sums_name(image->name, name);
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	return write(fd, buffer_data(digests), buffer_length(digests)) == (ssize_t)buffer_length(digests) ? 0 : -EIO;
}

static int end_digest(int dir, struct image *image, bool keep_sums, uint8_t digest[SHA256_SIZE])
{
	int rc = digest_image(image);

	if (rc < 0)
		return rc;
	if (!image->chunked) {
		sha256_finish(&image->sha, digest);
		return 0;
	}
	rc = chunks_end(&image->chunks, digest);
	return rc == 0 && keep_sums ? write_sums(dir, image) : rc;
}

/* Its line of the manifest. Closes it. */
static int finish_image(int dir, struct image *image, bool keep_sums, struct buffer *text, uint64_t *bytes)
{
	uint8_t digest[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1], line[400];
	int n, rc = end_digest(dir, image, keep_sums, digest);

	close_image(image);
	if (rc < 0)
		return rc;
	sha256_hex(digest, hex);
	*bytes += image->size;
	n = snprintf(line, sizeof(line), "file %.255s %" PRIu64 " %s\n", image->name, image->size, hex);
	return buffer_append(text, line, (size_t)n);
}

struct images_follower *images_follower_create(int dir, bool durable)
{
	struct images_follower *follower = calloc(1, sizeof(*follower));

	if (!follower)
		return NULL;
	follower->dir = dir;
	follower->durable = durable;
	return follower;
}

void images_follower_free(struct images_follower *follower)
{
	for (unsigned int i = 0; follower && i < follower->n; i++)
		close_image(&follower->image[i]);
	free(follower);
}

static struct image *find_followed(struct images_follower *follower, const char *name)
{
	for (unsigned int i = 0; follower && i < follower->n; i++)
		if (strcmp(follower->image[i].name, name) == 0)
			return &follower->image[i];
	return NULL;
}

/* CRIU numbers them as it comes to them. */
static void find_more(struct images_follower *follower)
{
	char name[32];

	for (; follower->n < FOLLOW_MAX; follower->n++) {
		snprintf(name, sizeof(name), "pages-%u.img", follower->n + 1);
		if (open_image(follower->dir, name, &follower->image[follower->n]) < 0)
			return;
	}
}

void images_follow(struct images_follower *follower)
{
	find_more(follower);
	for (unsigned int i = 0; i < follower->n; i++) {
		struct image *image = &follower->image[i];
		uint64_t before = image->size;

		/* What cannot be read now cannot be when it is sealed, which says so. */
		if (digest_image(image) == 0 && follower->durable && image->size > before)
			sync_file_range(image->fd, (off_t)before, (off_t)(image->size - before), SYNC_FILE_RANGE_WRITE);
	}
}

static int is_image(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return length > 4 && strcmp(entry->d_name + length - 4, ".img") == 0;
}

static int describe_binding(const struct images_binding *binding, struct buffer *text)
{
	char head[700], cpu[160];
	struct utsname host;
	int n;

	uname(&host);
	cpu_text(cpu);
	n = snprintf(
		head, sizeof(head),
		"paddock checkpoint 2\nsandbox %s\ntemplate %s\ntoken %016" PRIx64 "\nkernel %s %s\ncriu %s\ncpu %s\n",
		binding->id, binding->template_id, binding->token, host.release, host.machine, criu_version(), cpu);
	return buffer_append(text, head, (size_t)n);
}

/* The line of a file in a manifest, as it stands there. */
static int copy_line(const char *manifest, const char *name, struct buffer *text)
{
	char start[280];
	const char *line;
	size_t n = (size_t)snprintf(start, sizeof(start), "\nfile %.255s ", name);

	line = strstr(manifest, start);
	n = line ? strcspn(line + 1, "\n") + 1 : 0;
	return line ? buffer_append(text, line + 1, n) : 0;
}

static int describe_file(int dir, const char *name, const struct source *source, struct buffer *text, uint64_t *bytes)
{
	struct image *followed = find_followed(source->follower, name), whole;
	int rc;

	if (source->sealed && !(source->part & (is_pages(name) ? IMAGES_PAGES : IMAGES_STRUCTURE)))
		return copy_line(source->sealed, name, text);
	if (followed)
		return finish_image(dir, followed, source->keep_sums, text, bytes);
	rc = open_image(dir, name, &whole);
	return rc < 0 ? rc : finish_image(dir, &whole, source->keep_sums, text, bytes);
}

/* Everything that the HMAC covers, computed from what is there now. */
static int describe(int dir, const struct images_binding *binding, const struct source *source, struct buffer *text,
		    uint64_t *bytes)
{
	struct dirent **entries = NULL;
	char path[32];
	int n, rc = describe_binding(binding, text);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
	n = rc < 0 ? 0 : scandir(path, &entries, is_image, alphasort);
	if (n < 0)
		return -errno;
	if (n > FILES_MAX)
		rc = -EFBIG;
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = describe_file(dir, entries[i]->d_name, source, text, bytes);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

int images_seal(int dir, struct images_follower *follower, const struct images_binding *binding, uint64_t *ret_bytes,
		struct pdk_error *err)
{
	const struct source source = {.follower = follower, .keep_sums = true};
	_cleanup_(buffer_free) struct buffer text = BUFFER(MANIFEST_MAX);
	_cleanup_fd_ int fd = -1;
	uint8_t digest[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1], line[100];
	uint64_t bytes = 0;
	int n, rc = describe(dir, binding, &source, &text, &bytes);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "digest the images");
	hmac(buffer_data(&text), buffer_length(&text), digest);
	sha256_hex(digest, hex);
	n = snprintf(line, sizeof(line), "hmac %s\n", hex);
	rc = buffer_append(&text, line, (size_t)n);
	fd = openat(dir, MANIFEST, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		rc = -errno;
	if (rc == 0 && write(fd, buffer_data(&text), buffer_length(&text)) != (ssize_t)buffer_length(&text))
		rc = -EIO;
	if (rc < 0)
		return pdk_fail_errno(err, rc, "write the manifest");
	*ret_bytes = bytes;
	return 0;
}

/* The manifest without its last line, when that is the right HMAC. */
static int read_manifest(int dir, char **ret_text)
{
	_cleanup_fd_ int fd = openat(dir, MANIFEST, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_free_ char *text = NULL;
	uint8_t digest[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1], *last;
	unsigned int differs = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0 || st.st_size > MANIFEST_MAX)
		return -EBADMSG;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	if (read(fd, text, (size_t)st.st_size) != st.st_size)
		return -EIO;
	text[st.st_size] = '\0';
	last = strstr(text, "\nhmac ");
	if (!last || strlen(text) != (size_t)st.st_size || strlen(last) != sizeof("\nhmac \n") - 1 + 2 * SHA256_SIZE)
		return -EBADMSG;
	last++;
	hmac(text, (size_t)(last - text), digest);
	sha256_hex(digest, hex);
	for (unsigned int i = 0; i < 2 * SHA256_SIZE; i++)
		differs |= (unsigned int)(hex[i] ^ last[sizeof("hmac ") - 1 + i]);
	if (differs)
		return -EBADMSG;
	*last = '\0';
	*ret_text = STEAL_PTR(text);
	return 0;
}

/* The first line in which two manifests differ says what is wrong. */
static int explain(const char *sealed, const char *found, struct pdk_error *err)
{
	static const char *const hosts[] = {"kernel ", "criu ", "cpu ", "paddock "};
	char name[64];

	while (*sealed && *sealed == *found) {
		const char *end = strchr(sealed, '\n'), *other = strchr(found, '\n');

		if (!end || !other || end - sealed != other - found ||
		    memcmp(sealed, found, (size_t)(end - sealed)) != 0)
			break;
		sealed = end + 1;
		found = other + 1;
	}
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
		if (strncmp(sealed, hosts[i], strlen(hosts[i])) == 0)
			return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION,
					"the checkpoint was made with another %.*s and cannot go on here",
					(int)strlen(hosts[i]) - 1, hosts[i]);
	if (sscanf(*sealed ? sealed : found, "file %63s", name) == 1)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the checkpoint is damaged: %s", name);
	return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the checkpoint is not this sandbox's, or not its newest");
}

int images_check_binding(int dir, const struct images_binding *binding, struct pdk_error *err)
{
	_cleanup_(buffer_free) struct buffer wanted = BUFFER(MANIFEST_MAX);
	_cleanup_free_ char *sealed = NULL;
	int rc = read_manifest(dir, &sealed);

	if (rc < 0)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the checkpoint is damaged: its manifest");
	rc = describe_binding(binding, &wanted);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "check the images");
	if (strncmp(sealed, (const char *)buffer_data(&wanted), buffer_length(&wanted)) == 0)
		return 0;
	rc = buffer_append(&wanted, "", 1);
	return rc < 0 ? pdk_fail_errno(err, rc, "check the images")
		      : explain(sealed, (const char *)buffer_data(&wanted), err);
}

int images_check(int dir, const struct images_binding *binding, enum images_part part, struct pdk_error *err)
{
	_cleanup_(buffer_free) struct buffer found = BUFFER(MANIFEST_MAX);
	_cleanup_free_ char *sealed = NULL;
	uint64_t bytes = 0;
	int rc = read_manifest(dir, &sealed);

	if (rc < 0)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the checkpoint is damaged: its manifest");
	rc = describe(dir, binding, &(struct source){.sealed = sealed, .part = part}, &found, &bytes);
	if (rc == 0)
		rc = buffer_append(&found, "", 1);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "check the images");
	if (strcmp(sealed, (const char *)buffer_data(&found)) == 0)
		return 0;
	return explain(sealed, (const char *)buffer_data(&found), err);
}

int images_open_pages(int dir, unsigned int number, struct chunk_file *ret)
{
	_cleanup_free_ char *sealed = NULL;
	char name[32], sums[300], start[64], hex[2 * SHA256_SIZE + 1];
	uint8_t root[SHA256_SIZE];
	const char *line;
	uint64_t size;
	int rc = read_manifest(dir, &sealed);

	if (rc < 0)
		return rc;
	snprintf(name, sizeof(name), "pages-%u.img", number);
	snprintf(start, sizeof(start), "\nfile %s ", name);
	line = strstr(sealed, start);
	if (!line || sscanf(line + strlen(start), "%" SCNu64 " %64[0-9a-f]", &size, hex) != 2 ||
	    strlen(hex) != 2 * SHA256_SIZE)
		return -EBADMSG;
	for (size_t i = 0; i < SHA256_SIZE; i++)
		if (sscanf(hex + 2 * i, "%2hhx", &root[i]) != 1)
			return -EBADMSG;
	sums_name(name, sums);
	return chunk_file_open(dir, name, sums, root, size, ret);
}
