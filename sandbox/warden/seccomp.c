#include "seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"
#include "sandbox/base/cleanup.h"
#include "seccomp_policy.h"

#define POLICY_BYTES_MAX 65536

static struct sock_filter program[BPF_MAXINSNS];
static struct sock_fprog compiled;

int seccomp_setup(const char *path, struct pdk_error *err)
{
	_cleanup_free_ char *text = malloc(POLICY_BYTES_MAX);
	_cleanup_free_ struct seccomp_policy *policy = malloc(sizeof(*policy));
	int length, rc;

	if (!text || !policy)
		return pdk_fail_errno(err, -ENOMEM, "read the seccomp policy");
	length = file_read(AT_FDCWD, path, text, POLICY_BYTES_MAX);
	if (length < 0)
		return pdk_fail_errno(err, length, "read the seccomp policy %s", path);
	if (length == POLICY_BYTES_MAX - 1)
		return pdk_fail(err, -EFBIG, PDK_INVALID_ARGUMENT, "the seccomp policy is too large");
	rc = seccomp_policy_parse(policy, text, (size_t)length, err);
	if (rc < 0)
		return pdk_wrap(err, rc, "%s", path);
	rc = seccomp_policy_compile(policy, program, BPF_MAXINSNS);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "compile the seccomp policy");
	compiled = (struct sock_fprog){.len = (unsigned short)rc, .filter = program};
	return 0;
}

int seccomp_load(void)
{
	if (compiled.len == 0)
		return -EINVAL;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &compiled) < 0 ? -errno : 0;
}
