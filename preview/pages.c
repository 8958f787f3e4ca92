#include "pages.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "sandbox/base/buffer.h"

static const char style[] =
	"body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;min-height:100vh;"
	"place-items:center;background:#f6f7f9;color:#1c2430}"
	"main{box-sizing:border-box;width:min(36rem,100vw - 2rem);padding:2rem;background:#fff;border-radius:12px;"
	"box-shadow:0 1px 4px #0002}"
	"h1{font-size:1.4rem;margin:0 0 .5rem}p{margin:.5rem 0}small{color:#667}"
	"@media(prefers-color-scheme:dark){body{background:#14181f;color:#e6e9ee}"
	"main{background:#1d232c}small{color:#9aa3b0}}";

static char policy[256];

void pages_start(void)
{
	unsigned char digest[EVP_MAX_MD_SIZE], text[64];
	unsigned int length = 0;

	EVP_Digest(style, sizeof(style) - 1, digest, &length, EVP_sha256(), NULL);
	EVP_EncodeBlock(text, digest, (int)length);
	snprintf(policy, sizeof(policy),
		 "default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors "
		 "'none'",
		 (const char *)text);
}

void page_add_fields(struct http_exchange *exchange)
{
	http_add_field(exchange, "Cache-Control", "no-store");
	http_add_field(exchange, "Referrer-Policy", "no-referrer");
	http_add_field(exchange, "X-Content-Type-Options", "nosniff");
	http_add_field(exchange, "Content-Security-Policy", policy);
}

bool page_wants_html(const struct http_head *head)
{
	const char *accept = http_head_get(head, "accept");

	return accept && strstr(accept, "text/html");
}

void page_reply(struct http_exchange *exchange, const struct page *page)
{
	const char *method = http_request(exchange)->method;
	char text[4096], again[16];
	int n;

	page_add_fields(exchange);
	if (page->status == 405)
		http_add_field(exchange, "Allow", "GET, HEAD, OPTIONS");
	if (page->again && strcmp(method, "GET") == 0) {
		snprintf(again, sizeof(again), "%u", page->again);
		http_add_field(exchange, "Refresh", again);
		http_add_field(exchange, "Retry-After", again);
	}
	if (!page_wants_html(http_request(exchange))) {
		n = snprintf(text, sizeof(text), "%s\n%s\n", page->title, page->text);
		http_reply(exchange, page->status, "text/plain; charset=utf-8", text, (size_t)n);
		return;
	}
	n = snprintf(text, sizeof(text),
		     "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
		     "<meta name=\"viewport\" content=\"width=device-width\"><title>%s</title><style>%s</style></head>"
		     "<body><main><h1>%s</h1><p>%s</p><small>Paddock preview</small></main></body></html>\n",
		     page->title, style, page->title, page->text);
	http_reply(exchange, page->status, "text/html; charset=utf-8", text, (size_t)n);
}
