#include "upstream.h"

#include <errno.h>
#include <string.h>

#include "server/log.h"
#include "server/loop.h"

static const char *socket_path;
static struct call_link *link;
static struct loop_watch *watch;
static bool deferred;
static struct loop_task flush;
static bool flushes;

void upstream_start(const char *path)
{
	socket_path = path;
}

static void drop(void)
{
	struct call_link *broken = link;

	loop_watch_remove(watch);
	watch = NULL;
	link = NULL;
	/* Its calls end here, and may try again at once: with a link of their own. */
	call_link_free(broken);
}

void upstream_stop(void)
{
	drop();
}

static void on_event(uint32_t events, void *arg);

/* What the link waits for may have changed. */
static void update_watch(void)
{
	if (watch && loop_watch_set(watch, call_link_events(link)) < 0)
		log_event(LOG_ERROR, "upstream.watch", NULL);
}

static void run_flush(struct loop_task *unused)
{
	flushes = false;
	if (!link)
		return;
	call_link_flush(link);
	update_watch();
}

/* Something was said, and leaves with what else is said now: paddockd wakes once. */
static void touch(void)
{
	if (flushes)
		return;
	flushes = true;
	flush.run = run_flush;
	loop_finally(&flush);
}

static void again(void *arg)
{
	deferred = false;
	if (link)
		on_event(0, NULL);
}

static void on_event(uint32_t events, void *arg)
{
	int rc = call_link_io(link, events);

	if (rc < 0) {
		log_event(LOG_WARN, "upstream.lost", "error", strerror(-rc), NULL);
		drop();
		return;
	}
	touch();
	if (rc > 0 && !deferred)
		deferred = loop_defer(again, NULL) == 0;
}

static int connect_link(struct pdk_error *err)
{
	struct call_link *fresh;

	if (link)
		return 0;
	fresh = call_link_connect(socket_path, err);
	if (!fresh)
		return pdk_fail(err, -ECONNREFUSED, PDK_UNAVAILABLE, "the server is not there; try again");
	watch = loop_watch_add(call_link_fd(fresh), call_link_events(fresh), on_event, NULL);
	if (!watch) {
		call_link_free(fresh);
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	}
	link = fresh;
	log_event(LOG_INFO, "upstream.connected", NULL);
	return 0;
}

struct call *upstream_open(const struct caller *caller, const char *method, uint64_t timeout_ms, uint32_t credit,
			   const struct call_events *events, void *arg, struct pdk_error *err)
{
	struct call_open open = {
		.method = method,
		.authorization = caller->authorization[0] ? caller->authorization : NULL,
		.access_token = caller->access_token[0] ? caller->access_token : NULL,
		.sandbox_id = caller->sandbox[0] ? caller->sandbox : NULL,
		.user = caller->user[0] ? caller->user : NULL,
		.file = caller->file,
		.client_address = caller->address,
		.timeout_ms = timeout_ms,
		.credit = credit,
	};
	struct call *call;
	int rc = connect_link(err);

	if (rc < 0)
		return NULL;
	call = call_open(link, &open, events, arg, &rc);
	touch();
	if (!call)
		pdk_fail(err, rc, PDK_UNAVAILABLE, "too many calls; try again");
	return call;
}

int upstream_send(struct call *call, const void *bytes, size_t length)
{
	int rc = call_send(call, bytes, length);

	touch();
	return rc;
}

void upstream_half_close(struct call *call)
{
	call_half_close(call);
	touch();
}

void upstream_credit(struct call *call, uint32_t n)
{
	call_credit(call, n);
	touch();
}

void upstream_cancel(struct call *call)
{
	call_cancel(call);
	touch();
}
