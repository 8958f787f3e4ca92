#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "floor.h"
#include "floor_criu.h"
#include "measure.h"
#include "sandbox/base/cleanup.h"

/*
 * Pause, resume, snapshot, fork. What is in a sandbox is a small tree of idle programs, or one python that holds so and
 * so many megabytes (of which no page is zero) and answers each line with its length, or "s" with a sum for which it
 * touches every page: "the first answer" is the time until it has, over two more calls.
 */

#define MB (1u << 20)
#define MANY 50
#define SIZED_ROUNDS 3
#define PAUSED_FEW 8
#define PAUSED_MANY 32

static char *const idle[] = {(char *)"/bin/sh", (char *)"-c", (char *)"sleep 3600 & : >/tmp/ready; wait"};

#define HOLD                                                                                                           \
	"import os,sys\n"                                                                                              \
	"held=bytearray(os.urandom(1<<20))*int(sys.argv[1])\n"                                                         \
	"open('/tmp/ready','w').close()\n"                                                                             \
	"for line in iter(sys.stdin.readline,''):\n"                                                                   \
	"  print(sum(held[::4096]) if line[0]=='s' else len(held)>>20,flush=True)\n"

/* What programs really hold: small objects, and room between them. */
#define HEAP                                                                                                           \
	"import json,random,sys\n"                                                                                     \
	"random.seed(1)\n"                                                                                             \
	"held=[json.loads(json.dumps({'id':i,'name':'user%d'%i,'tags':random.choices('abc',k=8),'score':random."       \
	"random(),"                                                                                                    \
	"'text':'lorem ipsum dolor %d'%random.randrange(10**9)})) for i in range(110000)]\n"                           \
	"for line in iter(sys.stdin.readline,''):\n"                                                                   \
	"  print(len(held),flush=True)\n"

static void fail(const char *what, const struct pdk_error *err)
{
	fprintf(stderr, "bench: %s: %s\n", what, err->text);
	exit(1);
}

static void pause_box(struct paddock_client *client, const char *id, Paddock__V1__PauseMode mode)
{
	Paddock__V1__PauseSandboxRequest request = PADDOCK__V1__PAUSE_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	struct pdk_error err = {0};

	request.sandbox_id = (char *)id;
	request.mode = mode;
	if (paddock_sandbox_pause(client, &request, &sandbox, &err) < 0)
		fail("pause", &err);
	paddock_free(sandbox);
}

static void resume_box(struct paddock_client *client, const char *id)
{
	Paddock__V1__ResumeSandboxRequest request = PADDOCK__V1__RESUME_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	struct pdk_error err = {0};

	request.sandbox_id = (char *)id;
	if (paddock_sandbox_resume(client, &request, &sandbox, &err) < 0)
		fail("resume", &err);
	paddock_free(sandbox);
}

/* Start a program that stays; its id. */
static uint64_t run_on(struct paddock_client *client, const char *id, char *const *argv, size_t n_argv)
{
	Paddock__V1__StartProcessRequest request = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	Paddock__V1__ProcessEvent *event = NULL;
	struct pdk_error err = {0};
	struct paddock_stream *stream;
	uint64_t process;

	request.sandbox_id = (char *)id;
	request.argv = (char **)argv;
	request.n_argv = n_argv;
	request.detach = request.open_stdin = true;
	stream = paddock_process_start(client, &request, &err);
	if (!stream || paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &err) <= 0 || !event->started)
		fail("start", &err);
	process = event->started->process_id;
	paddock_free(event);
	paddock_stream_free(stream);
	return process;
}

/* Have it answer one line of two bytes, behind `*sequence` bytes of its output. */
static void ask_for(struct paddock_client *client, const char *id, uint64_t process, uint64_t *sequence,
		    const char *line)
{
	Paddock__V1__SendInputRequest input = PADDOCK__V1__SEND_INPUT_REQUEST__INIT;
	Paddock__V1__AttachRequest attach = PADDOCK__V1__ATTACH_REQUEST__INIT;
	Paddock__V1__SendInputResponse *sent = NULL;
	struct pdk_error err = {0};
	struct paddock_stream *stream;
	uint64_t got = 0;

	input.sandbox_id = attach.sandbox_id = (char *)id;
	input.process_id = attach.process_id = process;
	input.data.data = (uint8_t *)(uintptr_t)line;
	input.data.len = 2;
	attach.from_sequence = *sequence;
	if (paddock_process_send_input(client, &input, &sent, &err) < 0)
		fail("input", &err);
	paddock_free(sent);
	stream = paddock_process_attach(client, &attach, &err);
	while (stream && got == 0) {
		Paddock__V1__ProcessEvent *event = NULL;

		if (paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &err) <= 0)
			fail("attach", &err);
		if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT)
			got = event->output->data.len;
		paddock_free(event);
	}
	if (!stream)
		fail("attach", &err);
	paddock_stream_free(stream);
	*sequence += got;
}

static void ask(struct paddock_client *client, const char *id, uint64_t process, uint64_t *sequence)
{
	ask_for(client, id, process, sequence, "?\n");
}

/* A sandbox with a python of this size that has answered once. */
static char *create_warm(struct paddock_client *client, unsigned int megabytes, uint64_t *process, uint64_t *sequence)
{
	char *id = bench_create_sized(client, (uint64_t)(megabytes + 256) * MB), size[16];
	char *const argv[] = {(char *)"python3", (char *)"-c", (char *)HOLD, size};

	snprintf(size, sizeof(size), "%u", megabytes);
	*process = run_on(client, id, argv, 4);
	*sequence = 0;
	ask(client, id, *process, sequence);
	return id;
}

static double median(struct sample *sample)
{
	return sample_quantile_ms(sample, 0.5);
}

/* --- freeze and thaw --- */

static void measure_freeze(struct paddock_client *client, int rounds)
{
	_cleanup_free_ char *id = bench_create(client);
	struct sample freeze = {0}, thaw = {0};
	char *const argv[] = {(char *)"sleep", (char *)"3600"};

	for (int i = 0; i < 10; i++)
		run_on(client, id, argv, 2);
	for (int i = 0; i < rounds; i++) {
		uint64_t start = bench_now_ns();

		pause_box(client, id, PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_FREEZE);
		sample_add(&freeze, bench_now_ns() - start);
		usleep(1000);
		start = bench_now_ns();
		resume_box(client, id);
		sample_add(&thaw, bench_now_ns() - start);
		usleep(1000);
	}
	bench_row("freeze ten idle programs, p50 vs 0.5 ms", median(&freeze), 0.5, "ms", "<= 1");
	bench_row("thaw them, p50 vs 0.5 ms", median(&thaw), 0.5, "ms", "<= 1");
	sample_free(&freeze);
	sample_free(&thaw);
	bench_kill(client, id);
}

/* --- a small sandbox, next to CRIU and runc --- */

struct peer {
	struct sample pause, resume;
	bool works;
};

static void run_runc(struct peer *runc, const struct bench_options *options)
{
	char bundle[300], images[320];
	char *const checkpoint[] = {(char *)"runc", (char *)"checkpoint",  (char *)"--image-path",
				    images,         (char *)options->runc, NULL};
	char *const restore[] = {(char *)"runc",
				 (char *)"restore",
				 (char *)"--detach",
				 (char *)"--image-path",
				 images,
				 (char *)"--bundle",
				 bundle,
				 (char *)options->runc,
				 NULL};

	snprintf(bundle, sizeof(bundle), "%s/runc", options->work);
	snprintf(images, sizeof(images), "%s/images", bundle);
	runc->works =
		runc->works && floor_spawn(&runc->pause, checkpoint) == 0 && floor_spawn(&runc->resume, restore) == 0;
}

static void compare(const char *what, double ours, double theirs, bool works, const char *aim)
{
	if (works)
		bench_row(what, ours, theirs, "ms", aim);
	else
		printf("| %s | %.2f ms | not measured: it failed here | | %s |\n", what, ours, aim);
}

static void measure_small(struct paddock_client *client, const struct bench_options *options)
{
	char *const floor_argv[] = {(char *)"/bin/sh", (char *)"-c", idle[2], NULL};
	struct peer ours = {.works = true}, criu = {.works = options->criu}, runc = {.works = options->runc};
	_cleanup_free_ char *id = bench_create(client);

	run_on(client, id, idle, 3);
	for (int i = 0; i < options->rounds / 5 + 1; i++) {
		uint64_t start = bench_now_ns();

		pause_box(client, id, PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT);
		sample_add(&ours.pause, bench_now_ns() - start);
		usleep(20000);
		start = bench_now_ns();
		resume_box(client, id);
		sample_add(&ours.resume, bench_now_ns() - start);
		usleep(20000);
		criu.works = criu.works && floor_criu(floor_argv, 1, &criu.pause, &criu.resume);
		run_runc(&runc, options);
	}
	compare("pause of a small sandbox to disk vs bare CRIU's dump", median(&ours.pause), median(&criu.pause),
		criu.works, "<= 1.5");
	compare("its resume vs bare CRIU's restore", median(&ours.resume), median(&criu.resume), criu.works, "<= 1.5");
	compare("runc checkpoint vs the pause", median(&runc.pause), median(&ours.pause), runc.works, ">= 3");
	compare("runc restore vs the resume", median(&runc.resume), median(&ours.resume), runc.works, ">= 3");
	bench_kill(client, id);
}

/* --- by size --- */

static void measure_sized(struct paddock_client *client, const struct bench_options *options, unsigned int megabytes)
{
	uint64_t process, sequence;
	_cleanup_free_ char *id = create_warm(client, megabytes, &process, &sequence);
	struct sample pause = {0}, first = {0}, dump = {0}, restore = {0};
	char text[16], what[120];
	char *const argv[] = {(char *)"/usr/bin/python3", (char *)"-c", (char *)HOLD "\nimport signal; signal.pause()",
			      text, NULL};
	bool bare = options->criu;

	snprintf(text, sizeof(text), "%u", megabytes);
	for (int i = 0; i < SIZED_ROUNDS; i++) {
		uint64_t start = bench_now_ns();

		pause_box(client, id, PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT);
		sample_add(&pause, bench_now_ns() - start);
		start = bench_now_ns();
		resume_box(client, id);
		ask(client, id, process, &sequence);
		sample_add(&first, bench_now_ns() - start);
	}
	bare = bare && floor_criu(argv, 2, &dump, &restore);
	snprintf(what, sizeof(what), "pause of %u MB to disk vs 15 ms + 0.9 ms/MB", megabytes);
	bench_row(what, median(&pause), 15 + 0.9 * megabytes, "ms", "<= 1");
	snprintf(what, sizeof(what), "the same vs bare CRIU's dump");
	compare(what, median(&pause), median(&dump), bare, "");
	snprintf(what, sizeof(what), "first answer after the resume of %u MB vs 50 ms", megabytes);
	bench_row(what, median(&first), 50, "ms", "<= 1");
	snprintf(what, sizeof(what), "the same vs bare CRIU's restore");
	compare(what, median(&first), median(&restore), bare, "");
	sample_free(&pause);
	sample_free(&first);
	sample_free(&dump);
	sample_free(&restore);
	bench_kill(client, id);
}

/* --- of a real heap --- */

static void measure_heap(struct paddock_client *client)
{
	Paddock__V1__GetSandboxRequest get = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;
	_cleanup_free_ char *id = bench_create_sized(client, 512ull * MB);
	char *const argv[] = {(char *)"python3", (char *)"-c", (char *)HEAP};
	uint64_t process = run_on(client, id, argv, 3), sequence = 0;
	Paddock__V1__Sandbox *paused = NULL;
	struct pdk_error err = {0};
	struct sample pause = {0};
	double whole = 0, stored = 0;

	ask(client, id, process, &sequence);
	get.sandbox_id = id;
	for (int i = 0; i < SIZED_ROUNDS; i++) {
		uint64_t start = bench_now_ns();

		pause_box(client, id, PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT);
		sample_add(&pause, bench_now_ns() - start);
		if (paddock_sandbox_get(client, &get, &paused, &err) < 0)
			fail("get", &err);
		whole = (double)paused->checkpoint_bytes / 1e6;
		stored = (double)paused->stored_bytes / 1e6;
		paddock_free(paused);
		resume_box(client, id);
		ask(client, id, process, &sequence);
	}
	bench_row("pause of a python that holds parsed JSON, vs 15 ms + 0.9 ms/MB", median(&pause), 15 + 0.9 * whole,
		  "ms", "<= 1");
	bench_row("what it takes on disk vs its size", stored, whole, "MB", "");
	sample_free(&pause);
	bench_kill(client, id);
}

/* --- lazy against plain --- */

/* As the warden restores it: run.sh runs this a second time, with a warden that restores all at once. */
static void measure_both(struct paddock_client *client, unsigned int megabytes)
{
	uint64_t process, sequence, start;
	_cleanup_free_ char *id = create_warm(client, megabytes, &process, &sequence);
	struct sample first = {0}, all = {0};

	for (int i = 0; i < SIZED_ROUNDS; i++) {
		pause_box(client, id, PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT);
		start = bench_now_ns();
		resume_box(client, id);
		ask(client, id, process, &sequence);
		sample_add(&first, bench_now_ns() - start);
		ask_for(client, id, process, &sequence, "s\n");
		sample_add(&all, bench_now_ns() - start);
	}
	printf("| resume of %u MB: first answer, and with every page touched | %.1f ms | %.1f ms | | |\n", megabytes,
	       median(&first), median(&all));
	sample_free(&first);
	sample_free(&all);
	bench_kill(client, id);
}

/* --- copies --- */

static Paddock__V1__ForkResponse *fork_box(struct paddock_client *client, const char *id, unsigned int count)
{
	Paddock__V1__ForkRequest request = PADDOCK__V1__FORK_REQUEST__INIT;
	Paddock__V1__ForkResponse *response = NULL;
	struct pdk_error err = {0};

	request.sandbox_id = (char *)id;
	request.count = count;
	request.all = true;
	if (paddock_sandbox_fork(client, &request, &response, &err) < 0)
		fail("fork", &err);
	return response;
}

static void kill_copies(struct paddock_client *client, Paddock__V1__ForkResponse *forked)
{
	for (size_t i = 0; i < forked->n_results; i++)
		bench_kill(client, forked->results[i]->sandbox->id);
	paddock_free(forked);
}

static void measure_snapshot(struct paddock_client *client, const char *id, uint64_t process, uint64_t sequence)
{
	Paddock__V1__CreateSnapshotRequest request = PADDOCK__V1__CREATE_SNAPSHOT_REQUEST__INIT;
	Paddock__V1__RemoveSnapshotRequest removal = PADDOCK__V1__REMOVE_SNAPSHOT_REQUEST__INIT;
	Paddock__V1__RemoveSnapshotResponse *removed = NULL;
	Paddock__V1__Snapshot *snapshot = NULL;
	struct sample taking = {0}, stopped = {0}, copying = {0};
	struct pdk_error err = {0};

	request.sandbox_id = (char *)id;
	for (int i = 0; i < SIZED_ROUNDS; i++) {
		Paddock__V1__CreateSandboxRequest create = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
		Paddock__V1__Sandbox *copy = NULL;
		uint64_t start = bench_now_ns();

		if (paddock_snapshot_create(client, &request, &snapshot, &err) < 0)
			fail("snapshot", &err);
		sample_add(&taking, bench_now_ns() - start);
		sample_add(&stopped, snapshot->stopped_us * 1000);
		create.snapshot = removal.snapshot = snapshot->id;
		create.timeout_ms = 3600000;
		for (int k = 0; k < 3; k++) {
			uint64_t answered = sequence;

			start = bench_now_ns();
			if (paddock_sandbox_create(client, &create, &copy, &err) < 0)
				fail("create from a snapshot", &err);
			ask(client, copy->id, process, &answered);
			if (k > 0) /* the first one checks the images */
				sample_add(&copying, bench_now_ns() - start);
			bench_kill(client, copy->id);
			paddock_free(copy);
		}
		if (paddock_snapshot_remove(client, &removal, &removed, &err) < 0)
			fail("remove a snapshot", &err);
		paddock_free(removed);
		paddock_free(snapshot);
	}
	bench_row("snapshot of 110 MB: the call, and how long nothing ran", median(&taking), median(&stopped), "ms",
		  "");
	bench_row("a copy of a snapshot of 110 MB to its first answer vs 150 ms", median(&copying), 150, "ms", "<= 1");
	sample_free(&taking);
	sample_free(&stopped);
	sample_free(&copying);
}

static void measure_forks(struct paddock_client *client)
{
	uint64_t process, sequence, start, answered;
	_cleanup_free_ char *id = create_warm(client, 110, &process, &sequence);
	struct sample lone = {0};
	Paddock__V1__ForkResponse *forked;

	measure_snapshot(client, id, process, sequence);
	for (int i = 0; i < SIZED_ROUNDS; i++) {
		answered = sequence;
		start = bench_now_ns();
		forked = fork_box(client, id, 1);
		ask(client, forked->results[0]->sandbox->id, process, &answered);
		sample_add(&lone, bench_now_ns() - start);
		kill_copies(client, forked);
		usleep(50000);
	}
	bench_row("fork of 110 MB, snapshot and all, to the first answer vs 150 ms", median(&lone), 150, "ms", "<= 1");
	start = bench_now_ns();
	forked = fork_box(client, id, MANY);
	for (size_t i = 0; i < forked->n_results; i++) {
		answered = sequence;
		ask(client, forked->results[i]->sandbox->id, process, &answered);
	}
	bench_row("50 forks of 110 MB in one call, until all have answered, per second vs 10",
		  MANY / ((double)(bench_now_ns() - start) / 1e9), 10, "/s", ">= 1");
	kill_copies(client, forked);
	sample_free(&lone);
	bench_kill(client, id);
}

/* --- what a paused one costs --- */

/* Processes of sandboxes: their ids are in ranges of their own. */
static int count_inside(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	struct stat st;
	char path[300];
	int n = 0;

	while (proc && (entry = readdir(proc))) {
		snprintf(path, sizeof(path), "/proc/%s", entry->d_name);
		n += entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && stat(path, &st) == 0 &&
		     st.st_uid >= 0x10000000;
	}
	if (proc)
		closedir(proc);
	return n;
}

static void measure_paused(struct paddock_client *client, pid_t paddockd)
{
	char *ids[PAUSED_MANY];
	double few = 0;
	int processes;

	sleep(2); /* the pool is full again */
	processes = count_inside();

	for (int i = 0; i < PAUSED_MANY; i++) {
		ids[i] = bench_create_cold(client);
		run_on(client, ids[i], idle, 3);
		pause_box(client, ids[i], PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT);
		if (i == PAUSED_FEW)
			few = bench_resident_mb(paddockd);
	}
	printf("| processes of %d paused sandboxes | %d | | | 0 |\n", PAUSED_MANY, count_inside() - processes);
	if (paddockd)
		bench_row("memory of paddockd for one of them vs 64 KB",
			  1e3 * (bench_resident_mb(paddockd) - few) / (PAUSED_MANY - 1 - PAUSED_FEW), 64, "KB", "<= 1");
	for (int i = 0; i < PAUSED_MANY; i++) {
		bench_kill(client, ids[i]);
		free(ids[i]);
	}
}

void bench_lazy(struct paddock_client *client)
{
	static const unsigned int sizes[] = {1, 4, 8, 16, 32, 64, 110, 512, 1024};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		measure_both(client, sizes[i]);
	measure_forks(client);
}

static bool wanted(const struct bench_options *options, const char *part)
{
	return !options->only || strcmp(options->only, "checkpoints") == 0 || strcmp(options->only, part) == 0;
}

void bench_checkpoints(struct paddock_client *client, const struct bench_options *options)
{
	if (wanted(options, "freezes"))
		measure_freeze(client, options->rounds);
	if (wanted(options, "pauses")) {
		if (options->criu)
			floor_criu_setup(options->criu, options->work);
		measure_small(client, options);
		measure_sized(client, options, 110);
		measure_sized(client, options, 512);
		measure_sized(client, options, 1024);
		measure_paused(client, options->paddockd);
	}
	if (wanted(options, "heaps"))
		measure_heap(client);
	if (wanted(options, "copies"))
		measure_forks(client);
}
