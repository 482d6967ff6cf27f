/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the driver knows of a pointer.
 */
#include <string.h>

#include "memory.h"

/* A pointer, as far as its attributes go.  Taken under the lock. */
typedef struct {
	sim_range_t range; /* a copy; bytes 0: no such range */
	sim_mapping_t mapping; /* of a reservation; bytes 0: nothing mapped */
	CUmemoryPool pool;
	bool exports;
} pointer_t;

static pointer_t look(CUdeviceptr address, const sim_context_t *context)
{
	pointer_t pointer = { 0 };
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	if (range) {
		pointer.range = *range;
		pointer.pool = sim_pool_handle(range->pool);
		pointer.exports = sim_pool_exports(range->pool);
		if (range->kind == SIM_RANGE_RESERVED)
			sim_vmm_mapping(range, (uintptr_t)address, context ? context->device : 0,
					&pointer.mapping);
	}
	sim_lock_drop();
	return pointer;
}

static bool on_host(const pointer_t *pointer)
{
	if (pointer->range.kind == SIM_RANGE_RESERVED)
		return pointer->mapping.location.type != CU_MEM_LOCATION_TYPE_DEVICE;
	return pointer->range.kind == SIM_RANGE_HOST;
}

static unsigned int handle_types(const pointer_t *pointer)
{
	if (pointer->range.kind == SIM_RANGE_RESERVED)
		return pointer->mapping.handle_types;
	return pointer->exports ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE;
}

static unsigned int access_flags(const pointer_t *pointer)
{
	if (pointer->range.kind == SIM_RANGE_RESERVED)
		return pointer->mapping.access;
	return CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE;
}

#define ANSWER(type, value)                                  \
	do {                                                 \
		type answer_ = (type)(value);                \
		memcpy(data, &answer_, sizeof(answer_));     \
		return CUDA_SUCCESS;                         \
	} while (0)

/* An attribute of a pointer that is ours. */
static CUresult attribute_of(const pointer_t *pointer, CUdeviceptr address,
			     CUpointer_attribute attribute, void *data)
{
	const sim_range_t *range = &pointer->range;
	const bool reserved = range->kind == SIM_RANGE_RESERVED;
	const bool mapped = !reserved || pointer->mapping.bytes;

	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_MAPPED:
		ANSWER(bool, mapped);
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
		ANSWER(CUdeviceptr, range->start);
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
		ANSWER(size_t, range->bytes);
	default:
		break;
	}
	if (!mapped)
		return CUDA_ERROR_INVALID_VALUE;

	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_CONTEXT:
		ANSWER(CUcontext, range->context);
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		ANSWER(unsigned int, on_host(pointer) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
		ANSWER(CUdeviceptr, address);
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		if (range->kind != SIM_RANGE_MANAGED && !on_host(pointer))
			return CUDA_ERROR_INVALID_VALUE;
		ANSWER(void *, (uintptr_t)address);
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
		ANSWER(bool, range->sync_memops);
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
		ANSWER(unsigned long long, range->id);
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
		ANSWER(bool, range->kind == SIM_RANGE_MANAGED);
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
		if (reserved)
			ANSWER(int, on_host(pointer) ? CU_DEVICE_CPU : pointer->mapping.location.id);
		ANSWER(int, range->device);
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
		ANSWER(bool, sim_ipc_capable(range));
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
	case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
		ANSWER(bool, false);
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
		ANSWER(unsigned long long, handle_types(pointer));
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		ANSWER(int, access_flags(pointer));
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
		ANSWER(CUmemoryPool, pointer->pool);
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
		ANSWER(size_t, reserved ? pointer->mapping.bytes : range->bytes);
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
		ANSWER(void *, reserved ? pointer->mapping.start : range->start);
	case CU_POINTER_ATTRIBUTE_P2P_TOKENS: /* needs a kernel module */
		return CUDA_ERROR_NOT_SUPPORTED;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

static bool known(CUpointer_attribute attribute)
{
	return attribute >= CU_POINTER_ATTRIBUTE_CONTEXT &&
	       attribute <= CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE;
}

SIM_API(cuPointerGetAttribute, void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
	SIM_ENTER(cuPointerGetAttribute);
	if (!data || !known(attribute))
		return CUDA_ERROR_INVALID_VALUE;
	pointer_t pointer = look(address, sim_current());
	if (!pointer.range.bytes)
		return CUDA_ERROR_INVALID_VALUE;
	return attribute_of(&pointer, address, attribute, data);
}

/* What cuPointerGetAttributes answers where there is nothing to say. */
static void attribute_null(CUpointer_attribute attribute, void *data)
{
	const int ordinal = -2; /* no device: 0 is one */
	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
		memcpy(data, &ordinal, sizeof(ordinal));
		break;
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		memset(data, 0, sizeof(int));
		break;
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
	case CU_POINTER_ATTRIBUTE_MAPPED:
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
	case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
		memset(data, 0, sizeof(bool));
		break;
	default:
		memset(data, 0, sizeof(uint64_t));
	}
}

SIM_API(cuPointerGetAttributes, unsigned int count, CUpointer_attribute *attributes, void **data,
	CUdeviceptr address)
{
	SIM_ENTER(cuPointerGetAttributes);
	if (!count || !attributes || !data)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < count; i++)
		if (!data[i] || !known(attributes[i]) ||
		    attributes[i] == CU_POINTER_ATTRIBUTE_P2P_TOKENS)
			return CUDA_ERROR_INVALID_VALUE;
	pointer_t pointer = look(address, sim_current());
	for (unsigned int i = 0; i < count; i++) {
		/* Host memory that is not ours: its pointer is the one it has. */
		if (!pointer.range.bytes && attributes[i] == CU_POINTER_ATTRIBUTE_HOST_POINTER)
			memcpy(data[i], &address, sizeof(void *));
		else if (!pointer.range.bytes ||
			 attribute_of(&pointer, address, attributes[i], data[i]) != CUDA_SUCCESS)
			attribute_null(attributes[i], data[i]);
	}
	return CUDA_SUCCESS;
}

SIM_API(cuPointerSetAttribute, const void *value, CUpointer_attribute attribute, CUdeviceptr address)
{
	SIM_ENTER(cuPointerSetAttribute);
	if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS)
		return CUDA_ERROR_INVALID_VALUE;
	unsigned int set;
	memcpy(&set, value, sizeof(set));
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	/* Managed memory has no such attribute. */
	bool may = range && set <= 1 &&
		   (range->kind == SIM_RANGE_DEVICE || range->kind == SIM_RANGE_HOST);
	if (may)
		range->sync_memops = set;
	sim_lock_drop();
	return may ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
