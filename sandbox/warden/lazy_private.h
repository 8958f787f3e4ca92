#ifndef PADDOCK_WARDEN_LAZY_PRIVATE_H
#define PADDOCK_WARDEN_LAZY_PRIVATE_H

#include "chunks.h"
#include "lazy.h"
#include "pagemap.h"

/* What the lazy*.c files share. */

/* What the server asks of the kernel: to hear of all that happens to memory that is not there yet. */
#define LAZY_FEATURES                                                                                                  \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

/* One file of pages, and whose they are. */
struct lazy_file {
	struct pagemap map;
	struct chunk_file pages;
};

struct lazy {
	unsigned int n;
	struct lazy_file *files;
	bool is_copy;
	bool tight; /* the sandbox has not the memory for two of what is missing */
	pid_t server;
	int boss; /* our end of the connection with the server */
};

/* The descriptors that the server works with; all others are closed. */
struct lazy_ends {
	int boss;   /* a SEQPACKET socket: the first process's id, and an answer */
	int pages;  /* listens for CRIU: which process has which userfaultfd */
	int makers; /* listens for our library in CRIU: have a userfaultfd made */
	int device; /* /dev/userfaultfd */
	int record; /* `lazy`: the lock, and the reason */
	int hurry;  /* a pipe */
	int killer; /* cgroup.kill of the sandbox */
	int turn;   /* locked by the one server that works ahead of what is asked for */
};

/* What the server answers to the first process's id. */
struct lazy_answer {
	int error; /* positive errno */
	char text[160];
};

void lazy_serve(const struct lazy *lazy, const struct lazy_ends *ends) __attribute__((noreturn));
/* Only the system calls that the server needs once it serves. */
int lazy_filter(void);

#endif
