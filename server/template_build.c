#include "config.h"
#include "pipe_io.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "template_internal.h"
#include "validate.h"
#include "warden_client.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/*
 * Templates.Build: client stream -> pipe -> the warden's confined importer.
 *
 *	WAITING	    for the header
 *	RECEIVING   data goes into the pipe; the next message is asked for when the pipe took all of the last one
 *	UNPACKING   the client has sent everything (or the importer has read all that it wants): its reply is next
 *	COMMITTING  the name and the audit record are on their way to the store
 *
 * The build outlives its call when that is cancelled: the importer's reply comes in any case, and what it made
 * without getting a name is removed. A cancelled build ends the pipe early, which the importer refuses as a
 * truncated archive.
 */

#define BUILDS_MAX 8
#define DATA_MAX (1u << 20)
#define PROGRESS_NS (500 * 1000000ull)
#define MAX_BYTES_MIN (1ull << 20)

enum phase { WAITING, RECEIVING, UNPACKING, COMMITTING };

struct build {
	struct rpc_call *call; /* NULL once it is gone */
	enum phase phase;
	int pipe; /* write end */
	struct loop_watch *watch;
	struct loop_timer progress;
	uint8_t *rest; /* of the last message: what the pipe did not take */
	size_t rest_length, rest_offset;
	uint64_t received, reported;
	enum phase reported_phase;
	bool half_closed;
	bool importing; /* the warden will reply */
	bool committed;
	bool replace;
	struct text_list *labels;
	char tenant[TENANT_NAME_MAX + 1]; /* owner of the name */
	char name[TEMPLATE_NAME_SIZE];
};

static unsigned int build_count;

static void pipe_end(struct build *build)
{
	loop_watch_remove(STEAL_PTR(build->watch));
	if (build->pipe >= 0)
		close(STEAL_FD(build->pipe));
	free(STEAL_PTR(build->rest));
	build->rest_length = build->rest_offset = 0;
}

static void build_free(struct build *build)
{
	pipe_end(build);
	loop_timer_cancel(&build->progress);
	free(build->labels);
	free(build);
	build_count--;
}

/* The call has its end; the build too, unless the warden still owes its reply. */
static void build_detach(struct build *build)
{
	build->call = NULL;
	pipe_end(build);
	loop_timer_cancel(&build->progress);
	if (!build->importing)
		build_free(build);
}

static void build_fail(struct build *build, const struct pdk_error *err)
{
	struct rpc_call *call = build->call;

	build_detach(build);
	rpc_fail(call, err);
}

/* --- progress --- */

static void send_progress(struct build *build)
{
	static const char *const phase_name[] = {"receiving", "receiving", "unpacking", "verifying"};
	Paddock__V1__BuildTemplateProgress message = PADDOCK__V1__BUILD_TEMPLATE_PROGRESS__INIT;

	if (build->phase == COMMITTING || !rpc_can_send(build->call))
		return;
	if (build->received == build->reported && build->phase == build->reported_phase)
		return;
	build->reported = build->received;
	build->reported_phase = build->phase;
	message.received_bytes = build->received;
	message.phase = (char *)phase_name[build->phase];
	rpc_send(build->call, &message.base);
}

static void on_progress_timer(void *arg)
{
	struct build *build = arg;

	send_progress(build);
	(void)loop_timer_set(&build->progress, loop_now_ns() + PROGRESS_NS);
}

/* --- the end --- */

static void send_final(struct build *build)
{
	Paddock__V1__BuildTemplateProgress message = PADDOCK__V1__BUILD_TEMPLATE_PROGRESS__INIT;
	const struct template_name *name;
	struct rpc_call *call = build->call;
	struct pdk_error err;

	/* Its name may have been removed, or moved on, while the commit was under way; the record is what counts. */
	name = template_name_find(build->tenant, build->name);
	message.received_bytes = build->received;
	message.phase = (char *)"done";
	message.template_ = name ? template_message(call, name) : NULL;
	build_detach(build);
	if (message.template_) {
		rpc_send(call, &message.base);
		rpc_finish(call, NULL);
		return;
	}
	pdk_fail(&err, -ENOENT, PDK_ABORTED, "template was removed while it was built");
	rpc_fail(call, &err);
}

static void on_committed(struct rpc_call *call, int rc)
{
	struct build *build = rpc_user(call);
	struct pdk_error err;

	build->committed = true;
	if (rpc_is_cancelled(call)) {
		pdk_fail(&err, -ECANCELED, PDK_CANCELLED, "cancelled after the template was made");
		build_fail(build, &err);
	} else if (rc < 0) {
		pdk_fail(&err, rc, PDK_UNAVAILABLE, "the server's store does not accept changes");
		build_fail(build, &err);
	} else if (rpc_can_send(call)) {
		send_final(build);
	}
	/* else on_sent() goes on */
}

static int check_room(const struct build *build, struct pdk_error *err)
{
	const struct template_name *existing = template_name_find(build->tenant, build->name);
	uint32_t limit = PUBLIC_TEMPLATES_MAX, used = template_name_count(build->tenant);
	struct tenant_quota quota;

	if (existing)
		return build->replace ? 0
				      : pdk_fail(err, -EEXIST, PDK_ALREADY_EXISTS,
						 "name: exists; set replace to move it to the new content");
	if (build->tenant[0]) {
		tenant_get_quota(build->tenant, &quota);
		limit = quota.max_templates;
	}
	if (used >= limit)
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
				"tenant quota max_templates exhausted: %u of %u in use", used, limit);
	return 0;
}

static int publish(struct build *build, struct template_content *content, struct pdk_error *err)
{
	struct store_batch *batch;
	int rc = check_room(build, err);

	if (rc < 0)
		return rc;
	if (content->removing)
		return pdk_fail(err, -EAGAIN, PDK_ABORTED, "the same content is being removed just now; try again");
	batch = store_batch_create();
	rc = batch ? template_name_set(build->tenant, build->name, content, build->labels, batch) : -ENOMEM;
	if (rc < 0) {
		store_batch_free(batch);
		return pdk_fail_errno(err, rc, "keeping the template");
	}
	build->labels = NULL;
	build->phase = COMMITTING;
	sandbox_pool_wake();
	rpc_commit(build->call, batch, on_committed);
	return 0;
}

static enum pdk_code code_of_import(int status)
{
	switch (-status) {
	case EFBIG:
	case EDQUOT:
	case ENOSPC:
	case ENOMEM:
	case EMFILE:
	case EBUSY:
		return PDK_RESOURCE_EXHAUSTED;
	case ECONNRESET:
	case ENOTCONN:
	case EIO:
		return PDK_UNAVAILABLE;
	default:
		return PDK_INVALID_ARGUMENT;
	}
}

static int import_result(struct build *build, const struct warden_reply *reply, struct pdk_error *err)
{
	struct template_content *content;
	int rc;

	if (reply->status < 0)
		return pdk_fail(err, reply->status, code_of_import(reply->status), "data: %s",
				reply->text[0] ? reply->text : "the root file system could not be imported");
	if (!template_id_valid(reply->template_id))
		return pdk_fail(err, -EPROTO, PDK_INTERNAL, "the import has no template id");
	content = template_content_get(reply);
	if (!content)
		return pdk_fail_errno(err, -ENOMEM, "keeping the template");
	rc = build->call ? publish(build, content, err) : -ECANCELED;
	if (rc < 0)
		template_content_release(content);
	return rc;
}

static void on_import(const struct warden_reply *reply, int *fd, void *arg)
{
	struct build *build = arg;
	struct pdk_error err;

	if (reply->flags & WARDEN_MORE)
		return; /* the timer reports */
	build->importing = false;
	pipe_end(build);
	if (import_result(build, reply, &err) >= 0)
		return;
	if (build->call)
		build_fail(build, &err);
	else
		build_free(build);
}

/* --- data --- */

static void after_data(struct build *build)
{
	if (!build->half_closed) {
		rpc_read(build->call);
		return;
	}
	pipe_end(build);
	build->phase = UNPACKING;
}

static void on_pipe(uint32_t events, void *arg);

/* Write what is left. The importer may stop reading when it has seen the archive's end, or an error: the rest of
 * the stream is discarded then, and its reply tells which it was. */
static void push(struct build *build)
{
	while (build->rest_offset < build->rest_length) {
		ssize_t n = build->pipe < 0 ? -EPIPE
					    : pipe_write(build->pipe, build->rest + build->rest_offset,
							 build->rest_length - build->rest_offset);

		if (n == -EAGAIN) {
			if (!build->watch)
				build->watch = loop_watch_add(build->pipe, EPOLLOUT, on_pipe, build);
			else
				loop_watch_set(build->watch, EPOLLOUT);
			return;
		}
		if (n < 0) {
			pipe_end(build);
			break;
		}
		build->rest_offset += (size_t)n;
	}
	free(STEAL_PTR(build->rest));
	build->rest_length = build->rest_offset = 0;
	if (build->watch)
		loop_watch_set(build->watch, 0);
	after_data(build);
}

static void on_pipe(uint32_t events, void *arg)
{
	push(arg);
}

static int take_data(struct build *build, const ProtobufCBinaryData *data, struct pdk_error *err)
{
	if (build->phase == WAITING)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message");
	if (data->len > DATA_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "data: at most %u bytes", DATA_MAX);
	build->received += data->len;
	build->rest = malloc(data->len + 1);
	if (!build->rest)
		return pdk_fail_errno(err, -ENOMEM, "receiving");
	memcpy(build->rest, data->data, data->len);
	build->rest_length = data->len;
	build->rest_offset = 0;
	push(build);
	return 0;
}

/* --- the header --- */

static int validate_header(const struct rpc_call *call, const Paddock__V1__BuildTemplateHeader *header,
			   struct pdk_error *err)
{
	int rc = validate_template_name("name", header->name, err);

	if (rc >= 0)
		rc = validate_map("labels", (const struct validate_entry *const *)header->labels, header->n_labels, 16,
				  64, 256, err);
	if (rc >= 0)
		rc = validate_optional_range("max_bytes", header->max_bytes, MAX_BYTES_MIN,
					     server_config.template_max_bytes, err);
	if (rc >= 0 && template_id_valid(header->name))
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "name: must not look like a template id");
	if (rc >= 0 && header->public_ && !rpc_principal(call)->is_operator)
		rc = pdk_fail(err, -EPERM, PDK_PERMISSION_DENIED, "public: is for the operator only");
	return rc;
}

static int start_import(struct build *build, uint64_t max_bytes, struct pdk_error *err)
{
	struct warden_request request = {.op = WARDEN_TEMPLATE_IMPORT, .value = max_bytes};
	_cleanup_fd_ int read_end = -1;
	int ends[2], rc;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "opening a pipe");
	read_end = ends[0];
	build->pipe = ends[1];
	pipe_grow(build->pipe);
	if (fcntl(build->pipe, F_SETFL, O_NONBLOCK) < 0)
		return pdk_fail_errno(err, -errno, "opening a pipe");
	rc = warden_call(&request, read_end, on_import, build);
	if (rc < 0)
		return pdk_fail(err, rc, PDK_UNAVAILABLE, "the sandbox manager is away; try again");
	build->importing = true;
	build->phase = RECEIVING;
	return 0;
}

static int take_header(struct build *build, const Paddock__V1__BuildTemplateHeader *header, struct pdk_error *err)
{
	const char *tenant = header->public_ ? "" : rpc_principal(build->call)->tenant;
	int rc;

	if (build->phase != WAITING)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message only");
	rc = validate_header(build->call, header, err);
	if (rc < 0)
		return rc;
	snprintf(build->tenant, sizeof(build->tenant), "%s", tenant);
	snprintf(build->name, sizeof(build->name), "%s", header->name);
	build->replace = header->replace;
	rpc_audit_object(build->call, NULL, build->name);
	rc = check_room(build, err);
	if (rc < 0)
		return rc;
	build->labels = text_list_from_map(header->labels, header->n_labels, 0);
	if (!build->labels)
		return pdk_fail_errno(err, -ENOMEM, "reading the labels");
	rc = start_import(build, header->max_bytes ? header->max_bytes : server_config.template_max_bytes, err);
	if (rc < 0)
		return rc;
	send_progress(build);
	(void)loop_timer_set(&build->progress, loop_now_ns() + PROGRESS_NS);
	rpc_read(build->call);
	return 0;
}

/* --- the call --- */

static void on_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__BuildTemplateRequest *request = (const void *)message;
	struct build *build = rpc_user(call);
	struct pdk_error err;
	int rc;

	if (request->message_case == PADDOCK__V1__BUILD_TEMPLATE_REQUEST__MESSAGE_HEADER)
		rc = take_header(build, request->header, &err);
	else if (request->message_case == PADDOCK__V1__BUILD_TEMPLATE_REQUEST__MESSAGE_DATA)
		rc = take_data(build, &request->data, &err);
	else
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "message: header or data must be set");
	if (rc < 0)
		build_fail(build, &err);
}

static void on_half_close(struct rpc_call *call)
{
	struct build *build = rpc_user(call);
	struct pdk_error err;

	build->half_closed = true;
	if (build->phase == WAITING) {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message");
		build_fail(build, &err);
		return;
	}
	/* With a message still on its way into the pipe, push() ends it. */
	if (build->phase == RECEIVING && !build->rest)
		after_data(build);
}

static void on_sent(struct rpc_call *call)
{
	struct build *build = rpc_user(call);

	if (build->phase == COMMITTING && build->committed)
		send_final(build);
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct build *build = rpc_user(call);

	/* on_committed() is sure to come, and needs both. */
	if (build->phase == COMMITTING && !build->committed)
		return;
	build_fail(build, why);
}

static const struct rpc_events build_events = {
	.on_message = on_message,
	.on_half_close = on_half_close,
	.on_sent = on_sent,
	.on_cancel = on_cancel,
};

void templates_build(struct rpc_call *call, const ProtobufCMessage *request)
{
	struct build *build = build_count < BUILDS_MAX ? calloc(1, sizeof(*build)) : NULL;
	struct pdk_error err;

	if (!build) {
		pdk_fail(&err, -EBUSY, PDK_RESOURCE_EXHAUSTED, "server template builds exhausted: %u of %u running",
			 build_count, BUILDS_MAX);
		rpc_fail(call, &err);
		return;
	}
	build_count++;
	build->call = call;
	build->pipe = -1;
	build->progress.handler = on_progress_timer;
	build->progress.arg = build;
	rpc_set_events(call, &build_events, build);
}
