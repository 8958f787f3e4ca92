#ifndef PADDOCK_INIT_PROCESS_H
#define PADDOCK_INIT_PROCESS_H

#include "sandbox/init/init.h"
#include "sandbox/init/message.h"
#include "sandbox/init/spawn.h"
#include <sys/types.h>

/*
 * Processes with handles. A handle lives from GuestStart to GuestForget, whatever happens to the link: init
 * keeps a duplicate of each pipe end, so that a paddockd that comes back loses nothing.
 */

#define PROCESS_RUNNING_MAX 1024u
#define PROCESS_HANDLES_MAX 1536u

enum process_state {
	PROCESS_STARTING, /* forked; its report pipe is open. -> RUNNING, or gone with an error reply */
	PROCESS_RUNNING,  /* `started` was replied. -> DRAINING or ENDED when it is reaped */
	PROCESS_DRAINING, /* on a terminal, reaped; the relay still holds output. -> ENDED */
	PROCESS_ENDED,    /* `exited` was replied, and will be again on GuestAdopt. -> gone on GuestForget */
};

struct terminal;
struct sudo_call;

struct process {
	struct process *next;
	enum process_state state;
	uint64_t handle;
	uint32_t stream; /* where started and exited go; 0: nobody listens */
	pid_t pid;       /* ours to signal until it is reaped; then 0 */
	int shown_pid;
	struct source report;
	struct spawn_report *last_report; /* STARTING */
	bool ready;
	char *cwd;

	int ends[3]; /* stdin (write end), stdout, stderr (read ends); -1: none, or closed */
	struct terminal *terminal;
	struct sudo_call *sudo; /* instead of a handle: a command started by `sudo` */

	uint64_t timeout_ms; /* counts from `started` */
	uint64_t grace_ms;
	uint64_t deadline; /* of the next step: TERM, then KILL; 0: none */
	bool timed_out;

	int status; /* of waitpid() */
	int64_t ended_unix_ms;
};

int process_start(struct init *init, uint32_t stream, const guest_message(Start) * start, struct pdk_error *err);
int process_signal(struct init *init, uint32_t stream, const guest_message(Signal) * request, struct pdk_error *err);
int process_resize(struct init *init, uint32_t stream, const guest_message(Resize) * request, struct pdk_error *err);
int process_close_stdin(struct init *init, uint32_t stream, uint64_t handle, struct pdk_error *err);
int process_adopt(struct init *init, uint32_t stream, uint64_t handle, struct pdk_error *err);
int process_forget(struct init *init, uint32_t stream, uint64_t handle, struct pdk_error *err);

/* Start a command for sudo, on `plan`'s descriptors. */
int process_start_sudo(struct init *init, const struct spawn_plan *plan, struct sudo_call *sudo);
/* Send a signal to the group of a process (or only to it), if it was not reaped. */
int process_kill(struct process *process, int signal, bool process_only);

/* A child was reaped; false if it is none of these. */
bool process_ended(struct init *init, pid_t pid, int status);
/* The relay of a terminal has nothing left. */
void process_drained(struct init *init, struct process *process);
void process_check_deadlines(struct init *init);
/* Nothing ran for that long: the time limits stood still. */
void process_postpone(struct init *init, uint64_t by_ms);

bool process_has_stream(const struct init *init, uint32_t stream);
void process_detach_stream(struct init *init, uint32_t stream);
void process_detach_all(struct init *init);

#endif
