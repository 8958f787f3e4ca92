#include "build_files.h"

#include "auth.h"
#include "config.h"
#include "log.h"
#include "loop.h"
#include "paddock/v1/templates.pb-c.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hex.h"
#include "server_secret.h"
#include "tenants.h"
#include "worker.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/*
 * An upload is a file without a name until the client has sent all of it; so what breaks off leaves nothing. Its token
 * says whose it is: it is all that an upload needs, as the SDKs send their files to an address without a key.
 *
 * Writes are the worker's. The next message is read when the last one is written.
 */

#define DATA_MAX (1u << 20)
#define UPLOAD_MAX (1ull << 30)
#define TENANT_MAX (4ull << 30)
#define ALL_MAX (16ull << 30)
#define KEEP_FREE (1ull << 30) /* of the disk: the store is there, too */
#define UPLOADS_MAX 64u
#define UPLOADS_OF_TENANT_MAX 6u
#define HEADER_NS (10ull * 1000000000) /* anybody may begin one */
#define STALL_NS (60ull * 1000000000)
#define FILES_MAX 4096u
#define FILES_OF_TENANT_MAX 512u
#define TOKEN_TTL_S 3600
#define AGE_MAX_NS (86400ull * 1000000000)
#define MAC_SIZE 16
#define FOLDER "builds"

struct stored_file {
	struct stored_file *next;
	uint64_t bytes, used_ns;
	char tenant[TENANT_NAME_MAX + 1];
	char hash[BUILD_HASH_LEN + 1];
};

struct upload {
	struct worker_job job;
	struct upload *next;
	struct rpc_call *call;   /* NULL: it has ended, and the job is still under way */
	struct loop_timer timer; /* the next message is late */
	int fd;
	bool busy, half_closed, begun;
	int rc;
	uint64_t bytes;
	size_t length;
	uint8_t *data;
	char tenant[TENANT_NAME_MAX + 1];
	char hash[BUILD_HASH_LEN + 1];
};

static struct stored_file *files;
static struct upload *uploads;
static unsigned int n_files;
static int folder = -1;
static uint8_t token_key[SERVER_SECRET_SIZE];

bool build_hash_valid(const char *hash)
{
	return strlen(hash) == BUILD_HASH_LEN && strspn(hash, "0123456789abcdef") == BUILD_HASH_LEN;
}

/* --- files --- */

/* Tenants have no '/' and no '.' at the start in their names; the hash is checked. */
static void file_name(const char *tenant, const char *hash, char name[256])
{
	snprintf(name, 256, "%s.%s", hash, tenant);
}

static struct stored_file **slot_of(const char *tenant, const char *hash)
{
	struct stored_file **at = &files;

	while (*at && (strcmp((*at)->hash, hash) != 0 || strcmp((*at)->tenant, tenant) != 0))
		at = &(*at)->next;
	return at;
}

static void file_remove(struct stored_file **at)
{
	struct stored_file *file = *at;
	char name[256];

	file_name(file->tenant, file->hash, name);
	unlinkat(folder, name, 0);
	*at = file->next;
	n_files--;
	free(file);
}

static void drop_old(void)
{
	uint64_t now = loop_now_ns();

	for (struct stored_file **at = &files; *at;) {
		if (now - (*at)->used_ns > AGE_MAX_NS)
			file_remove(at);
		else
			at = &(*at)->next;
	}
}

static uint64_t sum(const char *tenant)
{
	uint64_t bytes = 0;

	for (const struct stored_file *file = files; file; file = file->next)
		if (!tenant || strcmp(file->tenant, tenant) == 0)
			bytes += file->bytes;
	for (const struct upload *upload = uploads; upload; upload = upload->next)
		if (!tenant || strcmp(upload->tenant, tenant) == 0)
			bytes += upload->bytes;
	return bytes;
}

static unsigned int count(const char *tenant)
{
	unsigned int n = 0;

	for (const struct stored_file *file = files; file; file = file->next)
		n += strcmp(file->tenant, tenant) == 0;
	return n;
}

/* The one that was not used for longest, of a tenant or of all. False: there is none. */
static bool evict(const char *tenant)
{
	struct stored_file **oldest = NULL;

	for (struct stored_file **at = &files; *at; at = &(*at)->next)
		if ((!tenant || strcmp((*at)->tenant, tenant) == 0) && (!oldest || (*at)->used_ns < (*oldest)->used_ns))
			oldest = at;
	if (oldest)
		file_remove(oldest);
	return oldest;
}

static bool disk_is_full(void)
{
	struct statvfs space;

	return fstatvfs(folder, &space) < 0 || (uint64_t)space.f_bavail * space.f_frsize < KEEP_FREE;
}

static int make_room(const char *tenant, uint64_t more, struct pdk_error *err)
{
	drop_old();
	while (sum(tenant) + more > TENANT_MAX || count(tenant) >= FILES_OF_TENANT_MAX)
		if (!evict(tenant))
			return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED,
					"files for builds: the tenant's room is full");
	while (sum(NULL) + more > ALL_MAX || disk_is_full() || n_files >= FILES_MAX)
		if (!evict(NULL))
			return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED,
					"files for builds: the server's disk is full");
	return 0;
}

int build_files_open(const char *tenant, const char *hash)
{
	struct stored_file *file = *slot_of(tenant, hash);
	char name[256];
	int fd;

	if (!file)
		return -ENOENT;
	file->used_ns = loop_now_ns();
	file_name(tenant, hash, name);
	fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static bool is_present(const char *tenant, const char *hash)
{
	struct stored_file *file;

	drop_old();
	file = *slot_of(tenant, hash);
	if (file)
		file->used_ns = loop_now_ns();
	return file;
}

static void empty_folder(void)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(folder, entry->d_name, 0);
	if (dir)
		closedir(dir);
}

int build_files_start(struct pdk_error *err)
{
	_cleanup_fd_ int data = open(server_config.data_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (data < 0 || (mkdirat(data, FOLDER, 0700) < 0 && errno != EEXIST))
		return pdk_fail_errno(err, -errno, "making the folder of files for builds");
	folder = openat(data, FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (folder < 0)
		return pdk_fail_errno(err, -errno, "opening the folder of files for builds");
	empty_folder();
	if (server_secret_load("build_upload_key", token_key) < 0)
		return pdk_fail_errno(err, -EIO, "the key of uploads");
	return 0;
}

/* After the calls have ended and the worker has stopped. */
void build_files_stop(void)
{
	while (evict(NULL))
		;
	if (folder >= 0)
		close(STEAL_FD(folder));
}

/* --- tokens: expiry, MAC, tenant --- */

/* Of this tenant, not of one that had its name before it. False: there is no such tenant. */
static bool token_mac(const char *tenant, const char *hash, const char *expires, char ret[2 * MAC_SIZE + 1])
{
	const struct tenant *found = tenant_find(tenant);
	char text[TENANT_NAME_MAX + BUILD_HASH_LEN + 64];
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned int length;

	if (!found)
		return false;
	snprintf(text, sizeof(text), "%s/%" PRId64 "/%s/%s", tenant, found->created_unix_ms, hash, expires);
	if (!HMAC(EVP_sha256(), token_key, sizeof(token_key), (const uint8_t *)text, strlen(text), digest, &length))
		return false;
	hex_encode(digest, MAC_SIZE, ret);
	return true;
}

#define TOKEN_MAX (16 + 2 * MAC_SIZE + 1 + TENANT_NAME_MAX)

static bool token_make(const char *tenant, const char *hash, char ret[TOKEN_MAX + 1])
{
	char expires[17], mac[2 * MAC_SIZE + 1];

	snprintf(expires, sizeof(expires), "%016" PRIx64, (uint64_t)(loop_wall_ms() / 1000 + TOKEN_TTL_S));
	if (!token_mac(tenant, hash, expires, mac))
		return false;
	snprintf(ret, TOKEN_MAX + 1, "%s%s.%s", expires, mac, tenant);
	return true;
}

static bool token_check(const char *token, const char *hash, char ret_tenant[TENANT_NAME_MAX + 1])
{
	char expires[17], mac[2 * MAC_SIZE + 1];
	const char *tenant = token + 16 + 2 * MAC_SIZE + 1;

	if (strlen(token) <= 16 + 2 * MAC_SIZE + 1 || strlen(token) > TOKEN_MAX || tenant[-1] != '.')
		return false;
	snprintf(expires, sizeof(expires), "%.16s", token);
	if (!token_mac(tenant, hash, expires, mac) || CRYPTO_memcmp(mac, token + 16, 2 * MAC_SIZE) != 0)
		return false;
	if (strtoull(expires, NULL, 16) < (uint64_t)loop_wall_ms() / 1000)
		return false;
	snprintf(ret_tenant, TENANT_NAME_MAX + 1, "%s", tenant);
	return true;
}

void builds_get_files(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GetBuildFilesRequest *request = (const void *)message;
	const char *tenant = rpc_principal(call)->tenant;
	Paddock__V1__BuildFiles reply = PADDOCK__V1__BUILD_FILES__INIT;
	char token[TOKEN_MAX + 1];
	struct pdk_error err;

	if (!build_hash_valid(request->hash)) {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "hash: 64 hexadecimal digits");
		rpc_fail(call, &err);
	} else if (!token_make(tenant, request->hash, token)) {
		pdk_fail(&err, -EIO, PDK_INTERNAL, "no token could be made");
		rpc_fail(call, &err);
	} else {
		reply.present = is_present(tenant, request->hash);
		reply.upload_token = token;
		rpc_finish(call, &reply.base);
	}
}

/* --- uploads --- */

static void upload_free(struct upload *upload)
{
	struct upload **at = &uploads;

	while (*at != upload)
		at = &(*at)->next;
	*at = upload->next;
	loop_timer_cancel(&upload->timer);
	if (upload->fd >= 0)
		close(upload->fd);
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

void build_files_remove_tenant(const char *tenant)
{
	struct pdk_error err;

	pdk_fail(&err, -ENOENT, PDK_ABORTED, "the tenant is removed");
	for (struct upload *upload = uploads, *next; upload; upload = next) {
		next = upload->next;
		if (upload->call && strcmp(upload->tenant, tenant) == 0)
			upload_fail(upload, &err);
	}
	while (evict(tenant))
		;
}

static int keep(struct upload *upload)
{
	struct stored_file **at = slot_of(upload->tenant, upload->hash), *file;
	char path[64], name[256];

	if (*at)
		file_remove(at);
	file = calloc(1, sizeof(*file));
	if (!file)
		return -ENOMEM;
	file_name(upload->tenant, upload->hash, name);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", upload->fd);
	if (linkat(AT_FDCWD, path, folder, name, AT_SYMLINK_FOLLOW) < 0) {
		free(file);
		return -errno;
	}
	snprintf(file->tenant, sizeof(file->tenant), "%s", upload->tenant);
	snprintf(file->hash, sizeof(file->hash), "%s", upload->hash);
	file->bytes = upload->bytes;
	file->used_ns = loop_now_ns();
	file->next = files;
	files = file;
	n_files++;
	return 0;
}

static void finish(struct upload *upload)
{
	Paddock__V1__UploadBuildFilesResponse reply = PADDOCK__V1__UPLOAD_BUILD_FILES_RESPONSE__INIT;
	struct rpc_call *call = upload->call;
	struct pdk_error err;
	int rc = keep(upload);

	if (rc < 0) {
		pdk_fail_errno(&err, rc, "keeping the files");
		upload_fail(upload, &err);
		return;
	}
	audit_event(&(struct audit_entry){.tenant = upload->tenant,
					  .actor = "upload-token",
					  .action = "build.files_uploaded",
					  .object = upload->hash,
					  .outcome = "OK"});
	reply.bytes = upload->bytes;
	upload_free(upload);
	rpc_finish(call, &reply.base);
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
}

static void write_done(struct worker_job *job)
{
	struct upload *upload = (struct upload *)job;
	struct pdk_error err;

	upload->busy = false;
	if (!upload->call) {
		upload_free(upload);
	} else if (upload->rc < 0) {
		pdk_fail(&err, upload->rc, PDK_RESOURCE_EXHAUSTED, "the files could not be written");
		upload_fail(upload, &err);
	} else if (upload->half_closed) {
		finish(upload);
	} else {
		read_next(upload);
	}
}

static int take_header(struct upload *upload, const Paddock__V1__UploadBuildFilesHeader *header, struct pdk_error *err)
{
	unsigned int of_tenant = 0, all = 0;
	int rc;

	if (upload->begun)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message only");
	if (!build_hash_valid(header->hash))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "hash: 64 hexadecimal digits");
	if (!token_check(header->upload_token, header->hash, upload->tenant))
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED,
				"upload_token: is not valid for these files (any more)");
	snprintf(upload->hash, sizeof(upload->hash), "%s", header->hash);
	for (const struct upload *other = uploads; other; other = other->next) {
		all += other->begun;
		of_tenant += other->begun && strcmp(other->tenant, upload->tenant) == 0;
	}
	if (all >= UPLOADS_MAX || of_tenant >= UPLOADS_OF_TENANT_MAX)
		return pdk_fail(err, -EBUSY, PDK_RESOURCE_EXHAUSTED,
				"uploads exhausted: %u are under way, %u of the tenant", all, of_tenant);
	rc = make_room(upload->tenant, 0, err);
	if (rc < 0)
		return rc;
	upload->fd = openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (upload->fd < 0)
		return pdk_fail_errno(err, -errno, "keeping the files");
	upload->begun = true;
	read_next(upload);
	return 0;
}

static int take_data(struct upload *upload, const ProtobufCBinaryData *data, struct pdk_error *err)
{
	int rc;

	if (!upload->begun)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message");
	if (data->len > DATA_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "data: at most %u bytes", DATA_MAX);
	if (upload->bytes + data->len > UPLOAD_MAX)
		return pdk_fail(err, -EFBIG, PDK_INVALID_ARGUMENT, "data: an upload is at most 1 GiB");
	rc = make_room(upload->tenant, data->len, err);
	if (rc < 0)
		return rc;
	free(upload->data);
	upload->data = malloc(data->len + 1);
	if (!upload->data)
		return pdk_fail_errno(err, -ENOMEM, "receiving");
	memcpy(upload->data, data->data, data->len);
	upload->length = data->len;
	upload->bytes += data->len;
	upload->busy = true;
	loop_timer_cancel(&upload->timer);
	worker_submit(&upload->job);
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
	if (!upload->begun) {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "header: must be the first message");
		upload_fail(upload, &err);
	} else if (!upload->busy) {
		finish(upload);
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
	upload->job.work = write_work;
	upload->job.done = write_done;
	upload->next = uploads;
	uploads = upload;
	rpc_set_events(call, &events, upload);
	if (expect(upload, HEADER_NS) < 0) {
		pdk_fail_errno(&err, -ENOMEM, "receiving");
		upload_fail(upload, &err);
	}
}
