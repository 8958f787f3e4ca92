#ifndef PADDOCK_BASE_ID_H
#define PADDOCK_BASE_ID_H

#include <stdbool.h>

/* A sandbox id: "i" and 20 characters of [a-z0-9] from getrandom() (103 bits). Never used again. */
#define SANDBOX_ID_LEN 21
#define SANDBOX_ID_SIZE (SANDBOX_ID_LEN + 1)

/* Write a new id and its NUL into `id`. Aborts only if the kernel has no random numbers. */
void sandbox_id_make(char id[SANDBOX_ID_SIZE]);

/* True if `text` is NULL-terminated and has exactly the form of a sandbox id. */
bool sandbox_id_valid(const char *text);

/* A snapshot id: the same with "s". */
void snapshot_id_make(char id[SANDBOX_ID_SIZE]);
bool snapshot_id_valid(const char *text);

/* A template id: "t" and 40 hexadecimal digits. */
#define TEMPLATE_ID_LEN 41
#define TEMPLATE_ID_SIZE (TEMPLATE_ID_LEN + 1)
void build_id_make(char id[SANDBOX_ID_SIZE]); /* as a sandbox id, but starts with "b" */
bool build_id_valid(const char *text);
bool template_id_valid(const char *text);

#endif
