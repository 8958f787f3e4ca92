#include "progress.h"

#include "format.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FIRST_AFTER_MS 1000
#define EVERY_MS 100
#define BAR_WIDTH 30

static int64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void progress_start(struct progress *progress, const char *what, uint64_t total)
{
	*progress = (struct progress){.what = what, .total = total, .enabled = isatty(STDERR_FILENO)};
	progress->started_ms = monotonic_ms();
}

static void print_bar(const struct progress *progress, uint64_t done)
{
	uint64_t part = done < progress->total ? done : progress->total;
	int filled = (int)((double)part * BAR_WIDTH / (double)progress->total);
	char bar[BAR_WIDTH + 1];

	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', (size_t)filled);
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, "[%s] %3d%%", bar, (int)((double)part * 100 / (double)progress->total));
}

void progress_update(struct progress *progress, uint64_t done)
{
	int64_t now, spent;
	char size[FORMAT_SIZE], rate[FORMAT_SIZE], time[FORMAT_SIZE];

	if (!progress->enabled)
		return;
	now = monotonic_ms();
	spent = now - progress->started_ms;
	if (spent < FIRST_AFTER_MS || now - progress->shown_ms < EVERY_MS)
		return;
	progress->shown_ms = now;
	progress->shown = true;
	fprintf(stderr, "\r\033[K%s ", progress->what);
	if (progress->total)
		print_bar(progress, done);
	else
		fputc("|/-\\"[now / EVERY_MS % 4], stderr);
	fprintf(stderr, " %s", format_duration(time, (uint64_t)spent));
	if (done)
		fprintf(stderr, "  %s  %s/s", format_size(size, done),
			format_size(rate, (uint64_t)((double)done * 1000 / (double)spent)));
	fflush(stderr);
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}
