/* SPDX-License-Identifier: GPL-2.0-only */
#include "deferred.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "real.h"

typedef struct waiting {
	struct waiting *next;
	emuv_entry_t entry;
	CUevent event;
} waiting_t;

/* Oldest first.  The lock guards the list only; no driver call under it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static waiting_t *first, **last = &first;
static int n_waiting; /* atomic */

static void append(waiting_t *w)
{
	w->next = NULL;
	pthread_mutex_lock(&lock);
	*last = w;
	last = &w->next;
	__atomic_fetch_add(&n_waiting, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
}

/* Takes the whole list: whoever works on it owns it. */
static waiting_t *take_all(void)
{
	waiting_t *list;

	pthread_mutex_lock(&lock);
	list = first;
	first = NULL;
	last = &first;
	__atomic_store_n(&n_waiting, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
	return list;
}

/*
 * Frees it if its time has come.  In its own context: the calling thread's may be
 * another, or (cuMemCreate) none, and the driver then frees nothing.
 */
static bool finish(waiting_t *w)
{
	bool pushed = !g_real.cuCtxPushCurrent_v2((CUcontext)(uintptr_t)w->entry.context);
	bool ready = g_real.cuEventQuery(w->event) != CUDA_ERROR_NOT_READY;
	CUcontext popped;

	if (ready) {
		g_real.cuEventDestroy_v2(w->event);
		/* Refused, the range is lost to the program either way: it gave it up. */
		g_real.cuMemFree_v2(w->entry.key);
		emuv_account_freed(&w->entry);
		free(w);
	}
	if (pushed)
		g_real.cuCtxPopCurrent_v2(&popped);
	return ready;
}

CUresult emuv_deferred_free(const emuv_entry_t *entry, CUstream stream, bool per_thread)
{
	waiting_t *w = malloc(sizeof *w);
	CUresult result;

	if (!w)
		return CUDA_ERROR_OUT_OF_MEMORY;
	w->entry = *entry;
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

void emuv_deferred_reap(void)
{
	waiting_t *list, *next;

	if (!__atomic_load_n(&n_waiting, __ATOMIC_RELAXED))
		return;
	for (list = take_all(); list; list = next) {
		next = list->next;
		if (!finish(list))
			append(list);
	}
}

bool emuv_deferred_wait_one(void)
{
	const struct timespec pause = { 0, 50000 };
	waiting_t *oldest;

	pthread_mutex_lock(&lock);
	oldest = first;
	if (oldest) {
		first = oldest->next;
		if (!first)
			last = &first;
		__atomic_fetch_sub(&n_waiting, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lock);
	if (!oldest)
		return false;
	for (int i = 0; i < EMUV_DEFERRED_WAIT_MS * 20; i++) {
		if (finish(oldest))
			return true;
		nanosleep(&pause, NULL);
	}
	append(oldest);
	return false;
}

void emuv_deferred_context_gone(CUcontext context)
{
	waiting_t *list, *next;

	for (list = take_all(); list; list = next) {
		next = list->next;
		if (list->entry.context == (uint64_t)(uintptr_t)context) {
			emuv_account_freed(&list->entry);
			free(list);
		} else {
			append(list);
		}
	}
}

void emuv_deferred_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	memcpy(&lock, &fresh, sizeof lock);
	first = NULL;
	last = &first;
	n_waiting = 0;
}
