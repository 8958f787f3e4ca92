#ifndef PADDOCK_SERVER_SANDBOXES_H
#define PADDOCK_SERVER_SANDBOXES_H

#include "auth.h"
#include "paddock/v1/sandboxes.pb-c.h"
#include "sandbox/base/id.h"
#include "sandbox/warden/protocol.h"
#include <stdbool.h>
#include <stdint.h>

/* The sandboxes this server knows, living and lately ended: state machine, expiry, pool, reconciliation. */

struct guest;
struct preview;
struct process_list;
struct rpc_call;

struct sandbox {
	char id[SANDBOX_ID_SIZE];
	char kernel_id[SANDBOX_ID_SIZE]; /* what the warden knows it by: `id`, until it is reset */
	char tenant[TENANT_NAME_MAX + 1];
	char template_id[TEMPLATE_ID_SIZE];
	char template_name[64];
	char hostname[64];
	Paddock__V1__SandboxState state;
	Paddock__V1__EndReason end_reason;
	int64_t created_unix_ms;
	int64_t expires_unix_ms;
	int64_t ended_unix_ms;
	int64_t reset_unix_ms; /* 0: never */
	struct warden_limits limits;
	struct guest *guest;             /* the link to its init; NULL unless RUNNING, and perhaps while it is paused */
	struct process_list *processes;  /* processes.c only; NULL at first; freed by processes_forget(), _let_go() */
	struct preview *previews;        /* those in force; previews.c only */
	struct sandbox_private *private; /* sandboxes.c only */
};

/* The owner check, in one place: the caller's sandbox in any state, or NOT_FOUND "sandbox not found" for ids that do
 * not parse, do not exist or are another tenant's. The operator sees all. */
int sandbox_find(const struct rpc_call *call, const char *id, struct sandbox **ret, struct pdk_error *err);
/* As above, and it must be RUNNING (FAILED_PRECONDITION "sandbox has ended" or "sandbox is paused" otherwise). */
int sandbox_find_running(const struct rpc_call *call, const char *id, struct sandbox **ret, struct pdk_error *err);

/* Somebody waits for what happens in it: if it is paused and resumes on use, it goes on, soon. */
void sandbox_want(struct sandbox *sandbox);
/* It is not idle until the call ends. sandbox_find_running() does this. */
void sandbox_use(const struct rpc_call *call, struct sandbox *sandbox);
/* The same for what is no call on it: a visit. */
void sandbox_use_begin(struct sandbox *sandbox);
void sandbox_use_end(struct sandbox *sandbox);

/* Who commands and files belong to, and where commands begin, if the call does not say. "" is the home directory. */
const char *sandbox_default_user(const struct sandbox *sandbox);
const char *sandbox_default_cwd(const struct sandbox *sandbox);

/* What is bound to the sandbox as it is now, and not to what it is after a reset, holds this. */
int64_t sandbox_generation(const struct sandbox *sandbox);

/* Called by guest.c when the link to init broke for good: ends the sandbox as FAILED unless it is being killed. */
void sandbox_guest_lost(struct sandbox *sandbox, const char *text);

uint32_t sandboxes_of_tenant(const char *tenant);
uint32_t sandboxes_of_template(const char *template_id);
/* Kill all of a tenant's sandboxes; `done` runs when they are gone. */
void sandboxes_kill_tenant(const char *tenant, void (*done)(void *arg), void *arg);

/* Load from the store, compare with the warden, adopt or remove, fill the pool. Before rpc_start(). */
int sandboxes_start(struct pdk_error *err);
void sandboxes_stop(void);

/* RPC handlers: rows in table.c */
struct ProtobufCMessage;
void sandboxes_create(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_get(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_set_timeout(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_set_idle_timeout(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_kill(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_pause(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_resume(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_reset(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_watch_events(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_get_access(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_get_usage(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_get_metrics(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_list_metrics(struct rpc_call *call, const struct ProtobufCMessage *request);
void sandboxes_get_quota(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
