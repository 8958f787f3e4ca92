/* The compiled filter against a direct reading of the policy, and the parser's refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "sandbox/warden/options.h"
#include "sandbox/warden/seccomp_policy.h"

struct options options;

static struct seccomp_policy policy;
static struct sock_filter program[BPF_MAXINSNS];
static bool visited[BPF_MAXINSNS];
static int length;

/* The kernel's rules for a seccomp program, as far as ours uses them. */
static uint32_t run(const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (int pc = 0; pc < length; pc++) {
		const struct sock_filter *f = &program[pc];

		visited[pc] = true;
		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(f->k + 4 <= sizeof(*data) && f->k % 4 == 0);
			memcpy(&a, (const char *)data + f->k, 4);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= f->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			pc += a == f->k ? f->jt : f->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			pc += a >= f->k ? f->jt : f->jf;
			break;
		case BPF_JMP | BPF_JA:
			pc += (int)f->k;
			break;
		case BPF_RET | BPF_K:
			return f->k;
		default:
			fail_msg("instruction %d: unexpected code %x", pc, f->code);
		}
	}
	fail_msg("ran past the end");
	return 0;
}

static uint32_t filter(uint32_t arch, uint32_t nr, const uint64_t args[6])
{
	struct seccomp_data data = {.nr = (int)nr, .arch = arch};

	memcpy(data.args, args, sizeof(data.args));
	return run(&data);
}

static uint32_t expected(uint32_t nr, const uint64_t args[6])
{
	seccomp_verdict verdict = seccomp_policy_decide(&policy, nr, args);

	return verdict ? SECCOMP_RET_ERRNO | verdict : SECCOMP_RET_ALLOW;
}

static void load(void **state)
{
	static char text[65536];
	struct pdk_error err = {0};
	FILE *file = fopen(POLICY_FILE, "re");
	size_t n;

	assert_non_null(file);
	n = fread(text, 1, sizeof(text), file);
	fclose(file);
	if (seccomp_policy_parse(&policy, text, n, &err) < 0)
		fail_msg("%s", err.text);
	length = seccomp_policy_compile(&policy, program, BPF_MAXINSNS);
	assert_true(length > 0);
}

/* Values around everything that a rule of the call compares with, with and without high bits. */
static size_t corners(uint32_t nr, uint64_t out[64])
{
	size_t n = 0;

	out[n++] = 0;
	out[n++] = UINT64_MAX;
	for (uint16_t at = nr < SECCOMP_NR_MAX ? policy.first[nr] : 0; at; at = policy.rules[at - 1].next)
		for (int i = 0; i < policy.rules[at - 1].n_conditions; i++) {
			uint32_t value = policy.rules[at - 1].conditions[i].value;
			uint32_t mask = policy.rules[at - 1].conditions[i].mask;
			const uint64_t some[] = {value,
						 value + 1ull,
						 value ^ 1u,
						 value | (1ull << 32),
						 value | (1ull << 63),
						 value | (uint64_t)~mask,
						 mask};

			for (size_t k = 0; k < sizeof(some) / sizeof(some[0]) && n < 64; k++) {
				bool known = false;

				for (size_t j = 0; j < n; j++)
					known |= out[j] == some[k];
				if (!known)
					out[n++] = some[k];
			}
		}
	return n;
}

static void test_K26_every_call_and_corner(void **state)
{
	unsigned long compared = 0;

	for (uint32_t nr = 0; nr < SECCOMP_NR_MAX + 16; nr++) {
		uint64_t values[64];
		size_t n = corners(nr, values);

		for (size_t i = 0; i < n; i++)
			for (size_t j = 0; j < n; j++)
				for (size_t k = 0; k < n; k++) {
					const uint64_t args[6] = {values[i], values[j], values[k],
								  values[i], values[j], values[k]};

					assert_int_equal(filter(AUDIT_ARCH_X86_64, nr, args), expected(nr, args));
					compared++;
				}
	}
	assert_true(compared > 10000);
}

static void test_K26_every_single_bit_of_the_number(void **state)
{
	static const uint64_t none[6];

	for (int bit = 10; bit < 32; bit++)
		assert_int_equal(filter(AUDIT_ARCH_X86_64, 1u << bit, none), SECCOMP_RET_ERRNO | ENOSYS);
	assert_int_equal(filter(AUDIT_ARCH_X86_64, UINT32_MAX, none), SECCOMP_RET_ERRNO | ENOSYS);
	/* x32: read(2) under its other number */
	assert_int_equal(filter(AUDIT_ARCH_X86_64, 0x40000000u, none), SECCOMP_RET_ERRNO | ENOSYS);
}

static void test_K26_other_architectures(void **state)
{
	static const uint64_t none[6];
	static const uint32_t others[] = {AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM, 0, UINT32_MAX};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		for (uint32_t nr = 0; nr < 500; nr++)
			assert_int_equal(filter(others[i], nr, none), SECCOMP_RET_ERRNO | ENOSYS);
}

static void test_K26_all_instructions_were_run(void **state)
{
	for (int pc = 0; pc < length; pc++)
		if (!visited[pc])
			fail_msg("instruction %d of %d is never reached", pc, length);
}

static seccomp_verdict decide(uint32_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	const uint64_t args[6] = {a, b, c};

	return seccomp_policy_decide(&policy, nr, args);
}

static void test_sockets(void **state)
{
	const uint64_t high = 1ull << 32;

	assert_int_equal(decide(SYS_socket, 1, 1, 0), 0);
	assert_int_equal(decide(SYS_socket, 2, 1 | 02000000, 6), 0);
	assert_int_equal(decide(SYS_socket, 10, 2, 17), 0);
	assert_int_equal(decide(SYS_socket, 2 | high, 1, 0), 0);
	assert_int_equal(decide(SYS_socket, 2, 3, 0), EPERM);   /* raw */
	assert_int_equal(decide(SYS_socket, 2, 2, 1), EPERM);   /* ping */
	assert_int_equal(decide(SYS_socket, 2, 1, 132), EPERM); /* sctp */
	assert_int_equal(decide(SYS_socket, 2, 2, 136), EPERM); /* udplite */
	for (uint64_t family = 0; family < 64; family++)
		if (family != 1 && family != 2 && family != 10 && family != 16) {
			assert_int_equal(decide(SYS_socket, family, 1, 0), EPERM);
			assert_int_equal(decide(SYS_socket, family | high, 1, 0), EPERM);
			assert_int_equal(decide(SYS_socket, family | 1ull << 63, 3, 0), EPERM);
		}
	for (uint64_t protocol = 0; protocol < 23; protocol++)
		assert_int_equal(decide(SYS_socket, 16, 3, protocol), protocol == 0 ? 0 : EPERM);
}

static void test_namespaces(void **state)
{
	static const uint64_t bits[] = {0x00020000, 0x02000000, 0x04000000, 0x08000000,
					0x10000000, 0x20000000, 0x40000000};

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		assert_int_equal(decide(SYS_clone, bits[i] | 17, 0, 0), EPERM);
		assert_int_equal(decide(SYS_clone, bits[i] | 1ull << 32 | 17, 0, 0), EPERM);
	}
	assert_int_equal(decide(SYS_clone, 0x3d0f00, 0, 0), 0); /* pthread_create */
	assert_int_equal(decide(SYS_clone, 17, 0, 0), 0);
	assert_int_equal(decide(SYS_clone3, 0, 0, 0), ENOSYS);
	assert_int_equal(decide(SYS_unshare, 0, 0, 0), EPERM);
	assert_int_equal(decide(SYS_setns, 0, 0, 0), EPERM);
}

static void test_dangerous_calls(void **state)
{
	static const int refused[] = {
		SYS_mount,
		SYS_umount2,
		SYS_pivot_root,
		SYS_fsopen,
		SYS_fsconfig,
		SYS_fsmount,
		SYS_fspick,
		SYS_move_mount,
		SYS_open_tree,
		SYS_mount_setattr,
		SYS_chroot,
		SYS_bpf,
		SYS_perf_event_open,
		SYS_userfaultfd,
		SYS_fanotify_init,
		SYS_keyctl,
		SYS_add_key,
		SYS_request_key,
		SYS_kexec_load,
		SYS_kexec_file_load,
		SYS_init_module,
		SYS_finit_module,
		SYS_delete_module,
		SYS_reboot,
		SYS_swapon,
		SYS_swapoff,
		SYS_acct,
		SYS_quotactl,
		SYS_iopl,
		SYS_ioperm,
		SYS_clock_settime,
		SYS_settimeofday,
		SYS_syslog,
		SYS_sethostname,
		SYS_setdomainname,
		SYS_vhangup,
		SYS_lookup_dcookie,
		SYS_open_by_handle_at,
		SYS_pidfd_getfd,
		SYS_kcmp,
		SYS_process_madvise,
		SYS_migrate_pages,
		SYS_move_pages,
		SYS_mbind,
		SYS_set_mempolicy,
		SYS_modify_ldt,
		SYS_ustat,
		SYS_sysfs,
		SYS_uselib,
		SYS_memfd_secret,
		467 /* open_tree_attr */
	};

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		assert_int_equal(decide((uint32_t)refused[i], 1, 1, 1), EPERM);
	assert_int_equal(decide(SYS_ioctl, 0, 0x5412, 0), EPERM); /* TIOCSTI */
	assert_int_equal(decide(SYS_ioctl, 0, 0x5412 | 1ull << 32, 0), EPERM);
	assert_int_equal(decide(SYS_ioctl, 0, 0x541c, 0), EPERM); /* TIOCLINUX */
	assert_int_equal(decide(SYS_ioctl, 0, 0x5401, 0), 0);
	assert_int_equal(decide(SYS_seccomp, 1, 8, 0), EPERM); /* NEW_LISTENER */
	assert_int_equal(decide(SYS_seccomp, 1, 9 | 1ull << 32, 0), EPERM);
	assert_int_equal(decide(SYS_seccomp, 1, 1, 0), 0);
	assert_int_equal(decide(SYS_personality, 0, 0, 0), 0);
	assert_int_equal(decide(SYS_personality, 0xffffffff, 0, 0), 0);
	assert_int_equal(decide(SYS_personality, 0x0040000, 0, 0), EPERM);
	assert_int_equal(decide(SYS_io_uring_setup, 1, 0, 0), ENOSYS);
	assert_int_equal(decide(SYS_execve, 1, 0, 0), 0);
}

static const struct {
	const char *text, *error; /* NULL: accepted */
} texts[] = {
	{"default ENOSYS\nallow read\n", NULL},
	{"default ENOSYS\n  allow\tread write # both\n\n", NULL},
	{"default ENOSYS\nallow socket if arg0 == 1 and arg1 & 0xf != 3\ndeny EPERM socket", NULL},
	{"allow read\n", "no default"},
	{"default ENOSYS\ndefault EPERM\n", "line 2: a second default"},
	{"default ENOSYS EPERM\n", "line 1"},
	{"default EWHAT\n", "line 1"},
	{"default ENOSYS\n\nallow raed\n", "line 3: unknown system call \"raed\""},
	{"default ENOSYS\nallow\n", "line 2: no system call is named"},
	{"default ENOSYS\npermit read\n", "line 2: expected allow"},
	{"default ENOSYS\ndeny read\n", "line 2: unknown error name"},
	{"default ENOSYS\nallow read\ndeny EPERM read\n", "line 3: an earlier rule"},
	{"default ENOSYS\nallow read if\n", "line 2: expected arg0"},
	{"default ENOSYS\nallow read if arg6 == 1\n", "line 2: expected arg0"},
	{"default ENOSYS\nallow read if arg0 = 1\n", "line 2: expected =="},
	{"default ENOSYS\nallow read if arg0 == \n", "line 2: not a number"},
	{"default ENOSYS\nallow read if arg0 == 0x100000000\n", "line 2: not a number"},
	{"default ENOSYS\nallow read if arg0 == 1 or arg1 == 1\n", "line 2: expected \"and\""},
	{"default ENOSYS\nallow read if arg0 & 0xf == 0x10\n", "line 2: the value has bits outside"},
	{"default ENOSYS\nallow read if arg0 == 1 and arg1 == 1 and arg2 == 1 and arg3 == 1 and arg4 == 1\n",
	 "line 2: too many"},
};

static void test_parser(void **state)
{
	static struct seccomp_policy scratch;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct pdk_error err = {0};
		int rc = seccomp_policy_parse(&scratch, texts[i].text, strlen(texts[i].text), &err);

		assert_int_equal(rc, texts[i].error ? -EINVAL : 0);
		if (texts[i].error && !strstr(err.text, texts[i].error))
			fail_msg("text %zu: \"%s\" does not say \"%s\"", i, err.text, texts[i].error);
	}
	assert_int_equal(seccomp_policy_parse(&scratch, "default ENOSYS\0\n", 16, NULL), -EINVAL);
}

static int setup(void **state)
{
	load(state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_K26_every_call_and_corner),
		cmocka_unit_test(test_K26_every_single_bit_of_the_number),
		cmocka_unit_test(test_K26_other_architectures),
		cmocka_unit_test(test_K26_all_instructions_were_run),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_namespaces),
		cmocka_unit_test(test_dangerous_calls),
		cmocka_unit_test(test_parser),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
