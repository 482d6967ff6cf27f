/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a context is asked and told: device, flags, limits, configuration, peers,
 * and work of the whole context (synchronise, record, wait).
 */
#include <string.h>

#include "capture.h"
#include "internal.h"
#include "work.h"

enum {
	LIMIT_STACK_SIZE, LIMIT_PRINTF_FIFO_SIZE, LIMIT_MALLOC_HEAP_SIZE,
	LIMIT_DEV_RUNTIME_SYNC_DEPTH, LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT,
	LIMIT_MAX_L2_FETCH_GRANULARITY, LIMIT_PERSISTING_L2_CACHE_SIZE, LIMIT_SHMEM_SIZE,
	LIMIT_CIG_ENABLED, LIMIT_CIG_SHMEM_FALLBACK_ENABLED, LIMITS,
};

void sim_context_default_limits(sim_context_t *context)
{
	memset(context->limits, 0, sizeof(context->limits));
	context->limits[LIMIT_STACK_SIZE] = 1024;
	context->limits[LIMIT_PRINTF_FIFO_SIZE] = 1 << 20;
	context->limits[LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
	context->limits[LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048;
	context->limits[LIMIT_MAX_L2_FETCH_GRANULARITY] = 64;
}

/* The live context of a handle, the current one for NULL; else *why says what is wrong. */
static sim_context_t *of(CUcontext handle, CUresult *why)
{
	sim_context_t *context;

	if (!handle) {
		context = sim_current();
		if (!context)
			*why = sim_no_context();
		return context;
	}
	sim_lock_take();
	context = sim_context_get(handle);
	sim_lock_drop();
	if (!context)
		*why = sim_fail(CUDA_ERROR_INVALID_CONTEXT, "%p is no context", (void *)handle);
	else if (context->error)
		*why = (CUresult)context->error, context = NULL;
	return context;
}

SIM_API(cuCtxGetDevice, CUdevice *device)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxGetDevice);
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	*device = context->device;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetDevice_v2, CUdevice *device, CUcontext handle)
{
	sim_context_t *context;
	CUresult why;

	SIM_ENTER(cuCtxGetDevice_v2);
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	context = of(handle, &why);
	if (!context)
		return why;
	*device = context->device;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetFlags, unsigned int *flags)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxGetFlags);
	if (!flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	*flags = context->flags;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxSetFlags, unsigned int flags)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxSetFlags);
	if (!context)
		return sim_no_context();
	if (flags & ~0xffu || (flags & 7 & ((flags & 7) - 1)))
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuCtxSetFlags: flags 0x%x", flags);
	context->flags = flags;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetId, CUcontext handle, unsigned long long *id)
{
	sim_context_t *context;
	CUresult why;

	SIM_ENTER(cuCtxGetId);
	if (!id)
		return CUDA_ERROR_INVALID_VALUE;
	context = of(handle, &why);
	if (!context)
		return why;
	*id = context->id;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetApiVersion, CUcontext handle, unsigned int *version)
{
	CUresult why;

	SIM_ENTER(cuCtxGetApiVersion);
	if (!version)
		return CUDA_ERROR_INVALID_VALUE;
	if (!of(handle, &why))
		return why;
	*version = 3020;
	return CUDA_SUCCESS;
}

static bool limit_settable(int limit)
{
	switch (limit) {
	case LIMIT_STACK_SIZE:
	case LIMIT_PRINTF_FIFO_SIZE:
	case LIMIT_MALLOC_HEAP_SIZE:
	case LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT:
	case LIMIT_MAX_L2_FETCH_GRANULARITY:
	case LIMIT_PERSISTING_L2_CACHE_SIZE:
		return true;
	default:
		return false;
	}
}

SIM_API(cuCtxSetLimit, int limit, size_t value)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxSetLimit);
	if (!context)
		return sim_no_context();
	if (limit < 0 || limit >= LIMITS)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuCtxSetLimit: no limit %d", limit);
	if (!limit_settable(limit))
		return CUDA_ERROR_UNSUPPORTED_LIMIT;
	/* There is no persisting cache: the driver clamps to what there is, which is 0. */
	if (limit == LIMIT_PERSISTING_L2_CACHE_SIZE)
		value = 0;
	if (limit == LIMIT_MAX_L2_FETCH_GRANULARITY && value > 128)
		value = 128;
	context->limits[limit] = value;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetLimit, size_t *value, int limit)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxGetLimit);
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	if (limit < 0 || limit >= LIMITS)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuCtxGetLimit: no limit %d", limit);
	if (limit == LIMIT_DEV_RUNTIME_SYNC_DEPTH)
		return CUDA_ERROR_UNSUPPORTED_LIMIT;
	*value = context->limits[limit];
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetCacheConfig, int *config)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxGetCacheConfig);
	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	*config = context->cache_config;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxSetCacheConfig, int config)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxSetCacheConfig);
	if (!context)
		return sim_no_context();
	if (config < 0 || config > 3)
		return CUDA_ERROR_INVALID_VALUE;
	context->cache_config = config;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetSharedMemConfig, int *config)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxGetSharedMemConfig);
	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	*config = 1; /* four-byte banks, as on every device since Maxwell */
	return CUDA_SUCCESS;
}

SIM_API(cuCtxSetSharedMemConfig, int config)
{
	sim_context_t *context = sim_current();

	SIM_ENTER(cuCtxSetSharedMemConfig);
	if (!context)
		return sim_no_context();
	if (config < 0 || config > 2)
		return CUDA_ERROR_INVALID_VALUE;
	context->shared_config = config;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxGetStreamPriorityRange, int *least, int *greatest)
{
	SIM_ENTER(cuCtxGetStreamPriorityRange);
	if (!sim_current())
		return sim_no_context();
	if (least)
		*least = SIM_PRIORITY_LEAST;
	if (greatest)
		*greatest = SIM_PRIORITY_GREATEST;
	return CUDA_SUCCESS;
}

SIM_API(cuCtxResetPersistingL2Cache, void)
{
	SIM_ENTER(cuCtxResetPersistingL2Cache);
	return sim_current() ? CUDA_SUCCESS : sim_no_context();
}

static CUresult synchronize(CUcontext handle)
{
	sim_context_t *context;
	CUresult result;

	context = of(handle, &result);
	if (!context)
		return result;
	sim_lock_take();
	result = sim_captures ? sim_capture_context(context) : CUDA_SUCCESS;
	if (result == CUDA_SUCCESS && sim_captures)
		result = sim_capture_unsafe();
	if (result == CUDA_SUCCESS)
		result = sim_context_finish(context);
	sim_lock_drop();
	return result;
}

SIM_API(cuCtxSynchronize, void)
{
	SIM_ENTER(cuCtxSynchronize);
	return synchronize(NULL);
}

SIM_API(cuCtxSynchronize_v2, CUcontext handle)
{
	SIM_ENTER(cuCtxSynchronize_v2);
	return synchronize(handle);
}

SIM_API(cuCtxRecordEvent, CUcontext handle, CUevent event)
{
	sim_context_t *context;
	CUresult result;

	SIM_ENTER(cuCtxRecordEvent);
	context = of(handle, &result);
	if (!context)
		return result;
	sim_lock_take();
	result = sim_event_record_context(event, context);
	sim_lock_drop();
	return result;
}

SIM_API(cuCtxWaitEvent, CUcontext handle, CUevent event)
{
	sim_context_t *context;
	CUresult result;

	SIM_ENTER(cuCtxWaitEvent);
	context = of(handle, &result);
	if (!context)
		return result;
	sim_lock_take();
	result = sim_event_wait_context(context, event);
	sim_lock_drop();
	return result;
}

/* Every card of the simulator reaches every other. */
SIM_API(cuCtxEnablePeerAccess, CUcontext peer, unsigned int flags)
{
	sim_context_t *context = sim_current(), *other;
	CUresult result = CUDA_SUCCESS;

	SIM_ENTER(cuCtxEnablePeerAccess);
	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	sim_lock_take();
	other = sim_context_get(peer);
	if (!other || other->device == context->device)
		result = sim_fail(CUDA_ERROR_INVALID_CONTEXT,
				  "cuCtxEnablePeerAccess: %p is no context of another device",
				  (void *)peer);
	else if (context->peers & 1u << other->device)
		result = CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
	else
		context->peers |= 1u << other->device;
	sim_lock_drop();
	return result;
}

SIM_API(cuCtxDisablePeerAccess, CUcontext peer)
{
	sim_context_t *context = sim_current(), *other;
	CUresult result = CUDA_SUCCESS;

	SIM_ENTER(cuCtxDisablePeerAccess);
	if (!context)
		return sim_no_context();
	sim_lock_take();
	other = sim_context_get(peer);
	if (!other)
		result = sim_fail(CUDA_ERROR_INVALID_CONTEXT,
				  "cuCtxDisablePeerAccess: %p is no context", (void *)peer);
	else if (!(context->peers & 1u << other->device))
		result = CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
	else
		context->peers &= ~(1u << other->device);
	sim_lock_drop();
	return result;
}
