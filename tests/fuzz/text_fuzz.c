#include <stdlib.h>
#include <string.h>

#include "paddock/v1/files.pb-c.h"
#include "sdk/cli/format.h"
#include "sdk/cli/json.h"

/* Names that a hostile sandbox chose, on their way to a terminal and into JSON. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* No control character of either set, and nothing that is not UTF-8. */
static void must_be_harmless(const char *text)
{
	json_t *value = json_string(text); /* jansson refuses what is not UTF-8 */

	if (!value)
		__builtin_trap();
	json_decref(value);
	for (const unsigned char *at = (const unsigned char *)text; *at; at++)
		if (*at < ' ' || *at == 0x7f || (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0))
			__builtin_trap();
}

static void must_parse(const ProtobufCMessage *message)
{
	json_t *value = json_of_message(message), *again;
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

	if (!text)
		__builtin_trap();
	again = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!again || !json_equal(value, again))
		__builtin_trap();
	json_decref(value);
	json_decref(again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *safe = text_safe(data, size);
	Paddock__V1__FileInfo *info = paddock__v1__file_info__unpack(NULL, size, data);

	if (!safe)
		__builtin_trap();
	must_be_harmless(safe);
	free(safe);
	if (info) {
		must_parse(&info->base);
		paddock__v1__file_info__free_unpacked(info, NULL);
	}
	return 0;
}
