#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK (256u << 10)

extern char **environ;

static void fail(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

int floor_spawn(struct sample *sample, char *const *argv)
{
	posix_spawn_file_actions_t actions;
	uint64_t start = bench_now_ns();
	pid_t pid;
	int status;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) != 0)
		fail(argv[0]);
	posix_spawn_file_actions_destroy(&actions);
	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid");
	if (sample)
		sample_add(sample, bench_now_ns() - start);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Copy until end of file or `limit` bytes; what was copied. */
static uint64_t copy(int from, int to, uint64_t limit)
{
	static char buffer[CHUNK];
	uint64_t total = 0;

	while (total < limit) {
		ssize_t n = from < 0 ? (ssize_t)CHUNK : read(from, buffer, CHUNK);

		if (n <= 0)
			break;
		for (ssize_t done = 0; to >= 0 && done < n;) {
			ssize_t written = write(to, buffer + done, (size_t)(n - done));

			if (written < 0)
				return total;
			done += written;
		}
		total += (uint64_t)n;
	}
	return total;
}

/* Run copy() in a child that keeps only its two descriptors. */
static pid_t copy_child(int from, int to, uint64_t limit, const int *others, size_t n_others)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		for (size_t i = 0; i < n_others; i++)
			close(others[i]);
		copy(from, to, limit);
		_exit(0);
	}
	return pid;
}

static double rate(uint64_t bytes, uint64_t start)
{
	return (double)bytes / 1e6 / ((double)(bench_now_ns() - start) / 1e9);
}

double floor_pipe_relay_socket(uint64_t bytes)
{
	int tube[2];
	int sockets[2];
	uint64_t start = bench_now_ns();
	uint64_t got;
	pid_t producer;
	pid_t relay;

	if (pipe(tube) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		fail("pipe");
	producer = copy_child(-1, tube[1], bytes, (int[]){ tube[0], sockets[0], sockets[1] }, 3);
	relay = copy_child(tube[0], sockets[1], UINT64_MAX, (int[]){ tube[1], sockets[0] }, 2);
	close(tube[0]);
	close(tube[1]);
	close(sockets[1]);
	got = copy(sockets[0], -1, UINT64_MAX);
	close(sockets[0]);
	waitpid(producer, NULL, 0);
	waitpid(relay, NULL, 0);
	return rate(got, start);
}

double floor_file_socket(const char *from, const char *to)
{
	int source = open(from, O_RDONLY | O_CLOEXEC);
	int target = to ? open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	int sockets[2];
	uint64_t start = bench_now_ns();
	uint64_t got;
	pid_t pid;

	if (source < 0 || (to && target < 0) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		fail(from);
	pid = copy_child(source, sockets[1], UINT64_MAX, (int[]){ sockets[0] }, 1);
	close(sockets[1]);
	close(source);
	got = copy(sockets[0], target, UINT64_MAX);
	close(sockets[0]);
	if (target >= 0)
		close(target);
	waitpid(pid, NULL, 0);
	return rate(got, start);
}
