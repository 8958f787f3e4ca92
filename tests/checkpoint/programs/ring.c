/* A tree of 200 processes (the root, 20 children, and 9 or 8 of each of those), all in one ring of pipes: a number goes round and each
 * adds its own position to it. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNT 200
#define ROUNDS 200

static int pipes[COUNT][2];

static void pass_on(int position)
{
	int from = pipes[position - 1][0], to = pipes[position][1];
	long number;

	for (int i = 0; i < COUNT; i++)
		for (int end = 0; end < 2; end++)
			if (pipes[i][end] != from && pipes[i][end] != to)
				close(pipes[i][end]);
	while (read(from, &number, sizeof(number)) == sizeof(number)) {
		number += position;
		if (write(to, &number, sizeof(number)) != sizeof(number))
			break;
	}
	exit(0);
}

int main(void)
{
	long number = 0, wanted = (long)ROUNDS * COUNT * (COUNT - 1) / 2;

	for (int i = 0; i < COUNT; i++)
		if (pipe(pipes[i]) < 0)
			return 1;
	for (int parent = 0; parent < 20; parent++) {
		if (fork() != 0)
			continue;
		for (int child = parent * 10 + 1; child < parent * 10 + (parent ? 10 : 9); child++)
			if (fork() == 0)
				pass_on(child);
		pass_on(parent ? parent * 10 : 9);
	}
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	for (int round = 0; round < ROUNDS; round++) {
		if (write(pipes[0][1], &number, sizeof(number)) != sizeof(number) ||
		    read(pipes[COUNT - 1][0], &number, sizeof(number)) != sizeof(number))
			return 1;
		if (round % 20 == 19)
			printf("@%d\n", round / 20);
	}
	printf("%ld %s\n", number, number == wanted ? "right" : "wrong");
	return 0;
}
