#include "privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "sandbox/base/cleanup.h"

/* The warden keeps its own things in these folders and trusts them, so they stay root's: the user may add files
 * (group) but not remove or rename what is not its own (sticky). */
static int make_folder(const char *path, gid_t group, struct pdk_error *err)
{
	_cleanup_fd_ int fd = -1;
	struct stat st;

	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return pdk_fail_errno(err, -errno, "cannot make %s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return pdk_fail_errno(err, -errno, "%s", path);
	if (st.st_uid != 0 || st.st_mode & S_IWOTH)
		return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION, "%s: must belong to root, not open to others",
				path);
	if (fchown(fd, 0, group) < 0 || fchmod(fd, 01775) < 0)
		return pdk_fail_errno(err, -errno, "%s", path);
	return 0;
}

static int become(const struct passwd *user, struct pdk_error *err)
{
	/* With its other groups: one is the ingress's, for ingress.sock. */
	if (initgroups(user->pw_name, user->pw_gid) < 0 || setresgid(user->pw_gid, user->pw_gid, user->pw_gid) < 0 ||
	    setresuid(user->pw_uid, user->pw_uid, user->pw_uid) < 0)
		return pdk_fail_errno(err, -errno, "cannot become %s", user->pw_name);
	if (setuid(0) == 0 || geteuid() != user->pw_uid)
		return pdk_fail(err, -EPERM, PDK_INTERNAL, "could become root again");
	return 0;
}

int privileges_drop(const struct config *config, struct pdk_error *err)
{
	const struct passwd *user;
	int rc;

	if (geteuid() != 0)
		return 0;
	errno = 0;
	user = getpwnam(config->user);
	if (!user)
		return pdk_fail(err, -ENOENT, PDK_FAILED_PRECONDITION, "user: there is no user \"%s\"", config->user);
	rc = make_folder(config->data_dir, user->pw_gid, err);
	if (rc >= 0)
		rc = make_folder(config->runtime_dir, user->pw_gid, err);
	if (rc < 0 || user->pw_uid == 0)
		return rc;
	return become(user, err);
}

int privileges_harden(struct pdk_error *err)
{
	struct rlimit limit = {};

	if (setrlimit(RLIMIT_CORE, &limit) < 0)
		return pdk_fail_errno(err, -errno, "RLIMIT_CORE");
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return pdk_fail_errno(err, -errno, "RLIMIT_NOFILE");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return pdk_fail_errno(err, -errno, "RLIMIT_NOFILE");
	/* Keys pass through this memory. */
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return pdk_fail_errno(err, -errno, "prctl");
	return 0;
}
