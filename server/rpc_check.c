#include "rpc_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "sandbox/base/cleanup.h"

/* The table of methods: its index, and the check against the descriptors that clients are built from. A method
 * that is served but not described, described but not served, or streams the other way stops the start. */

static const struct rpc_method **rows; /* sorted by path */

struct path {
	const char *text;
	size_t length;
};

static int compare_rows(const void *a, const void *b)
{
	const struct rpc_method *const *left = a, *const *right = b;

	return strcmp((*left)->path, (*right)->path);
}

static int compare_path(const void *key, const void *element)
{
	const struct path *path = key;
	const struct rpc_method *const *row = element;
	int order = strncmp(path->text, (*row)->path, path->length);

	return order ? order : -(int)((*row)->path[path->length] != '\0');
}

int rpc_table_index(struct pdk_error *err)
{
	const struct rpc_method **index = calloc(rpc_table_size, sizeof(*index));

	if (!index)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	for (size_t i = 0; i < rpc_table_size; i++)
		index[i] = &rpc_table[i];
	qsort(index, rpc_table_size, sizeof(*index), compare_rows);
	free(rows);
	rows = index;
	for (size_t i = 1; i < rpc_table_size; i++) {
		if (strcmp(rows[i - 1]->path, rows[i]->path) == 0)
			return pdk_fail(err, -EEXIST, PDK_INTERNAL, "%s has two rows", rows[i]->path);
	}
	return 0;
}

const struct rpc_method *rpc_table_find(const char *path, size_t length)
{
	struct path key = {.text = path, .length = length};
	const struct rpc_method **found;

	if (memchr(path, '\0', length))
		return NULL;
	found = bsearch(&key, rows, rpc_table_size, sizeof(*rows), compare_path);
	return found ? *found : NULL;
}

static enum rpc_kind kind_of(const Google__Protobuf__MethodDescriptorProto *method)
{
	if (method->client_streaming)
		return method->server_streaming ? RPC_BIDI : RPC_CLIENT_STREAM;
	return method->server_streaming ? RPC_SERVER_STREAM : RPC_UNARY;
}

static int check_method(const char *service, const Google__Protobuf__MethodDescriptorProto *method,
			struct pdk_error *err)
{
	const struct rpc_method *row;
	char path[256];
	int length = snprintf(path, sizeof(path), "/%s/%s", service, method->name);

	row = length < (int)sizeof(path) ? rpc_table_find(path, (size_t)length) : NULL;
	if (!row)
		return pdk_fail(err, -ENOENT, PDK_INTERNAL, "%s is described but has no row", path);
	/* Types are fully qualified there: ".package.Message". */
	if (strcmp(method->input_type + 1, row->request->name) != 0 ||
	    strcmp(method->output_type + 1, row->response->name) != 0)
		return pdk_fail(err, -EINVAL, PDK_INTERNAL, "%s: the row has other message types", path);
	if (kind_of(method) != row->kind)
		return pdk_fail(err, -EINVAL, PDK_INTERNAL, "%s: the row streams differently", path);
	return 0;
}

static int check_service(const char *package, const Google__Protobuf__ServiceDescriptorProto *service,
			 size_t *n_methods, struct pdk_error *err)
{
	char name[200];

	snprintf(name, sizeof(name), "%s.%s", package, service->name);
	for (size_t i = 0; i < service->n_method; i++) {
		int rc = check_method(name, service->method[i], err);

		if (rc < 0)
			return rc;
	}
	*n_methods += service->n_method;
	return 0;
}

static int check_set(const Google__Protobuf__FileDescriptorSet *set, struct pdk_error *err)
{
	size_t n_methods = 0;

	for (size_t i = 0; i < set->n_file; i++) {
		const Google__Protobuf__FileDescriptorProto *file = set->file[i];

		for (size_t s = 0; s < file->n_service; s++) {
			int rc = check_service(file->package, file->service[s], &n_methods, err);

			if (rc < 0)
				return rc;
		}
	}
	/* Every method has a row and no row is there twice, so equal numbers mean that no row is left over but those that
	 * are for our own processes. */
	for (size_t i = 0; i < rpc_table_size; i++)
		n_methods += rpc_table[i].link_only;
	if (n_methods != rpc_table_size)
		return pdk_fail(err, -EINVAL, PDK_INTERNAL, "%zu methods are described, %zu have a row", n_methods,
				rpc_table_size);
	return 0;
}

int rpc_table_check(const uint8_t *bytes, size_t length, struct pdk_error *err)
{
	Google__Protobuf__FileDescriptorSet *set = google__protobuf__file_descriptor_set__unpack(NULL, length, bytes);
	int rc;

	if (!set)
		return pdk_fail(err, -EBADMSG, PDK_INTERNAL, "the descriptor set does not parse");
	rc = check_set(set, err);
	google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
	return rc < 0 ? pdk_wrap(err, rc, "method table") : 0;
}
