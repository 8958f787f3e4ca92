#include "follow.h"

#include "pump.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The server speaks at least every 30 s; silence of two of these and some means that the connection is dead. */
#define SILENCE_MS 75000
#define RETRY_FOR_MS 60000
#define RETRY_EVERY_MS 1000
#define RETRY_PAUSE_MS 100

static int write_all(int fd, const uint8_t *data, size_t length, struct pdk_error *err)
{
	while (length > 0) {
		ssize_t n = write(fd, data, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pdk_fail_errno(err, -errno, "cannot write the output");
		data += n;
		length -= (size_t)n;
	}
	return 0;
}

static int take_output(struct follow *follow, const Paddock__V1__ProcessOutput *output)
{
	int fd = output->stream == PADDOCK__V1__STREAM__STREAM_STDERR ? STDERR_FILENO : STDOUT_FILENO;
	uint64_t skip = output->sequence < follow->next ? follow->next - output->sequence : 0;
	int rc;

	if (skip >= output->data.len)
		return 0;
	rc = write_all(fd, output->data.data + skip, output->data.len - skip, &follow->cli->err);
	if (rc < 0)
		follow->unwritable = -rc;
	follow->next = output->sequence + output->data.len;
	return rc;
}

static void take_gap(struct follow *follow, const Paddock__V1__OutputGap *gap)
{
	fprintf(stderr, "paddock: %llu bytes of output are no longer kept\n", (unsigned long long)gap->dropped_bytes);
	follow->next = gap->sequence + gap->dropped_bytes;
}

static void take_exit(struct follow *follow, const Paddock__V1__ProcessExit *ended)
{
	follow->exited = true;
	follow->exit_code = ended->exit_code;
	follow->signal = ended->signal;
	follow->timed_out = ended->timed_out;
	follow->sandbox_ended = ended->sandbox_ended;
}

static int take_event(struct follow *follow, const Paddock__V1__ProcessEvent *event)
{
	switch (event->event_case) {
	case PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED:
		follow->process_id = event->started->process_id;
		if (follow->pump)
			pump_set_process(follow->pump, follow->process_id);
		return 0;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT:
		return take_output(follow, event->output);
	case PADDOCK__V1__PROCESS_EVENT__EVENT_GAP:
		take_gap(follow, event->gap);
		return 0;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED:
		take_exit(follow, event->exited);
		return 0;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_KEEPALIVE:
	case PADDOCK__V1__PROCESS_EVENT__EVENT__NOT_SET:
	case _PADDOCK__V1__PROCESS_EVENT__EVENT__CASE_IS_INT_SIZE:
		return 0;
	}
	return 0;
}

/* Make follow->stream the stream of a new call, and tell the pump. */
static int use_stream(struct follow *follow, struct paddock_stream *stream)
{
	if (!stream)
		return -EIO;
	follow->stream = stream;
	if (follow->pump && follow->interact)
		pump_set_stream(follow->pump, stream);
	return 0;
}

static void drop_stream(struct follow *follow)
{
	if (follow->pump && pump_set_stream(follow->pump, NULL) && !pump_gave_up(follow->pump))
		fprintf(stderr, "paddock: the connection was lost; input on its way may be missing\r\n");
	paddock_stream_free(follow->stream);
	follow->stream = NULL;
}

static int open_interact(struct follow *follow, Paddock__V1__InteractRequest *first)
{
	struct paddock_stream *stream = paddock_process_interact(follow->cli->client, &follow->cli->err);

	if (!stream)
		return -EIO;
	/* Refused already: the reading side tells why. */
	paddock_stream_send(stream, first, NULL);
	return use_stream(follow, stream);
}

int follow_attach(struct follow *follow)
{
	Paddock__V1__AttachRequest request = PADDOCK__V1__ATTACH_REQUEST__INIT;
	Paddock__V1__InteractRequest first = PADDOCK__V1__INTERACT_REQUEST__INIT;

	request.sandbox_id = (char *)follow->sandbox_id;
	request.process_id = follow->process_id;
	request.from_sequence = follow->next;
	if (!follow->interact)
		return use_stream(follow, paddock_process_attach(follow->cli->client, &request, &follow->cli->err));
	first.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_ATTACH;
	first.attach = &request;
	return open_interact(follow, &first);
}

/* One event. 1: go on, 0: the call ended, negative: it failed. */
static int follow_one(struct follow *follow)
{
	Paddock__V1__ProcessEvent *event = NULL;
	int rc = paddock_stream_next(follow->stream, SILENCE_MS, &event, &follow->cli->err);

	if (rc <= 0)
		return rc;
	rc = take_event(follow, event);
	paddock_free(event);
	/* A local failure (a closed pipe) is no reason to connect again. */
	return rc < 0 ? -EPIPE : 1;
}

int follow_start(struct follow *follow, Paddock__V1__StartProcessRequest *request)
{
	Paddock__V1__InteractRequest first = PADDOCK__V1__INTERACT_REQUEST__INIT;
	int rc;

	if (follow->interact) {
		first.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_START;
		first.start = request;
		rc = open_interact(follow, &first);
	} else {
		rc = use_stream(follow, paddock_process_start(follow->cli->client, request, &follow->cli->err));
	}
	while (rc >= 0 && !follow->process_id) {
		rc = follow_one(follow);
		if (rc == 0)
			return pdk_fail(&follow->cli->err, -EBADMSG, PDK_DATA_LOSS, "the server did not start it");
	}
	return rc < 0 ? rc : 0;
}

static bool is_connection_error(int rc)
{
	return rc == 0 || rc == -ECONNREFUSED || rc == -EAGAIN;
}

static int64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Attach again until an event came, or a minute has passed. */
static int follow_again(struct follow *follow)
{
	int64_t until = monotonic_ms() + RETRY_FOR_MS, left;
	int rc = -ECONNREFUSED;

	for (;;) {
		drop_stream(follow);
		left = until - monotonic_ms();
		if (left <= 0 || (follow->pump && pump_gave_up(follow->pump)))
			return rc;
		/* Short waits, so that Ctrl-C is heard. */
		if (paddock_wait_ready(follow->cli->client, left < RETRY_EVERY_MS ? left : RETRY_EVERY_MS,
				       &follow->cli->err) < 0)
			continue;
		rc = follow_attach(follow);
		if (rc == 0)
			rc = follow_one(follow);
		if (rc > 0 || !is_connection_error(rc))
			return rc;
		rc = -ECONNREFUSED;
		poll(NULL, 0, RETRY_PAUSE_MS);
	}
}

int follow_to_end(struct follow *follow)
{
	int rc = 1;

	while (!follow->exited && !(follow->bounded && follow->next >= follow->until)) {
		rc = follow_one(follow);
		if (rc > 0)
			continue;
		if (follow->pump && pump_gave_up(follow->pump))
			return pdk_fail(&follow->cli->err, -EINTR, PDK_CANCELLED,
					"left; process %llu goes on in sandbox %s",
					(unsigned long long)follow->process_id, follow->sandbox_id);
		if (follow->exited)
			break;
		if (is_connection_error(rc))
			rc = follow_again(follow);
		if (rc <= 0)
			return rc;
	}
	return 0;
}

void follow_clear(struct follow *follow)
{
	if (follow->pump && follow->stream)
		paddock_stream_cancel(follow->stream);
	pump_stop(follow->pump);
	follow->pump = NULL;
	paddock_stream_free(follow->stream);
	follow->stream = NULL;
}

int follow_status(const struct follow *follow)
{
	if (follow->sandbox_ended)
		return EXIT_PADDOCK;
	if (follow->timed_out)
		return EXIT_TIMED_OUT;
	if (follow->signal)
		return 128 + (int)follow->signal;
	return (int)follow->exit_code;
}
