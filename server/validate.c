#include "validate.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int invalid(struct pdk_error *err, const char *field, const char *rule)
{
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: %s", field, rule);
}

static int too_long(struct pdk_error *err, const char *field, size_t max)
{
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: at most %zu bytes", field, max);
}

/* Length of the sequence that starts at `at`, or 0. The second byte's range excludes overlong forms,
 * surrogates and what is beyond U+10FFFF (Unicode, table 3-7). */
static size_t utf8_sequence(const unsigned char *at, size_t left)
{
	unsigned char lead = at[0], low = 0x80, high = 0xbf;
	size_t length;

	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf) {
		length = 2;
	} else if (lead >= 0xe0 && lead <= 0xef) {
		length = 3;
		low = lead == 0xe0 ? 0xa0 : 0x80;
		high = lead == 0xed ? 0x9f : 0xbf;
	} else if (lead >= 0xf0 && lead <= 0xf4) {
		length = 4;
		low = lead == 0xf0 ? 0x90 : 0x80;
		high = lead == 0xf4 ? 0x8f : 0xbf;
	} else {
		return 0;
	}
	if (left < length || at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	}
	return length;
}

bool utf8_valid(const char *text, size_t length)
{
	const unsigned char *at = (const unsigned char *)text;

	for (size_t i = 0; i < length;) {
		size_t step = utf8_sequence(at + i, length - i);

		if (step == 0)
			return false;
		i += step;
	}
	return true;
}

int validate_text(const char *field, const char *text, size_t max, struct pdk_error *err)
{
	size_t length = strnlen(text, max + 1);

	if (length > max)
		return too_long(err, field, max);
	if (!utf8_valid(text, length))
		return invalid(err, field, "must be UTF-8");
	return 0;
}

int validate_label(const char *field, const char *text, size_t max, struct pdk_error *err)
{
	int rc = validate_text(field, text, max, err);

	if (rc < 0)
		return rc;
	for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
		if (*at < 0x20 || *at == 0x7f)
			return invalid(err, field, "must not contain control characters");
	}
	return 0;
}

int validate_range(const char *field, uint64_t value, uint64_t min, uint64_t max, struct pdk_error *err)
{
	if (value < min || value > max)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: must be %" PRIu64 " to %" PRIu64, field, min,
				max);
	return 0;
}

int validate_optional_range(const char *field, uint64_t value, uint64_t min, uint64_t max, struct pdk_error *err)
{
	return value == 0 ? 0 : validate_range(field, value, min, max, err);
}

int validate_count(const char *field, size_t count, size_t max, struct pdk_error *err)
{
	if (count > max)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: at most %zu entries", field, max);
	return 0;
}

int validate_map(const char *field, const struct validate_entry *const *entries, size_t count, size_t max_pairs,
		 size_t max_key, size_t max_value, struct pdk_error *err)
{
	int rc = validate_count(field, count, max_pairs, err);

	for (size_t i = 0; rc >= 0 && i < count; i++) {
		if (entries[i]->key[0] == '\0')
			return invalid(err, field, "a key must not be empty");
		rc = validate_label(field, entries[i]->key, max_key, err);
		if (rc >= 0)
			rc = validate_text(field, entries[i]->value, max_value, err);
	}
	return rc;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool env_name_valid(const char *name)
{
	if (!is_letter(name[0]) && name[0] != '_')
		return false;
	for (const char *at = name; *at; at++) {
		if (!is_letter(*at) && !is_digit(*at) && *at != '_')
			return false;
	}
	return true;
}

int validate_env(const char *field, const struct validate_entry *const *entries, size_t count, struct pdk_error *err)
{
	int rc = validate_count(field, count, VALIDATE_ENV_PAIRS_MAX, err);

	for (size_t i = 0; rc >= 0 && i < count; i++) {
		if (!env_name_valid(entries[i]->key))
			return invalid(err, field, "a name must match [A-Za-z_][A-Za-z0-9_]*");
		rc = validate_text(field, entries[i]->key, VALIDATE_ENV_NAME_MAX, err);
		/* Values are bytes to the kernel, and UTF-8 because protobuf strings are. */
		if (rc >= 0)
			rc = validate_text(field, entries[i]->value, VALIDATE_ENV_VALUE_MAX, err);
	}
	return rc;
}

int validate_argv(const char *field, char *const *argv, size_t count, struct pdk_error *err)
{
	size_t total = 0;
	int rc = validate_count(field, count, VALIDATE_ARGV_MAX, err);

	if (rc < 0)
		return rc;
	if (count == 0 || argv[0][0] == '\0')
		return invalid(err, field, "names no program");
	for (size_t i = 0; i < count; i++) {
		rc = validate_text(field, argv[i], VALIDATE_ARGUMENT_MAX, err);
		if (rc < 0)
			return rc;
		total += strlen(argv[i]) + 1;
	}
	if (total > VALIDATE_ARGV_BYTES_MAX)
		return invalid(err, field, "at most 1048576 bytes together");
	return 0;
}

int validate_hostname(const char *field, const char *text, struct pdk_error *err)
{
	size_t length = strnlen(text, 64);

	if (length == 0)
		return 0;
	if (length > 63)
		return too_long(err, field, 63);
	for (size_t i = 0; i < length; i++) {
		bool edge = i == 0 || i == length - 1;

		if (!is_letter(text[i]) && !is_digit(text[i]) && (text[i] != '-' || edge))
			return invalid(err, field, "must be one RFC 1123 label");
	}
	return 0;
}

static int validate_path_bytes(const char *field, const uint8_t *path, size_t length, struct pdk_error *err)
{
	size_t component = 0;

	if (length > VALIDATE_PATH_MAX)
		return too_long(err, field, VALIDATE_PATH_MAX);
	for (size_t i = 0; i < length; i++) {
		if (path[i] == '\0')
			return invalid(err, field, "must not contain a NUL byte");
		component = path[i] == '/' ? 0 : component + 1;
		if (component > VALIDATE_COMPONENT_MAX)
			return invalid(err, field, "a component is longer than 255 bytes");
	}
	return 0;
}

int validate_host_pattern(const char *field, const char *text, struct pdk_error *err)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:-";
	static const char placeholder[] = "${PORT}";
	size_t length = strlen(text), good = strspn(text, letters);

	if (strncmp(text + good, placeholder, sizeof(placeholder) - 1) == 0) {
		good += sizeof(placeholder) - 1;
		good += strspn(text + good, letters);
	}
	if (good == length && length <= VALIDATE_HOST_PATTERN_MAX)
		return 0;
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
			"%s: must be at most %d characters of a host, and ${PORT} once", field,
			VALIDATE_HOST_PATTERN_MAX);
}

int validate_path(const char *field, const ProtobufCBinaryData *path, struct pdk_error *err)
{
	if (path->len == 0)
		return invalid(err, field, "must not be empty");
	return validate_path_bytes(field, path->data, path->len, err);
}

int validate_path_text(const char *field, const char *path, bool absolute, struct pdk_error *err)
{
	size_t length = strnlen(path, VALIDATE_PATH_MAX + 1);

	if (absolute && length > 0 && path[0] != '/')
		return invalid(err, field, "must be an absolute path");
	return validate_path_bytes(field, (const uint8_t *)path, length, err);
}

int validate_user(const char *field, const char *user, struct pdk_error *err)
{
	if (user[0] != '\0' && strcmp(user, "user") != 0 && strcmp(user, "root") != 0)
		return invalid(err, field, "must be \"user\" or \"root\"");
	return 0;
}

int validate_template_name(const char *field, const char *name, struct pdk_error *err)
{
	size_t length = strnlen(name, 64);

	if (length == 0)
		return invalid(err, field, "must not be empty");
	if (length > 63)
		return too_long(err, field, 63);
	for (size_t i = 0; i < length; i++) {
		bool alphanumeric = (name[i] >= 'a' && name[i] <= 'z') || is_digit(name[i]);
		bool inner = i > 0 && (name[i] == '.' || name[i] == '_' || name[i] == '-');

		if (!alphanumeric && !inner)
			return invalid(err, field, "must match [a-z0-9][a-z0-9._-]{0,62}");
	}
	return 0;
}

bool validate_entry_repeated(const struct validate_entry *const *entries, size_t count, size_t index)
{
	for (size_t i = index + 1; i < count; i++) {
		if (strcmp(entries[i]->key, entries[index]->key) == 0)
			return true;
	}
	return false;
}
