/* SPDX-License-Identifier: GPL-2.0-only */
#include "contexts.h"

#include <pthread.h>
#include <string.h>

#include "real.h"

/* Contexts beyond these are served too, only without a side stream or cached device. */
#define MAX_CONTEXTS 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static emuv_context_t contexts[MAX_CONTEXTS];
static int n_contexts;
/* Goes up when a context comes or goes: the driver may give its address to another. */
static uint64_t epoch = 1;

/* Lock held. */
static emuv_context_t *find(CUcontext context)
{
	for (int i = 0; i < n_contexts; i++)
		if (contexts[i].context == context)
			return &contexts[i];
	return NULL;
}

enum emuv_contexts_added emuv_contexts_add(const emuv_context_t *context)
{
	enum emuv_contexts_added added = EMUV_CONTEXT_ADDED;
	emuv_context_t *found;

	pthread_mutex_lock(&lock);
	found = find(context->context);
	if (!found && n_contexts == MAX_CONTEXTS) {
		added = EMUV_CONTEXTS_FULL;
	} else if (!found) {
		contexts[n_contexts++] = *context;
		__atomic_fetch_add(&epoch, 1, __ATOMIC_RELEASE);
	} else if (found->overhead || !context->overhead) {
		added = EMUV_CONTEXT_KNOWN;
	} else {
		added = EMUV_CONTEXT_OWES;
		found->overhead = context->overhead;
	}
	pthread_mutex_unlock(&lock);
	return added;
}

bool emuv_contexts_remove(CUcontext context, emuv_context_t *removed)
{
	emuv_context_t *found;

	pthread_mutex_lock(&lock);
	found = find(context);
	if (found) {
		*removed = *found;
		*found = contexts[--n_contexts];
		__atomic_fetch_add(&epoch, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lock);
	return found != NULL;
}

unsigned long long emuv_contexts_id(CUcontext context)
{
	unsigned long long id = 0;

	return context && !g_real.cuCtxGetId(context, &id) ? id : 0;
}

bool emuv_contexts_anew(CUcontext context, unsigned long long id)
{
	emuv_context_t *found;
	bool anew = false;

	pthread_mutex_lock(&lock);
	found = find(context);
	if (found && id) {
		anew = found->id && found->id != id;
		found->id = id;
	}
	pthread_mutex_unlock(&lock);
	return anew;
}

bool emuv_contexts_any(CUdevice device)
{
	bool any = false;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < n_contexts; i++)
		any |= contexts[i].device == device;
	pthread_mutex_unlock(&lock);
	return any;
}

CUcontext emuv_contexts_primary(CUdevice device)
{
	CUcontext context = NULL;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < n_contexts; i++)
		if (contexts[i].primary && contexts[i].device == device)
			context = contexts[i].context;
	pthread_mutex_unlock(&lock);
	return context;
}

/*
 * Whose memory a context's is.  One that nobody created or retained is a green one's, and
 * its memory the primary one's.
 */
static CUcontext owner_of(CUcontext context, CUdevice device)
{
	CUcontext primary = emuv_contexts_primary(device);
	bool green;

	pthread_mutex_lock(&lock);
	green = !find(context) && n_contexts < MAX_CONTEXTS;
	pthread_mutex_unlock(&lock);
	return green && primary ? primary : context;
}

/* Where a context is, which is current unless `push`. */
static bool find_out(CUcontext context, bool push, emuv_where_t *where)
{
	static __thread struct {
		CUcontext context;
		emuv_where_t where;
		uint64_t epoch;
	} last;
	uint64_t now = __atomic_load_n(&epoch, __ATOMIC_ACQUIRE);
	CUcontext popped;
	CUresult result;

	if (last.context == context && last.epoch == now) {
		*where = last.where;
		return true;
	}
	if (push && g_real.cuCtxPushCurrent_v2(context))
		return false;
	result = g_real.cuCtxGetDevice(&where->device);
	if (push)
		g_real.cuCtxPopCurrent_v2(&popped);
	if (result || where->device < 0 || where->device >= EMUV_MAX_DEVICES)
		return false;
	where->context = owner_of(context, where->device);
	last.context = context;
	last.where = *where;
	last.epoch = now;
	return true;
}

bool emuv_where_current(emuv_where_t *where)
{
	CUcontext context = NULL;

	return !g_real.cuCtxGetCurrent(&context) && context && find_out(context, false, where);
}

bool emuv_where_stream(CUstream stream, emuv_where_t *where)
{
	CUcontext context = NULL, current = NULL;
	CUgreenCtx green;

	if (!stream || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD)
		return emuv_where_current(where);
	/* A stream says where by itself: the thread may have no context current. */
	if (g_real.cuStreamGetCtx(stream, &context))
		return false;
	if (g_real.cuCtxGetCurrent(&current))
		current = NULL;
	if (find_out(context, context != current, where))
		return true;
	/* A green context is one thread's at a time; the primary one is anybody's. */
	return !g_real.cuStreamGetCtx_v2(stream, &context, &green) &&
	       find_out(context, context != current, where);
}

/* False: the context is not known. */
static bool known_side(CUcontext context, CUstream *side)
{
	const emuv_context_t *found;

	pthread_mutex_lock(&lock);
	found = find(context);
	*side = found ? found->side : NULL;
	pthread_mutex_unlock(&lock);
	return found != NULL;
}

CUstream emuv_contexts_side_stream(CUcontext context)
{
	CUstream side, made;
	CUcontext popped;
	CUresult result;

	if (!known_side(context, &side) || side)
		return side;
	/* In its own context, which need not be the current one: it must live as long. */
	if (g_real.cuCtxPushCurrent_v2(context))
		return NULL;
	result = g_real.cuStreamCreate(&made, CU_STREAM_NON_BLOCKING);
	g_real.cuCtxPopCurrent_v2(&popped);
	if (result)
		return NULL;
	if (emuv_contexts_give_side(context, made))
		return made;
	/* Another thread was first. */
	g_real.cuStreamDestroy_v2(made);
	known_side(context, &side);
	return side;
}

CUstream emuv_contexts_take_side(CUcontext context)
{
	emuv_context_t *found;
	CUstream side = NULL;

	pthread_mutex_lock(&lock);
	found = find(context);
	if (found) {
		side = found->side;
		found->side = NULL;
	}
	pthread_mutex_unlock(&lock);
	return side;
}

bool emuv_contexts_give_side(CUcontext context, CUstream side)
{
	emuv_context_t *found;
	bool taken;

	pthread_mutex_lock(&lock);
	found = find(context);
	taken = found && !found->side;
	if (taken)
		found->side = side;
	pthread_mutex_unlock(&lock);
	return taken;
}

void emuv_contexts_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	memcpy(&lock, &fresh, sizeof lock);
	n_contexts = 0;
	epoch++;
}
