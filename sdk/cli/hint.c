#include "hint.h"

#include "format.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The server names the field of the request; who typed a command line knows the option. */
static const struct {
	const char *field, *option;
	enum { PLAIN, BYTES, MILLISECONDS, CORES } unit;
} fields[] = {
	{"resources.memory_bytes", "--memory", BYTES}, {"resources.disk_bytes", "--disk", BYTES},
	{"resources.cpu_millis", "--cpu", CORES},      {"resources.max_pids", "--pids", PLAIN},
	{"resources.max_inodes", "--inodes", PLAIN},   {"lifetime_ms", "--lifetime", MILLISECONDS},
	{"timeout_ms", "the duration", MILLISECONDS},  {"grace_ms", "--grace", MILLISECONDS},
};

static const char *in_unit(char out[FORMAT_SIZE], int unit, uint64_t value)
{
	if (unit == BYTES)
		return format_size(out, value);
	if (unit == MILLISECONDS)
		return format_duration(out, value);
	if (unit == CORES)
		snprintf(out, FORMAT_SIZE, "%g", (double)value / 1000);
	else
		snprintf(out, FORMAT_SIZE, "%llu", (unsigned long long)value);
	return out;
}

static const char *field_hint(const char *text, char buffer[HINT_SIZE])
{
	unsigned long long least, most;
	char field[64], a[FORMAT_SIZE], b[FORMAT_SIZE];
	size_t i;

	if (sscanf(text, "%63[^:]: must be %llu to %llu", field, &least, &most) != 3)
		return NULL;
	for (i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		if (strcmp(fields[i].field, field) != 0)
			continue;
		snprintf(buffer, HINT_SIZE, "%s takes %s to %s", fields[i].option, in_unit(a, fields[i].unit, least),
			 in_unit(b, fields[i].unit, most));
		return buffer;
	}
	return NULL;
}

const char *error_hint(const struct pdk_error *err, char buffer[HINT_SIZE])
{
	switch ((int)err->code) {
	case PDK_INVALID_ARGUMENT:
		return field_hint(err->text, buffer);
	case PDK_UNAVAILABLE:
		if (strstr(err->text, "sandbox has ended"))
			return "`paddock info SANDBOX` shows why";
		return "start the server with `systemctl start paddockd`, or name another in PADDOCK_ADDR; "
		       "`paddock doctor` checks this machine";
	case PDK_UNAUTHENTICATED:
		return "set PADDOCK_API_KEY; on the server's machine `sudo paddock key create` makes a key";
	case PDK_NOT_FOUND:
		if (strstr(err->text, "sandbox"))
			return "`paddock list` shows your sandboxes, `paddock list --all` also those that ended";
		if (strstr(err->text, "template"))
			return "`paddock template list` shows what there is, `sudo paddock template build base` makes "
			       "one";
		if (strstr(err->text, "process"))
			return "`paddock ps -a SANDBOX` shows its processes";
		return NULL;
	case PDK_RESOURCE_EXHAUSTED:
		/* A file system that is full, here or in the sandbox: no other sandbox's end makes room there. */
		if (strstr(err->text, strerror(ENOSPC)) || strstr(err->text, strerror(EDQUOT)))
			return NULL;
		return "`paddock list` shows what is running; `paddock kill ID` makes room";
	case PDK_PERMISSION_DENIED:
		return strstr(err->text, "scope") || strstr(err->text, "operator")
			       ? "use a key with that scope, or run it as root on the server's machine"
			       : NULL;
	default:
		return NULL;
	}
}
