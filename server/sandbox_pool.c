#include "config.h"
#include "log.h"
#include "metrics.h"
#include "sandbox_internal.h"
#include "templates.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Pre-made sandboxes of the default template with the default limits, so that most creates find one that runs.
 * One is made at a time, in the background; after a failure the next try waits, twice as long each time. While half
 * of them are there, a refill waits for a pause in the claims, so that it does not compete with the claimer's
 * first commands; below that it starts a moment after the claim.
 *
 * The ready ones are linked through by_server, which a pooled sandbox does not use otherwise.
 */

#define REFILL_NS (3 * 1000000ull)
#define REFILL_PAUSE_NS (25 * 1000000ull)
#define BACK_OFF_FIRST_NS (250 * 1000000ull)
#define BACK_OFF_MAX_NS (60 * 1000000000ull)

static struct sandbox *ready_first;
static uint32_t ready_count;
static struct sandbox *in_making;
static struct loop_timer timer;
static uint64_t back_off_ns;
static bool stopped = true;

uint32_t sandbox_pool_count(void)
{
	return ready_count;
}

static void wake_after(uint64_t ns)
{
	if (!stopped)
		(void)loop_timer_set(&timer, loop_now_ns() + ns);
}

static void refill_later(void)
{
	wake_after(2 * ready_count >= server_config.pool_size ? REFILL_PAUSE_NS : REFILL_NS);
}

void sandbox_pool_wake(void)
{
	/* An armed timer stays: it may be waiting out a failure. */
	if (timer.due_ns == 0 && !in_making && ready_count < server_config.pool_size)
		refill_later();
}

static void push(struct sandbox *sandbox)
{
	sandbox->private->by_server.older = ready_first;
	ready_first = sandbox;
	metric_set(METRIC_POOL_READY, ++ready_count);
}

static void take(struct sandbox *sandbox)
{
	struct sandbox **slot = &ready_first;

	while (*slot && *slot != sandbox)
		slot = &(*slot)->private->by_server.older;
	if (!*slot)
		return;
	*slot = sandbox->private->by_server.older;
	sandbox->private->by_server.older = NULL;
	metric_set(METRIC_POOL_READY, --ready_count);
}

struct sandbox *sandbox_pool_claim(const char *template_id, const char *hostname, const struct warden_limits *limits)
{
	for (struct sandbox *sandbox = ready_first; sandbox; sandbox = sandbox->private->by_server.older) {
		if (strcmp(sandbox->template_id, template_id) != 0 || strcmp(sandbox->hostname, hostname) != 0 ||
		    memcmp(&sandbox->limits, limits, sizeof(*limits)) != 0)
			continue;
		take(sandbox);
		sandbox_uncount(sandbox);
		sandbox->private->pooled = false;
		if (!in_making && !back_off_ns)
			refill_later();
		return sandbox;
	}
	return NULL;
}

static void default_limits(struct warden_limits *ret)
{
	*ret = (struct warden_limits){
		.memory_bytes = server_config.default_memory_bytes,
		.disk_bytes = server_config.default_disk_bytes,
		.max_inodes = server_config.default_max_inodes,
		.cpu_millis = server_config.default_cpu_millis,
		.max_pids = server_config.default_max_pids,
	};
}

static void evict(const char *template_id, bool others)
{
	for (struct sandbox *sandbox = ready_first, *next; sandbox; sandbox = next) {
		next = sandbox->private->by_server.older;
		if ((strcmp(sandbox->template_id, template_id) != 0) == others)
			sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_KILLED, "no longer needed");
	}
}

void sandbox_pool_evict(const char *template_id)
{
	evict(template_id, false);
}

/* A public template of that name, else the operator's own. */
static bool find_template(char template_id[TEMPLATE_ID_SIZE])
{
	const char *name = server_config.default_template;
	struct snapshot *snapshot = NULL;
	char found[64];

	/* Of one that is made of a snapshot none is kept. */
	return (template_find("", name, template_id, found, &snapshot, NULL) >= 0 ||
		template_find("default", name, template_id, found, &snapshot, NULL) >= 0) &&
	       !snapshot;
}

static void make_one(const char *template_id)
{
	char id[SANDBOX_ID_SIZE];
	struct sandbox *sandbox;

	sandbox_id_make(id);
	sandbox = sandbox_new(id);
	if (!sandbox)
		return;
	memcpy(sandbox->template_id, template_id, TEMPLATE_ID_SIZE);
	strcpy(sandbox->hostname, "paddock");
	default_limits(&sandbox->limits);
	sandbox->private->pooled = true;
	sandbox_count(sandbox);
	in_making = sandbox;
	sandbox_make(sandbox);
}

static void on_timer(void *arg)
{
	char template_id[TEMPLATE_ID_SIZE];
	struct warden_limits limits;

	if (stopped || in_making || !warden_connected())
		return;
	if (!find_template(template_id))
		return;           /* sandbox_pool_wake() comes with the template */
	evict(template_id, true); /* of what the name meant before */
	default_limits(&limits);
	if (ready_count >= server_config.pool_size || admission_check(&limits, true, NULL) < 0)
		return;
	make_one(template_id);
}

void sandbox_pool_ready(struct sandbox *sandbox)
{
	in_making = NULL;
	back_off_ns = 0;
	push(sandbox);
	if (ready_count < server_config.pool_size)
		wake_after(0);
}

static void back_off(const struct sandbox *sandbox)
{
	back_off_ns = back_off_ns ? back_off_ns * 2 : BACK_OFF_FIRST_NS;
	if (back_off_ns > BACK_OFF_MAX_NS)
		back_off_ns = BACK_OFF_MAX_NS;
	log_event(LOG_WARN, "pool.sandbox_lost", "reason", sandbox->private->end_text, "retry_ms",
		  log_u64(back_off_ns / 1000000), NULL);
	wake_after(back_off_ns);
}

void sandbox_pool_lost(struct sandbox *sandbox, bool was_ready)
{
	if (was_ready)
		take(sandbox);
	else if (sandbox == in_making)
		in_making = NULL;
	if (sandbox->end_reason != PADDOCK__V1__END_REASON__END_REASON_KILLED)
		back_off(sandbox);
}

void sandbox_pool_trim(void)
{
	while (ready_first && admission_is_over())
		sandbox_end(ready_first, PADDOCK__V1__END_REASON__END_REASON_KILLED, "room for a client's sandbox");
}

void sandbox_pool_start(void)
{
	stopped = false;
	back_off_ns = 0;
	timer.handler = on_timer;
	wake_after(0);
}

void sandbox_pool_stop(void)
{
	stopped = true;
	loop_timer_cancel(&timer);
	ready_first = in_making = NULL;
	ready_count = 0;
}
