#ifndef PADDOCK_SERVER_ADMIN_PRIVATE_H
#define PADDOCK_SERVER_ADMIN_PRIVATE_H

struct rpc_call;
struct pdk_error;

/* Private to auth.c, admin.c, tenants.c and keys.c. */

/* Remember when the server started. */
void admin_note_start(void);

/* For changes that are committed with rpc_commit(): a client that goes away does not take the change back, the
 * call is finished when it is durable. `user` is what rpc_user() gives then. */
void admin_begin_change(struct rpc_call *call, void *user);
/* End a change that could not be committed. */
void admin_fail_change(struct rpc_call *call, int rc);

#endif
