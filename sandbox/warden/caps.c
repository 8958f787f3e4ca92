#include "caps.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP_BIT(cap) (UINT64_C(1) << (cap))

/* MKNOD, SYS_ADMIN, NET_ADMIN, NET_RAW, SYS_PTRACE and the rest are not there: the namespaces that they would work
 * on belong to the host anyway, so this is the second lock on the same door. */
static const uint64_t allowed = CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_FOWNER) |
				CAP_BIT(CAP_FSETID) | CAP_BIT(CAP_KILL) | CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID) |
				CAP_BIT(CAP_SETPCAP) | CAP_BIT(CAP_NET_BIND_SERVICE) | CAP_BIT(CAP_SYS_CHROOT) |
				CAP_BIT(CAP_SETFCAP) | CAP_BIT(CAP_AUDIT_WRITE);

uint64_t caps_allowed(void)
{
	return allowed;
}

int caps_bound(void)
{
	for (int cap = 0; cap < 64; cap++) {
		int held = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (held < 0)
			return errno == EINVAL ? 0 : -errno; /* past the kernel's last capability */
		if (held && !(allowed & CAP_BIT(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	}
	return 0;
}

static int caps_set(int inheritable)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++) {
		uint32_t word = (uint32_t)(allowed >> (32 * i));

		data[i] = (struct __user_cap_data_struct){
			.effective = word, .permitted = word, .inheritable = inheritable ? word : 0};
	}
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int caps_become(uid_t id, int ambient)
{
	int rc;

	if (prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS) < 0 || setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 ||
	    setresuid(id, id, id) < 0)
		return -errno;
	rc = caps_set(ambient);
	if (rc < 0)
		return rc;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	for (int cap = 0; ambient && cap < 64; cap++)
		if ((allowed & CAP_BIT(cap)) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return -errno;
	return 0;
}
