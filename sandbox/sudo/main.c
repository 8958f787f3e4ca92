#include "sandbox/sudo/protocol.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * `sudo` of a sandbox. It asks init to run the command as root on the descriptors of this process, passes
 * signals on and ends as the command ended. It has no privilege: init decides, and writes down who asked.
 */

#define SECURE_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

struct request {
	char bytes[SUDO_REQUEST_MAX];
	size_t length;
	struct sudo_request head;
};

struct options {
	bool keep_env;   /* -E */
	bool login;      /* -i */
	bool shell;      /* -s */
	char **settings; /* NAME=value before the command */
	int n_settings;
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list args;

	fputs("sudo: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void add(struct request *request, const char *text)
{
	size_t length = strlen(text) + 1;

	if (length > sizeof(request->bytes) - request->length)
		die("the command and its environment are larger than %u bytes", SUDO_REQUEST_MAX);
	memcpy(request->bytes + request->length, text, length);
	request->length += length;
}

static void add_argument(struct request *request, const char *text)
{
	add(request, text);
	if (++request->head.argc > SUDO_STRINGS_MAX)
		die("more than %u arguments", SUDO_STRINGS_MAX);
}

static void add_variable(struct request *request, const char *entry)
{
	if (entry[0] == '=' || !strchr(entry, '='))
		return;
	add(request, entry);
	if (++request->head.envc > SUDO_STRINGS_MAX)
		die("more than %u variables", SUDO_STRINGS_MAX);
}

/* What passes without -E: how to show text, and how to reach the network. */
static bool is_kept(const char *entry)
{
	static const char *const names[] = {
		"TERM=",     "COLORTERM=",  "LANG=",        "LANGUAGE=",      "LC_",           "DISPLAY=",
		"TZ=",       "http_proxy=", "https_proxy=", "no_proxy=",      "HTTP_PROXY=",   "HTTPS_PROXY=",
		"NO_PROXY=", "COLUMNS=",    "LINES=",       "SSL_CERT_FILE=", "SSL_CERT_DIR=", "DEBIAN_FRONTEND="};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strncmp(entry, names[i], strlen(names[i])) == 0)
			return true;
	}
	return false;
}

/* init sets these for root; with -E the rest is the caller's. */
static bool is_roots(const char *entry)
{
	static const char *const names[] = {"HOME=", "USER=", "LOGNAME=", "SHELL=", "PATH=", "MAIL=", "SUDO_"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strncmp(entry, names[i], strlen(names[i])) == 0)
			return true;
	}
	return false;
}

static void add_environment(struct request *request, const struct options *options)
{
	char entry[512];

	for (char **at = environ; *at; at++) {
		if (options->keep_env && !options->login ? !is_roots(*at) : is_kept(*at))
			add_variable(request, *at);
	}
	snprintf(entry, sizeof(entry), "SUDO_USER=%s", getuid() ? "user" : "root");
	add_variable(request, entry);
	snprintf(entry, sizeof(entry), "SUDO_UID=%u", getuid());
	add_variable(request, entry);
	snprintf(entry, sizeof(entry), "SUDO_GID=%u", getgid());
	add_variable(request, entry);
	add_variable(request, "PATH=" SECURE_PATH);
	for (int i = 0; i < options->n_settings; i++)
		add_variable(request, options->settings[i]);
}

static bool is_root_name(const char *name)
{
	return strcmp(name, "root") == 0 || strcmp(name, "#0") == 0 || strcmp(name, "0") == 0;
}

/* An option whose value is in the same word or the next one: "-u root", "-uroot", "--user=root". */
static const char *value_of(const char *word, const char *letter, const char *name, char **argv, int *at)
{
	size_t n = strlen(name);

	if (strncmp(word, letter, 2) == 0 && word[2])
		return word + 2;
	if (strncmp(word, name, n) == 0 && word[n] == '=')
		return word + n + 1;
	if (strcmp(word, letter) != 0 && strcmp(word, name) != 0)
		return NULL;
	if (!argv[*at + 1])
		die("%s needs a value", word);
	return argv[++*at];
}

static void take_letters(struct options *options, const char *word)
{
	for (const char *letter = word + 1; *letter; letter++) {
		switch (*letter) {
		case 'n': /* never asks anyway */
		case 'S':
		case 'H': /* HOME is root's anyway */
			break;
		case 'E':
			options->keep_env = true;
			break;
		case 'i':
			options->login = true;
			break;
		case 's':
			options->shell = true;
			break;
		case 'k':
		case 'K':
		case 'v': /* there is no password to forget or to renew */
			if (!letter[1] && letter == word + 1)
				exit(0);
			break;
		default:
			die("option -%c is not supported in a sandbox; there are -n -E -H -i -s -u root", *letter);
		}
	}
}

static void take_long(struct options *options, const char *word)
{
	if (strcmp(word, "--preserve-env") == 0 || strncmp(word, "--preserve-env=", 15) == 0)
		options->keep_env = true;
	else if (strcmp(word, "--login") == 0)
		options->login = true;
	else if (strcmp(word, "--shell") == 0)
		options->shell = true;
	else if (strcmp(word, "--validate") == 0)
		exit(0);
	else if (strcmp(word, "--version") == 0)
		exit(puts("sudo of Paddock " PADDOCK_VERSION) < 0);
	else if (strcmp(word, "--non-interactive") != 0 && strcmp(word, "--set-home") != 0 &&
		 strcmp(word, "--stdin") != 0)
		die("option %s is not supported in a sandbox", word);
}

/* The number of the first word that is no option. */
static int take_options(struct options *options, char **argv)
{
	int at = 1;

	for (; argv[at] && argv[at][0] == '-' && argv[at][1]; at++) {
		const char *word = argv[at];
		const char *value;

		if (strcmp(word, "--") == 0) {
			at++;
			break;
		}
		if ((value = value_of(word, "-u", "--user", argv, &at)) ||
		    (value = value_of(word, "-g", "--group", argv, &at))) {
			if (!is_root_name(value))
				die("only root can be asked for, not %s", value);
		} else if (word[1] == '-') {
			take_long(options, word);
		} else if (strcmp(word, "-V") == 0) {
			take_long(options, "--version");
		} else {
			take_letters(options, word);
		}
	}
	options->settings = argv + at;
	while (argv[at] && argv[at][0] != '=' && strchr(argv[at], '=')) {
		options->n_settings++;
		at++;
	}
	return at;
}

/* -s and -i with a command: the shell gets it as one line, each word quoted as sudo does. */
static void add_shell(struct request *request, const struct options *options, char **words)
{
	const char *shell = options->login || !getenv("SHELL") ? "/bin/bash" : getenv("SHELL");
	static char line[SUDO_REQUEST_MAX];
	size_t n = 0;

	if (access(shell, X_OK) < 0)
		shell = "/bin/sh";
	add_argument(request, shell);
	if (options->login)
		add_argument(request, "-l");
	if (!words[0])
		return;
	for (; *words; words++) {
		for (const char *c = *words; *c && n + 4 < sizeof(line); c++) {
			bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
				     strchr("_-$", *c);

			if (!plain)
				line[n++] = '\\';
			line[n++] = *c;
		}
		line[n++] = ' ';
	}
	line[n - 1] = '\0';
	add_argument(request, "-c");
	add_argument(request, line);
}

static void build(struct request *request, const struct options *options, char **words)
{
	char cwd[4096];

	request->length = sizeof(request->head);
	request->head.kind = SUDO_RUN;
	if (options->login)
		add(request, "/root");
	else
		add(request, getcwd(cwd, sizeof(cwd)) ? cwd : "/");
	if (options->login || options->shell) {
		add_shell(request, options, words);
	} else {
		if (!words[0])
			die("usage: sudo [-nEHis] [-u root] [NAME=value]... [--] COMMAND [ARGUMENT]...");
		for (; *words; words++)
			add_argument(request, *words);
	}
	add_environment(request, options);
	memcpy(request->bytes, &request->head, sizeof(request->head));
}

static int ask(const struct request *request)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SUDO_SOCKET};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(3 * sizeof(int))];
	} control = {
		.align = {.cmsg_len = CMSG_LEN(3 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {(void *)(uintptr_t)request->bytes, request->length};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	memcpy(CMSG_DATA(&control.align), (int[]){0, 1, 2}, 3 * sizeof(int));
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("this sandbox has no sudo: %s", strerror(errno));
	if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
		die("cannot ask for the command: %s", strerror(errno));
	return fd;
}

/* Signals that end or inform a program go to the command; this process waits for how that takes them. */
static int block_signals(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM, SIGCONT};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaddset(&set, numbers[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static void forward(int fd, int signals)
{
	struct signalfd_siginfo info;
	struct sudo_request request = {.kind = SUDO_SIGNAL};

	if (read(signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	request.value = info.ssi_signo;
	(void)!send(fd, &request, sizeof(request), MSG_NOSIGNAL);
}

static int follow(int fd, int signals)
{
	for (;;) {
		struct pollfd wanted[2] = {{.fd = fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
		struct sudo_answer answer;

		if (poll(wanted, 2, -1) < 0)
			continue;
		if (wanted[1].revents)
			forward(fd, signals);
		if (!wanted[0].revents)
			continue;
		if (recv(fd, &answer, sizeof(answer), 0) != (ssize_t)sizeof(answer))
			die("init went away");
		answer.text[sizeof(answer.text) - 1] = '\0';
		if (answer.kind == SUDO_REFUSED)
			die("%s", answer.text);
		return (int)answer.value;
	}
}

int main(int argc, char **argv)
{
	static struct request request;
	struct options options = {0};
	int at = take_options(&options, argv);
	int signals;

	/* Each of the three goes along; one that is closed becomes /dev/null, also here. */
	for (int fd = 0; fd < 3; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			die("cannot open /dev/null");
	}
	build(&request, &options, argv + at);
	signals = block_signals();
	return follow(ask(&request), signals);
}
