/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cuMemset*: 8, 16 and 32-bit values, in one and two dimensions.
 *
 * Addresses (and pitches of more than one row) are multiples of the value's size, as
 * the driver's documentation demands.  Counts are in values, pitches in bytes.
 */
#include <string.h>

#include "memory.h"

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

/* `width` bytes a value, `count` values a row. */
static CUresult set(sim_context_t *context, uint64_t address, size_t pitch, unsigned int value,
		    size_t width, size_t count, size_t rows)
{
	size_t row, span;
	if (address % width || (rows > 1 && pitch % width))
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"cuMemset: address 0x%llx or pitch %zu is no multiple of %zu",
				(unsigned long long)address, pitch, width);
	if (!count || !rows)
		return CUDA_SUCCESS;
	if (__builtin_mul_overflow(count, width, &row) ||
	    __builtin_mul_overflow(pitch, rows - 1, &span) ||
	    __builtin_add_overflow(span, row, &span))
		return CUDA_ERROR_INVALID_VALUE;
	if (rows > 1 && pitch < row)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sim_check(context, address, span, SIM_USE_WRITE, SIM_ADDRESS_DEVICE,
				    "cuMemset");
	if (result != CUDA_SUCCESS)
		return result;
	for (size_t i = 0; i < rows; i++)
		fill((char *)(uintptr_t)address + i * pitch, value, width, count);
	return CUDA_SUCCESS;
}

static CUresult set_now(uint64_t address, size_t pitch, unsigned int value, size_t width,
			size_t count, size_t rows, bool per_thread)
{
	SIM_NEED_CONTEXT(context);
	CUresult result = set(context, address, pitch, value, width, count, rows);
	/* Asynchronous on a real driver too, but for host memory. */
	return result == CUDA_SUCCESS ? sim_submit(NULL, per_thread) : result;
}

static CUresult set_async(uint64_t address, size_t pitch, unsigned int value, size_t width,
			  size_t count, size_t rows, CUstream stream, bool per_thread)
{
	SIM_NEED_CONTEXT(context);
	CUresult result = sim_submit(stream, per_thread);
	return result == CUDA_SUCCESS ? set(context, address, pitch, value, width, count, rows) : result;
}

#define SET(name, address_t, value_t, size_type, per_thread)                              \
	SIM_API(name, address_t address, value_t value, size_type count)                  \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set_now(address, 0, value, sizeof(value), count, 1, per_thread);   \
	}
#define SET_ASYNC(name, value_t, per_thread)                                              \
	SIM_API(name, CUdeviceptr address, value_t value, size_t count, CUstream stream)  \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set_async(address, 0, value, sizeof(value), count, 1, stream,      \
				 per_thread);                                             \
	}
#define SET_2D(name, address_t, value_t, size_type, per_thread)                           \
	SIM_API(name, address_t address, size_type pitch, value_t value, size_type width, \
		size_type height)                                                         \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set_now(address, pitch, value, sizeof(value), width, height,       \
			       per_thread);                                               \
	}
#define SET_2D_ASYNC(name, value_t, per_thread)                                           \
	SIM_API(name, CUdeviceptr address, size_t pitch, value_t value, size_t width,     \
		size_t height, CUstream stream)                                           \
	{                                                                                 \
		SIM_ENTER(name);                                                          \
		return set_async(address, pitch, value, sizeof(value), width, height,     \
				 stream, per_thread);                                     \
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
