#ifndef PADDOCK_BASE_LINGER_H
#define PADDOCK_BASE_LINGER_H

/*
 * The last close() of a TCP socket with SO_LINGER waits until the other side has taken everything, for as long as whoever
 * set the option likes, O_NONBLOCK or not. So a stranger's descriptor that came over a socket can stop the loop of
 * whoever closes it, also where the kernel closes it: one that was not taken from a message, or still waits in a socket
 * that is closed. A signal ends that wait. Between begin and end one comes, every few milliseconds.
 *
 *	linger_begin();
 *	n = recvmsg(...); close(...);
 *	linger_end();
 *
 * Not nested, and by one thread at a time. SIGALRM and the process's ITIMER_REAL belong to this, in programs that call
 * linger_setup(); elsewhere begin and end do nothing. In a program with several threads all have SIGALRM blocked.
 */

void linger_setup(void);
void linger_begin(void);
void linger_end(void);

#endif
