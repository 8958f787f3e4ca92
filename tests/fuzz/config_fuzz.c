#include <stddef.h>
#include <stdint.h>

#include "server/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config config;
	struct pdk_error err = {0};

	config_defaults(&config);
	if (config_parse(&config, "fuzz", (const char *)data, size, &err) >= 0)
		config_check(&config, &err);
	return 0;
}
