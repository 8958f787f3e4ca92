#ifndef PADDOCK_WARDEN_NETNS_H
#define PADDOCK_WARDEN_NETNS_H

/*
 * Network namespaces with nothing but `lo`, up. Each is made together with a sandbox's user namespace and owned by it
 * (userns.c), as a checkpoint needs; that nothing inside configures it is the work of the capability bounding set (no
 * CAP_NET_ADMIN, no CAP_NET_RAW).
 */

/* Bring up the network of the namespace that the caller is in. 0 or a negative errno. */
int netns_up(void);
/* A workload without capabilities may bind ports below 1024: they are only its own. By a /proc that shows the namespace
 * to a process in it, best the sandbox's own: in a /proc that many sandboxes share, the kernel searches for the name
 * among as many as there are network namespaces, with a string compare for each. */
int netns_open_low_ports(int proc);

/* Run `make` while the warden is in another network namespace: a socket belongs to the one that it is made in. The
 * result of `make`, or a negative errno. */
int netns_inside(int netns, int (*make)(const char *arg), const char *arg);

#endif
