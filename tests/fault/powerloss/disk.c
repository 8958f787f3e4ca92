#include "disk.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512
#define FILES_MAX 256
#define NAMES_MAX 64
#define PENDING_MAX 65536
#define IMAGE_MAX (256u << 20)

/* One file that ever existed; inode numbers are used again, so a create makes a new one. */
struct file {
	uint64_t inode;
	uint8_t *data;
	size_t size;
};

struct write_pending {
	const struct event *event;
	unsigned int file;
	bool sure; /* made durable by O_DSYNC */
};

struct name {
	char path[256];
	int file; /* -1: a directory */
};

struct name_pending {
	const struct event *event;
	int file;
};

struct disk {
	struct file files[FILES_MAX];
	unsigned int files_used;
	struct write_pending writes[PENDING_MAX];
	size_t writes_used;
	struct name names[NAMES_MAX];
	unsigned int names_used;
	struct name_pending name_ops[PENDING_MAX];
	size_t name_ops_used;
};

static void die(const char *what)
{
	fprintf(stderr, "powerloss: %s: %s\n", what, strerror(errno));
	exit(2);
}

int recording_load(struct recording *recording, const char *path)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	size_t at = 0, length;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	length = (size_t)st.st_size;
	recording->bytes = malloc(length + 1);
	recording->events = calloc(length / sizeof(struct event) + 1, sizeof(recording->events[0]));
	recording->count = 0;
	if (!recording->bytes || !recording->events)
		return -ENOMEM;
	for (size_t done = 0; done < length;) {
		ssize_t got = read(fd, recording->bytes + done, length - done);

		if (got <= 0)
			return -EIO;
		done += (size_t)got;
	}
	while (at + sizeof(struct event) <= length) {
		const struct event *event = (const void *)(recording->bytes + at);

		recording->events[recording->count++] = event;
		at += sizeof(*event) + event->length + event_padding(event->length);
	}
	return at == length ? 0 : -EBADMSG;
}

/* ---- bytes ---- */

static unsigned int file_of(struct disk *disk, uint64_t inode)
{
	for (unsigned int i = disk->files_used; i-- > 0;)
		if (disk->files[i].inode == inode)
			return i;
	errno = ENOENT;
	die("a write to a file that was never made");
	return 0;
}

static unsigned int file_new(struct disk *disk, uint64_t inode)
{
	if (disk->files_used == FILES_MAX)
		die("too many files");
	disk->files[disk->files_used] = (struct file){.inode = inode};
	return disk->files_used++;
}

static void set_size(struct file *file, size_t size)
{
	if (size > IMAGE_MAX)
		die("a file is too large");
	if (size > file->size) {
		file->data = realloc(file->data, size);
		if (!file->data)
			die("memory");
		memset(file->data + file->size, 0, size - file->size);
	}
	file->size = size;
}

static void put_bytes(struct file *file, size_t offset, const uint8_t *bytes, size_t length)
{
	if (offset + length > file->size)
		set_size(file, offset + length);
	if (length)
		memcpy(file->data + offset, bytes, length);
}

/* What arrives of a write that was not synced. */
static void apply_partly(struct file *file, const struct event *event, enum disk_loss loss)
{
	if (loss == DISK_LOSES_ALL || (loss == DISK_LOSES_WRITES && rand() % 2))
		return;
	if (event->kind == EVENT_TRUNCATE) {
		set_size(file, event->offset);
		return;
	}
	if (loss != DISK_LOSES_SECTORS) {
		put_bytes(file, event->offset, event_bytes(event), event->length);
		return;
	}
	for (size_t at = 0, piece; at < event->length; at += piece) {
		piece = SECTOR - (event->offset + at) % SECTOR;
		if (piece > event->length - at)
			piece = event->length - at;
		if (rand() % 2)
			put_bytes(file, event->offset + at, event_bytes(event) + at, piece);
	}
}

static void sync_file(struct disk *disk, unsigned int file)
{
	size_t kept = 0;

	for (size_t i = 0; i < disk->writes_used; i++) {
		if (disk->writes[i].file == file)
			apply_partly(&disk->files[file], disk->writes[i].event, DISK_LOSES_NOTHING);
		else
			disk->writes[kept++] = disk->writes[i];
	}
	disk->writes_used = kept;
}

static void mark_sure(struct disk *disk, uint64_t id)
{
	for (size_t i = 0; i < disk->writes_used; i++)
		if (disk->writes[i].event->id == id)
			disk->writes[i].sure = true;
}

/* ---- names ---- */

static void text_of(const struct event *event, size_t from, char text[256])
{
	size_t length = event->length - from;

	if (length > 255)
		die("a path is too long");
	memcpy(text, event_bytes(event) + from, length);
	text[length] = '\0';
}

static bool is_below(const char *path, const char *dir)
{
	size_t length = strlen(dir);

	return !strncmp(path, dir, length) && (path[length] == '/' || !path[length]);
}

static void remove_names(struct disk *disk, const char *path)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < disk->names_used; i++)
		if (!is_below(disk->names[i].path, path))
			disk->names[kept++] = disk->names[i];
	disk->names_used = kept;
}

static void rename_names(struct disk *disk, const char *from, const char *to)
{
	remove_names(disk, to);
	for (unsigned int i = 0; i < disk->names_used; i++) {
		char path[600];

		if (!is_below(disk->names[i].path, from))
			continue;
		snprintf(path, sizeof(path), "%s%s", to, disk->names[i].path + strlen(from));
		memcpy(disk->names[i].path, path, sizeof(disk->names[i].path));
	}
}

static void apply_name(struct disk *disk, const struct name_pending *op)
{
	char path[256], to[256];

	text_of(op->event, 0, path);
	if (op->event->kind == EVENT_RENAME) {
		text_of(op->event, strlen(path) + 1, to);
		rename_names(disk, path, to);
	} else if (op->event->kind == EVENT_UNLINK) {
		remove_names(disk, path);
	} else {
		if (disk->names_used == NAMES_MAX)
			die("too many names");
		memcpy(disk->names[disk->names_used].path, path, sizeof(path));
		disk->names[disk->names_used++].file = op->file;
	}
}

static void apply_names(struct disk *disk, size_t count)
{
	for (size_t i = 0; i < count; i++)
		apply_name(disk, &disk->name_ops[i]);
	disk->name_ops_used -= count;
	memmove(disk->name_ops, disk->name_ops + count, disk->name_ops_used * sizeof(disk->name_ops[0]));
}

static bool is_in_dir(const struct event *event, size_t from, const char *dir)
{
	char path[256], *slash;

	text_of(event, from, path);
	slash = strrchr(path, '/');
	if (slash)
		*slash = '\0';
	return slash ? !strcmp(path, dir) : !*dir;
}

/* A journal is written in order: syncing a directory takes everything along that came before. */
static void sync_dir(struct disk *disk, const struct event *event)
{
	size_t count = 0;
	char dir[256];

	text_of(event, 0, dir);
	for (size_t i = 0; i < disk->name_ops_used; i++) {
		const struct event *op = disk->name_ops[i].event;

		if (is_in_dir(op, 0, dir) ||
		    (op->kind == EVENT_RENAME && is_in_dir(op, strlen((const char *)event_bytes(op)) + 1, dir)))
			count = i + 1;
	}
	apply_names(disk, count);
}

/* ---- replay ---- */

static void replay(struct disk *disk, const struct event *event, bool lies)
{
	switch ((enum event_kind)event->kind) {
	case EVENT_WRITE:
	case EVENT_TRUNCATE:
		if (disk->writes_used == PENDING_MAX)
			die("too many writes");
		disk->writes[disk->writes_used++] =
			(struct write_pending){.event = event, .file = file_of(disk, event->inode)};
		break;
	case EVENT_WRITTEN:
		if (!lies)
			mark_sure(disk, event->id);
		break;
	case EVENT_SYNC:
		if (!lies)
			sync_file(disk, file_of(disk, event->inode));
		break;
	case EVENT_SYNC_DIR:
		if (!lies)
			sync_dir(disk, event);
		break;
	case EVENT_CREATE:
	case EVENT_MKDIR:
	case EVENT_RENAME:
	case EVENT_UNLINK:
		disk->name_ops[disk->name_ops_used++] = (struct name_pending){
			event, event->kind == EVENT_CREATE ? (int)file_new(disk, event->inode) : -1};
		break;
	case EVENT_ACK:
		break;
	}
}

static void cut_power(struct disk *disk, enum disk_loss loss)
{
	size_t names = disk->name_ops_used;

	for (size_t i = 0; i < disk->writes_used; i++) {
		const struct write_pending *pending = &disk->writes[i];

		apply_partly(&disk->files[pending->file], pending->event, pending->sure ? DISK_LOSES_NOTHING : loss);
	}
	if (loss == DISK_LOSES_ALL)
		names = 0;
	else if (loss != DISK_LOSES_NOTHING)
		names = (size_t)rand() % (names + 1);
	apply_names(disk, names);
}

static void write_image(const struct disk *disk, const char *dir)
{
	_cleanup_fd_ int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir_fd < 0)
		die(dir);
	/* a directory's name was made before those in it */
	for (unsigned int i = 0; i < disk->names_used; i++) {
		const struct name *name = &disk->names[i];
		_cleanup_fd_ int fd = -1;

		if (name->file < 0) {
			if (mkdirat(dir_fd, name->path, 0700) < 0)
				die(name->path);
			continue;
		}
		fd = openat(dir_fd, name->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			die(name->path);
		for (size_t at = 0; at < disk->files[name->file].size;) {
			ssize_t done = write(fd, disk->files[name->file].data + at, disk->files[name->file].size - at);

			if (done <= 0)
				die(name->path);
			at += (size_t)done;
		}
	}
}

void disk_rebuild(const struct recording *recording, size_t cut, enum disk_loss loss, bool lies, const char *dir)
{
	static struct disk disk;

	memset(&disk, 0, sizeof(disk));
	for (size_t i = 0; i < cut; i++)
		replay(&disk, recording->events[i], lies);
	cut_power(&disk, loss);
	write_image(&disk, dir);
	for (unsigned int i = 0; i < disk.files_used; i++)
		free(disk.files[i].data);
}
