#include "loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>

static int epoll_fd = -1;
static volatile bool stopped;

int loop_open(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return epoll_fd < 0 ? -errno : 0;
}

int loop_fd(void)
{
	return epoll_fd;
}

int loop_add(struct watch *watch, int fd, uint32_t events, void (*handler)(struct watch *, uint32_t))
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	watch->fd = fd;
	watch->handler = handler;
	return 0;
}

void loop_remove(struct watch *watch)
{
	if (watch->fd < 0)
		return;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->fd = -1;
}

void loop_run(int (*idle)(void))
{
	int timeout = 0;

	while (!stopped) {
		struct epoll_event event;
		int n = epoll_wait(epoll_fd, &event, 1, timeout);

		if (n < 0 && errno != EINTR)
			abort();
		if (n == 1) {
			struct watch *watch = event.data.ptr;

			watch->handler(watch, event.events);
			timeout = 0;
		} else {
			timeout = idle();
		}
	}
}

void loop_stop(void)
{
	stopped = true;
}
