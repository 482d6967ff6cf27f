/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The order of work: queues, and what comes before what.
 *
 * A stream is a queue of pieces; its first one may run when nothing of other streams
 * comes before it any more (`unmet` is 0) and the stream is not held for it.  Order
 * between streams is kept by edges, from a piece to one that waits for it; an edge
 * leads to a later piece only, so that there is no cycle.  A piece without run() is a
 * place in the stream: it is done as soon as it is first and nothing is before it.
 *
 * Invariants
 *   - sim_lock guards everything here.
 *   - A stream is in the list `busy` exactly while it has a piece; in a list of
 *     `ready` streams while its first one may run and nobody runs it.
 *   - What changes a stream puts it on the list `look`; sim_order_go() draws the
 *     conclusions for all that are there, without recursion.
 *   - Edges are reserved before anything is changed: a piece enters whole or not.
 *   - A stream that is destroyed lives on until its last piece is done and nobody
 *     waits for it.
 */
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "order.h"

typedef struct sim_edge {
	struct sim_edge *next;
	sim_work_t *work;
} sim_edge_t;

sim_stream_t *sim_busy_streams;
unsigned int sim_held_streams;
uint64_t sim_order_moment;

static sim_stream_t *look;
static uint64_t numbers;
static unsigned int busy_count;

/* ---- edges ---- */

static sim_edge_t *spare_edges;
static unsigned int spare_count;

static bool edges_reserve(unsigned int count)
{
	while (spare_count < count) {
		sim_edge_t *edge = malloc(sizeof(*edge));

		if (!edge)
			return false;
		edge->next = spare_edges;
		spare_edges = edge;
		spare_count++;
	}
	return true;
}

void sim_work_after(sim_work_t *work, sim_work_t *earlier)
{
	sim_edge_t *edge;

	if (earlier->stream == work->stream)
		return;
	edge = spare_edges;
	spare_edges = edge->next;
	spare_count--;
	edge->work = work;
	edge->next = earlier->after;
	earlier->after = edge;
	work->unmet++;
}

/* ---- lists of streams ---- */

static void busy_add(sim_stream_t *stream)
{
	stream->busy_previous = NULL;
	stream->busy_next = sim_busy_streams;
	if (sim_busy_streams)
		sim_busy_streams->busy_previous = stream;
	sim_busy_streams = stream;
	busy_count++;
}

static void busy_remove(sim_stream_t *stream)
{
	if (stream->busy_previous)
		stream->busy_previous->busy_next = stream->busy_next;
	else
		sim_busy_streams = stream->busy_next;
	if (stream->busy_next)
		stream->busy_next->busy_previous = stream->busy_previous;
	busy_count--;
}

#define PRIORITIES (SIM_PRIORITY_LEAST - SIM_PRIORITY_GREATEST + 1)
static struct {
	sim_stream_t *first, *last;
} ready[PRIORITIES];
static unsigned int ready_count, polling_count;

static int ready_list(const sim_stream_t *stream)
{
	return stream->priority - SIM_PRIORITY_GREATEST;
}

static void ready_add(sim_stream_t *stream)
{
	int list = ready_list(stream);

	stream->ready_next = NULL;
	stream->ready_previous = ready[list].last;
	if (ready[list].last)
		ready[list].last->ready_next = stream;
	else
		ready[list].first = stream;
	ready[list].last = stream;
	stream->ready = true;
	ready_count++;
	polling_count += stream->polling;
}

static void ready_remove(sim_stream_t *stream)
{
	int list = ready_list(stream);

	if (stream->ready_previous)
		stream->ready_previous->ready_next = stream->ready_next;
	else
		ready[list].first = stream->ready_next;
	if (stream->ready_next)
		stream->ready_next->ready_previous = stream->ready_previous;
	else
		ready[list].last = stream->ready_previous;
	stream->ready = false;
	ready_count--;
	polling_count -= stream->polling;
}

void sim_stream_set_priority(sim_stream_t *stream, int priority)
{
	bool was_ready = stream->ready;

	if (was_ready)
		ready_remove(stream);
	stream->priority = priority;
	if (was_ready)
		ready_add(stream);
}

void sim_order_look(sim_stream_t *stream)
{
	if (stream->looked_at)
		return;
	stream->looked_at = true;
	stream->look_next = look;
	look = stream;
}

/* ---- the course of a piece ---- */

/* Its context will do nothing more: what is queued is passed over. */
static bool passed_over(const sim_work_t *work)
{
	return work->context->error || work->context->stop;
}

static bool held(const sim_stream_t *stream)
{
	return stream->held && stream->first->number > stream->held_from;
}

static void maybe_free(sim_stream_t *stream)
{
	if (stream->gone && !stream->first && !stream->waiters && !stream->looked_at)
		free(stream);
}

/* The first piece of the stream is done, or passed over. */
static void complete(sim_stream_t *stream, uint64_t moment)
{
	sim_work_t *work = stream->first;

	stream->first = work->next;
	if (!stream->first)
		stream->last = NULL;
	stream->moment = moment;
	if (!(stream->flags & CU_STREAM_NON_BLOCKING) && work->context->blocking_moment < moment)
		work->context->blocking_moment = moment;
	work->start = moment;
	if (work->kind->done)
		work->kind->done(work);
	while (work->after) {
		sim_edge_t *edge = work->after;

		work->after = edge->next;
		if (edge->work->start < moment)
			edge->work->start = moment;
		if (--edge->work->unmet == 0)
			sim_order_look(edge->work->stream);
		edge->next = spare_edges;
		spare_edges = edge;
		spare_count++;
	}
	work->context->unfinished--;
	stream->queued--;
	sim_work_drop(work);
	if (!stream->first)
		busy_remove(stream);
	sim_order_look(stream);
}

static uint64_t start_of(const sim_stream_t *stream)
{
	uint64_t start = stream->first->start;

	return start > stream->moment ? start : stream->moment;
}

void sim_order_go(const sim_stream_t *own)
{
	unsigned int needed;

	if (!look)
		return;

	while (look) {
		sim_stream_t *stream = look;

		look = stream->look_next;
		stream->looked_at = false;
		while (stream->first && !stream->running && !stream->first->unmet &&
		       !held(stream)) {
			bool over = passed_over(stream->first) && !stream->first->kind->apart;

			if (!over && stream->first->kind->run)
				break;
			if (stream->ready)
				ready_remove(stream);
			stream->polling = false;
			complete(stream, start_of(stream));
		}
		if (stream->first && !stream->running && !stream->first->unmet && !held(stream)) {
			if (!stream->ready)
				ready_add(stream);
		} else if (stream->ready) {
			ready_remove(stream);
		}
		maybe_free(stream);
	}
	/* All that poll are one thread's business. */
	needed = ready_count - polling_count + (polling_count != 0) + sim_user_objects_due();
	/* Who waits for the stream runs it, but for what calls the program (executor.c). */
	if (needed && own && own->ready && !own->first->kind->apart)
		needed--;
	if (needed)
		sim_executor_wake(needed);
	sim_waiters_tell();
}

/*
 * EMUV_SIM_ORDER=submission: one piece at a time, the one that was submitted first, so that
 * what moves does not depend on which thread is faster.  Not where one seems to wait for
 * another: then that one may go on.
 */
#define PATIENCE_NS UINT64_C(1000000000)
static unsigned int turns; /* pieces that run, but for those that call the program */
static uint64_t turn_began;

bool sim_order_turn(const sim_stream_t *stream)
{
	if (sim_order_pauses)
		return false;
	if (!sim_config.in_order || stream->first->kind->apart)
		return true;
	if (turns && sim_now() - turn_began < PATIENCE_NS)
		return false;
	for (int list = 0; list < PRIORITIES; list++)
		for (const sim_stream_t *other = ready[list].first; other; other = other->ready_next)
			if (!other->first->kind->apart &&
			    other->first->number < stream->first->number)
				return false;
	return true;
}

bool sim_order_kept(void)
{
	return (sim_config.in_order && ready_count > polling_count) || (sim_order_pauses && ready_count);
}

/* sim_lock is dropped while it runs. */
void sim_order_run(sim_stream_t *stream)
{
	sim_work_t *work = stream->first;
	uint64_t start = start_of(stream);
	bool turn = sim_config.in_order && !work->kind->apart;
	sim_cost_t cost;
	CUresult result;

	if (turn) {
		turns++;
		turn_began = sim_now();
	}
	ready_remove(stream);
	stream->polling = false;
	stream->running = true;
	sim_lock_drop();
	memset(&cost, 0, sizeof(cost));
	cost.device = work->context->device;
	result = work->kind->run(work, &cost);
	sim_lock_take();
	turns -= turn;
	stream->running = false;
	if (result == SIM_AGAIN) {
		stream->polling = true;
		sim_order_look(stream);
		return;
	}
	if (result != CUDA_SUCCESS)
		sim_context_fail(work->context, result);
	complete(stream, sim_clock_run(&cost, start));
}

sim_stream_t *sim_order_next(bool *polling)
{
	*polling = ready_count && ready_count == polling_count;
	for (int list = 0; list < PRIORITIES; list++)
		for (sim_stream_t *stream = ready[list].first; stream; stream = stream->ready_next)
			if ((!stream->polling || *polling) && sim_order_turn(stream))
				return stream;
	return NULL;
}

bool sim_order_settled(void)
{
	if (ready_count)
		return false;
	for (const sim_stream_t *stream = sim_busy_streams; stream; stream = stream->busy_next)
		if (stream->running)
			return false;
	return true;
}

uint64_t sim_order_number(void)
{
	return numbers;
}

void sim_stream_release(sim_stream_t *stream)
{
	maybe_free(stream);
}

/* ---- submission ---- */

/* As a card's queue, a stream's has an end: who submits faster than it works waits. */
#define MOST_QUEUED 4096u

uint64_t sim_stream_moment(const sim_stream_t *stream)
{
	const sim_context_t *context = stream->object.context;
	uint64_t moment = stream->moment > sim_order_moment ? stream->moment : sim_order_moment;
	uint64_t other = stream->legacy ? context->blocking_moment : context->legacy->moment;

	return stream->flags & CU_STREAM_NON_BLOCKING || moment > other ? moment : other;
}

/* The NULL stream and blocking streams of its context come after one another. */
static void order_legacy(sim_stream_t *stream, sim_work_t *work)
{
	sim_context_t *context = stream->object.context;

	if (!stream->legacy) {
		if (!(stream->flags & CU_STREAM_NON_BLOCKING) && context->legacy->last)
			sim_work_after(work, context->legacy->last);
		return;
	}
	for (sim_stream_t *other = sim_busy_streams; other; other = other->busy_next)
		if (other->object.context == context && !(other->flags & CU_STREAM_NON_BLOCKING))
			sim_work_after(work, other->last);
}

/* The piece goes to the end of the queue. */
static CUresult queue(sim_stream_t *stream, sim_work_t *work)
{
	if (!edges_reserve(busy_count + 2)) {
		sim_work_drop(work);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	work->stream = stream;
	work->context = stream->object.context;
	work->number = stream->submitted = ++numbers;
	work->start = sim_stream_moment(stream);
	work->context->unfinished++;
	stream->queued++;
	if (busy_count)
		order_legacy(stream, work);
	if (work->kind->enter)
		work->kind->enter(work);
	if (stream->last)
		stream->last->next = work;
	else
		stream->first = work;
	stream->last = work;
	if (stream->first == work) {
		busy_add(stream);
		sim_order_look(stream);
	}
	return CUDA_SUCCESS;
}

void sim_stream_room(sim_stream_t *stream)
{
	if (stream->queued >= MOST_QUEUED)
		sim_stream_thin_out(stream, MOST_QUEUED / 2);
}

CUresult sim_stream_append(sim_stream_t *stream, sim_work_t *work)
{
	return queue(stream, work);
}

/* Work that a capture forbids, or takes: true, and *result is the answer. */
static bool captured(sim_stream_t *stream, sim_work_t *work, CUresult *result)
{
	if (stream->capture) {
		*result = sim_capture_add(stream, work->kind->node_type, work, NULL);
		return true;
	}
	*result = stream->legacy ? sim_capture_implicit(stream) : CUDA_SUCCESS;
	if (*result == CUDA_SUCCESS)
		return false;
	sim_work_drop(work);
	return true;
}

CUresult sim_stream_submit(sim_stream_t *stream, sim_work_t *work)
{
	CUresult result;

	if (sim_captures && captured(stream, work, &result))
		return result;
	sim_stream_room(stream);
	result = sim_executor_start();
	if (result != CUDA_SUCCESS) {
		sim_work_drop(work);
		return result;
	}
	result = queue(stream, work);
	if (result == CUDA_SUCCESS)
		sim_order_go(NULL);
	return result;
}

CUresult sim_stream_run(sim_stream_t *stream, sim_work_t *work)
{
	CUresult result;

	if (sim_captures && captured(stream, work, &result))
		return result;
	result = queue(stream, work);
	if (result != CUDA_SUCCESS)
		return result;
	sim_order_go(stream); /* the caller itself runs it, as soon as it may */
	return sim_stream_wait(stream);
}

bool sim_stream_quiet(const sim_stream_t *stream)
{
	const sim_context_t *context = stream->object.context;

	if (stream->held || stream->first)
		return false;
	if (!context->unfinished || stream->flags & CU_STREAM_NON_BLOCKING)
		return true;
	if (!stream->legacy)
		return !context->legacy->first;
	for (const sim_stream_t *other = sim_busy_streams; other; other = other->busy_next)
		if (other->object.context == context && !(other->flags & CU_STREAM_NON_BLOCKING))
			return false;
	return true;
}

/* A place in the stream. */
static const sim_work_kind_t place = { .name = "place", .bytes = sizeof(sim_work_t) };

CUresult sim_stream_place(sim_stream_t *stream)
{
	sim_work_t *work;

	if (sim_stream_quiet(stream))
		return CUDA_SUCCESS;
	work = sim_work_new(&place, stream->object.context);
	return work ? sim_stream_submit(stream, work) : CUDA_ERROR_OUT_OF_MEMORY;
}

/* After everything that any stream of the context has now. */
static void enter_after_all(sim_work_t *work)
{
	for (sim_stream_t *other = sim_busy_streams; other; other = other->busy_next)
		if (other->object.context == work->context &&
		    other->flags & CU_STREAM_NON_BLOCKING)
			sim_work_after(work, other->last);
}

static const sim_work_kind_t place_after_all = {
	.name = "place", .bytes = sizeof(sim_work_t), .enter = enter_after_all,
};

CUresult sim_stream_place_after_all(sim_context_t *context)
{
	sim_work_t *work;

	if (!context->unfinished && !context->legacy->held)
		return CUDA_SUCCESS;
	work = sim_work_new(&place_after_all, context);
	return work ? sim_stream_submit(context->legacy, work) : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- what a wait that takes long is asked ---- */

static bool blocked(const sim_stream_t *stream, unsigned int depth)
{
	if (!stream->first || stream->running || depth > 64)
		return false;
	if (held(stream))
		return true;
	if (!stream->first->unmet)
		return false;
	for (const sim_stream_t *other = sim_busy_streams; other; other = other->busy_next)
		for (const sim_work_t *work = other->first; work; work = work->next)
			for (const sim_edge_t *edge = work->after; edge; edge = edge->next)
				if (edge->work == stream->first &&
				    (blocked(other, depth + 1) ||
				     (other->held && work->number > other->held_from)))
					return true;
	return false;
}

bool sim_stream_blocked(const sim_stream_t *stream)
{
	return sim_held_streams && blocked(stream, 0);
}
