#ifndef PADDOCK_TESTS_FAULTS_H
#define PADDOCK_TESTS_FAULTS_H

/* The system calls that LMDB commits with, replaced: each can be told to fail. */

extern int fault_data_errno; /* writes of pages to data.mdb */
extern int fault_sync_errno; /* fdatasync() */
extern int fault_meta_errno; /* writes of at most a page: the meta page */
extern int fault_space_gone; /* fstatvfs() says that nothing is free */

#endif
