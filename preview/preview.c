#include "preview.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pages.h"
#include "proxy.h"
#include "published.h"
#include "sandbox/base/cleanup.h"
#include "server/log.h"
#include "server/ration.h"
#include "upstream.h"

/* Pages */

/* A macro, because a constant is no constant expression. */
#define UNKNOWN_PAGE                                                                                                   \
	{                                                                                                              \
		404, "There is no preview here",                                                                       \
			"The address is wrong, or the link is not complete. Ask for the whole link again, and open "   \
			"it in this browser.",                                                                         \
			0                                                                                              \
	}
static const struct page unknown = UNKNOWN_PAGE;
static const struct page foreign = {403, "Another page asked for this",
				    "A preview answers only to its own pages. Open it in a tab of its own.", 0};
static const struct page read_only = {405, "This preview is for reading",
				      "It was shared for reading only: nothing can be sent to it.", 0};
static const struct page misplaced = {
	404, "This preview is at another address",
	"The link names a domain that is not the one of this server. Whoever runs it has to make preview_url, in "
	"paddock.conf, and domain, in ingress.conf, the same.",
	0};
static const struct page broken = {
	502, "The application gave no proper answer",
	"It closed the connection, or sent something that is not HTTP. Its own log may say why.", 0};
static const struct page slow = {504, "The application does not answer",
				 "It took the request, but has not answered in time.", 0};
static const struct page busy = {503, "Too much at once",
				 "Paddock cannot take this request now. It looks again by itself.", 2};

static const struct page refusals[] = {
	[VISIT(ALLOWED)] = {503, "Paddock does not answer",
			    "The server is starting, or away. This page looks again by itself.", 2},
	[VISIT(UNKNOWN)] = UNKNOWN_PAGE,
	[VISIT(EXPIRED)] = {410, "This preview has expired", "Its time is over. Ask whoever shared it for a new link.",
			    0},
	[VISIT(REVOKED)] = {410, "This preview was closed", "Whoever shared it has ended it.", 0},
	[VISIT(TAKEN)] = {403, "This link was used already",
			  "It works for one visitor, who has come already. Ask for a link of your own.", 0},
	[VISIT(PAUSED)] =
		{503, "The sandbox is paused",
		 "Nothing runs in it now. This page looks again by itself, and shows the preview when it goes on.", 5},
	[VISIT(ENDED)] = {410, "The sandbox has ended", "What this preview showed is gone.", 0},
	[VISIT(FORBIDDEN)] = UNKNOWN_PAGE,
};

static void reply_refusal(struct http_exchange *exchange, visit_refusal why)
{
	page_reply(exchange, (size_t)why < ARRAY_SIZE(refusals) ? &refusals[why] : &unknown);
}

static void refuse(struct http_exchange *exchange, const struct visit_key *key, visit_refusal why)
{
	if (key->sandbox[0] && why != VISIT(ALLOWED))
		published_refuse(exchange, key, why);
	else
		reply_refusal(exchange, why);
}

static void on_proxy_failure(struct http_exchange *exchange, const struct visit_key *key, uint16_t port,
			     enum proxy_failure failure, visit_refusal why)
{
	char text[160];
	struct page page = {502, "Nothing listens on this port yet", text, 2};

	snprintf(text, sizeof(text),
		 "The sandbox runs, but no program in it listens on port %u. This page looks again by itself.", port);
	switch (failure) {
	case PROXY_REFUSED:
		if (key->sandbox[0])
			published_closed(exchange, key);
		else
			page_reply(exchange, &page);
		return;
	case PROXY_BROKEN:
		page_reply(exchange, &broken);
		return;
	case PROXY_SLOW:
		page_reply(exchange, &slow);
		return;
	case PROXY_BUSY:
		page_reply(exchange, &busy);
		return;
	case PROXY_CUT:
		refuse(exchange, key, why);
		return;
	}
}

/* Enter: a token for a cookie */

struct entering {
	struct http_exchange *exchange;
	struct call *call;
	char rest[HTTP_TARGET_MAX + 1]; /* of the query */
	bool has_cookie;
	visit_refusal refusal;
	char cookie[FORWARD_COOKIE_LEN + 1];
	bool answered;
};

static void redirect(struct entering *entering)
{
	struct http_exchange *exchange = entering->exchange;
	const struct http_head *head = http_request(exchange);
	bool tls = http_is_tls(exchange);
	char text[HTTP_TARGET_MAX * 2 + 512];

	/* With the host: a path of "//" would be another one's. */
	snprintf(text, sizeof(text), "%s://%s%s%s%s", tls ? "https" : "http", head->host, head->path,
		 entering->rest[0] ? "?" : "", entering->rest);
	http_add_field(exchange, "Location", text);
	if (entering->cookie[0]) {
		snprintf(text, sizeof(text), "%s=%s; Path=/; HttpOnly; SameSite=Lax%s",
			 tls ? FORWARD_COOKIE_TLS : FORWARD_COOKIE_PLAIN, entering->cookie, tls ? "; Secure" : "");
		http_add_field(exchange, "Set-Cookie", text);
		explicit_bzero(text, sizeof(text));
	}
	page_add_fields(exchange);
	http_reply(exchange, 303, NULL, NULL, 0);
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct entering *entering = arg;
	Paddock__Internal__VisitEntered *entered = paddock__internal__visit_entered__unpack(NULL, length, bytes);

	if (!entered)
		return;
	entering->answered = true;
	entering->refusal = entered->refusal;
	if (entered->refusal == VISIT(ALLOWED) && forward_is_hex(entered->cookie, FORWARD_COOKIE_LEN))
		memcpy(entering->cookie, entered->cookie, FORWARD_COOKIE_LEN);
	explicit_bzero(entered->cookie, strlen(entered->cookie));
	paddock__internal__visit_entered__free_unpacked(entered, NULL);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct entering *entering = arg;

	entering->call = NULL;
	if (code != PDK_OK || !entering->answered)
		reply_refusal(entering->exchange, VISIT(ALLOWED));
	else if (entering->cookie[0] || (entering->refusal == VISIT(TAKEN) && entering->has_cookie))
		redirect(entering); /* the one visitor, who opens the link again: the cookie decides */
	else
		reply_refusal(entering->exchange, entering->refusal);
}

static void on_entering_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct entering *entering = arg;

	if (entering->call)
		upstream_cancel(entering->call);
	explicit_bzero(entering, sizeof(*entering));
	free(entering);
}

static void ask_to_enter(struct entering *entering, const char *label, const char *token)
{
	static const struct call_events events = {.on_message = on_message, .on_end = on_end};
	Paddock__Internal__VisitEnter request = PADDOCK__INTERNAL__VISIT_ENTER__INIT;
	struct caller caller = {};
	struct pdk_error err;
	uint8_t packed[256];

	request.preview_id = (char *)(uintptr_t)label;
	request.token = (char *)(uintptr_t)token;
	snprintf(caller.address, sizeof(caller.address), "%s", http_client_address(entering->exchange));
	entering->call = upstream_open(&caller, "/paddock.internal.Visits/Enter", 10000, 1, &events, entering, &err);
	if (!entering->call ||
	    upstream_send(entering->call, packed, paddock__internal__visit_enter__pack(&request, packed)) < 0)
		reply_refusal(entering->exchange, VISIT(ALLOWED));
	else
		upstream_half_close(entering->call);
	explicit_bzero(packed, sizeof(packed));
}

static void enter(struct http_exchange *exchange, const char *label, const char *token, const char *rest)
{
	static const struct http_events events = {.on_close = on_entering_close};
	const struct http_head *head = http_request(exchange);
	struct entering *entering = calloc(1, sizeof(*entering));
	char cookie[FORWARD_COOKIE_LEN + 1];

	if (!entering) {
		page_reply(exchange, &busy);
		return;
	}
	entering->exchange = exchange;
	entering->has_cookie = forward_cookie(head, http_is_tls(exchange), cookie);
	snprintf(entering->rest, sizeof(entering->rest), "%s", rest);
	http_own(exchange, &events, entering);
	ask_to_enter(entering, label, token);
}

/* Visits */

struct waiting {
	struct visit_waiter waiter; /* first */
	struct http_exchange *exchange;
	struct visit_key key;
};

static void on_waiting_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct waiting *waiting = arg;

	visit_give_up(&waiting->waiter);
	explicit_bzero(waiting, sizeof(*waiting));
	free(waiting);
}

static void go(struct http_exchange *exchange, struct visit *visit, const struct visit_key *key)
{
	const struct http_head *head = http_request(exchange);
	const char *method = head->method;

	if (visit_read_only(visit) &&
	    (proxy_is_websocket(head) ||
	     (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 && strcmp(method, "OPTIONS") != 0)))
		page_reply(exchange, &read_only);
	else
		proxy_serve(exchange, visit, key, on_proxy_failure);
}

static void on_visit(struct visit_waiter *waiter, struct visit *visit, visit_refusal why, const struct pdk_error *err)
{
	struct waiting *waiting = (struct waiting *)waiter;
	struct http_exchange *exchange = waiting->exchange;
	struct visit_key key = waiting->key;

	if (!visit) {
		refuse(exchange, &key, why);
		return;
	}
	explicit_bzero(waiting, sizeof(*waiting));
	free(waiting);
	http_own(exchange, &(struct http_events){}, NULL);
	http_resume_body(exchange);
	go(exchange, visit, &key);
	explicit_bzero(&key, sizeof(key));
}

static void wait_for_visit(struct http_exchange *exchange, const struct visit_key *key)
{
	static const struct http_events events = {.on_close = on_waiting_close};
	struct waiting *waiting = calloc(1, sizeof(*waiting));
	struct pdk_error err;

	if (!waiting) {
		page_reply(exchange, &busy);
		return;
	}
	waiting->exchange = exchange;
	waiting->key = *key;
	waiting->waiter.done = on_visit;
	http_own(exchange, &events, waiting);
	http_pause_body(exchange);
	if (visit_open(key, http_client_address(exchange), &waiting->waiter, &err) < 0)
		page_reply(exchange, &busy);
}

void preview_visit(struct http_exchange *exchange, const struct visit_key *key)
{
	struct visit *visit = visit_find(key);

	if (visit)
		go(exchange, visit, key);
	else
		wait_for_visit(exchange, key);
}

/* Routing */

bool preview_is_name(const char *host)
{
	return host[0] == 'p' && strspn(host, "abcdefghijklmnopqrstuvwxyz234567") == VISIT_PREVIEW_LEN &&
	       (host[VISIT_PREVIEW_LEN] == '.' || !host[VISIT_PREVIEW_LEN]);
}

void preview_misplaced(struct http_exchange *exchange, const char *domain)
{
	static struct ration ration;
	char host[128];

	snprintf(host, sizeof(host), "%s", http_request(exchange)->host);
	if (ration_take(&ration, 1))
		log_event(LOG_ERROR, "preview.misplaced", "host", host, "domain", domain, NULL);
	page_reply(exchange, &misplaced);
}

static void visit_with_cookie(struct http_exchange *exchange, const char *label)
{
	const struct http_head *head = http_request(exchange);
	struct visit_key key = {};

	strcpy(key.preview, label);
	if (!forward_cookie(head, http_is_tls(exchange), key.cookie)) {
		page_reply(exchange, &unknown);
		return;
	}
	if (forward_is_foreign(head, http_is_tls(exchange))) {
		page_reply(exchange, &foreign);
		return;
	}
	preview_visit(exchange, &key);
	explicit_bzero(&key, sizeof(key));
}

void preview_serve(struct http_exchange *exchange, const char *label)
{
	const struct http_head *head = http_request(exchange);
	char token[FORWARD_TOKEN_LEN + 1], rest[HTTP_TARGET_MAX + 1];
	bool gets = strcmp(head->method, "GET") == 0 || strcmp(head->method, "HEAD") == 0;
	int rc;

	/* TRACE would give the page its cookie, CONNECT is for other proxies. */
	if (strcmp(head->method, "TRACE") == 0 || strcmp(head->method, "CONNECT") == 0 || head->path[0] != '/') {
		page_reply(exchange, &(const struct page){405, "Not here", "This method is not for previews.", 0});
		return;
	}
	rc = forward_token(head->query, token, rest, sizeof(rest));
	if (!preview_is_name(label) || rc < 0 || (rc > 0 && !gets))
		page_reply(exchange, &unknown);
	else if (rc > 0)
		enter(exchange, label, token, rest);
	else
		visit_with_cookie(exchange, label);
	explicit_bzero(token, sizeof(token));
}
