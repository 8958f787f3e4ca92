#include "files.h"

#include <errno.h>
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

static bool has_metadata(const struct http_head *head)
{
	for (unsigned int i = 0; i < head->n_fields; i++) {
		if (strncasecmp(head->fields[i].name, "x-metadata-", 11) == 0)
			return true;
	}
	return false;
}

void files_serve(struct http_exchange *exchange, const struct caller *caller)
{
	const struct http_head *head = http_request(exchange);
	char path[FILES_PATH_MAX] = "", user[64] = "", signature[8];
	int rc = url_query(head->query, "path", path, sizeof(path));
	int user_rc = url_query(head->query, "username", user, sizeof(user));

	if (!user[0])
		strcpy(user, caller->user);
	if ((rc < 0 && rc != -ENOENT) || (user_rc < 0 && user_rc != -ENOENT))
		rest_fail(exchange, 400, "path or username: malformed");
	else if (!caller->access_token[0] &&
		 url_query(head->query, "signature", signature, sizeof(signature)) != -ENOENT)
		rest_fail(exchange, 501, "signed file URLs are not available on this server yet");
	else if (strcmp(head->method, "GET") == 0)
		files_download(exchange, caller, path, user);
	else if (strcmp(head->method, "POST") == 0 && has_metadata(head))
		rest_fail(exchange, 400, "X-Metadata: metadata of files is not available on this server yet");
	else if (strcmp(head->method, "POST") == 0)
		files_upload(exchange, caller, path, user);
	else
		rest_fail(exchange, 405, "GET and POST are allowed here");
}
