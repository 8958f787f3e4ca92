#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Cut a text that was truncated in the middle of a UTF-8 sequence at the last whole character. */
static void text_trim_utf8(char *text)
{
	size_t len = strlen(text);
	size_t i = len;

	if (len + 1 < PDK_ERROR_TEXT_MAX)
		return;
	while (i > 0 && ((unsigned char)text[i - 1] & 0xc0) == 0x80)
		i--;
	if (i > 0 && (unsigned char)text[i - 1] >= 0xc0)
		text[i - 1] = '\0';
}

int pdk_fail(struct pdk_error *err, int rc, enum pdk_code code, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return rc;
	err->code = code;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	text_trim_utf8(err->text);
	return rc;
}

int pdk_fail_errno(struct pdk_error *err, int rc, const char *fmt, ...)
{
	char text[PDK_ERROR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return pdk_fail(err, rc, pdk_code_of_errno(rc), "%.400s: %s", text, strerror(rc < 0 ? -rc : rc));
}

int pdk_wrap(struct pdk_error *err, int rc, const char *fmt, ...)
{
	char context[PDK_ERROR_TEXT_MAX];
	char inner[PDK_ERROR_TEXT_MAX];
	va_list args;

	if (!err)
		return rc;
	va_start(args, fmt);
	vsnprintf(context, sizeof(context), fmt, args);
	va_end(args);
	memcpy(inner, err->text, sizeof(inner));
	return pdk_fail(err, rc, err->code, "%.200s: %.300s", context, inner);
}

enum pdk_code pdk_code_of_errno(int rc)
{
	switch (rc < 0 ? -rc : rc) {
	case 0:
		return PDK_OK;
	case ENOENT:
		return PDK_NOT_FOUND;
	case EACCES:
	case EPERM:
		return PDK_PERMISSION_DENIED;
	case EEXIST:
		return PDK_ALREADY_EXISTS;
	case EINVAL:
	case ENAMETOOLONG:
	case E2BIG:
		return PDK_INVALID_ARGUMENT;
	case ENOTDIR:
	case EISDIR:
	case ENOTEMPTY:
	case ELOOP:
	case EROFS:
	case ETXTBSY:
	case EBUSY:
	case ENOEXEC:
	case EXDEV:
	case ENXIO:
		return PDK_FAILED_PRECONDITION;
	case ENOSPC:
	case EDQUOT:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
	case EAGAIN:
	case EFBIG:
		return PDK_RESOURCE_EXHAUSTED;
	case ETIMEDOUT:
		return PDK_DEADLINE_EXCEEDED;
	case ECANCELED:
		return PDK_CANCELLED;
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
	case ENOTCONN:
	case ESHUTDOWN:
		return PDK_UNAVAILABLE;
	case ERANGE:
	case EOVERFLOW:
		return PDK_OUT_OF_RANGE;
	case EBADMSG:
	case EPROTO:
		return PDK_DATA_LOSS;
	case ENOSYS:
	case EOPNOTSUPP:
		return PDK_UNIMPLEMENTED;
	default:
		return PDK_INTERNAL;
	}
}

const char *pdk_code_name(enum pdk_code code)
{
	static const char *const names[] = {
		"OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
		"NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
		"ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
		"DATA_LOSS", "UNAUTHENTICATED",
	};

	if ((unsigned int)code >= sizeof(names) / sizeof(names[0]))
		return "UNKNOWN";
	return names[code];
}
