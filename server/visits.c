#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"
#include "preview_internal.h"
#include "ration.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"

/*
 * Visits: what the ingress asks (proto/paddock/internal/visit.proto). A visit is an open call; it ends when the ingress
 * has had no traffic for a while, or when we end it: then the ingress cuts what it has open. Whatever a visitor
 * has shown is checked here and nowhere else.
 */

#define BUCKETS 256u
#define REFUSALS_PER_SECOND 10u

#define WHY(name) PADDOCK__INTERNAL__VISIT_REFUSAL__VISIT_##name

typedef Paddock__Internal__VisitRefusal refusal;

struct visit {
	struct visit *next;
	uint64_t number;
	struct rpc_call *call;
	struct sandbox *sandbox;          /* lives as long as the visit: its end cuts it */
	char preview_id[PREVIEW_ID_SIZE]; /* empty: a published port */
	uint16_t port;
	uint64_t began_ns;
	uint64_t requests, bytes_in, bytes_out;
};

static struct visit *buckets[BUCKETS];
static uint64_t last_number;

static struct visit **slot_of(uint64_t number)
{
	struct visit **at = &buckets[number % BUCKETS];

	while (*at && (*at)->number != number)
		at = &(*at)->next;
	return at;
}

/* Audit */

static const char *const refusal_names[] = {
	[WHY(ALLOWED)] = "OK",      [WHY(UNKNOWN)] = "NOT_FOUND",           [WHY(EXPIRED)] = "EXPIRED",
	[WHY(REVOKED)] = "REVOKED", [WHY(TAKEN)] = "PERMISSION_DENIED",     [WHY(PAUSED)] = "PAUSED",
	[WHY(ENDED)] = "ENDED",     [WHY(FORBIDDEN)] = "PERMISSION_DENIED",
};

/* Anybody can be refused: such records must not fill the disk. */
static bool refusal_allowed(void)
{
	static struct ration ration;

	return ration_take(&ration, REFUSALS_PER_SECOND);
}

static void record_refusal(const struct rpc_call *call, const char *action, const struct sandbox *sandbox,
			   const struct preview *preview, refusal why)
{
	char detail[160];

	if (!refusal_allowed())
		return;
	snprintf(detail, sizeof(detail), "{\"client\":\"%s\"}", rpc_client_address(call));
	audit_event(&(struct audit_entry){.tenant = preview   ? preview->tenant
						    : sandbox ? sandbox->tenant
							      : NULL,
					  .actor = "visitor",
					  .action = action,
					  .sandbox_id = preview   ? preview->sandbox_id
							: sandbox ? sandbox->id
								  : NULL,
					  .object = preview ? preview->id : NULL,
					  .outcome = refusal_names[why],
					  .detail = detail});
}

static void record_visit(const struct visit *visit, const char *action)
{
	char detail[320];
	int n = snprintf(detail, sizeof(detail), "{\"client\":\"%s\",\"port\":%u", rpc_client_address(visit->call),
			 visit->port);

	if (strcmp(action, "preview.left") == 0)
		n += snprintf(detail + n, sizeof(detail) - (size_t)n,
			      ",\"seconds\":%llu,\"requests\":%llu,\"bytes_in\":%llu,\"bytes_out\":%llu",
			      (unsigned long long)((loop_now_ns() - visit->began_ns) / 1000000000u),
			      (unsigned long long)visit->requests, (unsigned long long)visit->bytes_in,
			      (unsigned long long)visit->bytes_out);
	snprintf(detail + n, sizeof(detail) - (size_t)n, "}");
	audit_event(&(struct audit_entry){.tenant = visit->sandbox->tenant,
					  .actor = "visitor",
					  .action = action,
					  .sandbox_id = visit->sandbox->id,
					  .object = visit->preview_id[0] ? visit->preview_id : NULL,
					  .outcome = "OK",
					  .detail = detail});
}

/* Enter: token for cookie */

static refusal why_ended(const struct preview *preview)
{
	if (preview->state == PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_EXPIRED)
		return WHY(EXPIRED);
	if (preview->state != PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_ACTIVE)
		return preview_sandbox(preview) ? WHY(REVOKED) : WHY(ENDED);
	/* The timer is about to say so. */
	return preview->expires_unix_ms <= loop_wall_ms() ? WHY(EXPIRED) : WHY(ALLOWED);
}

static int let_in(struct rpc_call *call, struct preview *preview, char cookie[PREVIEW_COOKIE_LEN + 1],
		  struct store_batch *batch)
{
	char visitor[PREVIEW_VISITOR_LEN + 1], detail[160];
	struct audit_entry entry = {
		.tenant = preview->tenant,
		.actor = "visitor",
		.action = "preview.enter",
		.sandbox_id = preview->sandbox_id,
		.object = preview->id,
		.outcome = "OK",
		.detail = detail,
	};

	snprintf(detail, sizeof(detail), "{\"client\":\"%s\"}", rpc_client_address(call));
	preview_make_visitor(visitor);
	if (!preview_make_cookie(preview, visitor, cookie) || store_audit(batch, &entry) < 0)
		return -ENOMEM;
	preview->visitors++;
	if (preview->one_visitor)
		strcpy(preview->visitor, visitor);
	return preview_store(batch, preview);
}

void visits_enter(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__Internal__VisitEnter *request = (const void *)message;
	Paddock__Internal__VisitEntered reply = PADDOCK__INTERNAL__VISIT_ENTERED__INIT;
	struct preview *preview = preview_get(request->preview_id);
	char cookie[PREVIEW_COOKIE_LEN + 1] = "";
	struct store_batch *batch = NULL;
	struct pdk_error err;

	reply.refusal = preview_check_token(preview, request->token) ? why_ended(preview) : WHY(UNKNOWN);
	if (reply.refusal == WHY(ALLOWED) && preview->one_visitor && preview->visitor[0])
		reply.refusal = WHY(TAKEN);
	if (reply.refusal != WHY(ALLOWED)) {
		record_refusal(call, "preview.enter", NULL, preview, reply.refusal);
		rpc_finish(call, &reply.base);
		return;
	}
	batch = store_batch_create();
	if (!batch || let_in(call, preview, cookie, batch) < 0) {
		store_batch_free(batch);
		pdk_fail_errno(&err, -ENOMEM, "letting the visitor in");
		rpc_fail(call, &err);
		return;
	}
	reply.cookie = cookie;
	rpc_finish_commit(call, batch, &reply.base);
	explicit_bzero(cookie, sizeof(cookie));
}

/* Open */

/* Out of the table; the call is the caller's to end. */
static struct rpc_call *visit_end(struct visit *visit)
{
	struct rpc_call *call = visit->call;

	*slot_of(visit->number) = visit->next;
	record_visit(visit, "preview.left");
	sandbox_use_end(visit->sandbox);
	free(visit);
	return call;
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	visit_end(rpc_user(call));
	rpc_fail(call, why);
}

static void send_refusal(struct rpc_call *call, refusal why)
{
	Paddock__Internal__VisitEvent event = PADDOCK__INTERNAL__VISIT_EVENT__INIT;

	event.refusal = why;
	if (rpc_can_send(call))
		rpc_send(call, &event.base);
	/* An end without a word cuts the visit as well. */
	rpc_finish(call, NULL);
}

static void cut(struct visit *visit, refusal why)
{
	send_refusal(visit_end(visit), why);
}

/* The first one in the table that is `preview_id`'s, or of the sandbox. */
static struct visit *find(const char *preview_id, const struct sandbox *sandbox)
{
	for (unsigned int i = 0; i < BUCKETS; i++) {
		for (struct visit *visit = buckets[i]; visit; visit = visit->next) {
			if (preview_id ? strcmp(visit->preview_id, preview_id) == 0 : visit->sandbox == sandbox)
				return visit;
		}
	}
	return NULL;
}

void visits_cut_preview(const struct preview *preview, refusal why)
{
	struct visit *visit;

	while ((visit = find(preview->id, NULL)))
		cut(visit, why);
}

void visits_cut_sandbox(const struct sandbox *sandbox, refusal why)
{
	struct visit *visit;

	while ((visit = find(NULL, sandbox)))
		cut(visit, why);
}

/* A grant's visitor. */
static refusal check_preview(const Paddock__Internal__VisitOpen *request, struct preview **ret)
{
	struct preview *preview = preview_get(request->preview_id);

	if (!preview_check_cookie(preview, request->cookie))
		return WHY(UNKNOWN);
	*ret = preview;
	return why_ended(preview);
}

static refusal check_sandbox(const struct sandbox *sandbox)
{
	switch (sandbox->state) {
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING:
		return WHY(ALLOWED);
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSING:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RESUMING:
		return WHY(PAUSED);
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_UNSPECIFIED:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLING:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLED:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_FAILED:
	case _PADDOCK__V1__SANDBOX_STATE_IS_INT_SIZE:
		break;
	}
	return WHY(ENDED);
}

/* The grant says it; for a published port, the sandbox. */
static bool may_resume(const struct sandbox *sandbox, const struct preview *preview)
{
	return preview ? preview->resumes : sandbox->private->auto_resume;
}

/* Somebody at a port that its sandbox publishes. */
static refusal check_published(const Paddock__Internal__VisitOpen *request, struct sandbox **ret)
{
	struct sandbox *sandbox = sandbox_id_valid(request->sandbox_id) ? sandbox_get(request->sandbox_id) : NULL;
	const struct sandbox_private *private = sandbox ? sandbox->private : NULL;

	if (!sandbox || private->pooled || !preview_port_valid(request->port) ||
	    private->port_access == PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_UNSPECIFIED || !sandbox_is_living(sandbox))
		return WHY(UNKNOWN);
	*ret = sandbox;
	if (sandbox_port_wants_token(sandbox, request->port) && !sandbox_traffic_check(sandbox, request->traffic_token))
		return WHY(FORBIDDEN);
	return check_sandbox(sandbox);
}

static int begin(struct rpc_call *call, struct sandbox *sandbox, struct preview *preview, uint16_t port)
{
	static const struct rpc_events events = {.on_cancel = on_cancel};
	Paddock__Internal__VisitEvent event = PADDOCK__INTERNAL__VISIT_EVENT__INIT;
	struct visit *visit = calloc(1, sizeof(*visit));

	if (!visit)
		return -ENOMEM;
	*visit = (struct visit){
		.number = ++last_number, .call = call, .sandbox = sandbox, .port = port, .began_ns = loop_now_ns()};
	if (preview) {
		strcpy(visit->preview_id, preview->id);
		preview->last_visit_unix_ms = loop_wall_ms();
		event.read_only = preview->read_only;
		event.host_header = preview->host_header;
	} else
		event.host_header = sandbox->private->port_host_header;
	*slot_of(visit->number) = visit;
	sandbox_use_begin(sandbox);
	rpc_set_events(call, &events, visit);
	record_visit(visit, "preview.visit");
	event.visit = visit->number;
	event.sandbox_id = sandbox->id;
	event.port = port;
	rpc_send(call, &event.base);
	return 0;
}

void visits_open(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__Internal__VisitOpen *request = (const void *)message;
	struct preview *preview = NULL;
	struct sandbox *sandbox = NULL;
	struct pdk_error err;
	bool published = request->sandbox_id[0];
	refusal why = published ? check_published(request, &sandbox) : check_preview(request, &preview);

	if (why == WHY(ALLOWED) && !published) {
		sandbox = preview_sandbox(preview);
		why = sandbox ? check_sandbox(sandbox) : WHY(ENDED);
	}
	if (why == WHY(PAUSED) && may_resume(sandbox, preview) && sandbox_park(call, sandbox)) {
		sandbox_wake(sandbox);
		return; /* and comes again when it runs */
	}
	if (why != WHY(ALLOWED)) {
		record_refusal(call, "preview.visit", sandbox, preview, why);
		send_refusal(call, why);
		return;
	}
	if (begin(call, sandbox, preview, published ? (uint16_t)request->port : preview->port) < 0) {
		pdk_fail_errno(&err, -ENOMEM, "opening the visit");
		rpc_fail(call, &err);
	}
}

/* Dial */

struct dial {
	struct rpc_call *call;
	struct guest *guest; /* valid while stream is not 0 */
	uint32_t stream;
};

static void on_dialled(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		       const struct pdk_error *err, void *arg)
{
	Paddock__Internal__VisitDialled done = PADDOCK__INTERNAL__VISIT_DIALLED__INIT;
	struct dial *dial = arg;
	struct rpc_call *call = dial->call;

	if (reply)
		guest_cancel(dial->guest, dial->stream);
	free(dial);
	if (reply && !err->code)
		rpc_finish_fd(call, &done.base, STEAL_FD(fds[0]));
	else
		rpc_fail(call,
			 err->code ? err
				   : &(struct pdk_error){.code = PDK_ABORTED, .text = "the sandbox does not answer"});
}

static void on_dial_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct dial *dial = rpc_user(call);

	guest_cancel(dial->guest, dial->stream);
	free(dial);
	rpc_fail(call, why);
}

static int ask(struct rpc_call *call, const struct visit *visit)
{
	static const struct rpc_events events = {.on_cancel = on_dial_cancel};
	Paddock__Internal__GuestDial request = PADDOCK__INTERNAL__GUEST_DIAL__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct dial *dial = calloc(1, sizeof(*dial));
	int64_t stream = -ENOMEM;

	request.port = visit->port;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_DIAL;
	question.dial = &request;
	if (dial)
		stream = guest_call(visit->sandbox->guest, &question, 0, on_dialled, dial);
	if (stream < 0) {
		free(dial);
		return (int)stream;
	}
	*dial = (struct dial){.call = call, .guest = visit->sandbox->guest, .stream = (uint32_t)stream};
	rpc_set_events(call, &events, dial);
	return 0;
}

void visits_dial(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__Internal__VisitDial *request = (const void *)message;
	const struct visit *visit = *slot_of(request->visit);
	struct pdk_error err;
	int rc;

	if (!visit)
		rc = pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "no such visit");
	else if (!visit->sandbox->guest || visit->sandbox->private->adopting)
		rc = pdk_fail(&err, -EAGAIN, PDK_ABORTED, "sandbox is being taken over after a restart; try again");
	else {
		rc = ask(call, visit);
		if (rc < 0)
			pdk_fail(&err, rc, PDK_ABORTED, "the sandbox could not be asked; try again");
	}
	if (rc < 0)
		rpc_fail(call, &err);
}

/* Report */

void visits_report(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__Internal__VisitReport *request = (const void *)message;
	Paddock__Internal__VisitReported reply = PADDOCK__INTERNAL__VISIT_REPORTED__INIT;
	struct visit *visit = *slot_of(request->visit);
	const struct preview *preview;

	if (visit) {
		visit->requests += request->requests;
		visit->bytes_in += request->bytes_in;
		visit->bytes_out += request->bytes_out;
		preview = visit->preview_id[0] ? preview_get(visit->preview_id) : NULL;
		if (preview && preview->counts_as_activity)
			sandbox_touch(visit->sandbox);
	}
	rpc_finish(call, &reply.base);
}
