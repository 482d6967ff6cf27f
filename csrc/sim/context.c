/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Contexts: created ones, each device's primary one, and a stack of them per thread.
 *
 * Invariants
 *   - A context's memory is never freed (sim.h says why).  A created one leaves the
 *     handle table when it is destroyed; a primary one whenever it is inactive.
 *   - sim_top is the top of the calling thread's stack, kept in step by set_top().
 *   - What a context takes of the card is in context_bytes exactly while it is alive.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "kernel/kernel.h"

#define CTX_FLAGS_MASK 0xffu
#define CTX_SCHED_MASK 0x07u

_Thread_local sim_context_t *sim_top;
/* Below the top: what cuCtxPopCurrent brings back. */
static _Thread_local sim_context_t **below;
static _Thread_local unsigned int below_count, below_room;

static uint64_t context_ids;
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static _Atomic bool thread_key_made;

static void thread_end(void *unused)
{
	(void)unused;
	free(below);
	below = NULL;
	below_count = below_room = 0;
	sim_stream_thread_end();
}

static void thread_key_make(void)
{
	thread_key_made = pthread_key_create(&thread_key, thread_end) == 0;
}

void sim_threads_forget(void)
{
	if (atomic_exchange(&thread_key_made, false))
		pthread_key_delete(thread_key);
}

void sim_thread_note(void)
{
	pthread_once(&thread_once, thread_key_make);
	if (thread_key_made && !pthread_getspecific(thread_key))
		pthread_setspecific(thread_key, &thread_key);
}

static CUresult push(sim_context_t *context)
{
	sim_thread_note();
	if (sim_top || below_count) {
		if (below_count == below_room) {
			unsigned int room = below_room ? below_room * 2 : 8;
			sim_context_t **more = realloc(below, room * sizeof(sim_context_t *));

			if (!more)
				return CUDA_ERROR_OUT_OF_MEMORY;
			below = more;
			below_room = room;
		}
		below[below_count++] = sim_top;
	}
	sim_top = context;
	return CUDA_SUCCESS;
}

static void pop(void)
{
	sim_top = below_count ? below[--below_count] : NULL;
}

CUresult sim_no_context(void)
{
	if (sim_top && sim_top->alive && sim_top->error)
		return (CUresult)sim_top->error;
	return sim_top ? sim_fail(CUDA_ERROR_CONTEXT_IS_DESTROYED,
				  "the thread's current context has been destroyed")
		       : sim_fail(CUDA_ERROR_INVALID_CONTEXT, "the thread has no current context");
}

sim_context_t *sim_context_get(CUcontext handle)
{
	return sim_object_get(handle, SIM_CONTEXT);
}

/* sim_lock held.  Brings a context, new or inactive, to life. */
static CUresult bring_up(sim_context_t *context, CUdevice device, unsigned int flags)
{
	sim_device_t *card = &sim_devices[device];

	if (!sim_card_room(device, card->context_cost))
		return sim_fail(CUDA_ERROR_OUT_OF_MEMORY,
				"a context takes %llu bytes, the card of device %d has less",
				(unsigned long long)card->context_cost, device);
	context->object.kind = SIM_CONTEXT;
	context->object.context = context;
	context->device = device;
	context->flags = flags;
	context->id = ++context_ids;
	context->attached = 1;
	context->peers = 0;
	context->cache_config = context->shared_config = 0;
	context->error = 0;
	context->stop = 0;
	sim_context_default_limits(context);
	if (!sim_object_enter(context))
		return CUDA_ERROR_OUT_OF_MEMORY;
	context->legacy = sim_stream_make(context, 0, 0);
	if (!context->legacy) {
		sim_object_leave(context);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	context->legacy->legacy = true;
	card->context_bytes += card->context_cost;
	sim_card_used(device);
	atomic_store(&context->alive, true);
	return CUDA_SUCCESS;
}

/* sim_lock held, dropped while the last work runs out. */
static void tear_down(sim_context_t *context)
{
	atomic_store(&context->alive, false);
	sim_object_leave(context);
	sim_context_drain(context);
	sim_streams_drop_context(context);
	sim_events_drop_context(context);
	sim_modules_drop_context(context);
	sim_memory_drop_context(context);
	sim_heap_drop_context(context);
	context->legacy = NULL;
	sim_devices[context->device].context_bytes -= sim_devices[context->device].context_cost;
}

static CUresult create(CUcontext *handle, unsigned int flags, CUdevice device)
{
	sim_context_t *context;
	CUresult result;

	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuCtxCreate, device);
	if (flags & ~CTX_FLAGS_MASK || (flags & CTX_SCHED_MASK & ((flags & CTX_SCHED_MASK) - 1)))
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuCtxCreate: flags 0x%x", flags);
	context = calloc(1, sizeof(*context));
	if (!context)
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_lock_take();
	result = bring_up(context, device, flags);
	sim_lock_drop();
	if (result != CUDA_SUCCESS) {
		free(context);
		return result;
	}
	result = push(context);
	if (result != CUDA_SUCCESS) { /* nobody will ever hold it */
		sim_lock_take();
		tear_down(context);
		sim_lock_drop();
		return result;
	}
	*handle = (CUcontext)context;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxCreate, CUcontext *handle, unsigned int flags, CUdevice device)
{
	SIM_ENTER(cuCtxCreate);
	return create(handle, flags, device);
}

SIM_API(cuCtxCreate_v2, CUcontext *handle, unsigned int flags, CUdevice device)
{
	SIM_ENTER(cuCtxCreate_v2);
	return create(handle, flags, device);
}

SIM_API(cuCtxCreate_v3, CUcontext *handle, CUexecAffinityParam *affinity, int count,
	unsigned int flags, CUdevice device)
{
	SIM_ENTER(cuCtxCreate_v3);
	if (count < 0 || (!affinity && count))
		return CUDA_ERROR_INVALID_VALUE;
	if (count)
		return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
	return create(handle, flags, device);
}

SIM_API(cuCtxCreate_v4, CUcontext *handle, CUctxCreateParams *parameters, unsigned int flags,
	CUdevice device)
{
	SIM_ENTER(cuCtxCreate_v4);
	if (parameters && parameters->cigParams)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (parameters && parameters->numExecAffinityParams)
		return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
	return create(handle, flags, device);
}

static CUresult destroy(CUcontext handle)
{
	sim_context_t *context;

	sim_lock_take();
	context = sim_context_get(handle);
	if (!context || context->primary) {
		sim_lock_drop();
		return sim_fail(CUDA_ERROR_INVALID_CONTEXT, "cuCtxDestroy: %p is %s", (void *)handle,
				context ? "a primary context" : "no context");
	}
	tear_down(context);
	sim_lock_drop();
	/* In other threads it stays current, and says CUDA_ERROR_CONTEXT_IS_DESTROYED. */
	if (sim_top == context)
		pop();
	return CUDA_SUCCESS;
}

SIM_API(cuCtxDestroy, CUcontext handle)
{
	SIM_ENTER(cuCtxDestroy);
	return destroy(handle);
}

SIM_API(cuCtxDestroy_v2, CUcontext handle)
{
	SIM_ENTER(cuCtxDestroy_v2);
	return destroy(handle);
}

SIM_API(cuCtxAttach, CUcontext *handle, unsigned int flags)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxAttach);
	if (!handle || flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	sim_lock_take();
	context->attached++;
	sim_lock_drop();
	*handle = (CUcontext)context;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxDetach, CUcontext handle)
{
	sim_context_t *context = sim_current();
	bool last;

	SIM_ENTER(cuCtxDetach);
	if (!context)
		return sim_no_context();
	if ((CUcontext)context != handle || context->primary)
		return sim_fail(CUDA_ERROR_INVALID_CONTEXT,
				"cuCtxDetach: %p is not a created context that is current",
				(void *)handle);
	sim_lock_take();
	last = --context->attached == 0;
	sim_lock_drop();
	return last ? destroy(handle) : CUDA_SUCCESS;
}

/* ---- the calling thread's stack ---- */

static CUresult push_handle(CUcontext handle)
{
	sim_context_t *context;

	sim_lock_take();
	context = sim_context_get(handle);
	sim_lock_drop();
	if (!context)
		return sim_fail(CUDA_ERROR_INVALID_CONTEXT, "cuCtxPushCurrent: %p is no context",
				(void *)handle);
	return push(context);
}

SIM_API(cuCtxPushCurrent, CUcontext handle)
{
	SIM_ENTER(cuCtxPushCurrent);
	return push_handle(handle);
}

SIM_API(cuCtxPushCurrent_v2, CUcontext handle)
{
	SIM_ENTER(cuCtxPushCurrent_v2);
	return push_handle(handle);
}

static CUresult pop_handle(CUcontext *handle)
{
	if (!sim_top)
		return sim_no_context();
	if (handle)
		*handle = (CUcontext)sim_top;
	pop();
	return CUDA_SUCCESS;
}

SIM_API(cuCtxPopCurrent, CUcontext *handle)
{
	SIM_ENTER(cuCtxPopCurrent);
	return pop_handle(handle);
}

SIM_API(cuCtxPopCurrent_v2, CUcontext *handle)
{
	SIM_ENTER(cuCtxPopCurrent_v2);
	return pop_handle(handle);
}

SIM_API(cuCtxSetCurrent, CUcontext handle)
{
	sim_context_t *context;

	SIM_ENTER(cuCtxSetCurrent);
	if (!handle) {
		pop();
		return CUDA_SUCCESS;
	}
	if ((sim_context_t *)handle == sim_current())
		return CUDA_SUCCESS;
	sim_lock_take();
	context = sim_context_get(handle);
	sim_lock_drop();
	if (!context)
		return sim_fail(CUDA_ERROR_INVALID_CONTEXT, "cuCtxSetCurrent: %p is no context",
				(void *)handle);
	if (!sim_top)
		return push(context);
	sim_top = context;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetCurrent, CUcontext *handle)
{
	SIM_ENTER(cuCtxGetCurrent);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	*handle = (CUcontext)sim_top;
	return CUDA_SUCCESS;
}

/* ---- primary contexts ---- */

SIM_API(cuDevicePrimaryCtxRetain, CUcontext *handle, CUdevice device)
{
	CUresult result = CUDA_SUCCESS;
	sim_device_t *card;

	SIM_ENTER(cuDevicePrimaryCtxRetain);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDevicePrimaryCtxRetain, device);
	card = &sim_devices[device];
	sim_lock_take();
	sim_context_drain_end(card->primary);
	if (!card->primary)
		card->primary = calloc(1, sizeof(*card->primary));
	if (!card->primary) {
		result = CUDA_ERROR_OUT_OF_MEMORY;
	} else if (!card->primary->alive) {
		card->primary->primary = true;
		result = bring_up(card->primary, device, card->primary_flags);
	}
	if (result == CUDA_SUCCESS) {
		card->primary_refs++;
		*handle = (CUcontext)card->primary;
	}
	sim_lock_drop();
	return result;
}

static CUresult primary_release(CUdevice device)
{
	CUresult result = CUDA_SUCCESS;
	sim_device_t *card;

	SIM_DEVICE_CHECK(cuDevicePrimaryCtxRelease, device);
	card = &sim_devices[device];
	sim_lock_take();
	if (card->primary_refs == 0)
		result = CUDA_ERROR_INVALID_CONTEXT;
	else if (--card->primary_refs == 0 && card->primary->alive)
		tear_down(card->primary);
	sim_lock_drop();
	return result;
}

SIM_API(cuDevicePrimaryCtxRelease, CUdevice device)
{
	SIM_ENTER(cuDevicePrimaryCtxRelease);
	return primary_release(device);
}

SIM_API(cuDevicePrimaryCtxRelease_v2, CUdevice device)
{
	SIM_ENTER(cuDevicePrimaryCtxRelease_v2);
	return primary_release(device);
}

/* Destroys what the context holds; who retained it releases it all the same. */
static CUresult primary_reset(CUdevice device)
{
	SIM_DEVICE_CHECK(cuDevicePrimaryCtxReset, device);
	sim_lock_take();
	if (sim_devices[device].primary && sim_devices[device].primary->alive)
		tear_down(sim_devices[device].primary);
	sim_lock_drop();
	return CUDA_SUCCESS;
}

SIM_API(cuDevicePrimaryCtxReset, CUdevice device)
{
	SIM_ENTER(cuDevicePrimaryCtxReset);
	return primary_reset(device);
}

SIM_API(cuDevicePrimaryCtxReset_v2, CUdevice device)
{
	SIM_ENTER(cuDevicePrimaryCtxReset_v2);
	return primary_reset(device);
}

static CUresult primary_set_flags(CUdevice device, unsigned int flags)
{
	SIM_DEVICE_CHECK(cuDevicePrimaryCtxSetFlags, device);
	if (flags & ~CTX_FLAGS_MASK || (flags & CTX_SCHED_MASK & ((flags & CTX_SCHED_MASK) - 1)))
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuDevicePrimaryCtxSetFlags: flags 0x%x",
				flags);
	sim_lock_take();
	sim_devices[device].primary_flags = flags;
	if (sim_devices[device].primary)
		sim_devices[device].primary->flags = flags;
	sim_lock_drop();
	return CUDA_SUCCESS;
}

SIM_API(cuDevicePrimaryCtxSetFlags, CUdevice device, unsigned int flags)
{
	SIM_ENTER(cuDevicePrimaryCtxSetFlags);
	return primary_set_flags(device, flags);
}

SIM_API(cuDevicePrimaryCtxSetFlags_v2, CUdevice device, unsigned int flags)
{
	SIM_ENTER(cuDevicePrimaryCtxSetFlags_v2);
	return primary_set_flags(device, flags);
}

SIM_API(cuDevicePrimaryCtxGetState, CUdevice device, unsigned int *flags, int *active)
{
	SIM_ENTER(cuDevicePrimaryCtxGetState);
	if (!flags || !active)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDevicePrimaryCtxGetState, device);
	sim_lock_take();
	*flags = sim_devices[device].primary_flags;
	*active = sim_devices[device].primary && sim_devices[device].primary->alive;
	sim_lock_drop();
	return CUDA_SUCCESS;
}
