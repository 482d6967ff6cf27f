/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Streams: making, finding and dropping them, and what programs ask of one.  What
 * comes after what is order.c's business.
 *
 * The NULL stream lives as long as its context; a thread's default stream is made at
 * its first use in a context and goes with the thread or the context.
 */
#include <stdlib.h>

#include "capture.h"
#include "internal.h"
#include "work.h"

static uint64_t stream_ids;

/* Per-thread default streams of this thread, one a context. */
typedef struct own_stream {
	struct own_stream *next;
	uint64_t context_id, id;
	sim_stream_t *stream;
} own_stream_t;
static _Thread_local own_stream_t *own_streams;

/* ---- making, finding and dropping streams ---- */

sim_stream_t *sim_stream_make(sim_context_t *context, unsigned int flags, int priority)
{
	sim_stream_t *stream = sim_object_new(SIM_STREAM, sizeof(*stream), context);

	if (stream) {
		stream->flags = flags;
		stream->priority = priority;
		stream->sync_policy = 1; /* automatic */
		stream->id = ++stream_ids;
	}
	return stream;
}

static void drop_of_context(void *object, void *argument)
{
	sim_stream_t *stream = object;

	if (stream->object.context == argument)
		sim_stream_delete(stream);
}

void sim_streams_drop_context(sim_context_t *context)
{
	sim_object_each(SIM_STREAM, drop_of_context, context);
}

static sim_stream_t *own_stream(sim_context_t *context)
{
	own_stream_t *own;

	for (own = own_streams; own; own = own->next)
		if (own->context_id == context->id)
			return own->stream;
	own = malloc(sizeof(*own));
	if (!own)
		return NULL;
	own->stream = sim_stream_make(context, 0, 0);
	if (!own->stream) {
		free(own);
		return NULL;
	}
	own->stream->per_thread = true;
	own->context_id = context->id;
	own->id = own->stream->id;
	own->next = own_streams;
	own_streams = own;
	sim_thread_note();
	return own->stream;
}

void sim_stream_thread_end(void)
{
	if (sim_forked())
		return;
	sim_lock_take();
	while (own_streams) {
		own_stream_t *own = own_streams;
		sim_stream_t *stream = sim_object_get(own->stream, SIM_STREAM);

		own_streams = own->next;
		if (stream && stream->id == own->id)
			sim_stream_delete(stream);
		free(own);
	}
	sim_lock_drop();
}

sim_stream_t *sim_stream_get(CUstream handle, bool per_thread, CUresult *why)
{
	sim_context_t *context;
	sim_stream_t *stream;

	if (!handle)
		handle = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
	if (handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
		context = sim_current();
		if (!context) {
			*why = sim_no_context();
			return NULL;
		}
		stream = handle == CU_STREAM_LEGACY ? context->legacy : own_stream(context);
		if (!stream)
			*why = CUDA_ERROR_OUT_OF_MEMORY;
		return stream;
	}
	stream = sim_object_get(handle, SIM_STREAM);
	if (!stream) {
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream", (void *)handle);
		return NULL;
	}
	context = stream->object.context;
	if (context->alive && !context->error)
		return stream;
	*why = context->alive ? (CUresult)context->error : CUDA_ERROR_CONTEXT_IS_DESTROYED;
	return NULL;
}

/* ---- entry points ---- */

static CUresult create(CUstream *handle, unsigned int flags, int priority)
{
	sim_context_t *context = sim_current();
	sim_stream_t *stream;

	if (!handle || flags & ~(unsigned int)CU_STREAM_NON_BLOCKING)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuStreamCreate: flags 0x%x", flags);
	if (!context)
		return sim_no_context();
	/* Out of range is clamped, as documented. */
	if (priority > SIM_PRIORITY_LEAST)
		priority = SIM_PRIORITY_LEAST;
	if (priority < SIM_PRIORITY_GREATEST)
		priority = SIM_PRIORITY_GREATEST;
	sim_lock_take();
	stream = sim_stream_make(context, flags, priority);
	sim_lock_drop();
	if (!stream)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*handle = (CUstream)stream;
	return CUDA_SUCCESS;
}

SIM_API(cuStreamCreate, CUstream *handle, unsigned int flags)
{
	SIM_ENTER(cuStreamCreate);
	return create(handle, flags, 0);
}

SIM_API(cuStreamCreateWithPriority, CUstream *handle, unsigned int flags, int priority)
{
	SIM_ENTER(cuStreamCreateWithPriority);
	return create(handle, flags, priority);
}

static CUresult destroy(CUstream handle)
{
	sim_stream_t *stream;
	CUresult result = CUDA_SUCCESS;

	sim_lock_take();
	stream = sim_object_get(handle, SIM_STREAM);
	if (stream && !stream->legacy && !stream->per_thread) {
		result = (CUresult)stream->object.context->error;
		sim_stream_delete(stream);
	} else {
		result = sim_fail(CUDA_ERROR_INVALID_HANDLE,
				  "cuStreamDestroy: %p is no stream that was created",
				  (void *)handle);
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuStreamDestroy, CUstream handle)
{
	SIM_ENTER(cuStreamDestroy);
	return destroy(handle);
}

SIM_API(cuStreamDestroy_v2, CUstream handle)
{
	SIM_ENTER(cuStreamDestroy_v2);
	return destroy(handle);
}

/* What a function does with the stream it is given, lock held. */
typedef CUresult (*sim_on_stream_t)(sim_stream_t *stream, void *argument);

static CUresult on_stream(CUstream handle, bool per_thread, sim_on_stream_t action, void *argument)
{
	sim_stream_t *stream;
	CUresult result;

	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream)
		result = action(stream, argument);
	sim_lock_drop();
	return result;
}

/* Both flavours of an entry point: `name`, and `name_ptsz` for which 0 is per-thread. */
#define BOTH(name, parameters, check, action, argument)                   \
	SIM_API(name, BOTH_LIST parameters)                               \
	{                                                                 \
		SIM_ENTER(name);                                          \
		if (!(check))                                             \
			return CUDA_ERROR_INVALID_VALUE;                  \
		return on_stream(handle, false, action, argument);        \
	}                                                                 \
	SIM_API(name##_ptsz, BOTH_LIST parameters)                        \
	{                                                                 \
		SIM_ENTER(name##_ptsz);                                   \
		if (!(check))                                             \
			return CUDA_ERROR_INVALID_VALUE;                  \
		return on_stream(handle, true, action, argument);         \
	}
#define BOTH_LIST(...) __VA_ARGS__

static CUresult query(sim_stream_t *stream, void *unused)
{
	(void)unused;
	if (sim_captures && stream->capture)
		return sim_capture_refuse(stream);
	if (sim_captures && stream->legacy && sim_capture_implicit(stream) != CUDA_SUCCESS)
		return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
	return stream->first ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
BOTH(cuStreamQuery, (CUstream handle), true, query, NULL)

static CUresult synchronize(sim_stream_t *stream, void *unused)
{
	CUresult result = CUDA_SUCCESS;

	(void)unused;
	if (sim_captures && stream->capture)
		return sim_capture_refuse(stream);
	/* As a place in the NULL stream would, this waits for all blocking streams. */
	if (sim_captures && stream->legacy)
		result = sim_capture_implicit(stream);
	if (stream->legacy && result == CUDA_SUCCESS)
		result = sim_stream_place(stream);
	return result == CUDA_SUCCESS ? sim_stream_wait(stream) : result;
}
BOTH(cuStreamSynchronize, (CUstream handle), true, synchronize, NULL)

static CUresult get_flags(sim_stream_t *stream, void *flags)
{
	*(unsigned int *)flags = stream->flags;
	return CUDA_SUCCESS;
}
BOTH(cuStreamGetFlags, (CUstream handle, unsigned int *flags), flags, get_flags, flags)

static CUresult get_priority(sim_stream_t *stream, void *priority)
{
	*(int *)priority = stream->priority;
	return CUDA_SUCCESS;
}
BOTH(cuStreamGetPriority, (CUstream handle, int *priority), priority, get_priority, priority)

static CUresult get_id(sim_stream_t *stream, void *id)
{
	*(unsigned long long *)id = stream->id;
	return CUDA_SUCCESS;
}
BOTH(cuStreamGetId, (CUstream handle, unsigned long long *id), id, get_id, id)

static CUresult get_device(sim_stream_t *stream, void *device)
{
	*(CUdevice *)device = stream->object.context->device;
	return CUDA_SUCCESS;
}
BOTH(cuStreamGetDevice, (CUstream handle, CUdevice *device), device, get_device, device)

static CUresult get_context(sim_stream_t *stream, void *context)
{
	*(CUcontext *)context = (CUcontext)stream->object.context;
	return CUDA_SUCCESS;
}
BOTH(cuStreamGetCtx, (CUstream handle, CUcontext *context), context, get_context, context)

/* No stream belongs to a green context. */
struct CUgreenCtx_st;
BOTH(cuStreamGetCtx_v2, (CUstream handle, CUcontext *context, struct CUgreenCtx_st **green),
     context && green && (*green = NULL, true), get_context, context)

static CUresult wait_event(sim_stream_t *stream, void *event)
{
	return sim_event_wait(stream, (CUevent)event, false);
}

static CUresult wait_external(sim_stream_t *stream, void *event)
{
	return sim_event_wait(stream, (CUevent)event, true);
}
/* Flags: 0, or CU_EVENT_WAIT_EXTERNAL (1), which means something only while capturing. */
BOTH(cuStreamWaitEvent, (CUstream handle, CUevent event, unsigned int flags), flags <= 1,
     flags ? wait_external : wait_event, event)
