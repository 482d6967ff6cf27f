/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Streams as sequences of numbered work.
 *
 * Work is done when it is submitted, so normally everything is finished and a
 * stream is a counter.  Two things take time: a stream that a test holds, and a
 * host function that is running.  While `unfinished` counts any of these, the order
 * between streams is kept by waits: "work from number `before` on comes after work
 * up to `number` of `stream`".  When it is zero, all waits are fulfilled and dropped.
 *
 * Invariants
 *   - sim_lock guards everything here; host functions run without it, in the thread
 *     whose submission (or release of a hold) made them due, in order.
 *   - Waits point to earlier work only, so that they form no cycle.
 *   - A stream's memory goes only after all that points to it was told (forget()).
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

struct sim_wait {
	struct sim_wait *next;
	uint64_t before;
	sim_stream_t *stream;
	uint64_t number;
};

/* A host function that has been submitted and has not returned. */
typedef struct host_call {
	struct host_call *next;
	sim_stream_t *stream; /* NULL: destroyed meanwhile */
	CUstream handle;      /* what the program called the stream */
	uint64_t number;
	void (*function)(void *data);
	void (*callback)(CUstream stream, CUresult status, void *data);
	void *data;
	bool running;
} host_call_t;

static host_call_t *host_calls, **host_calls_end = &host_calls;
static unsigned int unfinished; /* held streams and host calls */
static uint64_t stream_ids;

static pthread_cond_t changed;
static pthread_once_t changed_once = PTHREAD_ONCE_INIT;

/* Per-thread default streams of this thread, one a context. */
typedef struct own_stream {
	struct own_stream *next;
	uint64_t context_id, id;
	sim_stream_t *stream;
} own_stream_t;
static _Thread_local own_stream_t *own_streams;

uint64_t sim_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void drop_waits(sim_stream_t *stream)
{
	while (stream->waits) {
		struct sim_wait *wait = stream->waits;

		stream->waits = wait->next;
		free(wait);
	}
}

/* Is all work up to `number` finished, not looking at `except`? */
static bool finished(sim_stream_t *stream, uint64_t number, const host_call_t *except)
{
	if (!unfinished) {
		drop_waits(stream);
		return true;
	}
	if (stream->held && number > stream->held_from)
		return false;
	for (host_call_t *call = host_calls; call; call = call->next)
		if (call->stream == stream && call->number <= number && call != except)
			return false;
	for (struct sim_wait **at = &stream->waits; *at;) {
		struct sim_wait *wait = *at;

		if (!finished(wait->stream, wait->number, NULL)) {
			if (wait->before <= number)
				return false;
			at = &wait->next;
			continue;
		}
		*at = wait->next;
		free(wait);
	}
	return true;
}

bool sim_stream_done(sim_stream_t *stream, uint64_t number)
{
	return finished(stream, number, NULL);
}

bool sim_stream_idle(sim_stream_t *stream)
{
	return sim_stream_done(stream, stream->submitted);
}

bool sim_stream_after(sim_stream_t *stream, sim_stream_t *other, uint64_t number)
{
	struct sim_wait *wait;

	if (stream == other || sim_stream_done(other, number))
		return true;
	wait = malloc(sizeof(*wait));
	if (!wait)
		return false;
	*wait = (struct sim_wait){ stream->waits, stream->submitted + 1, other, number };
	stream->waits = wait;
	return true;
}

struct order {
	sim_stream_t *stream;
	bool all;
};

static void order_legacy(void *object, void *argument)
{
	struct order *order = argument;
	sim_stream_t *other = object;

	if (other->object.context != order->stream->object.context || other == order->stream)
		return;
	if (order->all || !(other->flags & CU_STREAM_NON_BLOCKING))
		sim_stream_after(order->stream, other, other->submitted);
}

/* The NULL stream and blocking streams of its context come after one another. */
static void order(sim_stream_t *stream)
{
	struct order legacy = { stream, false };
	sim_context_t *context = stream->object.context;

	if (stream->legacy)
		sim_object_each(SIM_STREAM, order_legacy, &legacy);
	else if (!(stream->flags & CU_STREAM_NON_BLOCKING) && context->legacy)
		sim_stream_after(stream, context->legacy, context->legacy->submitted);
}

void sim_stream_work(sim_stream_t *stream)
{
	if (unfinished)
		order(stream);
	stream->submitted++;
}

static void make_changed(void)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

CUresult sim_wait_until(bool (*done)(void *argument), void *argument)
{
	struct timespec limit;
	uint64_t at;

	if (done(argument))
		return CUDA_SUCCESS;
	pthread_once(&changed_once, make_changed);
	at = sim_now() + sim_config.wait_ms * 1000000ull;
	limit.tv_sec = (time_t)(at / 1000000000u);
	limit.tv_nsec = (long)(at % 1000000000u);
	while (!done(argument))
		if (pthread_cond_timedwait(&changed, &sim_lock, &limit) == ETIMEDOUT)
			return done(argument)
				       ? CUDA_SUCCESS
				       : sim_fail(CUDA_ERROR_LAUNCH_TIMEOUT,
						  "waited %u ms for a stream that is held",
						  sim_config.wait_ms);
	return CUDA_SUCCESS;
}

/* The lock is dropped during a wait: a stream is known again by its number. */
struct target {
	sim_stream_t *stream;
	uint64_t id, number;
};

static bool target_reached(void *argument)
{
	struct target *target = argument;
	sim_stream_t *stream = sim_object_get(target->stream, SIM_STREAM);

	return !stream || stream->id != target->id || sim_stream_done(stream, target->number);
}

CUresult sim_stream_wait(sim_stream_t *stream)
{
	struct target target = { stream, stream->id, stream->submitted };

	return sim_wait_until(target_reached, &target);
}

/* ---- what takes time: holds and host functions ---- */

static host_call_t *next_due(void)
{
	for (host_call_t *call = host_calls; call; call = call->next)
		if (!call->running &&
		    (!call->stream || finished(call->stream, call->number, call)))
			return call;
	return NULL;
}

static void host_call_end(host_call_t *call)
{
	for (host_call_t **at = &host_calls; *at; at = &(*at)->next)
		if (*at == call) {
			*at = call->next;
			if (host_calls_end == &call->next)
				host_calls_end = at;
			break;
		}
	free(call);
	unfinished--;
}

/*
 * sim_lock held, dropped while host functions run.  Runs those that are due, then
 * tells events and waiters.
 */
static void settle(void)
{
	for (host_call_t *call; (call = next_due());) {
		call->running = true;
		sim_slow++; /* other calls of this thread are refused */
		sim_lock_drop();
		sim_in_callback = true;
		if (call->callback)
			call->callback(call->handle, CUDA_SUCCESS, call->data);
		else
			call->function(call->data);
		sim_in_callback = false;
		sim_lock_take();
		sim_slow--;
		host_call_end(call);
	}
	sim_events_settle(NULL);
	pthread_once(&changed_once, make_changed);
	pthread_cond_broadcast(&changed);
}

static CUresult submit_host_call(host_call_t call)
{
	host_call_t *copy = malloc(sizeof(*copy));

	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_stream_work(call.stream);
	*copy = call;
	copy->number = call.stream->submitted;
	*host_calls_end = copy;
	host_calls_end = &copy->next;
	unfinished++;
	settle();
	return CUDA_SUCCESS;
}

CUresult sim_stream_hold(sim_stream_t *stream, bool hold)
{
	if (stream->held == hold)
		return CUDA_SUCCESS;
	stream->held = hold;
	stream->held_from = stream->submitted;
	if (hold) {
		unfinished++;
	} else {
		unfinished--;
		settle();
	}
	return CUDA_SUCCESS;
}

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

static void forget(void *object, void *argument)
{
	sim_stream_t *stream = object;

	for (struct sim_wait **at = &stream->waits; *at;) {
		struct sim_wait *wait = *at;

		if (wait->stream != argument) {
			at = &wait->next;
			continue;
		}
		*at = wait->next;
		free(wait);
	}
}

/* All of its work counts as finished from now on; its host functions still run. */
static void drop(sim_stream_t *stream)
{
	bool was_busy = unfinished;

	if (stream->held) {
		stream->held = false;
		unfinished--;
	}
	for (host_call_t *call = host_calls; call; call = call->next)
		if (call->stream == stream)
			call->stream = NULL;
	sim_events_settle(stream);
	if (was_busy)
		sim_object_each(SIM_STREAM, forget, stream);
	drop_waits(stream);
	sim_object_delete(stream);
	if (was_busy)
		settle();
}

static void drop_of_context(void *object, void *argument)
{
	sim_stream_t *stream = object;

	if (stream->object.context == argument)
		drop(stream);
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
	sim_lock_take();
	while (own_streams) {
		own_stream_t *own = own_streams;
		sim_stream_t *stream = sim_object_get(own->stream, SIM_STREAM);

		own_streams = own->next;
		if (stream && stream->id == own->id)
			drop(stream);
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
	if (!stream)
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream", (void *)handle);
	return stream;
}

struct of_context {
	sim_context_t *context;
	sim_stream_t *busy;
	CUevent event;
	CUresult result;
};

static void find_busy(void *object, void *argument)
{
	struct of_context *search = argument;
	sim_stream_t *stream = object;

	if (!search->busy && stream->object.context == search->context && !sim_stream_idle(stream))
		search->busy = stream;
}

CUresult sim_streams_wait_context(sim_context_t *context)
{
	uint64_t id = context->id;

	while (unfinished && context->alive && context->id == id) {
		struct of_context search = { context, NULL, NULL, CUDA_SUCCESS };
		CUresult result;

		sim_object_each(SIM_STREAM, find_busy, &search);
		if (!search.busy)
			break;
		result = sim_stream_wait(search.busy);
		if (result != CUDA_SUCCESS)
			return result;
	}
	return CUDA_SUCCESS;
}

CUresult sim_streams_record_context(sim_context_t *context, CUevent event)
{
	struct order everything = { context->legacy, true };

	if (unfinished)
		sim_object_each(SIM_STREAM, order_legacy, &everything);
	return sim_event_record(event, context->legacy);
}

static void wait_event_of_context(void *object, void *argument)
{
	struct of_context *search = argument;
	sim_stream_t *stream = object;

	if (stream->object.context == search->context && search->result == CUDA_SUCCESS)
		search->result = sim_event_wait(stream, search->event);
}

CUresult sim_streams_wait_event(sim_context_t *context, CUevent event)
{
	struct of_context search = { context, NULL, event, CUDA_SUCCESS };

	sim_object_each(SIM_STREAM, wait_event_of_context, &search);
	return search.result;
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
	if (stream && !stream->legacy && !stream->per_thread)
		drop(stream);
	else
		result = sim_fail(CUDA_ERROR_INVALID_HANDLE,
				  "cuStreamDestroy: %p is no stream that was created",
				  (void *)handle);
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
	return sim_stream_idle(stream) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
BOTH(cuStreamQuery, (CUstream handle), true, query, NULL)

static CUresult synchronize(sim_stream_t *stream, void *unused)
{
	(void)unused;
	return sim_stream_wait(stream);
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
BOTH(cuStreamGetCtx_v2, (CUstream handle, CUcontext *context, void **green),
     context && green && (*green = NULL, true), get_context, context)

static CUresult wait_event(sim_stream_t *stream, void *event)
{
	return sim_event_wait(stream, (CUevent)event);
}
/* Flags: 0, or CU_EVENT_WAIT_EXTERNAL (1), which means something only while capturing. */
BOTH(cuStreamWaitEvent, (CUstream handle, CUevent event, unsigned int flags), flags == 0,
     wait_event, event)

static CUresult host_call(sim_stream_t *stream, void *argument)
{
	host_call_t *call = argument;

	call->stream = stream;
	return submit_host_call(*call);
}
BOTH(cuLaunchHostFunc, (CUstream handle, void (*function)(void *data), void *data), function,
     host_call, (&(host_call_t){ .function = function, .data = data }))
BOTH(cuStreamAddCallback,
     (CUstream handle, void (*callback)(CUstream stream, CUresult status, void *data), void *data,
      unsigned int flags),
     callback && flags == 0, host_call,
     (&(host_call_t){ .handle = handle, .callback = callback, .data = data }))
