#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"
#include "sandbox/call/call.h"
#include "server/loop.h"
#include "server/rpc_internal.h"
#include "tests/unit/server_core/service.h"

/* Bytes on ingress.sock of a running engine, which must end all calls of the link when it goes; and the same bytes as
 * the answers that the client library gets. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void adjust(struct config *config)
{
	strcpy(config->ingress_user, getpwuid(geteuid())->pw_name);
}

static void start(void)
{
	static bool started;

	if (!started)
		service_start(adjust);
	started = true;
}

static void drain(int fd)
{
	uint8_t bytes[4096];

	shutdown(fd, SHUT_WR);
	while (read(fd, bytes, sizeof(bytes)) > 0)
		continue;
}

static void to_server(const uint8_t *data, size_t size)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	unsigned int left = 1;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/ingress.sock", service_folder());
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		abort();
	/* What does not fit into the socket while nobody reads the answers is left out. */
	if (send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		drain(fd);
	for (int i = 0; i < 5000 && left; i++) {
		usleep(i ? 1000 : 0);
		loop_lock();
		left = rpc_active();
		loop_unlock();
	}
	if (left)
		abort();
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	call_credit(call, 1);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	--*(int *)arg;
}

static void to_client(const uint8_t *data, size_t size)
{
	static const struct call_events events = {.on_message = on_message, .on_end = on_end};
	struct call_open open = {.method = "/x.Y/Z", .credit = 2};
	struct call_link *link;
	int pair[2], running = 2, rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	link = call_link_create(pair[0]);
	if (!call_open(link, &open, &events, &running, &rc) || !call_unary(link, &open, "", 0, &events, &running, &rc))
		abort();
	if (send(pair[1], data, size, MSG_NOSIGNAL) > 0) {
		while (call_link_io(link, 1) == 1)
			continue;
	}
	call_link_free(link);
	close(pair[1]);
	if (running)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	start();
	to_server(data, size);
	to_client(data, size);
	return 0;
}
