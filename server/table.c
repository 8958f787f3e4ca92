#include "rpc.h"

#include "admin.h"
#include "build_files.h"
#include "builds.h"
#include "e2b.h"
#include "e2b/filesystem.pb-c.h"
#include "e2b/process.pb-c.h"
#include "files.h"
#include "health.h"
#include "paddock/internal/visit.pb-c.h"
#include "paddock/v1/admin.pb-c.h"
#include "paddock/v1/files.pb-c.h"
#include "paddock/v1/previews.pb-c.h"
#include "paddock/v1/processes.pb-c.h"
#include "paddock/v1/sandboxes.pb-c.h"
#include "paddock/v1/snapshots.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "previews.h"
#include "processes.h"
#include "reflection.h"
#include "sandbox/base/cleanup.h"
#include "sandboxes.h"
#include "snapshots.h"
#include "templates.h"

/*
 * The only list of methods. rpc_start() checks it against the descriptors of proto/: every method there has
 * exactly one row, with the same message types and the same streaming kind.
 */

#define SMALL (64u << 10)
#define LARGE (4u << 20)
#define MINUTE 60000u
#define HOUR (60 * MINUTE)

#define ROW(service, method, kind_, audit_, scope_, deadline, size, in, out, handler)                                  \
	{                                                                                                              \
		.path = "/paddock.v1." #service "/" #method, .kind = kind_, .audit = audit_, .scope = scope_,          \
		.default_deadline_ms = deadline, .max_request_bytes = size,                                            \
		.request = &paddock__v1__##in##__descriptor, .response = &paddock__v1__##out##__descriptor,            \
		.start = handler                                                                                       \
	}

/* Of the SDKs' contract. The calls that they are translated to are what is recorded, and what asks for scopes again. */
#define E2B(package, service, method, kind_, deadline, size, in, out, handler)                                         \
	{                                                                                                              \
		.path = "/" #package "." #service "/" #method, .kind = kind_, .audit = RPC_AUDIT_NONE,                 \
		.scope = SCOPE_READ | SCOPE_SANDBOX | SCOPE_ADMIN | SCOPE_TOKEN, .default_deadline_ms = deadline,      \
		.max_request_bytes = size, .request = &package##__##in##__descriptor,                                  \
		.response = &package##__##out##__descriptor, .start = e2b_##package##_##handler                        \
	}

/* Of the ingress, for visitors of previews, who have no key: the handler looks at what they have shown, and records it. */
#define OWN(method, kind_, deadline, in, out, handler)                                                                 \
	{                                                                                                              \
		.path = "/paddock.internal.Visits/" #method, .kind = kind_, .audit = RPC_AUDIT_NONE,                   \
		.scope = SCOPE_NONE, .default_deadline_ms = deadline, .max_request_bytes = SMALL, .link_only = true,   \
		.request = &paddock__internal__##in##__descriptor,                                                     \
		.response = &paddock__internal__##out##__descriptor, .start = handler                                  \
	}

#define TOKEN SCOPE_TOKEN
#define USE (SCOPE_SANDBOX | SCOPE_ADMIN)
#define LOOK (SCOPE_READ | SCOPE_SANDBOX | SCOPE_ADMIN)
#define TEMPLATE (SCOPE_TEMPLATE | SCOPE_ADMIN)
#define ADMIN SCOPE_ADMIN

const struct rpc_method rpc_table[] = {
	ROW(Sandboxes, Create, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, LARGE, create_sandbox_request, sandbox,
	    sandboxes_create),
	ROW(Sandboxes, Get, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, MINUTE, SMALL, get_sandbox_request, sandbox,
	    sandboxes_get),
	ROW(Sandboxes, List, RPC_UNARY, RPC_AUDIT_READ, LOOK, MINUTE, SMALL, list_sandboxes_request,
	    list_sandboxes_response, sandboxes_list),
	ROW(Sandboxes, SetTimeout, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, set_timeout_request, sandbox,
	    sandboxes_set_timeout),
	ROW(Sandboxes, SetIdleTimeout, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, set_idle_timeout_request,
	    sandbox, sandboxes_set_idle_timeout),
	ROW(Sandboxes, Kill, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, kill_sandbox_request, sandbox,
	    sandboxes_kill),
	ROW(Sandboxes, Pause, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, pause_sandbox_request, sandbox,
	    sandboxes_pause),
	ROW(Sandboxes, Resume, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, resume_sandbox_request, sandbox,
	    sandboxes_resume),
	ROW(Sandboxes, WatchEvents, RPC_SERVER_STREAM, RPC_AUDIT_READ, LOOK, 0, SMALL, watch_events_request,
	    sandbox_event, sandboxes_watch_events),
	ROW(Sandboxes, GetAccess, RPC_UNARY, RPC_AUDIT_READ, USE, MINUTE, SMALL, get_access_request, sandbox_access,
	    sandboxes_get_access),
	ROW(Sandboxes, GetUsage, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, MINUTE, SMALL, get_usage_request,
	    sandbox_usage, sandboxes_get_usage),
	ROW(Sandboxes, GetMetrics, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, MINUTE, SMALL, get_metrics_request,
	    get_metrics_response, sandboxes_get_metrics),
	ROW(Sandboxes, ListMetrics, RPC_UNARY, RPC_AUDIT_READ, LOOK, MINUTE, SMALL, list_metrics_request,
	    list_metrics_response, sandboxes_list_metrics),

	ROW(Sandboxes, Reset, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, reset_sandbox_request, sandbox,
	    sandboxes_reset),
	ROW(Sandboxes, GetQuota, RPC_UNARY, RPC_AUDIT_READ, LOOK, MINUTE, SMALL, get_quota_request, tenant_usage,
	    sandboxes_get_quota),

	ROW(Snapshots, Create, RPC_UNARY, RPC_AUDIT_CHANGE, USE, 10 * MINUTE, SMALL, create_snapshot_request, snapshot,
	    snapshots_create),
	ROW(Snapshots, Get, RPC_UNARY, RPC_AUDIT_READ, LOOK, MINUTE, SMALL, get_snapshot_request, snapshot,
	    snapshots_get),
	ROW(Snapshots, List, RPC_UNARY, RPC_AUDIT_READ, LOOK, MINUTE, SMALL, list_snapshots_request,
	    list_snapshots_response, snapshots_list),
	ROW(Snapshots, Remove, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, remove_snapshot_request,
	    remove_snapshot_response, snapshots_remove),
	ROW(Snapshots, Fork, RPC_UNARY, RPC_AUDIT_CHANGE, USE, 10 * MINUTE, SMALL, fork_request, fork_response,
	    snapshots_fork),

	ROW(Processes, Start, RPC_SERVER_STREAM, RPC_AUDIT_CHANGE, USE | TOKEN, 0, LARGE, start_process_request,
	    process_event, processes_start),
	ROW(Processes, Attach, RPC_SERVER_STREAM, RPC_AUDIT_READ, LOOK | TOKEN, 0, SMALL, attach_request, process_event,
	    processes_attach),
	ROW(Processes, Interact, RPC_BIDI, RPC_AUDIT_CHANGE, USE | TOKEN, 0, LARGE, interact_request, process_event,
	    processes_interact),
	ROW(Processes, List, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, MINUTE, SMALL, list_processes_request,
	    list_processes_response, processes_list),
	ROW(Processes, SendInput, RPC_UNARY, RPC_AUDIT_CHANGE, USE | TOKEN, MINUTE, LARGE, send_input_request,
	    send_input_response, processes_send_input),
	ROW(Processes, CloseStdin, RPC_UNARY, RPC_AUDIT_CHANGE, USE | TOKEN, MINUTE, SMALL, close_stdin_request,
	    close_stdin_response, processes_close_stdin),
	ROW(Processes, Resize, RPC_UNARY, RPC_AUDIT_READ, USE | TOKEN, MINUTE, SMALL, resize_request, resize_response,
	    processes_resize),
	ROW(Processes, Signal, RPC_UNARY, RPC_AUDIT_CHANGE, USE | TOKEN, MINUTE, SMALL, signal_request, signal_response,
	    processes_signal),
	ROW(Processes, Wait, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, 0, SMALL, wait_request, process_exit,
	    processes_wait),

	ROW(Files, Stat, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, MINUTE, SMALL, stat_request, file_info, files_stat),
	ROW(Files, List, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, MINUTE, SMALL, list_files_request,
	    list_files_response, files_list),
	ROW(Files, Read, RPC_SERVER_STREAM, RPC_AUDIT_READ, LOOK | TOKEN, 0, SMALL, read_file_request, file_chunk,
	    files_read),
	ROW(Files, Write, RPC_CLIENT_STREAM, RPC_AUDIT_CHANGE, USE | TOKEN, 0, LARGE, write_file_request, file_info,
	    files_write),
	ROW(Files, MakeDir, RPC_UNARY, RPC_AUDIT_CHANGE, USE | TOKEN, MINUTE, SMALL, make_dir_request, file_info,
	    files_make_dir),
	ROW(Files, Move, RPC_UNARY, RPC_AUDIT_CHANGE, USE | TOKEN, MINUTE, SMALL, move_request, file_info, files_move),
	ROW(Files, Remove, RPC_UNARY, RPC_AUDIT_CHANGE, USE | TOKEN, MINUTE, SMALL, remove_request, remove_response,
	    files_remove),
	ROW(Files, Watch, RPC_SERVER_STREAM, RPC_AUDIT_READ, LOOK | TOKEN, 0, SMALL, watch_request, watch_event,
	    files_watch),
	ROW(Files, UnpackArchive, RPC_CLIENT_STREAM, RPC_AUDIT_CHANGE, USE | TOKEN, 0, LARGE, unpack_archive_request,
	    unpack_archive_response, files_unpack_archive),
	ROW(Files, PackArchive, RPC_SERVER_STREAM, RPC_AUDIT_READ, LOOK | TOKEN, 0, SMALL, pack_archive_request,
	    file_chunk, files_pack_archive),

	ROW(Previews, Grant, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, grant_preview_request, preview,
	    previews_grant),
	ROW(Previews, List, RPC_UNARY, RPC_AUDIT_READ, LOOK, MINUTE, SMALL, list_previews_request,
	    list_previews_response, previews_list),
	ROW(Previews, Revoke, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, revoke_preview_request, preview,
	    previews_revoke),
	ROW(Previews, Extend, RPC_UNARY, RPC_AUDIT_CHANGE, USE, MINUTE, SMALL, extend_preview_request, preview,
	    previews_extend),
	ROW(Previews, ListPorts, RPC_UNARY, RPC_AUDIT_READ, LOOK | TOKEN, MINUTE, SMALL, list_ports_request,
	    list_ports_response, previews_list_ports),

	ROW(Templates, List, RPC_UNARY, RPC_AUDIT_READ, LOOK | SCOPE_TEMPLATE, MINUTE, SMALL, list_templates_request,
	    list_templates_response, templates_list),
	ROW(Templates, Get, RPC_UNARY, RPC_AUDIT_READ, LOOK | SCOPE_TEMPLATE, MINUTE, SMALL, get_template_request,
	    template, templates_get),
	ROW(Templates, Build, RPC_BIDI, RPC_AUDIT_CHANGE, TEMPLATE, 0, LARGE, build_template_request,
	    build_template_progress, templates_build),
	ROW(Templates, CreateFromSnapshot, RPC_UNARY, RPC_AUDIT_CHANGE, TEMPLATE, MINUTE, SMALL,
	    create_template_from_snapshot_request, template, templates_create_from_snapshot),
	ROW(Templates, CreateBuild, RPC_UNARY, RPC_AUDIT_CHANGE, TEMPLATE, MINUTE, SMALL, create_template_build_request,
	    template_build, builds_create),
	ROW(Templates, GetBuildFiles, RPC_UNARY, RPC_AUDIT_READ, TEMPLATE, MINUTE, SMALL, get_build_files_request,
	    build_files, builds_get_files),
	ROW(Templates, UploadBuildFiles, RPC_CLIENT_STREAM, RPC_AUDIT_NONE, SCOPE_NONE, 2 * HOUR, LARGE,
	    upload_build_files_request, upload_build_files_response, builds_upload_files),
	ROW(Templates, StartBuild, RPC_UNARY, RPC_AUDIT_CHANGE, TEMPLATE, MINUTE, LARGE, start_template_build_request,
	    template_build, builds_begin),
	ROW(Templates, GetBuild, RPC_UNARY, RPC_AUDIT_READ, LOOK | SCOPE_TEMPLATE, MINUTE, SMALL,
	    get_template_build_request, template_build, builds_get),
	ROW(Templates, ListBuilds, RPC_UNARY, RPC_AUDIT_READ, LOOK | SCOPE_TEMPLATE, MINUTE, SMALL,
	    list_template_builds_request, list_template_builds_response, builds_list),
	ROW(Templates, StopBuild, RPC_UNARY, RPC_AUDIT_CHANGE, TEMPLATE, MINUTE, SMALL, stop_template_build_request,
	    stop_template_build_response, builds_end),
	ROW(Templates, SetTags, RPC_UNARY, RPC_AUDIT_CHANGE, TEMPLATE, MINUTE, SMALL, set_template_tags_request,
	    set_template_tags_response, templates_set_tags),
	ROW(Templates, RemoveTags, RPC_UNARY, RPC_AUDIT_CHANGE, TEMPLATE, MINUTE, SMALL, remove_template_tags_request,
	    remove_template_tags_response, templates_remove_tags),
	ROW(Templates, Remove, RPC_UNARY, RPC_AUDIT_CHANGE, TEMPLATE, MINUTE, SMALL, remove_template_request,
	    remove_template_response, templates_remove),

	ROW(Admin, CreateTenant, RPC_UNARY, RPC_AUDIT_CHANGE, ADMIN, MINUTE, SMALL, create_tenant_request, tenant,
	    admin_create_tenant),
	ROW(Admin, ListTenants, RPC_UNARY, RPC_AUDIT_READ, ADMIN, MINUTE, SMALL, list_tenants_request,
	    list_tenants_response, admin_list_tenants),
	ROW(Admin, SetQuota, RPC_UNARY, RPC_AUDIT_CHANGE, ADMIN, MINUTE, SMALL, set_quota_request, tenant,
	    admin_set_quota),
	ROW(Admin, RemoveTenant, RPC_UNARY, RPC_AUDIT_CHANGE, ADMIN, MINUTE, SMALL, remove_tenant_request,
	    remove_tenant_response, admin_remove_tenant),
	ROW(Admin, CreateKey, RPC_UNARY, RPC_AUDIT_CHANGE, ADMIN, MINUTE, SMALL, create_key_request,
	    create_key_response, admin_create_key),
	ROW(Admin, ListKeys, RPC_UNARY, RPC_AUDIT_READ, ADMIN, MINUTE, SMALL, list_keys_request, list_keys_response,
	    admin_list_keys),
	ROW(Admin, RevokeKey, RPC_UNARY, RPC_AUDIT_CHANGE, ADMIN, MINUTE, SMALL, revoke_key_request, key,
	    admin_revoke_key),
	ROW(Admin, WhoAmI, RPC_UNARY, RPC_AUDIT_READ, SCOPE_ANY, MINUTE, SMALL, who_am_irequest, who_am_iresponse,
	    admin_who_am_i),
	ROW(Admin, GetStatus, RPC_UNARY, RPC_AUDIT_READ, ADMIN, MINUTE, SMALL, get_status_request, server_status,
	    admin_get_status),

	ROW(Audit, List, RPC_UNARY, RPC_AUDIT_READ, LOOK, MINUTE, SMALL, list_audit_request, list_audit_response,
	    audit_list),
	ROW(Audit, Verify, RPC_UNARY, RPC_AUDIT_READ, ADMIN, 0, SMALL, verify_audit_request, verify_audit_response,
	    audit_verify),
	ROW(Audit, Export, RPC_SERVER_STREAM, RPC_AUDIT_READ, ADMIN, 0, SMALL, export_audit_request, audit_record,
	    audit_export),
	ROW(Audit, GetKey, RPC_UNARY, RPC_AUDIT_READ, ADMIN, MINUTE, SMALL, get_audit_key_request, audit_key,
	    audit_get_key),

	E2B(process, Process, List, RPC_UNARY, MINUTE, SMALL, list_request, list_response, list),
	E2B(process, Process, Connect, RPC_SERVER_STREAM, 0, SMALL, connect_request, connect_response, connect),
	E2B(process, Process, Start, RPC_SERVER_STREAM, 0, LARGE, start_request, start_response, start),
	E2B(process, Process, Update, RPC_UNARY, MINUTE, SMALL, update_request, update_response, update),
	E2B(process, Process, StreamInput, RPC_CLIENT_STREAM, 0, LARGE, stream_input_request, stream_input_response,
	    stream_input),
	E2B(process, Process, SendInput, RPC_UNARY, MINUTE, LARGE, send_input_request, send_input_response, send_input),
	E2B(process, Process, SendSignal, RPC_UNARY, MINUTE, SMALL, send_signal_request, send_signal_response,
	    send_signal),
	E2B(process, Process, CloseStdin, RPC_UNARY, MINUTE, SMALL, close_stdin_request, close_stdin_response,
	    close_stdin),

	E2B(filesystem, Filesystem, Stat, RPC_UNARY, MINUTE, SMALL, stat_request, stat_response, stat),
	E2B(filesystem, Filesystem, MakeDir, RPC_UNARY, MINUTE, SMALL, make_dir_request, make_dir_response, make_dir),
	E2B(filesystem, Filesystem, Move, RPC_UNARY, MINUTE, SMALL, move_request, move_response, move),
	E2B(filesystem, Filesystem, ListDir, RPC_UNARY, MINUTE, SMALL, list_dir_request, list_dir_response, list_dir),
	E2B(filesystem, Filesystem, Remove, RPC_UNARY, MINUTE, SMALL, remove_request, remove_response, remove),
	E2B(filesystem, Filesystem, WatchDir, RPC_SERVER_STREAM, 0, SMALL, watch_dir_request, watch_dir_response,
	    watch_dir),
	E2B(filesystem, Filesystem, CreateWatcher, RPC_UNARY, MINUTE, SMALL, create_watcher_request,
	    create_watcher_response, create_watcher),
	E2B(filesystem, Filesystem, GetWatcherEvents, RPC_UNARY, MINUTE, SMALL, get_watcher_events_request,
	    get_watcher_events_response, get_watcher_events),
	E2B(filesystem, Filesystem, RemoveWatcher, RPC_UNARY, MINUTE, SMALL, remove_watcher_request,
	    remove_watcher_response, remove_watcher),

	OWN(Enter, RPC_UNARY, MINUTE, visit_enter, visit_entered, visits_enter),
	OWN(Open, RPC_SERVER_STREAM, 0, visit_open, visit_event, visits_open),
	OWN(Dial, RPC_UNARY, 20000, visit_dial, visit_dialled, visits_dial),
	OWN(Report, RPC_UNARY, MINUTE, visit_report, visit_reported, visits_report),

	HEALTH_ROWS,
	REFLECTION_ROWS,
};

const size_t rpc_table_size = ARRAY_SIZE(rpc_table);
