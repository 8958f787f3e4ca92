#include "admin.h"

#include "admin_private.h"
#include "keys.h"
#include "loop.h"
#include "paddock/v1/admin.pb-c.h"
#include "rpc.h"
#include "status.h"
#include "store.h"
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

/* The Admin service: who am I, and what the server holds. Tenants are in tenants.c, keys in keys.c. */

static int64_t started_unix_ms;

void admin_note_start(void)
{
	started_unix_ms = loop_wall_ms();
}

static void ignore_cancel(struct rpc_call *call, const struct pdk_error *why)
{
}

void admin_begin_change(struct rpc_call *call, void *user)
{
	static const struct rpc_events events = {.on_cancel = ignore_cancel};

	rpc_set_events(call, &events, user);
}

void admin_fail_change(struct rpc_call *call, int rc)
{
	struct pdk_error err;

	pdk_fail(&err, rc, PDK_UNAVAILABLE, "the change could not be stored");
	rpc_fail(call, &err);
}

void admin_who_am_i(struct rpc_call *call, const struct ProtobufCMessage *request)
{
	const struct principal *principal = rpc_principal(call);
	Paddock__V1__WhoAmIResponse reply = PADDOCK__V1__WHO_AM_IRESPONSE__INIT;
	char *scopes[4];

	reply.tenant = (char *)principal->tenant;
	reply.key_id = (char *)principal->key_id;
	reply.scopes = scopes;
	reply.n_scopes = scope_names(principal->scopes, scopes);
	reply.operator_ = principal->is_operator;
	reply.server_version = (char *)PADDOCK_VERSION;
	rpc_finish(call, &reply.base);
}

void admin_get_status(struct rpc_call *call, const struct ProtobufCMessage *request)
{
	Paddock__V1__ServerStatus reply = PADDOCK__V1__SERVER_STATUS__INIT;
	struct server_status_numbers numbers = {0};
	struct utsname kernel;

	sandboxes_status(&numbers);
	reply.version = (char *)PADDOCK_VERSION;
	reply.started_unix_ms = started_unix_ms;
	reply.sandboxes = numbers.sandboxes;
	reply.pooled = numbers.pooled;
	reply.reserved_memory_bytes = numbers.reserved_memory_bytes;
	reply.reservable_memory_bytes = numbers.reservable_memory_bytes;
	reply.reserved_disk_bytes = numbers.reserved_disk_bytes;
	reply.reservable_disk_bytes = numbers.reservable_disk_bytes;
	reply.audit_records = store_audit_count();
	if (!uname(&kernel))
		reply.kernel = kernel.release;
	rpc_finish(call, &reply.base);
}
