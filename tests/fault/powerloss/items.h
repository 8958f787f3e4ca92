#ifndef PADDOCK_TESTS_POWERLOSS_ITEMS_H
#define PADDOCK_TESTS_POWERLOSS_ITEMS_H

/*
 * What the driver keeps in the store. Item k = 1, 2, 3, ... is one batch: a put of item k, for some k the deletion of
 * an earlier item, and an audit record. So the state after K batches is known from K alone, and K is the length of the
 * audit log.
 */

/* Open, commit and close the store in `dir` a few times, acknowledging each item by "k\n" on standard output as soon as
 * it is durable. Returns an exit status. */
int items_drive(const char *dir);

/* Check the store in `dir`: it opens, holds the state after K batches for some acked <= K, its audit chain is whole,
 * and it takes another item. 0, or 1 with what is wrong on standard error unless `quiet`. */
int items_check(const char *dir, int acked, int quiet);

#endif
