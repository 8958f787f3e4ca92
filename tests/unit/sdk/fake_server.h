#ifndef PADDOCK_TEST_FAKE_SERVER_H
#define PADDOCK_TEST_FAKE_SERVER_H

/*
 * A gRPC server in a thread, for what the real one never does. By the last part of the method's path:
 *	Create		answers with a sandbox whose id is the request's `authorization`
 *	Get		NOT_FOUND "sandbox not found"
 *	List		bytes that are no message
 *	WatchEvents	100 events, then OK
 *	Attach		one event, then nothing until the call is cancelled
 *	Start		ends with UNAVAILABLE after one event
 *	Write		reads all, answers with the number of bytes in `size`
 *	UnpackArchive	refuses after the first message, without reading on
 */
void fake_server_start(const char *path);
void fake_server_stop(void);

#endif
