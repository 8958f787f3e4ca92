#ifndef PADDOCK_WARDEN_SECCOMP_POLICY_H
#define PADDOCK_WARDEN_SECCOMP_POLICY_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A parsed policy: for each system call an ordered list of rules, of which the first that matches decides, and a
 * default for the rest. The last rule of a system call may be unconditional.
 *
 * Every comparison sees only the low 32 bits of an argument: the kernel truncates an `int` before it uses it,
 * and a filter that compared all 64 would be passed by setting bit 32.
 */
#define SECCOMP_NR_MAX 1024
#define SECCOMP_RULES_MAX 1024
#define SECCOMP_CONDITIONS_MAX 4

struct seccomp_condition {
	uint8_t argument; /* 0..5 */
	bool equal;       /* else: not equal */
	uint32_t mask;
	uint32_t value;
};

/* 0: allow. Otherwise the call fails with this errno. */
typedef uint16_t seccomp_verdict;

struct seccomp_rule {
	uint16_t next; /* index + 1 of the next rule of the same system call; 0: none */
	seccomp_verdict verdict;
	uint8_t n_conditions;
	struct seccomp_condition conditions[SECCOMP_CONDITIONS_MAX];
};

struct seccomp_policy {
	seccomp_verdict otherwise;
	uint16_t first[SECCOMP_NR_MAX]; /* index + 1 of the first rule */
	size_t n_rules;
	struct seccomp_rule rules[SECCOMP_RULES_MAX];
};

/* Parse `text`. -EINVAL with "line N: ..." */
int seccomp_policy_parse(struct seccomp_policy *policy, const char *text, size_t length, struct pdk_error *err);
/* What the policy says about a call: the reference that the compiled program is tested against. */
seccomp_verdict seccomp_policy_decide(const struct seccomp_policy *policy, uint32_t nr, const uint64_t args[6]);

struct sock_filter;
/* Compile to a BPF program of at most `max` instructions. Returns the length, or -E2BIG. */
int seccomp_policy_compile(const struct seccomp_policy *policy, struct sock_filter *program, size_t max);

#endif
