#include "unix_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"

int unix_socket_remove_stale(const char *path, struct pdk_error *err)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;

	if (fd < 0)
		return pdk_fail_errno(err, -errno, "socket");
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : pdk_fail_errno(err, -errno, "%s", path);
	if (!S_ISSOCK(st.st_mode))
		return pdk_fail(err, -EEXIST, PDK_FAILED_PRECONDITION, "%s: not a socket", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno != ECONNREFUSED)
		return pdk_fail(err, -EADDRINUSE, PDK_FAILED_PRECONDITION, "%s: another daemon answers there", path);
	return unlink(path) < 0 ? pdk_fail_errno(err, -errno, "%s", path) : 0;
}

int unix_socket_listen(const char *folder, const char *name, int backlog, char *ret_path, size_t size,
		       struct pdk_error *err)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t before;
	int rc;

	ret_path[0] = '\0';
	if (fd < 0)
		return pdk_fail_errno(err, -errno, "socket");
	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", folder, name) >=
		    (int)sizeof(address.sun_path) ||
	    strlen(address.sun_path) >= size)
		return pdk_fail(err, -ENAMETOOLONG, PDK_INVALID_ARGUMENT, "runtime_dir: too long for a socket");
	rc = unix_socket_remove_stale(address.sun_path, err);
	if (rc < 0)
		return rc;
	before = umask(0177);
	rc = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(before);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "%s", address.sun_path);
	strcpy(ret_path, address.sun_path);
	if (listen(fd, backlog) < 0)
		return pdk_fail_errno(err, -errno, "%s", address.sun_path);
	return STEAL_FD(fd);
}
