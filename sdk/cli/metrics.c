#include "format.h"
#include "json.h"
#include "sandbox.h"
#include "table.h"

#include <stdio.h>

/* `paddock metrics`. */

static void print_samples(const struct cli *cli, const Paddock__V1__GetMetricsResponse *metrics)
{
	static const char *const heads[] = {"TIME", ">CPU", ">MEMORY", ">CACHE", ">DISK", NULL};
	struct table *table = table_create(heads, cli->color);

	for (size_t i = 0; i < metrics->n_samples; i++) {
		const Paddock__V1__SandboxSample *sample = metrics->samples[i];
		char text[FORMAT_SIZE];

		table_add(table, format_time(text, sample->time_unix_ms));
		table_addf(table, "%.1f%%", sample->cpu_percent);
		table_add(table, format_size(text, sample->memory_bytes));
		table_add(table, format_size(text, sample->cache_bytes));
		table_add(table, format_size(text, sample->disk_bytes));
	}
	table_print(table);
}

int cmd_metrics(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetMetricsRequest request = PADDOCK__V1__GET_METRICS_REQUEST__INIT;
	Paddock__V1__GetMetricsResponse *metrics = NULL;
	_cleanup_free_ char *id = NULL;
	int64_t now = now_unix_ms();
	uint64_t since_ms = 0;
	int rc = args_duration(cli, args, "since", &since_ms);

	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	if (rc < 0)
		return rc;
	request.sandbox_id = id;
	if (since_ms && since_ms < (uint64_t)now)
		request.start_unix_ms = now - (int64_t)since_ms;
	rc = paddock_sandbox_metrics(cli->client, &request, &metrics, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(metrics, false);
	else
		print_samples(cli, metrics);
	paddock_free(metrics);
	return EXIT_OK;
}
