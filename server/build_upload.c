#include "build_files.h"

#include "auth.h"
#include "loop.h"
#include "paddock/v1/templates.pb-c.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * UploadBuildFiles: header, data, half-close. An upload is a file without a name until the client has sent all of it;
 * so what breaks off leaves nothing. Its token says whose it is (build_token.c).
 *
 * All that touches the disk is the worker's, one thing at a time; the next message is read when it is done:
 *
 *	header   open_work()    opened()
 *	data     write_work()   written()
 *	its end  link_work()    linked(): it is found from now on
 */

#define DATA_MAX (1u << 20)
#define UPLOAD_MAX (1ull << 30)
#define UPLOADS_MAX 64u
#define UPLOADS_OF_TENANT_MAX 6u
#define HEADER_NS (10ull * 1000000000) /* anybody may begin one */
#define STALL_NS (60ull * 1000000000)

struct upload {
	struct worker_job job;
	struct upload *next;
	struct rpc_call *call;   /* NULL: it has ended, and the job is still under way */
	struct loop_timer timer; /* the next message is late */
	struct build_file *file; /* NULL: the header has not come */
	struct build_token token;
	int fd;
	bool busy, half_closed;
	int rc; /* of the job */
	uint64_t disk_free;
	size_t length;
	uint8_t *data;
};

static struct upload *uploads;

void builds_get_files(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GetBuildFilesRequest *request = (const void *)message;
	const struct principal *principal = rpc_principal(call);
	Paddock__V1__BuildFiles reply = PADDOCK__V1__BUILD_FILES__INIT;
	char token[BUILD_TOKEN_SIZE];
	struct pdk_error err;

	if (!build_hash_valid(request->hash)) {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "hash: 64 hexadecimal digits");
		rpc_fail(call, &err);
	} else if (!build_token_make(principal, request->hash, token)) {
		pdk_fail(&err, -EIO, PDK_INTERNAL, "no token could be made");
		rpc_fail(call, &err);
	} else {
		reply.present = build_files_find(principal->tenant, request->hash) != 0;
		reply.upload_token = token;
		rpc_finish(call, &reply.base);
	}
}

/* --- the end --- */

static void upload_free(struct upload *upload)
{
	struct upload **at = &uploads;

	while (*at != upload)
		at = &(*at)->next;
	*at = upload->next;
	loop_timer_cancel(&upload->timer);
	build_file_drop(upload->file);
	worker_close(upload->fd);
	free(upload->data);
	free(upload);
}

/* The call ends; the rest when the worker has let go. */
static void upload_fail(struct upload *upload, const struct pdk_error *err)
{
	struct rpc_call *call = upload->call;

	upload->call = NULL;
	loop_timer_cancel(&upload->timer);
	if (!upload->busy)
		upload_free(upload);
	rpc_fail(call, err);
}

void build_uploads_remove_tenant(const char *tenant)
{
	struct pdk_error err;

	pdk_fail(&err, -ENOENT, PDK_ABORTED, "the tenant is removed");
	for (struct upload *upload = uploads, *next; upload; upload = next) {
		next = upload->next;
		if (upload->call && strcmp(upload->token.tenant, tenant) == 0)
			upload_fail(upload, &err);
	}
}

/* --- waiting for the client --- */

static void on_late(void *arg)
{
	struct pdk_error err;

	pdk_fail(&err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "the upload stands still");
	upload_fail(arg, &err);
}

/* -ENOMEM: its end would never come. */
static int expect(struct upload *upload, uint64_t within_ns)
{
	upload->timer.handler = on_late;
	upload->timer.arg = upload;
	return loop_timer_set(&upload->timer, loop_now_ns() + within_ns);
}

static void read_next(struct upload *upload)
{
	struct pdk_error err;

	if (expect(upload, STALL_NS) >= 0) {
		rpc_read(upload->call);
		return;
	}
	pdk_fail_errno(&err, -ENOMEM, "receiving");
	upload_fail(upload, &err);
}

/* --- the worker --- */

static void submit(struct upload *upload, void (*work)(struct worker_job *job), void (*done)(struct worker_job *job))
{
	upload->job.work = work;
	upload->job.done = done;
	upload->busy = true;
	loop_timer_cancel(&upload->timer);
	worker_submit(&upload->job);
}

/* False: it is over. */
static bool job_over(struct upload *upload)
{
	struct pdk_error err;

	upload->busy = false;
	build_files_set_disk_free(upload->disk_free);
	if (!upload->call) {
		upload_free(upload);
		return false;
	}
	if (upload->rc >= 0)
		return true;
	pdk_fail(&err, upload->rc, PDK_RESOURCE_EXHAUSTED, "the files could not be written");
	upload_fail(upload, &err);
	return false;
}

static void link_work(struct worker_job *job)
{
	struct upload *upload = (struct upload *)job;

	upload->rc = build_file_link(upload->fd, upload->file->number);
	upload->disk_free = build_files_disk_free();
}

static void linked(struct worker_job *job)
{
	Paddock__V1__UploadBuildFilesResponse reply = PADDOCK__V1__UPLOAD_BUILD_FILES_RESPONSE__INIT;
	struct upload *upload = (struct upload *)job;
	struct rpc_call *call = upload->call;

	if (!job_over(upload))
		return;
	audit_event(&(struct audit_entry){.tenant = upload->token.tenant,
					  .actor = upload->token.key_id[0] ? upload->token.key_id : "operator",
					  .action = "build.files_uploaded",
					  .object = upload->file->hash,
					  .outcome = "OK"});
	reply.bytes = upload->file->bytes;
	build_file_keep(STEAL_PTR(upload->file));
	upload_free(upload);
	rpc_finish(call, &reply.base);
}

/* The key that asked for the token may have been revoked meanwhile. */
static int check_key(const struct upload *upload, struct pdk_error *err)
{
	if (build_token_holds(&upload->token))
		return 0;
	return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED,
			"the API key that asked for this upload is not valid any more");
}

static void go_on(struct upload *upload)
{
	struct pdk_error err;

	if (!upload->half_closed)
		read_next(upload);
	else if (check_key(upload, &err) < 0)
		upload_fail(upload, &err);
	else
		submit(upload, link_work, linked);
}

static void open_work(struct worker_job *job)
{
	struct upload *upload = (struct upload *)job;
	int fd = build_file_open_new();

	if (fd < 0)
		upload->rc = fd;
	else
		upload->fd = fd;
	upload->disk_free = build_files_disk_free();
}

static void write_work(struct worker_job *job)
{
	struct upload *upload = (struct upload *)job;
	size_t done = 0;

	while (done < upload->length && upload->rc == 0) {
		ssize_t n = write(upload->fd, upload->data + done, upload->length - done);

		if (n < 0 && errno != EINTR)
			upload->rc = -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	upload->disk_free = build_files_disk_free();
}

/* Opened, or written. */
static void stage_done(struct worker_job *job)
{
	struct upload *upload = (struct upload *)job;

	if (job_over(upload))
		go_on(upload);
}

/* --- messages --- */

static int take_header(struct upload *upload, const Paddock__V1__UploadBuildFilesHeader *header, struct pdk_error *err)
{
	unsigned int of_tenant = 0, all = 0;
	int rc;

	if (upload->file)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message only");
	if (!build_hash_valid(header->hash))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "hash: 64 hexadecimal digits");
	if (!build_token_check(header->upload_token, header->hash, &upload->token))
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED,
				"upload_token: is not valid for these files (any more)");
	for (const struct upload *other = uploads; other; other = other->next) {
		all += other->file != NULL;
		of_tenant += other->file && strcmp(other->token.tenant, upload->token.tenant) == 0;
	}
	if (all >= UPLOADS_MAX || of_tenant >= UPLOADS_OF_TENANT_MAX)
		return pdk_fail(err, -EBUSY, PDK_RESOURCE_EXHAUSTED,
				"uploads exhausted: %u are under way, %u of the tenant", all, of_tenant);
	upload->file = build_file_create(upload->token.tenant, header->hash);
	if (!upload->file)
		return pdk_fail_errno(err, -ENOMEM, "keeping the files");
	rc = build_file_grow(upload->file, 0, err);
	if (rc >= 0)
		submit(upload, open_work, stage_done);
	return rc;
}

static int take_data(struct upload *upload, const ProtobufCBinaryData *data, struct pdk_error *err)
{
	int rc;

	if (!upload->file)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message");
	if (data->len > DATA_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "data: at most %u bytes", DATA_MAX);
	if (upload->file->bytes + data->len > UPLOAD_MAX)
		return pdk_fail(err, -EFBIG, PDK_INVALID_ARGUMENT, "data: an upload is at most 1 GiB");
	rc = check_key(upload, err);
	if (rc >= 0)
		rc = build_file_grow(upload->file, data->len, err);
	if (rc < 0)
		return rc;
	free(upload->data);
	upload->data = malloc(data->len + 1);
	if (!upload->data)
		return pdk_fail_errno(err, -ENOMEM, "receiving");
	memcpy(upload->data, data->data, data->len);
	upload->length = data->len;
	submit(upload, write_work, stage_done);
	return 0;
}

static void on_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__UploadBuildFilesRequest *request = (const void *)message;
	struct upload *upload = rpc_user(call);
	struct pdk_error err;
	int rc;

	if (request->message_case == PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_HEADER)
		rc = take_header(upload, request->header, &err);
	else if (request->message_case == PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_DATA)
		rc = take_data(upload, &request->data, &err);
	else
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "message: header or data must be set");
	if (rc < 0)
		upload_fail(upload, &err);
}

static void on_half_close(struct rpc_call *call)
{
	struct upload *upload = rpc_user(call);
	struct pdk_error err;

	upload->half_closed = true;
	if (!upload->file) {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message");
		upload_fail(upload, &err);
	} else if (!upload->busy) {
		go_on(upload);
	}
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	upload_fail(rpc_user(call), why);
}

void builds_upload_files(struct rpc_call *call, const struct ProtobufCMessage *request)
{
	static const struct rpc_events events = {
		.on_message = on_message, .on_half_close = on_half_close, .on_cancel = on_cancel};
	struct upload *upload = calloc(1, sizeof(*upload));
	struct pdk_error err;

	if (!upload) {
		pdk_fail_errno(&err, -ENOMEM, "receiving");
		rpc_fail(call, &err);
		return;
	}
	upload->fd = -1;
	upload->call = call;
	upload->next = uploads;
	uploads = upload;
	rpc_set_events(call, &events, upload);
	if (expect(upload, HEADER_NS) < 0) {
		pdk_fail_errno(&err, -ENOMEM, "receiving");
		upload_fail(upload, &err);
	}
}
