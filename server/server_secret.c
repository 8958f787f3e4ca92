#include "server_secret.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#include "store.h"

struct search {
	const char *name;
	uint8_t *key;
	bool found;
};

static int visit(const void *name, size_t name_length, const void *value, size_t value_length, void *arg)
{
	struct search *search = arg;

	if (name_length == strlen(search->name) && memcmp(name, search->name, name_length) == 0 &&
	    value_length == SERVER_SECRET_SIZE) {
		memcpy(search->key, value, SERVER_SECRET_SIZE);
		search->found = true;
	}
	return 1;
}

int server_secret_load(const char *name, uint8_t ret[SERVER_SECRET_SIZE])
{
	struct search search = {.name = name, .key = ret};
	struct store_batch *batch;
	int rc = store_each(STORE_META, name, strlen(name), visit, &search);

	if (rc < 0 || search.found)
		return rc;
	if (getrandom(ret, SERVER_SECRET_SIZE, 0) != SERVER_SECRET_SIZE)
		return -EIO;
	batch = store_batch_create();
	if (!batch || store_put(batch, STORE_META, name, strlen(name), ret, SERVER_SECRET_SIZE) < 0) {
		store_batch_free(batch);
		return -ENOMEM;
	}
	store_commit(batch, NULL, NULL);
	return 0;
}
