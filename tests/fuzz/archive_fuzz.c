/*
 * paddock-archive's extraction and digest of a hostile tar. The first byte chooses the options; the rest is the
 * archive, which comes by descriptor 0. After each input nothing may stand beside the target directory.
 */
#include "sandbox/archive/archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[] = "/dev/shm/archive-fuzz-XXXXXX";
static int input = -1;

/* Instead of main.c's: nothing is printed, but the text is made. */
int archive_fail(enum archive_exit code, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return code;
}

int archive_fail_errno(int error, const char *fmt, ...)
{
	return ARCHIVE_EXIT_SYSTEM;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return ftw->level ? remove(path) : 0;
}

static void teardown(void)
{
	nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(base);
}

static void setup(void)
{
	if (!mkdtemp(base) || chdir(base) < 0)
		__builtin_trap();
	atexit(teardown);
	input = memfd_create("archive", 0);
	if (input < 0 || dup2(input, STDIN_FILENO) < 0 || !freopen("/dev/null", "w", stdout))
		__builtin_trap();
	umask(0);
}

static unsigned int entries_of(const char *path)
{
	DIR *dir = opendir(path);
	unsigned int count = 0;

	if (!dir)
		__builtin_trap();
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct extract_options options = {.max_bytes = 1 << 20, .max_entries = 64, .directory = "target"};

	if (size < 1)
		return 0;
	if (input < 0)
		setup();
	options.is_template = data[0] & 1;
	options.keep_owner = data[0] & 2;
	if (mkdir("target", 0755) < 0 || ftruncate(input, 0) < 0 ||
	    pwrite(input, data + 1, size - 1, 0) != (ssize_t)(size - 1) || lseek(STDIN_FILENO, 0, SEEK_SET) < 0)
		__builtin_trap();
	if (archive_extract(&options) == ARCHIVE_EXIT_OK)
		archive_digest("target");
	if (entries_of(".") != 3) /* ".", ".." and the target */
		__builtin_trap();
	nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
