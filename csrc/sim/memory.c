/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The card's account, and plain device memory.
 *
 * Invariant, for each device, between calls: context_bytes + device_bytes +
 * resident_bytes <= card_bytes.  A plain allocation is booked in full when it is
 * made; managed memory is booked by block while it is resident (managed.c).
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "capture.h"
#include "graph.h"
#include "memory.h"
#include "order.h"
#include "work.h"

#define PITCH_BYTES ((size_t)512)

/* ---- the card ---- */

uint64_t sim_card_used(CUdevice device)
{
	sim_device_t *card = &sim_devices[device];
	uint64_t used = card->context_bytes + card->device_bytes + card->resident_bytes;
	if (used > card->peak_bytes)
		card->peak_bytes = used;
	return used;
}

bool sim_card_room(CUdevice device, uint64_t bytes)
{
	const sim_device_t *card = &sim_devices[device];
	uint64_t fixed = card->context_bytes + card->device_bytes;
	if (bytes > SIM_MAX_BYTES)
		return false;
	bytes = sim_round_up(bytes, SIM_GRANULE_BYTES);
	if (fixed + bytes > card->card_bytes)
		return false;
	if (fixed + card->resident_bytes + bytes <= card->card_bytes)
		return true;
	sim_cost_t cost = { .device = device };
	bool room = true;
	while (room && fixed + card->resident_bytes + bytes > card->card_bytes)
		room = sim_managed_evict(device, &cost);
	sim_clock_run(&cost, sim_order_moment);
	return room;
}

bool sim_card_take(CUdevice device, uint64_t bytes)
{
	if (!sim_card_room(device, bytes))
		return false;
	sim_devices[device].device_bytes += sim_round_up(bytes, SIM_GRANULE_BYTES);
	sim_card_used(device);
	return true;
}

void sim_card_give(CUdevice device, uint64_t bytes)
{
	sim_devices[device].device_bytes -= sim_round_up(bytes, SIM_GRANULE_BYTES);
}

/* ---- allocations ---- */

CUresult sim_memory_new(sim_range_kind_t kind, size_t bytes, CUdevice device, sim_range_t **range)
{
	if (bytes > SIM_MAX_BYTES)
		return CUDA_ERROR_OUT_OF_MEMORY;

	/* Managed blocks are never shared: what is in one moves together. */
	sim_space_t *space = NULL;
	void *address = kind == SIM_RANGE_MANAGED ? sim_map(bytes) : sim_space_take(bytes, &space);
	if (!address)
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_range_t *made = sim_range_add(kind, (uintptr_t)address, bytes);
	if (made) {
		made->space = space;
		made->device = device;
		if (kind != SIM_RANGE_MANAGED || sim_managed_attach(made) == CUDA_SUCCESS) {
			*range = made;
			return CUDA_SUCCESS;
		}
		sim_range_remove(made);
	}
	sim_space_give(address, space);
	if (!space)
		sim_unmap(address, bytes);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

sim_leftover_t sim_memory_delete(sim_range_t *range)
{
	sim_leftover_t leftover = { NULL, range->bytes };
	if (range->managed)
		sim_managed_detach(range);
	sim_share_end(range, &leftover);
	if (!range->registered && !range->import) {
		if (!range->space)
			leftover.address = (void *)range->start;
		sim_space_give((void *)range->start, range->space);
	}
	sim_range_remove(range);
	return leftover;
}

sim_leftover_t sim_memory_free(sim_range_t *range)
{
	if (range->pool)
		sim_pool_settle(range);
	else if (range->kind == SIM_RANGE_DEVICE && !range->settled)
		sim_card_give(range->device, range->bytes);
	return sim_memory_delete(range);
}

void sim_leftover_drop(sim_leftover_t leftover)
{
	if (leftover.address)
		sim_unmap(leftover.address, leftover.bytes);
}

/* One range of device memory that the context owns; its address in *address. */
static CUresult allocate(sim_context_t *context, size_t bytes, CUdeviceptr *address)
{
	sim_lock_take();
	CUresult result = sim_captures ? sim_capture_unsafe() : CUDA_SUCCESS;
	if (result != CUDA_SUCCESS) {
		sim_lock_drop();
		return result;
	}
	result = CUDA_ERROR_OUT_OF_MEMORY;
	if (sim_card_take(context->device, bytes)) {
		sim_range_t *range;
		result = sim_memory_new(SIM_RANGE_DEVICE, bytes, context->device, &range);
		if (result == CUDA_SUCCESS) {
			range->context = context;
			*address = range->start;
		} else {
			sim_card_give(context->device, bytes);
		}
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuMemAlloc_v2, CUdeviceptr *dptr, size_t bytesize)
{
	SIM_ENTER(cuMemAlloc_v2);
	SIM_NEED_CONTEXT(context);
	if (!dptr || !bytesize)
		return CUDA_ERROR_INVALID_VALUE;
	return allocate(context, bytesize, dptr);
}

static CUresult allocate_pitch(sim_context_t *context, CUdeviceptr *dptr, size_t *pitch,
			       size_t width, size_t height, unsigned int element)
{
	if (!dptr || !pitch || !width || !height || (element != 4 && element != 8 && element != 16))
		return CUDA_ERROR_INVALID_VALUE;
	size_t row, bytes;
	if (width > SIM_MAX_BYTES)
		return CUDA_ERROR_OUT_OF_MEMORY;
	row = sim_round_up(width, PITCH_BYTES);
	if (__builtin_mul_overflow(row, height, &bytes))
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = allocate(context, bytes, dptr);
	if (result == CUDA_SUCCESS)
		*pitch = row;
	return result;
}

SIM_API(cuMemAllocPitch_v2, CUdeviceptr *dptr, size_t *pitch, size_t width, size_t height,
	unsigned int element)
{
	SIM_ENTER(cuMemAllocPitch_v2);
	SIM_NEED_CONTEXT(context);
	return allocate_pitch(context, dptr, pitch, width, height, element);
}

static CUresult release(sim_context_t *context, uint64_t address)
{
	if (!address)
		return CUDA_SUCCESS;
	sim_lock_take();
	CUresult result = sim_captures ? sim_capture_unsafe() : CUDA_SUCCESS;
	if (result == CUDA_SUCCESS)
		result = sim_context_finish(context);
	if (result != CUDA_SUCCESS) {
		sim_lock_drop();
		return result;
	}
	sim_range_t *range = sim_range_find((uintptr_t)address);
	/* Another context's, of another device perhaps. */
	if (range && range->context && range->context != context)
		sim_context_finish(range->context);
	range = sim_range_unused(address);
	bool ours = range && range->start == address && !range->leaving &&
		    (range->pool || !range->import) && (range->pool || range->kind == SIM_RANGE_DEVICE ||
		     range->kind == SIM_RANGE_MANAGED);
	sim_leftover_t leftover = { 0 };
	if (ours && range->graph)
		ours = sim_graph_memory_release(range);
	else if (ours)
		leftover = sim_memory_free(range);
	sim_lock_drop();
	if (!ours)
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"cuMemFree: 0x%llx is not the start of a live allocation",
				(unsigned long long)address);
	sim_leftover_drop(leftover);
	return CUDA_SUCCESS;
}

SIM_API(cuMemFree_v2, CUdeviceptr dptr)
{
	SIM_ENTER(cuMemFree_v2);
	SIM_NEED_CONTEXT(context);
	return release(context, dptr);
}

/* ---- queries ---- */

SIM_API(cuMemGetInfo_v2, size_t *free_bytes, size_t *total_bytes)
{
	SIM_ENTER(cuMemGetInfo_v2);
	SIM_NEED_CONTEXT(context);
	sim_lock_take();
	size_t total = sim_devices[context->device].card_bytes;
	size_t used = sim_card_used(context->device);
	sim_lock_drop();
	if (free_bytes)
		*free_bytes = total - used;
	if (total_bytes)
		*total_bytes = total;
	return CUDA_SUCCESS;
}

static CUresult address_range(uint64_t address, CUdeviceptr *base, size_t *bytes)
{
	CUresult result = CUDA_SUCCESS;
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	sim_mapping_t mapping;
	if (!range) {
		result = CUDA_ERROR_NOT_FOUND;
	} else if (range->kind == SIM_RANGE_RESERVED) {
		if (sim_vmm_mapping(range, (uintptr_t)address, 0, &mapping)) {
			*base = mapping.start;
			*bytes = mapping.bytes;
		} else {
			result = CUDA_ERROR_NOT_FOUND;
		}
	} else {
		*base = range->start;
		*bytes = range->bytes;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuMemGetAddressRange_v2, CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
	SIM_ENTER(cuMemGetAddressRange_v2);
	SIM_NEED_CONTEXT(context);
	(void)context;
	CUdeviceptr base;
	size_t bytes;
	CUresult result = address_range(dptr, &base, &bytes);
	if (result != CUDA_SUCCESS)
		return result;
	if (pbase)
		*pbase = base;
	if (psize)
		*psize = bytes;
	return CUDA_SUCCESS;
}

/* ---- the 32-bit ABI: memory below 4 GiB, where the platform has any to give ---- */

static unsigned int clamp(size_t bytes)
{
	return bytes > UINT32_MAX ? UINT32_MAX : (unsigned int)bytes;
}

static CUresult allocate_low(sim_context_t *context, size_t bytes, CUdeviceptr_v1 *address)
{
#ifdef MAP_32BIT
	sim_lock_take();
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
	if (sim_card_take(context->device, bytes)) {
		size_t size = sim_round_up(bytes, SIM_BLOCK_BYTES); /* as sim_unmap undoes it */
		void *start = mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_32BIT, -1, 0);
		sim_range_t *range = start == MAP_FAILED ? NULL :
			sim_range_add(SIM_RANGE_DEVICE, (uintptr_t)start, bytes);
		if (range) {
			range->context = context;
			range->device = context->device;
			*address = (CUdeviceptr_v1)range->start;
			result = CUDA_SUCCESS;
		} else {
			if (start != MAP_FAILED)
				munmap(start, size);
			sim_card_give(context->device, bytes);
		}
	}
	sim_lock_drop();
	return result;
#else
	(void)context, (void)bytes, (void)address;
	return CUDA_ERROR_OUT_OF_MEMORY;
#endif
}

SIM_API(cuMemAlloc, CUdeviceptr_v1 *dptr, unsigned int bytesize)
{
	SIM_ENTER(cuMemAlloc);
	SIM_NEED_CONTEXT(context);
	if (!dptr || !bytesize)
		return CUDA_ERROR_INVALID_VALUE;
	return allocate_low(context, bytesize, dptr);
}

SIM_API(cuMemAllocPitch, CUdeviceptr_v1 *dptr, unsigned int *pitch, unsigned int width,
	unsigned int height, unsigned int element)
{
	SIM_ENTER(cuMemAllocPitch);
	SIM_NEED_CONTEXT(context);
	if (!dptr || !pitch || !width || !height || (element != 4 && element != 8 && element != 16))
		return CUDA_ERROR_INVALID_VALUE;
	size_t row = sim_round_up(width, PITCH_BYTES);
	CUresult result = allocate_low(context, row * height, dptr);
	if (result == CUDA_SUCCESS)
		*pitch = (unsigned int)row;
	return result;
}

SIM_API(cuMemFree, CUdeviceptr_v1 dptr)
{
	SIM_ENTER(cuMemFree);
	SIM_NEED_CONTEXT(context);
	return release(context, dptr);
}

SIM_API(cuMemGetInfo, unsigned int *free_bytes, unsigned int *total_bytes)
{
	SIM_ENTER(cuMemGetInfo);
	SIM_NEED_CONTEXT(context);
	sim_lock_take();
	size_t total = sim_devices[context->device].card_bytes;
	size_t used = sim_card_used(context->device);
	sim_lock_drop();
	if (free_bytes)
		*free_bytes = clamp(total - used);
	if (total_bytes)
		*total_bytes = clamp(total);
	return CUDA_SUCCESS;
}

SIM_API(cuMemGetAddressRange, CUdeviceptr_v1 *pbase, unsigned int *psize, CUdeviceptr_v1 dptr)
{
	SIM_ENTER(cuMemGetAddressRange);
	SIM_NEED_CONTEXT(context);
	(void)context;
	CUdeviceptr base;
	size_t bytes;
	CUresult result = address_range(dptr, &base, &bytes);
	if (result != CUDA_SUCCESS)
		return result;
	if (pbase)
		*pbase = (CUdeviceptr_v1)base;
	if (psize)
		*psize = clamp(bytes);
	return CUDA_SUCCESS;
}

/* ---- the end of a context ---- */

void sim_memory_drop_context(sim_context_t *context)
{
	uintptr_t from = 0;
	sim_range_t *range;
	while ((range = sim_range_overlap(from, SIZE_MAX - from))) {
		from = range->start + range->bytes;
		if (range->context == context)
			sim_leftover_drop(sim_memory_free(range));
	}
	sim_array_drop_context(context);
}
