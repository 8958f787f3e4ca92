#include "output.h"

#include "sandbox/base/cleanup.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

/*
 * Theory of operation
 *
 * A file has a header and two areas of records, each a 16-byte header and its bytes. The head area is
 * written once; the tail area is a ring, whose positions count up for ever and are taken modulo its size. Bytes
 * go to the head until it has head_bytes, then to the ring; the ring forgets whole records from its front
 * when it needs room. Its size is tail_bytes and slack for one more record, so at least tail_bytes stay, if
 * records are not tiny; pieces of one stream that follow each other are joined into one record, which makes
 * them large. The last record's header is kept in the file's header while it may grow.
 *
 * The file is written with pwrite(), not through a mapping: the page cache outlives a kill -9 of the
 * daemon just as well, and a full disk is an error here and not a SIGBUS. Order: what the ring will overwrite is first
 * taken out of the header, then come the bytes, then the header that names them. So the header never points at bytes
 * that are not there, and what was not yet named is unknown to everybody. After a crash of the host the file may be
 * torn: every number in it is checked when it is used.
 */

#define MAGIC 0x31302d74756f6b64ull /* "dkout-01" */
#define HEADER_SIZE 192u
#define RECORD_HEADER 16u
#define RECORD_MAX OUTPUT_PIECE_MAX
#define SLACK (2 * (RECORD_MAX + RECORD_HEADER))
#define PATH_SIZE 384

enum { AREA_HEAD, AREA_TAIL, AREA_COUNT };

/* Positions count from the first byte ever put into the area. */
struct area {
	uint64_t start;      /* first record kept */
	uint64_t end;        /* behind the last */
	uint64_t first_byte; /* sequence of the first byte kept */
	uint64_t last_byte;  /* sequence behind the last byte kept */
	uint64_t open;       /* position of the last record, which may still grow */
	uint64_t size;       /* constant */
};

struct record {
	uint64_t sequence;
	uint32_t length;
	uint32_t stream;
};
_Static_assert(sizeof(struct record) == RECORD_HEADER, "the record header has no holes");

struct file_header {
	uint64_t magic;
	uint64_t total;
	struct area areas[AREA_COUNT];
	struct record open; /* the last record, which may still grow: its own header is written when it is done */
};
_Static_assert(sizeof(struct file_header) <= HEADER_SIZE, "the header fits its place");

struct output {
	struct file_header header;
	uint64_t head_bytes;
	int fd;
	bool exists; /* the file was made */
	bool broken; /* it could not be written: nothing more is kept */
	char path[PATH_SIZE];
	size_t dir_length; /* of path: DIR/output/<sandbox> */
};

struct output *output_create(const char *dir, const char *sandbox_id, uint64_t process_id, uint64_t head_bytes,
			     uint64_t tail_bytes)
{
	struct output *output = calloc(1, sizeof(*output));
	int n;

	if (!output)
		return NULL;
	n = snprintf(output->path, sizeof(output->path), "%s/output/%s", dir, sandbox_id);
	output->dir_length = (size_t)n;
	snprintf(output->path + n, sizeof(output->path) - (size_t)n, "/%" PRIu64, process_id);
	output->fd = -1;
	output->head_bytes = head_bytes;
	output->header.magic = MAGIC;
	output->header.areas[AREA_HEAD].size = head_bytes + SLACK;
	output->header.areas[AREA_TAIL].size = tail_bytes + SLACK;
	return output;
}

void output_rest(struct output *output)
{
	if (output && output->fd >= 0)
		close(STEAL_FD(output->fd));
}

void output_free(struct output *output)
{
	output_rest(output);
	free(output);
}

static int make_dirs(struct output *output)
{
	char dir[PATH_SIZE];
	char *slash;
	int rc;

	memcpy(dir, output->path, output->dir_length);
	dir[output->dir_length] = '\0';
	rc = mkdir(dir, 0700) < 0 ? -errno : 0;
	if (rc != -ENOENT)
		return rc == -EEXIST ? 0 : rc;
	slash = strrchr(dir, '/');
	*slash = '\0';
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	*slash = '/';
	return mkdir(dir, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int output_open(struct output *output, bool make)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
	int rc;

	if (output->fd >= 0)
		return 0;
	output->fd = open(output->path, flags | (make && !output->exists ? O_CREAT | O_EXCL : 0), 0600);
	if (output->fd < 0 && errno == ENOENT && make && !output->exists) {
		rc = make_dirs(output);
		if (rc < 0)
			return rc;
		output->fd = open(output->path, flags | O_CREAT | O_EXCL, 0600);
	}
	if (output->fd < 0)
		return -errno;
	output->exists = true;
	return 0;
}

/* Where a position of an area lies in the file, and how many bytes follow there without a wrap. */
static off_t area_offset(const struct output *output, unsigned int which, uint64_t position, size_t *ret_room)
{
	const struct area *area = &output->header.areas[which];
	uint64_t base = HEADER_SIZE + (which == AREA_TAIL ? output->header.areas[AREA_HEAD].size : 0);
	uint64_t in_area = position % area->size;

	*ret_room = (size_t)(area->size - in_area);
	return (off_t)(base + in_area);
}

static int write_all(int fd, const void *data, size_t length, off_t offset)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, data, length, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		data = (const uint8_t *)data + n;
		length -= (size_t)n;
		offset += n;
	}
	return 0;
}

static int area_write(struct output *output, unsigned int which, uint64_t position, const void *data, size_t length)
{
	size_t room;
	off_t offset = area_offset(output, which, position, &room);
	size_t first = length < room ? length : room;
	int rc = write_all(output->fd, data, first, offset);

	if (rc == 0 && first < length) {
		offset = area_offset(output, which, position + first, &room);
		rc = write_all(output->fd, (const uint8_t *)data + first, length - first, offset);
	}
	return rc;
}

static int read_all(int fd, void *data, size_t length, off_t offset)
{
	while (length > 0) {
		ssize_t n = pread(fd, data, length, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		data = (uint8_t *)data + n;
		length -= (size_t)n;
		offset += n;
	}
	return 0;
}

static int area_read(const struct output *output, unsigned int which, uint64_t position, void *data, size_t length)
{
	size_t room;
	off_t offset = area_offset(output, which, position, &room);
	size_t first = length < room ? length : room;
	int rc = read_all(output->fd, data, first, offset);

	if (rc == 0 && first < length) {
		offset = area_offset(output, which, position + first, &room);
		rc = read_all(output->fd, (uint8_t *)data + first, length - first, offset);
	}
	return rc;
}

static int write_header(struct output *output)
{
	return write_all(output->fd, &output->header, sizeof(output->header), 0);
}

static unsigned int area_of_open(const struct output *output)
{
	return output->header.areas[AREA_TAIL].end > 0 ? AREA_TAIL : AREA_HEAD;
}

/* A record header is only used after this. */
static int read_record(const struct output *output, unsigned int which, uint64_t position, struct record *ret)
{
	const struct area *area = &output->header.areas[which];
	int rc;

	if (position + RECORD_HEADER > area->end)
		return -EBADMSG;
	rc = 0;
	if (output->header.open.length && which == area_of_open(output) && position == area->open)
		*ret = output->header.open;
	else
		rc = area_read(output, which, position, ret, sizeof(*ret));
	if (rc < 0)
		return rc;
	if (ret->length == 0 || ret->length > RECORD_MAX || ret->length > area->end - position - RECORD_HEADER)
		return -EBADMSG;
	if (ret->sequence < area->first_byte || ret->sequence + ret->length > area->last_byte)
		return -EBADMSG;
	return 0;
}

/* Forget records at the front of the ring until `need` bytes fit behind its end. */
static int ring_make_room(struct output *output, size_t need)
{
	struct area *ring = &output->header.areas[AREA_TAIL];
	struct record record;
	bool changed = false;
	int rc;

	while (ring->end + need - ring->start > ring->size) {
		rc = read_record(output, AREA_TAIL, ring->start, &record);
		if (rc < 0)
			return rc;
		ring->start += RECORD_HEADER + record.length;
		ring->first_byte = record.sequence + record.length;
		changed = true;
	}
	return changed ? write_header(output) : 0;
}

static unsigned int area_in_use(const struct output *output)
{
	const struct area *head = &output->header.areas[AREA_HEAD];

	if (output->header.areas[AREA_TAIL].end > 0 || head->last_byte >= output->head_bytes ||
	    head->end + RECORD_HEADER >= head->size)
		return AREA_TAIL;
	return AREA_HEAD;
}

/* How much of `length` goes into one step: the rest of the open record, or a new one. */
static size_t step_length(const struct output *output, unsigned int which, bool extend, size_t length)
{
	const struct area *head = &output->header.areas[AREA_HEAD];
	size_t max = extend ? RECORD_MAX - output->header.open.length : RECORD_MAX;
	uint64_t room;

	if (which == AREA_HEAD) {
		room = head->size - head->end - (extend ? 0 : RECORD_HEADER);
		if (room > output->head_bytes - head->last_byte)
			room = output->head_bytes - head->last_byte;
		max = max < room ? max : (size_t)room;
	}
	return length < max ? length : max;
}

/* The open record will not grow any more: its header goes to its place. */
static int close_record(struct output *output)
{
	unsigned int which = area_of_open(output);

	if (output->header.open.length == 0)
		return 0;
	return area_write(output, which, output->header.areas[which].open, &output->header.open, RECORD_HEADER);
}

static int open_record(struct output *output, unsigned int which, unsigned int stream)
{
	struct area *area = &output->header.areas[which];
	int rc = close_record(output);

	if (rc < 0)
		return rc;
	output->header.open = (struct record){.sequence = output->header.total, .stream = stream};
	area->open = area->end;
	if (area->start == area->end)
		area->first_byte = output->header.total;
	area->end += RECORD_HEADER;
	return 0;
}

/* Put one piece into an area. Returns how many bytes it took. */
static ssize_t append_step(struct output *output, unsigned int stream, const uint8_t *data, size_t length)
{
	unsigned int which = area_in_use(output);
	struct area *area = &output->header.areas[which];
	struct record *open = &output->header.open;
	bool extend = which == area_of_open(output) && open->length > 0 && open->length < RECORD_MAX &&
		      open->stream == stream && area->end > area->start;
	size_t step = step_length(output, which, extend, length);
	int rc = 0;

	/* Room for a whole record at a time, so that the front of the ring does not move with every small piece. */
	if (which == AREA_TAIL)
		rc = ring_make_room(output, step + RECORD_HEADER + (extend ? 0 : RECORD_MAX - step));
	if (rc == 0 && !extend)
		rc = open_record(output, which, stream);
	if (rc == 0)
		rc = area_write(output, which, area->end, data, step);
	if (rc < 0)
		return rc;
	open->length += (uint32_t)step;
	area->end += step;
	output->header.total += step;
	area->last_byte = output->header.total;
	return (ssize_t)step;
}

/* Keep nothing more: go back to what was whole, but for what the ring has given up, which may be overwritten. */
static void output_break(struct output *output, const struct file_header *before)
{
	struct area now = output->header.areas[AREA_TAIL];
	struct area *tail = &output->header.areas[AREA_TAIL];

	output->broken = true;
	output->header = *before;
	if (now.start == tail->start)
		return;
	tail->start = now.start;
	tail->first_byte = now.start < tail->end ? now.first_byte : tail->last_byte;
}

void output_append(struct output *output, unsigned int stream, const void *data, size_t length)
{
	struct file_header before = output->header;
	uint64_t total = output->header.total + length;
	const uint8_t *bytes = data;
	int rc = output->broken ? -EIO : output_open(output, true);

	while (rc == 0 && length > 0) {
		ssize_t n = append_step(output, stream, bytes, length);

		if (n < 0) {
			rc = (int)n;
			break;
		}
		bytes += n;
		length -= (size_t)n;
		before = output->header;
	}
	if (rc == 0)
		rc = write_header(output);
	if (rc < 0)
		output_break(output, &before);
	output->header.total = total;
}

void output_stop(struct output *output)
{
	output->broken = true;
}

uint64_t output_total(const struct output *output)
{
	return output->header.total;
}

uint64_t output_dropped(const struct output *output)
{
	const struct area *head = &output->header.areas[AREA_HEAD];
	const struct area *tail = &output->header.areas[AREA_TAIL];

	return output->header.total - (head->last_byte - head->first_byte) - (tail->last_byte - tail->first_byte);
}

void output_set_total(struct output *output, uint64_t total)
{
	if (total > output->header.total)
		output->header.total = total;
}

static bool area_plausible(const struct area *area, uint64_t total)
{
	return area->start <= area->end && area->end - area->start <= area->size && area->size >= SLACK &&
	       area->size <= (1ull << 40) && area->first_byte <= area->last_byte && area->last_byte <= total &&
	       area->open <= area->end;
}

int output_load(struct output *output)
{
	struct file_header header;
	int rc = output_open(output, false);
	unsigned int which;

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	rc = read_all(output->fd, &header, sizeof(header), 0);
	if (rc < 0 || header.magic != MAGIC || !area_plausible(&header.areas[AREA_HEAD], header.total) ||
	    !area_plausible(&header.areas[AREA_TAIL], header.total) || header.areas[AREA_HEAD].start != 0) {
		output->broken = true;
		return 0;
	}
	output->header = header;
	which = header.areas[AREA_TAIL].end > 0 ? AREA_TAIL : AREA_HEAD;
	/* The kept sizes are those of the file; how much of the head is data stays as it was configured. */
	if (output->head_bytes > header.areas[AREA_HEAD].size - SLACK)
		output->head_bytes = header.areas[AREA_HEAD].size - SLACK;
	if (header.open.length > RECORD_MAX ||
	    header.open.sequence + header.open.length != header.areas[which].last_byte ||
	    header.areas[which].open + RECORD_HEADER + header.open.length != header.areas[which].end)
		output->header.open = (struct record){};
	return 0;
}

/* Reading */

/* Find the record that holds cursor->sequence: walk from the start of the area. */
static int cursor_place(struct output *output, struct output_cursor *cursor)
{
	const struct area *area = &output->header.areas[cursor->area];
	uint64_t position = area->start;
	struct record record;
	int rc;

	for (;;) {
		rc = read_record(output, cursor->area, position, &record);
		if (rc < 0)
			return rc;
		if (cursor->sequence < record.sequence + record.length)
			break;
		position += RECORD_HEADER + record.length;
	}
	cursor->position = position;
	cursor->placed = true;
	return 0;
}

static int read_piece(struct output *output, struct output_cursor *cursor, uint8_t *data, struct output_piece *ret)
{
	struct record record;
	uint64_t skip;
	int rc = 0;

	if (!cursor->placed)
		rc = cursor_place(output, cursor);
	if (rc == 0)
		rc = read_record(output, cursor->area, cursor->position, &record);
	if (rc < 0)
		return rc;
	if (cursor->sequence < record.sequence || cursor->sequence >= record.sequence + record.length)
		return -EBADMSG;
	skip = cursor->sequence - record.sequence;
	ret->sequence = cursor->sequence;
	ret->dropped = 0;
	ret->stream = record.stream;
	ret->length = (size_t)(record.length - skip);
	rc = area_read(output, cursor->area, cursor->position + RECORD_HEADER + skip, data, ret->length);
	if (rc < 0)
		return rc;
	cursor->sequence += ret->length;
	cursor->position += RECORD_HEADER + record.length;
	return 1;
}

static int read_gap(struct output_cursor *cursor, uint64_t end, struct output_piece *ret)
{
	*ret = (struct output_piece){.sequence = cursor->sequence, .dropped = end - cursor->sequence};
	cursor->sequence = end;
	cursor->placed = false;
	return 1;
}

int output_read(struct output *output, struct output_cursor *cursor, uint8_t *data, struct output_piece *ret)
{
	const struct area *head = &output->header.areas[AREA_HEAD];
	const struct area *tail = &output->header.areas[AREA_TAIL];
	unsigned int area = cursor->sequence < head->last_byte ? AREA_HEAD : AREA_TAIL;
	bool kept = area == AREA_HEAD || (cursor->sequence >= tail->first_byte && cursor->sequence < tail->last_byte);
	int rc;

	if (cursor->sequence >= output->header.total)
		return 0;
	/* A copy of a sandbox starts with the numbers of its source, not at 0. */
	if (area == AREA_HEAD && cursor->sequence < head->first_byte)
		return read_gap(cursor, head->first_byte, ret);
	if (!kept && cursor->sequence < tail->first_byte)
		return read_gap(cursor, tail->first_byte, ret);
	if (!kept)
		return read_gap(cursor, output->header.total, ret);
	if (area != cursor->area)
		cursor->placed = false;
	cursor->area = area;
	rc = output_open(output, false);
	if (rc == 0)
		rc = read_piece(output, cursor, data, ret);
	if (rc >= 0)
		return rc;
	/* The file was damaged or removed: say that the bytes are missing. */
	return read_gap(cursor, area == AREA_HEAD ? head->last_byte : tail->last_byte, ret);
}

/* Removal */

void output_remove(const char *dir, const char *sandbox_id, uint64_t process_id)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof(path), "%s/output/%s/%" PRIu64, dir, sandbox_id, process_id);
	unlink(path);
}

void output_remove_sandbox(const char *dir, const char *sandbox_id)
{
	char path[PATH_SIZE];
	struct dirent *entry;
	DIR *files;

	snprintf(path, sizeof(path), "%s/output/%s", dir, sandbox_id);
	files = opendir(path);
	if (!files)
		return;
	while ((entry = readdir(files))) {
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(files), entry->d_name, 0);
	}
	closedir(files);
	rmdir(path);
}
