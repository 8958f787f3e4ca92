#ifndef PADDOCK_PREVIEW_FILES_H
#define PADDOCK_PREVIEW_FILES_H

#include "http.h"
#include "upstream.h"

/* /files of a sandbox: GET (with one range), and POST as multipart/form-data or application/octet-stream, gzip too.
 * Bytes stream in both directions; a file appears when it is whole. */
void files_serve(struct http_exchange *exchange, const struct caller *caller);
/* A request for /files that names no sandbox, but brings a signature. */
bool files_is_signed(const struct http_head *head);

/* The halves. `path` and `user` are decoded already. */
#define FILES_PATH_MAX 4200
#define FILES_SIGNATURE_SIZE 64
void files_download(struct http_exchange *exchange, const struct caller *caller, const char *path, const char *user);
void files_upload(struct http_exchange *exchange, const struct caller *caller, const char *path, const char *user);

/* What a failed call of Files means over HTTP. */
void files_fail(struct http_exchange *exchange, const struct caller *caller, enum pdk_code code, const char *text);

#endif
