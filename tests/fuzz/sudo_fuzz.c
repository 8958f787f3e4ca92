/* What a hostile process in the sandbox says to init's sudo socket: parse() of sudo.c, in a buffer of exactly its size.
 */
#include "sandbox/init/sudo.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What sudo.c calls when a request was good; here nothing is started. */
int source_add(struct init *init, struct source *source, int fd, uint32_t events,
	       void (*ready)(struct init *, struct source *, uint32_t))
{
	return -ENOSYS;
}

void source_set(struct init *init, struct source *source, uint32_t events)
{
}

void source_close(struct init *init, struct source *source)
{
}

uint64_t init_now(void)
{
	return 0;
}

void init_wake_at(struct init *init, uint64_t deadline)
{
}

bool session_is_idle(const struct init *init)
{
	return true;
}

void session_event(struct init *init, const guest_reply *reply)
{
	size_t length = paddock__internal__guest_reply__get_packed_size(reply);
	uint8_t *packed = malloc(length);

	/* paddockd refuses what is not UTF-8 or too long; it must at least be whole */
	if (!packed || length > LINK_PAYLOAD_MAX || paddock__internal__guest_reply__pack(reply, packed) != length)
		__builtin_trap();
	free(packed);
}

int process_start_sudo(struct init *init, const struct spawn_plan *plan, struct sudo_call *sudo)
{
	return -ENOSYS;
}

int process_kill(struct process *process, int signal, bool process_only)
{
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct command command = {.fds = {-1, -1, -1}, .bytes = malloc(size ? size : 1)};
	struct init init = {.sudo_allowed = true};
	struct sudo_call call = {.source.fd = -1};
	size_t length = 0;

	if (size > SUDO_REQUEST_MAX || !command.bytes) {
		command_free(&command);
		return 0;
	}
	memcpy(command.bytes, data, size);
	if (parse(&command, size) == 0) {
		for (size_t i = 0; i < command.argc; i++)
			length += strlen(command.argv[i]) + 1;
		for (size_t i = 0; i < command.envc; i++)
			length += strlen(command.env[i]) + 1;
		if (length > size || command.argv[command.argc] || command.env[command.envc])
			__builtin_trap();
		tell_paddockd(&init, &call, &command);
	}
	command_free(&command);
	return 0;
}
