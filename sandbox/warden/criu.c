#include "criu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "options.h"
#include "sandbox/base/cleanup.h"

#define VERSION_MIN_MAJOR 4
#define VERSION_MIN_MINOR 1
#define PATH_ROOM 800

static char version[32];
static char program[PATH_ROOM], loader[PATH_ROOM], libraries[PATH_ROOM], preload[PATH_ROOM];
static char pages[64] = "PADDOCK_PAGES=";
static bool unpacked;

const char *criu_version(void)
{
	return version;
}

static int locate(void)
{
	snprintf(loader, sizeof(loader), "%s/criu/usr/lib64/ld-linux-x86-64.so.2", options.libexec_dir);
	snprintf(libraries, sizeof(libraries), "%s/criu/usr/lib/x86_64-linux-gnu", options.libexec_dir);
	snprintf(program, sizeof(program), "%s/criu/usr/sbin/criu", options.libexec_dir);
	snprintf(preload, sizeof(preload), "%s/paddock-criu.so", options.libexec_dir);
	unpacked = access(loader, X_OK) == 0 && access(program, R_OK) == 0;
	if (!unpacked)
		snprintf(program, sizeof(program), "/usr/sbin/criu");
	return access(program, R_OK) < 0 || access(preload, R_OK) < 0 ? -ENOENT : 0;
}

void criu_set_pages(const char *name)
{
	snprintf(pages, sizeof(pages), "PADDOCK_PAGES=%.40s", name);
}

void criu_execute(const char *const *argv)
{
	char variable[PATH_ROOM + 16];
	char *const environment[] = {(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", (char *)"LC_ALL=C", pages,
				     unpacked ? NULL : variable, NULL};
	const char *whole[CRIU_ARGS_MAX + 8];
	size_t n = 0;

	snprintf(variable, sizeof(variable), "LD_PRELOAD=%s", preload);
	if (unpacked) {
		const char *const front[] = {loader, "--preload", preload, "--library-path", libraries};

		memcpy(whole, front, sizeof(front));
		n = sizeof(front) / sizeof(front[0]);
	}
	whole[n++] = program;
	for (size_t i = 0; argv[i] && n < CRIU_ARGS_MAX + 7; i++)
		whole[n++] = argv[i];
	whole[n] = NULL;
	execve(whole[0], (char *const *)(uintptr_t)whole, environment);
}

int criu_setup(void)
{
	static const char *const question[] = {"--version", NULL};
	unsigned int major = 0, minor = 0;
	char text[256];
	int answer[2], rc = locate();
	ssize_t n;
	pid_t pid;

	if (rc < 0)
		return rc;
	if (pipe2(answer, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		dup2(answer[1], STDOUT_FILENO);
		criu_execute(question);
		_exit(127);
	}
	close(answer[1]);
	n = pid < 0 ? -1 : read(answer[0], text, sizeof(text) - 1);
	close(answer[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "Version: %31s", version) != 1 || sscanf(version, "%u.%u", &major, &minor) < 1)
		return -ENOENT;
	if (major > VERSION_MIN_MAJOR || (major == VERSION_MIN_MAJOR && minor >= VERSION_MIN_MINOR))
		return 0;
	version[0] = '\0';
	return -ENOSYS;
}
