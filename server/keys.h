#ifndef PADDOCK_SERVER_KEYS_H
#define PADDOCK_SERVER_KEYS_H

#include "auth.h"
#include "store.h"
#include <stdbool.h>
#include <stdint.h>

/* The API keys in memory. Lock held. */

#define KEY_NAME_MAX 128
#define KEY_SECRET_LEN 43 /* 32 random bytes in base64url */
#define KEY_DIGEST_SIZE 32
#define KEY_TEXT_LEN (4 + KEY_ID_LEN + 1 + KEY_SECRET_LEN)
#define KEY_SDK_TEXT_LEN (4 + 2 * (KEY_ID_LEN + KEY_SECRET_LEN))

struct key {
	struct key *next; /* in its bucket */
	char id[KEY_ID_LEN + 1];
	char tenant[TENANT_NAME_MAX + 1];
	char name[KEY_NAME_MAX + 1];
	unsigned int scopes;             /* enum auth_scope */
	uint8_t digest[KEY_DIGEST_SIZE]; /* SHA-256 of the secret part */
	int64_t created_unix_ms;
	int64_t expires_unix_ms;
	int64_t revoked_unix_ms;
	int64_t revoked_written; /* as it will be when what is being committed is durable; this is what is stored */
	int64_t last_used_unix_ms;
	bool use_unstored; /* last_used_unix_ms is newer than in the store */
	bool cut;          /* it has expired, and the calls that were open then were ended */
};

/* NULL when there is none. Revoked and expired ones are found too. */
struct key *key_find(const char id[KEY_ID_LEN]);
/* It opens something now. */
bool key_is_valid(const struct key *key, int64_t now_ms);
int key_digest(const char *secret, size_t length, uint8_t ret[KEY_DIGEST_SIZE]);
/* The same key as "e2b_" and hexadecimal digits. */
void key_sdk_form(const char *text, char ret[KEY_SDK_TEXT_LEN + 1]);
/* Note the use, to the minute; stored lazily. */
void key_used(struct key *key, int64_t now_ms);

/* After tenants_load(). Keys of tenants that are gone, and those that have been dead for 30 days, are dropped. */
int keys_load(struct pdk_error *err);

/* RemoveTenant, in its order: write all of the tenant's keys as revoked; when that is durable, revoke them in
 * memory and cut their calls; delete the records; forget the keys. */
int keys_write_revoked(const char *tenant, int64_t now_ms, struct store_batch *batch);
void keys_not_revoked(const char *tenant); /* that commit failed */
void keys_cut(const char *tenant, int64_t now_ms);
int keys_write_deleted(const char *tenant, struct store_batch *batch);
void keys_forget(const char *tenant);

/* Names of the scopes of a mask, at most 4; returns how many. */
unsigned int scope_names(unsigned int scopes, char *ret[4]);

#endif
