# The C dialect of Paddock itself, twice, by make -j2, and a program of it. What happens when goes to stderr.
set -e
cat >Makefile <<'M'
SOURCES = $(wildcard sandbox/*/*.c)
OBJECTS = $(foreach level,0 2,$(SOURCES:%.c=o$(level)/%.o))
CFLAGS = -std=gnu17 -g -Wall -Wextra -Wno-unused-parameter -D_GNU_SOURCE -I.
digest: main.c $(OBJECTS)
	gcc $(CFLAGS) main.c $(filter o2/%,$(OBJECTS)) -o $@
define level
o$(1)/%.o: %.c
	@mkdir -p $$(@D)
	gcc $$(CFLAGS) -O$(1) -c $$< -o $$@
	@echo @ >&2
endef
$(foreach n,0 2,$(eval $(call level,$(n))))
M
cat >main.c <<'C'
#include "sandbox/base/buffer.h"
#include "sandbox/base/hash.h"
#include <stdio.h>

int main(void)
{
	struct buffer text = BUFFER(1000);

	for (char c = 'a'; c <= 'z'; c++)
		if (buffer_append(&text, &c, 1) < 0)
			return 1;
	printf("hash %08x\n", hash_bytes(buffer_data(&text), buffer_length(&text)));
	buffer_free(&text);
	return 0;
}
C
make -j2 2> >(tee errors >&2) | sort
make -q || { cat errors; exit 1; }
./digest
python3 - <<'P'
hash = 2166136261
for letter in b"abcdefghijklmnopqrstuvwxyz":
    hash = (hash ^ letter) * 16777619 % 2 ** 32
print(f"hash {hash:08x}")
P
sha256sum $(find o0 o2 -name '*.o' | sort) digest
