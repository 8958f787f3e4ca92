#include "health.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rpc.h"

/* Anybody may watch without a key, so the number of watchers is bounded. */
#define WATCHERS_MAX 256

typedef Grpc__Health__V1__HealthCheckResponse Response;

struct watcher {
	struct rpc_call *call;
	struct watcher *previous, *next;
	bool known;  /* the service is ours */
	int pending; /* the status to send when the last one has left; -1: none */
};

static struct watcher *watchers;
static unsigned int n_watchers;
static bool not_serving;

/* The whole server ("") or a service of the table. */
static bool service_known(const char *name)
{
	size_t length = strlen(name);

	if (!length)
		return true;
	for (size_t i = 0; i < rpc_table_size; i++) {
		const char *path = rpc_table[i].path + 1;

		if (strncmp(path, name, length) == 0 && path[length] == '/')
			return true;
	}
	return false;
}

static int status_of(bool known)
{
	if (!known)
		return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
	return not_serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
			   : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
}

void health_check(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Grpc__Health__V1__HealthCheckRequest *request = (const void *)message;
	Response reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	struct pdk_error err;

	if (!service_known(request->service)) {
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "unknown service");
		rpc_fail(call, &err);
		return;
	}
	reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status_of(true);
	rpc_finish(call, &reply.base);
}

static void send_status(struct watcher *watcher, int status)
{
	Response reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	if (!rpc_can_send(watcher->call)) {
		watcher->pending = status;
		return;
	}
	watcher->pending = -1;
	reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
	rpc_send(watcher->call, &reply.base);
}

static void watch_sent(struct rpc_call *call)
{
	struct watcher *watcher = rpc_user(call);

	if (watcher->pending >= 0)
		send_status(watcher, watcher->pending);
}

static void watch_cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct watcher *watcher = rpc_user(call);

	if (watcher->next)
		watcher->next->previous = watcher->previous;
	if (watcher->previous)
		watcher->previous->next = watcher->next;
	else
		watchers = watcher->next;
	n_watchers--;
	free(watcher);
	rpc_fail(call, why);
}

void health_watch(struct rpc_call *call, const ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_sent = watch_sent, .on_cancel = watch_cancelled};
	const Grpc__Health__V1__HealthCheckRequest *request = (const void *)message;
	struct watcher *watcher = n_watchers < WATCHERS_MAX ? calloc(1, sizeof(*watcher)) : NULL;
	struct pdk_error err;

	if (!watcher) {
		pdk_fail(&err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "too many health watchers");
		rpc_fail(call, &err);
		return;
	}
	*watcher = (struct watcher){.call = call, .next = watchers, .pending = -1};
	watcher->known = service_known(request->service);
	if (watchers)
		watchers->previous = watcher;
	watchers = watcher;
	n_watchers++;
	rpc_set_events(call, &events, watcher);
	send_status(watcher, status_of(watcher->known));
}

void health_set_serving(bool serving)
{
	not_serving = !serving;
	for (struct watcher *watcher = watchers; watcher; watcher = watcher->next) {
		if (watcher->known)
			send_status(watcher, status_of(true));
	}
}
