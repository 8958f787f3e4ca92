#include "process_internal.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdlib.h>

/* Processes that go on in a copy of their sandbox: what a snapshot keeps of each, and what a copy makes of that. */

static void stored_free(Paddock__Internal__StoredProcess **stored)
{
	paddock__internal__stored_process__free_unpacked(*stored, NULL);
}

static Paddock__Internal__StoredProcess *stored_copy(const Paddock__Internal__StoredProcess *stored)
{
	size_t length = paddock__internal__stored_process__get_packed_size(stored);
	_cleanup_free_ uint8_t *packed = malloc(length + 1);

	if (!packed)
		return NULL;
	paddock__internal__stored_process__pack(stored, packed);
	return paddock__internal__stored_process__unpack(NULL, length, packed);
}

int processes_record(struct sandbox *sandbox, Paddock__Internal__StoredProcess *ret[PROCESSES_RUNNING_MAX],
		     size_t *ret_count)
{
	struct process_list *list = process_list_get(sandbox);

	*ret_count = 0;
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < list->count && *ret_count < PROCESSES_RUNNING_MAX; i++) {
		struct process *process = list->items[i];
		Paddock__Internal__StoredProcess *copy;

		if (process->state != PROCESS_RUNNING)
			continue;
		copy = stored_copy(process->stored);
		if (!copy)
			return -ENOMEM;
		process_trim_argv(copy);
		/* The numbering of its output goes on; what was written before belongs to the source. */
		copy->output_bytes = output_total(process->output);
		ret[(*ret_count)++] = copy;
	}
	return 0;
}

static int inherit(struct process_list *list, const Paddock__Internal__StoredProcess *record, struct store_batch *batch)
{
	_cleanup_(stored_free) Paddock__Internal__StoredProcess *stored = stored_copy(record);
	struct process *process = stored ? process_create(list, stored) : NULL;

	if (!process)
		return -ENOMEM;
	(void)STEAL_PTR(stored);
	process->committed = true;
	process->state = PROCESS_RUNNING;
	output_set_total(process->output, process->stored->output_bytes);
	if (process_list_add(list, process) < 0) {
		process_unref(process);
		return -ENOMEM;
	}
	return process_put(batch, process);
}

int processes_inherit(struct sandbox *sandbox, Paddock__Internal__StoredProcess *const *records, size_t count,
		      struct store_batch *batch)
{
	struct process_list *list = process_list_get(sandbox);
	int rc = list ? 0 : -ENOMEM;

	for (size_t i = 0; rc >= 0 && i < count; i++)
		rc = inherit(list, records[i], batch);
	return rc;
}
