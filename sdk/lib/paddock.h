#ifndef PADDOCK_H
#define PADDOCK_H

/*
 * libpaddock: the C client of Paddock.
 *
 *	struct pdk_error err = {0};
 *	struct paddock_client *client = paddock_connect(NULL, NULL, &err);
 *	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
 *	Paddock__V1__Sandbox *sandbox = NULL;
 *
 *	if (!client || paddock_sandbox_create(client, &request, &sandbox, &err) < 0)
 *		errx(1, "%s", err.text);
 *	puts(sandbox->id);
 *	paddock_free(sandbox);
 *	paddock_close(client);
 *
 * Conventions. Functions return 0 or more, or a negative errno; the last parameter (may be NULL) then holds a
 * gRPC status code and a sentence for people. Outputs are untouched on failure. Messages that a call
 * returns belong to the caller, who gives them back with paddock_free(). Fields and their limits are
 * documented in paddock/v1/ *.proto.
 *
 * Threads. Unary calls on one client may be made from several threads at once (at most six); a stream belongs
 * to one reading and one writing thread. The library makes no threads of its own for a call; each call polls
 * in the thread that makes it.
 */

#include <paddock/error.h>
#include <paddock/v1/admin.pb-c.h>
#include <paddock/v1/files.pb-c.h>
#include <paddock/v1/previews.pb-c.h>
#include <paddock/v1/processes.pb-c.h>
#include <paddock/v1/sandboxes.pb-c.h>
#include <paddock/v1/snapshots.pb-c.h>
#include <paddock/v1/templates.pb-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PADDOCK_MESSAGE_MAX (8u << 20) /* bytes of one message, either way */
#define PADDOCK_CHUNK_MAX (1u << 20)   /* bytes of data that the server takes in one message */
#define PADDOCK_NO_TIMEOUT INT64_C(-1)

struct paddock_client;
struct paddock_stream;

/* Version of the library, "0.1.0". */
const char *paddock_version(void);

/*
 * Make a client. The connection itself is made by the first call, and again after it broke.
 *
 * `address`: "unix:PATH", "HOST:PORT" (clear text), or "https://HOST:PORT" (TLS; PADDOCK_CA names a PEM file
 * of authorities, else the system's; PADDOCK_CERT and PADDOCK_CERT_KEY a client certificate). NULL: PADDOCK_ADDR,
 * else unix:/run/paddock/admin.sock if this process may open it, else unix:/run/paddock/paddock.sock.
 * `key`: "pdk_..."; NULL: PADDOCK_API_KEY, else none. A key is not sent in clear text to another machine,
 * unless PADDOCK_INSECURE=1.
 * -EINVAL: the address or the key cannot be meant; -ENOENT: no socket at the default places.
 */
struct paddock_client *paddock_connect(const char *address, const char *key, struct pdk_error *err);
/* NULL is fine. All streams of the client must have been freed. */
void paddock_close(struct paddock_client *client);
/*
 * Wait until the connection is there, at most `timeout_ms`: -ETIMEDOUT when it is not. After a server went away, calls
 * fail at once until a new connection stands; it is made while a thread is inside this library, so a program
 * that wants to go on afterwards waits here, not in sleep().
 */
int paddock_wait_ready(struct paddock_client *client, int64_t timeout_ms, struct pdk_error *err);
/* The address in use, for messages. Lives as long as the client. */
const char *paddock_address(const struct paddock_client *client);
/* Deadline of every unary call from now on, in milliseconds; PADDOCK_NO_TIMEOUT (default): the server's own. */
void paddock_set_timeout(struct paddock_client *client, int64_t timeout_ms);
/* The negative errno that the library returns for a status code. */
int paddock_errno(enum pdk_code code);

/* Give back any message that a call returned. NULL is fine. */
void paddock_free(void *message);

/* ---- any method ------------------------------------------------------------------------------------------ */

/* One request, one reply. `path` is "/package.Service/Method"; `timeout_ms` as in paddock_set_timeout(). */
int paddock_call(struct paddock_client *client, const char *path, const void *request,
		 const ProtobufCMessageDescriptor *response, int64_t timeout_ms, void *ret_message,
		 struct pdk_error *err);

/*
 * Open a stream. With `request` it is a server stream: the request is sent and the sending side closed. Without
 * it (client and bidirectional streams) messages follow with paddock_stream_send().
 */
struct paddock_stream *paddock_stream_open(struct paddock_client *client, const char *path, const void *request,
					   const ProtobufCMessageDescriptor *response, struct pdk_error *err);
/* Send one message; returns when flow control has let it go, so that memory stays bounded. -EPIPE: the call has ended;
 * paddock_stream_next() or _finish() tells why. */
int paddock_stream_send(struct paddock_stream *stream, const void *message, struct pdk_error *err);
/* No more messages from this side. */
int paddock_stream_close_send(struct paddock_stream *stream, struct pdk_error *err);
/* Wait for the next message, at most `timeout_ms`. 1: *ret_message (a message pointer) was set; 0: the stream ended well;
 * -EAGAIN: nothing came in time (the stream goes on); else the call failed. */
int paddock_stream_next(struct paddock_stream *stream, int64_t timeout_ms, void *ret_message, struct pdk_error *err);
/* For client streams: close the sending side, wait for the one reply. */
int paddock_stream_finish(struct paddock_stream *stream, void *ret_message, struct pdk_error *err);
/* End the call from this side, from any thread. Its sends and reads then fail with -ECANCELED. */
void paddock_stream_cancel(struct paddock_stream *stream);
/* Cancels what still runs. NULL is fine. */
void paddock_stream_free(struct paddock_stream *stream);

/* ---- the methods of paddock.v1 ---------------------------------------------------------------------------- */

#define PADDOCK_UNARY_METHODS(X)                                                                                       \
	X(sandbox_create, Sandboxes, Create, CreateSandboxRequest, Sandbox)                                            \
	X(sandbox_get, Sandboxes, Get, GetSandboxRequest, Sandbox)                                                     \
	X(sandbox_list, Sandboxes, List, ListSandboxesRequest, ListSandboxesResponse)                                  \
	X(sandbox_set_timeout, Sandboxes, SetTimeout, SetTimeoutRequest, Sandbox)                                      \
	X(sandbox_set_idle_timeout, Sandboxes, SetIdleTimeout, SetIdleTimeoutRequest, Sandbox)                         \
	X(sandbox_kill, Sandboxes, Kill, KillSandboxRequest, Sandbox)                                                  \
	X(sandbox_pause, Sandboxes, Pause, PauseSandboxRequest, Sandbox)                                               \
	X(sandbox_resume, Sandboxes, Resume, ResumeSandboxRequest, Sandbox)                                            \
	X(sandbox_reset, Sandboxes, Reset, ResetSandboxRequest, Sandbox)                                               \
	X(sandbox_quota, Sandboxes, GetQuota, GetQuotaRequest, TenantUsage)                                            \
	X(sandbox_access, Sandboxes, GetAccess, GetAccessRequest, SandboxAccess)                                       \
	X(sandbox_usage, Sandboxes, GetUsage, GetUsageRequest, SandboxUsage)                                           \
	X(sandbox_metrics, Sandboxes, GetMetrics, GetMetricsRequest, GetMetricsResponse)                               \
	X(sandbox_metrics_list, Sandboxes, ListMetrics, ListMetricsRequest, ListMetricsResponse)                       \
	X(preview_grant, Previews, Grant, GrantPreviewRequest, Preview)                                                \
	X(preview_list, Previews, List, ListPreviewsRequest, ListPreviewsResponse)                                     \
	X(preview_revoke, Previews, Revoke, RevokePreviewRequest, Preview)                                             \
	X(preview_extend, Previews, Extend, ExtendPreviewRequest, Preview)                                             \
	X(preview_ports, Previews, ListPorts, ListPortsRequest, ListPortsResponse)                                     \
	X(snapshot_create, Snapshots, Create, CreateSnapshotRequest, Snapshot)                                         \
	X(snapshot_get, Snapshots, Get, GetSnapshotRequest, Snapshot)                                                  \
	X(snapshot_list, Snapshots, List, ListSnapshotsRequest, ListSnapshotsResponse)                                 \
	X(snapshot_remove, Snapshots, Remove, RemoveSnapshotRequest, RemoveSnapshotResponse)                           \
	X(sandbox_fork, Snapshots, Fork, ForkRequest, ForkResponse)                                                    \
	X(process_list, Processes, List, ListProcessesRequest, ListProcessesResponse)                                  \
	X(process_send_input, Processes, SendInput, SendInputRequest, SendInputResponse)                               \
	X(process_close_stdin, Processes, CloseStdin, CloseStdinRequest, CloseStdinResponse)                           \
	X(process_resize, Processes, Resize, ResizeRequest, ResizeResponse)                                            \
	X(process_signal, Processes, Signal, SignalRequest, SignalResponse)                                            \
	X(process_wait, Processes, Wait, WaitRequest, ProcessExit)                                                     \
	X(file_stat, Files, Stat, StatRequest, FileInfo)                                                               \
	X(file_list, Files, List, ListFilesRequest, ListFilesResponse)                                                 \
	X(file_make_dir, Files, MakeDir, MakeDirRequest, FileInfo)                                                     \
	X(file_move, Files, Move, MoveRequest, FileInfo)                                                               \
	X(file_remove, Files, Remove, RemoveRequest, RemoveResponse)                                                   \
	X(template_list, Templates, List, ListTemplatesRequest, ListTemplatesResponse)                                 \
	X(template_get, Templates, Get, GetTemplateRequest, Template)                                                  \
	X(template_remove, Templates, Remove, RemoveTemplateRequest, RemoveTemplateResponse)                           \
	X(template_create_from_snapshot, Templates, CreateFromSnapshot, CreateTemplateFromSnapshotRequest, Template)   \
	X(template_set_tags, Templates, SetTags, SetTemplateTagsRequest, SetTemplateTagsResponse)                      \
	X(template_remove_tags, Templates, RemoveTags, RemoveTemplateTagsRequest, RemoveTemplateTagsResponse)          \
	X(build_create, Templates, CreateBuild, CreateTemplateBuildRequest, TemplateBuild)                             \
	X(build_files, Templates, GetBuildFiles, GetBuildFilesRequest, BuildFiles)                                     \
	X(build_start, Templates, StartBuild, StartTemplateBuildRequest, TemplateBuild)                                \
	X(build_get, Templates, GetBuild, GetTemplateBuildRequest, TemplateBuild)                                      \
	X(build_list, Templates, ListBuilds, ListTemplateBuildsRequest, ListTemplateBuildsResponse)                    \
	X(build_stop, Templates, StopBuild, StopTemplateBuildRequest, StopTemplateBuildResponse)                       \
	X(tenant_create, Admin, CreateTenant, CreateTenantRequest, Tenant)                                             \
	X(tenant_list, Admin, ListTenants, ListTenantsRequest, ListTenantsResponse)                                    \
	X(tenant_set_quota, Admin, SetQuota, SetQuotaRequest, Tenant)                                                  \
	X(tenant_remove, Admin, RemoveTenant, RemoveTenantRequest, RemoveTenantResponse)                               \
	X(key_create, Admin, CreateKey, CreateKeyRequest, CreateKeyResponse)                                           \
	X(key_list, Admin, ListKeys, ListKeysRequest, ListKeysResponse)                                                \
	X(key_revoke, Admin, RevokeKey, RevokeKeyRequest, Key)                                                         \
	X(who_am_i, Admin, WhoAmI, WhoAmIRequest, WhoAmIResponse)                                                      \
	X(status, Admin, GetStatus, GetStatusRequest, ServerStatus)                                                    \
	X(audit_list, Audit, List, ListAuditRequest, ListAuditResponse)                                                \
	X(audit_verify, Audit, Verify, VerifyAuditRequest, VerifyAuditResponse)                                        \
	X(audit_get_key, Audit, GetKey, GetAuditKeyRequest, AuditKey)

/* int paddock_sandbox_create(client, const Paddock__V1__CreateSandboxRequest *, Paddock__V1__Sandbox **, err); and so on. */
#define PADDOCK_DECLARE_UNARY(name, service, method, in, out)                                                          \
	int paddock_##name(struct paddock_client *client, const Paddock__V1__##in *request,                            \
			   Paddock__V1__##out **ret_##name, struct pdk_error *err);
PADDOCK_UNARY_METHODS(PADDOCK_DECLARE_UNARY)
#undef PADDOCK_DECLARE_UNARY

#define PADDOCK_SERVER_STREAMS(X)                                                                                      \
	X(sandbox_events, Sandboxes, WatchEvents, WatchEventsRequest, SandboxEvent)                                    \
	X(process_start, Processes, Start, StartProcessRequest, ProcessEvent)                                          \
	X(process_attach, Processes, Attach, AttachRequest, ProcessEvent)                                              \
	X(file_read, Files, Read, ReadFileRequest, FileChunk)                                                          \
	X(file_watch, Files, Watch, WatchRequest, WatchEvent)                                                          \
	X(file_pack_archive, Files, PackArchive, PackArchiveRequest, FileChunk)                                        \
	X(audit_export, Audit, Export, ExportAuditRequest, AuditRecord)

/* struct paddock_stream *paddock_process_start(client, const Paddock__V1__StartProcessRequest *, err); and so on.
 * paddock_stream_next() brings messages of the type in the last column. */
#define PADDOCK_DECLARE_SERVER_STREAM(name, service, method, in, out)                                                  \
	struct paddock_stream *paddock_##name(struct paddock_client *client, const Paddock__V1__##in *request,         \
					      struct pdk_error *err);
PADDOCK_SERVER_STREAMS(PADDOCK_DECLARE_SERVER_STREAM)
#undef PADDOCK_DECLARE_SERVER_STREAM

#define PADDOCK_SENDING_STREAMS(X)                                                                                     \
	X(process_interact, Processes, Interact, InteractRequest, ProcessEvent)                                        \
	X(file_write, Files, Write, WriteFileRequest, FileInfo)                                                        \
	X(file_unpack_archive, Files, UnpackArchive, UnpackArchiveRequest, UnpackArchiveResponse)                      \
	X(template_build, Templates, Build, BuildTemplateRequest, BuildTemplateProgress)                               \
	X(build_upload, Templates, UploadBuildFiles, UploadBuildFilesRequest, UploadBuildFilesResponse)

/* struct paddock_stream *paddock_process_interact(client, err): send messages of the third column, the first with the header. */
#define PADDOCK_DECLARE_SENDING_STREAM(name, service, method, in, out)                                                 \
	struct paddock_stream *paddock_##name(struct paddock_client *client, struct pdk_error *err);
PADDOCK_SENDING_STREAMS(PADDOCK_DECLARE_SENDING_STREAM)
#undef PADDOCK_DECLARE_SENDING_STREAM

/* ---- conveniences ------------------------------------------------------------------------------------------- */

/* 0 if the server says SERVING (grpc.health.v1), -EAGAIN if it answers anything else. */
int paddock_ping(struct paddock_client *client, int64_t timeout_ms, struct pdk_error *err);

/* What paddock_run() gives back. Release with paddock_result_clear(). */
struct paddock_result {
	uint64_t process_id;
	uint32_t exit_code;
	uint32_t signal; /* 0: it exited */
	bool timed_out;
	char *out; /* stdout, NUL behind it */
	size_t out_length;
	char *err; /* stderr, NUL behind it */
	size_t err_length;
	uint64_t dropped_bytes; /* output beyond `max_output`, or no longer kept by the server */
};
/* Run a command to its end and collect at most `max_output` bytes of each stream. */
int paddock_run(struct paddock_client *client, const Paddock__V1__StartProcessRequest *request, size_t max_output,
		struct paddock_result *ret_result, struct pdk_error *err);
void paddock_result_clear(struct paddock_result *result);

/* A whole file to memory (at most `max_length` bytes, else -EFBIG) and back. `user` NULL: "user". */
int paddock_file_get(struct paddock_client *client, const char *sandbox_id, const char *path, const char *user,
		     size_t max_length, void **ret_data, size_t *ret_length, struct pdk_error *err);
int paddock_file_put(struct paddock_client *client, const char *sandbox_id, const char *path, const char *user,
		     const void *data, size_t length, uint32_t mode, struct pdk_error *err);

#ifdef __cplusplus
}
#endif

#endif
