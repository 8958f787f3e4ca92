#include "tracee.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel.h"
#include "sandbox/base/cleanup.h"

#define WAIT_MS 10000 /* it may be waiting for a slow disk */
#define SPINS 200
#define RUN_MS 10000 /* of what CRIU has put there: it may be in the middle of copying pages */
#define SYSCALL_STOP (SIGTRAP | 0x80)
#define TRAP_BIT (1u << (SIGTRAP - 1))
#define FLUSHES_MAX 8

static long request(enum __ptrace_request what, pid_t tid, uint64_t address, const void *data)
{
	/* The kernel's numbers are addresses here, and addresses numbers. */
	return ptrace(what, tid, (void *)(uintptr_t)address, data);
}

/* The next stop, or -ETIMEDOUT; -ESRCH when it has ended. */
static int wait_stop(pid_t tid, unsigned int limit_ms, int *ret_status)
{
	unsigned long long deadline = clock_ms() + limit_ms;

	for (unsigned int i = 0;; i++) {
		pid_t pid = waitpid(tid, ret_status, __WALL | WNOHANG);

		if (pid == tid)
			return WIFSTOPPED(*ret_status) ? 0 : -ESRCH;
		if (pid < 0 && errno != EINTR)
			return -ESRCH;
		if (clock_ms() > deadline)
			return -ETIMEDOUT;
		if (i < SPINS)
			sched_yield();
		else
			usleep(100);
	}
}

static bool is_event_stop(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP;
}

int tracee_seize(pid_t tid, bool for_long)
{
	uintptr_t options = for_long ? PTRACE_O_TRACESYSGOOD : 0;

	/* What CRIU has put there was to run without the sandbox's filter. */
	if ((!for_long || ptrace(PTRACE_SEIZE, tid, NULL, options | PTRACE_O_SUSPEND_SECCOMP) < 0) &&
	    ptrace(PTRACE_SEIZE, tid, NULL, options) < 0)
		return errno == EPERM ? -ESRCH : -errno;
	return request(PTRACE_INTERRUPT, tid, 0, NULL) < 0 ? -errno : 0;
}

int tracee_stopped(pid_t tid, int *ret_signal)
{
	int status, rc;

	do {
		rc = wait_stop(tid, WAIT_MS, &status);
		if (rc == 0 && !is_event_stop(status))
			rc = request(PTRACE_CONT, tid, 0, (void *)(intptr_t)WSTOPSIG(status)) < 0 ? -errno : 1;
	} while (rc > 0);
	if (rc == 0)
		*ret_signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
	return rc;
}

void tracee_release(pid_t tid)
{
	request(PTRACE_DETACH, tid, 0, NULL);
}

int tracee_get(pid_t tid, struct tracee_state *ret)
{
	if (request(PTRACE_GETREGS, tid, 0, &ret->regs) < 0 ||
	    request(PTRACE_GETSIGMASK, tid, sizeof(ret->mask), &ret->mask) < 0)
		return -errno;
	return 0;
}

int tracee_set(pid_t tid, const struct tracee_state *state)
{
	if (request(PTRACE_SETREGS, tid, 0, &state->regs) < 0 ||
	    request(PTRACE_SETSIGMASK, tid, sizeof(state->mask), &state->mask) < 0)
		return -errno;
	return 0;
}

int tracee_peek(pid_t tid, uint64_t at, uint64_t *ret, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		errno = 0;
		ret[i] = (uint64_t)request(PTRACE_PEEKTEXT, tid, at + i * sizeof(*ret), NULL);
		if (errno)
			return -errno;
	}
	return 0;
}

int tracee_poke(pid_t tid, uint64_t at, const uint64_t *words, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (request(PTRACE_POKETEXT, tid, at + i * sizeof(*words), (void *)(uintptr_t)words[i]) < 0)
			return -errno;
	return 0;
}

uint64_t tracee_rseq(pid_t tid, uint64_t *ret_at)
{
	struct __ptrace_rseq_configuration area = {.rseq_abi_pointer = 0};
	uint64_t section = 0;

	*ret_at = 0;
	if (request(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(area), &area) <= 0 || !area.rseq_abi_pointer)
		return 0;
	*ret_at = area.rseq_abi_pointer + 8;
	return tracee_peek(tid, *ret_at, &section, 1) == 0 ? section : 0;
}

static bool a_trap_waits(pid_t tid)
{
	char path[64], status[4096], *line;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	if (file_read(AT_FDCWD, path, status, sizeof(status)) <= 0)
		return false;
	line = strstr(status, "\nSigPnd:\t");
	return line && strtoull(line + strlen("\nSigPnd:\t"), NULL, 16) & TRAP_BIT;
}

/* From whatever stop it is in, without an instruction of its own in between. */
static int interrupt(pid_t tid)
{
	int status, rc;

	if (request(PTRACE_INTERRUPT, tid, 0, NULL) < 0 || request(PTRACE_CONT, tid, 0, NULL) < 0)
		return -errno;
	while ((rc = wait_stop(tid, WAIT_MS, &status)) == 0 && !is_event_stop(status))
		if (request(PTRACE_CONT, tid, 0, NULL) < 0)
			return -errno;
	return rc;
}

int tracee_clear_traps(pid_t tid)
{
	uint64_t mask = ~(uint64_t)TRAP_BIT;
	int status, rc = 0;

	request(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[7]), NULL);
	/* A signal that waits is taken before anything runs. */
	for (int i = 0; rc == 0 && i < FLUSHES_MAX && a_trap_waits(tid); i++) {
		if (request(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) < 0 || request(PTRACE_CONT, tid, 0, NULL) < 0)
			return -errno;
		rc = wait_stop(tid, WAIT_MS, &status);
		if (rc == 0)
			rc = interrupt(tid);
	}
	return rc;
}

/* int3, and not a breakpoint of the processor that was hit before it was cleared. */
static bool is_int3(pid_t tid, int status)
{
	siginfo_t info;

	return status >> 8 == SIGTRAP && request(PTRACE_GETSIGINFO, tid, 0, &info) == 0 && info.si_code == SI_KERNEL;
}

static bool is_in(uint64_t address, const struct tracee_area *area)
{
	return address >= area->start && address < area->end;
}

int tracee_run_out(pid_t tid, const struct tracee_area *area)
{
	unsigned long long deadline = clock_ms() + RUN_MS;
	struct tracee_state state;
	int status, rc = tracee_get(tid, &state);

	while (rc == 0 && is_in(state.regs.rip, area)) {
		if (clock_ms() > deadline)
			return -ETIMEDOUT;
		if (request(PTRACE_SYSCALL, tid, 0, NULL) < 0)
			return -errno;
		rc = wait_stop(tid, RUN_MS, &status);
		if (rc < 0 || is_int3(tid, status))
			break;
		/* All signals are blocked in there: what comes nevertheless is a crash of it. */
		if (!is_event_stop(status) && WSTOPSIG(status) != SYSCALL_STOP && WSTOPSIG(status) != SIGTRAP)
			break;
		rc = tracee_get(tid, &state);
	}
	return rc < 0 ? rc : interrupt(tid);
}

int tracee_call(pid_t tid, uint64_t place, long number, const uint64_t arguments[6], int64_t *ret)
{
	static const uint64_t instruction = 0xccccccccccccUL << 16 | 0x050f; /* syscall, and nothing behind it */
	struct tracee_state state;
	int status, rc = tracee_get(tid, &state);

	if (rc == 0)
		rc = tracee_poke(tid, place, &instruction, 1);
	if (rc < 0)
		return rc;
	state.mask = ~(uint64_t)0;
	state.regs.rip = place;
	state.regs.orig_rax = (unsigned long long)-1; /* nothing to repeat */
	state.regs.rax = (unsigned long long)number;
	state.regs.rdi = arguments[0];
	state.regs.rsi = arguments[1];
	state.regs.rdx = arguments[2];
	state.regs.r10 = arguments[3];
	state.regs.r8 = arguments[4];
	state.regs.r9 = arguments[5];
	rc = tracee_set(tid, &state);
	for (int stops = 0; rc == 0 && stops < 2;) { /* at its entry and at its end */
		if (request(PTRACE_SYSCALL, tid, 0, NULL) < 0)
			return -errno;
		rc = wait_stop(tid, WAIT_MS, &status);
		stops += rc == 0 && WSTOPSIG(status) == SYSCALL_STOP;
		if (rc == 0 && WSTOPSIG(status) != SYSCALL_STOP && !is_event_stop(status))
			return -EFAULT;
	}
	if (rc == 0)
		rc = tracee_get(tid, &state);
	if (rc == 0)
		*ret = (int64_t)state.regs.rax;
	return rc < 0 ? rc : interrupt(tid);
}
