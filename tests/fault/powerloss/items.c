#include "items.h"

#include "server/audit.h"
#include "server/loop.h"
#include "server/store.h"
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 4
#define ITEMS_PER_ROUND 40
#define ITEMS_MAX (ROUNDS * ITEMS_PER_ROUND)

static int deleted_by(int item)
{
	return item % 5 == 0 ? item - 3 : 0;
}

static size_t make_value(int item, char value[20000])
{
	size_t length = item % 7 == 0 ? 20000 : 100;

	memset(value, 'a' + item % 26, length);
	return length;
}

static struct store_batch *make_batch(int item)
{
	struct store_batch *batch = store_batch_create();
	char key[32], value[20000], old[32];
	size_t length = make_value(item, value);

	snprintf(key, sizeof(key), "item %04d", item);
	snprintf(old, sizeof(old), "item %04d", deleted_by(item));
	if (store_put(batch, STORE_SANDBOXES, key, strlen(key), value, length) < 0 ||
	    (deleted_by(item) && store_delete(batch, STORE_SANDBOXES, old, strlen(old)) < 0) ||
	    store_audit(batch, &(struct audit_entry){.actor = "system", .action = "item", .object = key}) < 0)
		exit(2);
	return batch;
}

/* ---- the driver ---- */

static int acked;
static pthread_mutex_t ack_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ack_wake = PTHREAD_COND_INITIALIZER;

static void acknowledge(int rc, void *arg)
{
	char line[16];
	int length = snprintf(line, sizeof(line), "%d\n", (int)(intptr_t)arg);

	if (rc < 0 || write(STDOUT_FILENO, line, (size_t)length) != length)
		exit(2);
	pthread_mutex_lock(&ack_lock);
	acked++;
	pthread_cond_signal(&ack_wake);
	pthread_mutex_unlock(&ack_lock);
}

static void wait_acked(int count)
{
	pthread_mutex_lock(&ack_lock);
	while (acked < count)
		pthread_cond_wait(&ack_wake, &ack_lock);
	pthread_mutex_unlock(&ack_lock);
}

int items_drive(const char *dir)
{
	struct pdk_error err;
	int item = 0;

	for (int round = 0; round < ROUNDS; round++) {
		if (store_open(dir, &err) < 0) {
			fprintf(stderr, "powerloss: %s\n", err.text);
			return 2;
		}
		while (item < (round + 1) * ITEMS_PER_ROUND) {
			/* bursts of one to six share a transaction, or do not */
			for (int burst = 1 + item % 6; burst > 0 && item < (round + 1) * ITEMS_PER_ROUND; burst--) {
				item++;
				store_commit(make_batch(item), acknowledge, (void *)(intptr_t)item);
			}
			wait_acked(item);
		}
		store_close();
	}
	return 0;
}

/* ---- the check ---- */

struct found {
	bool there[ITEMS_MAX + 2];
	int wrong;
};

static int check_value(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	char text[16] = "", expected[20000];
	struct found *found = arg;
	int item;

	memcpy(text, key, key_length < 15 ? key_length : 15);
	item = key_length == 9 ? atoi(text + 5) : 0;
	if (item < 1 || item > ITEMS_MAX || make_value(item, expected) != value_length ||
	    memcmp(value, expected, value_length))
		found->wrong++;
	else
		found->there[item] = true;
	return 0;
}

static int complain(int quiet, const char *text, int first, int second)
{
	if (!quiet)
		fprintf(stderr, "powerloss: %s (%d, %d)\n", text, first, second);
	return 1;
}

static int check_items(int count, int quiet)
{
	static struct found found;
	static bool expected[ITEMS_MAX + 2];

	if (store_each(STORE_SANDBOXES, NULL, 0, check_value, &found) < 0)
		return complain(quiet, "the items cannot be read", 0, 0);
	for (int item = 1; item <= count; item++) {
		expected[item] = true;
		expected[deleted_by(item)] = false;
	}
	for (int item = 1; item <= ITEMS_MAX; item++)
		if (found.there[item] != expected[item])
			return complain(quiet, expected[item] ? "an item is lost" : "an item is there that must not be",
					item, count);
	return found.wrong ? complain(quiet, "wrong values", found.wrong, count) : 0;
}

static void note_rc(int rc, void *arg)
{
	pthread_mutex_lock(&ack_lock);
	*(int *)arg = rc;
	pthread_cond_signal(&ack_wake);
	pthread_mutex_unlock(&ack_lock);
}

static int check_goes_on(int quiet)
{
	int rc = 1;

	store_commit(make_batch(ITEMS_MAX + 1), note_rc, &rc);
	pthread_mutex_lock(&ack_lock);
	while (rc == 1)
		pthread_cond_wait(&ack_wake, &ack_lock);
	pthread_mutex_unlock(&ack_lock);
	return rc < 0 ? complain(quiet, "the store takes nothing new", rc, 0) : 0;
}

int items_check(const char *dir, int least, int quiet)
{
	static const atomic_bool go_on;
	struct audit_report report;
	struct pdk_error err;
	int count;

	if (store_open(dir, &err) < 0)
		return complain(quiet, err.text, least, 0);
	count = (int)store_audit_count();
	if (count < least || count > ITEMS_MAX)
		return complain(quiet, "acknowledged batches are lost", count, least);
	if (check_items(count, quiet))
		return 1;
	if (audit_check(&report, &go_on) < 0 || !report.ok)
		return complain(quiet, report.text, count, (int)report.first_bad_sequence);
	if (check_goes_on(quiet))
		return 1;
	store_close();
	return 0;
}
