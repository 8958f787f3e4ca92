#ifndef PADDOCK_CLI_FORMAT_H
#define PADDOCK_CLI_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define FORMAT_SIZE 64

/* "512M", "1.5G", "4096": bytes. -EINVAL or -ERANGE. */
int parse_size(const char *text, uint64_t *ret_bytes);
/* "500ms", "30s", "1h30m", "2d", "45" (seconds): milliseconds. */
int parse_duration(const char *text, uint64_t *ret_ms);

const char *format_size(char out[FORMAT_SIZE], uint64_t bytes);  /* 1.5 GiB */
const char *format_duration(char out[FORMAT_SIZE], uint64_t ms); /* 4m 20s */
const char *format_age(char out[FORMAT_SIZE], int64_t unix_ms);  /* 3m ago, in 4m 20s, - for 0 */
const char *format_time(char out[FORMAT_SIZE], int64_t unix_ms); /* 2026-01-31 14:05:09, local time; - for 0 */
int64_t now_unix_ms(void);

/* Bytes as text that cannot steer a terminal: control characters and what is not UTF-8 become \xNN. Allocated. */
char *text_safe(const void *bytes, size_t length);
void text_print(FILE *out, const char *text);

#endif
