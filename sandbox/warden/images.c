#include "images.h"

#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "criu.h"
#include "options.h"
#include "sandbox/archive/sha256.h"
#include "sandbox/base/buffer.h"
#include "sandbox/base/cleanup.h"

#define MANIFEST "manifest"
#define MANIFEST_MAX (4u << 20)
#define KEY_SIZE 32
#define FILES_MAX 65536

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

static int file_line(int dir, const char *name, struct buffer *text, uint64_t *bytes)
{
	static uint8_t chunk[1 << 17];
	_cleanup_fd_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t digest[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1], line[400];
	struct sha256 sha;
	uint64_t size = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	sha256_init(&sha);
	while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
		sha256_update(&sha, chunk, (size_t)n);
		size += (uint64_t)n;
	}
	if (n < 0)
		return -errno;
	sha256_finish(&sha, digest);
	sha256_hex(digest, hex);
	*bytes += size;
	n = snprintf(line, sizeof(line), "file %.255s %" PRIu64 " %s\n", name, size, hex);
	return buffer_append(text, line, (size_t)n);
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
		"paddock checkpoint 1\nsandbox %s\ntemplate %s\ntoken %016" PRIx64 "\nkernel %s %s\ncriu %s\ncpu %s\n",
		binding->id, binding->template_id, binding->token, host.release, host.machine, criu_version(), cpu);
	return buffer_append(text, head, (size_t)n);
}

/* Everything that the HMAC covers, computed from what is there now. */
static int describe(int dir, const struct images_binding *binding, struct buffer *text, uint64_t *bytes)
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
			rc = file_line(dir, entries[i]->d_name, text, bytes);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

int images_seal(int dir, const struct images_binding *binding, uint64_t *ret_bytes, struct pdk_error *err)
{
	_cleanup_(buffer_free) struct buffer text = BUFFER(MANIFEST_MAX);
	_cleanup_fd_ int fd = -1;
	uint8_t digest[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1], line[100];
	uint64_t bytes = 0;
	int n, rc = describe(dir, binding, &text, &bytes);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "digest the images");
	hmac(buffer_data(&text), buffer_length(&text), digest);
	sha256_hex(digest, hex);
	n = snprintf(line, sizeof(line), "hmac %s\n", hex);
	rc = buffer_append(&text, line, (size_t)n);
	fd = openat(dir, MANIFEST, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		rc = -errno;
	if (rc == 0 && (write(fd, buffer_data(&text), buffer_length(&text)) != (ssize_t)buffer_length(&text) ||
			syncfs(dir) < 0))
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
	static const char *const hosts[] = {"kernel ", "criu ", "cpu "};
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

int images_check(int dir, const struct images_binding *binding, struct pdk_error *err)
{
	_cleanup_(buffer_free) struct buffer found = BUFFER(MANIFEST_MAX);
	_cleanup_free_ char *sealed = NULL;
	uint64_t bytes = 0;
	int rc = read_manifest(dir, &sealed);

	if (rc < 0)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the checkpoint is damaged: its manifest");
	rc = describe(dir, binding, &found, &bytes);
	if (rc == 0)
		rc = buffer_append(&found, "", 1);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "check the images");
	if (strcmp(sealed, (const char *)buffer_data(&found)) == 0)
		return 0;
	return explain(sealed, (const char *)buffer_data(&found), err);
}
