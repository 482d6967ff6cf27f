/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The order of work: what is finished, what waits for what, host functions.
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
 *   - A stream's memory goes only after all that points to it was told
 *     (sim_order_forget).
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
	uint64_t number;
	sim_host_t host;
	bool running;
} host_call_t;

static host_call_t *host_calls, **host_calls_end = &host_calls;
static unsigned int unfinished; /* held streams and host calls */

static pthread_cond_t changed;
static pthread_once_t changed_once = PTHREAD_ONCE_INIT;

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
 * The lock is dropped while host functions run.  Runs those that are due, then tells
 * events and waiters.
 */
void sim_order_settle(void)
{
	for (host_call_t *call; (call = next_due());) {
		call->running = true;
		sim_slow++; /* other calls of this thread are refused */
		sim_lock_drop();
		sim_in_callback = true;
		if (call->host.callback)
			call->host.callback(call->host.handle, CUDA_SUCCESS, call->host.data);
		else
			call->host.function(call->host.data);
		sim_in_callback = false;
		sim_lock_take();
		sim_slow--;
		host_call_end(call);
	}
	sim_events_settle(NULL);
	pthread_once(&changed_once, make_changed);
	pthread_cond_broadcast(&changed);
}

CUresult sim_host_submit(sim_stream_t *stream, const sim_host_t *host)
{
	host_call_t *call = calloc(1, sizeof(*call));

	if (!call)
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_stream_work(stream);
	call->stream = stream;
	call->number = stream->submitted;
	call->host = *host;
	*host_calls_end = call;
	host_calls_end = &call->next;
	unfinished++;
	sim_order_settle();
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
		sim_order_settle();
	}
	return CUDA_SUCCESS;
}

/* ---- the end of a stream ---- */

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

bool sim_order_forget(sim_stream_t *stream)
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
	return was_busy;
}

/* ---- whole contexts ---- */

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
