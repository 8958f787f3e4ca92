#include "processes.h"

#include "config.h"
#include "metrics.h"
#include "process_internal.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * A sandbox has one process_list; it is loaded from the store when it is first asked for, and then memory is what
 * counts. A process is known by a number that counts up and is not used again. Its row in the store is written
 * when init is asked to start it and again when it has ended (enum process_state says what lies between).
 *
 * Start: init and the store work at the same time; `started` is sent when both have answered
 * (process_start.c). Reading: the loop reads the pipes' ends into chunks; every byte goes to the kept output
 * (output.c) before anybody sees it, and chunks stay in memory only while a follower has not sent them
 * (process_run.c, process_follow.c). A follower that is behind the chunks replays from the kept output; while one does,
 * and while one is far behind the newest byte, the pipes are not read: the process waits for its slowest client.
 *
 * End: when init says how the process ended, what is left in the pipes is read until their end, or until 200 ms
 * have passed without it: a grandchild may hold a pipe open for ever. Then the exit is told, and stored. What the
 * grandchild writes later is still kept while its pipe is open, but no follower waits for it.
 *
 * The exit need not be durable before it is told, because init keeps it, with its duplicates of the pipes, until it is
 * told to forget the process, and that is when the store has it. If we die between the two, the next paddockd finds
 * a process without an exit in the store, takes it over, and init says the same again. A crash of the host ends the
 * sandbox, and an exit of its last few milliseconds may then not be known any more. An exit that init does not keep (it
 * gave the process up, or is gone itself) is stored first and told then.
 *
 * References: the list has one, every open follower, waiter, input and every answer that is still to come from init
 * or the store have one each. A process that is forgotten has list == NULL.
 */

#define ROW_KEY_MAX (SANDBOX_ID_LEN + 1 + 8)

static size_t row_key(uint8_t key[ROW_KEY_MAX], const char *sandbox_id, uint64_t id)
{
	size_t length = strlen(sandbox_id);

	memcpy(key, sandbox_id, length);
	key[length++] = '/';
	for (int i = 7; i >= 0; i--)
		key[length++] = (uint8_t)(id >> (8 * i));
	return length;
}

int process_put(struct store_batch *batch, const struct process *process)
{
	size_t length = paddock__internal__stored_process__get_packed_size(process->stored);
	_cleanup_free_ uint8_t *packed = malloc(length ? length : 1);
	uint8_t key[ROW_KEY_MAX];
	size_t key_length;

	if (!packed)
		return -ENOMEM;
	paddock__internal__stored_process__pack(process->stored, packed);
	key_length = row_key(key, process->list->sandbox->id, process->id);
	return store_put(batch, STORE_PROCESSES, key, key_length, packed, length);
}

int process_delete(struct store_batch *batch, const struct process *process)
{
	uint8_t key[ROW_KEY_MAX];
	size_t key_length = row_key(key, process->list->sandbox->id, process->id);

	return store_delete(batch, STORE_PROCESSES, key, key_length);
}

struct process *process_ref(struct process *process)
{
	process->refs++;
	return process;
}

void process_unref(struct process *process)
{
	if (!process || --process->refs > 0)
		return;
	loop_timer_cancel(&process->drain_timer);
	process_close_pipes(process);
	inputs_close(process);
	chunks_drop(process);
	output_free(process->output);
	paddock__internal__stored_process__free_unpacked(process->stored, NULL);
	free(process);
}

struct process *process_create(struct process_list *list, Paddock__Internal__StoredProcess *stored)
{
	struct process *process = calloc(1, sizeof(*process));

	if (!process)
		return NULL;
	process->output = output_create(server_config.data_dir, list->sandbox->id, stored->id,
					server_config.output_head_bytes, server_config.output_tail_bytes);
	if (!process->output) {
		free(process);
		return NULL;
	}
	process->list = list;
	process->refs = 1;
	process->id = stored->id;
	process->stored = stored;
	process->stdin_fd = -1;
	for (int i = 0; i < 2; i++)
		process->pipes[i] = (struct process_pipe){.process = process, .fd = -1};
	return process;
}

/* The list */

static uint64_t kept_bytes(const struct process *process)
{
	return output_total(process->output) - output_dropped(process->output);
}

int process_list_add(struct process_list *list, struct process *process)
{
	struct process **items;
	size_t size;

	if (list->count == list->size) {
		size = list->size ? list->size * 2 : 4;
		items = reallocarray(list->items, size, sizeof(struct process *));
		if (!items)
			return -ENOMEM;
		list->items = items;
		list->size = size;
	}
	list->items[list->count++] = process;
	if (process->id >= list->next_id)
		list->next_id = process->id + 1;
	if (process->state != PROCESS_ENDED)
		list->running++;
	list->kept_bytes += kept_bytes(process);
	return 0;
}

static size_t list_index(const struct process_list *list, uint64_t id)
{
	size_t low = 0, high = list->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (list->items[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct process *process_list_find(struct process_list *list, uint64_t id)
{
	size_t index = list_index(list, id);

	return index < list->count && list->items[index]->id == id ? list->items[index] : NULL;
}

struct process *process_list_find_tag(struct process_list *list, const char *tag)
{
	for (size_t i = list->count; i > 0; i--) {
		if (strcmp(list->items[i - 1]->stored->tag, tag) == 0)
			return list->items[i - 1];
	}
	return NULL;
}

void process_list_remove(struct process *process)
{
	struct process_list *list = process->list;
	size_t index;

	if (!list)
		return;
	index = list_index(list, process->id);
	list->count--;
	memmove(&list->items[index], &list->items[index + 1], (list->count - index) * sizeof(struct process *));
	if (process->state != PROCESS_ENDED)
		list->running--;
	list->kept_bytes -= kept_bytes(process);
	process->list = NULL;
	process_unref(process);
}

/* The oldest ended ones beyond the number that is kept, or until `room` more bytes of output fit; not `reading`. */
static void trim(struct process_list *list, uint64_t room, const struct process *reading)
{
	struct store_batch *batch = NULL;

	for (size_t i = 0; i < list->count && (list->count - list->running > PROCESSES_ENDED_MAX ||
					       list->kept_bytes + room > server_config.output_sandbox_bytes);) {
		struct process *process = list->items[i];

		if (process == reading || process->state != PROCESS_ENDED ||
		    (process->exit_kept && !process->exit_durable)) {
			i++;
			continue;
		}
		if (!batch)
			batch = store_batch_create();
		if (!batch || process_delete(batch, process) < 0)
			break;
		output_remove(server_config.data_dir, list->sandbox->id, process->id);
		process_close_pipes(process);
		process_list_remove(process);
	}
	if (batch)
		store_commit(batch, NULL, NULL);
}

void process_list_trim(struct process_list *list)
{
	trim(list, 0, NULL);
}

void process_keep_output(struct process *process, unsigned int stream, const void *data, size_t length)
{
	struct process_list *list = process->list;
	uint64_t before = kept_bytes(process);

	if (list && list->kept_bytes + length > server_config.output_sandbox_bytes) {
		trim(list, length, process);
		if (list->kept_bytes + length > server_config.output_sandbox_bytes)
			output_stop(process->output);
	}
	output_append(process->output, stream, data, length);
	if (list)
		list->kept_bytes += kept_bytes(process) - before;
}

void process_trim_argv(Paddock__Internal__StoredProcess *stored)
{
	size_t shown = 0;

	for (size_t i = 0; i < stored->n_argv; i++) {
		size_t length = strlen(stored->argv[i]);

		if (shown + length <= PROCESS_ARGV_SHOWN) {
			shown += length;
			continue;
		}
		/* The first argument that does not fit is cut, between characters; the others go. */
		length = PROCESS_ARGV_SHOWN - shown;
		while (length > 0 && (stored->argv[i][length] & 0xc0) == 0x80)
			length--;
		stored->argv[i][length] = '\0';
		for (size_t j = i + 1; j < stored->n_argv; j++)
			free(stored->argv[j]);
		stored->n_argv = i + 1;
	}
}

/* Loading */

struct load {
	struct process_list *list;
	const char *prefix;
	size_t length;
};

static int load_row(struct process_list *list, const void *value, size_t length)
{
	Paddock__Internal__StoredProcess *stored = paddock__internal__stored_process__unpack(NULL, length, value);
	struct process *process;

	if (!stored)
		return 0; /* a row that cannot be read is passed over */
	process = process_create(list, stored);
	if (!process) {
		paddock__internal__stored_process__free_unpacked(stored, NULL);
		return -ENOMEM;
	}
	process->committed = true;
	process->state = stored->exit ? PROCESS_ENDED : PROCESS_RUNNING;
	process->exit_durable = stored->exit != NULL;
	if (stored->exit)
		process_trim_argv(process->stored);
	output_load(process->output);
	output_rest(process->output);
	/* Of one that runs: what it had written when its sandbox was copied. */
	output_set_total(process->output, stored->output_bytes);
	if (process_list_add(list, process) < 0) {
		process_unref(process);
		return -ENOMEM;
	}
	return 0;
}

static int load_visit(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	struct load *load = arg;

	if (key_length != load->length + 8 || memcmp(key, load->prefix, load->length) != 0)
		return 1;
	return load_row(load->list, value, value_length);
}

static void list_free(struct process_list *list)
{
	while (list->count > 0) {
		struct process *process = list->items[--list->count];

		process_close_pipes(process);
		process->list = NULL;
		process_unref(process);
	}
	free(list->items);
	free(list);
}

struct process_list *process_list_get(struct sandbox *sandbox)
{
	char prefix[SANDBOX_ID_SIZE + 1];
	struct load load = {.prefix = prefix};

	if (sandbox->processes)
		return sandbox->processes;
	load.list = calloc(1, sizeof(*load.list));
	if (!load.list)
		return NULL;
	load.list->sandbox = sandbox;
	load.list->next_id = 1;
	load.length = (size_t)snprintf(prefix, sizeof(prefix), "%s/", sandbox->id);
	if (store_each(STORE_PROCESSES, prefix, load.length, load_visit, &load) < 0) {
		list_free(load.list);
		return NULL;
	}
	sandbox->processes = load.list;
	return load.list;
}

/* Look-up for calls */

int process_fail_gone(struct pdk_error *err)
{
	return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "process not found");
}

int process_lookup(struct rpc_call *call, const char *sandbox_id, uint64_t process_id, bool live, struct process **ret,
		   struct pdk_error *err)
{
	struct process_list *list;
	struct sandbox *sandbox;
	struct process *process;
	char object[24];
	int rc;

	rc = live ? sandbox_find_running(call, sandbox_id, &sandbox, err)
		  : sandbox_find(call, sandbox_id, &sandbox, err);
	if (rc < 0)
		return rc;
	sandbox_use(call, sandbox);
	snprintf(object, sizeof(object), "%llu", (unsigned long long)process_id);
	rpc_audit_object(call, sandbox->id, object);
	list = process_list_get(sandbox);
	if (!list)
		return pdk_fail(err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
	process = process_list_find(list, process_id);
	if (!process || !process->committed || process->state == PROCESS_STARTING)
		return process_fail_gone(err);
	if (process->state != PROCESS_ENDED)
		sandbox_want(sandbox);
	*ret = process;
	return 0;
}

/* The end of a sandbox */

struct processes_ended {
	size_t count;
	struct process *items[];
};

void processes_told(struct processes_ended *ended, int rc)
{
	for (size_t i = 0; ended && i < ended->count; i++) {
		process_exit_stored(ended->items[i], rc);
		process_unref(ended->items[i]);
	}
	free(ended);
}

static void on_ends_stored(int rc, void *arg)
{
	processes_told(arg, rc);
}

/* init is gone, which kept its exit: the store must have it now. */
static void put_exit(struct process *process, struct store_batch *batch)
{
	process->exit_kept = false;
	process->store_failed = process_put(batch, process) < 0;
}

/* Its init is gone, so its pipes will see no more than what is in them. */
static void end_one(struct process *process)
{
	loop_timer_cancel(&process->drain_timer);
	process_read_left(process);
	process_close_pipes(process);
	if (!process->stored->exit)
		process_set_exit(process, NULL, true);
	process->stream = 0;
	process->state = PROCESS_STORING;
	process->stored->output_bytes = output_total(process->output);
	process->stored->dropped_bytes = output_dropped(process->output);
	process->exit_kept = false;
}

/* Whether its exit is in the batch now. */
static bool end_with_sandbox(struct process *process, struct store_batch *batch)
{
	if (process->state == PROCESS_RUNNING || process->state == PROCESS_DRAINING) {
		end_one(process);
		put_exit(process, batch);
		return true;
	}
	if (process->state != PROCESS_ENDED)
		return false;
	process_close_pipes(process);
	if (!process->exit_kept || !process->store_failed)
		return false;
	put_exit(process, batch);
	return true;
}

void processes_end(struct sandbox *sandbox)
{
	struct process_list *list = process_list_get(sandbox);
	struct store_batch *batch;
	struct processes_ended *all;

	if (!list || list->count == 0)
		return;
	batch = store_batch_create();
	all = calloc(1, sizeof(*all) + list->count * sizeof(all->items[0]));
	if (!batch || !all) {
		store_batch_free(batch);
		free(all);
		return;
	}
	for (size_t i = 0; i < list->count; i++) {
		struct process *process = list->items[i];

		if (end_with_sandbox(process, batch))
			all->items[all->count++] = process_ref(process);
	}
	if (all->count > 0) {
		store_commit(batch, on_ends_stored, all);
		return;
	}
	store_batch_free(batch);
	free(all);
}

/* A reset */

int processes_replace(struct sandbox *sandbox, struct Paddock__Internal__StoredProcess *const *records, size_t count,
		      struct store_batch *batch, struct process_list **ret_old)
{
	struct process_list *old = process_list_get(sandbox), *list = calloc(1, sizeof(*list));
	int rc = old && list ? 0 : -ENOMEM;

	for (size_t i = 0; rc >= 0 && i < old->count; i++)
		rc = process_delete(batch, old->items[i]);
	if (rc >= 0) {
		list->sandbox = sandbox;
		list->next_id = old->next_id; /* what is still on its way to an old row meets no new one */
		sandbox->processes = list;
		rc = processes_inherit(sandbox, records, count, batch);
	}
	if (rc >= 0) {
		*ret_old = old;
		return 0;
	}
	if (old)
		sandbox->processes = old;
	if (list)
		list_free(list);
	return rc;
}

struct processes_ended *processes_end_old(struct process_list *old)
{
	struct processes_ended *ended = calloc(1, sizeof(*ended) + old->count * sizeof(ended->items[0]));

	for (size_t i = 0; i < old->count; i++) {
		struct process *process = old->items[i];

		if (process->state != PROCESS_RUNNING && process->state != PROCESS_DRAINING)
			continue;
		end_one(process);
		if (ended)
			ended->items[ended->count++] = process_ref(process);
		else
			process_ended(process);
	}
	list_free(old);
	return ended;
}

int processes_suspend(struct sandbox *sandbox)
{
	struct process_list *list = process_list_get(sandbox);

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < list->count; i++) {
		enum process_state state = list->items[i]->state;

		if (state != PROCESS_RUNNING && state != PROCESS_ENDED)
			return -EAGAIN;
	}
	for (size_t i = 0; i < list->count; i++) {
		struct process *process = list->items[i];

		process_close_pipes(process);
		if (process->state == PROCESS_ENDED)
			continue;
		inputs_suspend(process);
		/* Counted again when it is taken over. */
		metric_add(METRIC_PROCESSES_RUNNING, -1);
	}
	return 0;
}

void processes_forget(struct sandbox *sandbox)
{
	struct process_list *list = process_list_get(sandbox);
	struct store_batch *batch;

	if (!list)
		return;
	batch = store_batch_create();
	for (size_t i = 0; i < list->count; i++) {
		struct process *process = list->items[i];

		if (batch)
			process_delete(batch, process);
		if (process->state != PROCESS_ENDED)
			metric_add(METRIC_PROCESSES_RUNNING, -1);
	}
	if (batch && list->count > 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
	output_remove_sandbox(server_config.data_dir, sandbox->id);
	sandbox->processes = NULL;
	list_free(list);
}

void processes_let_go(struct sandbox *sandbox)
{
	if (sandbox->processes)
		list_free(STEAL_PTR(sandbox->processes));
}
