#ifndef PADDOCK_WARDEN_CHECKPOINT_PRIVATE_H
#define PADDOCK_WARDEN_CHECKPOINT_PRIVATE_H

#include "checkpoint.h"

/* What the checkpoint_*.c files share. All of it runs in a child of the warden. */

#define CHECKPOINT_NOT_PREPARED 126 /* exit status of what was to become CRIU */
#define CHECKPOINT_FD 100           /* first of the descriptors that are handed to CRIU by number */

/* Beside the images, and sealed with them: what the warden must know before a restore. */
struct checkpoint_notes {
	unsigned long listener; /* inode of init's listening socket */
	char template_id[48];
};
int checkpoint_write_notes(int dir, const struct checkpoint_notes *notes);
int checkpoint_read_notes(int dir, struct checkpoint_notes *ret);

/* The token that the layer holds; 0: none. It is there from the dump until something runs on the layer again. */
uint64_t checkpoint_layer_token(const char *id);
int checkpoint_set_layer_token(const char *id, uint64_t token); /* 0 removes it. Durable on return */
/* The same in an open layer, durable when its file system is synced. */
int checkpoint_put_token(int layer, uint64_t token);
/* A layer that was mounted "volatile" has a mark that forbids another mount: take it off. */
int checkpoint_unmark_layer(int layer);

/* The name by which CRIU knows a mount that the warden makes: "/dev/pts" is "_dev_pts". */
void checkpoint_mount_key(const char *path, char key[64]);

/* CRIU asks for a devpts in its own mounts, of which the warden has none. In a private copy of the mounts. */
int checkpoint_place_devpts(void);

/* In the runner: into the sandbox's own namespaces. */
int checkpoint_enter(const struct checkpoint_plan *plan);
/* A detached tmpfs that belongs to the sandbox's root. */
int checkpoint_make_work(const struct checkpoint_plan *plan);
/* checkpoint_probe.c: have what CRIU must know of the kernel at hand, and put it where it looks, in a private copy of the
 * mounts. Without it a restore only takes longer. */
void checkpoint_probe(const struct checkpoint_plan *plan);
void checkpoint_place_probe(void);

/* "process 12 (python3)", as the sandbox knows it, or nothing. */
void checkpoint_name_process(pid_t pid, char text[64]);
/* CRIU's end, as waitpid() tells of it: 0, or a negative errno with what its log says was the reason. */
int checkpoint_explain(int status, int dir, const char *log, struct pdk_error *err);
/* Wait for CRIU. 0, or a negative errno with what its log says was the reason. `pid_of_sandbox`: to name a process. */
int checkpoint_wait(pid_t criu, int dir, const char *log, struct pdk_error *err);

/* Is it in the pid namespace of the restored tree's first process? */
bool checkpoint_is_inside(pid_t pid, pid_t first);
/* Every process of the restored tree, before it runs: user, capabilities, filter, namespaces. */
int checkpoint_verify(const struct checkpoint_plan *plan, pid_t first, struct pdk_error *err);

/* End the child: tell the warden. `result` is what there is to say if rc is 0. */
void checkpoint_tell(int status, int rc, const struct pdk_error *err, const struct checkpoint_result *result)
	__attribute__((noreturn));

#endif
