#ifndef PADDOCK_SERVER_RATION_H
#define PADDOCK_SERVER_RATION_H

#include "loop.h"
#include <stdbool.h>
#include <stdint.h>

/* So much of something in each second, for what anybody can cause. Zero is a fresh one. Under the lock. */
struct ration {
	uint64_t second, n;
};

static inline bool ration_take(struct ration *ration, uint64_t per_second)
{
	uint64_t now = loop_now_ns() / 1000000000u;

	if (now != ration->second)
		*ration = (struct ration){.second = now};
	return ration->n++ < per_second;
}

#endif
