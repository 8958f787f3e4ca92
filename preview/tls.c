#include "tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sandbox/base/cleanup.h"

/* One SSL_CTX for each certificate; the first is what connections begin with, and holds the others. */
struct certificates {
	SSL_CTX *contexts[INGRESS_LISTS_MAX];
	unsigned int count;
};

static int certificates_index = -1;

static void free_certificates(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
	struct certificates *certificates = pointer;

	for (unsigned int i = 1; certificates && i < certificates->count; i++)
		SSL_CTX_free(certificates->contexts[i]);
	free(certificates);
}

static const char *why(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	return reason ? reason : "unreadable";
}

static int choose_protocol(SSL *ssl, const unsigned char **ret, unsigned char *ret_length, const unsigned char *offered,
			   unsigned int length, void *arg)
{
	static const unsigned char ours[][10] = {"\x02h2", "\x08http/1.1"};

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
		for (unsigned int at = 0; at + 1 + offered[at] <= length; at += 1u + offered[at]) {
			if (offered[at] != ours[i][0] || memcmp(offered + at + 1, ours[i] + 1, ours[i][0]) != 0)
				continue;
			*ret = offered + at + 1;
			*ret_length = offered[at];
			return SSL_TLSEXT_ERR_OK;
		}
	}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int choose_certificate(SSL *ssl, int *alert, void *arg)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	const struct certificates *certificates = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), certificates_index);

	for (unsigned int i = 0; name && certificates && i < certificates->count; i++) {
		if (X509_check_host(SSL_CTX_get0_certificate(certificates->contexts[i]), name, 0, 0, NULL) == 1) {
			SSL_set_SSL_CTX(ssl, certificates->contexts[i]);
			break;
		}
	}
	return SSL_TLSEXT_ERR_OK;
}

static int check_key_file(const char *path, struct pdk_error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return pdk_fail_errno(err, -errno, "%s", path);
	if (st.st_mode & (S_IRWXO | S_IWGRP))
		return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION,
				"%s: the key must not be open to others (mode %o)", path,
				(unsigned int)st.st_mode & 07777);
	return 0;
}

static SSL_CTX *load_one(const char *certificate, const char *key, struct pdk_error *err)
{
	SSL_CTX *context;

	if (check_key_file(key, err) < 0)
		return NULL;
	context = SSL_CTX_new(TLS_server_method());
	if (!context)
		return NULL;
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
					     SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL");
	SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
	if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
		pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "%s: %s", certificate, why());
	else if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
		 SSL_CTX_check_private_key(context) != 1)
		pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "%s: %s", key, why());
	else
		return context;
	SSL_CTX_free(context);
	ERR_clear_error();
	return NULL;
}

static int require_client(SSL_CTX *context, const char *ca, struct pdk_error *err)
{
	if (!ca[0])
		return 0;
	if (SSL_CTX_load_verify_locations(context, ca, NULL) != 1)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "%s: %s", ca, why());
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_session_id_context(context, (const unsigned char *)"paddock", 7);
	return 0;
}

SSL_CTX *tls_load(const struct ingress_config *config, struct pdk_error *err)
{
	struct certificates *certificates = calloc(1, sizeof(*certificates));

	if (certificates_index < 0)
		certificates_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_certificates);
	if (!certificates || certificates_index < 0) {
		free(certificates);
		pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
		return NULL;
	}
	for (unsigned int i = 0; i < config->n_tls_certificate; i++) {
		SSL_CTX *context = load_one(config->tls_certificate[i], config->tls_key[i], err);

		if (context)
			certificates->contexts[certificates->count++] = context;
		if (!context || require_client(context, config->tls_client_ca, err) < 0) {
			for (unsigned int n = 0; n < certificates->count; n++)
				SSL_CTX_free(certificates->contexts[n]);
			free(certificates);
			return NULL;
		}
	}
	SSL_CTX_set_ex_data(certificates->contexts[0], certificates_index, certificates);
	SSL_CTX_set_tlsext_servername_callback(certificates->contexts[0], choose_certificate);
	return certificates->contexts[0];
}
