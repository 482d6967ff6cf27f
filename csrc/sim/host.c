/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pinned host memory: allocated here, or the program's own and registered.
 *
 * With unified addressing all of it is reachable by every device under its host
 * address, whatever the flags say.  A registered range is exactly what was given;
 * nothing is pinned, since nothing here moves by itself.
 */
#include "capture.h"
#include "memory.h"
#include "work.h"

#define HOST_FLAGS (CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | \
		    CU_MEMHOSTALLOC_WRITECOMBINED)
#define REGISTER_FLAGS (CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | \
			CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY)

static CUresult allocate(void **address, size_t bytes, unsigned int flags)
{
	SIM_NEED_CONTEXT(context);
	if (!address || !bytes || flags & ~(unsigned int)HOST_FLAGS)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	sim_range_t *range;
	CUresult result = sim_memory_new(SIM_RANGE_HOST, bytes, context->device, &range);
	if (result == CUDA_SUCCESS) {
		range->context = context;
		range->flags = flags;
		*address = (void *)range->start;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuMemHostAlloc, void **address, size_t bytes, unsigned int flags)
{
	SIM_ENTER(cuMemHostAlloc);
	return allocate(address, bytes, flags);
}

SIM_API(cuMemAllocHost_v2, void **address, size_t bytes)
{
	SIM_ENTER(cuMemAllocHost_v2);
	return allocate(address, bytes, 0);
}

SIM_API(cuMemAllocHost, void **address, unsigned int bytes)
{
	SIM_ENTER(cuMemAllocHost);
	return allocate(address, bytes, 0);
}

SIM_API(cuMemFreeHost, void *address)
{
	SIM_ENTER(cuMemFreeHost);
	SIM_NEED_CONTEXT(context);
	sim_leftover_t leftover = { 0 };
	sim_lock_take();
	CUresult result = sim_captures ? sim_capture_unsafe() : CUDA_SUCCESS;
	if (result == CUDA_SUCCESS)
		result = sim_context_finish(context);
	if (result != CUDA_SUCCESS) {
		sim_lock_drop();
		return result;
	}
	sim_range_t *range = sim_range_unused((uintptr_t)address);
	bool ours = range && range->kind == SIM_RANGE_HOST && !range->registered &&
		    !range->pool && range->start == (uintptr_t)address;
	if (ours)
		leftover = sim_memory_free(range);
	sim_lock_drop();
	if (!ours)
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"cuMemFreeHost: %p is not the start of live pinned memory", address);
	sim_leftover_drop(leftover);
	return CUDA_SUCCESS;
}

/* ---- registration ---- */

static CUresult enter(void *address, size_t bytes, unsigned int flags)
{
	SIM_NEED_CONTEXT(context);
	uintptr_t start = (uintptr_t)address;
	if (!address || !bytes || start + bytes < start || flags & ~(unsigned int)REGISTER_FLAGS)
		return CUDA_ERROR_INVALID_VALUE;
	/* Memory of a device that is mapped for the CPU: there is none here. */
	if (flags & (CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY))
		return CUDA_ERROR_NOT_SUPPORTED;
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
	sim_lock_take();
	sim_range_t *other = sim_range_overlap(start, bytes);
	if (other) {
		result = other->kind == SIM_RANGE_HOST ?
				 CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED : CUDA_ERROR_INVALID_VALUE;
	} else {
		sim_range_t *range = sim_range_add(SIM_RANGE_HOST, start, bytes);
		if (range) {
			range->context = context;
			range->device = context->device;
			range->flags = flags;
			range->registered = true;
			result = CUDA_SUCCESS;
		}
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuMemHostRegister_v2, void *address, size_t bytes, unsigned int flags)
{
	SIM_ENTER(cuMemHostRegister_v2);
	return enter(address, bytes, flags);
}

SIM_API(cuMemHostRegister, void *address, size_t bytes, unsigned int flags)
{
	SIM_ENTER(cuMemHostRegister);
	return enter(address, bytes, flags);
}

SIM_API(cuMemHostUnregister, void *address)
{
	SIM_ENTER(cuMemHostUnregister);
	SIM_NEED_CONTEXT(context);
	if (!address)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	CUresult result = sim_captures ? sim_capture_unsafe() : CUDA_SUCCESS;
	if (result == CUDA_SUCCESS)
		result = sim_context_finish(context);
	if (result != CUDA_SUCCESS) {
		sim_lock_drop();
		return result;
	}
	sim_range_t *range = sim_range_unused((uintptr_t)address);
	bool ours = range && range->registered && range->start == (uintptr_t)address;
	if (ours)
		sim_memory_free(range); /* leaves nothing to unmap */
	sim_lock_drop();
	return ours ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

/* ---- queries ---- */

static CUresult host_flags(void *address, unsigned int *flags)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	bool host = range && range->kind == SIM_RANGE_HOST;
	if (host)
		*flags = range->flags | CU_MEMHOSTALLOC_DEVICEMAP;
	sim_lock_drop();
	return host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuMemHostGetFlags, unsigned int *flags, void *address)
{
	SIM_ENTER(cuMemHostGetFlags);
	return flags ? host_flags(address, flags) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuMemHostGetDevicePointer_v2, CUdeviceptr *device, void *address, unsigned int flags)
{
	SIM_ENTER(cuMemHostGetDevicePointer_v2);
	unsigned int unused;
	if (!device || flags)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = host_flags(address, &unused);
	if (result == CUDA_SUCCESS)
		*device = (uintptr_t)address;
	return result;
}

SIM_API(cuMemHostGetDevicePointer, CUdeviceptr_v1 *device, void *address, unsigned int flags)
{
	SIM_ENTER(cuMemHostGetDevicePointer);
	unsigned int unused;
	if (!device || flags || (uintptr_t)address > UINT32_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = host_flags(address, &unused);
	if (result == CUDA_SUCCESS)
		*device = (CUdeviceptr_v1)(uintptr_t)address;
	return result;
}
