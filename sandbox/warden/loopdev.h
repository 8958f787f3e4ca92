#ifndef PADDOCK_WARDEN_LOOPDEV_H
#define PADDOCK_WARDEN_LOOPDEV_H

#include <stddef.h>

/* Attach an image to a loop device, or find the device it is attached to already. Writes "/dev/loopN" and
 * returns an open descriptor of it; the device goes away by itself when nothing uses it any more. */
int loopdev_attach(int image, char *path, size_t size);

#endif
