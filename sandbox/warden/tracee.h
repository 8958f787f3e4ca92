#ifndef PADDOCK_WARDEN_TRACEE_H
#define PADDOCK_WARDEN_TRACEE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

/*
 * A thread that is held by ptrace. Everything here leaves it in the stop that PTRACE_INTERRUPT asks for: from there the
 * kernel repeats an interrupted system call by itself when the thread goes on. Nothing waits without end.
 */

struct tracee_state {
	struct user_regs_struct regs;
	uint64_t mask; /* blocked signals */
};

struct tracee_area {
	uint64_t start, end;
};

/* Ask for the stop; tracee_stopped() waits for it. -ESRCH: it is gone, or a zombie. */
int tracee_seize(pid_t tid, bool for_long);
/* *ret_signal: what its group was stopped with before, or 0. */
int tracee_stopped(pid_t tid, int *ret_signal);
void tracee_release(pid_t tid);

int tracee_get(pid_t tid, struct tracee_state *ret);
int tracee_set(pid_t tid, const struct tracee_state *state);
/* Words of its memory, also where it may only execute. */
int tracee_peek(pid_t tid, uint64_t at, uint64_t *ret, unsigned int n);
int tracee_poke(pid_t tid, uint64_t at, const uint64_t *words, unsigned int n);
/* Where its struct rseq says that a critical section is under way; 0: none. *ret_at: of that field, or 0. */
uint64_t tracee_rseq(pid_t tid, uint64_t *ret_at);

/* No breakpoint in the processor, and no trap that waits to end it. */
int tracee_clear_traps(pid_t tid);
/* Let it run what is in the area until it is out of it, or at a trap in it. -ETIMEDOUT, or -ESRCH if that ended it. */
int tracee_run_out(pid_t tid, const struct tracee_area *area);
/* A system call, by an instruction that is put at `place` and left there. Its registers change. */
int tracee_call(pid_t tid, uint64_t place, long number, const uint64_t arguments[6], int64_t *ret);

#endif
