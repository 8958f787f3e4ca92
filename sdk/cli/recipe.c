#include "recipe.h"

#include "format.h"
#include "recipe_files.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <openssl/evp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define LOG_TAIL 4096

extern char **environ;

static const char packages[] = "bash,coreutils,git,python3,python-is-python3,nodejs,npm,gcc,libc6-dev,make,curl,"
			       "ca-certificates,ripgrep,procps,ncurses-bin,less";

/* Python's kernel and what speaks to it; they bring the HTTP server that the service uses. */
static const char interpreter_packages[] = "python3-ipykernel,python3-jupyter-client";

/* What is the same in every recipe. mmdebstrap hands the hooks to a shell; they are constants. */
static const char *const fixed_args[] = {
	"--variant=minbase",
	"--format=tar",
	"--aptopt=APT::Install-Recommends \"false\"",
	"--aptopt=Acquire::Languages \"none\"",
	"--dpkgopt=force-unsafe-io",
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/info/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-include=/usr/share/doc/*/copyright",
	"--customize-hook=chroot \"$1\" useradd --create-home --uid 1000 --user-group --shell /bin/bash user",
	"--customize-hook=echo paddock > \"$1/etc/hostname\"",
	/* Login shells, in which the SDKs run every command, ask themselves for their uid where they know it: `id` and its
	 * subshell are two thirds of what such a command takes. Other shells go on asking `id`. */
	"--customize-hook=sed -i 's/\"$(id -u)\"/\"${EUID:-$(id -u)}\"/' \"$1/etc/profile\"",
	/* One file to map for every program that asks for its locale, instead of twelve. */
	("--customize-hook=[ ! -d \"$1/usr/lib/locale/C.utf8\" ]"
	 " || chroot \"$1\" localedef --add-to-archive /usr/lib/locale/C.utf8"),
	"--customize-hook=printf '127.0.0.1\\tlocalhost paddock\\n::1\\tlocalhost ip6-localhost\\n' > \"$1/etc/hosts\"",
	("--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/* \"$1\"/var/log/*"
	 " \"$1\"/etc/resolv.conf \"$1\"/etc/dpkg/dpkg.cfg.d/99mmdebstrap \"$1\"/etc/apt/apt.conf.d/99mmdebstrap"),
};

static bool name_valid(const char *text, const char *further)
{
	const char *c;

	for (c = text; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || strchr(further, *c)))
			return false;
	return c > text && *text != '-';
}

static void args_add(char *argv[RECIPE_ARGS_MAX], int *n, const char *text)
{
	if (*n >= RECIPE_ARGS_MAX - 1 || !(argv[*n] = strdup(text)))
		abort();
	(*n)++;
}

/* Does this file of apt sources offer the main part of the suite? */
static bool sources_have(const char *path, const char *suite)
{
	_cleanup_file_ FILE *file = fopen(path, "re");
	bool has_suite = false, has_main = false;
	char line[4096];

	while (file && fgets(line, sizeof(line), file)) {
		char *rest = line, *word;

		if (*line == '#')
			continue;
		while ((word = strsep(&rest, " \t\n"))) {
			has_suite |= !strcmp(word, suite);
			has_main |= !strcmp(word, "main");
		}
	}
	return has_suite && has_main;
}

static void args_add_sources(char *argv[RECIPE_ARGS_MAX], int *n, const char *suite)
{
	glob_t found = {0};
	size_t i;

	glob("/etc/apt/sources.list", 0, NULL, &found);
	glob("/etc/apt/sources.list.d/*.list", GLOB_APPEND, NULL, &found);
	glob("/etc/apt/sources.list.d/*.sources", GLOB_APPEND, NULL, &found);
	for (i = 0; i < found.gl_pathc && *n < RECIPE_ARGS_MAX - 2; i++)
		if (sources_have(found.gl_pathv[i], suite))
			args_add(argv, n, found.gl_pathv[i]);
	globfree(&found);
}

const char *recipe_template(const char *name)
{
	/* As the SDK asks for it. */
	return strcmp(name, "code-interpreter") == 0 ? "code-interpreter-v1" : name;
}

/* A file of our own in the image, by way of the hook's text, so that the digest covers it. */
static void args_add_file(char *argv[RECIPE_ARGS_MAX], int *n, const struct recipe_file *file)
{
	size_t size = 4 * ((file->length + 2) / 3) + 1;
	_cleanup_free_ char *text = malloc(size), *hook = NULL;

	if (!text)
		abort();
	EVP_EncodeBlock((unsigned char *)text, file->bytes, (int)file->length);
	if (asprintf(&hook,
		     "--customize-hook=mkdir -p \"$1%s\" && echo %s | base64 -d > \"$1%s/%s\" && chmod %o \"$1%s/%s\"",
		     file->folder, text, file->folder, file->name, file->mode, file->folder, file->name) < 0)
		abort();
	args_add(argv, n, hook);
}

int recipe_args(const struct recipe *recipe, char *argv[RECIPE_ARGS_MAX], struct pdk_error *err)
{
	const char *suite = recipe->suite ? recipe->suite : "bookworm";
	char include[8192];
	bool is_interpreter = strcmp(recipe->name, "code-interpreter") == 0;
	int n = 0, length, i;

	if (!is_interpreter && strcmp(recipe->name, "base") != 0)
		return pdk_fail(err, -EDOM, PDK_INVALID_ARGUMENT, "there is no recipe '%s'", recipe->name);
	if (!name_valid(suite, "-"))
		return pdk_fail(err, -EDOM, PDK_INVALID_ARGUMENT, "--suite: '%s' is not the name of a suite", suite);
	if (recipe->mirror && *recipe->mirror == '-')
		return pdk_fail(err, -EDOM, PDK_INVALID_ARGUMENT, "--mirror: '%s' is not an address", recipe->mirror);
	args_add(argv, &n, "mmdebstrap");
	for (i = 0; i < (int)ARRAY_SIZE(fixed_args); i++)
		args_add(argv, &n, fixed_args[i]);
	for (const struct recipe_file *file = recipe_interpreter_files; is_interpreter && file->name; file++)
		args_add_file(argv, &n, file);
	length = snprintf(include, sizeof(include), "--include=%s%s%s", packages, is_interpreter ? "," : "",
			  is_interpreter ? interpreter_packages : "");
	for (i = 0; i < recipe->n_include; i++) {
		if (!name_valid(recipe->include[i], "+-.,"))
			return pdk_fail(err, -EDOM, PDK_INVALID_ARGUMENT, "--include: '%s' is not a list of packages",
					recipe->include[i]);
		length += snprintf(include + length, sizeof(include) - (size_t)length, ",%s", recipe->include[i]);
		if (length >= (int)sizeof(include))
			return pdk_fail(err, -EDOM, PDK_INVALID_ARGUMENT, "--include: too many packages");
	}
	args_add(argv, &n, include);
	args_add(argv, &n, suite);
	args_add(argv, &n, "-");
	if (recipe->mirror)
		args_add(argv, &n, recipe->mirror);
	else
		args_add_sources(argv, &n, suite);
	argv[n] = NULL;
	return 0;
}

void recipe_args_clear(char *argv[RECIPE_ARGS_MAX])
{
	int i;

	for (i = 0; i < RECIPE_ARGS_MAX && argv[i]; i++)
		free(argv[i]);
}

static void digest_file(EVP_MD_CTX *context, const char *path)
{
	_cleanup_file_ FILE *file = fopen(path, "re");
	char block[4096];
	size_t n;

	while (file && (n = fread(block, 1, sizeof(block), file)) > 0)
		EVP_DigestUpdate(context, block, n);
}

void recipe_digest(char *const argv[], char out[RECIPE_DIGEST_SIZE])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	unsigned int length = 0, i;

	if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL))
		abort();
	for (i = 0; argv[i]; i++) {
		EVP_DigestUpdate(context, argv[i], strlen(argv[i]) + 1);
		if (*argv[i] == '/')
			digest_file(context, argv[i]);
	}
	EVP_DigestFinal_ex(context, digest, &length);
	EVP_MD_CTX_free(context);
	for (i = 0; i < 32; i++)
		sprintf(out + 2 * i, "%02x", digest[i]);
}

static int spawn(char *const argv[], int out, int log, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t defaults;
	int rc;

	sigemptyset(&defaults);
	sigaddset(&defaults, SIGINT);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, log, STDERR_FILENO);
	rc = posix_spawnp(ret_pid, argv[0], &actions, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return -rc;
}

int recipe_start(char *const argv[], struct recipe_run *ret_run, struct pdk_error *err)
{
	_cleanup_fd_ int log = memfd_create("mmdebstrap", MFD_CLOEXEC);
	_cleanup_fd_ int out = -1, in = -1;
	int fds[2], rc;
	pid_t pid;

	if (log < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "mmdebstrap");
	out = fds[0];
	in = fds[1];
	fcntl(in, F_SETPIPE_SZ, 1 << 20);
	rc = spawn(argv, in, log, &pid);
	if (rc == -ENOENT)
		return pdk_fail(err, rc, PDK_FAILED_PRECONDITION,
				"mmdebstrap is not installed: `apt-get install mmdebstrap`");
	if (rc < 0)
		return pdk_fail_errno(err, rc, "mmdebstrap");
	*ret_run = (struct recipe_run){.pid = pid, .out = STEAL_FD(out), .log = STEAL_FD(log)};
	return 0;
}

/* The last bytes of the log. The child shares the file offset, so it is not touched. */
static void log_tail(int log, char tail[LOG_TAIL + 1])
{
	struct stat st;
	ssize_t n = 0;

	if (fstat(log, &st) == 0)
		n = pread(log, tail, LOG_TAIL, st.st_size > LOG_TAIL ? st.st_size - LOG_TAIL : 0);
	tail[n > 0 ? n : 0] = '\0';
}

void recipe_phase(const struct recipe_run *run, char *out, size_t size)
{
	char tail[LOG_TAIL + 1];
	char *at = tail, *last = NULL;

	log_tail(run->log, tail);
	while ((at = strstr(at, "I: "))) {
		if (at == tail || at[-1] == '\n')
			last = at + 3;
		at += 3;
	}
	if (!last)
		return;
	last[strcspn(last, "\r\n")] = '\0';
	snprintf(out, size, "%s", last);
}

int recipe_finish(struct recipe_run *run, struct pdk_error *err)
{
	char tail[LOG_TAIL + 1];
	char *line = tail;
	int status = 0;

	close(run->out);
	while (waitpid(run->pid, &status, 0) < 0 && errno == EINTR)
		;
	log_tail(run->log, tail);
	close(run->log);
	if ((WIFEXITED(status) && WEXITSTATUS(status) == 0) || !err)
		return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
	while (line && *line) {
		char *text = strsep(&line, "\n");

		fputs("  ", stderr);
		text_print(stderr, text);
		fputs("\n", stderr);
	}
	if (WIFSIGNALED(status))
		return pdk_fail(err, -EIO, PDK_INTERNAL, "mmdebstrap was ended by signal %d", WTERMSIG(status));
	return pdk_fail(err, -EIO, PDK_INTERNAL, "mmdebstrap failed with status %d", WEXITSTATUS(status));
}
