#include "reflection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "rpc_internal.h"

/*
 * Answers from the descriptor set that the method table was checked against. v1 and v1alpha differ in nothing
 * but the package name: same fields, same numbers, so the C structures are the same too, and one handler serves
 * both rows with the v1 types.
 */

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;
typedef Grpc__Reflection__V1alpha__ServerReflectionRequest AlphaRequest;
typedef Google__Protobuf__FileDescriptorProto File;

_Static_assert(sizeof(Request) == sizeof(AlphaRequest), "v1 and v1alpha have the same fields");
_Static_assert(offsetof(Request, message_request_case) == offsetof(AlphaRequest, message_request_case),
	       "v1 and v1alpha have the same fields");

#define FILES_MAX 64
#define SERVICES_MAX 64

struct file {
	const File *descriptor;
	ProtobufCBinaryData bytes; /* as it lies in the set */
};

static Google__Protobuf__FileDescriptorSet *set;
static struct file files[FILES_MAX];
static size_t n_files;

/* Index */

static uint64_t get_varint(const uint8_t **at, const uint8_t *end)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; *at < end && shift < 64; shift += 7) {
		uint8_t byte = *(*at)++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			break;
	}
	return value;
}

/* A FileDescriptorSet is nothing but field 1, again and again: the bytes of each file are handed out as they are. */
static int index_files(void)
{
	const uint8_t *at = rpc_descriptor_set, *end = at + rpc_descriptor_set_size;

	for (n_files = 0; at < end; n_files++) {
		uint64_t tag = get_varint(&at, end);
		uint64_t length = get_varint(&at, end);

		if (tag != (1 << 3 | 2) || length > (uint64_t)(end - at) || n_files == FILES_MAX ||
		    n_files == set->n_file)
			return -EBADMSG;
		files[n_files] = (struct file){
			.descriptor = set->file[n_files],
			.bytes = {.len = length, .data = (uint8_t *)(uintptr_t)at},
		};
		at += length;
	}
	return n_files == set->n_file ? 0 : -EBADMSG;
}

int reflection_start(struct pdk_error *err)
{
	if (set)
		return 0;
	set = google__protobuf__file_descriptor_set__unpack(NULL, rpc_descriptor_set_size, rpc_descriptor_set);
	if (!set || index_files() < 0)
		return pdk_fail(err, -EBADMSG, PDK_INTERNAL, "reflection: the descriptor set does not parse");
	return 0;
}

/* Look-up. Names are compared piece by piece: "package" "." "Message" "." "Nested". */

/* What is left of `name` behind `piece` and a dot; "" if nothing is; NULL if it begins otherwise. */
static const char *name_behind(const char *name, const char *piece)
{
	size_t length = strlen(piece);

	if (strncmp(name, piece, length) != 0)
		return NULL;
	if (name[length] == '\0')
		return "";
	return name[length] == '.' ? name + length + 1 : NULL;
}

static bool message_has(const Google__Protobuf__DescriptorProto *message, const char *name)
{
	const char *rest = name_behind(name, message->name);

	if (!rest || !*rest)
		return rest != NULL;
	for (size_t i = 0; i < message->n_nested_type; i++) {
		if (message_has(message->nested_type[i], rest))
			return true;
	}
	for (size_t i = 0; i < message->n_enum_type; i++) {
		if (strcmp(message->enum_type[i]->name, rest) == 0)
			return true;
	}
	for (size_t i = 0; i < message->n_field; i++) {
		if (strcmp(message->field[i]->name, rest) == 0)
			return true;
	}
	return false;
}

static bool service_has(const Google__Protobuf__ServiceDescriptorProto *service, const char *name)
{
	const char *rest = name_behind(name, service->name);

	if (!rest || !*rest)
		return rest != NULL;
	for (size_t i = 0; i < service->n_method; i++) {
		if (strcmp(service->method[i]->name, rest) == 0)
			return true;
	}
	return false;
}

static bool file_has(const File *file, const char *symbol)
{
	const char *name = file->package && *file->package ? name_behind(symbol, file->package) : symbol;

	if (!name || !*name)
		return false;
	for (size_t i = 0; i < file->n_service; i++) {
		if (service_has(file->service[i], name))
			return true;
	}
	for (size_t i = 0; i < file->n_message_type; i++) {
		if (message_has(file->message_type[i], name))
			return true;
	}
	for (size_t i = 0; i < file->n_enum_type; i++) {
		if (strcmp(file->enum_type[i]->name, name) == 0)
			return true;
	}
	return false;
}

static const struct file *find_file(const char *name)
{
	for (size_t i = 0; i < n_files; i++) {
		if (strcmp(files[i].descriptor->name, name) == 0)
			return &files[i];
	}
	return NULL;
}

static const struct file *find_symbol(const char *symbol)
{
	for (size_t i = 0; i < n_files; i++) {
		if (file_has(files[i].descriptor, symbol))
			return &files[i];
	}
	return NULL;
}

/* Answers */

/* A file and what it imports, imports first come last, each once. */
static size_t collect(const struct file *file, ProtobufCBinaryData out[FILES_MAX], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (out[i].data == file->bytes.data)
			return n;
	}
	out[n++] = file->bytes;
	for (size_t i = 0; i < file->descriptor->n_dependency; i++) {
		const struct file *import = find_file(file->descriptor->dependency[i]);

		if (import)
			n = collect(import, out, n);
	}
	return n;
}

static void reply(struct rpc_call *call, Request *request, Response *response)
{
	response->valid_host = request->host;
	response->original_request = request;
	rpc_send(call, &response->base);
}

static void reply_error(struct rpc_call *call, Request *request, enum pdk_code code, const char *text)
{
	Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

	error.error_code = (int32_t)code;
	error.error_message = (char *)(uintptr_t)text;
	response.message_response_case =
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
	response.error_response = &error;
	reply(call, request, &response);
}

static void reply_file(struct rpc_call *call, Request *request, const struct file *file)
{
	Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	Grpc__Reflection__V1__FileDescriptorResponse found = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
	ProtobufCBinaryData protos[FILES_MAX];

	if (!file) {
		reply_error(call, request, PDK_NOT_FOUND, "no such file or symbol");
		return;
	}
	found.n_file_descriptor_proto = collect(file, protos, 0);
	found.file_descriptor_proto = protos;
	response.message_response_case =
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
	response.file_descriptor_response = &found;
	reply(call, request, &response);
}

static void reply_services(struct rpc_call *call, Request *request)
{
	Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	Grpc__Reflection__V1__ListServiceResponse list = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
	Grpc__Reflection__V1__ServiceResponse services[SERVICES_MAX], *pointers[SERVICES_MAX];
	char names[SERVICES_MAX][128];

	for (size_t i = 0; i < n_files; i++) {
		const File *file = files[i].descriptor;

		for (size_t s = 0; s < file->n_service && list.n_service < SERVICES_MAX; s++) {
			size_t n = list.n_service++;

			snprintf(names[n], sizeof(names[n]), "%s.%s", file->package, file->service[s]->name);
			grpc__reflection__v1__service_response__init(&services[n]);
			services[n].name = names[n];
			pointers[n] = &services[n];
		}
	}
	list.service = pointers;
	response.message_response_case =
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
	response.list_services_response = &list;
	reply(call, request, &response);
}

static void answer(struct rpc_call *call, Request *request)
{
	switch ((int)request->message_request_case) {
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
		reply_file(call, request, find_file(request->file_by_filename));
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
		reply_file(call, request, find_symbol(request->file_containing_symbol));
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
		reply_services(call, request);
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
		reply_error(call, request, PDK_NOT_FOUND, "there are no extensions");
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
	default:
		reply_error(call, request, PDK_INVALID_ARGUMENT, "message_request: not given");
		break;
	}
}

/* One request, one answer; the next is read when the answer has left. */
static void on_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	answer(call, (Request *)(uintptr_t)message);
}

static void on_sent(struct rpc_call *call)
{
	rpc_read(call);
}

static void on_half_close(struct rpc_call *call)
{
	rpc_finish(call, NULL);
}

void reflection_info(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {
		.on_message = on_message, .on_sent = on_sent, .on_half_close = on_half_close};
	struct pdk_error err;

	if (!server_config.reflection) {
		pdk_fail(&err, -ENOSYS, PDK_UNIMPLEMENTED, "reflection is off");
		rpc_fail(call, &err);
		return;
	}
	rpc_set_events(call, &events, NULL);
}
