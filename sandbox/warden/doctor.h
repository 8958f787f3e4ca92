#ifndef PADDOCK_WARDEN_DOCTOR_H
#define PADDOCK_WARDEN_DOCTOR_H

#include <stdbool.h>

/* What the host must offer. Prints one line per feature (or a JSON array) with the mend for what is missing, to
 * stdout when `all`, else only what is missing, to stderr. Returns the number of missing features. */
int doctor_run(bool all, bool json);

#endif
