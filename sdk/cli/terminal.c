#include "terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static volatile sig_atomic_t is_raw;

void terminal_restore(void)
{
	if (!is_raw)
		return;
	is_raw = 0;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
}

/* tcsetattr() is async-signal-safe. The handler is one-shot, so the signal then takes its usual course. */
static void restore_and_die(int number)
{
	terminal_restore();
	raise(number);
}

int terminal_raw(void)
{
	static const int deadly[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGPIPE};
	struct sigaction action = {.sa_handler = restore_and_die, .sa_flags = SA_RESETHAND | SA_NODEFER};
	struct termios raw;
	size_t i;

	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return -errno;
	for (i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		sigaction(deadly[i], &action, NULL);
	atexit(terminal_restore);
	raw = saved;
	cfmakeraw(&raw);
	is_raw = 1;
	if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) < 0) {
		is_raw = 0;
		return -errno;
	}
	return 0;
}

void terminal_size(uint32_t *ret_columns, uint32_t *ret_rows)
{
	struct winsize size;

	*ret_columns = 80;
	*ret_rows = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
		return;
	if (size.ws_col > 0 && size.ws_row > 0) {
		*ret_columns = size.ws_col < 4096 ? size.ws_col : 4096;
		*ret_rows = size.ws_row < 4096 ? size.ws_row : 4096;
	}
}
