#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "config.h"
#include "gateway.h"
#include "guard.h"
#include "http.h"
#include "json.h"
#include "methods.h"
#include "pages.h"
#include "proxy.h"
#include "sandbox/base/cleanup.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/privileges.h"
#include "tls.h"
#include "upstream.h"
#include "visit.h"

/* paddock-ingress: start and stop. One thread; it holds TLS keys and open connections, and nothing else. */

#define FILES_RESERVED 64u /* listeners, links, certificates */

static struct ingress_config config;
static struct http_server *server;

static void reload_tls(void)
{
	struct pdk_error err = {};
	SSL_CTX *fresh = config.n_listen_tls ? tls_load(&config, &err) : NULL;

	if (!config.n_listen_tls)
		return;
	if (fresh)
		http_server_set_tls(server, fresh);
	/* What was loaded before stays in force. */
	log_event(fresh ? LOG_INFO : LOG_ERROR, fresh ? "tls.loaded" : "tls.failed", "error", fresh ? NULL : err.text,
		  NULL);
}

static void on_signal(uint32_t events, void *arg)
{
	struct signalfd_siginfo info;

	if (read(*(int *)arg, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP)
		reload_tls();
	else
		loop_stop();
}

static int become_user(struct pdk_error *err)
{
	const struct passwd *user;

	if (geteuid() != 0)
		return 0;
	errno = 0;
	user = getpwnam(config.user);
	if (!user || user->pw_uid == 0)
		return pdk_fail(err, -ENOENT, PDK_FAILED_PRECONDITION, "user: there is no unprivileged user \"%s\"",
				config.user);
	if (setgroups(0, NULL) < 0 || setresgid(user->pw_gid, user->pw_gid, user->pw_gid) < 0 ||
	    setresuid(user->pw_uid, user->pw_uid, user->pw_uid) < 0)
		return pdk_fail_errno(err, -errno, "cannot become %s", config.user);
	if (setuid(0) == 0)
		return pdk_fail(err, -EPERM, PDK_INTERNAL, "could become root again");
	return 0;
}

static int listen_all(struct pdk_error *err)
{
	int rc = 0;

	for (unsigned int i = 0; rc == 0 && i < config.n_listen; i++)
		rc = http_server_listen(server, config.listen[i], false, err);
	for (unsigned int i = 0; rc == 0 && i < config.n_listen_tls; i++)
		rc = http_server_listen(server, config.listen_tls[i], true, err);
	return rc;
}

/* A connection to a preview has a second one behind it, to the application. Out of descriptors, new connections would neither be
 * answered nor closed; beyond this bound they are closed. */
static unsigned int connections_max(void)
{
	struct rlimit files;
	rlim_t fit;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_max == RLIM_INFINITY)
		return config.max_connections;
	fit = files.rlim_max > FILES_RESERVED ? (files.rlim_max - FILES_RESERVED) / 2 : 0;
	if (config.max_connections <= fit)
		return config.max_connections;
	log_event(LOG_WARN, "ingress.max_connections", "asked", log_u64(config.max_connections), "allowed",
		  log_u64(fit), "files", log_u64(files.rlim_max), NULL);
	return (unsigned int)fit;
}

static int start_server(struct pdk_error *err)
{
	struct http_settings settings = {
		.on_request = gateway_serve,
		.on_h2 = guard_take,
		.max_connections = connections_max(),
		.max_per_address = config.max_per_address,
		.head_timeout_ms = 10000,
		.idle_timeout_ms = 640000,
		.stall_timeout_ms = 60000,
	};
	SSL_CTX *context = NULL;

	proxy_set_answer_timeout(config.answer_timeout);

	if (config.n_listen_tls) {
		context = tls_load(&config, err);
		if (!context)
			return -EINVAL;
	}
	server = http_server_create(&settings);
	if (!server) {
		SSL_CTX_free(context);
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	}
	http_server_set_tls(server, context);
	return listen_all(err);
}

static int run(struct pdk_error *err)
{
	char path[4200], grpc_path[4200];
	struct loop_watch *watch = NULL;
	sigset_t signals;
	_cleanup_fd_ int fd = -1;
	int rc;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	rc = loop_init();
	if (rc < 0 || fd < 0)
		return pdk_fail_errno(err, rc < 0 ? rc : -errno, "cannot start the loop");
	loop_lock();
	watch = loop_watch_add(fd, EPOLLIN, on_signal, &fd);
	rc = watch ? start_server(err) : pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	loop_unlock();
	if (rc == 0)
		rc = become_user(err);
	if (rc == 0)
		rc = privileges_harden(err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/ingress.sock", config.runtime_dir);
	snprintf(grpc_path, sizeof(grpc_path), "%s/paddock.sock", config.runtime_dir);
	upstream_start(path);
	guard_start(grpc_path);
	pages_start();
	gateway_start(config.domain, config.advertise);
	log_event(LOG_INFO, "ingress.started", "version", PADDOCK_VERSION, "domain", config.domain, NULL);
	loop_run();
	loop_lock();
	guard_stop();
	http_server_free(server);
	visits_stop();
	upstream_stop();
	loop_watch_remove(watch);
	loop_unlock();
	loop_destroy();
	log_event(LOG_INFO, "ingress.stopped", NULL);
	return 0;
}

static int usage(FILE *file, int rc)
{
	fputs("usage: paddock-ingress [--config FILE] [--set NAME=VALUE]... [--check] [--version]\n", file);
	return rc;
}

static int read_arguments(int argc, char **argv, bool *ret_check, struct pdk_error *err)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"set", required_argument, NULL, 's'},
		{"check", no_argument, NULL, 'n'},        {"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},         {},
	};
	int option, rc = 0;

	while (rc == 0 && (option = getopt_long(argc, argv, "c:s:nVh", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			rc = ingress_config_load(&config, optarg, err);
			break;
		case 's':
			rc = ingress_config_set(&config, optarg, err);
			break;
		case 'n':
			*ret_check = true;
			break;
		case 'V':
			puts("paddock-ingress " PADDOCK_VERSION);
			exit(0);
		case 'h':
			exit(usage(stdout, 0));
		default:
			exit(usage(stderr, 2));
		}
	}
	if (optind < argc)
		exit(usage(stderr, 2));
	return rc;
}

int main(int argc, char **argv)
{
	struct pdk_error err = {};
	bool check = false;
	int rc;

	ingress_config_init(&config);
	json_start();
	rc = read_arguments(argc, argv, &check, &err);
	if (rc == 0)
		rc = ingress_config_check(&config, &err);
	if (rc == 0 && log_level_parse(config.log_level) < 0)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "log_level: error, warn, info or debug");
	if (rc == 0)
		rc = methods_load(&err);
	if (rc == 0 && check)
		return 0;
	if (rc == 0) {
		log_set_level((enum log_level)log_level_parse(config.log_level));
		rc = run(&err);
	}
	if (rc < 0)
		fprintf(stderr, "paddock-ingress: %s\n", err.text);
	return rc < 0 ? 1 : 0;
}
