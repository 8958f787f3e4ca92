#include "url.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int url_decode(char *text, bool plus)
{
	char *to = text;

	for (; *text; text++) {
		int high, low;

		if (*text != '%') {
			*to++ = plus && *text == '+' ? ' ' : *text;
			continue;
		}
		high = digit_of(text[1]);
		low = high < 0 ? -1 : digit_of(text[2]);
		if (low < 0 || !(high | low))
			return -EINVAL;
		*to++ = (char)(high << 4 | low);
		text += 2;
	}
	*to = '\0';
	return 0;
}

int url_query(const char *query, const char *name, char *ret, size_t size)
{
	size_t wanted = strlen(name);

	while (*query) {
		size_t length = strcspn(query, "&");
		const char *pair = query;

		query += length + (query[length] == '&');
		if (length <= wanted || pair[wanted] != '=' || strncmp(pair, name, wanted) != 0)
			continue;
		length -= wanted + 1;
		if (length >= size)
			return -ENAMETOOLONG;
		memcpy(ret, pair + wanted + 1, length);
		ret[length] = '\0';
		return url_decode(ret, true);
	}
	return -ENOENT;
}

uint16_t url_parse_port(const char *text, size_t length)
{
	unsigned int port = 0;

	if (!length || length > 5 || text[0] == '0')
		return 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		port = port * 10 + (unsigned int)(text[i] - '0');
	}
	return port <= 65535 ? (uint16_t)port : 0;
}

/* Lower case, without port and last dot. */
static int canonical(const char *host, char *ret, size_t size)
{
	size_t length = strcspn(host, ":");

	if (host[0] == '[')
		return -ENOENT; /* an IPv6 address: never below a domain */
	if (host[length] == ':' && host[length + 1] && !url_parse_port(host + length + 1, strlen(host + length + 1)))
		return -EINVAL;
	if (length && host[length - 1] == '.')
		length--;
	if (!length || length >= size)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		char c = (char)tolower((unsigned char)host[i]);

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '.' && c != '_')
			return -EINVAL;
		ret[i] = c;
	}
	ret[length] = '\0';
	return 0;
}

/* "<port>-<id>" or "<port>-<id>-<more>" */
static int parse_sandbox(const char *label, struct url_host *ret)
{
	const char *dash = strchr(label, '-');
	const char *id = dash + 1;

	ret->port = url_parse_port(label, (size_t)(dash - label));
	if (!ret->port || strlen(id) < SANDBOX_ID_LEN || (id[SANDBOX_ID_LEN] && id[SANDBOX_ID_LEN] != '-'))
		return -EINVAL;
	memcpy(ret->sandbox, id, SANDBOX_ID_LEN);
	ret->sandbox[SANDBOX_ID_LEN] = '\0';
	ret->is_sandbox = sandbox_id_valid(ret->sandbox);
	return ret->is_sandbox ? 0 : -EINVAL;
}

int url_parse_host(const char *host, const char *domain, struct url_host *ret)
{
	char name[256];
	size_t length, suffix = strlen(domain);
	int rc;

	*ret = (struct url_host){};
	if (!host[0])
		return 0;
	rc = canonical(host, name, sizeof(name));
	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return rc;
	length = strlen(name);
	if (length <= suffix || strcmp(name + length - suffix, domain) != 0 || name[length - suffix - 1] != '.')
		return 0;
	name[length - suffix - 1] = '\0';
	if (strcmp(name, "api") == 0 || strcmp(name, "sandbox") == 0)
		return 0;
	if (!name[0] || strchr(name, '.') || strlen(name) >= sizeof(ret->label))
		return -EINVAL;
	if (isdigit((unsigned char)name[0]) && strchr(name, '-'))
		return parse_sandbox(name, ret);
	ret->is_grant = true;
	strcpy(ret->label, name);
	return 0;
}
