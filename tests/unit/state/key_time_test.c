#include "fake_rpc.h"

#include "paddock/v1/admin.pb-c.h"
#include "server/admin.h"
#include "server/auth.h"
#include "server/keys.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * How long the check of a key takes must not tell how much of it is right. Times are noise; instructions are not: a child does
 * the check, and its parent counts its steps. The control is a comparison that stops at the first difference.
 */

#define SECRET_AT (strlen("Bearer pdk_") + KEY_ID_LEN + 1)

static char *dir;

static int open_store(void **state)
{
	dir = fake_make_dir();
	assert_int_equal(store_open(dir, &(struct pdk_error){0}), 0);
	loop_lock();
	assert_int_equal(auth_load(&(struct pdk_error){0}), 0);
	return 0;
}

static int close_store(void **state)
{
	loop_unlock();
	store_close();
	fake_remove_dir(dir);
	return 0;
}

static char *make_key(void)
{
	Paddock__V1__CreateKeyRequest request = PADDOCK__V1__CREATE_KEY_REQUEST__INIT;
	struct rpc_call *call = fake_call();
	Paddock__V1__CreateKeyResponse *reply;
	char *header;

	admin_create_key(call, &request.base);
	fake_expect(call, PDK_OK);
	reply = (void *)fake_reply(call, &paddock__v1__create_key_response__descriptor);
	assert_true(asprintf(&header, "Bearer %s", reply->secret) > 0);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	fake_call_free(call);
	return header;
}

static void check_key(const char *header, const char *right)
{
	struct principal principal;

	auth_check(header, &principal, &(struct pdk_error){0});
}

/* What must not be done. */
static void check_carelessly(const char *header, const char *right)
{
	static volatile size_t same;

	for (same = 0; header[same] && header[same] == right[same];)
		same++;
}

/* Instructions of the check, and the constant number around it. */
static long count_steps(void (*check)(const char *header, const char *right), const char *header, const char *right)
{
	pid_t pid = fork();
	long steps = 0;
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		kill(getpid(), SIGSTOP);
		check(header, right);
		kill(getpid(), SIGSTOP);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	for (;; steps++) {
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSTOPPED(status));
		if (WSTOPSIG(status) == SIGSTOP)
			break;
		assert_int_equal(WSTOPSIG(status), SIGTRAP);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return steps;
}

/* A check looks at the clock, which looks again if it is moved on just then, and steps are slow: that only adds some. */
static long steps_of(void (*check)(const char *header, const char *right), const char *header, const char *right)
{
	long least = count_steps(check, header, right);

	for (int i = 1; i < 3; i++) {
		long steps = count_steps(check, header, right);

		least = steps < least ? steps : least;
	}
	return least;
}

/* The key with one character of its secret changed; another of its kind, so that spelling makes no difference. */
static char *wrong_at(const char *header, size_t at)
{
	char *wrong = strdup(header), *c = &wrong[SECRET_AT + at];

	*c = *c == 'a' ? 'b' : 'a';
	return wrong;
}

static void no_character_is_special(void **state)
{
	static const size_t places[] = {0, 1, 7, 20, 41, 42};
	char *right = make_key();
	long all_wrong = 0, careless_first, careless_last;

	check_key(right, right); /* what is made at the first use is there now */
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char *wrong = wrong_at(right, places[i]);
		long steps = steps_of(check_key, wrong, right);

		if (i == 0)
			all_wrong = steps;
		assert_true(steps > 1000); /* a hash was made of it */
		assert_int_equal(steps, all_wrong);
		free(wrong);
	}
	{
		char *first = wrong_at(right, 0), *last = wrong_at(right, 42);

		careless_first = steps_of(check_carelessly, first, right);
		careless_last = steps_of(check_carelessly, last, right);
		assert_true(careless_last > careless_first + 42);
		free(first);
		free(last);
	}
	free(right);
}

/* An id that is nobody's costs a hash and a comparison too: at most a look at one more key in the table differs. */
static void nor_is_an_unknown_id(void **state)
{
	char *right = make_key(), *wrong = wrong_at(right, 0), *unknown = strdup(wrong);
	long of_known, of_unknown, difference;

	check_key(right, right);
	memset(unknown + strlen("Bearer pdk_"), 'q', KEY_ID_LEN);
	of_known = steps_of(check_key, wrong, right);
	of_unknown = steps_of(check_key, unknown, right);
	difference = of_known > of_unknown ? of_known - of_unknown : of_unknown - of_known;
	assert_true(difference < of_known / 20);
	free(right);
	free(wrong);
	free(unknown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_character_is_special, open_store, close_store),
		cmocka_unit_test_setup_teardown(nor_is_an_unknown_id, open_store, close_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
