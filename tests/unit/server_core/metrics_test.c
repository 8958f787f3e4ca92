#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"
#include "server/metrics.h"

static char answer[256 << 10];
static int port;

/* A port that was free a moment ago. */
static int free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	return ntohs(address.sin_port);
}

static void get(const char *request)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM, 0);
	size_t used = 0;
	ssize_t n;

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	dprintf(fd, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", request);
	while ((n = read(fd, answer + used, sizeof(answer) - 1 - used)) > 0)
		used += (size_t)n;
	answer[used] = '\0';
}

static void scrape_has_everything(void **state)
{
	static const char path[] = "/paddock.test.Test/Echo";

	metric_add(METRIC_SANDBOXES, 3);
	metric_add(METRIC_SANDBOXES, -1);
	metric_set(METRIC_POOL_READY, 7);
	metric_call(path, "OK", 120000);
	metric_call(path, "OK", 3000000);
	metric_call(path, "NOT_FOUND", 90000000000u);
	get("GET /metrics");
	assert_non_null(strstr(answer, "HTTP/1.1 200"));
	assert_non_null(strstr(answer, "\npaddock_sandboxes 2\n"));
	assert_non_null(strstr(answer, "\npaddock_pool_ready 7\n"));
	assert_non_null(strstr(answer, "\npaddock_calls_total{method=\"paddock.test.Test/Echo\",code=\"OK\"} 2\n"));
	assert_non_null(
		strstr(answer, "\npaddock_calls_total{method=\"paddock.test.Test/Echo\",code=\"NOT_FOUND\"} 1\n"));
	assert_non_null(strstr(answer, "bucket{method=\"paddock.test.Test/Echo\",le=\"0.0001\"} 0\n"));
	assert_non_null(strstr(answer, "bucket{method=\"paddock.test.Test/Echo\",le=\"0.00025\"} 1\n"));
	assert_non_null(strstr(answer, "bucket{method=\"paddock.test.Test/Echo\",le=\"0.005\"} 2\n"));
	assert_non_null(strstr(answer, "bucket{method=\"paddock.test.Test/Echo\",le=\"60\"} 2\n"));
	assert_non_null(strstr(answer, "bucket{method=\"paddock.test.Test/Echo\",le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(answer, "count{method=\"paddock.test.Test/Echo\"} 3\n"));
}

static void other_requests_are_refused(void **state)
{
	get("GET /etc/passwd");
	assert_non_null(strstr(answer, "HTTP/1.1 404"));
	get("POST /metrics");
	assert_non_null(strstr(answer, "HTTP/1.1 405"));
	get("GET /healthz");
	assert_non_null(strstr(answer, "HTTP/1.1 200"));
}

static void only_loopback(void **state)
{
	static const char *const wrong[] = {"0.0.0.0:7412",  "[::]:7412", "10.0.0.1:1",
					    "example.com:1", "7412",      ":7412"};
	struct pdk_error err;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_true(metrics_start(wrong[i], &err) < 0);
	assert_int_equal(metrics_start("", &err), 0);
}

static int setup(void **state)
{
	struct pdk_error err = {};
	char address[32];

	port = free_port();
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	return metrics_start(address, &err);
}

static int teardown(void **state)
{
	metrics_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scrape_has_everything),
		cmocka_unit_test(other_requests_are_refused),
	};
	const struct CMUnitTest refusals[] = {cmocka_unit_test(only_loopback)};

	return cmocka_run_group_tests(tests, setup, teardown) + cmocka_run_group_tests(refusals, NULL, NULL);
}
