#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"
#include "guest_check.h"
#include "preview_internal.h"
#include "rpc.h"
#include "sandboxes.h"

/* Previews.ListPorts: what init found, sorted and joined by port. */

#define PORTS_MAX 1024u

struct listing {
	struct rpc_call *call;
	struct guest *guest; /* valid while stream is not 0 */
	uint32_t stream;
};

static int compare(const void *a, const void *b)
{
	const Paddock__Internal__GuestPort *const *left = a, *const *right = b;

	return (int)(*left)->port - (int)(*right)->port;
}

static void add(Paddock__V1__ListPortsResponse *reply, Paddock__V1__ListeningPort *ports,
		const Paddock__Internal__GuestPort *found)
{
	Paddock__V1__ListeningPort *port = reply->n_ports ? reply->ports[reply->n_ports - 1] : NULL;

	if (!port || port->port != found->port) {
		if (reply->n_ports == PORTS_MAX)
			return;
		port = &ports[reply->n_ports];
		paddock__v1__listening_port__init(port);
		port->port = found->port;
		port->uid = found->uid;
		port->loopback = true;
		reply->ports[reply->n_ports++] = port;
	}
	/* "::" takes IPv4 as well, unless its owner said otherwise, which is not to be seen from outside. */
	port->ipv4 |= !found->ipv6 || found->any;
	port->ipv6 |= found->ipv6;
	port->loopback &= !found->any;
}

static void answer(struct rpc_call *call, const Paddock__Internal__GuestPortList *found)
{
	Paddock__V1__ListPortsResponse reply = PADDOCK__V1__LIST_PORTS_RESPONSE__INIT;
	Paddock__V1__ListeningPort *ports = rpc_alloc(call, PORTS_MAX * sizeof(*ports));
	struct pdk_error err;

	reply.ports = rpc_alloc(call, PORTS_MAX * sizeof(Paddock__V1__ListeningPort *));
	if (!ports || !reply.ports) {
		pdk_fail_errno(&err, -ENOMEM, "listing the ports");
		rpc_fail(call, &err);
		return;
	}
	if (found->n_port)
		qsort(found->port, found->n_port, sizeof(*found->port), compare);
	for (size_t i = 0; i < found->n_port; i++)
		add(&reply, ports, found->port[i]);
	rpc_finish(call, &reply.base);
}

static void on_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		     const struct pdk_error *err, void *arg)
{
	struct listing *listing = arg;
	struct rpc_call *call = listing->call;

	if (reply)
		guest_cancel(listing->guest, listing->stream);
	free(listing);
	if (reply && !err->code)
		answer(call, reply->ports);
	else
		rpc_fail(call, err->code ? err
					 : &(struct pdk_error){.code = PDK_UNAVAILABLE,
							       .text = "the sandbox does not answer"});
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct listing *listing = rpc_user(call);

	guest_cancel(listing->guest, listing->stream);
	free(listing);
	rpc_fail(call, why);
}

void previews_list_ports(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_cancel = on_cancel};
	const Paddock__V1__ListPortsRequest *request = (const void *)message;
	Paddock__Internal__GuestPorts ports = PADDOCK__INTERNAL__GUEST_PORTS__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct listing *listing = NULL;
	struct sandbox *sandbox;
	int64_t stream = -ENOMEM;
	struct pdk_error err;

	if (sandbox_find_running(call, request->sandbox_id, &sandbox, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	rpc_audit_object(call, sandbox->id, NULL);
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_PORTS;
	question.ports = &ports;
	listing = calloc(1, sizeof(*listing));
	if (listing)
		stream = guest_call(sandbox->guest, &question, 0, on_reply, listing);
	if (stream < 0) {
		free(listing);
		pdk_fail(&err, (int)stream, PDK_UNAVAILABLE, "the sandbox could not be asked; try again");
		rpc_fail(call, &err);
		return;
	}
	*listing = (struct listing){.call = call, .guest = sandbox->guest, .stream = (uint32_t)stream};
	rpc_set_events(call, &events, listing);
}
