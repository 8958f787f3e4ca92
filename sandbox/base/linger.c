#include "sandbox/base/linger.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/time.h>

#define PERIOD_US 5000

static bool is_set_up;
static sigset_t mask_before;

static void wake(int signal)
{
}

void linger_setup(void)
{
	/* Not to be seen by other calls than the wait, if one comes late. */
	struct sigaction action = {.sa_handler = wake, .sa_flags = SA_RESTART};

	is_set_up = sigaction(SIGALRM, &action, NULL) == 0;
}

void linger_begin(void)
{
	static const struct itimerval timer = {{0, PERIOD_US}, {0, PERIOD_US}};
	sigset_t set;

	if (!is_set_up)
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, &mask_before);
	setitimer(ITIMER_REAL, &timer, NULL);
}

void linger_end(void)
{
	static const struct itimerval none;

	if (!is_set_up)
		return;
	setitimer(ITIMER_REAL, &none, NULL);
	pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
}
