#include "probe.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * K25: system calls with numbers and arguments drawn at random, for a number of seconds. Each child makes a few hundred
 * and is ended when it hangs. run.py looks at the kernel's log, the server and the neighbours meanwhile.
 */

#define CALLS 400
#define NUMBERS 470
#define SCRATCH (1u << 20)

static struct {
	unsigned long calls, worked;
} * counted;
static uint8_t *scratch;
static uint64_t state;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* These would end or silence the fuzzer itself. */
static bool is_left_out(long number)
{
	static const long left_out[] = {SYS_kill,
					SYS_tkill,
					SYS_tgkill,
					SYS_rt_sigqueueinfo,
					SYS_rt_tgsigqueueinfo,
					SYS_exit,
					SYS_exit_group,
					SYS_pause,
					SYS_rt_sigsuspend,
					SYS_vhangup,
					SYS_rt_sigreturn,
					SYS_ptrace,
					SYS_pidfd_send_signal,
					SYS_setitimer,
					SYS_rt_sigprocmask,
					SYS_vfork,
					SYS_munmap,
					SYS_mremap,
					SYS_brk,
					462 /* mseal */,
					SYS_prlimit64,
					SYS_setrlimit};

	for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++) {
		if (number == left_out[i])
			return true;
	}
	return false;
}

static long argument(void)
{
	uint64_t r = next_random();

	switch (r % 8) {
	case 0:
		return (long)(r >> 8 & 0xf);
	case 1:
		return (long)(r >> 8 & 31); /* a descriptor, perhaps */
	case 2:
		return 1L << (r >> 8 & 63);
	case 3:
	case 4:
		return (long)(uintptr_t)(scratch + (r >> 8) % (SCRATCH - 65536));
	case 5:
		return -1 - (long)(r >> 8 & 3);
	case 6:
		return (long)(r >> 8 & 0xffff);
	default:
		return (long)next_random();
	}
}

static void one_child(void)
{
	static const struct itimerval limit = {.it_value = {0, 200000}};
	static const char *const names[] = {"/", "/tmp/fuzz", "/proc/self", "/dev/null", "/proc/self/fd/3", "lo", ""};

	setitimer(ITIMER_REAL, &limit, NULL);
	for (size_t i = 0; i < SCRATCH; i += 8) {
		uint64_t r = next_random();

		memcpy(scratch + i, &r, 8);
	}
	for (size_t i = 0; i < SCRATCH; i += 512)
		strcpy((char *)scratch + i, names[next_random() % (sizeof(names) / sizeof(names[0]))]);
	for (int i = 0; i < CALLS; i++) {
		long number = (long)(next_random() % NUMBERS);

		if (is_left_out(number))
			continue;
		counted->calls++;
		if (syscall(number, argument(), argument(), argument(), argument(), argument(), argument()) >= 0)
			counted->worked++;
	}
	_exit(0);
}

/* It may have taken its own alarm away. */
static void end_child(pid_t pid)
{
	for (int i = 0; i < 500; i++) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return;
		usleep(1000);
	}
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

void fuzz_calls(unsigned int seconds, uint64_t seed)
{
	time_t end = time(NULL) + (time_t)seconds;

	counted = mmap(NULL, sizeof(*counted), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	scratch = mmap(NULL, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	while (time(NULL) < end) {
		pid_t pid = fork();

		state = ++seed * 0x9e3779b97f4a7c15u;
		if (pid == 0)
			one_child();
		if (pid > 0)
			end_child(pid);
	}
	printf("\ncalls %lu worked %lu\n", counted->calls, counted->worked);
}
