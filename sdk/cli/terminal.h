#ifndef PADDOCK_CLI_TERMINAL_H
#define PADDOCK_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

/* Raw mode of the local terminal, put back on every way out: return, exit(), and signals that end the program. */
int terminal_raw(void);
void terminal_restore(void);
/* Size of the terminal; 80 x 24 when it cannot be told. */
void terminal_size(uint32_t *ret_columns, uint32_t *ret_rows);

#endif
