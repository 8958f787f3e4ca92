#define FAILING_KEEP
#include "failing.h"

#include <errno.h>
#include <stdbool.h>

static unsigned long fail_at, count;

unsigned long failing_arm(unsigned long n)
{
	unsigned long before = count;

	count = 0;
	fail_at = n;
	return before;
}

static bool fails(void)
{
	if (++count != fail_at)
		return false;
	errno = ENOMEM;
	return true;
}

void *failing_malloc(size_t size)
{
	return fails() ? NULL : malloc(size);
}

void *failing_calloc(size_t n, size_t size)
{
	return fails() ? NULL : calloc(n, size);
}

void *failing_realloc(void *old, size_t size)
{
	return fails() ? NULL : realloc(old, size);
}

void *failing_reallocarray(void *old, size_t n, size_t size)
{
	return fails() ? NULL : reallocarray(old, n, size);
}

char *failing_strdup(const char *text)
{
	return fails() ? NULL : strdup(text);
}

char *failing_strndup(const char *text, size_t length)
{
	return fails() ? NULL : strndup(text, length);
}
