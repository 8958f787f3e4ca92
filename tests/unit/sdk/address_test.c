#include "test.h"

#include "paddock.h"
#include "sandbox/base/cleanup.h"
#include "sdk/lib/address.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void addresses_are_read(void **state)
{
	static const struct {
		const char *text;
		const char *target; /* NULL: refused */
		bool tls, local;
	} rows[] = {
		{"unix:/run/x.sock", "unix:/run/x.sock", false, true},
		{"unix:///run/x.sock", "unix:/run/x.sock", false, true},
		{"127.0.0.1:7411", "127.0.0.1:7411", false, true},
		{"localhost:1", "localhost:1", false, true},
		{"[::1]:7411", "[::1]:7411", false, true},
		{"example.net:7411", "example.net:7411", false, false},
		{"http://example.net:80", "example.net:80", false, false},
		{"https://example.net:443/", "example.net:443", true, false},
		{"localhost.example.net:1", "localhost.example.net:1", false, false},
		{"unix:", NULL, false, false},
		{"", NULL, false, false},
		{"example.net", NULL, false, false},
		{"example.net:", NULL, false, false},
		{"example.net:0", NULL, false, false},
		{"example.net:65536", NULL, false, false},
		{"example.net:80/path", NULL, false, false},
		{":80", NULL, false, false},
		{"a b:80", NULL, false, false},
		{"xds:///x:80", NULL, false, false},
		{"ftp://x:80", NULL, false, false},
		{"[::1:80", NULL, false, false},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct address address = {0};
		int rc = address_parse(rows[i].text, &address, NULL);

		assert_int_equal(rc, rows[i].target ? 0 : -EINVAL);
		if (rc < 0)
			continue;
		assert_string_equal(address.target, rows[i].target);
		assert_int_equal(address.tls, rows[i].tls);
		assert_int_equal(address.local, rows[i].local);
		address_clear(&address);
	}
}

static void a_key_does_not_leave_in_clear_text(void **state)
{
	struct pdk_error err = {0};
	struct paddock_client *client;

	unsetenv("PADDOCK_INSECURE");
	unsetenv("PADDOCK_API_KEY");
	assert_null(paddock_connect("example.net:7411", "pdk_x_y", &err));
	assert_int_equal(err.code, PDK_INVALID_ARGUMENT);
	assert_non_null(strstr(err.text, "clear text"));
	/* The same without a key, on loopback, or when it was asked for, is fine. */
	client = paddock_connect("example.net:7411", NULL, &err);
	assert_non_null(client);
	paddock_close(client);
	client = paddock_connect("127.0.0.1:7411", "pdk_x_y", &err);
	assert_non_null(client);
	paddock_close(client);
	setenv("PADDOCK_INSECURE", "1", 1);
	client = paddock_connect("example.net:7411", "pdk_x_y", &err);
	assert_non_null(client);
	paddock_close(client);
	unsetenv("PADDOCK_INSECURE");
}

static void a_key_is_visible_ascii(void **state)
{
	struct pdk_error err = {0};

	assert_null(paddock_connect("127.0.0.1:7411", "pdk_x\r\nevil: 1", &err));
	assert_null(strstr(err.text, "evil"));
	assert_null(paddock_connect("127.0.0.1:7411", "pdk_\xc3\xa9", &err));
}

static void a_server_that_is_not_there(void **state)
{
	Paddock__V1__WhoAmIRequest request = PADDOCK__V1__WHO_AM_IREQUEST__INIT;
	Paddock__V1__WhoAmIResponse *reply = NULL;
	struct pdk_error err = {0};
	struct paddock_client *client = paddock_connect("unix:/nonexistent/paddock.sock", NULL, &err);

	assert_non_null(client);
	assert_int_equal(paddock_who_am_i(client, &request, &reply, &err), -ECONNREFUSED);
	assert_int_equal(err.code, PDK_UNAVAILABLE);
	assert_string_equal(err.text, "no server answers at unix:/nonexistent/paddock.sock");
	assert_null(reply);
	paddock_close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_read),
		cmocka_unit_test(a_key_does_not_leave_in_clear_text),
		cmocka_unit_test(a_key_is_visible_ascii),
		cmocka_unit_test(a_server_that_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
