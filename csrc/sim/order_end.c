/* SPDX-License-Identifier: GPL-2.0-only */
/* What ends or stops the course of work: holds, streams that go, contexts that fail. */
#include "kernel/kernel.h"
#include "capture.h"
#include "order.h"

CUresult sim_stream_hold(sim_stream_t *stream, bool hold)
{
	if (stream->held == hold)
		return CUDA_SUCCESS;
	stream->held = hold;
	stream->held_from = sim_order_number();
	sim_held_streams += hold ? 1 : -1u;
	sim_order_look(stream);
	sim_order_go(NULL);
	return CUDA_SUCCESS;
}

void sim_stream_delete(sim_stream_t *stream)
{
	if (stream->capture)
		sim_capture_forget(stream);
	sim_stream_hold(stream, false);
	sim_object_leave(stream);
	stream->gone = true;
	sim_stream_release(stream);
}

static void look_at_context(const sim_context_t *context)
{
	for (sim_stream_t *stream = sim_busy_streams; stream; stream = stream->busy_next)
		if (stream->object.context == context)
			sim_order_look(stream);
}

void sim_context_fail(sim_context_t *context, CUresult code)
{
	if (!context->error)
		context->error = (int)code;
	look_at_context(context);
}

void sim_context_poison(sim_context_t *context, CUresult code)
{
	sim_lock_take();
	sim_context_fail(context, code);
	sim_order_go(NULL);
	sim_lock_drop();
}

void sim_context_stop(sim_context_t *context)
{
	context->stop = 1;
	sim_kernels_stop(context);
	look_at_context(context);
	sim_order_go(NULL);
}
