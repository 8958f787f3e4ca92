#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/base/hash.h"
#include "sandbox_private.h"

/* The sandboxes that there are: found by their id in a hash table, visited in a list, newest first. */

#define BUCKETS 4096

static struct sandbox *table[BUCKETS];
static struct sandbox *newest;
static unsigned int count;

static unsigned int bucket(const char *id)
{
	return hash_text(id) % BUCKETS;
}

struct sandbox *sandbox_find(const char *id)
{
	struct sandbox *s = table[bucket(id)];

	while (s && strcmp(s->id, id) != 0)
		s = s->next;
	return s;
}

struct sandbox *sandbox_new(const char *id, const char *template_id)
{
	struct sandbox *s = calloc(1, sizeof(*s));
	unsigned int i = bucket(id);

	if (!s)
		return NULL;
	snprintf(s->id, sizeof(s->id), "%s", id);
	snprintf(s->template_id, sizeof(s->template_id), "%s", template_id);
	s->place = -1;
	s->pidfd = s->link = s->exit_watch.fd = s->builder_watch.fd = s->status_watch.fd = -1;
	inodes_reset(&s->inodes);
	s->job_watch.fd = s->job_status_watch.fd = -1;
	s->next = table[i];
	table[i] = s;
	s->older = newest;
	if (newest)
		newest->newer = s;
	newest = s;
	count++;
	return s;
}

void sandbox_close_status(struct sandbox *s)
{
	int fd = s->status_watch.fd;

	loop_remove(&s->status_watch);
	if (fd >= 0)
		close(fd);
}

void sandbox_free(struct sandbox *s)
{
	struct sandbox **at = &table[bucket(s->id)];

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	*(s->newer ? &s->newer->older : &newest) = s->older;
	if (s->older)
		s->older->newer = s->newer;
	count--;
	sandbox_set_busy(s, false);
	sandbox_close_status(s);
	if (s->pidfd >= 0)
		close(s->pidfd);
	if (s->link >= 0)
		close(s->link);
	free(s->job_result);
	free(s);
}

unsigned int sandbox_count(void)
{
	return count;
}

struct sandbox *sandbox_newest(void)
{
	return newest;
}

bool sandbox_uses_template(const char *template_id)
{
	for (struct sandbox *s = newest; s; s = s->older)
		if (strcmp(s->template_id, template_id) == 0)
			return true;
	return false;
}

bool sandbox_uses_snapshot(const char *snapshot_id)
{
	for (struct sandbox *s = newest; s; s = s->older)
		if (strcmp(s->snapshot_id, snapshot_id) == 0)
			return true;
	return false;
}

void sandbox_each(void (*visit)(const struct sandbox *sandbox, void *arg), void *arg)
{
	for (struct sandbox *s = newest; s; s = s->older)
		visit(s, arg);
}

void sandbox_visit(void (*visit)(struct sandbox *sandbox, void *arg), void *arg)
{
	for (struct sandbox *s = newest; s; s = s->older)
		visit(s, arg);
}
