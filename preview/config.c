#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/base/cleanup.h"

enum kind { TEXT, LIST, NUMBER };

struct option {
	const char *name;
	enum kind kind;
	size_t offset;
	size_t size;  /* TEXT: of the field; LIST: of one entry */
	size_t count; /* LIST: where the number of entries is */
	unsigned int min, max;
};

#define FIELD(field)                                                                                                   \
	.name = #field, .offset = offsetof(struct ingress_config, field),                                              \
	.size = sizeof(((struct ingress_config *)0)->field)
#define ENTRIES(field)                                                                                                 \
	.name = #field, .kind = LIST, .offset = offsetof(struct ingress_config, field),                                \
	.size = sizeof(((struct ingress_config *)0)->field[0]), .count = offsetof(struct ingress_config, n_##field)

static const struct option options[] = {
	{ENTRIES(listen)},
	{ENTRIES(listen_tls)},
	{ENTRIES(tls_certificate)},
	{ENTRIES(tls_key)},
	{FIELD(tls_client_ca), .kind = TEXT},
	{FIELD(domain), .kind = TEXT},
	{FIELD(advertise), .kind = TEXT},
	{FIELD(runtime_dir), .kind = TEXT},
	{FIELD(user), .kind = TEXT},
	{FIELD(log_level), .kind = TEXT},
	{FIELD(max_connections), .kind = NUMBER, .min = 1, .max = 100000},
	{FIELD(max_per_address), .kind = NUMBER, .min = 1, .max = 100000},
	{FIELD(answer_timeout), .kind = NUMBER, .min = 1, .max = 86400},
};

void ingress_config_init(struct ingress_config *config)
{
	*config = (struct ingress_config){
		.domain = "localhost",
		.runtime_dir = "/run/paddock",
		.user = "paddock-ingress",
		.log_level = "info",
		.max_connections = 8192,
		.max_per_address = 2048,
		.answer_timeout = 120,
	};
}

static int set_number(void *field, const struct option *option, const char *value)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || *end || errno || number < option->min || number > option->max)
		return -EINVAL;
	*(unsigned int *)field = (unsigned int)number;
	return 0;
}

static int set_text(char *field, size_t size, const char *value)
{
	if (strlen(value) >= size)
		return -ENAMETOOLONG;
	strcpy(field, value);
	return 0;
}

static int set_value(struct ingress_config *config, const struct option *option, const char *value)
{
	char *field = (char *)config + option->offset;
	unsigned int *count = (unsigned int *)((char *)config + option->count);

	switch (option->kind) {
	case NUMBER:
		return set_number(field, option, value);
	case TEXT:
		return set_text(field, option->size, value);
	case LIST:
		break;
	}
	/* A line adds to the list; an empty one clears it. */
	if (!*value) {
		*count = 0;
		return 0;
	}
	if (*count == INGRESS_LISTS_MAX)
		return -E2BIG;
	return set_text(field + option->size * (*count)++, option->size, value);
}

static char *trim(char *text)
{
	char *end;

	text += strspn(text, " \t\r\n");
	end = text + strlen(text);
	while (end > text && strchr(" \t\r\n", end[-1]))
		*--end = '\0';
	return text;
}

static int set_line(struct ingress_config *config, char *line, struct pdk_error *err)
{
	char *value = strchr(line, '=');
	char *name;

	if (!value)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "not `name = value`");
	*value++ = '\0';
	name = trim(line);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (strcmp(options[i].name, name) != 0)
			continue;
		if (set_value(config, &options[i], trim(value)) < 0)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: the value does not fit", name);
		return 0;
	}
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%.64s: no such setting", name);
}

int ingress_config_set(struct ingress_config *config, const char *assignment, struct pdk_error *err)
{
	_cleanup_free_ char *line = strdup(assignment);

	return line ? set_line(config, line, err) : pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
}

int ingress_config_load(struct ingress_config *config, const char *path, struct pdk_error *err)
{
	_cleanup_file_ FILE *file = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	unsigned int number = 0;

	if (!file)
		return pdk_fail_errno(err, -errno, "%s", path);
	while (getline(&line, &size, file) >= 0) {
		char *text = trim(line);
		int rc;

		number++;
		if (!*text || *text == '#')
			continue;
		rc = set_line(config, text, err);
		if (rc < 0)
			return pdk_wrap(err, rc, "%s:%u", path, number);
	}
	return 0;
}

static bool is_loopback(const char *address)
{
	return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]:", 6) == 0;
}

static bool domain_valid(const char *domain)
{
	size_t length = strlen(domain);

	if (!length || domain[0] == '.' || domain[0] == '-' || domain[length - 1] == '.')
		return false;
	/* Lower case: it is compared with lower-cased hosts. */
	return strspn(domain, "abcdefghijklmnopqrstuvwxyz0123456789-.") == length && !strstr(domain, "..");
}

int ingress_config_check(struct ingress_config *config, struct pdk_error *err)
{
	if (!config->n_listen && !config->n_listen_tls)
		strcpy(config->listen[config->n_listen++], "127.0.0.1:7413");
	for (unsigned int i = 0; i < config->n_listen; i++) {
		if (!is_loopback(config->listen[i]))
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
					"listen: %s is not loopback; use listen_tls", config->listen[i]);
	}
	if (config->n_tls_certificate != config->n_tls_key)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				"every tls_certificate needs its tls_key, in the same order");
	if (config->n_listen_tls && !config->n_tls_certificate)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "listen_tls needs tls_certificate and tls_key");
	if (!domain_valid(config->domain))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "domain: not a host name in lower case");
	if (!config->advertise[0])
		strcpy(config->advertise, config->domain);
	return 0;
}
