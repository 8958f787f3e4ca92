#ifndef PADDOCK_TEST_SERVICE_H
#define PADDOCK_TEST_SERVICE_H

#include <stdatomic.h>
#include <stdint.h>

#include "server/config.h"

/* A running engine with the methods of core_test.proto, and what the fakes saw. */

#define GOOD_KEY "Bearer pdk_good"
#define READ_KEY "Bearer pdk_read" /* no scope that the test methods want */

extern atomic_int store_commits, store_records, events_recorded, releases;
extern atomic_int hang_cancelled;                                /* enum pdk_code of the last cancelled Hang */
extern atomic_llong bytes_produced;                              /* by Bytes */
extern atomic_int store_result;                                  /* what commits end with */
extern atomic_int store_keeps;                                   /* it has a journal */
extern char last_outcome[32], last_action[64], last_detail[256]; /* of the last audit record; read with the lock held */

/* Start in a fresh folder; the addresses are unix:FOLDER/{admin,paddock}.sock. */
void service_start(void (*adjust)(struct config *config));
void service_stop(uint32_t grace_ms);
const char *service_address(const char *socket);
const char *service_folder(void);

#endif
