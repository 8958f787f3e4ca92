#include "sandbox/init/account.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TABLE_BYTES_MAX (256u << 10)
#define FIELDS_MAX 7

/* The text of a table, or NULL. Not a regular file, or too large: as if it were not there. */
static char *read_table(const char *path)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	_cleanup_free_ char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > TABLE_BYTES_MAX)
		return NULL;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return NULL;
	n = read(fd, text, (size_t)st.st_size);
	if (n < 0)
		return NULL;
	text[n] = '\0';
	return STEAL_PTR(text);
}

struct field {
	const char *text;
	int length;
};

/* Split the line at *cursor; false at the end of the text. */
static bool next_line(const char **cursor, struct field fields[FIELDS_MAX])
{
	const char *at = *cursor;
	const char *end;
	int n = 0;

	if (!at || !*at)
		return false;
	end = at + strcspn(at, "\n");
	*cursor = *end ? end + 1 : end;
	memset(fields, 0, sizeof(*fields) * FIELDS_MAX);
	while (n < FIELDS_MAX) {
		size_t length = strcspn(at, ":\n");

		fields[n++] = (struct field){at, (int)length};
		at += length;
		if (at >= end)
			break;
		at++;
	}
	return true;
}

static bool field_number(const struct field *field, unsigned int *ret_value)
{
	unsigned long long value = 0;

	if (field->length < 1 || field->length > 10)
		return false;
	for (int i = 0; i < field->length; i++) {
		if (field->text[i] < '0' || field->text[i] > '9')
			return false;
		value = value * 10 + (unsigned int)(field->text[i] - '0');
	}
	*ret_value = (unsigned int)value;
	return value < 0xffffffffu;
}

static void field_copy(char *to, size_t size, const struct field *field)
{
	if (field->length > 0 && (size_t)field->length < size)
		snprintf(to, size, "%.*s", field->length, field->text);
}

/* Is `name` in a comma-separated list of members? */
static bool is_member(const struct field *members, const char *name)
{
	size_t length = strlen(name);
	const char *at = members->text;
	const char *end = at + members->length;

	while (at && at < end) {
		size_t n = strcspn(at, ",:\n");

		if (n == length && memcmp(at, name, n) == 0)
			return true;
		at += n + 1;
	}
	return false;
}

int account_uid(const char *user, uid_t *ret_uid, struct pdk_error *err)
{
	if (!user[0] || strcmp(user, "user") == 0)
		*ret_uid = 1000;
	else if (strcmp(user, "root") == 0)
		*ret_uid = 0;
	else
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "user: must be \"user\" or \"root\"");
	return 0;
}

static void load_groups(struct account *account)
{
	_cleanup_free_ char *text = read_table("/etc/group");
	struct field fields[FIELDS_MAX];
	const char *cursor = text;
	unsigned int gid;

	account->groups[account->n_groups++] = account->gid;
	while (next_line(&cursor, fields) && account->n_groups < ACCOUNT_GROUPS_MAX) {
		if (!field_number(&fields[2], &gid) || gid == account->gid || !fields[3].text)
			continue;
		if (is_member(&fields[3], account->name))
			account->groups[account->n_groups++] = gid;
	}
}

void account_load(uid_t uid, struct account *account)
{
	_cleanup_free_ char *text = read_table("/etc/passwd");
	struct field fields[FIELDS_MAX];
	const char *cursor = text;
	unsigned int number;

	*account = (struct account){.uid = uid, .gid = uid, .shell = "/bin/sh"};
	snprintf(account->name, sizeof(account->name), "%s", uid ? "user" : "root");
	snprintf(account->home, sizeof(account->home), "%s", uid ? "/home/user" : "/root");
	while (next_line(&cursor, fields)) {
		if (!field_number(&fields[2], &number) || number != uid)
			continue;
		field_copy(account->name, sizeof(account->name), &fields[0]);
		if (field_number(&fields[3], &number))
			account->gid = number;
		if (fields[5].length && fields[5].text[0] == '/')
			field_copy(account->home, sizeof(account->home), &fields[5]);
		if (fields[6].length && fields[6].text[0] == '/')
			field_copy(account->shell, sizeof(account->shell), &fields[6]);
		break;
	}
	load_groups(account);
}

int account_become(const struct account *account)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {};

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	/* The bare system calls: one thread, and nothing to keep in step. */
	if (syscall(SYS_setgroups, account->n_groups, account->groups) < 0 ||
	    syscall(SYS_setresgid, account->gid, account->gid, account->gid) < 0 ||
	    syscall(SYS_setresuid, account->uid, account->uid, account->uid) < 0)
		return -errno;
	if (account->uid != 0 && syscall(SYS_capset, &header, none) < 0)
		return -errno;
	return 0;
}

void account_names_load(struct account_names *names)
{
	*names = (struct account_names){.passwd = read_table("/etc/passwd"),
					.group = read_table("/etc/group"),
					.uid = (uid_t)-1,
					.gid = (gid_t)-1};
}

void account_names_free(struct account_names *names)
{
	free(names->passwd);
	free(names->group);
}

static void find_name(const char *text, unsigned int id, char *name, size_t size)
{
	struct field fields[FIELDS_MAX];
	const char *cursor = text;
	unsigned int number;

	snprintf(name, size, "%u", id);
	while (next_line(&cursor, fields)) {
		if (!field_number(&fields[2], &number) || number != id)
			continue;
		/* It goes out as a protobuf string: only printable ASCII counts as a name. */
		for (int i = 0; i < fields[0].length; i++) {
			if (fields[0].text[i] <= ' ' || fields[0].text[i] > '~')
				return;
		}
		field_copy(name, size, &fields[0]);
		return;
	}
}

const char *account_user_name(struct account_names *names, uid_t uid)
{
	if (uid != names->uid)
		find_name(names->passwd, uid, names->user_name, sizeof(names->user_name));
	names->uid = uid;
	return names->user_name;
}

const char *account_group_name(struct account_names *names, gid_t gid)
{
	if (gid != names->gid)
		find_name(names->group, gid, names->group_name, sizeof(names->group_name));
	names->gid = gid;
	return names->group_name;
}
