#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"
#include "sandbox/base/cleanup.h"

/*
 * Two ways to look, because neither is enough alone.
 *
 * What can be counted: what the kernel holds for objects that are not the content of files (slab, page tables, per-CPU
 * data, vmalloc with the kernel's stacks in it, tmpfs), of the whole host, and the anonymous memory of paddockd, the
 * warden and everything below it. Others' processes do not show, but pages that the kernel takes for itself by other
 * ways do not either.
 *
 * What is not free: all memory that is in use and is not the content of files. Nothing is missing, but whatever else
 * the host does shows.
 *
 * Caches are dropped before each look, and again until it stands still: what they hold is let go in steps, and the
 * kernel gives back what ended processes had long after they ended.
 */

#define LOOKS_MAX 15
#define STILL (1u << 20)

static double meminfo(const char *const *names, size_t n_names)
{
	char line[128], name[64];
	double value, sum = 0;
	_cleanup_file_ FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file))
		for (size_t i = 0; i < n_names && sscanf(line, "%63[^:]: %lf", name, &value) == 2; i++)
			if (!strcmp(name, names[i]))
				sum += value * 1024;
	return sum;
}

static double kernel_bytes(void)
{
	static const char *const names[] = {"Slab", "PageTables", "SecPageTables", "Percpu", "VmallocUsed", "Shmem"};

	return meminfo(names, ARRAY_SIZE(names));
}

static double bytes_not_free(void)
{
	static const char *const total[] = {"MemTotal"};
	static const char *const rest[] = {"MemFree", "Buffers", "Active(file)", "Inactive(file)"};

	return meminfo(total, ARRAY_SIZE(total)) - meminfo(rest, ARRAY_SIZE(rest));
}

static int parent_of(int pid)
{
	char path[64], text[512], *end;
	_cleanup_file_ FILE *file = NULL;
	int parent = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file || !fgets(text, sizeof(text), file))
		return 0;
	end = strrchr(text, ')');
	return end && sscanf(end, ") %*c %d", &parent) == 1 ? parent : 0;
}

/* The process is, or stands below, one of these. */
static bool is_ours(int pid, const struct bench_options *options)
{
	for (int i = 0; pid > 1 && i < 8; i++, pid = parent_of(pid))
		if (pid == options->paddockd || pid == options->warden)
			return true;
	return false;
}

static double anonymous_bytes(const char *pid)
{
	char path[300], line[128];
	double value;
	_cleanup_file_ FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%s/smaps_rollup", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Pss_Anon: %lf", &value) == 1)
			return value * 1024;
	return 0;
}

static double process_bytes(const struct bench_options *options)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	double sum = 0;

	while (proc && (entry = readdir(proc)))
		if (atoi(entry->d_name) > 0 && is_ours(atoi(entry->d_name), options))
			sum += anonymous_bytes(entry->d_name);
	if (proc)
		closedir(proc);
	return sum;
}

void memory_look(const struct bench_options *options, struct memory *ret)
{
	_cleanup_fd_ int drop = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	double last = 0;
	int still = 0;

	*ret = (struct memory){0};
	for (int i = 0; i < LOOKS_MAX && still < 2; i++) {
		sync();
		if (drop < 0 || write(drop, "3", 1) != 1)
			fprintf(stderr, "bench: caches cannot be dropped here: memory is not exact\n");
		sleep(1);
		last = ret->kernel;
		ret->kernel = kernel_bytes();
		still = fabs(ret->kernel - last) < STILL ? still + 1 : 0;
	}
	ret->not_free = bytes_not_free();
	ret->processes = process_bytes(options);
}
