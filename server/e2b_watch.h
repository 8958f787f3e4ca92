#ifndef PADDOCK_SERVER_E2B_WATCH_H
#define PADDOCK_SERVER_E2B_WATCH_H

#include "e2b/filesystem.pb-c.h"
#include "e2b_process.h"
#include "paddock/v1/files.pb-c.h"

/* What the two ways to watch a directory share. */

#define E2B_NAME_MAX 4096

struct e2b_change {
	Filesystem__EventType type;
	const ProtobufCBinaryData *path;
};

/* How many changes of this contract one event is: 0 to 2. */
unsigned int e2b_watch_translate(const Paddock__V1__WatchEvent *event, struct e2b_change ret[2]);
/* The path as text, '?' for bytes that are no text. */
char *e2b_watch_name(char name[E2B_NAME_MAX], const ProtobufCBinaryData *path);
/* Make the inner call. NULL: the outer one has failed. */
struct rpc_local *e2b_watch_open(struct e2b_call *e2b, const char *path, bool recursive,
				 const struct rpc_local_events *events, void *arg);
/* Watchers that are polled: what one has kept. */
#define E2B_WATCHER_ID_SIZE 33
struct e2b_kept {
	Filesystem__EventType type;
	char *name;
};
void e2b_kept_clear(struct e2b_kept *changes, unsigned int n);
/* GetWatcherEvents with include_entry: look at what there is now at each name below `path`, then answer. Takes the
 * changes. If the call ends before, they are lost: e2b_watcher_lost(). */
void e2b_watcher_tell(struct e2b_call *e2b, const char *watcher_id, const char *path, struct e2b_kept *changes,
		      unsigned int n);
/* The watcher's next poll is told that events were lost, if it is still there. */
void e2b_watcher_lost(const char *watcher_id);

/* It could not be watched. */
void e2b_watch_fail(struct e2b_call *e2b, const struct pdk_error *end);

#endif
