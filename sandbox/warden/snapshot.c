#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "btrfs.h"
#include "checkpoint_private.h"
#include "kernel.h"
#include "log.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"

#define CHECKED_MAX 256

/* A ring: what falls out of it is checked again. */
static struct {
	char id[SANDBOX_ID_SIZE];
	uint64_t generation;
} checked[CHECKED_MAX];
static unsigned int next_checked;

static void layer_name(const char *id, char name[40])
{
	snprintf(name, 40, "%.24s.layer", id);
}

static int open_layer(const char *id)
{
	char name[40];

	layer_name(id, name);
	return pool_open_directory(POOL_SNAPSHOTS, name);
}

int snapshot_copy_layer(const char *sandbox_id, const char *id)
{
	_cleanup_fd_ int layer = pool_open_directory(POOL_SANDBOXES, sandbox_id);
	char name[40];

	layer_name(id, name);
	return layer < 0 ? layer : btrfs_subvolume_snapshot(layer, pool_dir(POOL_SNAPSHOTS), name);
}

int snapshot_finish_layer(const char *id, uint64_t token)
{
	_cleanup_fd_ int layer = open_layer(id);
	int rc = layer;

	if (rc >= 0)
		rc = checkpoint_unmark_layer(layer);
	if (rc >= 0)
		rc = checkpoint_put_token(layer, token);
	/* Commits what was written before. */
	if (rc >= 0)
		rc = btrfs_subvolume_set_readonly(layer, true);
	return rc;
}

int snapshot_give_layer(const char *id, const char *sandbox_id, uint64_t bytes, struct pdk_error *err)
{
	_cleanup_fd_ int layer = open_layer(id);
	int rc = layer;

	if (rc >= 0)
		rc = btrfs_subvolume_snapshot(layer, pool_dir(POOL_SANDBOXES), sandbox_id);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "copy the snapshot's disk layer");
	return pool_layer_limit(sandbox_id, bytes, err);
}

int snapshot_give_bare_layer(const char *id, const char *sandbox_id, uint64_t bytes, struct pdk_error *err)
{
	int rc = snapshot_give_layer(id, sandbox_id, bytes, err);

	if (rc < 0)
		return rc;
	rc = checkpoint_set_layer_token(sandbox_id, 0);
	return rc < 0 ? pdk_fail_errno(err, rc, "take the layer into use") : 0;
}

bool snapshot_exists(const char *id, char template_id[TEMPLATE_ID_SIZE])
{
	_cleanup_fd_ int images = pool_open_directory(POOL_SNAPSHOTS, id);
	_cleanup_fd_ int layer = open_layer(id);
	struct checkpoint_notes notes;

	if (images < 0 || layer < 0 || checkpoint_read_notes(images, &notes) < 0)
		return false;
	if (template_id)
		memcpy(template_id, notes.template_id, TEMPLATE_ID_SIZE);
	return true;
}

/* The kernel does not move a read-only subvolume to another directory. */
static int discard(const char *name)
{
	_cleanup_fd_ int fd = pool_open_directory(POOL_SNAPSHOTS, name);

	if (fd >= 0)
		btrfs_subvolume_set_readonly(fd, false);
	return pool_discard(POOL_SNAPSHOTS, name);
}

int snapshot_discard(const char *id)
{
	char layer[40], aside[40];
	int rc = discard(id);

	layer_name(id, layer);
	snprintf(aside, sizeof(aside), "%.24s.new", id);
	if (rc == 0)
		rc = discard(layer);
	return rc < 0 ? rc : discard(aside);
}

/* --- all of them --- */

static struct {
	void (*found)(const char *id, const char *template_id, void *arg);
	void *arg;
} visit;

static void visit_one(const char *name)
{
	char template_id[TEMPLATE_ID_SIZE];

	if (snapshot_id_valid(name) && snapshot_exists(name, template_id))
		visit.found(name, template_id, visit.arg);
}

void snapshot_each(void (*found)(const char *id, const char *template_id, void *arg), void *arg)
{
	visit.found = found;
	visit.arg = arg;
	pool_enumerate(POOL_SNAPSHOTS, visit_one);
}

struct search {
	const char *template_id;
	bool found;
};

static void compare_template(const char *id, const char *template_id, void *arg)
{
	struct search *search = arg;

	search->found |= strcmp(template_id, search->template_id) == 0;
}

bool snapshot_uses_template(const char *template_id)
{
	struct search search = {.template_id = template_id};

	snapshot_each(compare_template, &search);
	return search.found;
}

static void reconcile_one(const char *name)
{
	char id[SANDBOX_ID_SIZE];

	snprintf(id, sizeof(id), "%.21s", name);
	if (!snapshot_id_valid(id) || snapshot_exists(id, NULL))
		return;
	log_info("snapshot_removed", id, "left half-made by an earlier warden");
	snapshot_discard(id);
}

void snapshot_reconcile(void)
{
	pool_enumerate(POOL_SNAPSHOTS, reconcile_one);
}

/* --- checked images --- */

uint64_t snapshot_checked(const char *id)
{
	for (unsigned int i = 0; i < CHECKED_MAX; i++)
		if (strcmp(checked[i].id, id) == 0)
			return checked[i].generation;
	return 0;
}

void snapshot_set_checked(const char *id, uint64_t generation)
{
	if (!generation || snapshot_checked(id) == generation)
		return;
	snprintf(checked[next_checked].id, sizeof(checked[0].id), "%s", id);
	checked[next_checked].generation = generation;
	next_checked = (next_checked + 1) % CHECKED_MAX;
}

uint64_t snapshot_generation(int images)
{
	uint64_t generation = 0;

	if (!btrfs_subvolume_readonly(images) || btrfs_subvolume_generation(images, &generation) < 0)
		return 0;
	return generation;
}
