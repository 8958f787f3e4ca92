#include "audit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop.h"
#include "store_anchor.h"

/*
 * The check of the whole chain. The log only grows, so reading it in slices up to the length it had at the start
 * is as good as one snapshot, and no reader holds pages back or delays the growth of the map for long. The checkpoints
 * are read before the length: they are never ahead of what is durable.
 */

#define SLICE_NS 5000000 /* of one read transaction */

/* Signed checkpoints of one source, in the order of the log. */
struct marks {
	struct audit_head *heads;
	size_t count, capacity;
	size_t at; /* the first that was not reached yet */
	const char *fault;
};

struct check {
	struct audit_report *report;
	const atomic_bool *stop;
	uint64_t end;             /* records at the start */
	struct audit_head anchor; /* count 0: none */
	struct marks history;     /* audit.checkpoints */
	struct marks stored;      /* of the store */
	uint64_t slice_end_ns;
};

static int bad(struct audit_report *report, uint64_t sequence, const char *text)
{
	report->ok = false;
	report->first_bad_sequence = sequence;
	snprintf(report->text, sizeof(report->text), "%s", text);
	return 1;
}

static int add_mark(struct marks *marks, const struct audit_head *head)
{
	if (marks->count == marks->capacity) {
		size_t capacity = marks->capacity ? 2 * marks->capacity : 64;
		struct audit_head *heads = reallocarray(marks->heads, capacity, sizeof(*heads));

		if (!heads)
			return -ENOMEM;
		marks->heads = heads;
		marks->capacity = capacity;
	}
	if (marks->count && head->count < marks->heads[marks->count - 1].count)
		marks->fault = "the checkpoints are not in order";
	marks->heads[marks->count++] = *head;
	return 0;
}

static int add_history(int rc, const struct audit_head *head, void *arg)
{
	struct marks *marks = arg;

	if (!rc)
		return add_mark(marks, head);
	if (rc != -EBADMSG && rc != -EKEYREJECTED)
		return rc;
	marks->fault = rc == -EBADMSG ? "a line of the checkpoints' file cannot be read"
				      : "a line of the checkpoints' file is not signed with this log's key";
	return 0;
}

static int add_stored(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	char line[AUDIT_CHECKPOINT_MAX] = "";
	struct audit_head head = {};
	struct marks *marks = arg;
	uint8_t expected[8];

	if (value_length < sizeof(line))
		memcpy(line, value, value_length);
	if (audit_checkpoint_read(line, &head) < 0) {
		marks->fault = "a checkpoint in the store is not signed with this log's key";
		return 0;
	}
	audit_key(head.count, expected);
	if (key_length != sizeof(expected) || memcmp(key, expected, sizeof(expected)))
		marks->fault = "a checkpoint in the store is not in its place";
	return add_mark(marks, &head);
}

/* True if every checkpoint of this record names its hash. */
static bool pass_marks(struct marks *marks, const struct audit_head *head)
{
	for (; marks->at < marks->count && marks->heads[marks->at].count <= head->count; marks->at++)
		if (marks->heads[marks->at].count == head->count &&
		    memcmp(marks->heads[marks->at].hash, head->hash, AUDIT_HASH_SIZE))
			return false;
	return true;
}

static int check_record(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	struct check *check = arg;
	struct audit_report *report = check->report;
	uint64_t expected = report->records + 1;
	uint8_t hash[AUDIT_HASH_SIZE];
	struct audit_view view;
	int rc;

	if (expected > check->end)
		return 1;
	if (audit_view(key, key_length, value, value_length, &view) < 0)
		return bad(report, expected, "the record cannot be read");
	if (view.sequence != expected)
		return bad(report, expected, "the record is missing");
	if (view.stored_sequence != expected)
		return bad(report, expected, "the record has another sequence number than its place");
	if (memcmp(view.previous, report->head.hash, AUDIT_HASH_SIZE))
		return bad(report, expected, "the record does not follow from the one before it");
	rc = audit_hash(view.previous, view.stored, view.stored_length, hash);
	if (rc < 0)
		return rc;
	if (memcmp(hash, view.hash, AUDIT_HASH_SIZE))
		return bad(report, expected, "the record was changed");
	report->records = report->head.count = expected;
	memcpy(report->head.hash, hash, AUDIT_HASH_SIZE);
	if (expected == check->anchor.count && memcmp(hash, check->anchor.hash, AUDIT_HASH_SIZE))
		return bad(report, expected,
			   "the log was rewritten: this record is not the one that the head anchor names");
	if (!pass_marks(&check->history, &report->head) || !pass_marks(&check->stored, &report->head))
		return bad(report, expected,
			   "the log was rewritten: this record is not the one that a signed checkpoint names");
	if (expected % 64 == 0 && store_now_ns() > check->slice_end_ns)
		return 1;
	return 0;
}

static int check_slices(struct check *check)
{
	struct audit_report *report = check->report;

	while (report->ok && report->records < check->end) {
		uint64_t before = report->records;
		uint8_t key[8];
		int rc;

		if (atomic_load(check->stop))
			return -ECANCELED;
		audit_key(before + 1, key);
		check->slice_end_ns = store_now_ns() + SLICE_NS;
		rc = store_each(STORE_AUDIT, key, sizeof(key), check_record, check);
		if (rc < 0)
			return rc;
		if (report->ok && report->records == before)
			bad(report, before + 1, "the record is missing");
	}
	return 0;
}

static void compare_anchor(struct check *check, int anchor_rc)
{
	struct audit_report *report = check->report;

	if (anchor_rc == -EKEYREJECTED) {
		bad(report, 0, "the head anchor is not signed with this log's key");
	} else if (anchor_rc < 0) {
		bad(report, 0,
		    anchor_rc == -ENOENT ? "the head anchor is missing: the log may have been cut or replaced"
					 : "the head anchor cannot be read");
	} else if (check->anchor.count > report->records) {
		bad(report, report->records + 1, "");
		snprintf(report->text, sizeof(report->text),
			 "the log was cut or rolled back: it has %llu records, the head anchor says %llu",
			 (unsigned long long)report->records, (unsigned long long)check->anchor.count);
	}
}

static const struct audit_head *last_mark(const struct marks *marks)
{
	static const struct audit_head none;

	return marks->count ? &marks->heads[marks->count - 1] : &none;
}

static void compare_checkpoints(struct check *check, int history_rc)
{
	struct audit_report *report = check->report;
	const struct audit_head *last = last_mark(&check->history);

	if (check->history.fault || check->stored.fault) {
		bad(report, 0, check->history.fault ? check->history.fault : check->stored.fault);
	} else if (history_rc < 0 || !check->history.count) {
		bad(report, 0, "the file of checkpoints is missing: the log may have been cut or replaced");
	} else if (last->count > report->records) {
		bad(report, report->records + 1, "");
		snprintf(report->text, sizeof(report->text),
			 "the log was cut or rolled back: it has %llu records, a signed checkpoint says %llu",
			 (unsigned long long)report->records, (unsigned long long)last->count);
	} else if (last->count < last_mark(&check->stored)->count) {
		bad(report, 0, "the file of checkpoints was cut: the store has a newer one");
	}
}

static int read_checkpoints(struct check *check, int *ret_anchor_rc, int *ret_history_rc)
{
	int rc;

	*ret_anchor_rc = audit_anchor_read(store_dir_fd(), &check->anchor);
	/* the store's first: its last one is never newer than the file's */
	rc = store_each(STORE_CHECKPOINTS, NULL, 0, add_stored, &check->stored);
	if (rc < 0)
		return rc;
	*ret_history_rc = audit_history_each(store_dir_fd(), add_history, &check->history);
	return *ret_history_rc == -ENOMEM ? -ENOMEM : 0;
}

static int run(struct check *check)
{
	struct audit_report *report = check->report;
	int anchor_rc, history_rc = 0, rc = read_checkpoints(check, &anchor_rc, &history_rc);
	struct audit_head head;

	if (rc < 0)
		return rc;
	store_audit_head(&head);
	check->end = head.count;
	rc = check_slices(check);
	if (rc < 0)
		return rc;
	if (report->ok && memcmp(report->head.hash, head.hash, AUDIT_HASH_SIZE))
		bad(report, report->records, "the newest record is not the one that was written");
	if (report->ok)
		compare_anchor(check, anchor_rc);
	if (report->ok)
		compare_checkpoints(check, history_rc);
	report->checkpoints = check->history.at;
	if (report->ok)
		snprintf(report->text, sizeof(report->text),
			 "%llu records, the chain is whole and agrees with %llu signed checkpoints",
			 (unsigned long long)report->records, (unsigned long long)report->checkpoints);
	return 0;
}

int audit_check(struct audit_report *ret, const atomic_bool *stop)
{
	struct check check = {.report = ret, .stop = stop};
	int rc;

	*ret = (struct audit_report){.ok = true};
	rc = run(&check);
	free(check.history.heads);
	free(check.stored.heads);
	return rc;
}

/* One check at a time. `started` and `running` belong to the loop lock. */
static struct {
	pthread_t thread;
	bool started; /* to be joined */
	bool running;
	atomic_bool stop;
	void (*done)(int rc, const struct audit_report *report, void *arg);
	void *arg;
} checker;

static void *run_check(void *arg)
{
	struct audit_report report;
	int rc = audit_check(&report, &checker.stop);

	loop_lock();
	checker.running = false;
	checker.done(rc, &report, checker.arg);
	loop_unlock();
	return NULL;
}

int audit_check_start(void (*done)(int rc, const struct audit_report *report, void *arg), void *arg)
{
	sigset_t all, old;
	int rc;

	if (checker.running)
		return -EBUSY;
	if (checker.started) /* it has delivered, so it needs the lock no more */
		pthread_join(checker.thread, NULL);
	checker.done = done;
	checker.arg = arg;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&checker.thread, NULL, run_check, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	checker.started = checker.running = !rc;
	return -rc;
}

void audit_check_stop(void)
{
	bool started;

	loop_lock();
	started = checker.started;
	checker.started = false;
	loop_unlock();
	atomic_store(&checker.stop, true);
	if (started)
		pthread_join(checker.thread, NULL);
	atomic_store(&checker.stop, false);
}
