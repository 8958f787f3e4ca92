#ifndef PADDOCK_SUDO_PROTOCOL_H
#define PADDOCK_SUDO_PROTOCOL_H

#include <stdint.h>

/*
 * Between `sudo` and init: messages on a SOCK_SEQPACKET socket. The client first sends a sudo_request with
 * its descriptors 0, 1 and 2; behind the head come the strings, each with its NUL: the directory, argc
 * arguments, envc variables. Then it may send SUDO_SIGNAL; init answers with sudo_answer.
 */

#define SUDO_SOCKET "/run/paddock/sudo.sock"
#define SUDO_REQUEST_MAX (160u << 10) /* below the default of net.core.wmem_default */
#define SUDO_STRINGS_MAX 8192u

enum sudo_kind {
	SUDO_RUN = 1,
	SUDO_SIGNAL,  /* value = number */
	SUDO_EXITED,  /* value = exit code; 128 + n for a signal */
	SUDO_REFUSED, /* text; the client exits with 1 */
};

struct sudo_request {
	uint32_t kind; /* SUDO_RUN or SUDO_SIGNAL */
	uint32_t value;
	uint32_t argc;
	uint32_t envc;
};

struct sudo_answer {
	uint32_t kind; /* SUDO_EXITED or SUDO_REFUSED */
	uint32_t value;
	char text[512];
};

#endif
