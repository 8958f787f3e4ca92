#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>

#include "seccomp_policy.h"

/*
 * The program: refuse any architecture but x86-64 and the x32 numbers, then find the call by bisecting the
 * numbers, then test the rules of that call in their order. libseccomp's own generator is not used for this,
 * because it has no order among the rules of one call, and "these families, EPERM for the rest" needs one.
 * A branch of bisection is `if (nr >= middle) goto right`; where that is farther than a conditional jump reaches (255
 * instructions), with an unconditional one. The kernel translates the program anew for every process that loads it, so
 * each instruction counts.
 */

#define X32_BIT 0x40000000u
#define RET(verdict) ((verdict) ? (SECCOMP_RET_ERRNO | (verdict)) : SECCOMP_RET_ALLOW)

struct emitter {
	const struct seccomp_policy *policy;
	struct sock_filter *program;
	size_t max, length;
};

static size_t emit(struct emitter *e, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (e->length < e->max)
		e->program[e->length] = (struct sock_filter){.code = code, .jt = jt, .jf = jf, .k = k};
	return e->length++;
}

/* Let the comparison at `at` go to what is emitted next: if it holds, or if it does not. Not 0: that is too far. */
static int land(struct emitter *e, size_t at, bool holds)
{
	size_t distance = e->length - at - 1;

	if (distance > UINT8_MAX)
		return -ERANGE;
	if (at < e->max)
		*(holds ? &e->program[at].jt : &e->program[at].jf) = (uint8_t)distance;
	return 0;
}

/* Of four conditions at most, so its jumps are short. */
static void emit_rule(struct emitter *e, const struct seccomp_rule *rule)
{
	size_t tests[SECCOMP_CONDITIONS_MAX];

	for (int i = 0; i < rule->n_conditions; i++) {
		const struct seccomp_condition *c = &rule->conditions[i];

		/* The low word comes first: x86-64 is little-endian. */
		emit(e, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offsetof(struct seccomp_data, args) + 8u * c->argument), 0,
		     0);
		if (c->mask != UINT32_MAX)
			emit(e, BPF_ALU | BPF_AND | BPF_K, c->mask, 0, 0);
		tests[i] = emit(e, BPF_JMP | BPF_JEQ | BPF_K, c->value, 0, 0);
	}
	emit(e, BPF_RET | BPF_K, RET(rule->verdict), 0, 0);
	for (int i = 0; i < rule->n_conditions; i++)
		land(e, tests[i], !rule->conditions[i].equal);
}

static void emit_call(struct emitter *e, uint32_t nr)
{
	uint16_t at = nr < SECCOMP_NR_MAX ? e->policy->first[nr] : 0;

	for (; at; at = e->policy->rules[at - 1].next) {
		emit_rule(e, &e->policy->rules[at - 1]);
		if (e->policy->rules[at - 1].n_conditions == 0)
			return;
	}
	emit(e, BPF_RET | BPF_K, RET(e->policy->otherwise), 0, 0);
}

/* Two numbers may share one leaf if both are decided by their number alone, and alike. */
static bool alike(const struct seccomp_policy *policy, uint32_t a, uint32_t b)
{
	static const uint64_t none[6];
	uint16_t x = policy->first[a], y = policy->first[b];

	if ((x && policy->rules[x - 1].n_conditions) || (y && policy->rules[y - 1].n_conditions))
		return false;
	return seccomp_policy_decide(policy, a, none) == seccomp_policy_decide(policy, b, none);
}

/* Leaves are runs of numbers [starts[i], starts[i + 1]). */
static void emit_tree(struct emitter *e, const uint16_t *starts, size_t first, size_t count)
{
	size_t half = count / 2, branch, far;

	if (count == 1) {
		emit_call(e, starts[first]);
		return;
	}
	branch = emit(e, BPF_JMP | BPF_JGE | BPF_K, starts[first + half], 0, 0);
	emit_tree(e, starts, first, half);
	if (land(e, branch, true) < 0) {
		/* Once more, behind a jump that reaches it: only in the upper levels of the tree. */
		e->length = branch;
		emit(e, BPF_JMP | BPF_JGE | BPF_K, starts[first + half], 0, 1);
		far = emit(e, BPF_JMP | BPF_JA, 0, 0, 0);
		emit_tree(e, starts, first, half);
		if (far < e->max)
			e->program[far].k = (uint32_t)(e->length - far - 1);
	}
	emit_tree(e, starts, first + half, count - half);
}

int seccomp_policy_compile(const struct seccomp_policy *policy, struct sock_filter *program, size_t max)
{
	struct emitter e = {.policy = policy, .program = program, .max = max};
	uint16_t starts[SECCOMP_NR_MAX + 1];
	size_t n = 0;

	emit(&e, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
	emit(&e, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	emit(&e, BPF_RET | BPF_K, RET(policy->otherwise), 0, 0);
	emit(&e, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	emit(&e, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	emit(&e, BPF_RET | BPF_K, RET(policy->otherwise), 0, 0);
	for (uint16_t nr = 0; nr < SECCOMP_NR_MAX; nr++)
		if (nr == 0 || !alike(policy, (uint32_t)nr - 1, nr))
			starts[n++] = nr;
	/* Everything past the table has the default. */
	starts[n++] = SECCOMP_NR_MAX;
	emit_tree(&e, starts, 0, n);
	return e.length <= max ? (int)e.length : -E2BIG;
}
