#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest_check.h"
#include "preview_internal.h"
#include "question.h"
#include "rpc.h"
#include "sandboxes.h"

/* Previews.ListPorts: what init found, sorted and joined by port. */

#define PORTS_MAX 1024u

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

static void answer(struct rpc_call *call, const Paddock__Internal__GuestReply *guest_reply, uint64_t note)
{
	const Paddock__Internal__GuestPortList *found = guest_reply->ports;
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

void previews_list_ports(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ListPortsRequest *request = (const void *)message;
	Paddock__Internal__GuestPorts ports = PADDOCK__INTERNAL__GUEST_PORTS__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc;

	if (sandbox_find_running(call, request->sandbox_id, &sandbox, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	rpc_audit_object(call, sandbox->id, NULL);
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_PORTS;
	question.ports = &ports;
	rc = question_ask(call, sandbox->guest, &question, answer, 0);
	if (rc >= 0)
		return;
	pdk_fail(&err, rc, PDK_UNAVAILABLE, "the sandbox could not be asked; try again");
	rpc_fail(call, &err);
}
