#include "fakes.h"

#include "paddock/v1/processes.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "server/guest.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/metrics.h"
#include "server/output.h"
#include "server/previews.h"
#include "server/processes.h"
#include "server/rpc_local.h"
#include "server/sandboxes.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

struct config server_config;

/* --- loop --- */

struct loop_watch {
	struct loop_watch *next;
	int fd;
	uint32_t events;
	loop_fd_handler handler;
	void *arg;
	bool removed;
};

struct deferred {
	struct deferred *next;
	void (*fn)(void *arg);
	void *arg;
};

#define TIMERS_MAX 8192
static struct loop_watch *watches;
static struct deferred *deferred_first, **deferred_last = &deferred_first;
static struct loop_timer *timers[TIMERS_MAX];
static unsigned int n_timers;
static int64_t offset_ms;
static int64_t start_ms = 1700000000000;
static uint64_t start_ns = 1000000000000ull;

uint64_t loop_now_ns(void)
{
	return start_ns + (uint64_t)offset_ms * 1000000;
}

int64_t loop_wall_ms(void)
{
	return start_ms + offset_ms;
}

struct loop_watch *loop_watch_add(int fd, uint32_t events, loop_fd_handler handler, void *arg)
{
	struct loop_watch *watch = calloc(1, sizeof(*watch));

	*watch = (struct loop_watch){.next = watches, .fd = fd, .events = events, .handler = handler, .arg = arg};
	return watches = watch;
}

int loop_watch_set(struct loop_watch *watch, uint32_t events)
{
	watch->events = events;
	return 0;
}

void loop_watch_remove(struct loop_watch *watch)
{
	if (watch)
		watch->removed = true;
}

int loop_timer_set(struct loop_timer *timer, uint64_t due_ns)
{
	loop_timer_cancel(timer);
	assert(n_timers < TIMERS_MAX);
	timer->due_ns = due_ns ? due_ns : 1;
	timers[n_timers++] = timer;
	return 0;
}

void loop_timer_cancel(struct loop_timer *timer)
{
	for (unsigned int i = 0; i < n_timers; i++) {
		if (timers[i] == timer)
			timers[i--] = timers[--n_timers];
	}
	timer->due_ns = 0;
}

unsigned int fake_loop_timers(void)
{
	return n_timers;
}

static void sweep_watches(void)
{
	for (struct loop_watch **slot = &watches; *slot;) {
		struct loop_watch *watch = *slot;

		if (watch->removed) {
			*slot = watch->next;
			free(watch);
		} else {
			slot = &watch->next;
		}
	}
}

unsigned int fake_loop_watches(void)
{
	unsigned int n = 0;

	sweep_watches();
	for (struct loop_watch *watch = watches; watch; watch = watch->next)
		n++;
	return n;
}

int loop_defer(void (*fn)(void *arg), void *arg)
{
	struct deferred *entry = calloc(1, sizeof(*entry));

	entry->fn = fn;
	entry->arg = arg;
	*deferred_last = entry;
	deferred_last = &entry->next;
	return 0;
}

static void run_deferred(void)
{
	struct deferred *list = deferred_first;

	deferred_first = NULL;
	deferred_last = &deferred_first;
	while (list) {
		struct deferred *entry = list;

		list = entry->next;
		entry->fn(entry->arg);
		free(entry);
	}
}

static void run_timers(void)
{
	for (;;) {
		struct loop_timer *due = NULL;

		for (unsigned int i = 0; i < n_timers; i++) {
			if (timers[i]->due_ns <= loop_now_ns() && (!due || timers[i]->due_ns < due->due_ns))
				due = timers[i];
		}
		if (!due)
			return;
		loop_timer_cancel(due);
		due->handler(due->arg);
	}
}

static void run_watches(int timeout_ms)
{
	struct pollfd polled[32];
	struct loop_watch *watch[32];
	nfds_t n = 0;

	sweep_watches();
	for (struct loop_watch *at = watches; at && n < 32; at = at->next) {
		if (!at->events)
			continue;
		watch[n] = at;
		polled[n++] = (struct pollfd){.fd = at->fd,
					      .events = (at->events & EPOLLIN ? POLLIN : 0) |
							(at->events & EPOLLOUT ? POLLOUT : 0)};
	}
	if (poll(polled, n, timeout_ms) <= 0)
		return;
	for (nfds_t i = 0; i < n; i++) {
		if (polled[i].revents && !watch[i]->removed)
			watch[i]->handler((polled[i].revents & POLLIN ? EPOLLIN : 0) |
						  (polled[i].revents & POLLOUT ? EPOLLOUT : 0) |
						  (polled[i].revents & (POLLHUP | POLLERR) ? EPOLLHUP : 0),
					  watch[i]->arg);
	}
}

void fake_loop_turn(int timeout_ms)
{
	run_deferred();
	run_timers();
	run_watches(deferred_first ? 0 : timeout_ms);
	/* Time goes by, a little. */
	offset_ms++;
}

void fake_loop_settle(void)
{
	for (unsigned int i = 0; i < 60; i++)
		fake_loop_turn(1);
}

void fake_loop_advance_ms(int64_t ms)
{
	offset_ms += ms;
}

/* --- store --- */

struct row {
	struct row *next;
	enum store_db db;
	bool delete_it;
	char audit[64];
	size_t key_length, value_length;
	uint8_t *key, *value;
};

struct store_batch {
	struct row *first, **last;
	void (*done)(int rc, void *arg);
	void *arg;
};

static struct row *rows;
static char audits[4096][64];
static unsigned int n_audits;
bool fake_store_fails;

static void *copy(const void *data, size_t length)
{
	void *block = malloc(length + 1);

	memcpy(block, data, length);
	((char *)block)[length] = '\0';
	return block;
}

struct store_batch *store_batch_create(void)
{
	struct store_batch *batch = calloc(1, sizeof(*batch));

	batch->last = &batch->first;
	return batch;
}

static void row_free(struct row *row)
{
	free(row->key);
	free(row->value);
	free(row);
}

void store_batch_free(struct store_batch *batch)
{
	while (batch && batch->first) {
		struct row *row = batch->first;

		batch->first = row->next;
		row_free(row);
	}
	free(batch);
}

static struct row *batch_add(struct store_batch *batch)
{
	struct row *row = calloc(1, sizeof(*row));

	*batch->last = row;
	batch->last = &row->next;
	return row;
}

int store_put(struct store_batch *batch, enum store_db db, const void *key, size_t key_length, const void *value,
	      size_t value_length)
{
	struct row *row = batch_add(batch);

	row->db = db;
	row->key = copy(key, key_length);
	row->key_length = key_length;
	row->value = copy(value, value_length);
	row->value_length = value_length;
	return 0;
}

int store_delete(struct store_batch *batch, enum store_db db, const void *key, size_t key_length)
{
	struct row *row = batch_add(batch);

	row->db = db;
	row->delete_it = true;
	row->key = copy(key, key_length);
	row->key_length = key_length;
	return 0;
}

int store_audit(struct store_batch *batch, const struct audit_entry *entry)
{
	struct row *row = batch_add(batch);

	row->db = STORE_AUDIT;
	snprintf(row->audit, sizeof(row->audit), "%s", entry->action);
	return 0;
}

static void apply(struct row *row)
{
	struct row **slot = &rows;
	int order = -1;

	if (row->db == STORE_AUDIT) {
		assert(n_audits < 4096);
		strcpy(audits[n_audits++], row->audit);
		row_free(row);
		return;
	}
	for (; *slot; slot = &(*slot)->next) {
		size_t shorter = row->key_length < (*slot)->key_length ? row->key_length : (*slot)->key_length;

		if ((*slot)->db != row->db)
			continue;
		order = memcmp((*slot)->key, row->key, shorter);
		if (order == 0)
			order = ((*slot)->key_length > row->key_length) - ((*slot)->key_length < row->key_length);
		if (order >= 0)
			break;
	}
	if (*slot && order == 0) {
		struct row *old = *slot;

		*slot = old->next;
		row_free(old);
	}
	if (row->delete_it) {
		row_free(row);
		return;
	}
	row->next = *slot;
	*slot = row;
}

static void commit_now(void *arg)
{
	struct store_batch *batch = arg;
	int rc = fake_store_fails ? -EIO : 0;

	while (batch->first && rc == 0) {
		struct row *row = batch->first;

		batch->first = row->next;
		apply(row);
	}
	if (batch->done)
		batch->done(rc, batch->arg);
	store_batch_free(batch);
}

void store_commit(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg)
{
	batch->done = done;
	batch->arg = arg;
	loop_defer(commit_now, batch);
}

void audit_event(const struct audit_entry *entry)
{
	struct store_batch *batch = store_batch_create();

	store_audit(batch, entry);
	store_commit(batch, NULL, NULL);
}

int store_each(enum store_db db, const void *from, size_t from_length,
	       int (*visit)(const void *key, size_t key_length, const void *value, size_t value_length, void *arg),
	       void *arg)
{
	for (struct row *row = rows; row; row = row->next) {
		size_t shorter = row->key_length < from_length ? row->key_length : from_length;
		int rc;

		if (row->db != db || (from && memcmp(row->key, from, shorter) < 0))
			continue;
		rc = visit(row->key, row->key_length, row->value, row->value_length, arg);
		if (rc != 0)
			return rc < 0 ? rc : 0;
	}
	return 0;
}

void fake_store_reset(void)
{
	while (rows) {
		struct row *row = rows;

		rows = row->next;
		row_free(row);
	}
	n_audits = 0;
	fake_store_fails = false;
}

unsigned int fake_store_count(enum store_db db)
{
	unsigned int n = 0;

	for (struct row *row = rows; row; row = row->next)
		n += row->db == db;
	return n;
}

unsigned int fake_audit_count(const char *action)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < n_audits; i++)
		n += strcmp(audits[i], action) == 0;
	return n;
}

/* --- calls --- */

struct rpc_call *fake_call(const char *tenant)
{
	struct rpc_call *call = calloc(1, sizeof(*call));

	snprintf(call->principal.tenant, sizeof(call->principal.tenant), "%s", tenant);
	call->arena_left = 8u << 20;
	return call;
}

struct rpc_call *fake_call_operator(void)
{
	struct rpc_call *call = fake_call("default");

	call->principal.is_operator = true;
	return call;
}

void fake_call_free(struct rpc_call *call)
{
	assert(call->finished);
	/* Let what is on its way out leave: the deferred function names this call. */
	while (call->sending && !call->hold_sends)
		run_deferred();
	for (unsigned int i = 0; i < call->n_sent; i++)
		free(call->sent[i]);
	for (unsigned int i = 0; i < call->n_arena; i++)
		free(call->arena[i]);
	free(call->sent);
	free(call->sent_length);
	free(call->arena);
	free(call->reply);
	free(call);
}

void fake_call_cancel(struct rpc_call *call)
{
	struct pdk_error why;

	assert(!call->finished && !call->cancelled);
	call->cancelled = true;
	pdk_fail(&why, -ECANCELED, PDK_CANCELLED, "cancelled");
	if (call->events && call->events->on_cancel)
		call->events->on_cancel(call, &why);
}

void fake_call_sent(struct rpc_call *call)
{
	assert(call->sending);
	call->sending = false;
	if (call->events && call->events->on_sent && !call->finished)
		call->events->on_sent(call);
}

void rpc_set_events(struct rpc_call *call, const struct rpc_events *events, void *user)
{
	call->events = events;
	call->user = user;
}

void *rpc_user(const struct rpc_call *call)
{
	return call->user;
}

const struct principal *rpc_principal(const struct rpc_call *call)
{
	return &call->principal;
}

bool rpc_is_cancelled(const struct rpc_call *call)
{
	return call->cancelled;
}

void *rpc_alloc(struct rpc_call *call, size_t size)
{
	assert(!call->finished);
	if (size > call->arena_left)
		return NULL;
	call->arena_left -= size;
	call->arena = reallocarray(call->arena, call->n_arena + 1, sizeof(void *));
	return call->arena[call->n_arena++] = calloc(1, size ? size : 1);
}

void rpc_read(struct rpc_call *call)
{
	call->reads++;
}

bool rpc_can_send(const struct rpc_call *call)
{
	return !call->sending && !call->cancelled;
}

static void sent_later(void *arg)
{
	struct rpc_call *call = arg;

	if (!call->hold_sends && call->sending)
		fake_call_sent(call);
}

void rpc_send(struct rpc_call *call, const ProtobufCMessage *message)
{
	size_t length = protobuf_c_message_get_packed_size(message);

	assert(!call->finished);
	if (call->cancelled)
		return;
	assert(!call->sending);
	call->sending = true;
	call->sent = reallocarray(call->sent, call->n_sent + 1, sizeof(uint8_t *));
	call->sent_length = reallocarray(call->sent_length, call->n_sent + 1, sizeof(size_t));
	call->sent[call->n_sent] = malloc(length + 1);
	call->sent_length[call->n_sent] = length;
	protobuf_c_message_pack(message, call->sent[call->n_sent++]);
	if (!call->hold_sends)
		loop_defer(sent_later, call);
}

void rpc_audit_detail(struct rpc_call *call, const char *json)
{
}

bool rpc_hold(struct rpc_call *call, const char *id, void (*release)(const char *id))
{
	return false; /* sandboxes with an idle timeout are looked at in tests/api */
}

void rpc_audit_object(struct rpc_call *call, const char *sandbox_id, const char *object)
{
	snprintf(call->object, sizeof(call->object), "%s", sandbox_id ? sandbox_id : object);
}

static void finish(struct rpc_call *call, enum pdk_code code, const char *text, const ProtobufCMessage *reply)
{
	assert(!call->finished);
	call->finished = true;
	call->code = code;
	snprintf(call->text, sizeof(call->text), "%s", text);
	if (!reply)
		return;
	call->reply_length = protobuf_c_message_get_packed_size(reply);
	call->reply = malloc(call->reply_length + 1);
	protobuf_c_message_pack(reply, call->reply);
}

void rpc_finish(struct rpc_call *call, const ProtobufCMessage *reply)
{
	finish(call, PDK_OK, "", reply);
}

static void finish_committed(int rc, void *arg)
{
	struct rpc_call *call = arg;

	call->finished = true;
	if (rc < 0)
		call->code = PDK_UNAVAILABLE;
}

void rpc_finish_commit(struct rpc_call *call, struct store_batch *batch, const ProtobufCMessage *reply)
{
	finish(call, PDK_OK, "", reply);
	call->finished = false;
	call->events = NULL;
	store_commit(batch, finish_committed, call);
}

void rpc_finish_kept(struct rpc_call *call, struct store_batch *batch, const ProtobufCMessage *reply)
{
	finish(call, PDK_OK, "", reply);
	store_commit(batch, NULL, NULL);
}

bool rpc_can_park(const struct rpc_call *call)
{
	return false;
}

void rpc_park(struct rpc_call *call)
{
	assert(false);
}

void rpc_unpark(struct rpc_call *call)
{
	assert(false);
}

void rpc_unpark_fail(struct rpc_call *call, const struct pdk_error *err)
{
	assert(false);
}

void rpc_fail(struct rpc_call *call, const struct pdk_error *err)
{
	finish(call, err->code, err->text, NULL);
}

struct commit {
	struct rpc_call *call;
	void (*done)(struct rpc_call *call, int rc);
};

static void commit_done(int rc, void *arg)
{
	struct commit *commit = arg;

	commit->done(commit->call, rc);
	free(commit);
}

void rpc_commit(struct rpc_call *call, struct store_batch *batch, void (*done)(struct rpc_call *call, int rc))
{
	struct commit *commit = malloc(sizeof(*commit));

	*commit = (struct commit){.call = call, .done = done};
	store_commit(batch, commit_done, commit);
}

/* --- tenants --- */

struct tenant_quota fake_quota;

void tenant_get_quota(const char *name, struct tenant_quota *ret)
{
	*ret = fake_quota;
}

int tenant_take_create(const char *name, struct pdk_error *err)
{
	return 0;
}

/* --- guests --- */

struct guest {
	struct guest *next;
	struct sandbox *sandbox;
	void (*ready)(struct guest *guest, int rc, void *arg);
	void *arg;
	bool freed, broken;
};

static struct guest *guests;
bool fake_guest_silent, fake_guest_refuses;
unsigned int fake_guest_setups, fake_guests;

static void guest_answer(void *arg)
{
	struct guest *guest = arg;

	if (guest->freed) {
		free(guest);
		return;
	}
	guest->next = guests;
	guests = guest;
	if (!fake_guest_silent && guest->ready)
		guest->ready(guest, fake_guest_refuses ? -EPROTO : 0, guest->arg);
}

struct guest *guest_create(struct sandbox *sandbox, int fd, char *const *env, size_t n_env, const char *hostname,
			   void (*ready)(struct guest *guest, int rc, void *arg), void *arg)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	close(fd);
	guest->sandbox = sandbox;
	guest->ready = ready;
	guest->arg = arg;
	fake_guests++;
	loop_defer(guest_answer, guest);
	return guest;
}

bool fake_guest_starts;

bool guest_has_start(const struct guest *guest)
{
	return fake_guest_starts;
}

bool guest_has_ready(const struct guest *guest)
{
	return fake_guest_starts;
}

/* --- calls from inside: the test says how each ends --- */

struct rpc_local {
	const struct rpc_local_events *events;
	void *arg;
};

struct rpc_local *fake_local;
char fake_local_file[64], fake_local_sandbox[32];

struct rpc_local *rpc_local_open_as(const struct principal *principal, const char *path,
				    const ProtobufCMessage *request, const struct rpc_local_events *events, void *arg)
{
	const Paddock__V1__StartProcessRequest *start = (const void *)request;

	assert_non_null(principal);
	assert_null(fake_local);
	assert_string_equal(path, "/paddock.v1.Processes/Start");
	snprintf(fake_local_file, sizeof(fake_local_file), "%s", start->argv[0]);
	snprintf(fake_local_sandbox, sizeof(fake_local_sandbox), "%s", start->sandbox_id);
	fake_local = calloc(1, sizeof(*fake_local));
	*fake_local = (struct rpc_local){events, arg};
	return fake_local;
}

void rpc_local_next(struct rpc_local *local)
{
	assert_ptr_equal(local, fake_local);
}

void rpc_local_cancel(struct rpc_local *local)
{
	if (!local)
		return;
	assert_ptr_equal(local, fake_local);
	free(STEAL_PTR(fake_local));
}

void fake_local_exit(uint32_t status)
{
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;
	Paddock__V1__ProcessExit ended = PADDOCK__V1__PROCESS_EXIT__INIT;

	ended.exit_code = status;
	event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED;
	event.exited = &ended;
	fake_local->events->on_message(fake_local->arg, &event.base);
}

void fake_local_end(enum pdk_code code)
{
	struct rpc_local *local = STEAL_PTR(fake_local);
	struct pdk_error end = {.code = code, .text = "because"};

	local->events->on_end(local->arg, &end);
	free(local);
}

void guest_drop(struct guest *guest, const char *why)
{
	guest_free(guest);
}

void guest_free(struct guest *guest)
{
	if (!guest)
		return;
	fake_guests--;
	guest->freed = true;
	for (struct guest **slot = &guests; *slot; slot = &(*slot)->next) {
		if (*slot != guest)
			continue;
		*slot = guest->next;
		free(guest);
		return;
	}
}

void fake_guest_break_all(const char *text)
{
	for (struct guest *guest = guests; guest; guest = guest->next)
		sandbox_guest_lost(guest->sandbox, text);
}

int guest_setup(struct guest *guest, char *const *env, size_t n_env, const char *hostname, const char *machine_id)
{
	fake_guest_setups++;
	return 0;
}

struct hanging {
	struct guest *guest;
	void (*done)(void *arg);
	void *arg;
};

static void guest_is_gone(void *arg)
{
	struct hanging *hanging = arg;

	if (!hanging->guest->freed) {
		guest_free(hanging->guest);
		hanging->done(hanging->arg);
	}
	free(hanging);
}

void guest_hang_up(struct guest *guest, void (*done)(void *arg), void *arg)
{
	struct hanging *hanging = malloc(sizeof(*hanging));

	*hanging = (struct hanging){guest, done, arg};
	loop_defer(guest_is_gone, hanging);
}

int processes_suspend(struct sandbox *sandbox)
{
	return 0;
}

unsigned int fake_guest_resumed;
uint64_t fake_guest_paused_ms;

int guest_resumed(struct guest *guest, uint64_t paused_ms)
{
	assert_non_null(guest);
	fake_guest_resumed++;
	fake_guest_paused_ms = paused_ms;
	return 0;
}

/* --- processes, log, metrics --- */

unsigned int fake_processes_ended, fake_processes_forgotten, fake_processes_adopted;

void processes_adopt(struct sandbox *sandbox, void (*done)(struct sandbox *sandbox, int rc))
{
	fake_processes_adopted++;
	done(sandbox, 0);
}

int processes_record(struct sandbox *sandbox, struct Paddock__Internal__StoredProcess *ret[PROCESSES_RUNNING_MAX],
		     size_t *ret_count)
{
	*ret_count = 0;
	return 0;
}

int processes_inherit(struct sandbox *sandbox, struct Paddock__Internal__StoredProcess *const *records, size_t count,
		      struct store_batch *batch)
{
	return 0;
}

int processes_replace(struct sandbox *sandbox, struct Paddock__Internal__StoredProcess *const *records, size_t count,
		      struct store_batch *batch, struct process_list **ret_old)
{
	*ret_old = NULL;
	return 0;
}

struct processes_ended *processes_end_old(struct process_list *old)
{
	fake_processes_ended++;
	return NULL;
}

void processes_told(struct processes_ended *ended, int rc)
{
}

void output_remove_sandbox(const char *dir, const char *sandbox_id)
{
	fake_processes_forgotten++;
}

void processes_end(struct sandbox *sandbox)
{
	fake_processes_ended++;
}

void processes_forget(struct sandbox *sandbox)
{
	fake_processes_forgotten++;
}

void processes_let_go(struct sandbox *sandbox)
{
}

unsigned int fake_previews_ended, fake_previews_suspended;

void previews_end(struct sandbox *sandbox)
{
	fake_previews_ended++;
}

void previews_suspend(struct sandbox *sandbox)
{
	fake_previews_suspended++;
}

void log_event(enum log_level level, const char *event, ...)
{
	if (getenv("PADDOCK_TEST_LOG"))
		fprintf(stderr, "# log: %s\n", event);
}

const char *log_u64(uint64_t value)
{
	return "";
}

const char *log_i64(int64_t value)
{
	return "";
}

void metric_add(enum metric metric, int64_t delta)
{
}

void metric_set(enum metric metric, int64_t value)
{
}
