#ifndef PADDOCK_SERVER_METRICS_H
#define PADDOCK_SERVER_METRICS_H

#include "sandbox/base/error.h"
#include <stdint.h>

/* Prometheus metrics, text exposition on metrics_listen. Counters are atomic: any thread may add. */

enum metric {
	METRIC_CALLS_OK,
	METRIC_CALLS_FAILED,
	METRIC_CALLS_ACTIVE,
	METRIC_AUTH_FAILURES,
	METRIC_SANDBOXES,
	METRIC_SANDBOXES_CREATED,
	METRIC_SANDBOXES_ENDED,
	METRIC_SANDBOXES_FAILED,
	METRIC_CREATES_REFUSED,
	METRIC_POOL_HITS,
	METRIC_POOL_MISSES,
	METRIC_POOL_READY,
	METRIC_PROCESSES_STARTED,
	METRIC_PROCESSES_RUNNING,
	METRIC_OUTPUT_BYTES,
	METRIC_OUTPUT_DROPPED_BYTES,
	METRIC_STORE_COMMITS,
	METRIC_STORE_BATCHES,
	METRIC_AUDIT_RECORDS,
	METRIC_COUNT
};

void metric_add(enum metric metric, int64_t delta);
void metric_set(enum metric metric, int64_t value);
/* Latency histogram of a finished call. `method` is the path of a table row. */
void metric_call(const char *method, const char *code, uint64_t duration_ns);

int metrics_start(const char *listen, struct pdk_error *err);
void metrics_stop(void);

#endif
