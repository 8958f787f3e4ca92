#include "question.h"

#include <errno.h>
#include <stdlib.h>

struct question {
	struct rpc_call *call;
	struct guest *guest;
	uint32_t stream;
	question_answer answer;
	uint64_t note;
};

void question_fail(struct rpc_call *call, const struct pdk_error *err)
{
	struct pdk_error copy = *err;

	if (copy.code == PDK_OK)
		pdk_fail(&copy, -EPROTO, PDK_UNAVAILABLE, "the sandbox does not answer");
	rpc_fail(call, &copy);
}

static void on_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		     const struct pdk_error *err, void *arg)
{
	struct question *question = arg;

	if (reply)
		guest_cancel(question->guest, question->stream);
	if (reply && err->code == PDK_OK)
		question->answer(question->call, reply, question->note);
	else
		question_fail(question->call, err);
	free(question);
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct question *question = rpc_user(call);

	guest_cancel(question->guest, question->stream);
	free(question);
	rpc_fail(call, why);
}

int question_ask(struct rpc_call *call, struct guest *guest, const Paddock__Internal__GuestRequest *request,
		 question_answer answer, uint64_t note)
{
	static const struct rpc_events events = {.on_cancel = on_cancel};
	struct question *question = calloc(1, sizeof(*question));
	int64_t stream;

	if (!question)
		return -ENOMEM;
	*question = (struct question){.call = call, .guest = guest, .answer = answer, .note = note};
	stream = guest_call(guest, request, 0, on_reply, question);
	if (stream < 0) {
		free(question);
		return (int)stream;
	}
	question->stream = (uint32_t)stream;
	rpc_set_events(call, &events, question);
	return 0;
}
