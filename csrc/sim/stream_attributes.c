/* SPDX-License-Identifier: GPL-2.0-only */
/* What a stream is told about how to do its work; and the profiler. */
#include <string.h>

#include "internal.h"

/*
 * Attributes of a stream.  There is no cache to steer: the access policy window (1) is
 * taken and answered as none.  Synchronisation policy (3), priority (8), domains (9, 10).
 */
enum { ATTRIBUTE_WINDOW = 1, ATTRIBUTE_SYNC_POLICY = 3, ATTRIBUTE_PRIORITY = 8,
       ATTRIBUTE_DOMAIN_MAP = 9, ATTRIBUTE_DOMAIN = 10 };

static CUresult get_attribute(CUstream handle, bool per_thread, int number,
			      CUstreamAttrValue *value)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *stream;

	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	memset(value, 0, sizeof(*value));
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream && number == ATTRIBUTE_SYNC_POLICY)
		value->syncPolicy = stream->sync_policy;
	else if (stream && number == ATTRIBUTE_PRIORITY)
		value->priority = stream->priority;
	else if (stream && number != ATTRIBUTE_WINDOW && number != ATTRIBUTE_DOMAIN_MAP &&
		 number != ATTRIBUTE_DOMAIN)
		result = CUDA_ERROR_INVALID_VALUE;
	sim_lock_drop();
	return result;
}
SIM_BOTH(cuStreamGetAttribute, (CUstream handle, int number, CUstreamAttrValue *value),
     return get_attribute(handle, per_thread, number, value);)

static CUresult set_attribute(CUstream handle, bool per_thread, int number,
			      const CUstreamAttrValue *value)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *stream;

	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream && number == ATTRIBUTE_SYNC_POLICY) {
		/* 1 automatic, 2 spin, 3 yield, 4 blocking */
		if (value->syncPolicy >= 1 && value->syncPolicy <= 4)
			stream->sync_policy = value->syncPolicy;
		else
			result = CUDA_ERROR_INVALID_VALUE;
	} else if (stream && number == ATTRIBUTE_PRIORITY) {
		if (value->priority <= SIM_PRIORITY_LEAST && value->priority >= SIM_PRIORITY_GREATEST)
			sim_stream_set_priority(stream, value->priority);
		else
			result = CUDA_ERROR_INVALID_VALUE;
	} else if (stream && number != ATTRIBUTE_WINDOW && number != ATTRIBUTE_DOMAIN_MAP &&
		   number != ATTRIBUTE_DOMAIN) {
		result = CUDA_ERROR_INVALID_VALUE;
	}
	sim_lock_drop();
	return result;
}
SIM_BOTH(cuStreamSetAttribute, (CUstream handle, int number, const CUstreamAttrValue *value),
     return set_attribute(handle, per_thread, number, value);)

static CUresult copy_attributes(CUstream to, CUstream from, bool per_thread)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *target, *source;

	sim_lock_take();
	target = sim_stream_get(to, per_thread, &result);
	source = sim_stream_get(from, per_thread, &result);
	if (target && source && target->object.context != source->object.context)
		result = CUDA_ERROR_INVALID_CONTEXT;
	else if (target && source)
		target->sync_policy = source->sync_policy;
	sim_lock_drop();
	return result;
}
SIM_BOTH(cuStreamCopyAttributes, (CUstream to, CUstream from),
     return copy_attributes(to, from, per_thread);)

/* ---- the profiler, which is never attached ---- */

SIM_API(cuProfilerInitialize, const char *config, const char *output, int mode)
{
	SIM_ENTER(cuProfilerInitialize);
	(void)config;
	(void)output;
	(void)mode;
	return CUDA_ERROR_NOT_SUPPORTED; /* as every driver since CUDA 11 */
}

SIM_API(cuProfilerStart, void)
{
	SIM_ENTER(cuProfilerStart);
	return sim_current() ? CUDA_SUCCESS : sim_no_context();
}

SIM_API(cuProfilerStop, void)
{
	SIM_ENTER(cuProfilerStop);
	return sim_current() ? CUDA_SUCCESS : sim_no_context();
}

SIM_API(cuFlushGPUDirectRDMAWrites, int target, int scope)
{
	SIM_ENTER(cuFlushGPUDirectRDMAWrites);
	if (target != 0 || (scope != 100 && scope != 200))
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_ERROR_NOT_SUPPORTED;
}
