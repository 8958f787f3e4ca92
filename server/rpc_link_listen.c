#include "rpc_link.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "config.h"
#include "log.h"
#include "sandbox/base/cleanup.h"
#include "unix_socket.h"

/*
 * ingress.sock: where the ingress connects. The file is open to its user's group alone, and who connects is asked of
 * the kernel (SO_PEERCRED) all the same. Being the ingress gives no authority over any sandbox: each call brings the
 * credentials of the client that it is made for.
 */

#define BACKLOG 16

static int listen_fd = -1;
static struct loop_watch *watch;
static char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
static uid_t ingress_uid;

static bool peer_allowed(int fd)
{
	struct ucred who = {};
	socklen_t length = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) < 0 || who.uid != ingress_uid) {
		log_event(LOG_WARN, "ingress.refused", "uid", log_u64(who.uid), NULL);
		return false;
	}
	return true;
}

static void on_connection(uint32_t events, void *arg)
{
	_cleanup_fd_ int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 || !peer_allowed(fd))
		return;
	if (!rpc_link_peer_create(fd)) {
		log_event(LOG_WARN, "ingress.refused", "error", "too many connections", NULL);
		return;
	}
	STEAL_FD(fd);
	log_event(LOG_INFO, "ingress.connected", NULL);
}

/* The file is made with mode 0600; another user's group gets it when the ingress runs as that user. */
static int open_to_ingress(const struct passwd *user, struct pdk_error *err)
{
	if (user->pw_uid == geteuid())
		return 0;
	if (chown(path, (uid_t)-1, user->pw_gid) < 0)
		return pdk_fail_errno(err, -errno,
				      "ingress.sock: cannot be given to the group of %s (is the user of "
				      "paddockd a member of it?)",
				      user->pw_name);
	if (chmod(path, 0660) < 0)
		return pdk_fail_errno(err, -errno, "ingress.sock");
	return 0;
}

static int bind_socket(const struct config *config, const struct passwd *user, struct pdk_error *err)
{
	_cleanup_fd_ int fd = -1;
	int rc = unix_socket_listen(config->runtime_dir, "ingress.sock", BACKLOG, path, sizeof(path), err);

	if (rc < 0)
		return rc;
	fd = rc;
	rc = open_to_ingress(user, err);
	if (rc < 0)
		return rc;
	loop_lock();
	watch = loop_watch_add(fd, EPOLLIN, on_connection, NULL);
	loop_unlock();
	if (!watch)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "ingress.sock: out of memory");
	listen_fd = STEAL_FD(fd);
	return 0;
}

int rpc_link_listen(const struct config *config, struct pdk_error *err)
{
	const struct passwd *user;
	int rc;

	if (!config->ingress_user[0])
		return 0;
	user = getpwnam(config->ingress_user);
	if (!user)
		return pdk_fail(err, -ENOENT, PDK_FAILED_PRECONDITION, "ingress_user: there is no user \"%s\"",
				config->ingress_user);
	ingress_uid = user->pw_uid;
	rc = bind_socket(config, user, err);
	if (rc < 0)
		rpc_link_stop_listening();
	return rc;
}

void rpc_link_stop_listening(void)
{
	loop_lock();
	loop_watch_remove(STEAL_PTR(watch));
	loop_unlock();
	cleanup_fd(&listen_fd);
	listen_fd = -1;
	if (path[0])
		unlink(path);
	path[0] = '\0';
}
