#include "seccomp_policy.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sandbox/base/cleanup.h"

/* Names of numbers that rules may use. */
static const struct {
	const char *name;
	uint32_t value;
} constants[] = {
	{"AF_UNIX", AF_UNIX},
	{"AF_INET", AF_INET},
	{"AF_INET6", AF_INET6},
	{"AF_NETLINK", AF_NETLINK},
	{"NETLINK_ROUTE", 0},
	{"SOCK_STREAM", SOCK_STREAM},
	{"SOCK_DGRAM", SOCK_DGRAM},
	{"SOCK_RAW", SOCK_RAW},
	{"SOCK_SEQPACKET", SOCK_SEQPACKET},
	{"IPPROTO_IP", 0},
	{"IPPROTO_TCP", 6},
	{"IPPROTO_UDP", 17},
	{"CLONE_NEWNS", CLONE_NEWNS},
	{"CLONE_NEWCGROUP", CLONE_NEWCGROUP},
	{"CLONE_NEWUTS", CLONE_NEWUTS},
	{"CLONE_NEWIPC", CLONE_NEWIPC},
	{"CLONE_NEWUSER", CLONE_NEWUSER},
	{"CLONE_NEWPID", CLONE_NEWPID},
	{"CLONE_NEWNET", CLONE_NEWNET},
	{"TIOCSTI", TIOCSTI},
	{"TIOCLINUX", TIOCLINUX},
	{"SECCOMP_FILTER_FLAG_NEW_LISTENER", SECCOMP_FILTER_FLAG_NEW_LISTENER},
	{"SECCOMP_SET_MODE_FILTER", SECCOMP_SET_MODE_FILTER},
};

/* System calls that are younger than the library that resolves names. x86-64 numbers. */
static const struct {
	const char *name;
	int nr;
} recent[] = {
	{"cachestat", 451},         {"fchmodat2", 452},        {"map_shadow_stack", 453},
	{"futex_wake", 454},        {"futex_wait", 455},       {"futex_requeue", 456},
	{"statmount", 457},         {"listmount", 458},        {"lsm_get_self_attr", 459},
	{"lsm_set_self_attr", 460}, {"lsm_list_modules", 461}, {"mseal", 462},
	{"setxattrat", 463},        {"getxattrat", 464},       {"listxattrat", 465},
	{"removexattrat", 466},     {"open_tree_attr", 467},   {"file_getattr", 468},
	{"file_setattr", 469},      {"uretprobe", 335},        {"set_mempolicy_home_node", 450},
	{"process_mrelease", 448},  {"futex_waitv", 449},
};

static const struct {
	const char *name;
	seccomp_verdict value;
} errors[] = {
	{"EPERM", EPERM}, {"ENOSYS", ENOSYS}, {"EACCES", EACCES}, {"EAFNOSUPPORT", EAFNOSUPPORT}, {"EINVAL", EINVAL}};

struct line {
	unsigned int number;
	char *rest;
};

static char *next_word(struct line *line)
{
	char *word = line->rest + strspn(line->rest, " \t");
	size_t length = strcspn(word, " \t");

	if (length == 0)
		return NULL;
	line->rest = word + length;
	if (*line->rest)
		*line->rest++ = '\0';
	return word;
}

static int bad(const struct line *line, struct pdk_error *err, const char *what, const char *word)
{
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "line %u: %s%s%.64s%s", line->number, what,
			word ? " \"" : "", word ? word : "", word ? "\"" : "");
}

static bool resolve_error(const char *word, seccomp_verdict *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (strcmp(errors[i].name, word) == 0) {
			*ret = errors[i].value;
			return true;
		}
	return false;
}

static int resolve_call(const char *word)
{
	int nr = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, word);

	for (size_t i = 0; nr < 0 && i < ARRAY_SIZE(recent); i++)
		if (strcmp(recent[i].name, word) == 0)
			nr = recent[i].nr;
	return nr >= 0 && nr < SECCOMP_NR_MAX ? nr : -ENOENT;
}

/* NAME, 12, 0x1f, or several of them joined by `|`. */
static bool resolve_number(char *word, uint32_t *ret)
{
	uint32_t value = 0;
	char *rest = word;

	while (rest) {
		char *one = strsep(&rest, "|"), *end;
		unsigned long number = strtoul(one, &end, 0);
		size_t i = 0;

		if (*one >= '0' && *one <= '9' && *end == '\0' && number <= UINT32_MAX) {
			value |= (uint32_t)number;
			continue;
		}
		while (i < ARRAY_SIZE(constants) && strcmp(constants[i].name, one) != 0)
			i++;
		if (i == ARRAY_SIZE(constants))
			return false;
		value |= constants[i].value;
	}
	*ret = value;
	return true;
}

/* argN [& NUMBER] ==|!= NUMBER */
static int parse_condition(struct line *line, struct seccomp_condition *ret, struct pdk_error *err)
{
	char *word = next_word(line);

	*ret = (struct seccomp_condition){.mask = UINT32_MAX};
	if (!word || strncmp(word, "arg", 3) != 0 || word[3] < '0' || word[3] > '5' || word[4] != '\0')
		return bad(line, err, "expected arg0 to arg5, got", word ? word : "");
	ret->argument = (uint8_t)(word[3] - '0');
	word = next_word(line);
	if (word && strcmp(word, "&") == 0) {
		word = next_word(line);
		if (!word || !resolve_number(word, &ret->mask))
			return bad(line, err, "not a number or a known constant:", word ? word : "");
		word = next_word(line);
	}
	if (!word || (strcmp(word, "==") != 0 && strcmp(word, "!=") != 0))
		return bad(line, err, "expected == or !=, got", word ? word : "");
	ret->equal = word[0] == '=';
	word = next_word(line);
	if (!word || !resolve_number(word, &ret->value))
		return bad(line, err, "not a number or a known constant:", word ? word : "");
	if (ret->value & ~ret->mask)
		return bad(line, err, "the value has bits outside the mask", NULL);
	return 0;
}

static int parse_conditions(struct line *line, struct seccomp_rule *rule, struct pdk_error *err)
{
	for (;;) {
		char *word;
		int rc;

		if (rule->n_conditions == SECCOMP_CONDITIONS_MAX)
			return bad(line, err, "too many conditions", NULL);
		rc = parse_condition(line, &rule->conditions[rule->n_conditions++], err);
		if (rc < 0)
			return rc;
		word = next_word(line);
		if (!word)
			return 0;
		if (strcmp(word, "and") != 0)
			return bad(line, err, "expected \"and\", got", word);
	}
}

static int add_rule(struct seccomp_policy *policy, const struct line *line, const char *name,
		    const struct seccomp_rule *rule, struct pdk_error *err)
{
	int nr = resolve_call(name);
	uint16_t *link;

	if (nr < 0)
		return bad(line, err, "unknown system call", name);
	if (policy->n_rules == SECCOMP_RULES_MAX)
		return bad(line, err, "too many rules", NULL);
	for (link = &policy->first[nr]; *link; link = &policy->rules[*link - 1].next)
		if (policy->rules[*link - 1].n_conditions == 0)
			return bad(line, err, "an earlier rule without a condition already decides", name);
	policy->rules[policy->n_rules] = *rule;
	*link = (uint16_t)++policy->n_rules;
	return 0;
}

#define NAMES_MAX 128

/* The rest of a rule: NAME... [if CONDITION [and CONDITION]...] */
static int parse_rule(struct seccomp_policy *policy, struct line *line, seccomp_verdict verdict, struct pdk_error *err)
{
	struct seccomp_rule rule = {.verdict = verdict};
	char *calls[NAMES_MAX];
	size_t n = 0;
	char *word;
	int rc = 0;

	while ((word = next_word(line)) && strcmp(word, "if") != 0) {
		if (n == NAMES_MAX)
			return bad(line, err, "too many names", NULL);
		calls[n++] = word;
	}
	if (n == 0)
		return bad(line, err, "no system call is named", NULL);
	if (word)
		rc = parse_conditions(line, &rule, err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = add_rule(policy, line, calls[i], &rule, err);
	return rc;
}

static int parse_line(struct seccomp_policy *policy, struct line *line, struct pdk_error *err)
{
	seccomp_verdict verdict = 0;
	char *word = next_word(line);

	if (!word)
		return 0;
	if (strcmp(word, "default") == 0) {
		word = next_word(line);
		if (policy->otherwise)
			return bad(line, err, "a second default", NULL);
		if (!word || !resolve_error(word, &policy->otherwise) || next_word(line))
			return bad(line, err, "the default is one error name", NULL);
		return 0;
	}
	if (strcmp(word, "deny") == 0) {
		word = next_word(line);
		if (!word || !resolve_error(word, &verdict))
			return bad(line, err, "unknown error name", word ? word : "");
	} else if (strcmp(word, "allow") != 0) {
		return bad(line, err, "expected allow, deny or default, got", word);
	}
	return parse_rule(policy, line, verdict, err);
}

int seccomp_policy_parse(struct seccomp_policy *policy, const char *text, size_t length, struct pdk_error *err)
{
	_cleanup_free_ char *copy = NULL;
	struct line line = {0};
	char *rest;

	memset(policy, 0, sizeof(*policy));
	if (memchr(text, '\0', length))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "the file has a NUL byte");
	copy = strndup(text, length);
	if (!copy)
		return pdk_fail_errno(err, -ENOMEM, "read the policy");
	for (rest = copy; rest;) {
		int rc;

		line.rest = strsep(&rest, "\n");
		line.rest[strcspn(line.rest, "#")] = '\0';
		line.number++;
		rc = parse_line(policy, &line, err);
		if (rc < 0)
			return rc;
	}
	if (!policy->otherwise)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "there is no default");
	return 0;
}

static bool matches(const struct seccomp_rule *rule, const uint64_t args[6])
{
	for (int i = 0; i < rule->n_conditions; i++) {
		const struct seccomp_condition *c = &rule->conditions[i];

		if ((((uint32_t)args[c->argument] & c->mask) == c->value) != c->equal)
			return false;
	}
	return true;
}

seccomp_verdict seccomp_policy_decide(const struct seccomp_policy *policy, uint32_t nr, const uint64_t args[6])
{
	if (nr >= SECCOMP_NR_MAX)
		return policy->otherwise;
	for (uint16_t at = policy->first[nr]; at; at = policy->rules[at - 1].next)
		if (matches(&policy->rules[at - 1], args))
			return policy->rules[at - 1].verdict;
	return policy->otherwise;
}
