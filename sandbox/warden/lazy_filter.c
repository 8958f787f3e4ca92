#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lazy_private.h"
#include "sandbox/base/cleanup.h"

/* The system calls that the server of pages and its guard live on: nothing that opens, connects or executes. */
static const unsigned short allowed[] = {
	SYS_read,         SYS_write,     SYS_pread64, SYS_pwrite64,        SYS_ioctl,       SYS_close,
	SYS_epoll_wait,   SYS_epoll_ctl, SYS_poll,    SYS_ppoll,           SYS_epoll_pwait, SYS_mmap,
	SYS_munmap,       SYS_mremap,    SYS_brk,     SYS_madvise,         SYS_exit,        SYS_exit_group,
	SYS_clone3,       SYS_waitid,    SYS_flock,   SYS_clock_gettime,   SYS_nanosleep,   SYS_clock_nanosleep,
	SYS_rt_sigreturn, SYS_prctl,     SYS_sendto,  SYS_restart_syscall, SYS_getpid,
};

#define HEAD 4

int lazy_filter(void)
{
	struct sock_filter program[HEAD + ARRAY_SIZE(allowed) + 2] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog whole = {.len = ARRAY_SIZE(program), .filter = program};
	size_t at = HEAD;

	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i],
							     (unsigned char)(ARRAY_SIZE(allowed) - i), 0);
	program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &whole) < 0 ? -errno : 0;
}
