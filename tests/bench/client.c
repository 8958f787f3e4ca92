#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sample.h"
#include "sandbox/base/cleanup.h"

static void fail(const char *what, const struct pdk_error *err)
{
	fprintf(stderr, "bench: %s: %s\n", what, err->text);
	exit(1);
}

struct paddock_client *bench_connect(void)
{
	struct pdk_error err = {0};
	struct paddock_client *client = paddock_connect(NULL, NULL, &err);

	if (!client)
		fail("connect", &err);
	return client;
}

static char *create(struct paddock_client *client, Paddock__V1__Resources *resources)
{
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	struct pdk_error err = {0};
	char *id;

	request.timeout_ms = 3600000;
	request.resources = resources;
	if (paddock_sandbox_create(client, &request, &sandbox, &err) < 0)
		fail("create", &err);
	id = strdup(sandbox->id);
	paddock_free(sandbox);
	return id;
}

char *bench_create(struct paddock_client *client)
{
	return create(client, NULL);
}

char *bench_create_cold(struct paddock_client *client)
{
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;

	resources.max_pids = 300;
	return create(client, &resources);
}

char *bench_create_sized(struct paddock_client *client, uint64_t memory_bytes)
{
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;

	resources.memory_bytes = memory_bytes;
	return create(client, &resources);
}

void bench_kill(struct paddock_client *client, const char *id)
{
	Paddock__V1__KillSandboxRequest request = PADDOCK__V1__KILL_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	struct pdk_error err = {0};

	request.sandbox_id = (char *)id;
	if (paddock_sandbox_kill(client, &request, &sandbox, &err) < 0)
		fail("kill", &err);
	paddock_free(sandbox);
}

struct paddock_stream *bench_start(struct paddock_client *client, const char *id, char *const *argv, size_t n_argv)
{
	Paddock__V1__StartProcessRequest request = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	struct pdk_error err = {0};
	struct paddock_stream *stream;

	request.sandbox_id = (char *)id;
	request.argv = (char **)argv;
	request.n_argv = n_argv;
	stream = paddock_process_start(client, &request, &err);
	if (!stream)
		fail("start", &err);
	return stream;
}

uint64_t bench_exec(struct paddock_client *client, const char *id, char *const *argv, size_t n_argv)
{
	Paddock__V1__ProcessEvent *event = NULL;
	struct pdk_error err = {0};
	struct paddock_stream *stream = bench_start(client, id, argv, n_argv);
	uint64_t bytes = 0;
	int rc;

	while ((rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &err)) > 0) {
		if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT)
			bytes += event->output->data.len;
		if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED && event->exited->exit_code != 0) {
			fprintf(stderr, "bench: %s exited with %u\n", argv[0], event->exited->exit_code);
			exit(1);
		}
		paddock_free(event);
	}
	if (rc < 0)
		fail("exec", &err);
	paddock_stream_free(stream);
	return bytes;
}

void bench_true(struct paddock_client *client, const char *id)
{
	static char *const argv[] = {(char *)"/bin/true"};

	bench_exec(client, id, argv, 1);
}

static double rate(uint64_t bytes, uint64_t start)
{
	return (double)bytes / 1e6 / ((double)(bench_now_ns() - start) / 1e9);
}

double bench_file_read(struct paddock_client *client, const char *id, const char *path)
{
	Paddock__V1__ReadFileRequest request = PADDOCK__V1__READ_FILE_REQUEST__INIT;
	Paddock__V1__FileChunk *chunk = NULL;
	struct pdk_error err = {0};
	struct paddock_stream *stream;
	uint64_t start = bench_now_ns();
	uint64_t bytes = 0;
	int rc;

	request.sandbox_id = (char *)id;
	request.path.data = (uint8_t *)path;
	request.path.len = strlen(path);
	stream = paddock_file_read(client, &request, &err);
	if (!stream)
		fail("read", &err);
	while ((rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &chunk, &err)) > 0) {
		bytes += chunk->data.len;
		paddock_free(chunk);
	}
	if (rc < 0)
		fail("read", &err);
	paddock_stream_free(stream);
	return rate(bytes, start);
}

double bench_file_write(struct paddock_client *client, const char *id, const char *path, uint64_t bytes)
{
	static uint8_t data[PADDOCK_CHUNK_MAX];
	Paddock__V1__WriteFileHeader header = PADDOCK__V1__WRITE_FILE_HEADER__INIT;
	Paddock__V1__WriteFileRequest request = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;
	Paddock__V1__FileInfo *info = NULL;
	struct pdk_error err = {0};
	uint64_t start = bench_now_ns();
	struct paddock_stream *stream = paddock_file_write(client, &err);

	if (!stream)
		fail("write", &err);
	header.sandbox_id = (char *)id;
	header.path.data = (uint8_t *)path;
	header.path.len = strlen(path);
	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_HEADER;
	request.header = &header;
	if (paddock_stream_send(stream, &request, &err) < 0)
		fail("write", &err);
	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_DATA;
	request.data.data = data;
	request.data.len = sizeof(data);
	for (uint64_t sent = 0; sent < bytes; sent += sizeof(data))
		if (paddock_stream_send(stream, &request, &err) < 0)
			break;
	if (paddock_stream_finish(stream, &info, &err) < 0)
		fail("write", &err);
	paddock_free(info);
	paddock_stream_free(stream);
	return rate(bytes, start);
}
