#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "auth.h"
#include "build_files.h"
#include "builds.h"
#include "config.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "previews.h"
#include "privileges.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/linger.h"
#include "sandbox_internal.h"
#include "sandboxes.h"
#include "snapshots.h"
#include "store.h"
#include "templates.h"
#include "tls.h"
#include "warden_client.h"
#include "worker.h"

/*
 * paddockd. The order of the start is the order of trust: settings, then no privileges, then the store, then the
 * sandboxes that outlived the last run, and only then the listeners. Signals are read by the loop; a stop runs in
 * a thread of its own, because calls need the loop while they are given their time to end.
 */

#define DEFAULT_CONFIG "/etc/paddock/paddock.conf"
#define SETTINGS_MAX 64

struct options {
	const char *config_path;
	bool print_only;
	const char *settings[SETTINGS_MAX];
	size_t n_settings;
};

static pthread_t stopper;
static bool stop_asked;
static struct loop_watch *signal_watch;

static const char usage_text[] =
	"Usage: paddockd [OPTION]...\n"
	"The Paddock server: sandboxes for coding agents, over gRPC.\n"
	"\n"
	"  -c, --config FILE       settings (default: " DEFAULT_CONFIG ", if it is there)\n"
	"  -s, --set NAME=VALUE    one setting, over what the file says; may be repeated\n"
	"  -n                      print the settings in force and exit\n"
	"      --version           print the version and exit\n"
	"      --help              print this and exit\n"
	"\n"
	"SIGTERM and SIGINT stop it, giving calls shutdown_grace_ms to end; SIGHUP reads the TLS files again.\n";

/* Returns -1 to go on, or an exit code. */
static int parse_options(int argc, char **argv, struct options *ret)
{
	static const struct option long_options[] = {
		{"config", required_argument, NULL, 'c'},
		{"set", required_argument, NULL, 's'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "c:s:n", long_options, NULL)) >= 0) {
		switch (option) {
		case 'c':
			ret->config_path = optarg;
			break;
		case 's':
			if (ret->n_settings == SETTINGS_MAX) {
				fprintf(stderr, "paddockd: more than %d settings\n", SETTINGS_MAX);
				return 2;
			}
			ret->settings[ret->n_settings++] = optarg;
			break;
		case 'n':
			ret->print_only = true;
			break;
		case 'V':
			printf("paddockd " PADDOCK_VERSION "\n");
			return 0;
		case 'h':
			printf("%s", usage_text);
			return 0;
		default:
			fprintf(stderr, "Try 'paddockd --help'.\n");
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "paddockd: no arguments are taken: %s\n", argv[optind]);
		return 2;
	}
	return -1;
}

static int load_config(const struct options *options, struct pdk_error *err)
{
	const char *path = options->config_path ? options->config_path : DEFAULT_CONFIG;
	int rc = 0;

	config_defaults(&server_config);
	/* The default file may be missing; one that was named must be there. */
	if (options->config_path || access(path, F_OK) == 0)
		rc = config_load(&server_config, path, err);
	for (size_t i = 0; rc >= 0 && i < options->n_settings; i++)
		rc = config_parse(&server_config, "--set", options->settings[i], strlen(options->settings[i]), err);
	return rc < 0 ? rc : config_check(&server_config, err);
}

/* Tell a supervisor that asked for it (systemd's protocol). */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	_cleanup_fd_ int fd = -1;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = path ? strlen(path) : 0;

	if (!length || length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		log_event(LOG_WARN, "server.notify", "error", strerror(errno), NULL);
}

/* Signals */

static void *stop(void *arg)
{
	rpc_stop(server_config.shutdown_grace_ms);
	loop_stop();
	return NULL;
}

static void begin_stop(const char *signal_name)
{
	if (stop_asked)
		return;
	stop_asked = true;
	log_event(LOG_INFO, "server.stopping", "signal", signal_name, "grace_ms",
		  log_u64(server_config.shutdown_grace_ms), NULL);
	notify("STOPPING=1");
	if (pthread_create(&stopper, NULL, stop, NULL) != 0)
		abort();
}

static void signal_ready(uint32_t events, void *arg)
{
	struct signalfd_siginfo info;

	while (read(*(int *)arg, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			tls_reload();
		else
			begin_stop(info.ssi_signo == SIGINT ? "INT" : "TERM");
	}
}

/* Before any thread starts, so that all of them inherit the mask. */
static int block_signals(void)
{
	sigset_t signals, alarm;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	linger_setup();
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0 || sigprocmask(SIG_BLOCK, &alarm, NULL) < 0)
		return -errno;
	return signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Start and stop */

static int start_state(struct pdk_error *err)
{
	static const struct warden_events events = {.on_exited = sandbox_exited, .on_reconnect = sandbox_reconcile};
	int rc = loop_init();

	if (rc < 0)
		return pdk_fail_errno(err, rc, "event loop");
	store_keep_journal(server_config.runtime_dir);
	rc = store_open(server_config.data_dir, err);
	if (rc < 0)
		return rc;
	rc = worker_start();
	if (rc < 0)
		return pdk_fail_errno(err, rc, "starting a thread");
	loop_lock();
	rc = auth_load(err);
	if (rc >= 0)
		rc = warden_client_start(server_config.runtime_dir, &events, err);
	if (rc >= 0)
		rc = templates_start(err);
	if (rc >= 0)
		rc = snapshots_start(err);
	if (rc >= 0)
		rc = templates_bind(err);
	if (rc >= 0)
		rc = sandboxes_start(err);
	if (rc >= 0)
		rc = build_files_start(err);
	if (rc >= 0)
		rc = builds_start(err);
	if (rc >= 0)
		rc = previews_start(err);
	loop_unlock();
	return rc;
}

static int start(int signal_fd, struct pdk_error *err)
{
	int rc = start_state(err);

	if (rc >= 0)
		rc = metrics_start(server_config.metrics_listen, err);
	if (rc >= 0)
		rc = rpc_start(&server_config, err);
	if (rc < 0)
		return rc;
	loop_lock();
	signal_watch = loop_watch_add(signal_fd, EPOLLIN, signal_ready, &signal_fd);
	if (!signal_watch)
		rc = pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "signals: out of memory");
	loop_unlock();
	if (rc < 0)
		return rc;
	log_event(LOG_INFO, "server.ready", "version", PADDOCK_VERSION, "runtime_dir", server_config.runtime_dir, NULL);
	notify("READY=1");
	loop_run();
	return 0;
}

static void shut_down(void)
{
	worker_stop();
	loop_lock();
	builds_stop();
	build_files_stop();
	previews_stop();
	sandboxes_stop();
	warden_client_stop();
	snapshots_stop();
	loop_watch_remove(STEAL_PTR(signal_watch));
	loop_unlock();
	metrics_stop();
	store_close();
	loop_destroy();
	log_event(LOG_INFO, "server.stopped", NULL);
}

int main(int argc, char **argv)
{
	struct options options = {};
	struct pdk_error err = {};
	int signal_fd, rc;

	rc = parse_options(argc, argv, &options);
	if (rc >= 0)
		return rc;
	umask(077);
	rc = load_config(&options, &err);
	if (rc >= 0 && options.print_only) {
		config_print(&server_config);
		return 0;
	}
	if (rc >= 0)
		log_set_level((enum log_level)log_level_parse(server_config.log_level));
	if (rc >= 0)
		rc = privileges_drop(&server_config, &err);
	if (rc >= 0)
		rc = privileges_harden(&err);
	if (rc >= 0) {
		signal_fd = block_signals();
		rc = signal_fd < 0 ? pdk_fail_errno(&err, signal_fd, "signals") : start(signal_fd, &err);
	}
	if (rc < 0) {
		log_event(LOG_ERROR, "server.failed", "error", err.text, NULL);
		return 1;
	}
	if (stop_asked)
		pthread_join(stopper, NULL);
	shut_down();
	return 0;
}
