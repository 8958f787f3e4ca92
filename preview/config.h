#ifndef PADDOCK_PREVIEW_CONFIG_H
#define PADDOCK_PREVIEW_CONFIG_H

#include <stdbool.h>

#include "sandbox/base/error.h"

#define INGRESS_LISTS_MAX 8

/* /etc/paddock/ingress.conf: `name = value` lines; man ingress.conf(5) says what each is. An unknown name, or a value
 * that does not fit, is an error that names the line. */
struct ingress_config {
	char listen[INGRESS_LISTS_MAX][128];
	unsigned int n_listen;
	char listen_tls[INGRESS_LISTS_MAX][128];
	unsigned int n_listen_tls;
	char tls_certificate[INGRESS_LISTS_MAX][4096];
	unsigned int n_tls_certificate;
	char tls_key[INGRESS_LISTS_MAX][4096];
	unsigned int n_tls_key;
	char tls_client_ca[4096];
	char domain[256];
	char advertise[280]; /* the domain as clients see it, perhaps with a port; "" until checked: the domain */
	char runtime_dir[4096];
	char user[64];
	char log_level[16];
	unsigned int max_connections;
	unsigned int max_per_address;
	unsigned int answer_timeout; /* seconds */
};

void ingress_config_init(struct ingress_config *config);
int ingress_config_load(struct ingress_config *config, const char *path, struct pdk_error *err);
/* "name=value", as --set gives it. */
int ingress_config_set(struct ingress_config *config, const char *assignment, struct pdk_error *err);
/* What only the whole can tell: a certificate without its key, plain HTTP that is not on loopback. */
int ingress_config_check(struct ingress_config *config, struct pdk_error *err);

#endif
