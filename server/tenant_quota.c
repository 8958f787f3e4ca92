#include "auth.h"
#include "paddock/v1/admin.pb-c.h"

void tenant_show_quota(const char *name, struct Paddock__V1__Quota *ret)
{
	struct tenant_quota quota;

	tenant_get_quota(name, &quota);
	paddock__v1__quota__init(ret);
	ret->max_sandboxes = quota.max_sandboxes;
	ret->creates_per_minute = quota.creates_per_minute;
	ret->max_templates = quota.max_templates;
	ret->max_snapshots = quota.max_snapshots;
	ret->max_memory_bytes = quota.max_memory_bytes;
	ret->total_memory_bytes = quota.total_memory_bytes;
	ret->max_disk_bytes = quota.max_disk_bytes;
	ret->total_disk_bytes = quota.total_disk_bytes;
}
