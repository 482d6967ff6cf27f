/* SPDX-License-Identifier: GPL-2.0-only */
#include "deferred.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "real.h"
#include "relaxed.h"

#define BUSY_WAIT_S 10

struct emuv_waiting {
	emuv_waiting_t *next;
	emuv_entry_t entry;
	CUcontext context; /* the stream's, and so the event's */
	CUevent event;
	bool busy; /* a thread is asking the driver about it */
	uint64_t pass; /* the last reap that looked at it */
};

/*
 * Oldest first.  The lock guards the list and `busy`; no driver call is made under
 * it.  What is busy stays on the list: others see that it still waits.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER; /* something ceased to be busy */
static emuv_waiting_t *first;
static int n_waiting; /* atomic */

static void append(emuv_waiting_t *w)
{
	emuv_waiting_t **at = &first;

	w->next = NULL;
	w->busy = false;
	pthread_mutex_lock(&lock);
	while (*at)
		at = &(*at)->next;
	*at = w;
	__atomic_fetch_add(&n_waiting, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
}

/* Lock held. */
static void unlink_waiting(emuv_waiting_t *w)
{
	emuv_waiting_t **at = &first;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	__atomic_fetch_sub(&n_waiting, 1, __ATOMIC_RELAXED);
}

/*
 * Asks whether its time has come, in its own context: the calling thread's may be
 * another or none.  Where that context cannot be entered nothing is done: its
 * handle may already be another's.
 */
static bool finish(emuv_waiting_t *w)
{
	CUcontext popped;
	bool ready;

	if (g_real.cuCtxPushCurrent_v2(w->context))
		return false;
	ready = g_real.cuEventQuery(w->event) != CUDA_ERROR_NOT_READY;
	if (ready) {
		g_real.cuEventDestroy_v2(w->event);
		/* Refused, the range is lost to the program either way: it gave it up. */
		g_real.cuMemFree_v2(w->entry.key);
	}
	g_real.cuCtxPopCurrent_v2(&popped);
	return ready;
}

CUresult emuv_deferred_free(const emuv_entry_t *entry, CUcontext context, CUstream stream,
			    bool per_thread)
{
	emuv_waiting_t *w = calloc(1, sizeof *w);
	CUresult result;

	if (!w)
		return CUDA_ERROR_OUT_OF_MEMORY;
	w->entry = *entry;
	w->context = context;
	result = g_real.cuEventCreate(&w->event, CU_EVENT_DISABLE_TIMING);
	if (!result) {
		result = per_thread ? g_real.cuEventRecord_ptsz(w->event, stream) :
				      g_real.cuEventRecord(w->event, stream);
		if (result)
			g_real.cuEventDestroy_v2(w->event);
	}
	if (result) {
		free(w);
		return result;
	}
	append(w);
	return CUDA_SUCCESS;
}

/* The next to look at in this pass, made busy; NULL: all have been looked at. */
static emuv_waiting_t *claim(uint64_t pass)
{
	emuv_waiting_t *w;

	pthread_mutex_lock(&lock);
	for (w = first; w && (w->busy || w->pass >= pass); w = w->next)
		;
	if (w) {
		w->busy = true;
		w->pass = pass;
	}
	pthread_mutex_unlock(&lock);
	return w;
}

void emuv_deferred_reap(void)
{
	static uint64_t passes;
	emuv_waiting_t *w;
	uint64_t pass;
	int mode;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return;
	pass = __atomic_add_fetch(&passes, 1, __ATOMIC_RELAXED);
	mode = emuv_relaxed_enter();
	while ((w = claim(pass))) {
		bool finished = finish(w);

		if (finished)
			emuv_account_freed(&w->entry);
		pthread_mutex_lock(&lock);
		w->busy = false;
		if (finished)
			unlink_waiting(w);
		pthread_cond_broadcast(&idle);
		pthread_mutex_unlock(&lock);
		if (finished)
			free(w);
	}
	emuv_relaxed_leave(mode);
}

uint64_t emuv_deferred_bytes(CUdevice device)
{
	uint64_t bytes = 0;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return 0;
	pthread_mutex_lock(&lock);
	for (const emuv_waiting_t *w = first; w; w = w->next)
		if (w->entry.device == device)
			bytes += w->entry.bytes;
	pthread_mutex_unlock(&lock);
	return bytes;
}

bool emuv_deferred_waits(CUdeviceptr address)
{
	const emuv_waiting_t *w;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&lock);
	for (w = first; w && w->entry.key != address; w = w->next)
		;
	pthread_mutex_unlock(&lock);
	return w != NULL;
}

emuv_waiting_t *emuv_deferred_take(CUcontext context)
{
	emuv_waiting_t *list = NULL, *w;
	struct timespec limit;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return NULL;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += BUSY_WAIT_S;
	pthread_mutex_lock(&lock);
	for (w = first; w;) {
		if (w->context != context &&
		    w->entry.context != (uint64_t)(uintptr_t)context) {
			w = w->next;
			continue;
		}
		if (w->busy) {
			/* A query or a free, not a wait: over in a moment. */
			if (pthread_cond_timedwait(&idle, &lock, &limit))
				break;
			w = first;
			continue;
		}
		unlink_waiting(w);
		w->next = list;
		list = w;
		w = first;
	}
	pthread_mutex_unlock(&lock);
	return list;
}

void emuv_deferred_gone(emuv_waiting_t *list)
{
	while (list) {
		emuv_waiting_t *next = list->next;

		emuv_account_freed(&list->entry);
		free(list);
		list = next;
	}
}

void emuv_deferred_put_back(emuv_waiting_t *list)
{
	while (list) {
		emuv_waiting_t *next = list->next;

		append(list);
		list = next;
	}
}

void emuv_deferred_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t fresh_condition = PTHREAD_COND_INITIALIZER;

	memcpy(&lock, &fresh, sizeof lock);
	memcpy(&idle, &fresh_condition, sizeof idle);
	first = NULL;
	n_waiting = 0;
}
