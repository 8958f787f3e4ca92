#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/base/cleanup.h"

/* Runs a fuzz target over every file of its corpus: what fuzzing found once stays found. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX (4u << 20)

static int replay_file(const char *folder, const char *name)
{
	char path[4096];
	_cleanup_free_ uint8_t *data = malloc(INPUT_MAX);
	_cleanup_file_ FILE *file = NULL;
	size_t size;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "re");
	if (!file || !data) {
		fprintf(stderr, "%s: cannot be read\n", path);
		return -1;
	}
	size = fread(data, 1, INPUT_MAX, file);
	LLVMFuzzerTestOneInput(data, size);
	return 0;
}

static int replay_folder(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	int count = 0;

	if (!dir) {
		fprintf(stderr, "%s: no such folder\n", folder);
		return -1;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (replay_file(folder, entry->d_name) < 0) {
			closedir(dir);
			return -1;
		}
		count++;
	}
	closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	int total = 0;

	for (int i = 1; i < argc; i++) {
		int count = replay_folder(argv[i]);

		if (count < 0)
			return 1;
		total += count;
	}
	printf("%d inputs\n", total);
	return total > 0 ? 0 : 1;
}
