#ifndef PADDOCK_WARDEN_SNAPSHOT_H
#define PADDOCK_WARDEN_SNAPSHOT_H

#include "sandbox/base/error.h"
#include "sandbox/base/id.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * Snapshots: what a sandbox was at one instant, to make others from. In `snapshots/` of the pool:
 *
 *	<id>.new     images in the making
 *	<id>.layer   the layer of that instant, read-only, with the token that its images are bound to
 *	<id>         the images, sealed and read-only. Comes last and goes first: what has no such
 *	             directory is no snapshot
 *
 * A layer that was taken alone has a folder with nothing but the notes: no COPY comes of it, as nothing in it is
 * sealed.
 *
 * They belong to no sandbox: the source may end, and so may whatever was made from one.
 */

/* For the dump: copy the layer of a sandbox that stands still. Durable on return. */
int snapshot_copy_layer(const char *sandbox_id, const char *id);
/* Make the copy fit to be one: the token goes in (0: none), it is read-only. */
int snapshot_finish_layer(const char *id, uint64_t token);

/* For a copy: a layer for a new sandbox, with a byte quota on what it adds. */
int snapshot_give_layer(const char *id, const char *sandbox_id, uint64_t bytes, struct pdk_error *err);

/* The same for one that starts anew: it holds no token. */
int snapshot_give_bare_layer(const char *id, const char *sandbox_id, uint64_t bytes, struct pdk_error *err);

/* Is a whole one there? Its template, unless `template_id` is NULL. */
bool snapshot_exists(const char *id, char template_id[TEMPLATE_ID_SIZE]);
bool snapshot_uses_template(const char *template_id);
/* Remove it, or what there is of one. 0 if there is none. */
int snapshot_discard(const char *id);
/* Every whole one. */
void snapshot_each(void (*found)(const char *id, const char *template_id, void *arg), void *arg);
/* Remove what an earlier warden did not finish. */
void snapshot_reconcile(void);

/*
 * Images are checked once in this state: they are read-only, and a change of a file shows in the generation of their
 * subvolume; on the disk btrfs checks every block. 0: not known to be good.
 */
uint64_t snapshot_checked(const char *id);
void snapshot_set_checked(const char *id, uint64_t generation);
/* The state of open images now; 0 if they could be changed. */
uint64_t snapshot_generation(int images);

#endif
