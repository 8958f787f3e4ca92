/*
 * Power loss, simulated: `powerloss --recorder FILE [--cuts N] [--seed S]`.
 *
 * A driver commits items through server/store.c while a preloaded recorder notes every write, sync and rename. Then the
 * disk is rebuilt as it could be after a cut at N places, with what was not synced lost or torn, and the store is
 * opened on each. Nothing that was acknowledged may be missing. The control: the same with a disk that ignores syncs
 * must be found out, or this program would see nothing at all.
 */
#include "disk.h"
#include "items.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIES 60

static char work[64];

static void die(const char *what)
{
	fprintf(stderr, "powerloss: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
		die(path);
}

static void make_work_dir(void)
{
	/* in memory, if there is such a place: the cuts are imagined, no disk is needed */
	strcpy(work, access("/dev/shm", W_OK) ? "/tmp/powerloss-XXXXXX" : "/dev/shm/powerloss-XXXXXX");
	if (!mkdtemp(work))
		die(work);
}

static int run_child(pid_t pid)
{
	int status = 0;

	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		die("running a child");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void record(const char *self, const char *recorder, const char *log)
{
	char data[96];
	pid_t pid;
	int rc;

	snprintf(data, sizeof(data), "%s/data", work);
	if (mkdir(data, 0700) < 0)
		die(data);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDOUT_FILENO);
		setenv("LD_PRELOAD", recorder, 1);
		setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1); /* if this is a build with sanitizers */
		setenv("POWERLOSS_DIR", data, 1);
		setenv("POWERLOSS_LOG", log, 1);
		execl(self, self, "--drive", data, NULL);
		_exit(127);
	}
	rc = run_child(pid);
	if (rc) {
		fprintf(stderr, "powerloss: the driver ended with %d\n", rc);
		exit(2);
	}
}

/* The highest item that was acknowledged before the cut: the commits are in order, so are the acknowledgements. */
static int acked_before(const struct recording *recording, size_t cut)
{
	while (cut-- > 0)
		if (recording->events[cut]->kind == EVENT_ACK)
			return atoi((const char *)event_bytes(recording->events[cut]));
	return 0;
}

/* One cut: 0 when nothing is wrong. */
static int try_cut(const struct recording *recording, size_t cut, enum disk_loss loss, bool lies)
{
	char image[96];
	pid_t pid;
	int rc;

	snprintf(image, sizeof(image), "%s/image", work);
	if (mkdir(image, 0700) < 0)
		die(image);
	disk_rebuild(recording, cut, loss, lies, image);
	pid = fork(); /* a damaged file may well end the process */
	if (!pid) {
		alarm(20);
		_exit(items_check(image, acked_before(recording, cut), lies));
	}
	rc = run_child(pid);
	remove_tree(image);
	return rc;
}

static unsigned int try_cuts(const struct recording *recording, unsigned int cuts, bool lies)
{
	unsigned int bad = 0;

	for (unsigned int i = 0; i < cuts; i++) {
		/* spread over the recording, with the kinds of loss in turn */
		size_t cut = (size_t)((i + (double)rand() / RAND_MAX) / cuts * (double)(recording->count + 1));
		enum disk_loss loss = (enum disk_loss)(i % DISK_LOSS_COUNT);
		int rc = try_cut(recording, cut, loss, lies);

		if (!rc)
			continue;
		bad++;
		if (!lies)
			fprintf(stderr, "powerloss: cut after event %zu of %zu, loss %d: status %d\n", cut,
				recording->count, loss, rc);
	}
	return bad;
}

static int run(const char *self, const char *recorder, unsigned int cuts, unsigned int seed)
{
	struct recording recording;
	unsigned int bad, found;
	char log[96];
	time_t begun = time(NULL);

	printf("powerloss: seed %u\n", seed);
	fflush(stdout);
	srand(seed);
	make_work_dir();
	snprintf(log, sizeof(log), "%s/log", work);
	record(self, recorder, log);
	if (recording_load(&recording, log) < 0)
		die("reading the recording");
	bad = try_cuts(&recording, cuts, false);
	found = try_cuts(&recording, LIES, true);
	remove_tree(work);
	printf("powerloss: %zu events, %d items; %u cuts, %u bad; control: %u of %d found with a disk that ignores "
	       "syncs; "
	       "%d s\n",
	       recording.count, acked_before(&recording, recording.count), cuts, bad, found, LIES,
	       (int)(time(NULL) - begun));
	free(recording.events);
	free(recording.bytes);
	return bad || found < LIES / 3 ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"recorder", required_argument, NULL, 'r'},
						{"cuts", required_argument, NULL, 'c'},
						{"seed", required_argument, NULL, 's'},
						{"drive", required_argument, NULL, 'd'},
						{NULL, 0, NULL, 0}};
	const char *recorder = NULL;
	unsigned int cuts = 300, seed = 0;
	int option;

	if (getrandom(&seed, sizeof(seed), 0) < 0)
		die("getrandom");
	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 'd':
			return items_drive(optarg);
		case 'r':
			recorder = optarg;
			break;
		case 'c':
			cuts = (unsigned int)atoi(optarg);
			break;
		case 's':
			seed = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		default:
			return 2;
		}
	}
	if (!recorder || !cuts) {
		fprintf(stderr, "usage: powerloss --recorder FILE [--cuts N] [--seed S]\n");
		return 2;
	}
	return run("/proc/self/exe", recorder, cuts, seed);
}
