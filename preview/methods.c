#include "methods.h"

#include <errno.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptors.h"
#include "e2b/filesystem.pb-c.h"
#include "e2b/process.pb-c.h"
#include "paddock/v1/admin.pb-c.h"
#include "paddock/v1/files.pb-c.h"
#include "paddock/v1/previews.pb-c.h"
#include "paddock/v1/processes.pb-c.h"
#include "paddock/v1/sandboxes.pb-c.h"
#include "paddock/v1/snapshots.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "sandbox/base/cleanup.h"

#define METHODS_MAX 128

/* All that a client may call: what a key may do is decided behind, as for gRPC. */
static const ProtobufCServiceDescriptor *const services[] = {
	&paddock__v1__sandboxes__descriptor, &paddock__v1__processes__descriptor, &paddock__v1__files__descriptor,
	&paddock__v1__templates__descriptor, &paddock__v1__snapshots__descriptor, &paddock__v1__previews__descriptor,
	&paddock__v1__admin__descriptor,     &paddock__v1__audit__descriptor,     &process__process__descriptor,
	&filesystem__filesystem__descriptor,
};

static struct method methods[METHODS_MAX];
static unsigned int count;

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct method *)a)->path, ((const struct method *)b)->path);
}

static int add_method(const ProtobufCServiceDescriptor *service, const Google__Protobuf__MethodDescriptorProto *from,
		      struct pdk_error *err)
{
	const ProtobufCMethodDescriptor *known = protobuf_c_service_descriptor_get_method_by_name(service, from->name);
	struct method *method = &methods[count];

	if (!known || count == METHODS_MAX)
		return pdk_fail(err, -EINVAL, PDK_INTERNAL, "%s.%s is not in both descriptions", service->name,
				from->name);
	snprintf(method->path, sizeof(method->path), "/%s/%s", service->name, from->name);
	method->request = known->input;
	method->reply = known->output;
	method->client_streams = from->client_streaming;
	method->server_streams = from->server_streaming;
	count++;
	return 0;
}

static const Google__Protobuf__ServiceDescriptorProto *find_service(const Google__Protobuf__FileDescriptorSet *set,
								    const char *name)
{
	for (size_t i = 0; i < set->n_file; i++) {
		const Google__Protobuf__FileDescriptorProto *file = set->file[i];
		size_t prefix = strlen(file->package);

		for (size_t n = 0; n < file->n_service; n++) {
			if (strncmp(name, file->package, prefix) == 0 && name[prefix] == '.' &&
			    strcmp(name + prefix + 1, file->service[n]->name) == 0)
				return file->service[n];
		}
	}
	return NULL;
}

int methods_load(struct pdk_error *err)
{
	Google__Protobuf__FileDescriptorSet *set =
		google__protobuf__file_descriptor_set__unpack(NULL, sizeof(proto_descriptor_set), proto_descriptor_set);
	int rc = set ? 0 : pdk_fail(err, -EINVAL, PDK_INTERNAL, "the descriptor set is damaged");

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(services); i++) {
		const Google__Protobuf__ServiceDescriptorProto *service = find_service(set, services[i]->name);

		if (!service)
			rc = pdk_fail(err, -EINVAL, PDK_INTERNAL, "%s is not in the descriptor set", services[i]->name);
		for (size_t n = 0; rc == 0 && n < service->n_method; n++)
			rc = add_method(services[i], service->method[n], err);
	}
	if (set)
		google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
	qsort(methods, count, sizeof(methods[0]), by_path);
	return rc;
}

const struct method *method_find(const char *path)
{
	struct method key;

	if (strlen(path) >= sizeof(key.path))
		return NULL;
	strcpy(key.path, path);
	return bsearch(&key, methods, count, sizeof(methods[0]), by_path);
}

unsigned int methods_count(void)
{
	return count;
}
