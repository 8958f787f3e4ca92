#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "sandbox/base/cleanup.h"

/* One table says what can be configured: it parses, checks, prints and documents. */

#define FILE_SIZE_MAX (1 << 20)

struct config server_config;

enum type {
	TYPE_TEXT,
	TYPE_LEVEL, /* of the log: text of enum log_level */
	TYPE_BOOL,
	TYPE_U32,
	TYPE_SIZE,        /* uint64_t bytes */
	TYPE_DURATION,    /* uint64_t milliseconds */
	TYPE_DURATION_32, /* uint32_t milliseconds */
	TYPE_FACTOR,      /* double */
};

struct option {
	const char *name;
	const char *initial; /* parsed as from a file */
	const char *help;
	enum type type;
	uint32_t offset;
	uint32_t size;     /* TEXT: of the field */
	uint64_t min, max; /* of numbers; FACTOR: whole numbers */
};

#define FIELD(field)                                                                                                   \
	.name = #field, .offset = offsetof(struct config, field), .size = sizeof(((struct config *)0)->field)
#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)
#define DAY ((uint64_t)86400000)

static const struct option options[] = {
	{FIELD(data_dir), .type = TYPE_TEXT, .initial = "/var/lib/paddock",
	 .help = "state: the store, kept output, the storage pool"},
	{FIELD(runtime_dir), .type = TYPE_TEXT, .initial = "/run/paddock",
	 .help = "sockets: admin.sock, paddock.sock, warden.sock"},
	{FIELD(user), .type = TYPE_TEXT, .initial = "paddock",
	 .help = "what paddockd becomes when it is started as root"},
	{FIELD(ingress_user), .type = TYPE_TEXT, .initial = "",
	 .help = "whom paddock-ingress runs as: it alone may use ingress.sock; empty: no such socket"},
	{FIELD(listen), .type = TYPE_TEXT, .initial = "127.0.0.1:7411",
	 .help = "TCP address of the API; empty: none; not loopback needs TLS"},
	{FIELD(metrics_listen), .type = TYPE_TEXT, .initial = "127.0.0.1:7412",
	 .help = "loopback address of /metrics; empty: off"},
	{FIELD(tls_certificate), .type = TYPE_TEXT, .initial = "",
	 .help = "PEM chain; set: TCP speaks TLS only; read again when it changes"},
	{FIELD(tls_key), .type = TYPE_TEXT, .initial = "", .help = "PEM key, not open to others"},
	{FIELD(tls_client_ca), .type = TYPE_TEXT, .initial = "",
	 .help = "set: clients must present a certificate of this CA"},
	{FIELD(preview_url), .type = TYPE_TEXT, .initial = "http://localhost:7413",
	 .help = "where browsers reach paddock-ingress; a preview is a host name below this one"},
	{FIELD(reflection), .type = TYPE_BOOL, .initial = "false", .help = "server reflection, for holders of a key"},
	{FIELD(log_level), .type = TYPE_LEVEL, .initial = "info", .help = "error, warn, info or debug"},
	{FIELD(max_streams), .type = TYPE_U32, .initial = "1000", .min = 1, .max = 100000,
	 .help = "concurrent calls of one connection"},
	{FIELD(shutdown_grace_ms), .type = TYPE_DURATION_32, .initial = "5s", .max = 600000,
	 .help = "how long calls may go on after a stop"},

	{FIELD(default_timeout_ms), .type = TYPE_DURATION, .initial = "5m", .min = 1000, .max = DAY,
	 .help = "life of a sandbox when the request says nothing"},
	{FIELD(default_memory_bytes), .type = TYPE_SIZE, .initial = "512M", .min = 16 * MIB, .max = 4 * TIB},
	{FIELD(default_cpu_millis), .type = TYPE_U32, .initial = "1000", .min = 10, .max = 1024000,
	 .help = "1000 = one CPU"},
	{FIELD(default_max_pids), .type = TYPE_U32, .initial = "512", .min = 8, .max = 1 << 22},
	{FIELD(default_disk_bytes), .type = TYPE_SIZE, .initial = "2G", .min = 16 * MIB, .max = 1024 * TIB},
	{FIELD(default_max_inodes), .type = TYPE_SIZE, .initial = "200000", .min = 1000, .max = (uint64_t)1 << 40},
	{FIELD(retention_ms), .type = TYPE_DURATION, .initial = "1h", .max = 365 * DAY,
	 .help = "how long an ended sandbox stays visible"},
	{FIELD(default_template), .type = TYPE_TEXT, .initial = "base"},
	{FIELD(pool_size), .type = TYPE_U32, .initial = "4", .max = 1000,
	 .help = "pre-made sandboxes of the default template"},
	{FIELD(sudo), .type = TYPE_BOOL, .initial = "true", .help = "sudo inside sandboxes"},

	{FIELD(output_head_bytes), .type = TYPE_SIZE, .initial = "256K", .min = 4 * KIB, .max = GIB,
	 .help = "output kept of a process: from its start"},
	{FIELD(output_tail_bytes), .type = TYPE_SIZE, .initial = "1M", .min = 64 * KIB, .max = GIB,
	 .help = "and from its end"},
	{FIELD(output_sandbox_bytes), .type = TYPE_SIZE, .initial = "64M", .min = 2 * MIB, .max = TIB,
	 .help = "output kept of a sandbox: beyond it ended processes are forgotten, the oldest first"},

	{FIELD(max_sandboxes), .type = TYPE_U32, .initial = "4096", .min = 1, .max = 100000, .help = "on this server"},
	{FIELD(memory_reserve_bytes), .type = TYPE_SIZE, .initial = "512M", .max = 4 * TIB,
	 .help = "memory that sandboxes never get"},
	{FIELD(memory_overcommit), .type = TYPE_FACTOR, .initial = "4.0", .min = 1, .max = 1000,
	 .help = "sum of memory limits <= (RAM - reserve) x this"},
	{FIELD(disk_overcommit), .type = TYPE_FACTOR, .initial = "4.0", .min = 1, .max = 1000,
	 .help = "sum of disk limits <= storage pool x this"},
	{FIELD(template_max_bytes), .type = TYPE_SIZE, .initial = "16G", .min = MIB, .max = 1024 * TIB,
	 .help = "unpacked size of a template"},

	{FIELD(quota_max_sandboxes), .type = TYPE_U32, .initial = "1000", .max = 100000,
	 .help = "quotas of tenants that were given none of their own"},
	{FIELD(quota_max_memory_bytes), .type = TYPE_SIZE, .initial = "4G", .max = 4 * TIB, .help = "of one sandbox"},
	{FIELD(quota_total_memory_bytes), .type = TYPE_SIZE, .initial = "0", .max = 1024 * TIB,
	 .help = "of all sandboxes; 0: the server's"},
	{FIELD(quota_max_disk_bytes), .type = TYPE_SIZE, .initial = "16G", .max = 1024 * TIB},
	{FIELD(quota_total_disk_bytes), .type = TYPE_SIZE, .initial = "0", .max = 1024 * TIB},
	{FIELD(quota_creates_per_minute), .type = TYPE_U32, .initial = "60000", .max = 10000000},
	{FIELD(quota_max_templates), .type = TYPE_U32, .initial = "32", .max = 100000},
	{FIELD(quota_max_snapshots), .type = TYPE_U32, .initial = "100", .max = 100000},
};

/* Values */

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {{"", 1}, {"K", KIB}, {"M", MIB}, {"G", GIB}, {"T", TIB}};
static const struct unit duration_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", DAY}, {"", 1}};

static int parse_number(const char *text, const struct unit *units, size_t n_units, uint64_t *ret)
{
	unsigned long long value;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return -errno;
	for (size_t i = 0; i < n_units; i++) {
		if (strcmp(end, units[i].name) == 0)
			return __builtin_mul_overflow(value, units[i].factor, ret) ? -ERANGE : 0;
	}
	return -EINVAL;
}

static int parse_factor(const struct option *option, const char *text, double *ret)
{
	double value;
	char *end;

	/* No signs, exponents, hexadecimal digits, infinities. */
	if (!isdigit((unsigned char)text[0]) || strspn(text, "0123456789.") != strlen(text))
		return -EINVAL;
	value = strtod(text, &end);
	if (*end || !isfinite(value))
		return -EINVAL;
	if (value < (double)option->min || value > (double)option->max)
		return -ERANGE;
	*ret = value;
	return 0;
}

static int parse_text(const struct option *option, const char *text, char *field)
{
	size_t length = strlen(text);

	if (length >= option->size)
		return -ENAMETOOLONG;
	for (size_t i = 0; i < length; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return -EINVAL;
	}
	memcpy(field, text, length + 1);
	return 0;
}

static int parse_integer(const struct option *option, const char *text, void *field)
{
	bool duration = option->type == TYPE_DURATION || option->type == TYPE_DURATION_32;
	uint64_t value;
	int rc;

	if (duration)
		rc = parse_number(text, duration_units, ARRAY_SIZE(duration_units), &value);
	else
		rc = parse_number(text, size_units, option->type == TYPE_U32 ? 1 : ARRAY_SIZE(size_units), &value);
	if (rc < 0)
		return rc;
	if (value < option->min || value > option->max)
		return -ERANGE;
	if (option->size == sizeof(uint32_t))
		*(uint32_t *)field = (uint32_t)value;
	else
		*(uint64_t *)field = value;
	return 0;
}

static int parse_bool(const char *text, bool *ret)
{
	bool yes = strcmp(text, "true") == 0;

	if (!yes && strcmp(text, "false") != 0)
		return -EINVAL;
	*ret = yes;
	return 0;
}

static int parse_value(const struct option *option, const char *text, struct config *config)
{
	void *field = (char *)config + option->offset;

	switch (option->type) {
	case TYPE_TEXT:
		return parse_text(option, text, field);
	case TYPE_LEVEL:
		return log_level_parse(text) < 0 ? -EINVAL : parse_text(option, text, field);
	case TYPE_BOOL:
		return parse_bool(text, field);
	case TYPE_FACTOR:
		return parse_factor(option, text, field);
	case TYPE_U32:
	case TYPE_SIZE:
	case TYPE_DURATION:
	case TYPE_DURATION_32:
		return parse_integer(option, text, field);
	}
	return -EINVAL;
}

static const char *expectation(enum type type)
{
	switch (type) {
	case TYPE_TEXT:
		return "a shorter text without control characters";
	case TYPE_LEVEL:
		return "error, warn, info or debug";
	case TYPE_BOOL:
		return "true or false";
	case TYPE_U32:
		return "a number";
	case TYPE_SIZE:
		return "a size (like 512M)";
	case TYPE_DURATION:
	case TYPE_DURATION_32:
		return "a duration (like 90s)";
	case TYPE_FACTOR:
		return "a factor (like 1.5)";
	}
	return "";
}

static int value_error(const struct option *option, int rc, const char *name, unsigned int line, struct pdk_error *err)
{
	if (rc == -ERANGE)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s:%u: %s: must be %" PRIu64 " to %" PRIu64, name,
				line, option->name, option->min, option->max);
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s:%u: %s: must be %s", name, line, option->name,
			expectation(option->type));
}

/* Lines */

static char *trim(char *text)
{
	char *end;

	text += strspn(text, " \t");
	end = text + strlen(text);
	while (end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
		*--end = '\0';
	return text;
}

static size_t find_option(const char *name)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(options) && strcmp(options[i].name, name) != 0)
		i++;
	return i;
}

struct parser {
	struct config *config;
	const char *name;
	unsigned int line;
	bool seen[ARRAY_SIZE(options)];
};

static int parse_line(struct parser *parser, char *text, struct pdk_error *err)
{
	char *equals, *name;
	size_t i;
	int rc;

	text = trim(text);
	if (!*text || *text == '#')
		return 0;
	equals = strchr(text, '=');
	if (!equals)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s:%u: not of the form name = value", parser->name,
				parser->line);
	*equals = '\0';
	name = trim(text);
	i = find_option(name);
	if (i == ARRAY_SIZE(options))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s:%u: unknown name \"%.64s\"", parser->name,
				parser->line, name);
	if (parser->seen[i])
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s:%u: %s: is set a second time", parser->name,
				parser->line, name);
	parser->seen[i] = true;
	rc = parse_value(&options[i], trim(equals + 1), parser->config);
	return rc < 0 ? value_error(&options[i], rc, parser->name, parser->line, err) : 0;
}

int config_parse(struct config *config, const char *name, const char *text, size_t length, struct pdk_error *err)
{
	_cleanup_free_ char *copy = strndup(text, length);
	struct parser parser = {.config = config, .name = name};
	char *next = copy;

	if (!copy)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "%s: out of memory", name);
	if (strlen(copy) != length)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: has a NUL byte", name);
	while (next) {
		char *line = strsep(&next, "\n");
		int rc;

		parser.line++;
		rc = parse_line(&parser, line, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void config_defaults(struct config *config)
{
	*config = (struct config){};
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (parse_value(&options[i], options[i].initial, config) < 0)
			abort();
	}
}

int config_load(struct config *config, const char *path, struct pdk_error *err)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	_cleanup_free_ char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pdk_fail_errno(err, -errno, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_SIZE_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: not a configuration file", path);
	if (st.st_mode & S_IWOTH)
		return pdk_fail(err, -EPERM, PDK_PERMISSION_DENIED, "%s: everybody can write it", path);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "%s: out of memory", path);
	n = pread(fd, text, (size_t)st.st_size, 0);
	if (n < 0)
		return pdk_fail_errno(err, -errno, "%s", path);
	return config_parse(config, path, text, (size_t)n, err);
}

/* Checks that concern more than one value */

static bool is_loopback(const char *address)
{
	struct in_addr v4;
	char host[16] = "";

	if (strncmp(address, "[::1]:", 6) == 0 || strncmp(address, "localhost:", 10) == 0)
		return true;
	strncat(host, address, strcspn(address, ":") < sizeof(host) ? strcspn(address, ":") : 0);
	return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

static int check_address(const char *name, const char *address, struct pdk_error *err)
{
	const char *colon = strrchr(address, ':');
	char *end;
	unsigned long port;

	if (!*address)
		return 0;
	port = colon && colon > address && isdigit((unsigned char)colon[1]) ? strtoul(colon + 1, &end, 10) : 65536;
	if (port > 65535 || *end)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: must be address:port", name);
	return 0;
}

/* Folders become parts of socket addresses: nothing that means something in one. */
static int check_folder(const char *name, const char *path, struct pdk_error *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-";

	if (path[0] != '/' || strspn(path, allowed) != strlen(path))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				"%s: must be an absolute path of letters, digits and / . _ -", name);
	return 0;
}

static int check_tls(const struct config *config, struct pdk_error *err)
{
	bool certificate = config->tls_certificate[0], key = config->tls_key[0];

	if (certificate != key)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "tls_certificate and tls_key go together");
	if (config->tls_client_ca[0] && !certificate)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "tls_client_ca: needs tls_certificate");
	if (config->listen[0] && !is_loopback(config->listen) && !certificate)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				"listen: not loopback, which needs tls_certificate");
	return 0;
}

/* "http://localhost:7413": a scheme, a host in lower case, perhaps a port, and nothing behind it. */
static int check_preview_url(const char *url, struct pdk_error *err)
{
	size_t scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
	const char *host = url + scheme;
	size_t length = strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789-.");
	const char *port = host[length] == ':' ? host + length + 1 : "";
	size_t digits = strspn(port, "0123456789");

	if (!scheme || !length || length > 180 || host[0] == '.' || host[0] == '-' ||
	    (host[length] && (!digits || digits > 5 || port[digits])))
		return pdk_fail(
			err, -EINVAL, PDK_INVALID_ARGUMENT,
			"preview_url: must be http:// or https://, a host name in lower case and perhaps :port");
	return 0;
}

int config_check(const struct config *config, struct pdk_error *err)
{
	int rc = check_folder("data_dir", config->data_dir, err);

	if (rc >= 0)
		rc = check_folder("runtime_dir", config->runtime_dir, err);
	if (rc >= 0)
		rc = check_address("listen", config->listen, err);
	if (rc >= 0)
		rc = check_address("metrics_listen", config->metrics_listen, err);
	if (rc >= 0)
		rc = check_tls(config, err);
	if (rc >= 0)
		rc = check_preview_url(config->preview_url, err);
	if (rc < 0)
		return rc;
	if (config->metrics_listen[0] && !is_loopback(config->metrics_listen))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "metrics_listen: must be loopback");
	if (!config->default_template[0] || !config->user[0])
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "default_template and user must not be empty");
	return 0;
}

/* Print in the form that is parsed */

static void format_number(const struct unit *units, size_t n_units, uint64_t value, char *out, size_t size)
{
	const struct unit *best = &units[0];

	for (size_t i = 0; i < n_units; i++) {
		if (value && value % units[i].factor == 0 && units[i].factor > best->factor)
			best = &units[i];
	}
	snprintf(out, size, "%" PRIu64 "%s", value / best->factor, best->name);
}

static void format_value(const struct option *option, const struct config *config, char *out, size_t size)
{
	const void *field = (const char *)config + option->offset;
	uint64_t number = option->size == sizeof(uint32_t)   ? *(const uint32_t *)field
			  : option->size == sizeof(uint64_t) ? *(const uint64_t *)field
							     : 0;

	switch (option->type) {
	case TYPE_TEXT:
	case TYPE_LEVEL:
		snprintf(out, size, "%s", (const char *)field);
		break;
	case TYPE_BOOL:
		snprintf(out, size, "%s", *(const bool *)field ? "true" : "false");
		break;
	case TYPE_FACTOR:
		snprintf(out, size, "%.17g", *(const double *)field);
		break;
	case TYPE_U32:
		snprintf(out, size, "%" PRIu64, number);
		break;
	case TYPE_SIZE:
		format_number(size_units, ARRAY_SIZE(size_units), number, out, size);
		break;
	case TYPE_DURATION:
	case TYPE_DURATION_32:
		format_number(duration_units, ARRAY_SIZE(duration_units), number, out, size);
		break;
	}
}

void config_print(const struct config *config)
{
	struct config initial;
	char value[CONFIG_PATH_MAX], before[CONFIG_PATH_MAX];

	config_defaults(&initial);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		format_value(&options[i], config, value, sizeof(value));
		format_value(&options[i], &initial, before, sizeof(before));
		if (options[i].help)
			printf("# %s\n", options[i].help);
		if (strcmp(value, before) == 0)
			printf("# default\n");
		else
			printf("# default: %s\n", *before ? before : "(empty)");
		printf("%s = %s\n", options[i].name, value);
	}
}
