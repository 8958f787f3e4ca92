#ifndef PADDOCK_TESTS_UNIT_FAILING_H
#define PADDOCK_TESTS_UNIT_FAILING_H

/*
 * Put in front of each of the product's sources by the compiler (-include): its allocations go through here, and the
 * n-th of them fails. What libraries and the tests themselves allocate is not touched.
 */
#include <stdlib.h>
#include <string.h>

/* From now on, the n-th allocation fails (0: none), and the count begins again. Returns the count so far. */
unsigned long failing_arm(unsigned long n);

void *failing_malloc(size_t size);
void *failing_calloc(size_t count, size_t size);
void *failing_realloc(void *old, size_t size);
void *failing_reallocarray(void *old, size_t count, size_t size);
char *failing_strdup(const char *text);
char *failing_strndup(const char *text, size_t length);

#ifndef FAILING_KEEP
#undef strdup
#undef strndup
#define malloc failing_malloc
#define calloc failing_calloc
#define realloc failing_realloc
#define reallocarray failing_reallocarray
#define strdup failing_strdup
#define strndup failing_strndup
#endif

#endif
