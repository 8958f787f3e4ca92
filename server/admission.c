#include "config.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "status.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/*
 * Admission by reservation: the limits of everything that lives are summed up, and a create that would go
 * beyond the box's share is refused at once, naming what is full. The sums are of limits, not of use, so
 * they may be overcommitted by a configured factor; the floor under MemAvailable is what stops creates when
 * sandboxes really use what they were promised.
 *
 * What nobody promised but everybody uses, processes of the box and descriptors of this daemon, is looked at as it is:
 * a create is refused while less than the reserve is free.
 *
 * Pre-made sandboxes are summed apart: they never stand in a client's way (sandbox_pool_trim() removes them
 * when both together are too much), but no new ones are made while there is no room.
 */

#define MEMINFO_AGE_NS (100 * 1000000ull)
#define PIDS_RESERVE_MAX 1024u /* or an eighth, if that is less */
#define FDS_RESERVE 256u       /* connections, the store, templates, and the pipes of a burst of commands */
#define RETRY_MS 1000

struct reservation {
	uint32_t count;
	uint64_t memory_bytes;
	uint64_t disk_bytes;
};

static struct reservation clients, pool;
static uint64_t total_memory, reservable_memory, reservable_disk;
static uint64_t available_memory, available_at_ns;
static uint64_t pids, pids_max; /* threads of the box */

static void meminfo_read(void)
{
	_cleanup_file_ FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	uint64_t kib;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemTotal: %" SCNu64, &kib) == 1)
			total_memory = kib << 10;
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) {
			available_memory = kib << 10;
			break;
		}
	}
	available_at_ns = loop_now_ns();
}

static uint64_t read_number(const char *path)
{
	_cleanup_file_ FILE *file = fopen(path, "re");
	uint64_t number = 0;

	if (file && fscanf(file, "%" SCNu64, &number) != 1)
		number = 0;
	return number;
}

/* Threads that exist, of those that may: "0.10 0.20 0.30 RUNNING/ALL LAST". */
static void pids_read(void)
{
	_cleanup_file_ FILE *file = fopen("/proc/loadavg", "re");
	uint64_t threads_max = read_number("/proc/sys/kernel/threads-max");

	pids_max = read_number("/proc/sys/kernel/pid_max");
	if (threads_max && threads_max < pids_max)
		pids_max = threads_max;
	if (!file || fscanf(file, "%*f %*f %*f %*u/%" SCNu64, &pids) != 1)
		pids = 0;
}

static uint64_t scaled(uint64_t bytes, double factor)
{
	double product = (double)bytes * factor;

	return product >= 9e18 ? (uint64_t)9e18 : (uint64_t)product;
}

void admission_start(void)
{
	uint64_t reserve = server_config.memory_reserve_bytes;

	meminfo_read();
	pids_read();
	reservable_memory =
		total_memory > reserve ? scaled(total_memory - reserve, server_config.memory_overcommit) : 0;
}

void admission_set_disk(uint64_t total_disk_bytes)
{
	reservable_disk = scaled(total_disk_bytes, server_config.disk_overcommit);
}

void admission_reserve(const struct warden_limits *limits, bool pooled)
{
	struct reservation *sum = pooled ? &pool : &clients;

	sum->count++;
	sum->memory_bytes += limits->memory_bytes;
	sum->disk_bytes += limits->disk_bytes;
}

void admission_release(const struct warden_limits *limits, bool pooled)
{
	struct reservation *sum = pooled ? &pool : &clients;

	sum->count--;
	sum->memory_bytes -= limits->memory_bytes;
	sum->disk_bytes -= limits->disk_bytes;
}

void admission_hold_disk(int64_t delta_bytes)
{
	clients.disk_bytes += (uint64_t)delta_bytes;
}

static int full(struct pdk_error *err, const char *what, uint64_t wanted, uint64_t used, uint64_t limit)
{
	return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED,
			"server %s exhausted: %" PRIu64 " of %" PRIu64 " reserved, %" PRIu64
			" more asked for; retry in %d ms",
			what, used, limit, wanted, RETRY_MS);
}

static bool beyond(uint64_t wanted, uint64_t used, uint64_t limit)
{
	return wanted > limit || used > limit - wanted;
}

static int scarce(struct pdk_error *err, const char *what, uint64_t left, uint64_t reserve)
{
	return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED,
			"server %s exhausted: %" PRIu64 " available, %" PRIu64 " are kept in reserve; retry in %d ms",
			what, left, reserve, RETRY_MS);
}

/* The lowest free descriptor: as many are open below it. */
static uint64_t fds_left(void)
{
	_cleanup_fd_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return fd < 0 || (rlim_t)fd >= limit.rlim_cur ? 0 : limit.rlim_cur - (rlim_t)fd;
}

static int check_available(struct pdk_error *err)
{
	uint64_t floor = server_config.memory_reserve_bytes, spare;

	if (loop_now_ns() - available_at_ns > MEMINFO_AGE_NS) {
		meminfo_read();
		pids_read();
	}
	if (available_memory < floor)
		return scarce(err, "memory", available_memory, floor);
	spare = pids_max / 8 < PIDS_RESERVE_MAX ? pids_max / 8 : PIDS_RESERVE_MAX;
	if (pids_max && pids + spare > pids_max)
		return scarce(err, "pids", pids_max > pids ? pids_max - pids : 0, spare);
	if (fds_left() < FDS_RESERVE)
		return scarce(err, "fds", fds_left(), FDS_RESERVE);
	return 0;
}

int admission_check(const struct warden_limits *limits, bool pooled, struct pdk_error *err)
{
	struct reservation used = clients;

	if (pooled) {
		used.count += pool.count;
		used.memory_bytes += pool.memory_bytes;
		used.disk_bytes += pool.disk_bytes;
	}
	if (used.count >= server_config.max_sandboxes)
		return full(err, "max_sandboxes", 1, used.count, server_config.max_sandboxes);
	if (beyond(limits->memory_bytes, used.memory_bytes, reservable_memory))
		return full(err, "memory", limits->memory_bytes, used.memory_bytes, reservable_memory);
	if (reservable_disk > 0 && beyond(limits->disk_bytes, used.disk_bytes, reservable_disk))
		return full(err, "disk", limits->disk_bytes, used.disk_bytes, reservable_disk);
	return check_available(err);
}

void admission_hold_memory(int64_t delta_bytes)
{
	clients.memory_bytes += (uint64_t)delta_bytes;
}

int admission_check_memory(uint64_t bytes, struct pdk_error *err)
{
	if (beyond(bytes, clients.memory_bytes, reservable_memory))
		return full(err, "memory", bytes, clients.memory_bytes, reservable_memory);
	return check_available(err);
}

int admission_check_disk(uint64_t bytes, struct pdk_error *err)
{
	if (reservable_disk > 0 && beyond(bytes, clients.disk_bytes, reservable_disk))
		return full(err, "disk", bytes, clients.disk_bytes, reservable_disk);
	return 0;
}

bool admission_is_over(void)
{
	return clients.count + pool.count > server_config.max_sandboxes ||
	       clients.memory_bytes + pool.memory_bytes > reservable_memory ||
	       (reservable_disk > 0 && clients.disk_bytes + pool.disk_bytes > reservable_disk);
}

void sandboxes_status(struct server_status_numbers *ret)
{
	*ret = (struct server_status_numbers){
		.sandboxes = clients.count,
		.pooled = sandbox_pool_count(),
		.reserved_memory_bytes = clients.memory_bytes + pool.memory_bytes,
		.reservable_memory_bytes = reservable_memory,
		.reserved_disk_bytes = clients.disk_bytes + pool.disk_bytes,
		.reservable_disk_bytes = reservable_disk,
	};
}
