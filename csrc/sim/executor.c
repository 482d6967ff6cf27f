/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who does the work: the executor's threads, and whoever waits for it.
 *
 * Threads are started as ready streams find none idle, up to MAX_THREADS, so that
 * streams that wait for each other's memory both go on.  A thread that waits for a
 * stream runs that stream's work itself where it is ready (but not what calls the
 * program: kind->apart).
 *
 * Invariants
 *   - sim_lock guards everything here; it is dropped while work runs and in waits.
 *   - threads == idle + searching + those that run a piece.  `tokens` wake idle ones:
 *     who gives one has moved a thread from idle to searching.
 *   - No signal of the program is ever delivered to these threads.
 *   - A forked child has none of them and starts none; it touches no condition.
 *   - When a context or the library goes, its work has EMUV_SIM_END_MS to end by itself,
 *     and then a second to end by being told to.
 */
#define _GNU_SOURCE /* pthread_timedjoin_np, pthread_setname_np */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "kernel/kernel.h"
#include "graph.h"
#include "memory.h"
#include "order.h"

#define MAX_THREADS 8
#define STOP_MS 1000u
#define POLL_NS 50000u
#define TURN_NS 10000000u /* to look whether it is a piece's turn (EMUV_SIM_ORDER) */

_Atomic bool sim_exiting;

static pthread_t thread[MAX_THREADS];
static unsigned int threads, idle, searching, tokens, waiting;
static bool quitting;
static pthread_cond_t work_there, changed;

void sim_executor_init(void)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&work_there, &attributes);
	pthread_cond_init(&changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

/* sim_lock is dropped meanwhile.  False: `at` (sim_now) came first. */
static bool wait_on(pthread_cond_t *condition, uint64_t at)
{
	struct timespec limit = { (time_t)(at / 1000000000u), (long)(at % 1000000000u) };

	return pthread_cond_timedwait(condition, &sim_lock, &limit) != ETIMEDOUT;
}

static bool wait_for_change(uint64_t at)
{
	bool told;

	waiting++;
	told = wait_on(&changed, at);
	waiting--;
	return told;
}

void sim_waiters_tell(void)
{
	if (waiting)
		pthread_cond_broadcast(&changed);
}

/* ---- the threads ---- */

static void *executor(void *unused)
{
	bool slept = false;

	(void)unused;
	sim_lock_take();
	while (!quitting) {
		bool polling;
		sim_stream_t *stream = sim_order_next(&polling);

		if (sim_user_objects_due()) {
			sim_lock_drop();
			sim_user_objects_end();
			sim_lock_take();
		} else if (stream && polling && !slept) {
			wait_on(&work_there, sim_now() + POLL_NS);
			slept = true;
		} else if (stream) {
			slept = false;
			searching--;
			sim_order_run(stream);
			searching++;
			sim_order_go(NULL);
		} else if (sim_order_kept()) {
			wait_for_change(sim_now() + TURN_NS);
		} else {
			slept = false;
			searching--;
			idle++;
			while (!tokens && !quitting)
				pthread_cond_wait(&work_there, &sim_lock);
			if (!quitting)
				tokens--;
		}
	}
	sim_lock_drop();
	return NULL;
}

static bool thread_add(void)
{
	static bool said;
	sigset_t all, before;
	int error;

	if (threads == MAX_THREADS || quitting)
		return false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread[threads], NULL, executor, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		if (!said && !threads)
			sim_say("error: there is no thread to be had that runs work (error %d); "
				"check the limit of processes (ulimit -u)", error);
		said = true;
		return false;
	}
	pthread_setname_np(thread[threads], "emuv-sim");
	threads++;
	searching++;
	return true;
}

CUresult sim_executor_start(void)
{
	return threads || thread_add() ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

void sim_executor_wake(unsigned int needed)
{
	while (searching < needed) {
		if (idle) {
			idle--;
			searching++;
			tokens++;
			pthread_cond_signal(&work_there);
		} else if (!thread_add()) {
			break;
		}
	}
}

/* ---- waiting ---- */

static bool reached(const sim_stream_t *stream, uint64_t number)
{
	return !stream->first || stream->first->number > number;
}

/*
 * sim_lock is dropped meanwhile.  Helps with the stream, up to the piece of that number,
 * or waits for a change.
 */
static bool go_on(sim_stream_t *stream, uint64_t number, uint64_t at)
{
	if (stream && stream->ready && !sim_order_turn(stream)) {
		uint64_t soon = sim_now() + TURN_NS;

		return wait_for_change(soon < at ? soon : at) || soon < at;
	}
	if (!stream || !stream->ready || stream->first->kind->apart)
		return wait_for_change(at);
	sim_order_run(stream);
	/* What comes behind that piece is somebody else's. */
	sim_order_go(reached(stream, number) ? NULL : stream);
	return true;
}

static uint64_t later(unsigned int milliseconds)
{
	return sim_now() + milliseconds * 1000000ull;
}

CUresult sim_stream_wait_for(sim_stream_t *stream, uint64_t number)
{
	sim_context_t *context = stream->object.context;
	CUresult result = CUDA_SUCCESS;
	uint64_t at = 0;

	sim_print_due = true;
	stream->waiters++;
	while (!reached(stream, number)) {
		if (!at)
			at = later(sim_config.wait_ms);
		if (go_on(stream, number, at))
			continue;
		if (sim_stream_blocked(stream)) {
			result = sim_fail(CUDA_ERROR_LAUNCH_TIMEOUT,
					  "waited %u ms for a stream that is held",
					  sim_config.wait_ms);
			break;
		}
		at = 0;
	}
	stream->waiters--;
	if (result == CUDA_SUCCESS && sim_order_moment < stream->moment)
		sim_order_moment = stream->moment;
	if (result == CUDA_SUCCESS)
		result = (CUresult)context->error;
	sim_stream_release(stream);
	return result;
}

void sim_stream_thin_out(sim_stream_t *stream, unsigned int most)
{
	stream->waiters++;
	while (stream->queued > most && !sim_stream_blocked(stream))
		go_on(stream, 0, later(1000));
	stream->waiters--;
}

CUresult sim_stream_wait(sim_stream_t *stream)
{
	return sim_stream_wait_for(stream, stream->submitted);
}

static sim_stream_t *busy_of(const sim_context_t *context, uint64_t number)
{
	for (sim_stream_t *stream = sim_busy_streams; stream; stream = stream->busy_next)
		if (stream->object.context == context && !reached(stream, number))
			return stream;
	return NULL;
}

CUresult sim_context_finish(sim_context_t *context)
{
	uint64_t number = sim_order_number(), id = context->id;
	sim_stream_t *busy;

	sim_print_due = true;
	while (context->unfinished && context->id == id && (busy = busy_of(context, number))) {
		CUresult result = sim_stream_wait_for(busy, number);

		if (result != CUDA_SUCCESS)
			return result;
	}
	return (CUresult)context->error;
}

static void finish(void *context, void *result)
{
	if (*(CUresult *)result == CUDA_SUCCESS)
		*(CUresult *)result = sim_context_finish(context);
}

CUresult sim_current_finish(void)
{
	CUresult result = CUDA_SUCCESS;

	if (!sim_busy_streams)
		return CUDA_SUCCESS;
	if (sim_current())
		return sim_context_finish(sim_current());
	sim_object_each(SIM_CONTEXT, finish, &result);
	return result;
}

void sim_order_settle(void)
{
	uint64_t at = later(STOP_MS);

	while (!sim_order_settled() && wait_for_change(at))
		;
}

unsigned int sim_order_pauses;

static bool anything_runs(void)
{
	for (const sim_stream_t *stream = sim_busy_streams; stream; stream = stream->busy_next)
		if (stream->running)
			return true;
	return false;
}

bool sim_order_pause(void)
{
	uint64_t at = later(sim_config.wait_ms);

	sim_order_pauses++;
	while (anything_runs())
		if (!wait_for_change(at))
			return !anything_runs();
	return true;
}

void sim_order_resume(void)
{
	sim_order_pauses--;
	sim_order_go(NULL);
	sim_waiters_tell();
}

/* ---- the end ---- */

static bool drained(sim_context_t *context, uint64_t at)
{
	while (context ? context->unfinished : sim_busy_streams != NULL)
		if (!wait_for_change(at))
			return false;
	return true;
}

/* Holds are for tests; nobody can end them any more. */
static void release(void *object, void *context)
{
	sim_stream_t *stream = object;

	if (!context || stream->object.context == context)
		sim_stream_hold(stream, false);
}

void sim_context_drain(sim_context_t *context)
{
	context->ending = true;
	sim_object_each(SIM_STREAM, release, context);
	if (context->unfinished && !drained(context, later(sim_config.end_ms))) {
		sim_fail(CUDA_ERROR_LAUNCH_TIMEOUT,
			 "a context ends with work that takes longer than %u ms: it is stopped",
			 sim_config.end_ms);
		sim_context_stop(context);
		drained(context, later(STOP_MS));
	}
	context->ending = false;
	sim_waiters_tell();
}

sim_range_t *sim_range_unused(uint64_t address)
{
	sim_range_t *range;

	while ((range = sim_range_find((uintptr_t)address)) && range->pins)
		wait_for_change(later(STOP_MS));
	return range;
}

void sim_context_drain_end(const sim_context_t *context)
{
	while (context && context->ending)
		wait_for_change(later(STOP_MS));
}

static void stop(void *context, void *unused)
{
	(void)unused;
	sim_context_stop(context);
}

void sim_executor_end(void)
{
	struct timespec limit;

	if (sim_forked())
		return;
	/* exit() from a signal handler may have interrupted a call that holds the lock. */
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 2;
	if (pthread_mutex_timedlock(&sim_lock, &limit) != 0)
		return;
	if (!threads) {
		sim_lock_drop();
		return;
	}
	sim_exiting = true;
	sim_object_each(SIM_STREAM, release, NULL);
	if (!drained(NULL, later(sim_config.end_ms))) {
		sim_say("the process ends with work that takes longer than %u ms: it is stopped",
			sim_config.end_ms);
		sim_object_each(SIM_CONTEXT, stop, NULL);
		drained(NULL, later(STOP_MS));
	}
	quitting = true;
	pthread_cond_broadcast(&work_there);
	sim_lock_drop();
	/* The library may be unmapped after this: nobody runs in it any more. */
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 1;
	for (unsigned int i = 0; i < threads; i++)
		if (!pthread_equal(thread[i], pthread_self()))
			pthread_timedjoin_np(thread[i], NULL, &limit);
}
