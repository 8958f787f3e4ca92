#include "audit.h"

#include "paddock/v1/admin.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/id.h"
#include "sandbox/base/varint.h"
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/*
 * A record is hashed as the bytes of a packed AuditRecord with fields 11 to 13 empty. Who appends gives
 * everything but sequence and time; the writer thread puts those in front (fields 1 to 3, so the result is in field
 * order and is what any protobuf implementation would pack), because only it knows the order of commits.
 */

#define OBJECT_MAX 512
#define OUTCOME_MAX 32
#define ACTOR_MAX 32
#define ACTION_MAX 128
#define DETAIL_MAX 4096
#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Length of the valid UTF-8 character at `text`, 0 if there is none (overlong forms, surrogates, > U+10FFFF). */
static size_t utf8_length(const unsigned char *text)
{
	unsigned int low = 0x80, high = 0xbf;
	size_t length;

	if (text[0] < 0x80)
		return 1;
	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	length = text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
	if (text[0] == 0xe0)
		low = 0xa0;
	else if (text[0] == 0xed)
		high = 0x9f;
	else if (text[0] == 0xf0)
		low = 0x90;
	else if (text[0] == 0xf4)
		high = 0x8f;
	if (text[1] < low || text[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

/* Copy at most `max` bytes of whole characters; `out` has room for one more. */
static char *clean(char *out, size_t max, const char *text)
{
	const unsigned char *in = (const unsigned char *)(text ? text : "");
	size_t used = 0;

	while (*in) {
		size_t length = utf8_length(in), size = length ? length : strlen(REPLACEMENT);

		if (used + size > max)
			break;
		memcpy(out + used, length ? (const char *)in : REPLACEMENT, size);
		used += size;
		in += length ? length : 1;
	}
	out[used] = '\0';
	return out;
}

/* Control characters cannot occur in JSON strings: escape what a careless caller let through. With `quote`,
 * quotes and backslashes too. False if not all of `text` (valid UTF-8) fitted into `max` bytes. */
static bool escape(char *out, size_t max, const char *text, bool quote)
{
	size_t used = 0;

	while (*text) {
		unsigned char c = (unsigned char)*text;
		size_t length = utf8_length((const unsigned char *)text);
		char piece[8] = "";

		if (c < 0x20 || c == 0x7f)
			snprintf(piece, sizeof(piece), "\\u%04x", c);
		else if (quote && (c == '"' || c == '\\'))
			snprintf(piece, sizeof(piece), "\\%c", c);
		else
			memcpy(piece, text, length);
		if (used + strlen(piece) > max)
			break;
		memcpy(out + used, piece, strlen(piece));
		used += strlen(piece);
		text += length;
	}
	out[used] = '\0';
	return !*text;
}

/* A detail that does not fit stays a JSON object: {"truncated":"the beginning"}. */
static char *clean_detail(char out[DETAIL_MAX + 1], const char *text)
{
	static const char head[] = "{\"truncated\":\"", tail[] = "\"}";
	char start[DETAIL_MAX + 1];

	clean(start, DETAIL_MAX, text);
	if ((!text || strlen(text) <= DETAIL_MAX) && escape(out, DETAIL_MAX, start, false))
		return out;
	memcpy(out, head, sizeof(head));
	escape(out + strlen(head), DETAIL_MAX - strlen(head) - strlen(tail), start, true);
	strcat(out, tail);
	return out;
}

int audit_encode(const struct audit_entry *entry, uint8_t **ret, size_t *ret_length)
{
	char tenant[TENANT_NAME_MAX + 1], actor[ACTOR_MAX + 1], action[ACTION_MAX + 1], sandbox[SANDBOX_ID_SIZE];
	char object[OBJECT_MAX + 1], outcome[OUTCOME_MAX + 1], detail[DETAIL_MAX + 1];
	Paddock__V1__AuditRecord record = PADDOCK__V1__AUDIT_RECORD__INIT;
	uint8_t *packed;

	record.tenant = clean(tenant, TENANT_NAME_MAX, entry->tenant);
	record.actor = clean(actor, ACTOR_MAX, entry->actor);
	record.action = clean(action, ACTION_MAX, entry->action);
	record.sandbox_id = clean(sandbox, SANDBOX_ID_LEN, entry->sandbox_id);
	record.object = clean(object, OBJECT_MAX, entry->object);
	record.outcome = clean(outcome, OUTCOME_MAX, entry->outcome);
	record.detail = clean_detail(detail, entry->detail);
	packed = malloc(paddock__v1__audit_record__get_packed_size(&record) + 1);
	if (!packed)
		return -ENOMEM;
	*ret_length = paddock__v1__audit_record__pack(&record, packed);
	*ret = packed;
	return 0;
}

static size_t put_field(uint8_t *out, uint8_t tag, uint64_t value)
{
	if (!value) /* proto3 leaves a zero out */
		return 0;
	*out = tag;
	return 1 + varint_put(out + 1, value);
}

size_t audit_encode_prefix(uint8_t prefix[AUDIT_PREFIX_MAX], uint64_t sequence, int64_t wall_ms, uint64_t boot_ns)
{
	size_t used = put_field(prefix, 1 << 3, sequence);

	used += put_field(prefix + used, 2 << 3, (uint64_t)wall_ms);
	return used + put_field(prefix + used, 3 << 3, boot_ns);
}

static void free_md(EVP_MD_CTX **context)
{
	EVP_MD_CTX_free(*context);
}

int audit_hash(const uint8_t previous[AUDIT_HASH_SIZE], const void *stored, size_t length, uint8_t ret[AUDIT_HASH_SIZE])
{
	_cleanup_(free_md) EVP_MD_CTX *context = EVP_MD_CTX_new();

	if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(context, previous, AUDIT_HASH_SIZE) || !EVP_DigestUpdate(context, stored, length) ||
	    !EVP_DigestFinal_ex(context, ret, NULL))
		return -ENOMEM;
	return 0;
}

void audit_key(uint64_t sequence, uint8_t key[8])
{
	for (int i = 7; i >= 0; i--, sequence >>= 8)
		key[i] = (uint8_t)sequence;
}

static int get_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; shift < 64 && *at < end; shift += 7) {
		uint8_t byte = *(*at)++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = value;
			return 0;
		}
	}
	return -EBADMSG;
}

/* One field of the stored bytes. They hold varints (1 to 3) and strings (4 to 10), nothing else. */
static int view_field(const uint8_t **at, const uint8_t *end, struct audit_view *view)
{
	struct audit_text text;
	uint64_t tag, value;

	if (get_varint(at, end, &tag) < 0 || get_varint(at, end, &value) < 0)
		return -EBADMSG;
	if (tag == (1 << 3))
		view->stored_sequence = value;
	if (tag == (1 << 3) || tag == (2 << 3) || tag == (3 << 3))
		return 0;
	if ((tag & 7) != 2 || (tag >> 3) < 4 || (tag >> 3) > 10 || value > (size_t)(end - *at))
		return -EBADMSG;
	text = (struct audit_text){(const char *)*at, value};
	if (tag >> 3 == 4)
		view->tenant = text;
	else if (tag >> 3 == 6)
		view->action = text;
	else if (tag >> 3 == 7)
		view->sandbox_id = text;
	*at += value;
	return 0;
}

int audit_view(const void *key, size_t key_length, const void *value, size_t value_length, struct audit_view *ret)
{
	const uint8_t *bytes = key, *at, *end;

	*ret = (struct audit_view){0};
	if (key_length != 8 || value_length <= 2 * AUDIT_HASH_SIZE)
		return -EBADMSG;
	for (unsigned int i = 0; i < 8; i++)
		ret->sequence = ret->sequence << 8 | bytes[i];
	ret->hash = value;
	ret->previous = ret->hash + AUDIT_HASH_SIZE;
	ret->stored = ret->previous + AUDIT_HASH_SIZE;
	ret->stored_length = value_length - 2 * AUDIT_HASH_SIZE;
	at = ret->stored;
	end = at + ret->stored_length;
	while (at < end)
		if (view_field(&at, end, ret) < 0)
			return -EBADMSG;
	return 0;
}
