#ifndef PADDOCK_WARDEN_KERNEL_H
#define PADDOCK_WARDEN_KERNEL_H

#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* System calls that the C library does not offer, and small file helpers that work by descriptor and one
 * path component or a fixed relative path: nothing here ever follows a name that a sandbox controls. */

static inline pid_t kernel_clone3(struct clone_args *args)
{
	return (pid_t)syscall(SYS_clone3, args, sizeof(*args));
}

static inline int kernel_openat2(int dir, const char *path, unsigned long long flags, unsigned long long resolve)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};

	return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* Write a short text in one write(2). 0 or a negative errno. */
int file_write(int dir, const char *path, const char *text);
/* Read a short text, NUL-terminated, trailing newline removed. The length or a negative errno. */
int file_read(int dir, const char *path, char *text, size_t size);
/* A number from a one-line file; `missing` if it cannot be read or says "max". */
unsigned long long file_read_number(int dir, const char *path, unsigned long long missing);
/* The number behind `key ` in a file of "key value" lines. */
unsigned long long file_read_key(int dir, const char *path, const char *key, unsigned long long missing);
/* The same in a text of such lines. */
unsigned long long text_key(const char *text, const char *key, unsigned long long missing);
/* mkdir that takes an existing directory for success. */
int file_mkdir(int dir, const char *path, mode_t mode);
/* Call `found` for every entry of a directory but those that start with a dot; nothing if it cannot be read. */
void file_each(int dir, bool only_directories, void (*found)(const char *name));
/* Milliseconds of CLOCK_MONOTONIC. */
unsigned long long clock_ms(void);

#endif
