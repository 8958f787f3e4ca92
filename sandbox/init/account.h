#ifndef PADDOCK_INIT_ACCOUNT_H
#define PADDOCK_INIT_ACCOUNT_H

#include "sandbox/base/error.h"
#include <stddef.h>
#include <sys/types.h>

/*
 * Users of the sandbox, from its own /etc/passwd and /etc/group. The sandbox can write anything into them,
 * so they are read only in children, with bounds. The uid is never taken from there: "root" is 0, "user" is 1000.
 */

#define ACCOUNT_GROUPS_MAX 64

struct account {
	uid_t uid;
	gid_t gid;
	gid_t groups[ACCOUNT_GROUPS_MAX];
	size_t n_groups;
	char name[64];
	char home[256];
	char shell[256];
};

/* "" and "user" = uid 1000, "root" = 0; others are INVALID_ARGUMENT. */
int account_uid(const char *user, uid_t *ret_uid, struct pdk_error *err);
void account_load(uid_t uid, struct account *account);

/* Become the user for good, without any capability unless it is root, who keeps those of the sandbox. */
int account_become(const struct account *account);

/* Names for uids and gids. */
struct account_names {
	char *passwd;
	char *group;
	uid_t uid;
	gid_t gid;
	char user_name[64];
	char group_name[64];
};
void account_names_load(struct account_names *names);
void account_names_free(struct account_names *names);
const char *account_user_name(struct account_names *names, uid_t uid);
const char *account_group_name(struct account_names *names, gid_t gid);

#endif
