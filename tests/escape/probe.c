#include "probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bool outside;

static void say(const char *verdict, const char *id, const char *what, const char *result)
{
	printf("%s %s %s: %s\n", verdict, id, what, result);
	fflush(stdout);
}

void expect_refused(const char *id, const char *what, long rc, const int *errnos)
{
	int error = rc < 0 ? errno : 0;
	const char *name = error ? strerrorname_np(error) : "worked";

	if (outside) {
		say("saw", id, what, name ? name : "?");
		return;
	}
	for (; *errnos; errnos++) {
		if (error == *errnos) {
			say("ok", id, what, name);
			return;
		}
	}
	say("FAIL", id, what, name ? name : "?");
}

void expect_allowed(const char *id, const char *what, long rc)
{
	if (!outside)
		say(rc >= 0 ? "ok" : "FAIL", id, what, rc >= 0 ? "worked" : strerrorname_np(errno));
}

void expect_true(const char *id, const char *what, bool truth, const char *why)
{
	if (!outside)
		say(truth ? "ok" : "FAIL", id, what, why);
}

int in_child(int (*body)(void *arg), void *arg)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -1;
	if (pid == 0)
		_exit(body(arg));
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -1;
	}
	return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	outside = argc > 1 && strcmp(argv[1], "--outside") == 0;
	if (argc > 1 && strcmp(argv[1], "--task") == 0) {
		probe_task();
		return 0;
	}
	if (argc > 3 && strcmp(argv[1], "--fuzz") == 0) {
		fuzz_calls((unsigned int)atoi(argv[2]), strtoull(argv[3], NULL, 0));
		return 0;
	}
	/* First, before the other checks open anything. */
	if (!outside)
		probe_descriptors();
	probe_syscalls();
	probe_sockets();
	if (outside)
		return 0;
	probe_task();
	probe_peers();
	probe_terminal();
	probe_files();
	probe_network();
	probe_limits();
	return 0;
}
