/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cuMemset*: 8, 16 and 32-bit values, in one and two dimensions.
 *
 * Addresses (and pitches of more than one row) are multiples of the value's size, as
 * the driver's documentation demands.  Counts are in values, pitches in bytes.
 */
#include <string.h>

#include "set.h"

static void fill(char *to, unsigned int value, size_t width, size_t count)
{
	switch (width) {
	case 1:
		memset(to, (int)value, count);
		break;
	case 2:
		for (size_t i = 0; i < count; i++)
			((uint16_t *)to)[i] = (uint16_t)value;
		break;
	default:
		for (size_t i = 0; i < count; i++)
			((uint32_t *)to)[i] = value;
	}
}

/* Bytes from the first to the last that are set; 0: none. */
static CUresult span_of(const sim_set_t *set, size_t *span)
{
	size_t row;
	*span = 0;
	if ((set->width != 1 && set->width != 2 && set->width != 4) ||
	    set->address % set->width || (set->rows > 1 && set->pitch % set->width))
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"cuMemset: address 0x%llx or pitch %zu is no multiple of %zu",
				(unsigned long long)set->address, set->pitch, set->width);
	if (!set->count || !set->rows)
		return CUDA_SUCCESS;
	if (__builtin_mul_overflow(set->count, set->width, &row) ||
	    __builtin_mul_overflow(set->pitch, set->rows - 1, span) ||
	    __builtin_add_overflow(*span, row, span))
		return CUDA_ERROR_INVALID_VALUE;
	return set->rows > 1 && set->pitch < row ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult sim_set_check(const sim_context_t *context, const sim_set_t *set)
{
	size_t span;
	CUresult result = span_of(set, &span);
	return result == CUDA_SUCCESS ? sim_check(context, set->address, span, SIM_USE_WRITE,
						  SIM_ADDRESS_DEVICE, "cuMemset") :
					result;
}

static CUresult run(sim_work_t *work, sim_cost_t *cost)
{
	const sim_set_t *set = &((sim_set_work_t *)work)->set;
	size_t span;
	sim_lock_take();
	CUresult result = sim_set_check(work->context, set);
	if (result == CUDA_SUCCESS) {
		span_of(set, &span);
		sim_touch(work->context, set->address, span, set->count * set->width * set->rows,
			  SIM_USE_WRITE, cost);
		((sim_set_work_t *)work)->pinned = sim_pin(set->address);
	}
	sim_lock_drop();
	if (result != CUDA_SUCCESS)
		return sim_fail(CUDA_ERROR_ILLEGAL_ADDRESS,
				"memory was freed before it was set");
	for (size_t i = 0; i < set->rows; i++)
		fill((char *)(uintptr_t)set->address + i * set->pitch, set->value, set->width,
		     set->count);
	return CUDA_SUCCESS;
}

static void done(sim_work_t *work)
{
	sim_unpin(((sim_set_work_t *)work)->pinned);
}

const sim_work_kind_t sim_set_kind = {
	.name = "memset",
	.bytes = sizeof(sim_set_work_t),
	.node_type = 2, /* CU_GRAPH_NODE_TYPE_MEMSET */
	.run = run,
	.done = done,
};

/* sim_lock held. */
static CUresult submit(sim_stream_t *stream, const sim_set_t *set, bool synchronous)
{
	CUresult result = sim_set_check(stream->object.context, set);
	if (result != CUDA_SUCCESS || !set->count || !set->rows)
		return result;
	sim_work_t *work = sim_work_new(&sim_set_kind, stream->object.context);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((sim_set_work_t *)work)->set = *set;
	/* Asynchronous even so on a real driver, but for pinned and managed memory. */
	if (synchronous && !stream->capture &&
	    (sim_memory_at(set->address) != SIM_MEMORY_DEVICE || sim_stream_quiet(stream)))
		return sim_stream_run(stream, work);
	return sim_stream_submit(stream, work);
}

static CUresult set(CUstream handle, bool per_thread, bool synchronous, sim_set_t what)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	CUresult result = CUDA_SUCCESS;
	sim_lock_take();
	sim_stream_t *stream = sim_stream_get(handle, per_thread, &result);
	if (stream)
		result = submit(stream, &what, synchronous);
	sim_lock_drop();
	return result;
}

#define SET(name, address_t, value_t, size_type, per_thread)                              \
	SIM_API(name, address_t address, value_t value, size_type count)                  \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set(NULL, per_thread, true,                                        \
			   (sim_set_t){ address, 0, sizeof(value), count, 1, value });    \
	}
#define SET_ASYNC(name, value_t, per_thread)                                              \
	SIM_API(name, CUdeviceptr address, value_t value, size_t count, CUstream stream)  \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set(stream, per_thread, false,                                     \
			   (sim_set_t){ address, 0, sizeof(value), count, 1, value });    \
	}
#define SET_2D(name, address_t, value_t, size_type, per_thread)                           \
	SIM_API(name, address_t address, size_type pitch, value_t value, size_type width, \
		size_type height)                                                         \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set(NULL, per_thread, true,                                        \
			   (sim_set_t){ address, pitch, sizeof(value), width, height, value }); \
	}
#define SET_2D_ASYNC(name, value_t, per_thread)                                           \
	SIM_API(name, CUdeviceptr address, size_t pitch, value_t value, size_t width,     \
		size_t height, CUstream stream)                                           \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set(stream, per_thread, false,                                     \
			   (sim_set_t){ address, pitch, sizeof(value), width, height, value }); \
	}
#define SETS(bits, value_t)                                                               \
	SET(cuMemsetD##bits, CUdeviceptr_v1, value_t, unsigned int, false)                \
	SET(cuMemsetD##bits##_v2, CUdeviceptr, value_t, size_t, false)                    \
	SET(cuMemsetD##bits##_v2_ptds, CUdeviceptr, value_t, size_t, true)                \
	SET_ASYNC(cuMemsetD##bits##Async, value_t, false)                                 \
	SET_ASYNC(cuMemsetD##bits##Async_ptsz, value_t, true)                             \
	SET_2D(cuMemsetD2D##bits, CUdeviceptr_v1, value_t, unsigned int, false)           \
	SET_2D(cuMemsetD2D##bits##_v2, CUdeviceptr, value_t, size_t, false)               \
	SET_2D(cuMemsetD2D##bits##_v2_ptds, CUdeviceptr, value_t, size_t, true)           \
	SET_2D_ASYNC(cuMemsetD2D##bits##Async, value_t, false)                            \
	SET_2D_ASYNC(cuMemsetD2D##bits##Async_ptsz, value_t, true)

SETS(8, unsigned char)
SETS(16, unsigned short)
SETS(32, unsigned int)
