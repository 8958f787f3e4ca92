#ifndef PADDOCK_TESTS_FAULTS_H
#define PADDOCK_TESTS_FAULTS_H

/* The system calls that LMDB commits with, replaced: each can be told to fail. */

extern _Atomic int fault_data_errno; /* writes of pages to data.mdb */
extern _Atomic int fault_sync_errno; /* fdatasync() */
extern _Atomic int fault_meta_errno; /* writes of at most a page: the meta page */
extern _Atomic int fault_space_gone; /* fstatvfs() says that nothing is free */

#endif
