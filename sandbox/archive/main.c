#include "sandbox/archive/archive.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define BYTES_DEFAULT (16ull << 30)
#define ENTRIES_DEFAULT 1000000ull
#define MEMORY_MAX (1ull << 30) /* address space: a decompressor's dictionary can be as large as it says */

static void print_line(char *text)
{
	for (char *at = text; *at; at++) {
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
	}
	fprintf(stderr, "%s\n", text);
}

int archive_fail(enum archive_exit code, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	print_line(text);
	return code;
}

int archive_fail_errno(int error, const char *fmt, ...)
{
	bool limit = error == ENOSPC || error == EDQUOT || error == EFBIG;
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return archive_fail(limit ? ARCHIVE_EXIT_LIMIT : ARCHIVE_EXIT_SYSTEM, "%.150s%s: %s", text,
			    strlen(text) > 150 ? "..." : "", strerror(error));
}

static int usage(void)
{
	return archive_fail(
		ARCHIVE_EXIT_SYSTEM,
		"usage: paddock-archive extract [--max-bytes N] [--max-entries N] [--owner keep|self] "
		"[--template] DIR | create [--exclude PATTERN]... [--compress gzip|zstd] PATH | digest DIR");
}

static bool parse_number(const char *text, uint64_t fallback, uint64_t *ret_value)
{
	char *end;

	errno = 0;
	*ret_value = strtoull(text, &end, 10);
	if (!*ret_value)
		*ret_value = fallback;
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno;
}

/* The value of an option that needs one, or NULL. */
static const char *value_of(const char *name, char **argv, int *at)
{
	if (strcmp(argv[*at], name) != 0 || !argv[*at + 1])
		return NULL;
	return argv[++*at];
}

static bool take_extract_option(struct extract_options *options, char **argv, int *at)
{
	const char *value;

	if (strcmp(argv[*at], "--template") == 0)
		return options->is_template = true;
	if ((value = value_of("--max-bytes", argv, at)))
		return parse_number(value, BYTES_DEFAULT, &options->max_bytes);
	if ((value = value_of("--max-entries", argv, at)))
		return parse_number(value, ENTRIES_DEFAULT, &options->max_entries);
	if ((value = value_of("--owner", argv, at))) {
		options->keep_owner = strcmp(value, "keep") == 0;
		return options->keep_owner || strcmp(value, "self") == 0;
	}
	return false;
}

static bool take_create_option(struct create_options *options, char **argv, int *at)
{
	const char *value;

	if ((value = value_of("--exclude", argv, at))) {
		if (options->n_excludes == CREATE_EXCLUDES_MAX)
			return false;
		options->excludes[options->n_excludes++] = value;
		return true;
	}
	if ((value = value_of("--compress", argv, at))) {
		options->compress = value;
		return strcmp(value, "gzip") == 0 || strcmp(value, "zstd") == 0;
	}
	return false;
}

int main(int argc, char **argv)
{
	struct extract_options extract = {.max_bytes = BYTES_DEFAULT, .max_entries = ENTRIES_DEFAULT};
	struct create_options create = {};
	bool is_extract = argc > 1 && strcmp(argv[1], "extract") == 0;
	bool is_create = argc > 1 && strcmp(argv[1], "create") == 0;
	int at = 2;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	setrlimit(RLIMIT_AS, &(struct rlimit){MEMORY_MAX, MEMORY_MAX});
	setlocale(LC_CTYPE, "C.UTF-8");
	umask(0);
	for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
		if (!argv[at][2]) {
			at++;
			break;
		}
		if (!(is_extract && take_extract_option(&extract, argv, &at)) &&
		    !(is_create && take_create_option(&create, argv, &at)))
			return usage();
	}
	if (at != argc - 1 || !argv[at][0])
		return usage();
	extract.keep_owner |= extract.is_template;
	extract.directory = create.path = argv[at];
	if (is_extract)
		return archive_extract(&extract);
	if (is_create)
		return archive_create(&create);
	return strcmp(argv[1], "digest") == 0 ? archive_digest(argv[at]) : usage();
}
