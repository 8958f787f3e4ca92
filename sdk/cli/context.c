#include "cli.h"

#include "format.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_connect(struct cli *cli)
{
	if (cli->client)
		return 0;
	cli->client = paddock_connect(cli->address, NULL, &cli->err);
	if (cli->client)
		return 0;
	return cli->err.code == PDK_INVALID_ARGUMENT ? -EINVAL : -ECONNREFUSED;
}

int cli_usage(struct cli *cli, const char *fmt, ...)
{
	char text[PDK_ERROR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return pdk_fail(&cli->err, -EDOM, PDK_INVALID_ARGUMENT, "%s", text);
}

/* What helps most people who see this error. */
static const char *error_hint(const struct pdk_error *err)
{
	switch ((int)err->code) {
	case PDK_UNAVAILABLE:
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
		return "`paddock list` shows what is running; `paddock kill ID` makes room";
	case PDK_PERMISSION_DENIED:
		return strstr(err->text, "scope") || strstr(err->text, "operator")
			       ? "use a key with that scope, or run it as root on the server's machine"
			       : NULL;
	default:
		return NULL;
	}
}

void cli_print_error(const struct cli *cli, const struct pdk_error *err)
{
	const char *hint = *cli->hint ? cli->hint : error_hint(err);

	fflush(stdout);
	fputs("paddock: ", stderr);
	text_print(stderr, *err->text ? err->text : "it failed");
	fputs("\n", stderr);
	if (hint)
		fprintf(stderr, "  %s\n", hint);
}
