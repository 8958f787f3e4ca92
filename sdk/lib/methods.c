#include "private.h"

/* The typed functions of paddock.h, one for each row of its tables. */

#define DESCRIPTOR_Sandbox paddock__v1__sandbox__descriptor
#define DESCRIPTOR_ListSandboxesResponse paddock__v1__list_sandboxes_response__descriptor
#define DESCRIPTOR_SandboxAccess paddock__v1__sandbox_access__descriptor
#define DESCRIPTOR_SandboxUsage paddock__v1__sandbox_usage__descriptor
#define DESCRIPTOR_GetMetricsResponse paddock__v1__get_metrics_response__descriptor
#define DESCRIPTOR_ListMetricsResponse paddock__v1__list_metrics_response__descriptor
#define DESCRIPTOR_TenantUsage paddock__v1__tenant_usage__descriptor
#define DESCRIPTOR_SandboxEvent paddock__v1__sandbox_event__descriptor
#define DESCRIPTOR_Preview paddock__v1__preview__descriptor
#define DESCRIPTOR_ListPreviewsResponse paddock__v1__list_previews_response__descriptor
#define DESCRIPTOR_ListPortsResponse paddock__v1__list_ports_response__descriptor
#define DESCRIPTOR_Snapshot paddock__v1__snapshot__descriptor
#define DESCRIPTOR_TemplateBuild paddock__v1__template_build__descriptor
#define DESCRIPTOR_BuildFiles paddock__v1__build_files__descriptor
#define DESCRIPTOR_ListTemplateBuildsResponse paddock__v1__list_template_builds_response__descriptor
#define DESCRIPTOR_StopTemplateBuildResponse paddock__v1__stop_template_build_response__descriptor
#define DESCRIPTOR_UploadBuildFilesResponse paddock__v1__upload_build_files_response__descriptor
#define DESCRIPTOR_ListSnapshotsResponse paddock__v1__list_snapshots_response__descriptor
#define DESCRIPTOR_RemoveSnapshotResponse paddock__v1__remove_snapshot_response__descriptor
#define DESCRIPTOR_ForkResponse paddock__v1__fork_response__descriptor
#define DESCRIPTOR_ListProcessesResponse paddock__v1__list_processes_response__descriptor
#define DESCRIPTOR_SendInputResponse paddock__v1__send_input_response__descriptor
#define DESCRIPTOR_CloseStdinResponse paddock__v1__close_stdin_response__descriptor
#define DESCRIPTOR_ResizeResponse paddock__v1__resize_response__descriptor
#define DESCRIPTOR_SignalResponse paddock__v1__signal_response__descriptor
#define DESCRIPTOR_ProcessExit paddock__v1__process_exit__descriptor
#define DESCRIPTOR_ProcessEvent paddock__v1__process_event__descriptor
#define DESCRIPTOR_FileInfo paddock__v1__file_info__descriptor
#define DESCRIPTOR_FileChunk paddock__v1__file_chunk__descriptor
#define DESCRIPTOR_ListFilesResponse paddock__v1__list_files_response__descriptor
#define DESCRIPTOR_RemoveResponse paddock__v1__remove_response__descriptor
#define DESCRIPTOR_WatchEvent paddock__v1__watch_event__descriptor
#define DESCRIPTOR_UnpackArchiveResponse paddock__v1__unpack_archive_response__descriptor
#define DESCRIPTOR_ListTemplatesResponse paddock__v1__list_templates_response__descriptor
#define DESCRIPTOR_Template paddock__v1__template__descriptor
#define DESCRIPTOR_RemoveTemplateResponse paddock__v1__remove_template_response__descriptor
#define DESCRIPTOR_SetTemplateTagsResponse paddock__v1__set_template_tags_response__descriptor
#define DESCRIPTOR_RemoveTemplateTagsResponse paddock__v1__remove_template_tags_response__descriptor
#define DESCRIPTOR_BuildTemplateProgress paddock__v1__build_template_progress__descriptor
#define DESCRIPTOR_Tenant paddock__v1__tenant__descriptor
#define DESCRIPTOR_ListTenantsResponse paddock__v1__list_tenants_response__descriptor
#define DESCRIPTOR_RemoveTenantResponse paddock__v1__remove_tenant_response__descriptor
#define DESCRIPTOR_CreateKeyResponse paddock__v1__create_key_response__descriptor
#define DESCRIPTOR_ListKeysResponse paddock__v1__list_keys_response__descriptor
#define DESCRIPTOR_Key paddock__v1__key__descriptor
#define DESCRIPTOR_WhoAmIResponse paddock__v1__who_am_iresponse__descriptor
#define DESCRIPTOR_ServerStatus paddock__v1__server_status__descriptor
#define DESCRIPTOR_AuditRecord paddock__v1__audit_record__descriptor
#define DESCRIPTOR_ListAuditResponse paddock__v1__list_audit_response__descriptor
#define DESCRIPTOR_AuditKey paddock__v1__audit_key__descriptor
#define DESCRIPTOR_VerifyAuditResponse paddock__v1__verify_audit_response__descriptor

#define PATH(service, method) "/paddock.v1." #service "/" #method

#define DEFINE_UNARY(name, service, method, in, out)                                                                   \
	int paddock_##name(struct paddock_client *client, const Paddock__V1__##in *request,                            \
			   Paddock__V1__##out **ret_##name, struct pdk_error *err)                                     \
	{                                                                                                              \
		return paddock_call(client, PATH(service, method), request, &DESCRIPTOR_##out, client->timeout_ms,     \
				    ret_##name, err);                                                                  \
	}
PADDOCK_UNARY_METHODS(DEFINE_UNARY)

#define DEFINE_SERVER_STREAM(name, service, method, in, out)                                                           \
	struct paddock_stream *paddock_##name(struct paddock_client *client, const Paddock__V1__##in *request,         \
					      struct pdk_error *err)                                                   \
	{                                                                                                              \
		return paddock_stream_open(client, PATH(service, method), request, &DESCRIPTOR_##out, err);            \
	}
PADDOCK_SERVER_STREAMS(DEFINE_SERVER_STREAM)

#define DEFINE_SENDING_STREAM(name, service, method, in, out)                                                          \
	struct paddock_stream *paddock_##name(struct paddock_client *client, struct pdk_error *err)                    \
	{                                                                                                              \
		return paddock_stream_open(client, PATH(service, method), NULL, &DESCRIPTOR_##out, err);               \
	}
PADDOCK_SENDING_STREAMS(DEFINE_SENDING_STREAM)
