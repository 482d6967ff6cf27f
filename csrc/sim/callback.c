/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Functions of the program in a stream's order: cuLaunchHostFunc, cuStreamAddCallback.
 *
 * They run on an executor's thread, without a lock, one after another in a stream, and
 * must not call CUDA (CUDA_ERROR_NOT_PERMITTED).  Where an error sticks to the context
 * a host function is not called, and a callback is told the error, as documented.
 * When the process ends, none is called any more.
 */
#include "callback.h"
#include "capture.h"

static CUresult run(sim_work_t *work, sim_cost_t *cost)
{
	sim_host_work_t *call = (sim_host_work_t *)work;
	CUresult status = (CUresult)work->context->error;

	(void)cost;
	if (sim_exiting || (!call->callback && (status != CUDA_SUCCESS || work->context->stop)))
		return CUDA_SUCCESS;
	sim_slow++; /* calls of this thread are refused */
	sim_in_callback = true;
	if (call->callback)
		call->callback(call->handle, status, call->data);
	else
		call->function(call->data);
	sim_in_callback = false;
	sim_slow--;
	return CUDA_SUCCESS;
}

const sim_work_kind_t sim_host_kind = {
	.name = "host function",
	.bytes = sizeof(sim_host_work_t),
	.node_type = 3, /* CU_GRAPH_NODE_TYPE_HOST */
	.apart = true,
	.run = run,
};

static CUresult submit(CUstream handle, bool per_thread, const sim_host_work_t *like)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *stream;

	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream && stream->capture && like->callback) {
		result = sim_capture_refuse(stream);
	} else if (stream) {
		sim_work_t *work = sim_work_new(&sim_host_kind, stream->object.context);

		if (work) {
			sim_host_work_t *call = (sim_host_work_t *)work;

			call->function = like->function;
			call->callback = like->callback;
			call->data = like->data;
			call->handle = handle;
			result = sim_stream_submit(stream, work);
		} else {
			result = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	sim_lock_drop();
	return result;
}

#define HOST_FUNCTION(name, per_thread)                                                   \
	SIM_API(name, CUstream stream, void (*function)(void *data), void *data)          \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		if (!function)                                                            \
			return CUDA_ERROR_INVALID_VALUE;                                  \
		return submit(stream, per_thread,                                         \
			      &(sim_host_work_t){ .function = function, .data = data });  \
	}
HOST_FUNCTION(cuLaunchHostFunc, false)
HOST_FUNCTION(cuLaunchHostFunc_ptsz, true)

#define CALLBACK(name, per_thread)                                                        \
	SIM_API(name, CUstream stream,                                                    \
		void (*callback)(CUstream stream, CUresult status, void *data),           \
		void *data, unsigned int flags)                                           \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		if (!callback || flags)                                                   \
			return CUDA_ERROR_INVALID_VALUE;                                  \
		return submit(stream, per_thread,                                         \
			      &(sim_host_work_t){ .callback = callback, .data = data });  \
	}
CALLBACK(cuStreamAddCallback, false)
CALLBACK(cuStreamAddCallback_ptsz, true)
