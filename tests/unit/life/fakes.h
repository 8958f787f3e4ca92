#ifndef PADDOCK_TESTS_LIFE_FAKES_H
#define PADDOCK_TESTS_LIFE_FAKES_H

#include "server/auth.h"
#include "server/config.h"
#include "server/rpc.h"
#include "server/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Needs what stands above. */
#include <cmocka.h>

/*
 * Everything around the life cycle, in one thread: a loop whose clock a test moves, a store in memory whose
 * commits are done on the next turn, calls that record their end, tenants with one quota, guests that answer
 * hello. Only the warden is a thread, behind a real socket (fake_warden.h).
 */

/* --- loop --- */
void fake_loop_advance_ms(int64_t ms); /* both clocks */
/* Turn the loop until `condition` holds; fails the test after 5 s. */
#define RUN_UNTIL(condition)                                                                                           \
	do {                                                                                                           \
		for (int turns_ = 0; !(condition); turns_++) {                                                         \
			if (turns_ > 5000)                                                                             \
				fail_msg("%s:%d: never: %s", __FILE__, __LINE__, #condition);                          \
			fake_loop_turn(1);                                                                             \
		}                                                                                                      \
	} while (0)
void fake_loop_turn(int timeout_ms);
/* Let everything that is on its way arrive. */
void fake_loop_settle(void);
unsigned int fake_loop_timers(void);
unsigned int fake_loop_watches(void);

/* --- calls --- */
struct fake_call;
struct rpc_call {
	struct principal principal;
	const struct rpc_events *events;
	void *user;
	bool finished, cancelled, sending, hold_sends;
	unsigned int reads;
	enum pdk_code code;
	char text[PDK_ERROR_TEXT_MAX];
	uint8_t *reply;
	size_t reply_length;
	uint8_t **sent;
	size_t *sent_length;
	unsigned int n_sent;
	void **arena;
	unsigned int n_arena;
	size_t arena_left;
	char object[32];
	struct rpc_call *next_pending; /* commits */
};
struct rpc_call *fake_call(const char *tenant);
struct rpc_call *fake_call_operator(void);
void fake_call_free(struct rpc_call *call);
void fake_call_cancel(struct rpc_call *call);
/* The last message has left. */
void fake_call_sent(struct rpc_call *call);

/* --- store --- */
void fake_store_reset(void);
unsigned int fake_store_count(enum store_db db);
extern bool fake_store_fails;
unsigned int fake_audit_count(const char *action);

/* --- the rest --- */
extern struct tenant_quota fake_quota;
extern bool fake_guest_silent; /* hello is not answered */
extern bool fake_guest_refuses;
extern unsigned int fake_guest_setups, fake_guests;
extern unsigned int fake_guest_resumed; /* how often one was told; and the last time, how long it stood still */
extern uint64_t fake_guest_paused_ms;
extern bool fake_guest_starts; /* its image has a start and a ready file */
/* The call from inside that is open, what it starts, and where; it ends as the test says. */
extern struct rpc_local *fake_local;
extern char fake_local_file[64], fake_local_sandbox[32];
void fake_local_exit(uint32_t status);
void fake_local_end(enum pdk_code code);
void fake_guest_break_all(const char *text);
extern unsigned int fake_previews_ended, fake_previews_suspended;
extern unsigned int fake_processes_ended, fake_processes_forgotten, fake_processes_adopted;

#endif
