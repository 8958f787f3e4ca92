#ifndef PADDOCK_SERVER_SANDBOX_INTERNAL_H
#define PADDOCK_SERVER_SANDBOX_INTERNAL_H

#include "loop.h"
#include "paddock/internal/store.pb-c.h"
#include "sandboxes.h"
#include "store.h"
#include "validate.h"

/*
 * What the sandbox_*.c files share; nobody else includes this. Everything under the loop lock.
 *
 * Life of a sandbox (state; entered by; leaves to):
 *
 *	CREATING  Create without a pool hit, or a refill of the pool; -> RUNNING, KILLING
 *	RUNNING   init answered, the record is on its way to the store; -> PAUSING, KILLING
 *	PAUSING   Pause: the warden is asked to freeze it (sandbox_pause.c); -> PAUSED, RUNNING, KILLING
 *	PAUSED    nothing in it runs; `guest` is NULL when the server was restarted meanwhile; -> RESUMING, KILLING
 *	RESUMING  Resume: the link is there again, the warden thaws it; -> RUNNING, PAUSED, KILLING
 *	KILLING   sandbox_end() for any reason: processes are ended, the link is closed, the warden is asked to
 *		  remove everything (again after a reconnect); -> KILLED, FAILED
 *	KILLED    the warden said that nothing is left, after Kill or the timeout; forgotten after retention
 *	FAILED    the same after any other reason
 *
 * A pre-made sandbox is CREATING or RUNNING with `pooled` set: it has no owner, no record in the store and is
 * in no list; claiming clears the flag. What a crash leaves of it is unknown to the store, so it is removed.
 */

#define SANDBOX_TIMEOUT_MIN_MS 1000
#define SANDBOX_TIMEOUT_MAX_MS 86400000
#define METADATA_PAIRS_MAX 64 /* CreateSandboxRequest.metadata */

/* A list of strings in one allocation. */
struct text_list {
	size_t count;
	char *item[];
};

/* A call that waits for the end of a create or of a kill; lives in the call's arena. */
struct sandbox_waiter {
	struct sandbox_waiter *next;
	struct sandbox_waiter **list;
	struct sandbox *sandbox;
	struct rpc_call *call;
};

/* What one tenant has. Exists while anything of it is not 0. */
struct sandbox_owner {
	struct sandbox_owner *next_bucket;
	struct sandbox *newest; /* its sandboxes, ended ones included */
	uint32_t known;
	uint32_t living;       /* those that have not ended */
	uint32_t keys;         /* remembered idempotency keys */
	uint64_t memory_bytes; /* limits of the living */
	uint64_t disk_bytes;
	uint32_t snapshots;
	uint64_t snapshot_bytes;
	char name[TENANT_NAME_MAX + 1];
};

struct sandbox_list_link {
	struct sandbox *newer, *older;
};

struct idempotency;

struct snapshot;
struct fork_copy;
struct usage_history;

struct sandbox_private {
	struct sandbox *next_bucket, *next_moved;
	struct sandbox_list_link by_owner, by_server; /* newest first; not while pooled */
	struct sandbox_owner *owner;
	struct sandbox *ended_before, *ended_after; /* the queue of ended ones, for retention */
	struct loop_timer timer;    /* expiry while RUNNING, repeated tear-down while KILLING, retention afterwards */
	struct text_list *metadata; /* key, value, key, value, ... */
	struct text_list *env;      /* NAME=value */
	char *end_text;
	enum pdk_code end_code;          /* CREATING: what its clients hear, if not UNAVAILABLE */
	struct idempotency *idempotency; /* the key that waits for this create */
	struct sandbox_waiter *creators;
	struct sandbox_start *start; /* RUNNING, and its image's start command is not ready: creators wait */
	struct sandbox_waiter *killers;
	struct sandbox_waiter *pausers, *resumers;
	Paddock__V1__PauseMode pause_mode; /* PAUSED and RESUMING; 0 otherwise */
	int64_t paused_unix_ms;
	uint64_t paused_ns; /* loop_now_ns() then; 0: before this server started */
	uint64_t resume_timeout_ms;
	Paddock__V1__PauseMode pausing_mode; /* PAUSING: what it will be */
	Paddock__V1__TimeoutAction on_timeout;
	bool auto_resume;
	/* sandbox_idle.c */
	uint64_t idle_timeout_ms;                      /* 0: it may be idle for ever */
	uint32_t uses;                                 /* open calls and visits that keep it from being idle */
	uint64_t active_ns;                            /* when it was last found in use */
	uint64_t look_ns, look_cpu_usec, look_io_usec; /* the last look; look_ns 0: none */
	struct loop_timer idle_timer;
	bool idle_watched;
	/* sandbox_metrics.c */
	struct usage_history *history; /* NULL until its first sample */
	struct loop_timer sample_timer;
	bool sampled;                  /* the timer is armed, or was when it last fired */
	bool keep_paused;              /* PAUSING and PAUSED: its timeout stands still; PAUSED: expires_unix_ms is 0 */
	bool timed_out;                /* PAUSING: because its timeout ran out, or it was idle */
	bool freeze_else;              /* PAUSING to disk: freeze it when that is refused */
	const char *pause_text;        /* why it is paused, or is being paused; one of a few constants */
	bool settling;                 /* PAUSED: not durable yet, or its processes are being ended */
	bool memory_given;             /* PAUSED: its memory does not count */
	bool committing;               /* PAUSED: not durable yet */
	struct sandbox_waiter *parked; /* calls that wait until there is a link (again) */
	uint64_t checkpoint_token;     /* of what the warden has on disk; 0: none */
	uint64_t checkpoint_bytes, stored_bytes; /* its size, and that on disk */
	/* Pipes and link are being let go (sandbox_detach.c). */
	unsigned int detach_tries;
	struct loop_timer detach_timer;
	void (*detached)(struct sandbox *sandbox, int rc);
	struct snapshot *snapshot;         /* RUNNING: one that is being taken of it; pauses wait until that is whole */
	struct snapshot *origin;           /* CREATING: what it is made from */
	struct fork_copy *copy;            /* CREATING: the fork that asked for it */
	bool bare;                         /* only the layer of `origin`, nothing that runs */
	char origin_id[SANDBOX_ID_SIZE];   /* the snapshot that it was made from; "": its template alone */
	struct sandbox_reset *reset;       /* being reset, or (`twin`) being made for that */
	bool twin;                         /* what a reset changes places with: nobody sees it; `pooled` too */
	uint64_t inherited_bytes;          /* of the snapshot that it was made from, in its layer */
	const char *default_user;          /* of commands and files: "user" or "root" */
	char *default_cwd;                 /* of commands; NULL: the home directory */
	bool thawed;                       /* RESUMING: the warden has done its part */
	bool frozen, in_store, in_transit; /* reconciliation: as the warden's list says */
	bool unsettled;                    /* reconciliation: the warden is to be asked again */
	Paddock__V1__PortAccess port_access;
	char port_host_header[VALIDATE_HOST_PATTERN_MAX + 1];
	uint64_t timeout_ms;     /* as Create asked: counts from RUNNING */
	bool pooled;             /* pre-made and not yet claimed */
	bool counted;            /* in the owner's and admission's sums */
	bool asked_for;          /* WARDEN_CREATE was sent: the warden may have something of it */
	bool creating_in_warden; /* WARDEN_CREATE is not answered yet: WARDEN_KILL waits for that */
	bool killing_in_warden;
	bool guest_lost; /* it is ending because the link broke: the warden may know a better reason */
	bool discard;    /* nobody was told of it: leave no record when it is gone */
	bool adopting;   /* RUNNING, but its link is being made again */
	bool expected;   /* reconciliation: must be in the warden's list */
	bool seen;
};

extern struct sandbox *sandbox_newest; /* of all tenants */

/* --- sandboxes.c: the table --- */
struct sandbox *sandbox_new(const char *id); /* calloc'ed, in the table; NULL when out of memory */
struct sandbox *sandbox_get(const char *id); /* by exact id, or NULL */
/* By what the warden calls it. */
struct sandbox *sandbox_get_kernel(const char *kernel_id);
void sandbox_set_kernel(struct sandbox *sandbox, const char *kernel_id);
/* Each becomes what the other one was for the warden. */
void sandbox_swap_kernels(struct sandbox *a, struct sandbox *b);
/* Give it to its tenant: lists and counters. -ENOMEM. */
int sandbox_own(struct sandbox *sandbox);
/* The memory of one that is on disk does not count. Taking it again: RESOURCE_EXHAUSTED. */
void sandbox_give_memory(struct sandbox *sandbox);
int sandbox_take_memory(struct sandbox *sandbox, struct pdk_error *err);
/* Whether it is there or not: it runs already. */
void sandbox_hold_memory(struct sandbox *sandbox);
/* Out of the table, the lists, memory. */
void sandbox_drop(struct sandbox *sandbox);
/* Reserve the limits for owner and server, or give them back; each at most once. */
void sandbox_count(struct sandbox *sandbox);
void sandbox_uncount(struct sandbox *sandbox);
void sandbox_each(void (*visit)(struct sandbox *sandbox, void *arg), void *arg); /* visit may drop the visited */
/* The ones of a tenant (NULL: of all) that have not ended, without pre-made ones. */
void sandbox_each_living(const char *tenant, void (*visit)(const struct sandbox *sandbox, void *arg), void *arg);
struct sandbox_owner *sandbox_owner_find(const char *tenant);
struct sandbox_owner *sandbox_owner_get(const char *tenant); /* makes it; NULL when out of memory */
void sandbox_owner_put(struct sandbox_owner *owner);         /* frees it if nothing is left */
bool sandbox_is_living(const struct sandbox *sandbox);
/* FAILED_PRECONDITION if it has ended, or is being killed. */
int sandbox_check_living(const struct sandbox *sandbox, struct pdk_error *err);
/* One more (or less) that needs the template's content. */
void sandbox_template_use(const char *template_id, int delta);
/* True when the caller may know of it. */
bool sandbox_visible(const struct principal *principal, const struct sandbox *sandbox);

/* --- sandbox_record.c: the sandbox as stored and as shown --- */
struct text_list *text_list_from_map(const void *entries, size_t count, char separator); /* 0: two items a pair */
struct text_list *text_list_copy(char *const *items, size_t count);
int sandbox_store(struct store_batch *batch, const struct sandbox *sandbox);
int sandbox_unstore(struct store_batch *batch, const struct sandbox *sandbox);
/* A stored record into the table; -EBADMSG. */
int sandbox_load(const void *value, size_t length, Paddock__Internal__SandboxIntent *ret_intent, struct sandbox **ret);
/* The API message in a caller's block of sandbox_message_size() bytes (zeroed); points into the sandbox. */
size_t sandbox_message_size(const struct sandbox *sandbox);
Paddock__V1__Sandbox *sandbox_message(const struct sandbox *sandbox, void *block);
/* The message in the call's arena, or NULL after failing the call. */
Paddock__V1__Sandbox *sandbox_reply(struct rpc_call *call, const struct sandbox *sandbox);
/* Store it as it is now; nobody waits for that. */
void sandbox_save(const struct sandbox *sandbox);
/* A call has changed it: store that, tell of it, and answer with what it is now when that is durable. -ENOMEM: the call
 * has failed, and the change is to be taken back. */
int sandbox_save_for(struct rpc_call *call, struct sandbox *sandbox, Paddock__V1__SandboxEvent__Type event);

/* --- sandbox_access.c --- */
#define SANDBOX_TOKEN_LEN 64
/* The access token of a sandbox. */
bool sandbox_access_token(const char *sandbox_id, char token[SANDBOX_TOKEN_LEN + 1]);
/* What opens its ports; "" when they are closed to everybody. */
bool sandbox_traffic_token(const struct sandbox *sandbox, char token[SANDBOX_TOKEN_LEN + 1]);
/* Who comes to this port of it must show the traffic token: all with PORT_ACCESS_TOKEN, and that of the code
 * interpreter. */
bool sandbox_port_wants_token(const struct sandbox *sandbox, uint32_t port);
/* The traffic token, compared in constant time. */
bool sandbox_traffic_check(const struct sandbox *sandbox, const char *token);

/* --- admission.c --- */
/* The box's size. `total_disk_bytes` of 0: not known yet, so not limited. */
void admission_start(void);
void admission_set_disk(uint64_t total_disk_bytes);
void admission_reserve(const struct warden_limits *limits, bool pooled);
void admission_release(const struct warden_limits *limits, bool pooled);
/* May one more be made? RESOURCE_EXHAUSTED names what is full. Pre-made sandboxes do not count against a client (they
 * make room), but they do against a refill. */
int admission_check(const struct warden_limits *limits, bool pooled, struct pdk_error *err);
/* Memory of clients' sandboxes that is given back while they are on disk. */
void admission_hold_memory(int64_t delta_bytes);
int admission_check_memory(uint64_t bytes, struct pdk_error *err);
/* Disk that snapshots hold, in the clients' sum. */
void admission_hold_disk(int64_t delta_bytes);
int admission_check_disk(uint64_t bytes, struct pdk_error *err);
/* True while living and pre-made ones together are more than the box takes. */
bool admission_is_over(void);

/* --- sandbox_create.c --- */
/* Ask the warden for the kernel objects, then init for its hello. Failures end the sandbox as CREATE_FAILED. */
void sandbox_make(struct sandbox *sandbox);
/* The same for a copy that no call waits for: `copy` hears of its end by fork_copy_over(), unless this fails. */
int sandbox_start_copy(struct snapshot *snapshot, const char *tenant, const Paddock__V1__CreateSandboxRequest *request,
		       struct fork_copy *copy, struct pdk_error *err);
/* Finish every call that waits for this create. */
void sandbox_creators_fail(struct sandbox *sandbox, const struct pdk_error *err);
/* Waiters of either list: -ENOMEM when the call's arena is full. */
int sandbox_wait(struct sandbox *sandbox, struct sandbox_waiter **list, struct rpc_call *call,
		 void (*on_cancel)(struct rpc_call *call, const struct pdk_error *why));
struct sandbox_waiter *sandbox_waiter_take(struct sandbox_waiter **list);
void sandbox_waiter_remove(struct sandbox_waiter *waiter);

/* It runs, and so does what its image starts: answer every call that waits for this create. With the batch the first
 * answer waits for it; NULL: nothing is to be stored. */
void sandbox_creators_answer(struct sandbox *sandbox, struct store_batch *batch);

/* --- sandbox_start.c --- */
/* RUNNING, and guest_has_start(): start that, with the rights of `principal`. `over` hears that it is ready (NULL), or
 * why not; not after sandbox_start_cancel(). */
void sandbox_start_begin(struct sandbox *sandbox, const struct principal *principal,
			 void (*over)(struct sandbox *sandbox, const struct pdk_error *err));
/* It is ending, or nobody waits any more. */
void sandbox_start_cancel(struct sandbox *sandbox);

/* --- snapshot_take.c --- */
/* It is ending: a snapshot that is not copied yet will not come. */
void sandbox_snapshot_fail(struct sandbox *sandbox);
/* Its link is there again. */
void sandbox_snapshot_linked(struct sandbox *sandbox);

/* --- sandbox_copy.c --- */
/* CREATING from a snapshot: what the warden is asked for instead. */
void sandbox_copy_request(const struct sandbox *sandbox, struct warden_request *request);
/* What the snapshot says where a create says nothing. */
void sandbox_copy_limits(const struct snapshot *snapshot, Paddock__V1__Resources *resources);
struct text_list *sandbox_copy_env(const struct snapshot *snapshot, const struct text_list *asked);
/* Another machine id than the one in its layer. */
int sandbox_copy_rename(struct sandbox *sandbox);
/* Its init has answered: it gets its processes; `done` when they are taken over. */
void sandbox_copy_fill(struct sandbox *sandbox, void (*done)(struct sandbox *sandbox, int rc));
/* It runs, or is gone: the snapshot is not needed for it any more. */
void sandbox_copy_over(struct sandbox *sandbox);
/* Its fork learns what became of it: NULL, it runs. */
void fork_copy_over(struct sandbox *sandbox, const struct pdk_error *err);

/* --- sandbox_end.c --- */
/* Begin the end of a CREATING or RUNNING sandbox; nothing for one that is ending already. */
void sandbox_end(struct sandbox *sandbox, Paddock__V1__EndReason reason, const char *text);
/* The same from a fresh stack: for callers that are inside guest.c. */
void sandbox_end_soon(const struct sandbox *sandbox, Paddock__V1__EndReason reason, const char *text);
/* (Re-)send WARDEN_KILL for a KILLING one. */
void sandbox_tear_down(struct sandbox *sandbox);
/* The warden has nothing of it (any more). */
void sandbox_gone(struct sandbox *sandbox);
/* Kill and answer `call` when nothing is left. */
void sandbox_kill_for(struct rpc_call *call, struct sandbox *sandbox);
void sandbox_exited(const struct warden_reply *event);
void sandbox_audit(struct store_batch *batch, const struct sandbox *sandbox, const char *action, const char *detail);

/* --- sandbox_pause.c, sandbox_timeout.c --- */
/* It is ending: tell who waits for a pause or a resume. */
void sandbox_pause_fail(struct sandbox *sandbox);
/* RESUMING, and the link is connected: say how long it stood still, and let it go on. */
void sandbox_resume_thaw(struct sandbox *sandbox);
/* The warden could not be asked for a link after all. */
void sandbox_resume_unattached(struct sandbox *sandbox);
/* RESUMING: one of the two things that it waits for came. */
void sandbox_resume_done(struct sandbox *sandbox);
/* The record says PAUSED or RUNNING, the warden's list something else: make the warden follow the record. A sandbox
 * that is found running though its record says that it is on disk was being resumed: it becomes RUNNING. */
void sandbox_settle_pause(struct sandbox *sandbox);

/* The state is PAUSED and durable: tell everybody. */
void sandbox_paused(struct sandbox *sandbox);
/* It runs on, or stays paused: tell everybody why. */
void sandbox_pause_failed(struct sandbox *sandbox, const struct pdk_error *err);
void sandbox_resume_failed(struct sandbox *sandbox, const struct pdk_error *err);

/* The snapshot that was being taken of it is over: what waited for that goes on. */
void sandbox_snapshot_over(struct sandbox *sandbox);

/* --- sandbox_reset.c --- */
/* The twin's init has answered. */
void sandbox_reset_ready(struct sandbox *twin);
/* Its link is there again. */
void sandbox_reset_linked(struct sandbox *sandbox);
/* It is ending, itself or as a twin. */
void sandbox_reset_fail(struct sandbox *sandbox);
/* The server ends. */
void sandbox_reset_let_go(struct sandbox *sandbox);

/* --- sandbox_detach.c --- */
/* Let go of everything of a RUNNING or PAUSING sandbox that leads outside: pipes, then the link. `done` runs with 0
 * when init has closed its end (`guest` is NULL then), or with a negative errno and nothing is changed. The sandbox's
 * end takes it back. */
void sandbox_detach(struct sandbox *sandbox, void (*done)(struct sandbox *sandbox, int rc));

/* RUNNING, and its timeout has run out: pause it. False: kill it. */
bool sandbox_pause_at_timeout(struct sandbox *sandbox);
/* RUNNING, and it was idle for too long: pause it. False: kill it. */
bool sandbox_pause_idle(struct sandbox *sandbox);
/* The pause that on_timeout asked for failed: END_REASON_IDLE or _TIMEOUT. */
Paddock__V1__EndReason sandbox_pause_reason(const struct sandbox *sandbox);
void sandbox_restart_timeout(struct sandbox *sandbox, uint64_t timeout_ms);
/* For the audit log, or NULL. */
const char *sandbox_pause_detail(const struct sandbox *sandbox);
/* RUNNING, with all that a pause needs to know: begin it. */
void sandbox_begin_pause(struct sandbox *sandbox);
/* A call waits for it. */
void sandbox_resume_on_use(struct sandbox *sandbox);
/* It is to be PAUSED: its timeout stands still, if that was asked for. */
void sandbox_stop_timeout(struct sandbox *sandbox);
/* One of the constants that pause_text may be, from the store. */
const char *sandbox_pause_text(const char *text);

/* --- sandbox_park.c --- */
/* Make a call wait for the link instead of failing. It starts anew then: its handler has done nothing yet. False: it
 * cannot wait. */
bool sandbox_park(const struct rpc_call *call, struct sandbox *sandbox);
/* Let those that wait try again: there is a link, or it has ended. */
void sandbox_unpark(struct sandbox *sandbox);
void sandbox_park_fail(struct sandbox *sandbox, const struct pdk_error *err);
/* PAUSED, and a call or a visit wants it to go on. Soon. */
void sandbox_wake(struct sandbox *sandbox);

/* --- sandbox_checkpoint.c --- */
/* What the warden's refusal means to a client. `what`: "sandbox could not be paused". */
enum pdk_code sandbox_code_of(const struct warden_reply *reply);
void sandbox_explain(const struct warden_reply *reply, const char *what, struct pdk_error *err);
/* What belongs together on disk has the same number: a new one, not 0. */
uint64_t checkpoint_token_make(void);
/* The link was given up for nothing, or is over with: make it again. */
void sandbox_link_again(struct sandbox *sandbox);
/* PAUSING: put it on disk. */
void sandbox_checkpoint(struct sandbox *sandbox);
/* RESUMING: bring it back. */
void sandbox_restore(struct sandbox *sandbox);
/* PAUSED on disk, and its processes may still be there: end them. */
void sandbox_release(struct sandbox *sandbox);

/* --- sandbox_expiry.c --- */
void sandbox_change_timeout(struct rpc_call *call, struct sandbox *sandbox, uint64_t timeout_ms);
void sandbox_arm_expiry(struct sandbox *sandbox);
/* Somebody uses it: its timeout starts again. It never gets shorter by that. */
void sandbox_touch(struct sandbox *sandbox);
void sandbox_arm_retention(struct sandbox *sandbox);
void sandbox_expiry_stop(void);

/* --- sandbox_idle.c --- */
/* It runs (again), or its idle timeout has changed: it is in use now, and looked at from now on. */
void sandbox_idle_watch(struct sandbox *sandbox);
/* It ends. */
void sandbox_idle_stop(struct sandbox *sandbox);

/* --- sandbox_metrics.c --- */
/* It runs (again): take samples from now on. */
void sandbox_metrics_watch(struct sandbox *sandbox);
/* It ends: no more, and what is kept is forgotten. */
void sandbox_metrics_stop(struct sandbox *sandbox);

/* --- sandbox_pool.c --- */
/* A ready one of this template with these limits, or NULL: the warden gives the host name, so that must be the default, too.
 * The caller becomes responsible for it. */
struct sandbox *sandbox_pool_claim(const char *template_id, const char *hostname, const struct warden_limits *limits);
/* Something changed (a claim, an end, a new template): look at the level again soon. */
void sandbox_pool_wake(void);
/* A pre-made one became ready, or ended. */
void sandbox_pool_ready(struct sandbox *sandbox);
void sandbox_pool_lost(struct sandbox *sandbox, bool was_ready);
/* End the ready ones of this template. */
void sandbox_pool_evict(const char *template_id);
/* Give back what the box needs for clients. */
void sandbox_pool_trim(void);
uint32_t sandbox_pool_count(void);
void sandbox_pool_start(void);
void sandbox_pool_stop(void);

/* --- sandbox_idempotency.c --- */
enum idempotency_verdict {
	IDEMPOTENCY_NEW,     /* remembered as pending: settle or forget it */
	IDEMPOTENCY_PENDING, /* another call makes it: wait for *ret_sandbox */
	IDEMPOTENCY_DONE,    /* *ret_sandbox is the answer */
};
/* enum idempotency_verdict, or ABORTED / RESOURCE_EXHAUSTED. */
int idempotency_begin(const char *tenant, const Paddock__V1__CreateSandboxRequest *request, struct idempotency **ret,
		      struct sandbox **ret_sandbox, struct pdk_error *err);
void idempotency_bind(struct idempotency *entry, struct sandbox *sandbox);
/* The sandbox runs: remember for a day, in the same transaction. */
int idempotency_settle(struct idempotency *entry, struct store_batch *batch);
void idempotency_forget(struct idempotency *entry);
int idempotency_start(void);
void idempotency_stop(void);

/* --- sandbox_events.c --- */
void sandbox_event(const struct sandbox *sandbox, Paddock__V1__SandboxEvent__Type type);
void sandbox_events_start(void);
void sandbox_events_stop(void);

/* --- sandbox_token.c: page tokens of List, bound to the tenant --- */
struct page_cursor {
	int64_t created_unix_ms;
	char id[SANDBOX_ID_SIZE];
};
#define PAGE_TOKEN_SIZE 128
int page_token_start(void);
void page_token_make(const char *tenant, const struct page_cursor *cursor, char token[PAGE_TOKEN_SIZE]);
int page_token_read(const char *tenant, const char *token, struct page_cursor *ret, struct pdk_error *err);

/* --- sandbox_reconcile.c --- */
void sandbox_reconcile(void);
/* What the warden does with it is not known, or not what is thought here: find out. */
void sandbox_ask_again(struct sandbox *sandbox);
/* The link of a RESUMING sandbox that was restored (takes the descriptor). */
void sandbox_link(struct sandbox *sandbox, int fd);
/* Make the link of a RUNNING or RESUMING sandbox again. False: the warden is away. */
bool sandbox_attach(struct sandbox *sandbox);

/* --- templates.c --- */
/* A sandbox of this template ended: content without a name may go now. */
void template_released(const char *template_id);

#endif
