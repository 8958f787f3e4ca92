#ifndef PADDOCK_BASE_ERROR_H
#define PADDOCK_BASE_ERROR_H

/*
 * Errors as values: a code of the gRPC status table and a short text for people, set once where the
 * cause is known, wrapped once per layer, logged only where the call ends. The text may reach a client:
 * no host path, no pid, no id of another tenant goes in.
 */

enum pdk_code {
	PDK_OK = 0,
	PDK_CANCELLED = 1,
	PDK_UNKNOWN = 2,
	PDK_INVALID_ARGUMENT = 3,
	PDK_DEADLINE_EXCEEDED = 4,
	PDK_NOT_FOUND = 5,
	PDK_ALREADY_EXISTS = 6,
	PDK_PERMISSION_DENIED = 7,
	PDK_RESOURCE_EXHAUSTED = 8,
	PDK_FAILED_PRECONDITION = 9,
	PDK_ABORTED = 10,
	PDK_OUT_OF_RANGE = 11,
	PDK_UNIMPLEMENTED = 12,
	PDK_INTERNAL = 13,
	PDK_UNAVAILABLE = 14,
	PDK_DATA_LOSS = 15,
	PDK_UNAUTHENTICATED = 16,
};

#define PDK_ERROR_TEXT_MAX 512

struct pdk_error {
	enum pdk_code code;
	char text[PDK_ERROR_TEXT_MAX];
};

/* Set the error and return `rc`, a negative errno, so that `return pdk_fail(...)` reads as one line.
 * `err` may be NULL. Text that does not fit is cut at a UTF-8 boundary. */
int pdk_fail(struct pdk_error *err, int rc, enum pdk_code code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* As pdk_fail() with the code that fits the errno, and strerror() behind the text. For errors of our own host. */
int pdk_fail_errno(struct pdk_error *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " in front of the text. Returns `rc`. */
int pdk_wrap(struct pdk_error *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The gRPC status that fits a (positive or negative) errno. */
enum pdk_code pdk_code_of_errno(int rc);

/* "NOT_FOUND" and so on; "UNKNOWN" for a number that is none. */
const char *pdk_code_name(enum pdk_code code);

#endif
