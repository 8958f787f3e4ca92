#ifndef PADDOCK_SERVER_LOG_H
#define PADDOCK_SERVER_LOG_H

#include <stdint.h>

/* Structured logs: one JSON object a line on stderr, every string escaped, lines bounded. */

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
int log_level_parse(const char *name); /* enum log_level, or -EINVAL */

/* log_event(LOG_INFO, "sandbox.created", "sandbox", id, "template", name, NULL): pairs of strings, then NULL.
 * A NULL value is left out. */
void log_event(enum log_level level, const char *event, ...) __attribute__((sentinel));

/* Decimal text for a pair's value, in a ring of thread-local buffers (16 calls). */
const char *log_u64(uint64_t value);
const char *log_i64(int64_t value);

#endif
