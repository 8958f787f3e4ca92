#include "boot.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "sandbox/base/cleanup.h"
#include "store.h"

#define KEY "boot_id"

size_t boot_read_id(char id[BOOT_ID_MAX])
{
	_cleanup_file_ FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (!file || !fgets(id, BOOT_ID_MAX, file))
		return 0;
	id[strcspn(id, "\n")] = '\0';
	return strlen(id);
}

static int differs(const void *name, size_t name_length, const void *value, size_t value_length, void *arg)
{
	char id[BOOT_ID_MAX];
	size_t length = boot_read_id(id);

	if (name_length == strlen(KEY) && memcmp(name, KEY, name_length) == 0)
		*(bool *)arg = length > 0 && (length != value_length || memcmp(id, value, length) != 0);
	return 1;
}

bool boot_is_new(void)
{
	bool is_new = false;

	return store_each(STORE_META, KEY, strlen(KEY), differs, &is_new) >= 0 && is_new;
}

void boot_remember(void)
{
	struct store_batch *batch = store_batch_create();
	char id[BOOT_ID_MAX];
	size_t length = boot_read_id(id);

	if (batch && length > 0 && store_put(batch, STORE_META, KEY, strlen(KEY), id, length) >= 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
}
