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

double floor_pipe_relay_socket(char *const *argv)
{
	posix_spawn_file_actions_t actions;
	int tube[2], sockets[2];
	uint64_t start = bench_now_ns(), got;
	pid_t producer, relay;

	if (pipe2(tube, O_CLOEXEC) < 0 || fcntl(tube[1], F_SETPIPE_SZ, 1 << 20) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
		fail("pipe");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, tube[1], STDOUT_FILENO);
	if (posix_spawnp(&producer, argv[0], &actions, NULL, argv, environ) != 0)
		fail(argv[0]);
	posix_spawn_file_actions_destroy(&actions);
	relay = copy_child(tube[0], sockets[1], UINT64_MAX, (int[]){tube[1], sockets[0]}, 2);
	close(tube[0]);
	close(tube[1]);
	close(sockets[1]);
	got = copy(sockets[0], -1, UINT64_MAX);
	close(sockets[0]);
	waitpid(producer, NULL, 0);
	waitpid(relay, NULL, 0);
	return rate(got, start);
}

/* One side of a socket pair copies `from` in a child; this side copies it to `to`. Both are closed. */
static double through_socket(int from, int to, uint64_t limit)
{
	int sockets[2];
	uint64_t start = bench_now_ns(), got;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		fail("socketpair");
	pid = copy_child(from, sockets[1], limit, (int[]){sockets[0]}, 1);
	close(sockets[1]);
	got = copy(sockets[0], to, UINT64_MAX);
	close(sockets[0]);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	waitpid(pid, NULL, 0);
	return rate(got, start);
}

double floor_socket_file(const char *path, uint64_t bytes)
{
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (file < 0)
		fail(path);
	return through_socket(-1, file, bytes);
}

double floor_file_socket(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);

	if (file < 0)
		fail(path);
	return through_socket(file, -1, UINT64_MAX);
}
