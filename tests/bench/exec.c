#include <stdio.h>
#include <unistd.h>

#include "floor.h"
#include "measure.h"
#include "sandbox/base/cleanup.h"

/* What a call costs; the one before them finds the processors as a spawned program has left them. */
#define CALLS_IN_A_ROW 8

static void one_get(struct paddock_client *client, const char *id, struct sample *sample)
{
	Paddock__V1__GetSandboxRequest get = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	uint64_t start = bench_now_ns();

	get.sandbox_id = (char *)id;
	if (paddock_sandbox_get(client, &get, &sandbox, NULL) == 0)
		sample_add(sample, bench_now_ns() - start);
	paddock_free(sandbox);
}

/* Three lines from one loop: exec next to a host spawn, next to `crun exec` where there is one, and a unary call. */
void bench_commands(struct paddock_client *client, const struct bench_options *options)
{
	char *const crun[] = {(char *)"crun", (char *)"exec", (char *)options->running, (char *)"/bin/true", NULL};
	_cleanup_free_ char *id = bench_create(client);
	struct sample ours = {0}, host = {0}, peer = {0}, lone = {0}, rpc = {0};
	bool peer_works = options->running != NULL;

	for (int i = 0; i < options->rounds; i++) {
		uint64_t start = bench_now_ns();

		bench_true(client, id);
		sample_add(&ours, bench_now_ns() - start);
		usleep(1000);
		floor_spawn(&host, bench_true_argv);
		one_get(client, id, &lone);
		for (int j = 0; j < CALLS_IN_A_ROW; j++)
			one_get(client, id, &rpc);
		if (peer_works)
			peer_works = floor_spawn(&peer, crun) == 0;
	}
	bench_row("exec in a running sandbox, p50 vs host spawn", sample_quantile_ms(&ours, 0.5),
		  sample_quantile_ms(&host, 0.5), "ms", "<= 1.5");
	if (peer_works)
		bench_row("crun exec vs exec in a running sandbox", sample_quantile_ms(&peer, 0.5),
			  sample_quantile_ms(&ours, 0.5), "ms", ">= 6");
	else
		printf("| crun exec vs exec in a running sandbox | | not measured: it failed here | | >= 6 |\n");
	bench_row("one unary call (get) after another program, p50 vs 0.150 ms", sample_quantile_ms(&lone, 0.5), 0.150,
		  "ms", "");
	bench_row("unary calls (get) in a row, p50 vs 0.150 ms", sample_quantile_ms(&rpc, 0.5), 0.150, "ms", "<= 1");
	sample_free(&ours);
	sample_free(&host);
	sample_free(&peer);
	sample_free(&lone);
	sample_free(&rpc);
	bench_kill(client, id);
}
