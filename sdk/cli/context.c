#include "cli.h"

#include "format.h"
#include "hint.h"
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

void cli_print_error(const struct cli *cli, const struct pdk_error *err)
{
	char text[HINT_SIZE];
	const char *hint = *cli->hint ? cli->hint : error_hint(err, text);

	fflush(stdout);
	fputs("paddock: ", stderr);
	text_print(stderr, *err->text ? err->text : "it failed");
	fputs("\n", stderr);
	if (hint)
		fprintf(stderr, "  %s\n", hint);
}
