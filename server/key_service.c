#include "admin.h"

#include "admin_private.h"
#include "keys_private.h"
#include "loop.h"
#include "paddock/v1/admin.pb-c.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "tenants.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Admin: make, list and revoke keys. */

#define KEYS_MAX 10000
#define TTL_MAX_MS (3650ull * 24 * 3600 * 1000)
#define SCOPES_MAX 8

/* A key as the API shows it. */
struct shown {
	Paddock__V1__Key message;
	char *scopes[4];
};

static void show(struct shown *shown, const struct key *key)
{
	paddock__v1__key__init(&shown->message);
	shown->message.id = (char *)key->id;
	shown->message.tenant = (char *)key->tenant;
	shown->message.name = (char *)key->name;
	shown->message.scopes = shown->scopes;
	shown->message.n_scopes = scope_names(key->scopes, shown->scopes);
	shown->message.created_unix_ms = key->created_unix_ms;
	shown->message.expires_unix_ms = key->expires_unix_ms;
	shown->message.revoked_unix_ms = key->revoked_unix_ms;
	shown->message.last_used_unix_ms = key->last_used_unix_ms;
}

/* ---- CreateKey ---- */

/* rpc_alloc'ed: the key goes into the table when it is durable, the secret into the reply and nowhere else. */
struct key_creation {
	struct key *key;
	char text[KEY_TEXT_LEN + 1];
};

static int make_id(char id[KEY_ID_LEN + 1])
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	unsigned int used = 0;

	while (used < KEY_ID_LEN) {
		uint8_t random;

		if (getrandom(&random, 1, 0) != 1)
			return -EIO;
		if (random < 252) /* 7 x 36: every letter equally often */
			id[used++] = letters[random % 36];
	}
	id[used] = '\0';
	return 0;
}

static int make_secret(char secret[KEY_SECRET_LEN + 1])
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint8_t random[33] = {0};
	unsigned int used = 0;

	if (getrandom(random, 32, 0) != 32)
		return -EIO;
	for (unsigned int i = 0; i < sizeof(random); i += 3) {
		uint32_t bits = (uint32_t)random[i] << 16 | (uint32_t)random[i + 1] << 8 | random[i + 2];

		for (int shift = 18; shift >= 0 && used < KEY_SECRET_LEN; shift -= 6)
			secret[used++] = letters[bits >> shift & 63];
	}
	secret[used] = '\0';
	explicit_bzero(random, sizeof(random));
	return 0;
}

static int parse_scopes(const Paddock__V1__CreateKeyRequest *request, unsigned int *ret, struct pdk_error *err)
{
	unsigned int scopes = 0;
	int rc = validate_count("scopes", request->n_scopes, SCOPES_MAX, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < request->n_scopes; i++) {
		unsigned int scope = 0;

		for (unsigned int bit = SCOPE_READ; bit <= SCOPE_ADMIN; bit <<= 1) {
			char *name[4];

			if (scope_names(bit, name) && !strcmp(name[0], request->scopes[i]))
				scope = bit;
		}
		if (!scope)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
					"scopes: must be of read, sandbox, template, admin");
		scopes |= scope;
	}
	*ret = scopes ? scopes : SCOPE_READ | SCOPE_SANDBOX;
	return 0;
}

static int check_creation(const Paddock__V1__CreateKeyRequest *request, const char *tenant, unsigned int *ret_scopes,
			  struct pdk_error *err)
{
	int rc = validate_label("name", request->name, KEY_NAME_MAX, err);

	if (!rc)
		rc = parse_scopes(request, ret_scopes, err);
	if (!rc)
		rc = validate_range("ttl_ms", request->ttl_ms, 0, TTL_MAX_MS, err);
	if (rc < 0)
		return rc;
	if (!tenant_find(tenant))
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "tenant not found");
	if (keys_count >= KEYS_MAX)
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED, "keys: %d exist already", KEYS_MAX);
	return 0;
}

static int make_key(struct key_creation *creation, const Paddock__V1__CreateKeyRequest *request, const char *tenant,
		    unsigned int scopes)
{
	_cleanup_free_ struct key *key = calloc(1, sizeof(*key));
	char secret[KEY_SECRET_LEN + 1];

	if (!key)
		return -ENOMEM;
	do
		if (make_id(key->id) < 0)
			return -EIO;
	while (key_find(key->id));
	if (make_secret(secret) < 0 || key_digest(secret, KEY_SECRET_LEN, key->digest) < 0)
		return -EIO;
	strcpy(key->tenant, tenant);
	strcpy(key->name, request->name);
	key->scopes = scopes;
	key->created_unix_ms = loop_wall_ms();
	key->expires_unix_ms = request->ttl_ms ? key->created_unix_ms + (int64_t)request->ttl_ms : 0;
	snprintf(creation->text, sizeof(creation->text), "pdk_%s_%s", key->id, secret);
	explicit_bzero(secret, sizeof(secret));
	creation->key = STEAL_PTR(key);
	return 0;
}

/* The tenant began to be removed while the key was committed: take it back. */
static void withdraw_key(struct rpc_call *call, struct key *key)
{
	struct store_batch *batch = store_batch_create();
	struct pdk_error err;

	if (batch && !store_delete(batch, STORE_KEYS, key->id, KEY_ID_LEN))
		store_commit(batch, NULL, NULL);
	pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "tenant not found");
	rpc_fail(call, &err);
	free(key);
}

static void key_created(struct rpc_call *call, int rc)
{
	Paddock__V1__CreateKeyResponse reply = PADDOCK__V1__CREATE_KEY_RESPONSE__INIT;
	/* The arena goes with the call, and what was in it is not wiped: take the secret out now. */
	struct key_creation *in_arena = rpc_user(call), creation = *in_arena;
	char sdk_form[KEY_SDK_TEXT_LEN + 1];
	struct shown shown;

	explicit_bzero(in_arena, sizeof(*in_arena));
	if (rc < 0) {
		free(creation.key);
		admin_fail_change(call, rc);
	} else if (!tenant_find(creation.key->tenant)) {
		withdraw_key(call, creation.key);
	} else {
		key_insert(creation.key);
		show(&shown, creation.key);
		reply.key = &shown.message;
		reply.secret = creation.text;
		key_sdk_form(creation.text, sdk_form);
		reply.sdk_secret = sdk_form;
		rpc_finish(call, &reply.base);
		explicit_bzero(sdk_form, sizeof(sdk_form));
	}
	explicit_bzero(&creation, sizeof(creation));
}

void admin_create_key(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__CreateKeyRequest *request = (const void *)message;
	const char *tenant = request->tenant[0] ? request->tenant : TENANT_DEFAULT;
	struct key_creation *creation = rpc_alloc(call, sizeof(*creation));
	struct store_batch *batch;
	unsigned int scopes = 0;
	struct pdk_error err;
	int rc;

	if (check_creation(request, tenant, &scopes, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	rc = creation ? make_key(creation, request, tenant, scopes) : -ENOMEM;
	if (rc < 0) {
		admin_fail_change(call, rc);
		return;
	}
	rpc_audit_object(call, NULL, creation->key->id);
	batch = store_batch_create();
	rc = key_write(creation->key, batch);
	if (rc < 0) {
		store_batch_free(batch);
		free(creation->key);
		admin_fail_change(call, rc);
		return;
	}
	admin_begin_change(call, creation);
	rpc_commit(call, batch, key_created);
}

/* ---- ListKeys ---- */

static int compare_shown(const void *a, const void *b)
{
	const Paddock__V1__Key *left = *(const Paddock__V1__Key *const *)a,
			       *right = *(const Paddock__V1__Key *const *)b;

	if (left->created_unix_ms != right->created_unix_ms)
		return left->created_unix_ms < right->created_unix_ms ? -1 : 1;
	return strcmp(left->id, right->id);
}

void admin_list_keys(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ListKeysRequest *request = (const void *)message;
	Paddock__V1__ListKeysResponse reply = PADDOCK__V1__LIST_KEYS_RESPONSE__INIT;
	_cleanup_free_ Paddock__V1__Key **list = calloc(keys_count + 1, sizeof(*list));
	_cleanup_free_ struct shown *shown = calloc(keys_count + 1, sizeof(*shown));
	struct pdk_error err;

	if (request->tenant[0] && !tenant_find(request->tenant)) {
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "tenant not found");
		rpc_fail(call, &err);
		return;
	}
	if (!list || !shown) {
		admin_fail_change(call, -ENOMEM);
		return;
	}
	for (struct key *key = key_after(NULL); key; key = key_after(key)) {
		if (request->tenant[0] && strcmp(request->tenant, key->tenant))
			continue;
		show(&shown[reply.n_keys], key);
		list[reply.n_keys] = &shown[reply.n_keys].message;
		reply.n_keys++;
	}
	qsort(list, reply.n_keys, sizeof(*list), compare_shown);
	reply.keys = list;
	rpc_finish(call, &reply.base);
}

/* ---- RevokeKey ---- */

struct revocation {
	char id[KEY_ID_LEN + 1];
	int64_t revoked_unix_ms;
};

static void finish_with_key(struct rpc_call *call, const struct key *key)
{
	struct shown shown;

	show(&shown, key);
	rpc_finish(call, &shown.message.base);
}

static void key_revoked(struct rpc_call *call, int rc)
{
	struct revocation revocation = *(struct revocation *)rpc_user(call);
	struct key *key = key_find(revocation.id);
	bool own = !strcmp(rpc_principal(call)->key_id, revocation.id);
	struct pdk_error err;

	if (rc < 0) {
		if (key)
			key->revoked_written = key->revoked_unix_ms;
		admin_fail_change(call, rc);
		return;
	}
	if (!key) { /* its tenant was removed meanwhile */
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "key not found");
		rpc_fail(call, &err);
		return;
	}
	if (!key->revoked_unix_ms)
		key->revoked_unix_ms = revocation.revoked_unix_ms;
	/* A key that revokes itself still gets the answer; all others are cut before it is given. */
	if (!own)
		rpc_cancel_key(revocation.id);
	finish_with_key(call, key);
	if (own)
		rpc_cancel_key(revocation.id);
}

void admin_revoke_key(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__RevokeKeyRequest *request = (const void *)message;
	struct key *key = strlen(request->key_id) == KEY_ID_LEN ? key_find(request->key_id) : NULL;
	struct revocation *revocation = rpc_alloc(call, sizeof(*revocation));
	struct store_batch *batch;
	struct pdk_error err;

	rpc_audit_object(call, NULL, request->key_id);
	if (!key) {
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "key not found");
		rpc_fail(call, &err);
		return;
	}
	if (key->revoked_unix_ms) {
		finish_with_key(call, key);
		return;
	}
	batch = store_batch_create();
	key->revoked_written = loop_wall_ms();
	if (!revocation || key_write(key, batch) < 0) {
		key->revoked_written = 0;
		store_batch_free(batch);
		admin_fail_change(call, -ENOMEM);
		return;
	}
	memcpy(revocation->id, key->id, sizeof(revocation->id));
	revocation->revoked_unix_ms = key->revoked_written;
	admin_begin_change(call, revocation);
	rpc_commit(call, batch, key_revoked);
}
