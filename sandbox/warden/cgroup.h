#ifndef PADDOCK_WARDEN_CGROUP_H
#define PADDOCK_WARDEN_CGROUP_H

#include "protocol.h"
#include "sandbox/base/error.h"
#include <stdbool.h>
#include <sys/types.h>

/*
 * A sandbox has one leaf in the v2 tree and, where the cpu, memory and pids controllers are still bound to v1
 * (hybrid hosts), one leaf in each of those hierarchies. All of them are
 *
 *	<the warden's own cgroup>/paddock-<hash of the runtime directory>/<sandbox id>
 *
 * so that the warden never leaves what it was given, and two wardens on one host never meet. The v2 leaf
 * always does kill and freeze (a v1-frozen task ignores SIGKILL); limits go where the controller is.
 *
 * Nothing is kept open per sandbox: a leaf is opened by its id below a descriptor of the group.
 */

/* Find the hierarchies and make the groups. -ENODEV with a text that says what the host lacks. */
int cgroup_setup(const char *runtime_dir, struct pdk_error *err);
/* At the end of the warden: remove the folders that cgroup_setup() made, unless sandboxes live on in them. */
void cgroup_teardown(void);
/* What cgroup_setup() needs, without making anything: for the doctor. */
int cgroup_check(struct pdk_error *err);

/* Make all leaves and set their limits. `ret_v2` gets an O_PATH descriptor of the v2 leaf for CLONE_INTO_CGROUP. */
int cgroup_create(const char *id, const struct warden_limits *limits, int *ret_v2, struct pdk_error *err);
/* Called in the cloned child: join the v1 leaves by writing "0" (no grace period, unlike attaching another pid). */
int cgroup_join_v1(const char *id);
int cgroup_limit(const char *id, const struct warden_limits *limits, struct pdk_error *err);
/* Its processor time alone; 0: no limit. That is for the time of a dump, in which nothing of its own runs: whoever thaws it
 * sets the limit first, and a new warden sets it for all that it adopts. */
int cgroup_limit_cpu(const char *id, uint32_t millis);
/* SIGKILL to everything in the leaf, frozen or not, forks included. 0 if the leaf does not exist. */
int cgroup_kill(const char *id);
int cgroup_freeze(const char *id, bool frozen);
/* 1 when the leaf is frozen (or thawed, as asked), 0 not yet. */
int cgroup_frozen(const char *id);
/* True from the request to freeze until that to thaw. */
bool cgroup_freezing(const char *id);
/* Take a process of our own out of a v2 leaf again, to where the warden is. */
int cgroup_take_out(pid_t pid);
/* Remove all leaves. -EBUSY while a process is left in one. 0 if there are none. */
int cgroup_remove(const char *id);
/* Fill the memory, cpu and pids fields. */
void cgroup_usage(const char *id, struct warden_usage *usage);
/* Only what WARDEN_USAGE_SAMPLE says, and the bytes of its page cache. */
void cgroup_sample(const char *id, struct warden_usage *usage, uint64_t *ret_cache);
/* What grows while something in it works: processor time, and time in which a process of it waited for a disk. */
void cgroup_activity(const char *id, uint64_t *ret_cpu_usec, uint64_t *ret_io_usec);
/* An O_PATH descriptor of the v2 leaf, or a negative errno. */
int cgroup_open_leaf(const char *id);
/* An open cgroup.procs of the v2 leaf, or a negative errno. */
int cgroup_open_procs(const char *id);
/* An open cgroup.kill of the v2 leaf, which needs no authority any more to be written to, or a negative errno. */
int cgroup_open_kill(const char *id);
/* Call `found` with the id of every leaf of the group in any hierarchy (an id may come several times). */
void cgroup_enumerate(void (*found)(const char *id));

#endif
