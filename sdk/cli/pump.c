#include "pump.h"

#include "sandbox/base/cleanup.h"
#include "terminal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_SIZE (64u << 10)
#define GIVE_UP_PRESSES 3

struct pump {
	struct paddock_client *client;
	const char *sandbox_id;
	struct pump_options options;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct paddock_stream *stream; /* under the lock */
	bool sending;                  /* under the lock: the thread is inside a send on `stream` */
	bool sent;                     /* under the lock: input went down `stream` */
	bool stopping;                 /* under the lock */
	uint64_t process_id;           /* under the lock */
	atomic_bool gave_up;
	int presses;
	int wake[2];
	uint8_t buffer[INPUT_SIZE];
};

/* Signal handlers write the number of the signal here. There is one pump in a program. */
static int signal_pipe[2] = {-1, -1};

static void on_signal(int number)
{
	int saved = errno;
	unsigned char byte = (unsigned char)number;

	ssize_t n = write(signal_pipe[1], &byte, 1); /* full: enough signals wait */

	(void)n;
	errno = saved;
}

static void catch_signals(bool terminal)
{
	static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaction(forwarded[i], &action, NULL);
	if (terminal)
		sigaction(SIGWINCH, &action, NULL);
	/* Who reads our output may leave; then the command is told (see exec.c), which a death here would not do. */
	signal(SIGPIPE, SIG_IGN);
}

static void forward_size(struct pump *pump, uint64_t process_id)
{
	Paddock__V1__ResizeRequest request = PADDOCK__V1__RESIZE_REQUEST__INIT;
	Paddock__V1__TerminalSize size = PADDOCK__V1__TERMINAL_SIZE__INIT;
	Paddock__V1__ResizeResponse *reply = NULL;

	terminal_size(&size.columns, &size.rows);
	request.sandbox_id = (char *)pump->sandbox_id;
	request.process_id = process_id;
	request.size = &size;
	if (paddock_process_resize(pump->client, &request, &reply, NULL) == 0)
		paddock_free(reply);
}

static void forward_signal(struct pump *pump, uint64_t process_id, int number)
{
	Paddock__V1__SignalRequest request = PADDOCK__V1__SIGNAL_REQUEST__INIT;
	Paddock__V1__SignalResponse *reply = NULL;

	request.sandbox_id = (char *)pump->sandbox_id;
	request.process_id = process_id;
	request.signal = (uint32_t)number;
	/* A signal that finds no process any more is late, not wrong. */
	if (paddock_process_signal(pump->client, &request, &reply, NULL) == 0)
		paddock_free(reply);
}

static void give_up(struct pump *pump)
{
	atomic_store(&pump->gave_up, true);
	pthread_mutex_lock(&pump->lock);
	if (pump->stream)
		paddock_stream_cancel(pump->stream);
	pthread_mutex_unlock(&pump->lock);
}

static void handle_signal(struct pump *pump)
{
	unsigned char number;
	uint64_t process_id;

	if (read(signal_pipe[0], &number, 1) != 1)
		return;
	pthread_mutex_lock(&pump->lock);
	process_id = pump->process_id;
	pthread_mutex_unlock(&pump->lock);
	if (number == SIGINT && ++pump->presses >= GIVE_UP_PRESSES)
		give_up(pump);
	else if (number == SIGWINCH)
		forward_size(pump, process_id);
	else
		forward_signal(pump, process_id, number);
}

/* Wait for a stream, mark it as used. NULL: the pump stops. */
static struct paddock_stream *borrow_stream(struct pump *pump)
{
	struct paddock_stream *stream;

	pthread_mutex_lock(&pump->lock);
	while (!pump->stream && !pump->stopping)
		pthread_cond_wait(&pump->changed, &pump->lock);
	stream = pump->stopping ? NULL : pump->stream;
	if (stream)
		pump->sending = pump->sent = true;
	pthread_mutex_unlock(&pump->lock);
	return stream;
}

static void return_stream(struct pump *pump)
{
	pthread_mutex_lock(&pump->lock);
	pump->sending = false;
	pthread_cond_broadcast(&pump->changed);
	pthread_mutex_unlock(&pump->lock);
}

/* False when standard input has ended. */
static bool handle_input(struct pump *pump)
{
	Paddock__V1__InteractRequest message = PADDOCK__V1__INTERACT_REQUEST__INIT;
	ssize_t n = read(STDIN_FILENO, pump->buffer, sizeof(pump->buffer));
	struct paddock_stream *stream;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n > 0) {
		message.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_INPUT;
		message.input = (ProtobufCBinaryData){.len = (size_t)n, .data = pump->buffer};
	} else {
		message.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_CLOSE_STDIN;
		message.close_stdin = true;
	}
	stream = borrow_stream(pump);
	if (stream) {
		paddock_stream_send(stream, &message, NULL);
		return_stream(pump);
	}
	return n > 0;
}

static void *pump_main(void *arg)
{
	struct pump *pump = arg;
	struct pollfd fds[3] = {
		{.fd = pump->wake[0], .events = POLLIN},
		{.fd = -1, .events = POLLIN}, /* signals: when there is a process to send them to */
		{.fd = -1, .events = POLLIN},
	};
	bool input = pump->options.input;

	for (;;) {
		char byte;

		pthread_mutex_lock(&pump->lock);
		fds[1].fd = pump->process_id ? signal_pipe[0] : -1;
		fds[2].fd = pump->process_id && input ? STDIN_FILENO : -1;
		pthread_mutex_unlock(&pump->lock);
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[0].revents && read(pump->wake[0], &byte, 1) == 1 && byte == 'q')
			return NULL;
		if (fds[1].fd >= 0 && fds[1].revents)
			handle_signal(pump);
		if (fds[2].fd >= 0 && fds[2].revents)
			input = handle_input(pump);
	}
}

struct pump *pump_start(struct paddock_client *client, const char *sandbox_id, struct pump_options options,
			struct pdk_error *err)
{
	struct pump *pump = calloc(1, sizeof(*pump));

	if (!pump || pipe2(pump->wake, O_CLOEXEC) < 0) {
		pdk_fail_errno(err, -errno, "cannot read standard input");
		free(pump);
		return NULL;
	}
	pump->client = client;
	pump->sandbox_id = sandbox_id;
	pump->options = options;
	pthread_mutex_init(&pump->lock, NULL);
	pthread_cond_init(&pump->changed, NULL);
	if ((signal_pipe[0] < 0 && pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0) ||
	    pthread_create(&pump->thread, NULL, pump_main, pump) != 0) {
		pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "cannot start a thread");
		close(pump->wake[0]);
		close(pump->wake[1]);
		free(pump);
		return NULL;
	}
	catch_signals(options.terminal);
	return pump;
}

static void pump_wake(struct pump *pump, char byte)
{
	ssize_t n = write(pump->wake[1], &byte, 1); /* full: it is awake */

	(void)n;
}

void pump_set_process(struct pump *pump, uint64_t process_id)
{
	pthread_mutex_lock(&pump->lock);
	pump->process_id = process_id;
	pthread_mutex_unlock(&pump->lock);
	pump_wake(pump, 'p');
}

bool pump_set_stream(struct pump *pump, struct paddock_stream *stream)
{
	bool lost;

	pthread_mutex_lock(&pump->lock);
	if (pump->stream && pump->sending)
		paddock_stream_cancel(pump->stream);
	while (pump->sending)
		pthread_cond_wait(&pump->changed, &pump->lock);
	lost = pump->sent;
	pump->sent = false;
	pump->stream = stream;
	pthread_cond_broadcast(&pump->changed);
	pthread_mutex_unlock(&pump->lock);
	return lost;
}

bool pump_gave_up(const struct pump *pump)
{
	return atomic_load(&pump->gave_up);
}

void pump_stop(struct pump *pump)
{
	if (!pump)
		return;
	pump_set_stream(pump, NULL);
	pthread_mutex_lock(&pump->lock);
	pump->stopping = true;
	pthread_cond_broadcast(&pump->changed);
	pthread_mutex_unlock(&pump->lock);
	pump_wake(pump, 'q');
	pthread_join(pump->thread, NULL);
	close(pump->wake[0]);
	close(pump->wake[1]);
	pthread_mutex_destroy(&pump->lock);
	pthread_cond_destroy(&pump->changed);
	free(pump);
}
