#ifndef PADDOCK_WARDEN_NETNS_H
#define PADDOCK_WARDEN_NETNS_H

/*
 * Network namespaces with nothing but `lo`, up. Each is made together with a sandbox's user namespace and owned by it
 * (userns.c), as a checkpoint needs; that nothing inside configures it is the work of the capability bounding set (no
 * CAP_NET_ADMIN, no CAP_NET_RAW).
 */

/* Bring up the network of the namespace that the caller is in. 0 or a negative errno. */
int netns_configure(void);

/* Run `make` while the warden is in another network namespace: a socket belongs to the one that it is made in. The
 * result of `make`, or a negative errno. */
int netns_inside(int netns, int (*make)(const char *arg), const char *arg);

#endif
