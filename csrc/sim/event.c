/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events: a place in a stream, and the time at which it was reached.
 *
 * An event is `pending` from its record until its stream got there; `time` is then
 * CLOCK_MONOTONIC of the record itself where nothing was held, else of the moment
 * that let the stream go on.  sim_lock guards all of it.
 */
#include "internal.h"

typedef struct {
	sim_object_t object;
	unsigned int flags;
	bool recorded, pending;
	sim_stream_t *stream; /* while pending */
	uint64_t number;      /* work of it */
	uint64_t time;
	uint64_t serial; /* of the record: a later one is another wait's business */
} sim_event_t;

static uint64_t records;
static unsigned int pending_events;

static void reached(sim_event_t *event)
{
	event->pending = false;
	event->stream = NULL;
	event->time = sim_now();
	pending_events--;
}

static bool done(sim_event_t *event)
{
	if (event->pending && sim_stream_done(event->stream, event->number))
		reached(event);
	return !event->pending;
}

static void delete(sim_event_t *event)
{
	pending_events -= event->pending;
	sim_object_delete(event);
}

static void settle(void *object, void *gone)
{
	sim_event_t *event = object;

	if (event->pending && event->stream == gone)
		reached(event);
	else
		done(event);
}

void sim_events_settle(sim_stream_t *gone)
{
	if (pending_events)
		sim_object_each(SIM_EVENT, settle, gone);
}

static void drop_of_context(void *object, void *argument)
{
	if (((sim_event_t *)object)->object.context == argument)
		delete(object);
}

void sim_events_drop_context(sim_context_t *context)
{
	sim_object_each(SIM_EVENT, drop_of_context, context);
}

static sim_event_t *get(CUevent handle, CUresult *why)
{
	sim_event_t *event = sim_object_get(handle, SIM_EVENT);

	if (!event)
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no event", (void *)handle);
	return event;
}

CUresult sim_event_record(CUevent handle, sim_stream_t *stream)
{
	CUresult why;
	sim_event_t *event = get(handle, &why);

	if (!event)
		return why;
	if (event->object.context != stream->object.context)
		return sim_fail(CUDA_ERROR_INVALID_HANDLE,
				"cuEventRecord: event and stream are of different contexts");
	sim_stream_work(stream);
	pending_events += !event->pending;
	event->recorded = event->pending = true;
	event->stream = stream;
	event->number = stream->submitted;
	event->serial = ++records;
	done(event);
	return CUDA_SUCCESS;
}

CUresult sim_event_wait(sim_stream_t *stream, CUevent handle)
{
	CUresult why;
	sim_event_t *event = get(handle, &why);

	if (!event)
		return why;
	if (!done(event) && !sim_stream_after(stream, event->stream, event->number))
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_stream_work(stream);
	return CUDA_SUCCESS;
}

SIM_API(cuEventCreate, CUevent *handle, unsigned int flags)
{
	sim_context_t *context = sim_current();
	sim_event_t *event;

	SIM_ENTER(cuEventCreate);
	if (!handle || flags & ~7u)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuEventCreate: flags 0x%x", flags);
	if (flags & CU_EVENT_INTERPROCESS && !(flags & CU_EVENT_DISABLE_TIMING))
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"cuEventCreate: INTERPROCESS needs DISABLE_TIMING");
	if (!context)
		return sim_no_context();
	sim_lock_take();
	event = sim_object_new(SIM_EVENT, sizeof(*event), context);
	if (event)
		event->flags = flags;
	sim_lock_drop();
	if (!event)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*handle = (CUevent)event;
	return CUDA_SUCCESS;
}

static CUresult destroy(CUevent handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_event_t *event;

	sim_lock_take();
	event = get(handle, &result);
	if (event)
		delete(event);
	sim_lock_drop();
	return result;
}

SIM_API(cuEventDestroy, CUevent handle)
{
	SIM_ENTER(cuEventDestroy);
	return destroy(handle);
}

SIM_API(cuEventDestroy_v2, CUevent handle)
{
	SIM_ENTER(cuEventDestroy_v2);
	return destroy(handle);
}

static CUresult record(CUevent event, CUstream handle, bool per_thread)
{
	sim_stream_t *stream;
	CUresult result;

	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream)
		result = sim_event_record(event, stream);
	sim_lock_drop();
	return result;
}

SIM_API(cuEventRecord, CUevent event, CUstream stream)
{
	SIM_ENTER(cuEventRecord);
	return record(event, stream, false);
}

SIM_API(cuEventRecord_ptsz, CUevent event, CUstream stream)
{
	SIM_ENTER(cuEventRecord_ptsz);
	return record(event, stream, true);
}

/* CU_EVENT_RECORD_EXTERNAL (1) is for captures, of which there are none. */
SIM_API(cuEventRecordWithFlags, CUevent event, CUstream stream, unsigned int flags)
{
	SIM_ENTER(cuEventRecordWithFlags);
	return flags ? CUDA_ERROR_INVALID_VALUE : record(event, stream, false);
}

SIM_API(cuEventRecordWithFlags_ptsz, CUevent event, CUstream stream, unsigned int flags)
{
	SIM_ENTER(cuEventRecordWithFlags_ptsz);
	return flags ? CUDA_ERROR_INVALID_VALUE : record(event, stream, true);
}

SIM_API(cuEventQuery, CUevent handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_event_t *event;

	SIM_ENTER(cuEventQuery);
	sim_lock_take();
	event = get(handle, &result);
	if (event && !done(event))
		result = CUDA_ERROR_NOT_READY;
	sim_lock_drop();
	return result;
}

/* The lock is dropped during a wait: the event may be gone or recorded anew after it. */
struct target {
	CUevent handle;
	uint64_t serial;
};

static bool target_reached(void *argument)
{
	struct target *target = argument;
	sim_event_t *event = sim_object_get(target->handle, SIM_EVENT);

	return !event || event->serial != target->serial || done(event);
}

SIM_API(cuEventSynchronize, CUevent handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_event_t *event;

	SIM_ENTER(cuEventSynchronize);
	sim_lock_take();
	event = get(handle, &result);
	if (event) {
		struct target target = { handle, event->serial };

		result = sim_wait_until(target_reached, &target);
	}
	sim_lock_drop();
	return result;
}

static CUresult elapsed(float *milliseconds, CUevent from_handle, CUevent to_handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_event_t *from, *to;

	if (!milliseconds)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	from = get(from_handle, &result);
	to = get(to_handle, &result);
	if (from && to) {
		if (!from->recorded || !to->recorded ||
		    (from->flags | to->flags) & CU_EVENT_DISABLE_TIMING)
			result = sim_fail(CUDA_ERROR_INVALID_HANDLE,
					  "cuEventElapsedTime: an event %s",
					  from->recorded && to->recorded ? "has no times"
									 : "was never recorded");
		else if (!done(from) || !done(to))
			result = CUDA_ERROR_NOT_READY;
		else
			*milliseconds =
				(float)((double)(int64_t)(to->time - from->time) / 1e6);
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuEventElapsedTime, float *milliseconds, CUevent from, CUevent to)
{
	SIM_ENTER(cuEventElapsedTime);
	return elapsed(milliseconds, from, to);
}

SIM_API(cuEventElapsedTime_v2, float *milliseconds, CUevent from, CUevent to)
{
	SIM_ENTER(cuEventElapsedTime_v2);
	return elapsed(milliseconds, from, to);
}
