/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address checks, and the driver's copies in one dimension: boxes (box.h) of one row.
 *
 * Every device address must lie, with its whole length, in one live range (of a
 * reservation: in mappings that the device may access).  A host address is the
 * caller's word, as on a real driver, unless it lies in a range of ours: then it is
 * held to the range's bounds.
 */
#include "box.h"

/* Every byte of the piece is mapped, with access of the kind.  sim_lock held. */
static bool mapped(const sim_range_t *range, uintptr_t address, size_t bytes, CUdevice device,
		   sim_use_t use)
{
	unsigned int wanted = use == SIM_USE_WRITE ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
						   : CU_MEM_ACCESS_FLAGS_PROT_READ;
	uintptr_t end = address + bytes;
	while (address < end) {
		sim_mapping_t mapping;
		if (!sim_vmm_mapping(range, address, device, &mapping) ||
		    (mapping.access & wanted) != wanted)
			return false;
		address = mapping.start + mapping.bytes;
	}
	return true;
}

CUresult sim_check(const sim_context_t *context, uint64_t address, size_t bytes, sim_use_t use,
		   sim_address_t kind, const char *what)
{
	if (!bytes)
		return CUDA_SUCCESS;
	if (!address || address + bytes < address)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "%s: 0x%llx + %zu is no address", what,
				(unsigned long long)address, bytes);

	const char *fault = NULL;
	sim_range_t *range = sim_range_find((uintptr_t)address);
	if (!range) {
		if (kind == SIM_ADDRESS_DEVICE ||
		    (kind == SIM_ADDRESS_ANY && sim_range_overlap((uintptr_t)address, bytes)))
			fault = "is not in any allocation";
	} else if (bytes > range->bytes - (address - range->start)) {
		fault = "runs past the end of its allocation";
	} else if (range->kind == SIM_RANGE_RESERVED) {
		if (!mapped(range, (uintptr_t)address, bytes, context->device, use))
			fault = "is not mapped, or not for this access";
	}
	if (fault)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "%s: 0x%llx + %zu %s", what,
				(unsigned long long)address, bytes, fault);
	return CUDA_SUCCESS;
}

sim_range_t *sim_pin(uint64_t address)
{
	sim_range_t *range = sim_range_find((uintptr_t)address);
	if (range)
		range->pins++;
	return range;
}

void sim_unpin(sim_range_t *range)
{
	if (range)
		range->pins--;
}

sim_memory_t sim_memory_at(uint64_t address)
{
	const sim_range_t *range = sim_range_find((uintptr_t)address);
	sim_mapping_t mapping;

	if (!range)
		return SIM_MEMORY_PAGEABLE;
	if (range->kind == SIM_RANGE_RESERVED &&
	    sim_vmm_mapping(range, (uintptr_t)address, 0, &mapping) &&
	    mapping.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return SIM_MEMORY_PINNED;
	return range->kind == SIM_RANGE_HOST	? SIM_MEMORY_PINNED :
	       range->kind == SIM_RANGE_MANAGED ? SIM_MEMORY_MANAGED :
						  SIM_MEMORY_DEVICE;
}

/* ---- copies in one dimension ---- */

static sim_side_t any_at(uint64_t address)
{
	return (sim_side_t){ .type = CU_MEMORYTYPE_UNIFIED, .address = address };
}

static sim_box_t row(sim_side_t to, sim_side_t from, size_t bytes)
{
	return (sim_box_t){ .from = from, .to = to, .width = bytes, .height = 1, .depth = 1 };
}

static CUresult copy_now(sim_side_t to, sim_side_t from, size_t bytes, bool per_thread)
{
	sim_box_t box = row(to, from, bytes);

	return sim_box_now(&box, per_thread);
}

static CUresult copy_async(sim_side_t to, sim_side_t from, size_t bytes, CUstream stream,
			   bool per_thread)
{
	sim_box_t box = row(to, from, bytes);

	return sim_box_async(&box, stream, per_thread);
}

/*
 * name, types of the destination, source and size, and how the first two are taken.
 * The exports of one base name differ only in those, and in the default stream.
 */
#define COPY(name, to_t, to_at, from_t, from_at, size_type, per_thread)                    \
	SIM_API(name, to_t to, from_t from, size_type bytes)                               \
	{                                                                                  \
		SIM_ENTER(name);                                                           \
		return copy_now(to_at(to), from_at(from), bytes, per_thread);              \
	}
#define COPY_ASYNC(name, to_t, to_at, from_t, from_at, size_type, per_thread)              \
	SIM_API(name, to_t to, from_t from, size_type bytes, CUstream stream)              \
	{                                                                                  \
		SIM_ENTER(name);                                                           \
		return copy_async(to_at(to), from_at(from), bytes, stream, per_thread);    \
	}

typedef void *host_t;
typedef const void *host_const_t;

COPY(cuMemcpy, CUdeviceptr, any_at, CUdeviceptr, any_at, size_t, false)
COPY(cuMemcpy_ptds, CUdeviceptr, any_at, CUdeviceptr, any_at, size_t, true)
COPY_ASYNC(cuMemcpyAsync, CUdeviceptr, any_at, CUdeviceptr, any_at, size_t, false)
COPY_ASYNC(cuMemcpyAsync_ptsz, CUdeviceptr, any_at, CUdeviceptr, any_at, size_t, true)

COPY(cuMemcpyHtoD, CUdeviceptr_v1, sim_device_at, host_const_t, sim_host_at, unsigned int, false)
COPY(cuMemcpyHtoD_v2, CUdeviceptr, sim_device_at, host_const_t, sim_host_at, size_t, false)
COPY(cuMemcpyHtoD_v2_ptds, CUdeviceptr, sim_device_at, host_const_t, sim_host_at, size_t, true)
COPY_ASYNC(cuMemcpyHtoDAsync, CUdeviceptr_v1, sim_device_at, host_const_t, sim_host_at, unsigned int, false)
COPY_ASYNC(cuMemcpyHtoDAsync_v2, CUdeviceptr, sim_device_at, host_const_t, sim_host_at, size_t, false)
COPY_ASYNC(cuMemcpyHtoDAsync_v2_ptsz, CUdeviceptr, sim_device_at, host_const_t, sim_host_at, size_t, true)

COPY(cuMemcpyDtoH, host_t, sim_host_at, CUdeviceptr_v1, sim_device_at, unsigned int, false)
COPY(cuMemcpyDtoH_v2, host_t, sim_host_at, CUdeviceptr, sim_device_at, size_t, false)
COPY(cuMemcpyDtoH_v2_ptds, host_t, sim_host_at, CUdeviceptr, sim_device_at, size_t, true)
COPY_ASYNC(cuMemcpyDtoHAsync, host_t, sim_host_at, CUdeviceptr_v1, sim_device_at, unsigned int, false)
COPY_ASYNC(cuMemcpyDtoHAsync_v2, host_t, sim_host_at, CUdeviceptr, sim_device_at, size_t, false)
COPY_ASYNC(cuMemcpyDtoHAsync_v2_ptsz, host_t, sim_host_at, CUdeviceptr, sim_device_at, size_t, true)

COPY(cuMemcpyDtoD, CUdeviceptr_v1, sim_device_at, CUdeviceptr_v1, sim_device_at, unsigned int, false)
COPY(cuMemcpyDtoD_v2, CUdeviceptr, sim_device_at, CUdeviceptr, sim_device_at, size_t, false)
COPY(cuMemcpyDtoD_v2_ptds, CUdeviceptr, sim_device_at, CUdeviceptr, sim_device_at, size_t, true)
COPY_ASYNC(cuMemcpyDtoDAsync, CUdeviceptr_v1, sim_device_at, CUdeviceptr_v1, sim_device_at, unsigned int,
	   false)
COPY_ASYNC(cuMemcpyDtoDAsync_v2, CUdeviceptr, sim_device_at, CUdeviceptr, sim_device_at, size_t, false)
COPY_ASYNC(cuMemcpyDtoDAsync_v2_ptsz, CUdeviceptr, sim_device_at, CUdeviceptr, sim_device_at, size_t, true)

/* ---- between contexts ---- */

/* The contexts must live; which device moves the bytes makes no difference to them. */
static CUresult peers(CUcontext to, CUcontext from)
{
	sim_lock_take();
	bool live = sim_object_get(to, SIM_CONTEXT) && sim_object_get(from, SIM_CONTEXT);
	sim_lock_drop();
	return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* Name, the copy, and the parameters from the size on. */
#define COPY_PEER(name, copy, ...)                                              \
	SIM_API(name, CUdeviceptr to, CUcontext to_context, CUdeviceptr from,   \
		CUcontext from_context, __VA_ARGS__)                            \
	{                                                                       \
		SIM_ENTER(name);                                                \
		CUresult result = peers(to_context, from_context);              \
		return result == CUDA_SUCCESS ? copy : result;                  \
	}
COPY_PEER(cuMemcpyPeer, copy_now(any_at(to), any_at(from), bytes, false), size_t bytes)
COPY_PEER(cuMemcpyPeer_ptds, copy_now(any_at(to), any_at(from), bytes, true), size_t bytes)
COPY_PEER(cuMemcpyPeerAsync, copy_async(any_at(to), any_at(from), bytes, stream, false),
	  size_t bytes, CUstream stream)
COPY_PEER(cuMemcpyPeerAsync_ptsz, copy_async(any_at(to), any_at(from), bytes, stream, true),
	  size_t bytes, CUstream stream)

/* ---- batches ---- */

/*
 * Each copy of the batch has the attributes of the last entry of attrs whose index is
 * not beyond it.  *fail_index, where the ABI has one, names the entry that is wrong,
 * SIZE_MAX where it is none in particular.
 */
static CUresult copy_batch(CUdeviceptr *to, CUdeviceptr *from, size_t *sizes, size_t count,
			   const CUmemcpyAttributes *attributes, const size_t *first,
			   size_t attribute_count, size_t *fail_index, CUstream stream,
			   bool per_thread)
{
	if (fail_index)
		*fail_index = SIZE_MAX;
	if (!sim_current())
		return sim_no_context();
	if (!to || !from || !sizes || !count || !attributes || !first || !attribute_count ||
	    attribute_count > count || first[0] != 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (stream == CU_STREAM_LEGACY || (!stream && !per_thread))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < attribute_count; i++)
		if (first[i] >= count || (i && first[i] <= first[i - 1]) ||
		    attributes[i].srcAccessOrder < CU_MEMCPY_SRC_ACCESS_ORDER_STREAM ||
		    attributes[i].srcAccessOrder > CU_MEMCPY_SRC_ACCESS_ORDER_ANY)
			return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_SUCCESS;
	for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) {
		result = sizes[i] ? copy_async(any_at(to[i]), any_at(from[i]), sizes[i], stream,
					       per_thread)
				  : CUDA_ERROR_INVALID_VALUE;
		if (result != CUDA_SUCCESS && fail_index)
			*fail_index = i;
	}
	return result;
}

#define COPY_BATCH_V1(name, per_thread)                                                     \
	SIM_API(name, CUdeviceptr *to, CUdeviceptr *from, size_t *sizes, size_t count,      \
		CUmemcpyAttributes *attributes, size_t *first, size_t attribute_count,      \
		size_t *fail_index, CUstream stream)                                        \
	{                                                                                   \
		SIM_ENTER(name);                                                            \
		return copy_batch(to, from, sizes, count, attributes, first,                \
				  attribute_count, fail_index, stream, per_thread);         \
	}
#define COPY_BATCH_V2(name, per_thread)                                                     \
	SIM_API(name, CUdeviceptr *to, CUdeviceptr *from, size_t *sizes, size_t count,      \
		CUmemcpyAttributes *attributes, size_t *first, size_t attribute_count,      \
		CUstream stream)                                                            \
	{                                                                                   \
		SIM_ENTER(name);                                                            \
		return copy_batch(to, from, sizes, count, attributes, first,                \
				  attribute_count, NULL, stream, per_thread);               \
	}
COPY_BATCH_V1(cuMemcpyBatchAsync, false)
COPY_BATCH_V1(cuMemcpyBatchAsync_ptsz, true)
COPY_BATCH_V2(cuMemcpyBatchAsync_v2, false)
COPY_BATCH_V2(cuMemcpyBatchAsync_v2_ptsz, true)
