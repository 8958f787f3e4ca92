#ifndef PADDOCK_SERVER_FILE_TOKEN_H
#define PADDOCK_SERVER_FILE_TOKEN_H

#include "sandbox/base/error.h"
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Page tokens of Files.List: base64url of a check and the path after which the next page starts. They give no
 * authority, for the path is looked up as the caller's user; the check tells a token of another listing, which would
 * give a wrong page.
 */

#define FILE_TOKEN_PATH_MAX 4096u
#define FILE_TOKEN_SIZE ((FILE_TOKEN_PATH_MAX + 8 + 2) / 3 * 4 + 1)

uint64_t file_token_check(const char *sandbox_id, const ProtobufCBinaryData *path, const char *user, uint32_t depth);
void file_token_make(char ret[FILE_TOKEN_SIZE], uint64_t check, const ProtobufCBinaryData *after);
/* INVALID_ARGUMENT for what is no token of this listing. An empty token gives an empty path. */
int file_token_parse(const char *token, uint64_t check, uint8_t ret[FILE_TOKEN_PATH_MAX], size_t *ret_length,
		     struct pdk_error *err);

#endif
