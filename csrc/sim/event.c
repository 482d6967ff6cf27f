/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events: a place in a stream, and the time at which it was reached.
 *
 * An event is pending while `piece`, the record in its stream's queue, is there; `time`
 * is then CLOCK_MONOTONIC at which the stream got there, `moment` the virtual time.
 * Where nothing comes before a record it is done at once, without a piece.  sim_lock
 * guards all of it.  Of an event that processes share, ipc_event.c has the rest.
 */
#include <time.h>

#include "kernel/kernel.h"
#include "capture.h"
#include "event.h"
#include "share.h"

struct sim_event {
	sim_object_t object;
	unsigned int flags;
	bool recorded;
	sim_work_t *piece; /* while pending */
	uint64_t time, moment;
	uint64_t serial; /* of the record: a later one is another wait's business */
	sim_captured_t captured;
	sim_shared_event_t *shared; /* with other processes, or NULL */
	uint64_t shared_serial;     /* of its own last record */
	bool imported;
};

static uint64_t records;

static void delete(sim_event_t *event)
{
	sim_captured_drop(&event->captured);
	sim_shared_event_retire(event->shared);
	sim_object_delete(event);
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

/* The event of a handle; NULL also where an error sticks to its context. */
static sim_event_t *get_usable(CUevent handle, CUresult *why)
{
	sim_event_t *event = get(handle, why);

	if (event && event->object.context->error) {
		*why = (CUresult)event->object.context->error;
		return NULL;
	}
	return event;
}

/* The same, where it was not recorded in a capture that goes on. */
static sim_event_t *get_uncaptured(CUevent handle, CUresult *why)
{
	sim_event_t *event = get_usable(handle, why);

	if (!event || !sim_captures)
		return event;
	if (sim_captured_lives(&event->captured)) {
		*why = sim_captured_refuse(&event->captured);
		return NULL;
	}
	*why = sim_capture_unsafe();
	return *why == CUDA_SUCCESS ? event : NULL;
}

/* ---- records and waits, as pieces of work ---- */

static void begin(sim_event_t *event, sim_work_t *piece)
{
	if (event->captured.id)
		sim_captured_drop(&event->captured);
	event->recorded = true;
	event->piece = piece;
	event->serial = ++records;
	if (event->shared)
		event->shared_serial = sim_shared_event_issue(event->shared);
}

static void reach(sim_event_t *event, uint64_t moment)
{
	event->piece = NULL;
	event->time = sim_now();
	event->moment = moment;
	if (event->shared)
		sim_shared_event_reach(event->shared, event->shared_serial);
}

/* Its own last record is reached; has another process recorded it since, and is that? */
static CUresult elsewhere(sim_event_t *event)
{
	if (!event->shared)
		return CUDA_SUCCESS;
	return sim_shared_event_ask(event->shared, sim_shared_event_latest(event->shared));
}

/* The record is reached for other processes even where the event is destroyed before. */
static void share_record(sim_event_work_t *record, sim_event_t *event)
{
	record->shared = event->shared;
	record->shared_serial = event->shared_serial;
	if (event->shared)
		sim_shared_event_keep(event->shared);
}

static void record_enter(sim_work_t *work)
{
	sim_event_work_t *record = (sim_event_work_t *)work;
	sim_event_t *event = sim_object_get(record->event, SIM_EVENT);

	if (event) {
		begin(event, work);
		record->serial = event->serial;
		share_record(record, event);
	}
}

static void record_done(sim_work_t *work)
{
	sim_event_work_t *record = (sim_event_work_t *)work;
	sim_event_t *event = sim_object_get(record->event, SIM_EVENT);

	if (event && event->serial == record->serial)
		reach(event, work->start);
	if (record->shared)
		sim_shared_event_reach(record->shared, record->shared_serial);
	sim_shared_event_drop(record->shared);
	record->shared = NULL;
}

/* The event as it is when this takes its place. */
static void wait_enter(sim_work_t *work)
{
	sim_event_t *event = sim_object_get(((sim_event_work_t *)work)->event, SIM_EVENT);

	if (event && event->piece)
		sim_work_after(work, event->piece);
	else if (event && work->start < event->moment)
		work->start = event->moment;
}

const sim_work_kind_t sim_record_kind = {
	.name = "event record",
	.bytes = sizeof(sim_event_work_t),
	.node_type = 7, /* CU_GRAPH_NODE_TYPE_EVENT_RECORD */
	.enter = record_enter,
	.done = record_done,
};
const sim_work_kind_t sim_wait_kind = {
	.name = "event wait",
	.bytes = sizeof(sim_event_work_t),
	.node_type = 6, /* CU_GRAPH_NODE_TYPE_WAIT_EVENT */
	.enter = wait_enter,
};

static CUresult submit(sim_stream_t *stream, const sim_work_kind_t *kind, CUevent event)
{
	sim_work_t *work = sim_work_new(kind, stream->object.context);

	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((sim_event_work_t *)work)->event = event;
	return sim_stream_submit(stream, work);
}

CUresult sim_event_record(CUevent handle, sim_stream_t *stream, bool external)
{
	CUresult why;
	sim_event_t *event = get_usable(handle, &why);

	if (!event)
		return why;
	if (event->object.context != stream->object.context)
		return sim_fail(CUDA_ERROR_INVALID_HANDLE,
				"cuEventRecord: event and stream are of different contexts");
	if (stream->capture && !external)
		return sim_capture_record(stream, &event->captured);
	if (stream->capture || !sim_stream_quiet(stream))
		return submit(stream, &sim_record_kind, handle);
	begin(event, NULL);
	reach(event, sim_stream_moment(stream));
	return CUDA_SUCCESS;
}

CUresult sim_event_wait(sim_stream_t *stream, CUevent handle, bool external)
{
	CUresult why;
	sim_event_t *event = get_usable(handle, &why);

	if (!event)
		return why;
	if (sim_captures && sim_captured_lives(&event->captured))
		return sim_capture_wait(stream, &event->captured);
	if (stream->capture && !external)
		return event->recorded ? sim_capture_wait(stream, NULL) : CUDA_SUCCESS;
	/* Another process's record, the latest of all, is still to be reached. */
	if (!stream->capture && event->shared &&
	    sim_shared_event_latest(event->shared) != event->shared_serial &&
	    elsewhere(event) != CUDA_SUCCESS)
		return sim_shared_event_wait(stream, event->shared,
					     sim_shared_event_latest(event->shared));
	if (stream->capture || event->piece || !sim_stream_quiet(stream))
		return submit(stream, &sim_wait_kind, handle);
	if (stream->moment < event->moment)
		stream->moment = event->moment;
	return CUDA_SUCCESS;
}

CUresult sim_event_record_context(CUevent handle, sim_context_t *context)
{
	CUresult why;
	sim_event_t *event = get_usable(handle, &why);

	if (!event)
		return why;
	why = sim_stream_place_after_all(context);
	return why == CUDA_SUCCESS ? sim_event_record(handle, context->legacy, false) : why;
}

struct wait_context {
	sim_context_t *context;
	CUevent event;
	CUresult result;
};

static void wait_of_context(void *object, void *argument)
{
	struct wait_context *wait = argument;
	sim_stream_t *stream = object;

	if (stream->object.context == wait->context && wait->result == CUDA_SUCCESS)
		wait->result = sim_event_wait(stream, wait->event, false);
}

CUresult sim_event_wait_context(sim_context_t *context, CUevent handle)
{
	struct wait_context wait = { context, handle, CUDA_SUCCESS };

	sim_object_each(SIM_STREAM, wait_of_context, &wait);
	return wait.result;
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
	if (event) {
		result = (CUresult)event->object.context->error;
		delete(event);
	}
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

static CUresult record(CUevent event, CUstream handle, bool per_thread, bool external)
{
	sim_stream_t *stream;
	CUresult result;

	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream)
		result = sim_event_record(event, stream, external);
	sim_lock_drop();
	return result;
}

SIM_API(cuEventRecord, CUevent event, CUstream stream)
{
	SIM_ENTER(cuEventRecord);
	return record(event, stream, false, false);
}

SIM_API(cuEventRecord_ptsz, CUevent event, CUstream stream)
{
	SIM_ENTER(cuEventRecord_ptsz);
	return record(event, stream, true, false);
}

SIM_API(cuEventRecordWithFlags, CUevent event, CUstream stream, unsigned int flags)
{
	SIM_ENTER(cuEventRecordWithFlags);
	return flags > 1 ? CUDA_ERROR_INVALID_VALUE : record(event, stream, false, flags);
}

SIM_API(cuEventRecordWithFlags_ptsz, CUevent event, CUstream stream, unsigned int flags)
{
	SIM_ENTER(cuEventRecordWithFlags_ptsz);
	return flags > 1 ? CUDA_ERROR_INVALID_VALUE : record(event, stream, true, flags);
}

SIM_API(cuEventQuery, CUevent handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_event_t *event;

	SIM_ENTER(cuEventQuery);
	sim_lock_take();
	event = get_uncaptured(handle, &result);
	if (event)
		result = event->piece ? CUDA_ERROR_NOT_READY : elsewhere(event);
	sim_lock_drop();
	return result;
}

/* sim_lock is dropped meanwhile.  Ends with who recorded, at the latest. */
static CUresult wait_elsewhere(CUevent handle)
{
	const struct timespec pause = { 0, 50000 };
	CUresult result = CUDA_SUCCESS;
	sim_event_t *event;
	uint64_t serial;

	event = get(handle, &result);
	if (!event->shared)
		return CUDA_SUCCESS;
	serial = sim_shared_event_latest(event->shared);
	while (event && (result = sim_shared_event_ask(event->shared, serial)) == CUDA_ERROR_NOT_READY) {
		sim_lock_drop();
		nanosleep(&pause, NULL);
		sim_lock_take();
		event = get(handle, &result);
	}
	return result;
}

SIM_API(cuEventSynchronize, CUevent handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_event_t *event;

	SIM_ENTER(cuEventSynchronize);
	sim_print_due = true;
	sim_lock_take();
	event = get_uncaptured(handle, &result);
	if (event && event->piece)
		result = sim_stream_wait_for(event->piece->stream, event->piece->number);
	else if (event)
		result = wait_elsewhere(handle);
	sim_lock_drop();
	return result;
}

/* Milliseconds. */
static double between(uint64_t from, uint64_t to)
{
	return (double)(int64_t)(to - from) / 1e6;
}

static CUresult elapsed(float *milliseconds, CUevent from_handle, CUevent to_handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_event_t *from, *to;

	if (!milliseconds)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	from = get_usable(from_handle, &result);
	to = get_usable(to_handle, &result);
	if (from && to) {
		if (!from->recorded || !to->recorded ||
		    (from->flags | to->flags) & CU_EVENT_DISABLE_TIMING)
			result = sim_fail(CUDA_ERROR_INVALID_HANDLE,
					  "cuEventElapsedTime: an event %s",
					  from->recorded && to->recorded ? "has no times"
									 : "was never recorded");
		else if (from->piece || to->piece)
			result = CUDA_ERROR_NOT_READY;
		else
			*milliseconds = (float)(sim_clock_events ?
							between(from->moment, to->moment) :
							between(from->time, to->time));
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

/* ---- shared with other processes ---- */

sim_shared_event_t **sim_event_shared(CUevent handle, CUresult *why)
{
	sim_event_t *event = get_usable(handle, why);

	if (event && (event->imported || !(event->flags & CU_EVENT_INTERPROCESS))) {
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "cuIpcGetEventHandle: the event was not "
				"made with CU_EVENT_INTERPROCESS");
		return NULL;
	}
	return event ? &event->shared : NULL;
}

void sim_event_becomes_shared(CUevent handle)
{
	sim_event_t *event = sim_object_get(handle, SIM_EVENT);

	if (!event->recorded)
		return;
	event->shared_serial = sim_shared_event_issue(event->shared);
	if (event->piece)
		share_record((sim_event_work_t *)event->piece, event);
	else
		sim_shared_event_reach(event->shared, event->shared_serial);
}

CUresult sim_event_import(sim_context_t *context, sim_shared_event_t *shared, CUevent *handle)
{
	sim_event_t *event = sim_object_new(SIM_EVENT, sizeof(*event), context);

	if (!event)
		return CUDA_ERROR_OUT_OF_MEMORY;
	event->flags = CU_EVENT_DISABLE_TIMING;
	event->imported = true;
	event->shared = shared;
	*handle = (CUevent)event;
	return CUDA_SUCCESS;
}
