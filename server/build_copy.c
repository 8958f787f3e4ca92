#include "build_internal.h"

#include "build_files.h"
#include "paddock/v1/files.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hex.h"
#include "validate.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/*
 * COPY: the uploaded tar is unpacked in the sandbox, by Files.UnpackArchive, in a folder of root's, and moved from
 * there by a script of ours that gets names as arguments. What a hostile tar does, it does to the sandbox of whoever
 * sent it.
 */

#define CHUNK (256u << 10)
#define MOVE_TIMEOUT_MS 600000u

/* scratch, source, target, owner, mode, working directory, user. A folder's content is merged, and a target that was
 * there stays whose it was; anything else is moved to the name itself, or into it if that is a folder. */
static const char script[] =
	"set -e\n"
	"scratch=$1 from=$1/$2 to=$3 owner=$4 mode=$5 cwd=$6\n"
	"trap 'rm -rf -- \"$scratch\"' EXIT\n"
	"[ -n \"$cwd\" ] || { if [ \"$7\" = root ]; then cwd=/root; else cwd=/home/$7; fi; }\n"
	"case $to in /*) ;; *) to=$cwd/$to ;; esac\n"
	"if [ ! -e \"$from\" ] && [ ! -L \"$from\" ]; then echo \"COPY: $2 is not in the upload\" >&2; exit 1; fi\n"
	"chown -hR \"$owner\" -- \"$from\"\n"
	"[ -z \"$mode\" ] || chmod -R \"$mode\" -- \"$from\"\n"
	"made() { d=$1; new=; while [ ! -e \"$d\" ]; do new=$d; d=${d%/*}; [ -n \"$d\" ] || d=/; done\n"
	"  mkdir -p -- \"$1\"; [ -z \"$new\" ] || chown -R \"$owner\" -- \"$new\"; }\n"
	"if [ -d \"$from\" ] && [ ! -L \"$from\" ]; then\n"
	"  had=; [ ! -d \"$to\" ] || had=$(stat -L -c '%u:%g %a' -- \"$to\")\n"
	"  made \"$to\"\n"
	"  cp -a -- \"$from/.\" \"$to/\"\n"
	"  [ -z \"$had\" ] || { chown -- \"${had% *}\" \"$to\"; chmod -- \"${had#* }\" \"$to\"; }\n"
	"else\n"
	"  case $to in */) made \"$to\" ;; *) made \"$(dirname -- \"$to\")\" ;; esac\n"
	"  [ ! -d \"$to\" ] || to=$to/$(basename -- \"$from\")\n"
	"  rm -rf -- \"$to\"\n"
	"  mv -f -T -- \"$from\" \"$to\"\n"
	"fi\n";

void build_copy_clear(struct build_run *run)
{
	worker_close(STEAL_FD(run->fd));
	free(STEAL_PTR(run->chunk));
}

static void moved(struct build_run *run, const struct pdk_error *err)
{
	struct pdk_error failure;

	if (err)
		build_run_fail(run, err);
	else if (build_command_check(run, "COPY: the files could not be put in place", &failure) < 0)
		build_run_fail(run, &failure);
	else
		build_run_layer(run);
}

/* The folder before the first wildcard, or the whole of it. NULL: it leads out, or no memory. */
static char *literal_source(const char *source)
{
	size_t length = strcspn(source, "*?[{");
	char *literal = strdup(source);

	if (!literal)
		return NULL;
	if (source[length]) {
		while (length && literal[length - 1] != '/')
			length--;
		literal[length] = '\0';
	}
	for (const char *at = literal; at; at = strchr(at, '/')) {
		at += *at == '/';
		if (strncmp(at, "..", 2) == 0 && (!at[2] || at[2] == '/')) {
			free(literal);
			return NULL;
		}
	}
	return literal;
}

/* "x" is "x:x", "x:y" itself; nothing is the context's user. Only what chown takes. */
static int make_owner(const struct build_run *run, const char *text, char owner[128], struct pdk_error *err)
{
	const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-:";

	if (!text[0])
		text = run->context.user;
	if (strlen(text) > 60 || strspn(text, allowed) != strlen(text) || text[0] == '-')
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "COPY: the owner is a user, or user:group");
	snprintf(owner, 128, strchr(text, ':') ? "%s" : "%s:%s", text, text);
	return 0;
}

static void move_files(struct build_run *run)
{
	const Paddock__V1__TemplateBuildStep *step = run->plan->steps[run->step];
	_cleanup_free_ char *source = literal_source(step->args[0]);
	const char *mode = step->n_args > 3 ? step->args[3] : "";
	char owner[128];
	struct pdk_error err;
	int rc = source ? 0 : pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "COPY: the source leads out of the upload");

	if (rc >= 0 && (strlen(mode) > 4 || strspn(mode, "01234567") != strlen(mode)))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "COPY: the mode is at most four octal digits");
	if (rc >= 0)
		rc = make_owner(run, step->n_args > 2 ? step->args[2] : "", owner, &err);
	if (rc < 0) {
		build_run_fail(run, &err);
		return;
	}
	{
		const char *argv[] = {"/bin/sh",
				      "-c",
				      script,
				      "copy",
				      run->scratch,
				      source,
				      step->args[1],
				      owner,
				      mode,
				      run->context.cwd ? run->context.cwd : "",
				      run->context.user,
				      NULL};
		const struct build_command command = {
			.argv = argv, .user = "root", .cwd = "/", .plain = true, .timeout_ms = MOVE_TIMEOUT_MS};

		build_command(run, &command, moved);
	}
}

/* --- the tar into the sandbox --- */

static void read_work(struct worker_job *job)
{
	struct build_run *run = (struct build_run *)job;

	do
		run->chunk_length = read(run->fd, run->chunk, CHUNK);
	while (run->chunk_length < 0 && errno == EINTR);
}

static void read_done(struct worker_job *job)
{
	struct build_run *run = (struct build_run *)job;
	Paddock__V1__UnpackArchiveRequest message = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__INIT;
	struct pdk_error err;

	run->busy = false;
	if (run->over || !run->inner) {
		build_run_fail(run, NULL);
		return;
	}
	if (run->chunk_length == 0) {
		rpc_local_half_close(run->inner);
		return;
	}
	message.message_case = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__MESSAGE_DATA;
	message.data.data = run->chunk;
	message.data.len = run->chunk_length > 0 ? (size_t)run->chunk_length : 0;
	if (run->chunk_length > 0 && rpc_local_send(run->inner, &message.base) >= 0)
		return;
	pdk_fail(&err, -EIO, PDK_INTERNAL, "COPY: the uploaded files cannot be read");
	build_run_fail(run, &err);
}

static void on_want(void *arg)
{
	struct build_run *run = arg;

	run->job.work = read_work;
	run->job.done = read_done;
	run->busy = true;
	worker_submit(&run->job);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
}

static void on_unpacked(void *arg, const struct pdk_error *end)
{
	struct build_run *run = arg;
	struct pdk_error err;

	run->inner = NULL;
	if (end->code != PDK_OK || run->busy) {
		pdk_fail(&err, -EINVAL, end->code ? end->code : PDK_ABORTED,
			 "COPY: the files could not be unpacked: %.300s", end->code ? end->text : "it ended early");
		build_run_fail(run, &err);
		return;
	}
	build_copy_clear(run);
	move_files(run);
}

static int open_unpack(struct build_run *run)
{
	static const struct rpc_local_events events = {
		.on_message = on_message, .on_want = on_want, .on_end = on_unpacked};
	Paddock__V1__UnpackArchiveRequest message = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__INIT;
	Paddock__V1__UnpackArchiveHeader header = PADDOCK__V1__UNPACK_ARCHIVE_HEADER__INIT;
	uint8_t random[8];
	char hex[17];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	hex_encode(random, sizeof(random), hex);
	snprintf(run->scratch, sizeof(run->scratch), "/var/tmp/.paddock-%s", hex);
	header.sandbox_id = run->sandbox_id;
	header.path.data = (uint8_t *)run->scratch;
	header.path.len = strlen(run->scratch);
	header.user = (char *)"root";
	message.message_case = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__MESSAGE_HEADER;
	message.header = &header;
	run->chunk = malloc(CHUNK);
	if (run->chunk)
		run->inner = rpc_local_open_as(&run->principal, "/paddock.v1.Files/UnpackArchive", &message.base,
					       &events, run);
	return run->inner ? 0 : -ENOMEM;
}

static void open_work(struct worker_job *job)
{
	struct build_run *run = (struct build_run *)job;

	run->fd = build_files_open(run->file);
}

static void open_done(struct worker_job *job)
{
	struct build_run *run = (struct build_run *)job;
	struct pdk_error err;
	int rc;

	run->busy = false;
	if (run->over) {
		build_run_fail(run, NULL);
		return;
	}
	rc = run->fd < 0 ? run->fd : open_unpack(run);
	if (rc >= 0)
		return;
	pdk_fail_errno(&err, rc, "COPY: opening its files");
	build_run_fail(run, &err);
}

void build_step_copy(struct build_run *run, const Paddock__V1__TemplateBuildStep *step)
{
	struct pdk_error err;

	run->file = build_files_find(run->build->stored->tenant, step->files_hash);
	if (!run->file) {
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "COPY: its files are not here (any more): upload them again");
		build_run_fail(run, &err);
		return;
	}
	run->job.work = open_work;
	run->job.done = open_done;
	run->busy = true;
	worker_submit(&run->job);
}
