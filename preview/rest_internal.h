#ifndef PADDOCK_PREVIEW_REST_INTERNAL_H
#define PADDOCK_PREVIEW_REST_INTERNAL_H

#include "json.h"
#include "rest.h"
#include "upstream.h"

#define REST_BODY_MAX (1u << 20)
#define REST_PARAMETER_MAX 256

struct rest;
typedef void (*rest_handler)(struct rest *rest);
/* The reply of a call, valid until the callback returns. */
typedef void (*rest_reply)(struct rest *rest, const ProtobufCMessage *reply);
/* A call was refused. False: it is to be answered as any other. */
typedef bool (*rest_refusal)(struct rest *rest, enum pdk_code code, const char *text);

/* A request of the control plane, from its first byte to its answer. */
struct rest {
	struct http_exchange *exchange;
	const struct rest_route *route;
	struct caller caller;
	const char *domain;
	char id[REST_PARAMETER_MAX];   /* what stood for {id} */
	char what[REST_PARAMETER_MAX]; /* and for {what}, after it */
	struct buffer body;
	struct arena arena;
	json_t *json; /* the body, an object; an empty one when there was none */

	struct call *call;
	const ProtobufCMessageDescriptor *reply_type;
	rest_reply on_reply;
	rest_refusal on_refusal; /* of the next call that ends, or NULL */
	bool replied;
	struct buffer reply;

	/* Of handlers */
	int64_t number;
	char *text;
	void *state; /* in the arena */
	int status;  /* of the answer that waits for the access token */
	const char *id_of, *template_of, *alias_of;
};

struct rest_route {
	const char *method;
	const char *path; /* "{id}" stands for one segment, and "{what}" for a second one */
	rest_handler handler;
	const char *refused; /* without a handler: why */
};

/* Call a unary method; `on_reply` comes if it succeeded, an error is answered here. */
void rest_call(struct rest *rest, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *reply_type, rest_reply on_reply);
/* Answer with JSON that `write` puts together. */
void rest_answer(struct rest *rest, int status, struct buffer *json);
void rest_answer_empty(struct rest *rest, int status);
int rest_status_of(enum pdk_code code);
/* ,"name":"2006-01-02T15:04:05.006Z" */
int rest_put_time(struct buffer *out, const char *name, int64_t unix_ms);

void rest_create(struct rest *rest);
void rest_create_v2(struct rest *rest);
void rest_list(struct rest *rest);
void rest_list_running(struct rest *rest);
void rest_get(struct rest *rest);
void rest_kill(struct rest *rest);
void rest_set_timeout(struct rest *rest);
void rest_refresh(struct rest *rest);
void rest_connect(struct rest *rest);
void rest_pause(struct rest *rest);
void rest_reset(struct rest *rest);
void rest_commit(struct rest *rest);
void rest_quota(struct rest *rest);
void rest_events(struct rest *rest);
void rest_metrics(struct rest *rest);
void rest_metrics_several(struct rest *rest);
void rest_logs(struct rest *rest);
void rest_logs_v2(struct rest *rest);
void rest_template_alias(struct rest *rest);
void rest_template_list(struct rest *rest);
void rest_template_page(struct rest *rest);
void rest_template_get(struct rest *rest);
void rest_template_remove(struct rest *rest);
void rest_template_tags(struct rest *rest);
void rest_template_set_tags(struct rest *rest);
void rest_template_remove_tags(struct rest *rest);
void rest_build_create(struct rest *rest);
void rest_build_files(struct rest *rest);
void rest_build_start(struct rest *rest);
void rest_build_status(struct rest *rest);
/* The strings of an array, in the arena. NULL: it is there and is not one. */
char **rest_strings(struct rest *rest, json_t *array, size_t *ret_count);
void rest_snapshot(struct rest *rest);
void rest_snapshot_list(struct rest *rest);
void rest_snapshot_remove(struct rest *rest);
void rest_fork(struct rest *rest);
void rest_clone(struct rest *rest);
/* The sandbox of the path, as it is. */
void rest_get_first(struct rest *rest, rest_reply then);
/* A value of the query in the arena: "" when it is not there, NULL when it is malformed. */
char *rest_query_text(struct rest *rest, const char *name);
/* The same as a number, `*ret` if it is not there. -EINVAL: it is none, or not from `least` to `most`. */
int rest_query_number(struct rest *rest, const char *name, int64_t least, int64_t most, int64_t *ret);
/* Why what is asked for of the network cannot be had, or NULL. */
const char *rest_network_refused(json_t *network);
/* The query's limit: 1 to 100. */
int rest_read_limit(struct rest *rest, uint32_t *ret);

#endif
