#ifndef PADDOCK_WARDEN_LOG_H
#define PADDOCK_WARDEN_LOG_H

#include "sandbox/base/error.h"

/* One JSON object per line on stderr. `id` (a sandbox or template id, or NULL) and the text are escaped. */
void log_info(const char *event, const char *id, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void log_warning(const char *event, const char *id, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* An error that ends a call; `err` gives the text. */
void log_error(const char *event, const char *id, const struct pdk_error *err);

/* `text` as a JSON string with its quotes into `out`; always terminated, cut if it does not fit. */
void log_json_string(char *out, unsigned long size, const char *text);

#endif
