/* SPDX-License-Identifier: GPL-2.0-only */
#include "deferred.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "contexts.h"
#include "real.h"
#include "relaxed.h"

#define BUSY_WAIT_S 10

typedef struct waiting {
	TAILQ_ENTRY(waiting) link;
	emuv_entry_t entry; /* what is freed; of moves: their device, and what leaves it */
	emuv_move_t *moves, one; /* NULL: a free; else `one` or allocated */
	size_t n_moves;
	enum emuv_move_end how;
	CUcontext context; /* the stream's, and so the event's */
	unsigned long long id; /* emuv_contexts_id */
	unsigned long long stream; /* its id, which no other stream ever has; 0: not known */
	CUevent event;
	bool busy;       /* a thread is asking the driver about it */
	uint64_t ticket; /* not 0: set aside, */
	CUcontext going; /* because this context may be gone in a moment */
} waiting_t;
TAILQ_HEAD(waiting_list, waiting);

/*
 * Oldest first.  The lock guards the list, `busy` and `ticket`; neither the driver
 * nor the allocator is called under it.  What is busy or set aside is left alone by
 * others, and stays on the list until it is uncharged: it is seen to wait.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER; /* something ceased to be busy */
static struct waiting_list list = TAILQ_HEAD_INITIALIZER(list);
static int n_waiting; /* atomic */

/* Its time has come, and the driver has done its part. */
static void uncharge(const waiting_t *w)
{
	for (size_t i = 0; i < w->n_moves; i++)
		emuv_account_settled(&w->moves[i], w->how);
	if (!w->moves)
		emuv_account_freed(&w->entry);
}

/* Lock held. */
static void take_off(waiting_t *w)
{
	TAILQ_REMOVE(&list, w, link);
	__atomic_fetch_sub(&n_waiting, 1, __ATOMIC_RELAXED);
}

/* One of its contexts is gone; what is left in the other one is nobody's but ours. */
static void end_in_other_context(const waiting_t *w, CUcontext gone)
{
	CUcontext owner = (CUcontext)(uintptr_t)w->entry.context;
	CUcontext popped;
	int mode;

	/* A move's range is the program's, and its event went with the stream's context. */
	if (w->moves || owner == w->context ||
	    g_real.cuCtxPushCurrent_v2(gone == owner ? w->context : owner))
		return;
	mode = emuv_relaxed_enter();
	/* The stream's context took its work with it: the range's time has come. */
	if (gone == owner)
		g_real.cuEventDestroy_v2(w->event);
	else
		g_real.cuMemFree_v2(w->entry.key);
	emuv_relaxed_leave(mode);
	g_real.cuCtxPopCurrent_v2(&popped);
}

/*
 * Asks whether its time has come, in its own context: the calling thread's may be
 * another or none.  A primary context may have gone, and even been made anew behind
 * its handle, without having been set aside: its id tells.  Where there is no id and
 * the context cannot be entered, nothing is done.
 */
static bool finish(waiting_t *w)
{
	CUcontext popped;
	bool ready;

	if (w->id && emuv_contexts_id(w->context) != w->id) {
		end_in_other_context(w, w->context);
		w->how = EMUV_MOVE_ENDED;
		return true;
	}
	if (g_real.cuCtxPushCurrent_v2(w->context))
		return false;
	ready = g_real.cuEventQuery(w->event) != CUDA_ERROR_NOT_READY;
	if (ready) {
		g_real.cuEventDestroy_v2(w->event);
		/* Refused, the range is lost to the program either way: it gave it up. */
		if (!w->moves)
			g_real.cuMemFree_v2(w->entry.key);
	}
	g_real.cuCtxPopCurrent_v2(&popped);
	return ready;
}

static void enlist(waiting_t *w)
{
	pthread_mutex_lock(&lock);
	TAILQ_INSERT_TAIL(&list, w, link);
	__atomic_fetch_add(&n_waiting, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
}

bool emuv_deferred_any(void)
{
	return __atomic_load_n(&n_waiting, __ATOMIC_RELAXED) != 0;
}

/* Drivers before CUDA 12.0 do not say. */
static unsigned long long stream_id(CUstream stream, bool per_thread)
{
	unsigned long long id = 0;
	CUresult result = per_thread ? g_real.cuStreamGetId_ptsz(stream, &id) :
				       g_real.cuStreamGetId(stream, &id);

	return result ? 0 : id;
}

/* The oldest free of so many bytes that everything to come in the stream comes after. */
static waiting_t *earlier_in(const emuv_where_t *where, uint64_t bytes, uint32_t pool,
			     unsigned long long stream)
{
	waiting_t *w;

	TAILQ_FOREACH(w, &list, link)
		if (!w->moves && !w->busy && !w->ticket && w->stream == stream &&
		    w->entry.bytes == bytes && w->entry.device == where->device &&
		    w->context == where->context && w->entry.references == pool &&
		    w->entry.context == (uint64_t)(uintptr_t)where->context)
			break;
	return w;
}

bool emuv_deferred_reuse(const emuv_where_t *where, uint64_t bytes, uint32_t pool, CUstream stream,
			 bool per_thread, emuv_entry_t *entry)
{
	unsigned long long id, context;
	CUcontext popped;
	waiting_t *w;
	int mode;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return false;
	id = stream_id(stream, per_thread);
	context = emuv_contexts_id(where->context);
	if (!id || !context)
		return false;
	pthread_mutex_lock(&lock);
	w = earlier_in(where, bytes, pool, id);
	if (w && w->id == context)
		w->busy = true;
	else
		w = NULL;
	pthread_mutex_unlock(&lock);
	if (!w)
		return false;
	*entry = w->entry;
	if (!g_real.cuCtxPushCurrent_v2(w->context)) {
		mode = emuv_relaxed_enter();
		g_real.cuEventDestroy_v2(w->event);
		emuv_relaxed_leave(mode);
		g_real.cuCtxPopCurrent_v2(&popped);
	}
	pthread_mutex_lock(&lock);
	take_off(w);
	pthread_cond_broadcast(&idle);
	pthread_mutex_unlock(&lock);
	free(w);
	return true;
}

CUresult emuv_deferred_free(const emuv_entry_t *entry, CUcontext context, CUstream stream,
			    bool per_thread)
{
	waiting_t *w = calloc(1, sizeof *w);
	CUresult result;
	int mode;

	if (!w)
		return CUDA_ERROR_OUT_OF_MEMORY;
	w->entry = *entry;
	w->context = context;
	w->id = emuv_contexts_id(context);
	w->stream = stream_id(stream, per_thread);
	mode = emuv_relaxed_enter();
	result = g_real.cuEventCreate(&w->event, CU_EVENT_DISABLE_TIMING);
	if (!result) {
		result = per_thread ? g_real.cuEventRecord_ptsz(w->event, stream) :
				      g_real.cuEventRecord(w->event, stream);
		if (result)
			g_real.cuEventDestroy_v2(w->event);
	}
	emuv_relaxed_leave(mode);
	if (result) {
		free(w);
		return result;
	}
	enlist(w);
	return CUDA_SUCCESS;
}

emuv_deferred_t *emuv_deferred_ready(CUcontext context)
{
	waiting_t *w = calloc(1, sizeof *w);
	CUcontext popped;
	CUresult result;
	int mode;

	if (!w || g_real.cuCtxPushCurrent_v2(context)) {
		free(w);
		return NULL;
	}
	mode = emuv_relaxed_enter();
	w->moves = &w->one;
	w->context = context;
	w->id = emuv_contexts_id(context);
	result = g_real.cuEventCreate(&w->event, CU_EVENT_DISABLE_TIMING);
	emuv_relaxed_leave(mode);
	g_real.cuCtxPopCurrent_v2(&popped);
	if (result) {
		free(w);
		return NULL;
	}
	return w;
}

void emuv_deferred_not_moved(emuv_deferred_t *w)
{
	CUcontext popped;

	if (w && !g_real.cuCtxPushCurrent_v2(w->context)) {
		g_real.cuEventDestroy_v2(w->event);
		g_real.cuCtxPopCurrent_v2(&popped);
	}
	free(w);
}

void emuv_deferred_moved(emuv_deferred_t *w, const emuv_move_t *moves, size_t n_moves,
			 CUstream stream, bool per_thread)
{
	int mode = emuv_relaxed_enter();
	CUresult result = per_thread ? g_real.cuEventRecord_ptsz(w->event, stream) :
				       g_real.cuEventRecord(w->event, stream);

	emuv_relaxed_leave(mode);
	if (n_moves > 1)
		w->moves = result ? NULL : malloc(n_moves * sizeof *moves);
	if (result || !w->moves) {
		for (size_t i = 0; i < n_moves; i++)
			emuv_account_settled(&moves[i], EMUV_MOVE_LOST);
		emuv_deferred_not_moved(w);
		return;
	}
	memcpy(w->moves, moves, n_moves * sizeof *moves);
	w->n_moves = n_moves;
	w->stream = stream_id(stream, per_thread);
	/* Batches go to several devices at most where nothing is waited for. */
	w->entry.device = (int16_t)moves[0].device;
	for (size_t i = 0; i < n_moves; i++)
		w->entry.resident += moves[i].device == moves[0].device ? moves[i].leaving : 0;
	enlist(w);
}

static void release(waiting_t *w)
{
	if (w->moves != &w->one)
		free(w->moves);
	free(w);
}

/* A stream that has not come to one of these, and so to none of those after it. */
typedef struct {
	CUcontext context;
	unsigned long long stream;
} behind_t;
#define MAX_BEHIND 8

static bool comes_later(const waiting_t *w, const behind_t *behind)
{
	for (int i = 0; i < MAX_BEHIND && w->stream; i++)
		if (behind[i].stream == w->stream && behind[i].context == w->context)
			return true;
	return false;
}

void emuv_deferred_reap(void)
{
	emuv_deferred_reap_some(INT_MAX);
}

void emuv_deferred_reap_some(int most)
{
	struct waiting_list done = TAILQ_HEAD_INITIALIZER(done);
	behind_t behind[MAX_BEHIND] = { 0 };
	unsigned int n_behind = 0;
	waiting_t *w, *next;
	int mode;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return;
	mode = emuv_relaxed_enter();
	pthread_mutex_lock(&lock);
	for (w = TAILQ_FIRST(&list); w && most > 0; w = next) {
		bool finished;

		next = TAILQ_NEXT(w, link);
		if (w->busy || w->ticket)
			continue;
		if (comes_later(w, behind)) {
			most--;
			continue;
		}
		w->busy = true;
		pthread_mutex_unlock(&lock);
		finished = finish(w);
		if (finished)
			uncharge(w);
		pthread_mutex_lock(&lock);
		/* It is still on the list; what follows it may have changed. */
		next = TAILQ_NEXT(w, link);
		w->busy = false;
		most -= !finished;
		if (finished) {
			take_off(w);
			TAILQ_INSERT_TAIL(&done, w, link);
		} else {
			behind[n_behind++ % MAX_BEHIND] = (behind_t){ w->context, w->stream };
		}
		pthread_cond_broadcast(&idle);
	}
	pthread_mutex_unlock(&lock);
	emuv_relaxed_leave(mode);
	while ((w = TAILQ_FIRST(&done))) {
		TAILQ_REMOVE(&done, w, link);
		release(w);
	}
}

bool emuv_deferred_coming(CUdevice device, uint64_t *bytes, uint64_t *resident)
{
	const waiting_t *w;
	bool any = false;

	*bytes = *resident = 0;
	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&lock);
	TAILQ_FOREACH(w, &list, link)
		if (w->entry.device == device && (w->entry.bytes || w->entry.resident)) {
			*bytes += w->entry.bytes;
			*resident += w->entry.resident;
			any = true;
		}
	pthread_mutex_unlock(&lock);
	return any;
}

bool emuv_deferred_waits(CUdeviceptr address)
{
	const waiting_t *w;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&lock);
	TAILQ_FOREACH(w, &list, link)
		if (!w->moves && w->entry.key == address)
			break;
	pthread_mutex_unlock(&lock);
	return w != NULL;
}

/* ---- contexts that go ---- */

uint64_t emuv_deferred_take(CUcontext context)
{
	static uint64_t last_ticket; /* under the lock */
	struct timespec limit;
	uint64_t ticket;
	waiting_t *w;
	int cancel;

	if (!context || !__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return 0;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += BUSY_WAIT_S;
	/* Waiting for a condition is a place where a cancelled thread would end. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&lock);
	ticket = ++last_ticket;
	w = TAILQ_FIRST(&list);
	while (w) {
		bool ours = w->context == context ||
			    w->entry.context == (uint64_t)(uintptr_t)context;

		if (ours && w->busy) {
			/* A query or a free, not a wait: over in a moment. */
			if (pthread_cond_timedwait(&idle, &lock, &limit))
				break;
			w = TAILQ_FIRST(&list);
			continue;
		}
		if (ours && !w->ticket) {
			w->ticket = ticket;
			w->going = context;
		}
		w = TAILQ_NEXT(w, link);
	}
	pthread_mutex_unlock(&lock);
	pthread_setcancelstate(cancel, NULL);
	return ticket;
}

static waiting_t *first_of(uint64_t ticket)
{
	waiting_t *w;

	pthread_mutex_lock(&lock);
	TAILQ_FOREACH(w, &list, link)
		if (w->ticket == ticket)
			break;
	pthread_mutex_unlock(&lock);
	return w;
}

void emuv_deferred_gone(uint64_t ticket)
{
	waiting_t *w;

	while (ticket && (w = first_of(ticket))) {
		end_in_other_context(w, w->going);
		w->how = EMUV_MOVE_ENDED;
		uncharge(w);
		pthread_mutex_lock(&lock);
		take_off(w);
		pthread_mutex_unlock(&lock);
		release(w);
	}
}

void emuv_deferred_put_back(uint64_t ticket)
{
	waiting_t *w;

	if (!ticket)
		return;
	pthread_mutex_lock(&lock);
	TAILQ_FOREACH(w, &list, link)
		if (w->ticket == ticket)
			w->ticket = 0;
	pthread_mutex_unlock(&lock);
}

void emuv_deferred_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t fresh_condition = PTHREAD_COND_INITIALIZER;

	memcpy(&lock, &fresh, sizeof lock);
	memcpy(&idle, &fresh_condition, sizeof idle);
	TAILQ_INIT(&list);
	n_waiting = 0;
}
