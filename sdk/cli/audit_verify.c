#include "audit_verify.h"

#include "json.h"
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The check of an exported audit log, with nothing but the public key: every record's hash, its place behind the one
 * before it, that the fields shown are the ones that were hashed, and every checkpoint's signature. What stands behind
 * the last checkpoint is covered by nothing, so an export whose last record has none was cut.
 */

#define HASH_SIZE 32
#define SIGNATURE_SIZE 64
#define CHECKPOINT_FORMAT "paddock-audit-checkpoint 1 %" SCNu64 " %64[0-9a-f] %*d %128[0-9a-f]%n"

struct export
{
	EVP_PKEY *key;
	struct audit_export_report *report;
	uint8_t hash[HASH_SIZE]; /* of the last good record */
	bool started;
};

/* A checkpoint that was kept elsewhere. */
struct kept {
	uint64_t count;
	uint8_t hash[HASH_SIZE];
	bool found;
};

static void free_context(EVP_MD_CTX **context)
{
	EVP_MD_CTX_free(*context);
}

static int bad(struct audit_export_report *report, uint64_t sequence, const char *text)
{
	report->ok = false;
	report->bad_sequence = sequence;
	snprintf(report->text, sizeof(report->text), "%s", text);
	return 1;
}

static int from_hex(const char *text, uint8_t *out, size_t size)
{
	if (!text || strlen(text) != 2 * size || strspn(text, "0123456789abcdef") != 2 * size)
		return -EBADMSG;
	for (size_t i = 0; i < size; i++)
		sscanf(text + 2 * i, "%2hhx", out + i);
	return 0;
}

/* -EBADMSG: no checkpoint; -EKEYREJECTED: not signed with this key. */
static int read_checkpoint(EVP_PKEY *key, const char *line, uint64_t *ret_count, uint8_t ret_hash[HASH_SIZE])
{
	_cleanup_(free_context) EVP_MD_CTX *context = EVP_MD_CTX_new();
	char hash[2 * HASH_SIZE + 1], hex[2 * SIGNATURE_SIZE + 1];
	uint8_t signature[SIGNATURE_SIZE];
	int end = 0;

	if (sscanf(line, CHECKPOINT_FORMAT, ret_count, hash, hex, &end) != 3 || line[end] ||
	    from_hex(hash, ret_hash, HASH_SIZE) < 0 || from_hex(hex, signature, sizeof(signature)) < 0 ||
	    line[(size_t)end - sizeof(hex)] != ' ')
		return -EBADMSG;
	if (!context || EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) <= 0 ||
	    EVP_DigestVerify(context, signature, sizeof(signature), (const uint8_t *)line, (size_t)end - sizeof(hex)) <=
		    0)
		return -EKEYREJECTED;
	return 0;
}

static int hash_record(const Paddock__V1__AuditRecord *record, uint8_t ret[HASH_SIZE])
{
	_cleanup_(free_context) EVP_MD_CTX *context = EVP_MD_CTX_new();

	if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(context, record->previous_hash.data, record->previous_hash.len) ||
	    !EVP_DigestUpdate(context, record->stored.data, record->stored.len) ||
	    !EVP_DigestFinal_ex(context, ret, NULL))
		return -ENOMEM;
	return 0;
}

/* ---- a line of the export ---- */

static const char *string_of(const json_t *line, const char *name)
{
	const char *text = json_string_value(json_object_get(line, name));

	return text ? text : "";
}

static int take_bytes(ProtobufCBinaryData *to, const uint8_t *bytes, size_t length)
{
	to->data = malloc(length + 1);
	if (!to->data)
		return -ENOMEM;
	memcpy(to->data, bytes, length);
	to->len = length;
	return 0;
}

static int take_hash(ProtobufCBinaryData *to, const json_t *line, const char *name)
{
	uint8_t hash[HASH_SIZE];

	return from_hex(string_of(line, name), hash, sizeof(hash)) < 0 ? -EBADMSG : take_bytes(to, hash, sizeof(hash));
}

/* `stored`, unpacked: the record as it was hashed. */
static Paddock__V1__AuditRecord *unpack_stored(const json_t *line)
{
	const char *text = json_string_value(json_object_get(json_object_get(line, "stored"), "base64"));
	size_t length = text ? strlen(text) : 0, size = length / 4 * 3;
	_cleanup_free_ uint8_t *bytes = malloc(size + 1);
	Paddock__V1__AuditRecord *record;

	if (!bytes || !length || length % 4 || EVP_DecodeBlock(bytes, (const uint8_t *)text, (int)length) < 0)
		return NULL;
	size -= text[length - 1] == '=';
	size -= text[length - 2] == '=';
	record = paddock__v1__audit_record__unpack(NULL, size, bytes);
	if (record && !record->stored.len && take_bytes(&record->stored, bytes, size) == 0)
		return record;
	if (record)
		paddock__v1__audit_record__free_unpacked(record, NULL);
	return NULL;
}

static Paddock__V1__AuditRecord *record_of(const json_t *line)
{
	Paddock__V1__AuditRecord *record = unpack_stored(line);

	if (!record)
		return NULL;
	if (record->hash.len || record->previous_hash.len || record->checkpoint[0] ||
	    take_hash(&record->hash, line, "hash") < 0 ||
	    take_hash(&record->previous_hash, line, "previous_hash") < 0) {
		paddock__v1__audit_record__free_unpacked(record, NULL);
		return NULL;
	}
	if (string_of(line, "checkpoint")[0])
		record->checkpoint = strdup(string_of(line, "checkpoint"));
	return record;
}

static bool shows_what_was_hashed(const Paddock__V1__AuditRecord *record, const json_t *line)
{
	json_t *shown = json_of_message(&record->base);
	bool same = json_equal(shown, line);

	json_decref(shown);
	return same;
}

/* ---- the chain ---- */

static int check_checkpoint(struct export *export, const Paddock__V1__AuditRecord *record)
{
	struct audit_export_report *report = export->report;
	uint8_t hash[HASH_SIZE];
	uint64_t count;
	int rc = read_checkpoint(export->key, record->checkpoint, &count, hash);

	if (rc == -EBADMSG)
		return bad(report, record->sequence, "its checkpoint cannot be read");
	if (rc < 0)
		return bad(report, record->sequence, "its checkpoint is not signed with this key");
	if (count != record->sequence || memcmp(hash, export->hash, HASH_SIZE))
		return bad(report, record->sequence, "its checkpoint speaks of another record");
	report->checkpoints++;
	report->covered = record->sequence;
	return 0;
}

static int check_record(struct export *export, const Paddock__V1__AuditRecord *record, const json_t *line)
{
	struct audit_export_report *report = export->report;
	uint64_t expected = export->started ? report->last + 1 : record->sequence;
	uint8_t hash[HASH_SIZE];

	if (!shows_what_was_hashed(record, line))
		return bad(report, expected, "it shows other fields than those that were hashed");
	if (record->sequence != expected || !record->sequence)
		return bad(report, expected, "the record is missing");
	if (export->started && memcmp(record->previous_hash.data, export->hash, HASH_SIZE))
		return bad(report, expected, "the record does not follow from the one before it");
	if (hash_record(record, hash) < 0)
		return -ENOMEM;
	if (memcmp(hash, record->hash.data, HASH_SIZE))
		return bad(report, expected, "the record was changed");
	if (!export->started)
		report->first = record->sequence;
	export->started = true;
	report->last = record->sequence;
	memcpy(export->hash, hash, HASH_SIZE);
	return record->checkpoint[0] ? check_checkpoint(export, record) : 0;
}

static void meet_kept(struct kept *kept, size_t n_kept, const struct export *export)
{
	for (size_t i = 0; i < n_kept; i++)
		if (kept[i].count == export->report->last)
			kept[i].found = !memcmp(kept[i].hash, export->hash, HASH_SIZE);
}

static int check_line(struct export *export, const char *text)
{
	json_t *line = json_loads(text, 0, NULL);
	Paddock__V1__AuditRecord *record = line ? record_of(line) : NULL;
	uint64_t at = export->report->last + 1;
	int rc = record ? check_record(export, record, line) : bad(export->report, at, "the record cannot be read");

	if (record)
		paddock__v1__audit_record__free_unpacked(record, NULL);
	json_decref(line);
	return rc;
}

static int read_export(struct export *export, FILE *in, struct kept *kept, size_t n_kept)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	int rc = 0;

	while (!rc && getline(&text, &size, in) >= 0) {
		rc = check_line(export, text);
		if (!rc)
			meet_kept(kept, n_kept, export);
	}
	if (rc < 0)
		return rc;
	return ferror(in) ? -EIO : 0;
}

static void check_end(struct audit_export_report *report, const struct kept *kept, size_t n_kept)
{
	uint64_t last = report->last;

	for (size_t i = 0; i < n_kept && report->ok; i++)
		if (kept[i].count >= report->first && !kept[i].found) {
			bad(report, kept[i].count, "a kept checkpoint names a record that is not there");
			return;
		}
	if (report->ok && !last)
		bad(report, 0, "there are no records");
	if (report->ok && report->covered != last)
		bad(report, report->covered + 1, "no checkpoint stands behind it: the export was cut");
}

static int read_kept(EVP_PKEY *key, FILE *in, struct audit_export_report *report, struct kept **ret, size_t *ret_count)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;

	while (report->ok && getline(&text, &size, in) >= 0) {
		struct kept *grown = reallocarray(*ret, *ret_count + 1, sizeof(**ret)), *kept;

		if (!grown)
			return -ENOMEM;
		*ret = grown;
		kept = &grown[(*ret_count)++];
		kept->found = false;
		text[strcspn(text, "\n")] = '\0';
		if (read_checkpoint(key, text, &kept->count, kept->hash) < 0)
			bad(report, 0, "a kept checkpoint is not signed with this key");
		if (!kept->count)
			(*ret_count)--;
	}
	return ferror(in) ? -EIO : 0;
}

int audit_verify_export(FILE *in, FILE *key_file, FILE *checkpoints, struct audit_export_report *ret)
{
	struct export export = {.report = ret, .key = PEM_read_PUBKEY(key_file, NULL, NULL, NULL)};
	_cleanup_free_ struct kept *kept = NULL;
	size_t n_kept = 0;
	int rc = 0;

	*ret = (struct audit_export_report){.ok = true};
	if (!export.key || EVP_PKEY_id(export.key) != EVP_PKEY_ED25519) {
		EVP_PKEY_free(export.key);
		return -EKEYREJECTED;
	}
	if (checkpoints)
		rc = read_kept(export.key, checkpoints, ret, &kept, &n_kept);
	if (!rc && ret->ok)
		rc = read_export(&export, in, kept, n_kept);
	if (!rc)
		check_end(ret, kept, n_kept);
	EVP_PKEY_free(export.key);
	return rc;
}
