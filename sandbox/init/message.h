#ifndef PADDOCK_INIT_MESSAGE_H
#define PADDOCK_INIT_MESSAGE_H

#include "paddock/internal/guest.pb-c.h"

/* Names short enough to read: guest_request is what paddockd sends, guest_reply what init answers. */
#define guest_request Paddock__Internal__GuestRequest
#define guest_reply Paddock__Internal__GuestReply
#define guest_message(name) Paddock__Internal__Guest##name
#define GUEST_REPLY_INIT ((guest_reply)PADDOCK__INTERNAL__GUEST_REPLY__INIT)
#define GUEST_OP(name) PADDOCK__INTERNAL__GUEST_REQUEST__OP_##name
#define GUEST_RESULT(name) PADDOCK__INTERNAL__GUEST_REPLY__RESULT_##name

/* The version of guest.proto that this init speaks. */
#define GUEST_VERSION 1u

#endif
