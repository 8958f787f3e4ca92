#include "address.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define ADMIN_SOCKET "/run/paddock/admin.sock"
#define PUBLIC_SOCKET "/run/paddock/paddock.sock"

static bool host_is_loopback(const char *host, size_t length)
{
	return (length == 9 && !memcmp(host, "localhost", 9)) || (length > 4 && !memcmp(host, "127.", 4)) ||
	       (length == 5 && !memcmp(host, "[::1]", 5));
}

static bool host_valid(const char *host, size_t length)
{
	size_t i;

	if (length == 0 || length > 255)
		return false;
	if (host[0] == '[')
		return length > 2 && host[length - 1] == ']' &&
		       strspn(host + 1, "0123456789abcdefABCDEF:.") == length - 2;
	for (i = 0; i < length; i++)
		if (!isalnum((unsigned char)host[i]) && host[i] != '-' && host[i] != '.' && host[i] != '_')
			return false;
	return true;
}

static int parse_unix(const char *path, struct address *ret_address, struct pdk_error *err)
{
	struct sockaddr_un sun;
	struct address address = {.local = true};

	if (!strncmp(path, "//", 2))
		path += 2;
	if (!*path || strlen(path) >= sizeof(sun.sun_path))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "address: a socket path has 1 to %zu bytes",
				sizeof(sun.sun_path) - 1);
	if (asprintf(&address.target, "unix:%s", path) < 0)
		return pdk_fail_errno(err, -ENOMEM, "address");
	*ret_address = address;
	return 0;
}

int address_parse(const char *text, struct address *ret_address, struct pdk_error *err)
{
	struct address address = {0};
	const char *colon;
	char *end;
	unsigned long port;

	if (!strncmp(text, "unix:", 5))
		return parse_unix(text + 5, ret_address, err);
	if (!strncmp(text, "https://", 8)) {
		address.tls = true;
		text += 8;
	} else if (!strncmp(text, "http://", 7)) {
		text += 7;
	}
	colon = strrchr(text, ':');
	if (!colon || !host_valid(text, (size_t)(colon - text)) || !isdigit((unsigned char)colon[1]))
		goto bad;
	port = strtoul(colon + 1, &end, 10);
	if ((*end && strcmp(end, "/") != 0) || port == 0 || port > 65535)
		goto bad;
	address.local = host_is_loopback(text, (size_t)(colon - text));
	if (asprintf(&address.target, "%.*s:%lu", (int)(colon - text), text, port) < 0)
		return pdk_fail_errno(err, -ENOMEM, "address");
	*ret_address = address;
	return 0;
bad:
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "address: write unix:PATH, HOST:PORT or https://HOST:PORT");
}

void address_clear(struct address *address)
{
	free(address->target);
	*address = (struct address){0};
}

char *address_default(struct pdk_error *err)
{
	const char *env = getenv("PADDOCK_ADDR");
	const char *found = NULL;
	char *copy;

	if (env && *env)
		found = env;
	else if (access(ADMIN_SOCKET, R_OK | W_OK) == 0)
		found = "unix:" ADMIN_SOCKET;
	else if (access(PUBLIC_SOCKET, R_OK | W_OK) == 0)
		found = "unix:" PUBLIC_SOCKET;
	if (!found) {
		pdk_fail(err, -ENOENT, PDK_UNAVAILABLE, "no server runs on this machine, and PADDOCK_ADDR is not set");
		return NULL;
	}
	copy = strdup(found);
	if (!copy)
		pdk_fail_errno(err, -ENOMEM, "address");
	return copy;
}
