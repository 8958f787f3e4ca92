#ifndef PADDOCK_BASE_FAULT_H
#define PADDOCK_BASE_FAULT_H

/*
 * Named points at which the fault tests end a process, as a kill -9 or a power cut would: with the build
 * option PADDOCK_FAULTS and the environment PADDOCK_FAULT=name:n, the n-th passing of FAULT("name") is
 * _exit(137). In every other build the macro is nothing.
 */
#ifdef PADDOCK_FAULTS
void fault_point(const char *name);
#define FAULT(name) fault_point(name)
#else
#define FAULT(name) ((void)0)
#endif

#endif
