#ifndef PADDOCK_SERVER_PROCESS_INTERNAL_H
#define PADDOCK_SERVER_PROCESS_INTERNAL_H

#include "guest.h"
#include "loop.h"
#include "output.h"
#include "paddock/internal/store.pb-c.h"
#include "paddock/v1/processes.pb-c.h"
#include "rpc.h"
#include "sandboxes.h"
#include <stdatomic.h>

/* Shared by process*.c only. The theory of operation is in processes.c. */

#define PROCESSES_ENDED_MAX 256u
#define PROCESS_ARGV_SHOWN 2048u /* bytes of argv that List shows, and that memory keeps after the end */

enum process_state {
	PROCESS_STARTING, /* init was asked; nobody else sees it. -> RUNNING, or it is removed */
	PROCESS_RUNNING,  /* init answered: pid and pipes are valid. -> DRAINING */
	PROCESS_DRAINING, /* it has ended; what is left in the pipes is read. -> ENDED (init keeps the exit), STORING */
	PROCESS_STORING,  /* only we know its exit, and it is on the way to the store. -> ENDED */
	PROCESS_ENDED,    /* the exit may be told; a pipe may still be open (held by a grandchild) */
};

/* A piece of live output, shared by followers. `refs` also counts what gRPC still sends. */
struct chunk {
	struct chunk *next;
	atomic_uint refs;
	unsigned int stream;
	uint64_t sequence;
	size_t used;
	size_t size;
	uint8_t data[];
};

struct process_pipe {
	struct process *process;
	struct loop_watch *watch; /* NULL while paused */
	int fd;
	unsigned int stream; /* paddock.v1.Stream */
	bool grown;
	bool roomy;             /* it holds what comes while it rests */
	uint64_t window_ns;     /* when the present window of the rate began */
	size_t window_bytes;    /* what came in it */
	size_t before_bytes;    /* and in the one before */
	struct loop_timer rest; /* armed: not read until then */
};

struct process {
	struct process_list *list; /* NULL: removed from it, only references are left */
	unsigned int refs;
	enum process_state state;
	bool committed;    /* its start is durable */
	bool exit_kept;    /* init told its exit, and keeps it until it is told to forget */
	bool exit_durable; /* the store has its exit */
	bool store_failed; /* its exit could not be stored */
	uint64_t id;
	Paddock__Internal__StoredProcess *stored; /* what the store has, or will have next */
	uint32_t stream;                          /* of the guest's link; 0 when over */
	struct process_pipe pipes[2];
	size_t drained;                /* bytes read since it ended */
	struct loop_timer drain_timer; /* while it runs: asks for its pipes again */
	struct output *output;

	struct chunk *first_chunk; /* covers [live_base, output_total) */
	struct chunk *last_chunk;
	size_t chunk_bytes; /* memory of the list */
	bool paused;
	struct follower *followers;
	struct waiter *waiters;

	bool suspended; /* its pipes are still to come, from a sandbox that goes on: input waits */
	int stdin_fd;
	struct loop_watch *stdin_watch;
	struct input *first_input;
	struct input *last_input;
};

struct process_list {
	struct sandbox *sandbox;
	uint64_t next_id;
	struct process **items; /* by id */
	size_t count;
	size_t size;
	unsigned int running; /* not ENDED */
	uint64_t kept_bytes;  /* of output, of all of them */
};

/* A call that follows a process: Start, Attach, Interact. */
struct follower {
	struct follower *next;
	struct process *process;
	struct rpc_call *call;
	uint64_t sequence; /* next byte to send */
	struct output_cursor cursor;
	struct loop_timer keepalive;
	uint64_t last_sent_ns;
	bool attached; /* in process->followers */
	bool send_started;
	bool detach;
	bool starting;       /* the Start (or Interact) that made the process, not settled yet */
	bool commit_pending; /* rpc_commit() will still call back */
	bool interactive;
	bool cancelled;
	struct pdk_error why;         /* valid when cancelled */
	struct pdk_error start_error; /* valid when the start failed */
	bool start_answered;
	int commit_rc;
	struct input *input; /* of an Interact: waits for the pipe */
	struct guest *asked; /* of an Interact: to resize, on `stream`; NULL: nothing is under way */
	uint32_t stream;
};

/* Bytes on their way into stdin: SendInput, or one message of an Interact. */
struct input {
	struct input *next;
	struct process *process;
	struct rpc_call *call;     /* SendInput */
	struct follower *follower; /* Interact */
	const uint8_t *data;
	uint8_t *copy; /* owned, or NULL */
	size_t length;
	size_t done;
	bool close; /* the end of the input, queued behind what came before */
	struct loop_timer limit;
};

/* processes.c: the list */
struct process_list *process_list_get(struct sandbox *sandbox);
struct process *process_list_find(struct process_list *list, uint64_t id);
struct process *process_list_find_tag(struct process_list *list, const char *tag);
int process_list_add(struct process_list *list, struct process *process);
void process_list_remove(struct process *process);
/* Remove the oldest ended ones beyond PROCESSES_ENDED_MAX, from the store too. */
void process_list_trim(struct process_list *list);
/* Keep output, within what is kept of a sandbox. Others that have ended may go for it. */
void process_keep_output(struct process *process, unsigned int stream, const void *data, size_t length);
/* `stored` becomes the process's own. */
struct process *process_create(struct process_list *list, Paddock__Internal__StoredProcess *stored);
struct process *process_ref(struct process *process);
void process_unref(struct process *process);
int process_put(struct store_batch *batch, const struct process *process);
int process_delete(struct store_batch *batch, const struct process *process);
/* Cut the argv in memory to what List shows. */
void process_trim_argv(Paddock__Internal__StoredProcess *stored);

/* Find the process that a call names. `live`: its sandbox must be running. */
int process_lookup(struct rpc_call *call, const char *sandbox_id, uint64_t process_id, bool live, struct process **ret,
		   struct pdk_error *err);
int process_fail_gone(struct pdk_error *err);

/* process_start.c */
void process_start_call(struct rpc_call *call, const Paddock__V1__StartProcessRequest *request, bool interactive);
/* The guest's answer, or the commit's, has come in. */
void process_start_settle(struct follower *follower);

/* process_run.c */
void process_on_guest(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		      const struct pdk_error *err, void *arg);
void process_set_exit(struct process *process, const Paddock__Internal__GuestExited *exited, bool sandbox_ended);
/* Read what is there; then the end goes to the store. */
void process_begin_drain(struct process *process);
void process_update_polling(struct process *process);
void process_read_left(struct process *process);
void process_close_pipes(struct process *process);
/* The exit may be told: tell everybody. */
void process_ended(struct process *process);
/* The store has spoken about the exit. */
void process_exit_stored(struct process *process, int rc);
void process_signal(struct process *process, uint32_t signal, bool process_only);

/* process_follow.c */
struct follower *follower_create(struct rpc_call *call, struct process *process);
void follower_attach(struct follower *follower, uint64_t from_sequence);
void follower_pump(struct follower *follower);
void follower_fail(struct follower *follower, const struct pdk_error *err);
void follower_on_sent(struct rpc_call *call);
void follower_on_cancel(struct rpc_call *call, const struct pdk_error *why);
void followers_pump(struct process *process);
/* Whether the pipes may be read. */
bool followers_allow_reading(struct process *process);
/* The chunk to read into: the last one if it has room, or a new one of `size` bytes. */
struct chunk *chunk_for_reading(struct process *process, unsigned int stream, size_t size);
void chunk_filled(struct process *process, struct chunk *chunk, size_t length);
void chunk_unref(struct chunk *chunk);
void chunks_drop(struct process *process);
int process_attach_call(struct rpc_call *call, const Paddock__V1__AttachRequest *request, bool interactive,
			struct pdk_error *err);

/* process_input.c */
void inputs_run(struct process *process);
void inputs_close(struct process *process);
/* Let the pipe go; what was not written waits. */
void inputs_suspend(struct process *process);
void input_forget(struct input *input);
int process_close_stdin(struct process *process);
void interact_on_message(struct rpc_call *call, const ProtobufCMessage *message);
void interact_on_half_close(struct rpc_call *call);

/* process_service.c */
void process_fill_exit(const struct process *process, Paddock__V1__ProcessExit *ret);
/* Whether the exit of one that has ended may be told: the store has it, or init keeps it. */
bool process_exit_known(const struct process *process);
void waiters_answer(struct process *process);

/* process_adopt.c */
/* Its pipes have not come: ask again in a second. */
void process_adopt_later(struct process *process);

#endif
