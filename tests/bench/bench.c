#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"

/*
 * Paddock against what the same machine does without it, in one run:
 *
 *	paddock-bench [--rounds N] [--live N] [--only PART] [--crun-bundle DIR] [--crun-container NAME] [--curve FILE]
 *		[--paddockd PID] [--warden PID] [--criu PROGRAM-OR-DIR --work DIR] [--runc NAME]
 */

char *const bench_true_argv[] = {(char *)"/bin/true", NULL};

void bench_row(const char *what, double ours, double theirs, const char *unit, const char *aim)
{
	int digits = ours >= 100 || theirs >= 100 ? 0 : 2;

	printf("| %s | %.*f %s | %.*f %s | %.2f | %s |\n", what, digits, ours, unit, digits, theirs, unit,
	       theirs > 0 ? ours / theirs : 0, aim);
	fflush(stdout);
}

static void parse(int argc, char **argv, struct bench_options *options)
{
	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--rounds"))
			options->rounds = atoi(value);
		else if (!strcmp(argv[i], "--live"))
			options->live = atoi(value);
		else if (!strcmp(argv[i], "--only"))
			options->only = value;
		else if (!strcmp(argv[i], "--crun-bundle"))
			options->bundle = value;
		else if (!strcmp(argv[i], "--crun-container"))
			options->running = value;
		else if (!strcmp(argv[i], "--criu"))
			options->criu = value;
		else if (!strcmp(argv[i], "--work"))
			options->work = value;
		else if (!strcmp(argv[i], "--runc"))
			options->runc = value;
		else if (!strcmp(argv[i], "--curve"))
			options->curve = value;
		else if (!strcmp(argv[i], "--paddockd"))
			options->paddockd = atoi(value);
		else if (!strcmp(argv[i], "--warden"))
			options->warden = atoi(value);
		else {
			fprintf(stderr, "bench: unknown option %s\n", argv[i]);
			exit(2);
		}
	}
	if (options->rounds < 1) {
		fprintf(stderr, "bench: --rounds needs a number\n");
		exit(2);
	}
}

static bool wanted(const struct bench_options *options, const char *part)
{
	return !options->only || !strcmp(options->only, part);
}

int main(int argc, char **argv)
{
	struct bench_options options = {.rounds = 200};
	struct paddock_client *client;

	parse(argc, argv, &options);
	client = bench_connect();
	printf("| what | Paddock | the other | ratio | aim |\n|---|--:|--:|--:|---|\n");
	if (wanted(&options, "lives"))
		bench_lives(client, &options);
	if (wanted(&options, "commands"))
		bench_commands(client, &options);
	if (wanted(&options, "streams"))
		bench_streams(client, &options);
	bench_checkpoints(client, &options);
	if (options.only && wanted(&options, "lazy"))
		bench_lazy(client);
	if (options.live >= 8 && wanted(&options, "many"))
		bench_many(client, &options);
	paddock_close(client);
	return 0;
}
