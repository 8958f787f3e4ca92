#include "sandbox.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {"?",      "creating", "running", "killing", "killed",
					  "failed", "pausing",  "paused",  "resuming"};
static const char *const reason_names[] = {"-", "killed", "timeout", "create failed", "init died", "host lost", "idle"};

static const char *state_name(Paddock__V1__SandboxState state)
{
	return (unsigned int)state < ARRAY_SIZE(state_names) ? state_names[state] : "?";
}

int resources_from_args(struct cli *cli, const struct args *args, Paddock__V1__Resources *resources)
{
	uint64_t pids = 0, cpu = 0;
	const char *text = args_value(args, "cpu");
	char *end;
	int rc;

	rc = args_size(cli, args, "memory", &resources->memory_bytes);
	if (rc == 0)
		rc = args_size(cli, args, "disk", &resources->disk_bytes);
	if (rc == 0)
		rc = args_number(cli, args, "pids", 32768, &pids);
	if (rc == 0)
		rc = args_number(cli, args, "inodes", UINT32_MAX, &resources->max_inodes);
	if (rc == 0 && text) {
		double cores = strtod(text, &end);

		if (end == text || *end || !(cores > 0 && cores <= 4096))
			return cli_usage(cli, "--cpu: '%s' is not a number of cores; write 0.5 or 2", text);
		cpu = (uint64_t)(cores * 1000 + 0.5);
	}
	resources->max_pids = (uint32_t)pids;
	resources->cpu_millis = (uint32_t)cpu;
	return rc;
}

/* The request points into the pair lists. Map entries differ in type only by name, but C wants each. */
static int send_create(struct cli *cli, Paddock__V1__CreateSandboxRequest *request, const struct pair_list *env,
		       const struct pair_list *labels, Paddock__V1__Sandbox **ret_sandbox)
{
	Paddock__V1__CreateSandboxRequest__EnvEntry env_entries[PAIRS_MAX], *env_list[PAIRS_MAX];
	Paddock__V1__CreateSandboxRequest__MetadataEntry label_entries[PAIRS_MAX], *label_list[PAIRS_MAX];
	size_t i;

	for (i = 0; i < env->count; i++) {
		paddock__v1__create_sandbox_request__env_entry__init(&env_entries[i]);
		env_entries[i].key = env->names[i];
		env_entries[i].value = env->values[i];
		env_list[i] = &env_entries[i];
	}
	for (i = 0; i < labels->count; i++) {
		paddock__v1__create_sandbox_request__metadata_entry__init(&label_entries[i]);
		label_entries[i].key = labels->names[i];
		label_entries[i].value = labels->values[i];
		label_list[i] = &label_entries[i];
	}
	request->env = env_list;
	request->n_env = env->count;
	request->metadata = label_list;
	request->n_metadata = labels->count;
	return paddock_sandbox_create(cli->client, request, ret_sandbox, &cli->err);
}

static int read_on_timeout(struct cli *cli, const struct args *args, Paddock__V1__CreateSandboxRequest *request)
{
	const char *action = args_value(args, "on-timeout");

	request->auto_resume = args_has(args, "auto-resume");
	if (!action)
		return 0;
	if (strcmp(action, "pause") == 0)
		request->on_timeout = PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_PAUSE;
	else if (strcmp(action, "kill") == 0)
		request->on_timeout = PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_KILL;
	else
		return cli_usage(cli, "--on-timeout: kill or pause, not '%s'", action);
	return 0;
}

int sandbox_create_from_args(struct cli *cli, const struct args *args, Paddock__V1__Sandbox **ret_sandbox)
{
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;
	const char *template = args_value(args, "template"), *hostname = args_value(args, "hostname");
	const char *idempotency = args_value(args, "idempotency-key"), *snapshot = args_value(args, "snapshot");
	struct pair_list env = {.count = 0}, labels = {.count = 0};
	int rc = resources_from_args(cli, args, &resources);

	request.template_ = (char *)(template ? template : "");
	request.snapshot = (char *)(snapshot ? snapshot : "");
	request.hostname = (char *)(hostname ? hostname : "");
	request.idempotency_key = (char *)(idempotency ? idempotency : "");
	request.resources = &resources;
	if (rc == 0)
		rc = args_duration(cli, args, "lifetime", &request.timeout_ms);
	if (rc == 0)
		rc = args_duration(cli, args, "idle-timeout", &request.idle_timeout_ms);
	if (rc == 0)
		rc = read_on_timeout(cli, args, &request);
	if (rc == 0)
		rc = pairs_parse(cli, args, "env", true, &env);
	if (rc == 0)
		rc = pairs_parse(cli, args, "label", false, &labels);
	if (rc == 0)
		rc = cli_connect(cli);
	if (rc == 0)
		rc = send_create(cli, &request, &env, &labels, ret_sandbox);
	pairs_clear(&env);
	pairs_clear(&labels);
	return rc;
}

int cmd_create(struct cli *cli, const struct args *args)
{
	Paddock__V1__Sandbox *sandbox = NULL;
	int rc = sandbox_create_from_args(cli, args, &sandbox);

	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(sandbox, false);
	else
		puts(sandbox->id);
	paddock_free(sandbox);
	return EXIT_OK;
}

static void list_row(struct table *table, const Paddock__V1__Sandbox *sandbox, bool tenants)
{
	char created[FORMAT_SIZE], expires[FORMAT_SIZE], memory[FORMAT_SIZE];
	bool living = sandbox->ended_unix_ms == 0;

	table_add(table, sandbox->id);
	table_add(table, state_name(sandbox->state));
	table_add(table, *sandbox->template_name ? sandbox->template_name : sandbox->template_);
	table_add(table, format_size(memory, sandbox->resources ? sandbox->resources->memory_bytes : 0));
	table_add(table, format_age(created, sandbox->created_unix_ms));
	table_add(table, living ? format_age(expires, sandbox->expires_unix_ms) : "-");
	if (tenants)
		table_add(table, sandbox->tenant);
}

static int list_states(struct cli *cli, const struct args *args, Paddock__V1__ListSandboxesRequest *request,
		       Paddock__V1__SandboxState states[8])
{
	const char *text;
	int index = 0;
	unsigned int i;

	if (args_has(args, "all")) {
		for (i = 1; i < ARRAY_SIZE(state_names); i++)
			states[request->n_states++] = i;
		return 0;
	}
	while ((text = args_next(args, "state", &index))) {
		for (i = 1; i < ARRAY_SIZE(state_names) && strcmp(state_names[i], text) != 0; i++)
			;
		if (i == ARRAY_SIZE(state_names) || request->n_states == 8)
			return cli_usage(cli,
					 "--state: creating, running, pausing, paused, resuming, killing, killed or "
					 "failed, not '%s'",
					 text);
		states[request->n_states++] = i;
	}
	return 0;
}

struct listing {
	struct table *table;
	json_t *array;
	bool quiet;
	bool tenants;
};

static int list_pages(struct cli *cli, Paddock__V1__ListSandboxesRequest *request, struct listing *listing)
{
	Paddock__V1__ListSandboxesResponse *page = NULL;
	_cleanup_free_ char *token = NULL;
	size_t i;
	int rc;

	do {
		request->page_token = token ? token : (char *)"";
		rc = paddock_sandbox_list(cli->client, request, &page, &cli->err);
		if (rc < 0)
			return rc;
		for (i = 0; i < page->n_sandboxes; i++) {
			if (listing->array)
				json_array_append_new(listing->array, json_of_message(&page->sandboxes[i]->base));
			else if (listing->quiet)
				puts(page->sandboxes[i]->id);
			else
				list_row(listing->table, page->sandboxes[i], listing->tenants);
		}
		free(token);
		token = strdup(page->next_page_token);
		paddock_free(page);
	} while (token && *token);
	return 0;
}

static int list_with_labels(struct cli *cli, Paddock__V1__ListSandboxesRequest *request, const struct pair_list *labels,
			    struct listing *listing)
{
	Paddock__V1__ListSandboxesRequest__MetadataEntry entries[PAIRS_MAX], *list[PAIRS_MAX];
	size_t i;

	for (i = 0; i < labels->count; i++) {
		paddock__v1__list_sandboxes_request__metadata_entry__init(&entries[i]);
		entries[i].key = labels->names[i];
		entries[i].value = labels->values[i];
		list[i] = &entries[i];
	}
	request->metadata = list;
	request->n_metadata = labels->count;
	return list_pages(cli, request, listing);
}

int cmd_list(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {"ID", "STATE", "TEMPLATE", ">MEMORY", "CREATED", "ENDS", NULL};
	static const char *const tenant_heads[] = {"ID",      "STATE", "TEMPLATE", ">MEMORY",
						   "CREATED", "ENDS",  "TENANT",   NULL};
	Paddock__V1__ListSandboxesRequest request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__SandboxState states[8];
	struct listing listing = {.quiet = args_has(args, "quiet"), .tenants = args_has(args, "all-tenants")};
	struct pair_list labels = {.count = 0};
	const char *template = args_value(args, "template");
	int rc = list_states(cli, args, &request, states);

	request.states = states;
	request.page_size = 1000;
	request.template_ = (char *)(template ? template : "");
	request.all_tenants = listing.tenants;
	if (rc == 0)
		rc = pairs_parse(cli, args, "label", false, &labels);
	if (rc == 0)
		rc = cli_connect(cli);
	if (rc == 0) {
		listing.array = cli->json ? json_array() : NULL;
		listing.table = table_create(listing.tenants ? tenant_heads : heads, cli->color);
		rc = list_with_labels(cli, &request, &labels, &listing);
		if (rc == 0 && listing.array)
			json_print(listing.array, false);
		if (rc == 0 && !listing.array && !listing.quiet)
			table_print(listing.table);
	}
	pairs_clear(&labels);
	return rc;
}

static void print_resources(const struct cli *cli, const Paddock__V1__Resources *resources)
{
	char memory[FORMAT_SIZE], disk[FORMAT_SIZE], text[256];

	snprintf(text, sizeof(text), "%s memory, %.2f cores, %u processes, %s disk, %llu files",
		 format_size(memory, resources->memory_bytes), resources->cpu_millis / 1000.0, resources->max_pids,
		 format_size(disk, resources->disk_bytes), (unsigned long long)resources->max_inodes);
	field_print(cli->color, "Limits", text);
}

static void print_sandbox(const struct cli *cli, const Paddock__V1__Sandbox *sandbox)
{
	char time[FORMAT_SIZE], age[FORMAT_SIZE], text[1200];
	size_t i;

	field_print(cli->color, "Sandbox", sandbox->id);
	field_print(cli->color, "State", state_name(sandbox->state));
	if (sandbox->reset_unix_ms) {
		snprintf(text, sizeof(text), "%s (%s)", format_time(time, sandbox->reset_unix_ms),
			 format_age(age, sandbox->reset_unix_ms));
		field_print(cli->color, "Reset", text);
	}
	if (sandbox->paused_unix_ms) {
		snprintf(text, sizeof(text), "%s (%s)", format_time(time, sandbox->paused_unix_ms),
			 format_age(age, sandbox->paused_unix_ms));
		field_print(cli->color, "Paused", text);
	}
	if (sandbox->checkpoint_bytes) {
		snprintf(text, sizeof(text), "%s, which take %s", format_size(time, sandbox->checkpoint_bytes),
			 sandbox->stored_bytes ? format_size(age, sandbox->stored_bytes) : "an unknown part of that");
		field_print(cli->color, "On disk", text);
	}
	snprintf(text, sizeof(text), "%.64s (%.64s)", sandbox->template_name, sandbox->template_);
	field_print(cli->color, "Template", text);
	field_print(cli->color, "Tenant", sandbox->tenant);
	field_print(cli->color, "Hostname", sandbox->hostname);
	snprintf(text, sizeof(text), "%s (%s)", format_time(time, sandbox->created_unix_ms),
		 format_age(age, sandbox->created_unix_ms));
	field_print(cli->color, "Created", text);
	if (sandbox->ended_unix_ms) {
		snprintf(text, sizeof(text), "%s (%s): %.800s", format_time(time, sandbox->ended_unix_ms),
			 (unsigned int)sandbox->end_reason < ARRAY_SIZE(reason_names)
				 ? reason_names[sandbox->end_reason]
				 : "?",
			 sandbox->end_text);
		field_print(cli->color, "Ended", text);
	} else {
		snprintf(text, sizeof(text), "%s (%s)", format_time(time, sandbox->expires_unix_ms),
			 format_age(age, sandbox->expires_unix_ms));
		field_print(cli->color, "Ends", text);
	}
	if (sandbox->idle_timeout_ms) {
		snprintf(text, sizeof(text), "%.6g s", (double)sandbox->idle_timeout_ms / 1000);
		field_print(cli->color, "Idle for", text);
	}
	if (sandbox->resources)
		print_resources(cli, sandbox->resources);
	for (i = 0; i < sandbox->n_metadata; i++) {
		snprintf(text, sizeof(text), "%s=%s", sandbox->metadata[i]->key, sandbox->metadata[i]->value);
		field_print(cli->color, "Label", text);
	}
}

static int show_sandbox(struct cli *cli, int rc, Paddock__V1__Sandbox *sandbox)
{
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(sandbox, false);
	else
		print_sandbox(cli, sandbox);
	paddock_free(sandbox);
	return EXIT_OK;
}

int cmd_info(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetSandboxRequest request = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	_cleanup_free_ char *id = NULL;
	int rc = cli_sandbox(cli, args->argv[0], &id);

	request.sandbox_id = id;
	if (rc == 0)
		rc = paddock_sandbox_get(cli->client, &request, &sandbox, &cli->err);
	return show_sandbox(cli, rc, sandbox);
}

static int kill_one(struct cli *cli, const char *name, json_t *array)
{
	Paddock__V1__KillSandboxRequest request = PADDOCK__V1__KILL_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	_cleanup_free_ char *id = NULL;
	int rc = cli_sandbox(cli, name, &id);

	request.sandbox_id = id;
	if (rc == 0)
		rc = paddock_sandbox_kill(cli->client, &request, &sandbox, &cli->err);
	if (rc < 0)
		return pdk_wrap(&cli->err, rc, "%s", name);
	if (array)
		json_array_append_new(array, json_of_message(&sandbox->base));
	else
		puts(sandbox->id);
	paddock_free(sandbox);
	return 0;
}

static int kill_all(struct cli *cli, json_t *array)
{
	Paddock__V1__ListSandboxesRequest request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__ListSandboxesResponse *page = NULL;
	Paddock__V1__SandboxState states[] = {
		PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING, PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSING,
		PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED, PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RESUMING};
	size_t i, n = 1;
	int rc = cli_connect(cli);

	request.states = states;
	request.n_states = ARRAY_SIZE(states);
	request.page_size = 1000;
	/* Always the first page: what it showed is gone when it is asked for again. */
	while (rc == 0 && n > 0) {
		rc = paddock_sandbox_list(cli->client, &request, &page, &cli->err);
		if (rc < 0)
			break;
		n = page->n_sandboxes;
		for (i = 0; i < n && rc == 0; i++)
			rc = kill_one(cli, page->sandboxes[i]->id, array);
		paddock_free(page);
	}
	return rc;
}

int cmd_kill(struct cli *cli, const struct args *args)
{
	json_t *array = cli->json ? json_array() : NULL;
	int i, rc = 0, first = 0;

	if (args_has(args, "all") == (args->argc > 0))
		return cli_usage(cli, "kill: name sandboxes, or --all");
	if (args_has(args, "all"))
		first = kill_all(cli, array);
	/* Go on after a failure, and tell of each but the last at once; the last is told by the caller. */
	for (i = 0; i < args->argc; i++) {
		rc = kill_one(cli, args->argv[i], array);
		if (rc < 0 && i + 1 < args->argc)
			cli_print_error(cli, &cli->err);
		first = first < 0 ? first : rc;
	}
	if (array)
		json_print(array, false);
	return rc < 0 ? rc : first < 0 && args->argc ? EXIT_ERROR : first;
}

static int set_idle_timeout(struct cli *cli, const char *sandbox_id, uint64_t idle_timeout_ms)
{
	Paddock__V1__SetIdleTimeoutRequest request = PADDOCK__V1__SET_IDLE_TIMEOUT_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	int rc;

	request.sandbox_id = (char *)(uintptr_t)sandbox_id;
	request.idle_timeout_ms = idle_timeout_ms;
	rc = paddock_sandbox_set_idle_timeout(cli->client, &request, &sandbox, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(sandbox, false);
	else if (sandbox->idle_timeout_ms)
		printf("%s may be idle for %.6g s\n", sandbox->id, (double)sandbox->idle_timeout_ms / 1000);
	else
		printf("%s may be idle for ever\n", sandbox->id);
	paddock_free(sandbox);
	return EXIT_OK;
}

int cmd_timeout(struct cli *cli, const struct args *args)
{
	Paddock__V1__SetTimeoutRequest request = PADDOCK__V1__SET_TIMEOUT_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	_cleanup_free_ char *id = NULL;
	char text[FORMAT_SIZE], age[FORMAT_SIZE];
	int rc;

	if (parse_duration(args->argv[1], &request.timeout_ms) < 0)
		return cli_usage(cli, "timeout: '%s' is not a duration; write 30s, 5m or 1h30m", args->argv[1]);
	rc = cli_sandbox(cli, args->argv[0], &id);
	request.sandbox_id = id;
	if (rc == 0 && args_has(args, "idle"))
		return set_idle_timeout(cli, id, request.timeout_ms);
	if (rc == 0)
		rc = paddock_sandbox_set_timeout(cli->client, &request, &sandbox, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(sandbox, false);
	else
		printf("%s ends %s (%s)\n", sandbox->id, format_age(age, sandbox->expires_unix_ms),
		       format_time(text, sandbox->expires_unix_ms));
	paddock_free(sandbox);
	return EXIT_OK;
}

static void print_usage(const struct cli *cli, const Paddock__V1__SandboxUsage *usage)
{
	char size[FORMAT_SIZE], peak[FORMAT_SIZE], text[192];

	snprintf(text, sizeof(text), "%s (peak %s)", format_size(size, usage->memory_bytes),
		 format_size(peak, usage->memory_peak_bytes));
	field_print(cli->color, "Memory", text);
	snprintf(text, sizeof(text), "%.2f s", (double)usage->cpu_usec / 1e6);
	field_print(cli->color, "CPU time", text);
	snprintf(text, sizeof(text), "%u", usage->pids);
	field_print(cli->color, "Processes", text);
	snprintf(text, sizeof(text), "%s in %llu files", format_size(size, usage->disk_bytes),
		 (unsigned long long)usage->inodes);
	field_print(cli->color, "Disk", text);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)usage->oom_kills);
	field_print(cli->color, "OOM kills", text);
}

int cmd_usage(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetUsageRequest request = PADDOCK__V1__GET_USAGE_REQUEST__INIT;
	Paddock__V1__SandboxUsage *usage = NULL;
	_cleanup_free_ char *id = NULL;
	int rc = cli_sandbox(cli, args->argv[0], &id);

	request.sandbox_id = id;
	if (rc == 0)
		rc = paddock_sandbox_usage(cli->client, &request, &usage, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(usage, false);
	else
		print_usage(cli, usage);
	paddock_free(usage);
	return EXIT_OK;
}

static void print_share(const struct cli *cli, const char *name, uint64_t used, uint64_t limit, bool is_size)
{
	char size[FORMAT_SIZE], most[FORMAT_SIZE], text[192];

	if (is_size)
		snprintf(text, sizeof(text), "%s of %s", format_size(size, used),
			 limit ? format_size(most, limit) : "what the box has");
	else
		snprintf(text, sizeof(text), "%llu of %llu", (unsigned long long)used, (unsigned long long)limit);
	field_print(cli->color, name, text);
}

int cmd_quota(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetQuotaRequest request = PADDOCK__V1__GET_QUOTA_REQUEST__INIT;
	Paddock__V1__TenantUsage *usage = NULL;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_sandbox_quota(cli->client, &request, &usage, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_print_message(usage, false);
	} else if (usage->quota) {
		print_share(cli, "Sandboxes", usage->sandboxes, usage->quota->max_sandboxes, false);
		print_share(cli, "Memory", usage->memory_bytes, usage->quota->total_memory_bytes, true);
		print_share(cli, "Disk", usage->disk_bytes, usage->quota->total_disk_bytes, true);
		print_share(cli, "Snapshots", usage->snapshots, usage->quota->max_snapshots, false);
	}
	paddock_free(usage);
	return EXIT_OK;
}

int cmd_access(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetAccessRequest request = PADDOCK__V1__GET_ACCESS_REQUEST__INIT;
	Paddock__V1__SandboxAccess *access = NULL;
	_cleanup_free_ char *id = NULL;
	int rc = cli_sandbox(cli, args->argv[0], &id);

	request.sandbox_id = id;
	if (rc == 0)
		rc = paddock_sandbox_access(cli->client, &request, &access, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(access, false);
	else
		puts(access->access_token);
	explicit_bzero(access->access_token, strlen(access->access_token));
	paddock_free(access);
	return EXIT_OK;
}

static void print_event(const struct cli *cli, const Paddock__V1__SandboxEvent *event)
{
	static const char *const types[] = {
		"?",
		"created",
		"timeout set",
		"ended",
		"paused",
		"resumed",
		[PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_RESET] = "reset",
	};
	const char *type = (unsigned int)event->type < ARRAY_SIZE(types) ? types[event->type] : NULL;
	char time[FORMAT_SIZE];

	if (cli->json) {
		json_print_message(event, true);
		return;
	}
	printf("%s  %-11s  %s", format_time(time, event->time_unix_ms), type ? type : "?",
	       event->sandbox ? event->sandbox->id : "-");
	if (event->sandbox && *event->sandbox->end_text) {
		fputs("  ", stdout);
		text_print(stdout, event->sandbox->end_text);
	}
	putchar('\n');
	fflush(stdout);
}

int cmd_events(struct cli *cli, const struct args *args)
{
	Paddock__V1__WatchEventsRequest request = PADDOCK__V1__WATCH_EVENTS_REQUEST__INIT;
	Paddock__V1__SandboxEvent *event = NULL;
	struct paddock_stream *stream;
	_cleanup_free_ char *id = NULL;
	int rc = args_number(cli, args, "after", UINT64_MAX, &request.after_sequence);

	if (rc == 0)
		rc = args->argc ? cli_sandbox(cli, args->argv[0], &id) : cli_connect(cli);
	if (rc < 0)
		return rc;
	request.sandbox_id = id ? id : (char *)"";
	stream = paddock_sandbox_events(cli->client, &request, &cli->err);
	if (!stream)
		return -EIO;
	while ((rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &cli->err)) > 0) {
		print_event(cli, event);
		paddock_free(event);
	}
	paddock_stream_free(stream);
	return rc;
}
