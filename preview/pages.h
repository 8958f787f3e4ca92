#ifndef PADDOCK_PREVIEW_PAGES_H
#define PADDOCK_PREVIEW_PAGES_H

#include "http.h"

/* What people see of a preview that cannot be shown. Nothing of the request is in a page. */

struct page {
	int status;
	const char *title;
	const char *text;   /* for people: one or two sentences */
	unsigned int again; /* seconds after which the browser looks again; 0: it does not */
};

/* Once, at the start. */
void pages_start(void);
/* As HTML to whoever accepts that, else as plain text. */
void page_reply(struct http_exchange *exchange, const struct page *page);
/* A browser asks: it is to be told in HTML. */
bool page_wants_html(const struct http_head *head);
/* The fields that keep a page of ours from being cached, framed, or told to another site. */
void page_add_fields(struct http_exchange *exchange);

#endif
