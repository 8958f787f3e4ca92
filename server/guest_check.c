#include "guest_check.h"

#include "validate.h"
#include <errno.h>
#include <string.h>

#define OP(name) PADDOCK__INTERNAL__GUEST_REQUEST__OP_##name
#define RESULT(name) PADDOCK__INTERNAL__GUEST_REPLY__RESULT_##name

#define PATH_LIMIT 4096u
#define TEXT_LIMIT 4096u
#define FILE_TYPE_MAX 4u
#define METADATA_ENTRIES_MAX 128u
#define METADATA_BYTES_MAX 4096u
#define WATCH_TYPE_MAX 7u

typedef Paddock__Internal__GuestReply__ResultCase result_case;

static int broken(struct pdk_error *err, const char *what)
{
	return pdk_fail(err, -EPROTO, PDK_DATA_LOSS, "the sandbox's init broke the protocol: %s", what);
}

unsigned int guest_replies_max(guest_op op)
{
	switch (op) {
	case OP(START):
	case OP(ADOPT):
	case OP(READ):
	case OP(PACK):
	case OP(WRITE):
	case OP(UNPACK):
		return 2;
	case OP(HELLO):
	case OP(SIGNAL):
	case OP(RESIZE):
	case OP(STAT):
	case OP(LIST):
	case OP(MAKE_DIR):
	case OP(MOVE):
	case OP(REMOVE):
	case OP(WATCH):
	case OP(SETUP):
	case OP(FORGET):
	case OP(CLOSE_STDIN):
	case OP(RESUMED):
	case OP(PORTS):
	case OP(DIAL):
		return 1;
	case OP(_NOT_SET):
	case _PADDOCK__INTERNAL__GUEST_REQUEST__OP__CASE_IS_INT_SIZE:
		break;
	}
	return 0;
}

/* The result that a reply without an error must carry. */
static result_case expected_result(guest_op op, unsigned int index, uint64_t handle)
{
	switch (op) {
	case OP(HELLO):
		return RESULT(HELLO);
	case OP(START):
		return index == 0 ? RESULT(STARTED) : RESULT(EXITED);
	case OP(ADOPT):
		if (handle == 0)
			return RESULT(PROCESSES);
		return index == 0 ? RESULT(STARTED) : RESULT(EXITED);
	case OP(STAT):
	case OP(MAKE_DIR):
	case OP(MOVE):
		return RESULT(FILE);
	case OP(LIST):
		return RESULT(FILES);
	case OP(READ):
		return index == 0 ? RESULT(FILE) : RESULT(_NOT_SET);
	case OP(WRITE):
		return index == 0 ? RESULT(_NOT_SET) : RESULT(FILE);
	case OP(UNPACK):
		return index == 0 ? RESULT(_NOT_SET) : RESULT(COUNT);
	case OP(REMOVE):
		return RESULT(COUNT);
	case OP(PORTS):
		return RESULT(PORTS);
	case OP(WATCH):
	case OP(PACK):
	case OP(SETUP):
	case OP(SIGNAL):
	case OP(RESIZE):
	case OP(FORGET):
	case OP(CLOSE_STDIN):
	case OP(RESUMED):
	case OP(DIAL):
	case OP(_NOT_SET):
	case _PADDOCK__INTERNAL__GUEST_REQUEST__OP__CASE_IS_INT_SIZE:
		break;
	}
	return RESULT(_NOT_SET);
}

static unsigned int expected_fds(const Paddock__Internal__GuestReply *reply, guest_op op, unsigned int index)
{
	const Paddock__Internal__GuestStarted *started;

	if (reply->code || index > 0)
		return 0;
	if (reply->result_case == RESULT(STARTED)) {
		started = reply->started;
		return (unsigned int)!!started->has_stdin + !!started->has_stdout + !!started->has_stderr;
	}
	return op == OP(DIAL) || op == OP(READ) || op == OP(WRITE) || op == OP(PACK) || op == OP(UNPACK);
}

static int check_metadata(const Paddock__Internal__GuestFile *file, struct pdk_error *err)
{
	size_t bytes = 0;

	if (file->n_metadata > METADATA_ENTRIES_MAX)
		return broken(err, "number of metadata entries");
	for (size_t i = 0; i < file->n_metadata; i++)
		bytes += file->metadata[i]->name.len + file->metadata[i]->value.len;
	return bytes > METADATA_BYTES_MAX ? broken(err, "length of metadata") : 0;
}

static int check_file(const Paddock__Internal__GuestFile *file, struct pdk_error *err)
{
	if (file->type == 0 || file->type > FILE_TYPE_MAX)
		return broken(err, "file type");
	if (file->mode > 07777)
		return broken(err, "file mode");
	if (file->path.len > PATH_LIMIT || file->symlink_target.len > PATH_LIMIT)
		return broken(err, "length of a path");
	if (strlen(file->user) > 64 || strlen(file->group) > 64)
		return broken(err, "length of a user name");
	return check_metadata(file, err);
}

static int check_files(const Paddock__Internal__GuestFiles *files, struct pdk_error *err)
{
	int rc = 0;

	if (files->n_file > GUEST_FILES_MAX || files->next.len > PATH_LIMIT)
		return broken(err, "length of a list");
	for (size_t i = 0; i < files->n_file && rc == 0; i++)
		rc = check_file(files->file[i], err);
	return rc;
}

static int check_exited(const Paddock__Internal__GuestExited *exited, uint64_t handle, struct pdk_error *err)
{
	if (exited->handle != handle)
		return broken(err, "exit of another process");
	if (exited->exit_code > 255 || exited->signal > 64)
		return broken(err, "exit code");
	return 0;
}

static int check_started(const Paddock__Internal__GuestStarted *started, uint64_t handle, struct pdk_error *err)
{
	if (started->handle != handle)
		return broken(err, "start of another process");
	if (started->pid < 2 || started->pid > 4194304)
		return broken(err, "process number");
	if (strlen(started->cwd) > PATH_LIMIT)
		return broken(err, "length of a path");
	return 0;
}

static int check_ports(const Paddock__Internal__GuestPortList *ports, struct pdk_error *err)
{
	if (ports->n_port > GUEST_PORTS_MAX)
		return broken(err, "number of ports");
	for (size_t i = 0; i < ports->n_port; i++)
		if (ports->port[i]->port == 0 || ports->port[i]->port > 65535)
			return broken(err, "port");
	return 0;
}

static int check_result(const Paddock__Internal__GuestReply *reply, uint64_t handle, struct pdk_error *err)
{
	switch (reply->result_case) {
	case RESULT(HELLO):
		return strlen(reply->hello->build) > TEXT_LIMIT ? broken(err, "hello") : 0;
	case RESULT(STARTED):
		return check_started(reply->started, handle, err);
	case RESULT(EXITED):
		return check_exited(reply->exited, handle, err);
	case RESULT(FILE):
		return check_file(reply->file, err);
	case RESULT(FILES):
		return check_files(reply->files, err);
	case RESULT(PROCESSES):
		return reply->processes->n_handle > GUEST_PROCESSES_MAX ? broken(err, "number of processes") : 0;
	case RESULT(PORTS):
		return check_ports(reply->ports, err);
	case RESULT(COUNT):
	case RESULT(WATCH):
	case RESULT(SUDO):
	case RESULT(_NOT_SET):
	case _PADDOCK__INTERNAL__GUEST_REPLY__RESULT__CASE_IS_INT_SIZE:
		break;
	}
	return 0;
}

int guest_check_reply(const Paddock__Internal__GuestReply *reply, guest_op op, unsigned int index, uint64_t handle,
		      unsigned int n_fds, struct pdk_error *err)
{
	if (index >= guest_replies_max(op))
		return broken(err, "too many replies");
	if (reply->code > PDK_UNAUTHENTICATED || strlen(reply->text) > TEXT_LIMIT)
		return broken(err, "status");
	if (reply->code == 0 && reply->result_case != expected_result(op, index, handle))
		return broken(err, "reply of another kind");
	if (reply->code && reply->result_case != RESULT(_NOT_SET))
		return broken(err, "result beside an error");
	if (n_fds != expected_fds(reply, op, index))
		return broken(err, "number of descriptors");
	return check_result(reply, handle, err);
}

int guest_check_event(const Paddock__Internal__GuestReply *reply, guest_op op, unsigned int n_fds,
		      struct pdk_error *err)
{
	const Paddock__Internal__GuestWatchEvent *watch;

	if (op != OP(WATCH) || reply->result_case != RESULT(WATCH) || reply->code || n_fds)
		return broken(err, "unexpected event");
	watch = reply->watch;
	if (watch->type == 0 || watch->type > WATCH_TYPE_MAX || watch->file_type > FILE_TYPE_MAX)
		return broken(err, "event type");
	if (watch->path.len > PATH_LIMIT || watch->old_path.len > PATH_LIMIT)
		return broken(err, "length of a path");
	return 0;
}

int guest_check_notice(const Paddock__Internal__GuestReply *reply, unsigned int n_fds, struct pdk_error *err)
{
	if (reply->result_case != RESULT(SUDO) || reply->code || n_fds)
		return broken(err, "unexpected notice");
	if (reply->sudo->n_argv > 4096 || strlen(reply->sudo->cwd) > PATH_LIMIT)
		return broken(err, "sudo notice");
	return 0;
}

void guest_clean_text(char *ret, size_t size, const char *text)
{
	bool utf8 = utf8_valid(text, strlen(text));
	size_t i;

	for (i = 0; i + 1 < size && text[i]; i++) {
		unsigned char c = (unsigned char)text[i];

		ret[i] = (char)((c >= 0x20 && c < 0x7f) || (c >= 0x80 && utf8) ? c : '?');
	}
	/* Not in the middle of a character. */
	while (text[i] && i > 0 && ((unsigned char)text[i] & 0xc0) == 0x80)
		i--;
	ret[i] = '\0';
}
