#ifndef PADDOCK_WARDEN_IMAGES_H
#define PADDOCK_WARDEN_IMAGES_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * The files that CRIU writes: made fit for a restore inside namespaces that the warden has made, then sealed.
 *
 * CRIU restores a damaged or foreign image without a word, and an image decides what runs. So a set of images has a
 * manifest: one line for each file with its size and SHA-256 (of pages: that of the digests of their chunks, chunks.h), lines
 * that bind it to one checkpoint of one sandbox on this kernel, and an HMAC over all of that under a key that only the warden
 * has. Nothing that was restored runs before all of it was checked, but for pages that come lazily: those are checked when
 * they come, before anything sees them.
 */

struct images_binding {
	const char *id;          /* of the sandbox */
	const char *template_id; /* its lower layer */
	uint64_t token;          /* of this checkpoint; the layer has it too while nothing has run on it since */
};

/* DATA_DIR/checkpoint.key, made at the first start. */
int images_setup(struct pdk_error *err);

/*
 * Take out of the images what would have CRIU make what the warden makes itself: the user, network and host-name
 * namespaces (the root task's become those that CRIU runs in) and the cgroups of threads.
 */
int images_adapt(int dir);
/*
 * The pages of processes are nearly all that there is. They are digested, and with `durable` on their way to the
 * disk, while CRIU still writes them: it only ever appends. images_follow() takes what is there by now.
 */
struct images_follower;
/* NULL without memory: then they are read when they are sealed. */
struct images_follower *images_follower_create(int dir, bool durable);
void images_follow(struct images_follower *follower);
void images_follower_free(struct images_follower *follower);

/* Write the manifest. `follower` may be NULL, and is used up; `ret_bytes`: the size of all files. Not durable yet. */
int images_seal(int dir, struct images_follower *follower, const struct images_binding *binding, uint64_t *ret_bytes,
		struct pdk_error *err);

/* What CRIU interprets, which must be known to be good before it runs; and what it only copies, which must be before
 * what is restored runs. */
enum images_part { IMAGES_STRUCTURE = 1, IMAGES_PAGES = 2 };
/* -EBADMSG, DATA_LOSS: damaged, or not what `binding` says. -EPERM, FAILED_PRECONDITION: made by another kernel, CPU or
 * version of CRIU. */
int images_check(int dir, const struct images_binding *binding, enum images_part part, struct pdk_error *err);
/* The same without the files, for images that are known to be what the manifest says: is it theirs, and of this host?
 */
int images_check_binding(int dir, const struct images_binding *binding, struct pdk_error *err);

/* A file of pages of which any chunk can be read and checked by itself. The manifest must have been checked. -EBADMSG: the
 * digests of its chunks are damaged. */
struct chunk_file;
int images_open_pages(int dir, unsigned int number, struct chunk_file *ret);

#endif
