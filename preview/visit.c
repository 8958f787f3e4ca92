#include "visit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "app_conn.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"
#include "server/loop.h"
#include "upstream.h"

#define BUCKETS 256u
#define VISITS_MAX 1024u
#define OF_PORT_MAX 64u   /* of one published port */
#define OF_CLIENT_MAX 64u /* published ports that one address looks at */
#define USERS_MAX 4096u   /* of one visit */
#define CREDIT 4u         /* messages: it was opened, it ended, and room */
#define TICK_NS 2000000000u
#define LINGER_NS 30000000000u /* without traffic */

struct visit {
	struct visit *next;
	struct visit_key key;
	struct call *call;
	bool open;
	visit_refusal why; /* that paddockd has said last */
	struct visit_waiter *waiters;

	uint64_t number;
	char sandbox[SANDBOX_ID_SIZE];
	uint16_t port;
	bool read_only;
	char host_header[272];

	struct visit_user *users;
	unsigned int n_users;
	struct app_conn *idle;
	struct loop_timer timer;
	uint64_t used_ns;
	uint64_t requests, bytes_in, bytes_out; /* since the last report */
};

static struct visit *buckets[BUCKETS];
static unsigned int n_visits;

static struct visit **slot_of(const struct visit_key *key)
{
	struct visit **at = &buckets[hash_bytes(key, sizeof(*key)) % BUCKETS];

	while (*at && memcmp(&(*at)->key, key, sizeof(*key)) != 0)
		at = &(*at)->next;
	return at;
}

struct visit *visit_find(const struct visit_key *key)
{
	struct visit *visit = *slot_of(key);

	return visit && visit->open ? visit : NULL;
}

/* Ends */

static void report(struct visit *visit);

/* Out of the table; everybody in it and everybody who waits is told. */
static void finish(struct visit *visit, const struct pdk_error *err)
{
	*slot_of(&visit->key) = visit->next;
	n_visits--;
	/* In front of the end of its stream. Where paddockd has ended it, its record is written already. */
	if (visit->open && visit->call)
		report(visit);
	visit->open = false;
	loop_timer_cancel(&visit->timer);
	while (visit->waiters) {
		struct visit_waiter *waiter = visit->waiters;

		visit->waiters = waiter->next;
		waiter->visit = NULL;
		waiter->done(waiter, NULL, visit->why, err);
	}
	while (visit->users) {
		struct visit_user *user = visit->users;

		visit_leave(user);
		user->cut(user, visit->why);
	}
	app_conns_close(visit);
	if (visit->call)
		upstream_cancel(visit->call);
	explicit_bzero(visit, sizeof(*visit));
	free(visit);
}

static void ignore_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds,
			   void *arg)
{
}

static void ignore_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
}

static void report(struct visit *visit)
{
	static const struct call_events events = {.on_message = ignore_message, .on_end = ignore_end};
	Paddock__Internal__VisitReport request = PADDOCK__INTERNAL__VISIT_REPORT__INIT;
	struct caller caller = {};
	struct pdk_error err;
	struct call *call;
	uint8_t packed[64];

	if (!visit->requests && !visit->bytes_in && !visit->bytes_out)
		return;
	request.visit = visit->number;
	request.requests = visit->requests;
	request.bytes_in = visit->bytes_in;
	request.bytes_out = visit->bytes_out;
	call = upstream_open(&caller, "/paddock.internal.Visits/Report", 0, 1, &events, NULL, &err);
	if (!call)
		return;
	upstream_send(call, packed, paddock__internal__visit_report__pack(&request, packed));
	upstream_half_close(call);
	visit->requests = visit->bytes_in = visit->bytes_out = 0;
}

static void on_tick(void *arg)
{
	struct visit *visit = arg;
	uint64_t now = loop_now_ns();
	struct visit_user *next;

	for (struct visit_user *user = visit->users; user; user = next) {
		next = user->next;
		user->tick(user, now);
	}
	app_conns_expire(visit, now);
	report(visit);
	if (visit->users)
		visit->used_ns = now;
	if (now - visit->used_ns > LINGER_NS || loop_timer_set(&visit->timer, now + TICK_NS) < 0)
		finish(visit, NULL);
}

/*
 * Room for one more. Published ports need no proof, so visits of theirs could be begun without end by anybody: they are
 * bounded for each port and each address, and what is idle gives way.
 */

static bool same_port(const struct visit *visit, const struct visit_key *key)
{
	return strcmp(visit->key.sandbox, key->sandbox) == 0 && visit->key.port == key->port;
}

static bool same_client(const struct visit *visit, const struct visit_key *key)
{
	return visit->key.sandbox[0] && strcmp(visit->key.client, key->client) == 0;
}

static bool is_published(const struct visit *visit, const struct visit_key *key)
{
	return visit->key.sandbox[0];
}

static bool is_any(const struct visit *visit, const struct visit_key *key)
{
	return true;
}

/* Fewer than `max` that `match`: else the one that was idle for longest ends. False: all are in use. */
static bool make_room(bool (*match)(const struct visit *visit, const struct visit_key *key),
		      const struct visit_key *key, unsigned int max)
{
	struct visit *oldest = NULL;
	unsigned int n = 0;

	for (unsigned int i = 0; i < BUCKETS; i++) {
		for (struct visit *visit = buckets[i]; visit; visit = visit->next) {
			if (!match(visit, key))
				continue;
			n++;
			if (visit->open && !visit->users && (!oldest || visit->used_ns < oldest->used_ns))
				oldest = visit;
		}
	}
	if (n < max)
		return true;
	if (oldest)
		finish(oldest, NULL);
	return oldest;
}

static bool has_room(const struct visit_key *key)
{
	if (key->sandbox[0] && (!make_room(same_port, key, OF_PORT_MAX) || !make_room(same_client, key, OF_CLIENT_MAX)))
		return false;
	return n_visits < VISITS_MAX || make_room(is_published, key, 0) || make_room(is_any, key, 0);
}

/* The stream */

static void opened(struct visit *visit, const Paddock__Internal__VisitEvent *event)
{
	visit->open = true;
	visit->number = event->visit;
	visit->port = (uint16_t)event->port;
	visit->read_only = event->read_only;
	snprintf(visit->sandbox, sizeof(visit->sandbox), "%s", event->sandbox_id);
	forward_host(event->host_header, event->port, visit->host_header, sizeof(visit->host_header));
	visit->used_ns = loop_now_ns();
	visit->timer.handler = on_tick;
	visit->timer.arg = visit;
	if (loop_timer_set(&visit->timer, visit->used_ns + TICK_NS) < 0) {
		finish(visit, &(struct pdk_error){.code = PDK_RESOURCE_EXHAUSTED, .text = "out of memory"});
		return;
	}
	while (visit->waiters) {
		struct visit_waiter *waiter = visit->waiters;

		visit->waiters = waiter->next;
		waiter->visit = NULL;
		waiter->done(waiter, visit, VISIT(ALLOWED), NULL);
	}
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct visit *visit = arg;
	Paddock__Internal__VisitEvent *event = paddock__internal__visit_event__unpack(NULL, length, bytes);

	if (!event) /* out of memory */
		finish(visit, &(struct pdk_error){.code = PDK_RESOURCE_EXHAUSTED, .text = "out of memory"});
	else if (event->refusal != VISIT(ALLOWED)) {
		visit->why = event->refusal;
		finish(visit, NULL);
	} else if (!visit->open)
		opened(visit, event);
	if (event)
		paddock__internal__visit_event__free_unpacked(event, NULL);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct visit *visit = arg;
	struct pdk_error err;

	visit->call = NULL;
	pdk_fail(&err, 0, code == PDK_OK ? PDK_UNAVAILABLE : code, "%s", text);
	finish(visit, &err);
}

static int start(struct visit *visit, const char *address, struct pdk_error *err)
{
	static const struct call_events events = {.on_message = on_message, .on_end = on_end};
	Paddock__Internal__VisitOpen request = PADDOCK__INTERNAL__VISIT_OPEN__INIT;
	uint8_t packed[sizeof(struct visit_key) + 64];
	struct caller caller = {};
	int rc;

	request.preview_id = visit->key.preview;
	request.cookie = visit->key.cookie;
	request.sandbox_id = visit->key.sandbox;
	request.port = visit->key.port;
	request.traffic_token = visit->key.traffic_token;
	snprintf(caller.address, sizeof(caller.address), "%s", address);
	visit->call = upstream_open(&caller, "/paddock.internal.Visits/Open", 0, CREDIT, &events, visit, err);
	if (!visit->call)
		return -EAGAIN;
	rc = upstream_send(visit->call, packed, paddock__internal__visit_open__pack(&request, packed));
	explicit_bzero(packed, sizeof(packed));
	if (rc < 0) {
		upstream_cancel(visit->call);
		return pdk_fail(err, rc, PDK_UNAVAILABLE, "the server is not there; try again");
	}
	upstream_half_close(visit->call);
	return 0;
}

int visit_open(const struct visit_key *key, const char *address, struct visit_waiter *waiter, struct pdk_error *err)
{
	struct visit *visit = *slot_of(key);
	int rc;

	if (!visit) {
		if (!has_room(key))
			return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "too many visitors at once; try again");
		visit = calloc(1, sizeof(*visit));
		if (!visit)
			return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
		visit->key = *key;
		rc = start(visit, address, err);
		if (rc < 0) {
			free(visit);
			return rc;
		}
		*slot_of(key) = visit;
		n_visits++;
	}
	waiter->visit = visit;
	waiter->next = visit->waiters;
	visit->waiters = waiter;
	return 0;
}

void visit_give_up(struct visit_waiter *waiter)
{
	struct visit_waiter **at = waiter->visit ? &waiter->visit->waiters : NULL;

	while (at && *at != waiter)
		at = &(*at)->next;
	if (at)
		*at = waiter->next;
	waiter->visit = NULL;
}

void visits_stop(void)
{
	for (unsigned int i = 0; i < BUCKETS; i++) {
		while (buckets[i])
			finish(buckets[i], NULL);
	}
}

/* What is in it */

uint64_t visit_number(const struct visit *visit)
{
	return visit->number;
}

uint16_t visit_port(const struct visit *visit)
{
	return visit->port;
}

const char *visit_sandbox(const struct visit *visit)
{
	return visit->sandbox;
}

bool visit_read_only(const struct visit *visit)
{
	return visit->read_only;
}

const char *visit_host_header(const struct visit *visit)
{
	return visit->host_header;
}

struct app_conn **visit_idle(struct visit *visit)
{
	return &visit->idle;
}

bool visit_enter(struct visit *visit, struct visit_user *user)
{
	if (visit->n_users >= USERS_MAX)
		return false;
	user->visit = visit;
	user->previous = NULL;
	user->next = visit->users;
	if (user->next)
		user->next->previous = user;
	visit->users = user;
	visit->n_users++;
	return true;
}

void visit_leave(struct visit_user *user)
{
	struct visit *visit = STEAL_PTR(user->visit);

	if (!visit)
		return;
	if (user->previous)
		user->previous->next = user->next;
	else
		visit->users = user->next;
	if (user->next)
		user->next->previous = user->previous;
	visit->n_users--;
	visit->used_ns = loop_now_ns();
}

void visit_count(struct visit *visit, uint64_t requests, uint64_t bytes_in, uint64_t bytes_out)
{
	visit->requests += requests;
	visit->bytes_in += bytes_in;
	visit->bytes_out += bytes_out;
}
