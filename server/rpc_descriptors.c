#include "rpc_internal.h"

#include "descriptors.h"

const uint8_t *const rpc_descriptor_set = proto_descriptor_set;
const size_t rpc_descriptor_set_size = sizeof(proto_descriptor_set);
