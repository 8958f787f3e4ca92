#include "chunks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"

#define DIGESTS_MAX (64u << 20) /* of 128 GB */

void chunks_begin(struct chunks *chunks)
{
	sha256_init(&chunks->sha);
	chunks->filled = 0;
	chunks->digests = BUFFER(DIGESTS_MAX);
}

static int end_chunk(struct chunks *chunks)
{
	uint8_t digest[SHA256_SIZE];

	sha256_finish(&chunks->sha, digest);
	sha256_init(&chunks->sha);
	chunks->filled = 0;
	return buffer_append(&chunks->digests, digest, sizeof(digest));
}

int chunks_add(struct chunks *chunks, const uint8_t *bytes, size_t length)
{
	while (length > 0) {
		size_t n = CHUNK_BYTES - chunks->filled;
		int rc;

		if (n > length)
			n = length;
		sha256_update(&chunks->sha, bytes, n);
		chunks->filled += n;
		bytes += n;
		length -= n;
		rc = chunks->filled == CHUNK_BYTES ? end_chunk(chunks) : 0;
		if (rc < 0)
			return rc == -ENOBUFS ? -EFBIG : rc;
	}
	return 0;
}

static void digest_all(const uint8_t *digests, size_t length, uint8_t root[SHA256_SIZE])
{
	struct sha256 sha;

	sha256_init(&sha);
	sha256_update(&sha, digests, length);
	sha256_finish(&sha, root);
}

int chunks_end(struct chunks *chunks, uint8_t root[SHA256_SIZE])
{
	int rc = chunks->filled > 0 ? end_chunk(chunks) : 0;

	if (rc == 0)
		digest_all(buffer_data(&chunks->digests), buffer_length(&chunks->digests), root);
	return rc;
}

void chunks_free(struct chunks *chunks)
{
	buffer_free(&chunks->digests);
}

static int read_digests(int dir, const char *sums, size_t length, uint8_t **ret)
{
	_cleanup_fd_ int fd = openat(dir, sums, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_free_ uint8_t *digests = malloc(length + 1);

	if (fd < 0)
		return -EBADMSG;
	if (!digests)
		return -ENOMEM;
	/* One byte more is asked for: a longer file is another one. */
	if (read(fd, digests, length + 1) != (ssize_t)length)
		return -EBADMSG;
	*ret = STEAL_PTR(digests);
	return 0;
}

int chunk_file_open(int dir, const char *name, const char *sums, const uint8_t root[SHA256_SIZE], uint64_t size,
		    struct chunk_file *ret)
{
	_cleanup_free_ uint8_t *digests = NULL;
	size_t count = (size_t)((size + CHUNK_BYTES - 1) / CHUNK_BYTES);
	_cleanup_fd_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t found[SHA256_SIZE];
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != size || !S_ISREG(st.st_mode) || count > DIGESTS_MAX / SHA256_SIZE)
		return -EBADMSG;
	rc = read_digests(dir, sums, count * SHA256_SIZE, &digests);
	if (rc < 0)
		return rc;
	digest_all(digests, count * SHA256_SIZE, found);
	if (memcmp(found, root, SHA256_SIZE) != 0)
		return -EBADMSG;
	*ret = (struct chunk_file){.fd = STEAL_FD(fd), .size = size, .count = count, .digests = STEAL_PTR(digests)};
	return 0;
}

int chunk_file_read(const struct chunk_file *file, size_t number, uint8_t bytes[CHUNK_BYTES])
{
	uint64_t offset = (uint64_t)number * CHUNK_BYTES;
	uint8_t digest[SHA256_SIZE];
	struct sha256 sha;
	size_t length, at = 0;

	if (number >= file->count)
		return -EBADMSG;
	length = file->size - offset < CHUNK_BYTES ? (size_t)(file->size - offset) : CHUNK_BYTES;
	while (at < length) {
		ssize_t n = pread(file->fd, bytes + at, length - at, (off_t)(offset + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		at += (size_t)n;
	}
	sha256_init(&sha);
	sha256_update(&sha, bytes, length);
	sha256_finish(&sha, digest);
	return memcmp(digest, file->digests + number * SHA256_SIZE, SHA256_SIZE) == 0 ? (int)length : -EBADMSG;
}

void chunk_file_close(struct chunk_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file->digests);
	file->fd = -1;
	file->digests = NULL;
}
