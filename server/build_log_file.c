#include "build_log.h"

#include "config.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/id.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Logs on disk: a file for each build, named by its id. An entry is its length, as four bytes from the least significant
 * on, and a packed TemplateBuildLog. Nothing is synced: a log tells people what happened, and a power cut may shorten it. */

#define FOLDER "build-logs"
#define LENGTH_SIZE 4
#define ENTRY_MAX 16384u     /* packed */
#define FILE_MAX (8ll << 20) /* of what is read: more than the bounds of a log can become */

static int folder = -1;

int build_log_files_start(bool (*is_known)(const char *id), struct pdk_error *err)
{
	_cleanup_fd_ int data = open(server_config.data_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *dir;
	int fd;

	if (data < 0 || (mkdirat(data, FOLDER, 0700) < 0 && errno != EEXIST))
		return pdk_fail_errno(err, -errno, "making the folder of build logs");
	folder = openat(data, FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	fd = folder < 0 ? -1 : openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int rc = -errno;

		if (fd >= 0)
			close(fd);
		return pdk_fail_errno(err, rc, "opening the folder of build logs");
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && !is_known(entry->d_name))
			unlinkat(folder, entry->d_name, 0);
	closedir(dir);
	return 0;
}

void build_log_files_stop(void)
{
	if (folder >= 0)
		close(STEAL_FD(folder));
}

uint8_t *build_log_file_pack(const Paddock__V1__TemplateBuildLog *entry, size_t *ret_length)
{
	size_t length = paddock__v1__template_build_log__get_packed_size(entry);
	uint8_t *bytes = malloc(LENGTH_SIZE + length);

	if (!bytes)
		return NULL;
	for (unsigned int i = 0; i < LENGTH_SIZE; i++)
		bytes[i] = (uint8_t)(length >> (8 * i));
	paddock__v1__template_build_log__pack(entry, bytes + LENGTH_SIZE);
	*ret_length = LENGTH_SIZE + length;
	return bytes;
}

int build_log_file_append(const char *id, const uint8_t *bytes, size_t length)
{
	_cleanup_fd_ int fd = openat(folder, id, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	while (length) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

void build_log_file_remove(const char *id)
{
	unlinkat(folder, id, 0);
}

/* All of it, allocated; a file that is not there is empty. */
static int read_whole(const char *id, uint8_t **ret, size_t *ret_length)
{
	_cleanup_fd_ int fd = openat(folder, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t length = 0, size;
	struct stat st;

	*ret = NULL;
	*ret_length = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return -EBADMSG;
	size = (size_t)st.st_size;
	bytes = malloc(size + 1);
	if (!bytes)
		return -ENOMEM;
	while (length < size) {
		ssize_t n = read(fd, bytes + length, size - length);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
		length += n > 0 ? (size_t)n : 0;
	}
	*ret = STEAL_PTR(bytes);
	*ret_length = length;
	return 0;
}

static size_t get_length(const uint8_t *at)
{
	return at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

static int take_entry(struct build_log_page *page, uint64_t offset, const uint8_t *bytes, size_t length, bool is_last)
{
	Paddock__V1__TemplateBuildLog *entry;

	page->total++;
	if (!is_last && (page->total <= offset || page->n == BUILD_LOG_PAGE))
		return 0;
	entry = paddock__v1__template_build_log__unpack(NULL, length, bytes);
	if (!entry)
		return -EBADMSG;
	if (is_last)
		snprintf(page->last_step, sizeof(page->last_step), "%s", entry->step);
	if (page->total > offset && page->n < BUILD_LOG_PAGE)
		page->entries[page->n++] = entry;
	else
		paddock__v1__template_build_log__free_unpacked(entry, NULL);
	return 0;
}

int build_log_file_read(const char *id, uint64_t offset, struct build_log_page *page)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t length = 0, at = 0;
	int rc = read_whole(id, &bytes, &length);

	*page = (struct build_log_page){};
	while (rc >= 0 && length - at > LENGTH_SIZE) {
		size_t size = get_length(bytes + at), next;

		if (size > ENTRY_MAX || size > length - at - LENGTH_SIZE)
			break;
		next = at + LENGTH_SIZE + size;
		rc = take_entry(page, offset, bytes + at + LENGTH_SIZE, size,
				length - next <= LENGTH_SIZE || get_length(bytes + next) > length - next - LENGTH_SIZE);
		at = next;
	}
	if (rc < 0)
		build_log_page_clear(page);
	return rc;
}

void build_log_page_clear(struct build_log_page *page)
{
	for (size_t i = 0; i < page->n; i++)
		paddock__v1__template_build_log__free_unpacked(page->entries[i], NULL);
	*page = (struct build_log_page){};
}
