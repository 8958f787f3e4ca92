#include "log.h"
#include "ration.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "usage_history.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Samples of what running sandboxes use: each has a timer, which asks the warden every SAMPLE_NS, or less often, so that all
 * together are at most SAMPLES_PER_SECOND questions. GetMetrics tells what is kept; if the last sample is old, it asks for
 * one of now, which is told but not kept, so whoever asks often pushes nothing out.
 */

#define SAMPLE_NS (5 * 1000000000ull)
#define FIRST_NS 1000000000ull
#define SAMPLES_PER_SECOND 100
#define FRESH_NS 1000000000ull
#define LIST_MAX 100
#define MS 1000000ull
#define RUNNING PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING

static struct ration rationed;
static uint32_t sampled; /* sandboxes whose timer runs */

static bool can_sample(const struct sandbox *sandbox)
{
	return sandbox->state == RUNNING && sandbox->guest && !sandbox->private->adopting;
}

/* When it was created, on the clock of loop_now_ns(), which may have begun later. */
static uint64_t created_ns(const struct sandbox *sandbox)
{
	int64_t age_ms = loop_wall_ms() - sandbox->created_unix_ms;
	uint64_t now = loop_now_ns(), age_ns = age_ms > 0 ? (uint64_t)age_ms * MS : 0;

	return now > age_ns ? now - age_ns : 0;
}

static struct usage_history *history_of(struct sandbox *sandbox)
{
	if (!sandbox->private->history)
		sandbox->private->history = usage_history_create(created_ns(sandbox));
	return sandbox->private->history;
}

static struct usage_reading reading_of(const struct warden_reply *reply)
{
	return (struct usage_reading){
		.at_ns = loop_now_ns(),
		.cpu_usec = reply->usage.cpu_usec,
		.memory_bytes = reply->usage.memory_bytes,
		.cache_bytes = reply->value,
		.disk_bytes = reply->usage.disk_bytes,
	};
}

/* --- Sampling --- */

static void on_sample(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = reply->status < 0 ? NULL : sandbox_get_kernel(reply->id);
	struct usage_history *history;
	struct usage_reading reading;

	if (!sandbox || !can_sample(sandbox))
		return;
	history = history_of(sandbox);
	if (!history) /* out of memory: there will be a gap */
		return;
	reading = reading_of(reply);
	usage_history_add(history, &reading);
}

static int ask(const struct sandbox *sandbox, warden_reply_handler handler, void *arg)
{
	struct warden_request request = {.op = WARDEN_USAGE, .value = WARDEN_USAGE_SAMPLE};

	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	return warden_call(&request, -1, handler, arg);
}

static void set_sampled(struct sandbox_private *private, bool is_sampled)
{
	if (private->sampled != is_sampled)
		sampled = is_sampled ? sampled + 1 : sampled - 1;
	private->sampled = is_sampled;
}

static void arm(struct sandbox *sandbox, uint64_t wait_ns)
{
	struct sandbox_private *private = sandbox->private;

	set_sampled(private, true);
	if (loop_timer_set(&private->sample_timer, loop_now_ns() + wait_ns) < 0)
		log_event(LOG_ERROR, "sandbox.not_sampled", "sandbox", sandbox->id, "reason", "out of memory", NULL);
}

static void on_timer(void *arg)
{
	uint64_t turn = sampled * (1000000000ull / SAMPLES_PER_SECOND);
	struct sandbox *sandbox = arg;

	/* What stands still needs no timer: its resume arms it again. */
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED) {
		set_sampled(sandbox->private, false);
		return;
	}
	/* A warden that is away leaves a gap. */
	if (can_sample(sandbox) && ration_take(&rationed, SAMPLES_PER_SECOND))
		ask(sandbox, on_sample, NULL);
	arm(sandbox, SAMPLE_NS > turn ? SAMPLE_NS : turn);
}

void sandbox_metrics_watch(struct sandbox *sandbox)
{
	sandbox->private->sample_timer.handler = on_timer;
	sandbox->private->sample_timer.arg = sandbox;
	arm(sandbox, FIRST_NS);
}

void sandbox_metrics_stop(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	set_sampled(private, false);
	loop_timer_cancel(&private->sample_timer);
	free(STEAL_PTR(private->history));
}

/* --- GetMetrics --- */

/* Between the call, which may go away, and the warden's reply, which comes in any case. */
struct metrics_question {
	struct rpc_call *call;
	uint64_t from_ns, to_ns;
	char id[SANDBOX_ID_SIZE];
};

static void tell_sample(const struct usage_sample *sample, Paddock__V1__SandboxSample *ret)
{
	uint64_t now = loop_now_ns();

	paddock__v1__sandbox_sample__init(ret);
	ret->time_unix_ms = loop_wall_ms() - (int64_t)((now > sample->at_ns ? now - sample->at_ns : 0) / MS);
	ret->cpu_percent = sample->cpu_percent;
	ret->memory_bytes = sample->memory_bytes;
	ret->cache_bytes = sample->cache_bytes;
	ret->disk_bytes = sample->disk_bytes;
}

static void tell_limits(const struct sandbox *sandbox, Paddock__V1__Resources *ret)
{
	paddock__v1__resources__init(ret);
	ret->memory_bytes = sandbox->limits.memory_bytes;
	ret->cpu_millis = sandbox->limits.cpu_millis;
	ret->max_pids = sandbox->limits.max_pids;
	ret->disk_bytes = sandbox->limits.disk_bytes;
	ret->max_inodes = sandbox->limits.max_inodes;
}

/* What is kept in the range, and `extra` behind it, if that is not NULL. */
static void finish(struct rpc_call *call, const struct sandbox *sandbox, uint64_t from_ns, uint64_t to_ns,
		   const struct usage_sample *extra)
{
	Paddock__V1__GetMetricsResponse reply = PADDOCK__V1__GET_METRICS_RESPONSE__INIT;
	const size_t room = USAGE_SAMPLES_MAX + 1;
	struct usage_sample *samples = rpc_alloc(call, room * sizeof(*samples));
	Paddock__V1__SandboxSample *messages = rpc_alloc(call, room * sizeof(*messages));
	Paddock__V1__Resources limits;
	struct pdk_error err;

	reply.samples = rpc_alloc(call, room * sizeof(*reply.samples));
	if (!samples || !messages || !reply.samples) {
		pdk_fail_errno(&err, -ENOMEM, "reading metrics");
		rpc_fail(call, &err);
		return;
	}
	if (sandbox->private->history)
		reply.n_samples = usage_history_read(sandbox->private->history, from_ns, to_ns, samples);
	if (extra)
		samples[reply.n_samples++] = *extra;
	for (size_t i = 0; i < reply.n_samples; i++) {
		tell_sample(&samples[i], &messages[i]);
		reply.samples[i] = &messages[i];
	}
	tell_limits(sandbox, &limits);
	reply.resources = &limits;
	rpc_finish(call, &reply.base);
}

static void on_fresh(const struct warden_reply *reply, int *fd, void *arg)
{
	_cleanup_free_ struct metrics_question *question = arg;
	struct sandbox *sandbox = sandbox_get(question->id);
	struct usage_history *history = sandbox ? history_of(sandbox) : NULL;
	struct usage_reading reading = reading_of(reply);
	struct usage_sample sample;
	struct pdk_error err;

	if (!question->call)
		return;
	if (!sandbox || sandbox_check_living(sandbox, &err) < 0 || reply->status == -ENOENT ||
	    reply->status == -ESRCH) {
		pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox has ended");
	} else if (reply->status < 0) {
		pdk_fail(&err, reply->status, PDK_UNAVAILABLE, "metrics cannot be read: %s",
			 reply->text[0] ? reply->text : "the sandbox manager failed");
	} else if (!history) {
		pdk_fail_errno(&err, -ENOMEM, "reading metrics");
	} else {
		sample = usage_history_measure(history, &reading);
		finish(question->call, sandbox, question->from_ns, question->to_ns, &sample);
		return;
	}
	rpc_fail(question->call, &err);
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct metrics_question *question = rpc_user(call);

	question->call = NULL;
	rpc_fail(call, why);
}

static int ask_fresh(struct rpc_call *call, const struct sandbox *sandbox, uint64_t from_ns, uint64_t to_ns,
		     struct pdk_error *err)
{
	static const struct rpc_events events = {.on_cancel = on_cancel};
	struct metrics_question *question = calloc(1, sizeof(*question));

	if (!question)
		return pdk_fail_errno(err, -ENOMEM, "reading metrics");
	*question = (struct metrics_question){.call = call, .from_ns = from_ns, .to_ns = to_ns};
	memcpy(question->id, sandbox->id, SANDBOX_ID_SIZE);
	rpc_set_events(call, &events, question);
	if (ask(sandbox, on_fresh, question) >= 0)
		return 0;
	free(question);
	return pdk_fail(err, -ENOTCONN, PDK_UNAVAILABLE, "the sandbox manager is away; try again");
}

static bool wants_fresh(const struct sandbox *sandbox, uint64_t from_ns, uint64_t to_ns)
{
	uint64_t now = loop_now_ns();
	struct usage_sample last;

	if (!can_sample(sandbox) || from_ns > now || to_ns < now)
		return false;
	return !sandbox->private->history || !usage_history_last(sandbox->private->history, &last) ||
	       last.at_ns + FRESH_NS < now;
}

/* A time of the wall, not negative, as one of loop_now_ns(). */
static uint64_t ns_of(int64_t unix_ms)
{
	uint64_t now = loop_now_ns(), distance;
	int64_t wall = loop_wall_ms();

	if (unix_ms >= wall) {
		distance = (uint64_t)(unix_ms - wall);
		return distance > (UINT64_MAX - now) / MS ? UINT64_MAX : now + distance * MS;
	}
	distance = (uint64_t)(wall - unix_ms);
	return distance > now / MS ? 0 : now - distance * MS;
}

static int check_range(const Paddock__V1__GetMetricsRequest *request, struct pdk_error *err)
{
	int rc = request->start_unix_ms < 0 ? -EINVAL : 0;

	if (rc < 0)
		return pdk_fail(err, rc, PDK_INVALID_ARGUMENT, "start_unix_ms: must not be negative");
	if (request->end_unix_ms < 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "end_unix_ms: must not be negative");
	return 0;
}

void sandboxes_get_metrics(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GetMetricsRequest *request = (const void *)message;
	uint64_t from_ns, to_ns;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = sandbox_find(call, request->sandbox_id, &sandbox, &err);

	if (rc >= 0) {
		rpc_audit_object(call, sandbox->id, NULL);
		rc = sandbox_check_living(sandbox, &err);
	}
	if (rc >= 0)
		rc = check_range(request, &err);
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	from_ns = ns_of(request->start_unix_ms);
	to_ns = request->end_unix_ms ? ns_of(request->end_unix_ms) : UINT64_MAX;
	if (!wants_fresh(sandbox, from_ns, to_ns))
		finish(call, sandbox, from_ns, to_ns, NULL);
	else if (ask_fresh(call, sandbox, from_ns, to_ns, &err) < 0)
		rpc_fail(call, &err);
}

/* --- ListMetrics --- */

/* One entry, all in one block of the call's arena. */
struct latest {
	Paddock__V1__ListMetricsResponse__Latest message;
	Paddock__V1__SandboxSample sample;
	Paddock__V1__Resources limits;
};

/* False: there is nothing to tell. */
static bool fill_latest(struct rpc_call *call, const char *id, struct latest *latest)
{
	struct usage_sample sample;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (sandbox_find(call, id, &sandbox, &err) < 0 || !sandbox->private->history ||
	    !usage_history_last(sandbox->private->history, &sample))
		return false;
	paddock__v1__list_metrics_response__latest__init(&latest->message);
	tell_sample(&sample, &latest->sample);
	tell_limits(sandbox, &latest->limits);
	latest->message.sandbox_id = sandbox->id;
	latest->message.sample = &latest->sample;
	latest->message.resources = &latest->limits;
	return true;
}

void sandboxes_list_metrics(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ListMetricsRequest *request = (const void *)message;
	Paddock__V1__ListMetricsResponse reply = PADDOCK__V1__LIST_METRICS_RESPONSE__INIT;
	struct latest *all = NULL;
	struct pdk_error err;
	int rc = validate_count("sandbox_ids", request->n_sandbox_ids, LIST_MAX, &err);

	if (rc >= 0 && !request->n_sandbox_ids)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "sandbox_ids: at least one");
	if (rc >= 0) {
		all = rpc_alloc(call, request->n_sandbox_ids * sizeof(*all));
		reply.sandboxes = rpc_alloc(call, request->n_sandbox_ids * sizeof(*reply.sandboxes));
		if (!all || !reply.sandboxes)
			rc = pdk_fail_errno(&err, -ENOMEM, "listing metrics");
	}
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	for (size_t i = 0; i < request->n_sandbox_ids; i++) {
		if (fill_latest(call, request->sandbox_ids[i], &all[i]))
			reply.sandboxes[reply.n_sandboxes++] = &all[i].message;
	}
	rpc_finish(call, &reply.base);
}
