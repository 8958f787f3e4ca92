#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "sandbox/base/cleanup.h"

#define PEM_MAX (1 << 20)

enum { CERTIFICATE, KEY, CLIENT_CA, N_FILES };

struct material {
	char *pem[N_FILES];
};

/* gRPC calls the fetcher from any of its threads. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct timespec loaded[N_FILES];
static atomic_bool forced;

static void material_clear(struct material *material)
{
	if (material->pem[KEY])
		explicit_bzero(material->pem[KEY], strlen(material->pem[KEY]));
	for (int i = 0; i < N_FILES; i++)
		free(material->pem[i]);
}

static const char *path_of(const struct config *config, int file)
{
	return file == CERTIFICATE ? config->tls_certificate : file == KEY ? config->tls_key : config->tls_client_ca;
}

static int check_file(const char *path, int file, const struct stat *st, struct pdk_error *err)
{
	if (!S_ISREG(st->st_mode) || st->st_size > PEM_MAX || st->st_size == 0)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "%s: not a PEM file", path);
	if (file == KEY && st->st_mode & (S_IRWXO | S_IWGRP))
		return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION,
				"%s: the key must not be open to others (mode %o)", path,
				(unsigned int)st->st_mode & 07777);
	if (st->st_mode & (S_IWOTH | S_IWGRP))
		return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION, "%s: others can write it", path);
	return 0;
}

static int read_whole(int fd, size_t size, char **ret)
{
	char *text = calloc(1, size + 1);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = pread(fd, text, size, 0);
	if (n < 0) {
		free(text);
		return -errno;
	}
	*ret = text;
	return 0;
}

static int read_pem(const char *path, int file, char **ret, struct timespec *ret_time, struct pdk_error *err)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pdk_fail_errno(err, -errno, "%s", path);
	rc = check_file(path, file, &st, err);
	if (rc < 0)
		return rc;
	rc = read_whole(fd, (size_t)st.st_size, ret);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "%s", path);
	*ret_time = st.st_mtim;
	return 0;
}

static int material_load(const struct config *config, struct material *ret, struct timespec times[N_FILES],
			 struct pdk_error *err)
{
	*ret = (struct material){};
	for (int i = 0; i < N_FILES; i++) {
		int rc;

		if (!path_of(config, i)[0])
			continue;
		rc = read_pem(path_of(config, i), i, &ret->pem[i], &times[i], err);
		if (rc < 0) {
			material_clear(ret);
			return pdk_wrap(err, rc, "TLS");
		}
	}
	return 0;
}

static bool files_changed(const struct config *config)
{
	for (int i = 0; i < N_FILES; i++) {
		struct stat st;

		if (path_of(config, i)[0] && stat(path_of(config, i), &st) == 0 &&
		    memcmp(&st.st_mtim, &loaded[i], sizeof(st.st_mtim)) != 0)
			return true;
	}
	return false;
}

static grpc_ssl_server_certificate_config *load(const struct config *config, struct pdk_error *err)
{
	grpc_ssl_server_certificate_config *ret;
	grpc_ssl_pem_key_cert_pair pair;
	struct timespec times[N_FILES] = {};
	struct material material;

	if (material_load(config, &material, times, err) < 0)
		return NULL;
	pair.private_key = material.pem[KEY];
	pair.cert_chain = material.pem[CERTIFICATE];
	/* A reload aborts in this core when there are no roots. Without mTLS no client is asked for a certificate, so
	 * these are looked at by nobody. */
	ret = grpc_ssl_server_certificate_config_create(
		material.pem[CLIENT_CA] ? material.pem[CLIENT_CA] : material.pem[CERTIFICATE], &pair, 1);
	material_clear(&material);
	memcpy(loaded, times, sizeof(loaded));
	return ret;
}

static grpc_ssl_certificate_config_reload_status fetch(void *arg, grpc_ssl_server_certificate_config **ret)
{
	const struct config *config = arg;
	grpc_ssl_certificate_config_reload_status status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
	struct pdk_error err = {};
	grpc_ssl_server_certificate_config *fresh;

	pthread_mutex_lock(&mutex);
	if (atomic_exchange(&forced, false) || files_changed(config)) {
		fresh = load(config, &err);
		status = fresh ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
		if (fresh)
			*ret = fresh;
		log_event(fresh ? LOG_INFO : LOG_ERROR, fresh ? "tls.loaded" : "tls.failed", "error",
			  fresh ? NULL : err.text, NULL);
	}
	pthread_mutex_unlock(&mutex);
	return status;
}

int tls_credentials(const struct config *config, grpc_server_credentials **ret, struct pdk_error *err)
{
	grpc_ssl_server_credentials_options *options;
	struct timespec times[N_FILES] = {};
	struct material material;
	int rc;

	/* gRPC would only say that the port cannot be bound: find what is wrong with the files first. */
	rc = material_load(config, &material, times, err);
	if (rc < 0)
		return rc;
	material_clear(&material);
	tls_reload();
	options = grpc_ssl_server_credentials_create_options_using_config_fetcher(
		config->tls_client_ca[0] ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
					 : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
		fetch, (void *)(uintptr_t)config);
	*ret = options ? grpc_ssl_server_credentials_create_with_options(options) : NULL;
	if (!*ret)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "TLS: no credentials");
	return 0;
}

void tls_reload(void)
{
	atomic_store(&forced, true);
}
