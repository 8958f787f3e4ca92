#include "id.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void make(char first, char id[SANDBOX_ID_SIZE])
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	unsigned char random[64];
	size_t used = sizeof(random);
	int n = 1;

	id[0] = first;
	while (n < SANDBOX_ID_LEN) {
		if (used == sizeof(random)) {
			if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
				abort();
			used = 0;
		}
		/* 252 is the largest multiple of 36 in a byte: beyond it the digits would not be equally likely. */
		if (random[used] < 252)
			id[n++] = alphabet[random[used] % 36];
		used++;
	}
	id[SANDBOX_ID_LEN] = '\0';
}

static bool valid(char first, const char *text)
{
	if (!text || text[0] != first || strlen(text) != SANDBOX_ID_LEN)
		return false;
	return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == SANDBOX_ID_LEN;
}

void sandbox_id_make(char id[SANDBOX_ID_SIZE])
{
	make('i', id);
}

bool sandbox_id_valid(const char *text)
{
	return valid('i', text);
}

void snapshot_id_make(char id[SANDBOX_ID_SIZE])
{
	make('s', id);
}

bool snapshot_id_valid(const char *text)
{
	return valid('s', text);
}

void build_id_make(char id[SANDBOX_ID_SIZE])
{
	make('b', id);
}

bool build_id_valid(const char *text)
{
	return valid('b', text);
}

bool template_id_valid(const char *text)
{
	if (!text || text[0] != 't' || strlen(text) != TEMPLATE_ID_LEN)
		return false;
	return strspn(text + 1, "0123456789abcdef") == TEMPLATE_ID_LEN - 1;
}
