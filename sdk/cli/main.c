#include "cli.h"

#include "format.h"
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int unknown_command(const struct command *table, const char *parent, const char *name)
{
	const char *near = command_suggest(table, name);

	fputs("paddock: there is no command '", stderr);
	text_print(stderr, name);
	fputs("'\n", stderr);
	if (near)
		fprintf(stderr, "  did you mean `paddock %s%s%s`?\n", parent ? parent : "", parent ? " " : "", near);
	else
		fprintf(stderr, "  `paddock help%s%s` shows the commands\n", parent ? " " : "", parent ? parent : "");
	return EXIT_USAGE;
}

static int apply_globals(struct cli *cli, const struct args *args)
{
	const char *format = args_value(args, "output");
	const char *address = args_value(args, "addr");

	if (format && strcmp(format, "json") != 0 && strcmp(format, "text") != 0)
		return cli_usage(cli, "--output: text or json, not '%s'", format);
	if (format)
		cli->json = !strcmp(format, "json");
	if (address)
		cli->address = address;
	return 0;
}

/* run, exec, shell: whether it was Paddock that failed, or there is no such program. init writes the text. */
static int failure_of(const struct command *command, const struct pdk_error *err)
{
	size_t length = strlen(err->text);

	if (!command->error_status)
		return EXIT_ERROR;
	if (err->code != PDK_FAILED_PRECONDITION || strncmp(err->text, "cannot run ", 11) != 0)
		return command->error_status;
	return length > 11 && !strcmp(err->text + length - 11, ": not found") ? EXIT_NO_PROGRAM : EXIT_CANNOT_RUN;
}

static int run_command(struct cli *cli, const struct command *command, const char *parent, int argc, char **argv)
{
	struct args args;
	int rc = args_parse(&args, command, argc, argv, &cli->err);

	if (rc == 0 && args_has(&args, "help")) {
		help_command(command, parent, cli->color);
		args_clear(&args);
		return EXIT_OK;
	}
	if (rc < 0)
		rc = -EDOM;
	else
		rc = apply_globals(cli, &args);
	if (rc == 0)
		rc = command->run(cli, &args);
	args_clear(&args);
	if (rc >= 0)
		return rc;
	if (rc == -EDOM) {
		if (!*cli->hint)
			snprintf(cli->hint, sizeof(cli->hint), "usage: paddock %s%s%s %s", parent ? parent : "",
				 parent ? " " : "", command->name, command->synopsis);
	}
	cli_print_error(cli, &cli->err);
	return rc == -EDOM ? EXIT_USAGE : failure_of(command, &cli->err);
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
	const struct command *command = command_find(commands, argv[0]);
	const struct command *sub;

	if (!command)
		return unknown_command(commands, NULL, argv[0]);
	if (!command->subcommands)
		return run_command(cli, command, NULL, argc, argv);
	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		help_command(command, NULL, cli->color);
		return argc < 2 ? EXIT_USAGE : EXIT_OK;
	}
	sub = command_find(command->subcommands, argv[1]);
	if (!sub)
		return unknown_command(command->subcommands, command->name, argv[1]);
	return run_command(cli, sub, command->name, argc - 1, argv + 1);
}

static bool color_wanted(void)
{
	const char *none = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	return !(none && *none) && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
}

/* Options in front of the command: only those that every command takes. */
static int leading_options(struct cli *cli, int argc, char **argv)
{
	static const struct command top = {.name = "paddock", .leading = -1, .max_operands = -1};
	struct args args;
	int used = argc, rc = args_parse(&args, &top, argc, argv, &cli->err);

	if (rc == 0 && args_has(&args, "help"))
		used = 0;
	else if (rc == 0)
		rc = apply_globals(cli, &args);
	if (rc == 0 && used)
		used = argc - args.argc;
	args_clear(&args);
	if (rc < 0) {
		cli_print_error(cli, &cli->err);
		return -EINVAL;
	}
	return used;
}

/*
 * A standard descriptor that is closed would be taken by the first thing that is opened. Here it reads as empty and
 * refuses to be written, as a closed one does. Before the constructors of libraries: libgrpc's opens an eventfd.
 */
__attribute__((no_sanitize("address", "undefined"))) static void fill_standard_descriptors(void)
{
	long fd;

	do {
		fd = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY, 0);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		syscall(SYS_close, fd);
}

__attribute__((section(".preinit_array"),
	       used)) static void (*const before_libraries)(void) = fill_standard_descriptors;

int main(int argc, char **argv)
{
	struct cli cli = {0};
	int used, status;

	/* Chunks of a megabyte come and go; without this each is mapped, faulted in and unmapped again. */
	mallopt(M_MMAP_THRESHOLD, 16 << 20);
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	setlocale(LC_CTYPE, "");
	cli.color = color_wanted();
	if (argc == 2 && !strcmp(argv[1], "--version"))
		argv[1] = (char *)"version";
	used = leading_options(&cli, argc, argv);
	if (used < 0)
		return EXIT_USAGE;
	if (used == 0 || used >= argc) {
		help_overview(cli.color);
		return used == 0 ? EXIT_OK : EXIT_USAGE;
	}
	status = dispatch(&cli, argc - used, argv + used);
	paddock_close(cli.client);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "paddock: standard output: %s\n", strerror(errno));
		return status ? status : EXIT_ERROR;
	}
	return status;
}
