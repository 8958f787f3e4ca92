#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "connect.h"
#include "envd.h"
#include "paddock/v1/files.pb-c.h"
#include "rest.h"
#include "url.h"

void files_fail(struct http_exchange *exchange, const struct caller *caller, enum pdk_code code, const char *text)
{
	if (code == PDK_UNAVAILABLE || (code == PDK_UNAUTHENTICATED && caller->access_token[0]))
		envd_not_found(exchange, caller->sandbox);
	else
		rest_fail(exchange, code == PDK_RESOURCE_EXHAUSTED ? 507 : connect_http_status(code), text);
}

bool files_is_signed(const struct http_head *head)
{
	char signature[FILES_SIGNATURE_SIZE];

	return strcmp(head->path, "/files") == 0 &&
	       url_query(head->query, "signature", signature, sizeof(signature)) != -ENOENT;
}

/* What the URL says of its signature. 0, or -EINVAL: that cannot be right. */
static int read_signature(const struct http_head *head, struct call_file *ret, char signature[FILES_SIGNATURE_SIZE])
{
	char text[32];
	int rc = url_query(head->query, "signature_expiration", text, sizeof(text));

	if (url_query(head->query, "signature", signature, FILES_SIGNATURE_SIZE) < 0 || (rc < 0 && rc != -ENOENT))
		return -EINVAL;
	ret->signature = signature;
	ret->expires = rc == 0;
	if (ret->expires && (!text[0] || strspn(text, "0123456789") != strlen(text) || strlen(text) > 15))
		return -EINVAL;
	ret->expires_unix_s = ret->expires ? strtoll(text, NULL, 10) : 0;
	return 0;
}

static void serve(struct http_exchange *exchange, const struct caller *caller, const char *path, const char *user)
{
	const struct http_head *head = http_request(exchange);

	if (strcmp(head->method, "GET") == 0)
		files_download(exchange, caller, path, user);
	else if (strcmp(head->method, "POST") == 0)
		files_upload(exchange, caller, path, user);
	else
		rest_fail(exchange, 405, "GET and POST are allowed here");
}

void files_serve(struct http_exchange *exchange, const struct caller *caller)
{
	const struct http_head *head = http_request(exchange);
	char path[FILES_PATH_MAX] = "", user[64] = "", signature[FILES_SIGNATURE_SIZE];
	struct call_file file = {.path = path, .user = user};
	struct caller signer = *caller;
	int rc = url_query(head->query, "path", path, sizeof(path));
	int user_rc = url_query(head->query, "username", user, sizeof(user));

	signer.file = &file;
	if (!user[0] && caller->access_token[0])
		strcpy(user, caller->user);
	if ((rc < 0 && rc != -ENOENT) || (user_rc < 0 && user_rc != -ENOENT))
		rest_fail(exchange, 400, "path or username: malformed");
	else if (caller->access_token[0])
		serve(exchange, caller, path, user);
	else if (!files_is_signed(head))
		rest_fail(exchange, 401, "missing signature query parameter");
	else if (read_signature(head, &file, signature) < 0)
		rest_fail(exchange, 401, "invalid signature");
	else
		serve(exchange, &signer, path, user);
}
