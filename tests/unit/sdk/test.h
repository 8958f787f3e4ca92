#ifndef PADDOCK_TEST_SDK_H
#define PADDOCK_TEST_SDK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
