/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The calls that make managed memory and say where it should be.
 *
 * A range given to any of them lies inside one managed allocation.  Locations are
 * normalised before they are kept: the host is {HOST, 0}, the current NUMA node is
 * named by its number.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "memory.h"
#include "work.h"

SIM_API(cuMemAllocManaged, CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
	SIM_ENTER(cuMemAllocManaged);
	SIM_NEED_CONTEXT(context);
	if (!dptr || !bytesize)
		return CUDA_ERROR_INVALID_VALUE;
	if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuMemAllocManaged: flags 0x%x are neither "
				"CU_MEM_ATTACH_GLOBAL nor CU_MEM_ATTACH_HOST", flags);
	sim_lock_take();
	sim_range_t *range;
	CUresult result = sim_captures ? sim_capture_unsafe() : CUDA_SUCCESS;
	if (result == CUDA_SUCCESS)
		result = sim_memory_new(SIM_RANGE_MANAGED, bytesize, context->device, &range);
	if (result == CUDA_SUCCESS) {
		range->context = context;
		range->flags = flags;
		*dptr = range->start;
	}
	sim_lock_drop();
	return result;
}

/* The managed range that contains [address, address + bytes), or NULL.  sim_lock held. */
static sim_range_t *managed_range(CUdeviceptr address, size_t bytes)
{
	sim_range_t *range = sim_range_find((uintptr_t)address);
	if (!range || range->kind != SIM_RANGE_MANAGED || !bytes ||
	    bytes > range->bytes - (address - range->start))
		return NULL;
	return range;
}

static CUresult not_managed(const char *call, CUdeviceptr address, size_t bytes)
{
	return sim_fail(CUDA_ERROR_INVALID_VALUE, "%s: 0x%llx + %zu is not inside managed memory", call,
			(unsigned long long)address, bytes);
}

/* What cuMemAdvise and cuMemPrefetchAsync of CUDA 8 mean by a CUdevice. */
static CUmemLocation location_of(CUdevice device)
{
	if (device == CU_DEVICE_CPU)
		return (CUmemLocation){ CU_MEM_LOCATION_TYPE_HOST, 0 };
	return (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, device };
}

static CUresult normalise(CUmemLocation *location)
{
	switch (location->type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		if (location->id < 0 || location->id >= sim_device_count)
			return CUDA_ERROR_INVALID_DEVICE;
		return CUDA_SUCCESS;
	case CU_MEM_LOCATION_TYPE_HOST:
		location->id = 0;
		return CUDA_SUCCESS;
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
		return location->id < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT: {
		unsigned int cpu, node;
		location->type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
		location->id = getcpu(&cpu, &node) ? 0 : (int)node;
		return CUDA_SUCCESS;
	}
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

/* ---- advice ---- */

static CUresult advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUmemLocation location)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	CUresult result = CUDA_SUCCESS;
	switch (advice) {
	case CU_MEM_ADVISE_SET_READ_MOSTLY:
	case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
	case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
		break; /* the location is ignored */
	case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
		result = normalise(&location);
		break;
	case CU_MEM_ADVISE_SET_ACCESSED_BY:
	case CU_MEM_ADVISE_UNSET_ACCESSED_BY:
		if (location.type != CU_MEM_LOCATION_TYPE_DEVICE &&
		    location.type != CU_MEM_LOCATION_TYPE_HOST)
			return CUDA_ERROR_INVALID_VALUE;
		result = normalise(&location);
		break;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
	if (result != CUDA_SUCCESS)
		return result;

	sim_lock_take();
	sim_range_t *range = managed_range(address, bytes);
	if (range)
		sim_managed_advise(range, (uintptr_t)address, bytes, advice, location);
	sim_lock_drop();
	return range ? CUDA_SUCCESS : not_managed("cuMemAdvise", address, bytes);
}

SIM_API(cuMemAdvise, CUdeviceptr address, size_t count, CUmem_advise advice, CUdevice device)
{
	SIM_ENTER(cuMemAdvise);
	return advise(address, count, advice, location_of(device));
}

SIM_API(cuMemAdvise_v2, CUdeviceptr address, size_t count, CUmem_advise advice,
	CUmemLocation location)
{
	SIM_ENTER(cuMemAdvise_v2);
	return advise(address, count, advice, location);
}

/* ---- prefetches and discards, as pieces of work ---- */

typedef struct {
	CUdeviceptr address;
	size_t bytes;
	bool discard;
	CUmemLocation location; /* to prefetch to; type 0: nowhere */
} move_t;
typedef struct {
	sim_work_t work;
	move_t move;   /* the only one, where `moves` is NULL */
	move_t *moves;
	size_t count;
} move_work_t;

static CUresult moves_run(sim_work_t *work, sim_cost_t *cost)
{
	const move_work_t *all = (const move_work_t *)work;
	const move_t *moves = all->moves ? all->moves : &all->move;

	sim_lock_take();
	for (size_t i = 0; i < all->count; i++) {
		/* What was freed meanwhile needs no move. */
		sim_range_t *range = managed_range(moves[i].address, moves[i].bytes);
		uintptr_t address = (uintptr_t)moves[i].address;
		if (range && moves[i].discard)
			sim_managed_discard(range, address, moves[i].bytes);
		if (range && moves[i].location.type)
			sim_managed_prefetch(range, address, moves[i].bytes, moves[i].location,
					     cost);
	}
	sim_lock_drop();
	return CUDA_SUCCESS;
}

static void moves_drop(sim_work_t *work)
{
	free(((move_work_t *)work)->moves);
}

static const sim_work_kind_t move_kind = {
	.name = "prefetch",
	.bytes = sizeof(move_work_t),
	.run = moves_run,
	.drop = moves_drop,
};

/* Takes `moves` over (NULL: *move is all).  sim_lock held. */
static CUresult moves_submit(CUstream handle, bool per_thread, const move_t *move, move_t *moves,
			     size_t count)
{
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
	sim_stream_t *stream = sim_stream_get(handle, per_thread, &result);
	/* As documented: neither can be captured. */
	if (stream && stream->capture) {
		result = sim_capture_refuse(stream);
		stream = NULL;
	}
	sim_work_t *work = stream ? sim_work_new(&move_kind, stream->object.context) : NULL;
	if (!work) {
		free(moves);
		return result;
	}
	move_work_t *all = (move_work_t *)work;
	if (move)
		all->move = *move;
	all->moves = moves;
	all->count = count;
	for (size_t i = 0; i < count; i++) {
		const move_t *one = moves ? &moves[i] : move;
		if (one->location.type)
			sim_managed_prefetch_asked(managed_range(one->address, one->bytes),
						   (uintptr_t)one->address, one->bytes,
						   one->location);
	}
	return sim_stream_submit(stream, work);
}

static CUresult prefetch(CUdeviceptr address, size_t bytes, CUmemLocation location,
			 unsigned int flags, CUstream stream, bool per_thread)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = normalise(&location);
	if (result != CUDA_SUCCESS)
		return result;
	move_t move = { address, bytes, false, location };
	sim_lock_take();
	bool managed = managed_range(address, bytes);
	if (managed)
		result = moves_submit(stream, per_thread, &move, NULL, 1);
	else if (sim_stream_get(stream, per_thread, &result))
		result = not_managed("cuMemPrefetchAsync", address, bytes);
	sim_lock_drop();
	return result;
}

SIM_API(cuMemPrefetchAsync, CUdeviceptr address, size_t count, CUdevice device, CUstream stream)
{
	SIM_ENTER(cuMemPrefetchAsync);
	return prefetch(address, count, location_of(device), 0, stream, false);
}

SIM_API(cuMemPrefetchAsync_ptsz, CUdeviceptr address, size_t count, CUdevice device, CUstream stream)
{
	SIM_ENTER(cuMemPrefetchAsync_ptsz);
	return prefetch(address, count, location_of(device), 0, stream, true);
}

SIM_API(cuMemPrefetchAsync_v2, CUdeviceptr address, size_t count, CUmemLocation location,
	unsigned int flags, CUstream stream)
{
	SIM_ENTER(cuMemPrefetchAsync_v2);
	return prefetch(address, count, location, flags, stream, false);
}

SIM_API(cuMemPrefetchAsync_v2_ptsz, CUdeviceptr address, size_t count, CUmemLocation location,
	unsigned int flags, CUstream stream)
{
	SIM_ENTER(cuMemPrefetchAsync_v2_ptsz);
	return prefetch(address, count, location, flags, stream, true);
}

/* ---- batches: all of it is checked before any of it is done ---- */

typedef struct {
	CUdeviceptr *addresses;
	size_t *sizes;
	size_t count;
	CUmemLocation *locations; /* where to prefetch to; NULL: nowhere */
	size_t *first;            /* the operation from which on locations[i] holds */
	size_t location_count;
	bool discard;
} batch_t;

static CUresult batch_check(const batch_t *batch)
{
	if (!batch->addresses || !batch->sizes || !batch->count)
		return CUDA_ERROR_INVALID_VALUE;
	if (batch->discard && !batch->location_count)
		return CUDA_SUCCESS;
	if (!batch->locations || !batch->first || !batch->location_count ||
	    batch->location_count > batch->count || batch->first[0] != 0)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < batch->location_count; i++) {
		CUmemLocation location = batch->locations[i];
		if (batch->first[i] >= batch->count || (i && batch->first[i] <= batch->first[i - 1]))
			return CUDA_ERROR_INVALID_VALUE;
		CUresult result = normalise(&location);
		if (result != CUDA_SUCCESS)
			return result;
	}
	return CUDA_SUCCESS;
}

static CUresult batch_run(const batch_t *batch, unsigned long long flags, CUstream stream,
			  bool per_thread)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	if (flags || stream == CU_STREAM_LEGACY || (!stream && !per_thread))
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = batch_check(batch);
	if (result != CUDA_SUCCESS)
		return result;

	sim_lock_take();
	for (size_t i = 0; i < batch->count; i++) {
		if (!managed_range(batch->addresses[i], batch->sizes[i])) {
			sim_lock_drop();
			return not_managed("batch", batch->addresses[i], batch->sizes[i]);
		}
	}
	move_t *moves = calloc(batch->count, sizeof(*moves));
	if (!moves) {
		sim_lock_drop();
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	for (size_t i = 0, at = 0; i < batch->count; i++) {
		moves[i] = (move_t){ batch->addresses[i], batch->sizes[i], batch->discard, { 0 } };
		if (!batch->location_count)
			continue;
		while (at + 1 < batch->location_count && batch->first[at + 1] <= i)
			at++;
		moves[i].location = batch->locations[at];
		normalise(&moves[i].location);
	}
	result = moves_submit(stream, per_thread, NULL, moves, batch->count);
	sim_lock_drop();
	return result;
}

#define PREFETCH_BATCH(name, discard_first, per_thread)                                       \
	SIM_API(name, CUdeviceptr *addresses, size_t *sizes, size_t count,                    \
		CUmemLocation *locations, size_t *first, size_t location_count,               \
		unsigned long long flags, CUstream stream)                                    \
	{                                                                                     \
		SIM_ENTER(name);                                                              \
		if (!location_count)                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                      \
		batch_t batch = { addresses, sizes, count, locations, first, location_count, \
				  discard_first };                                            \
		return batch_run(&batch, flags, stream, per_thread);                          \
	}
#define DISCARD_BATCH(name, per_thread)                                                     \
	SIM_API(name, CUdeviceptr *addresses, size_t *sizes, size_t count,                  \
		unsigned long long flags, CUstream stream)                                  \
	{                                                                                   \
		SIM_ENTER(name);                                                            \
		batch_t batch = { addresses, sizes, count, NULL, NULL, 0, true };           \
		return batch_run(&batch, flags, stream, per_thread);                        \
	}

PREFETCH_BATCH(cuMemPrefetchBatchAsync, false, false)
PREFETCH_BATCH(cuMemPrefetchBatchAsync_ptsz, false, true)
PREFETCH_BATCH(cuMemDiscardAndPrefetchBatchAsync, true, false)
PREFETCH_BATCH(cuMemDiscardAndPrefetchBatchAsync_ptsz, true, true)
DISCARD_BATCH(cuMemDiscardBatchAsync, false)
DISCARD_BATCH(cuMemDiscardBatchAsync_ptsz, true)

/* ---- attaching: every device here accesses managed memory concurrently, so it binds nothing ---- */

static CUresult attach(CUstream stream, CUdeviceptr address, size_t bytes, unsigned int flags,
		       bool per_thread)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST &&
	    flags != CU_MEM_ATTACH_SINGLE)
		return CUDA_ERROR_INVALID_VALUE;
	if (flags == CU_MEM_ATTACH_SINGLE &&
	    (stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD || !stream))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	bool whole = range && range->kind == SIM_RANGE_MANAGED && range->start == address &&
		     (!bytes || bytes == range->bytes);
	CUresult result = CUDA_SUCCESS;
	if (!whole)
		result = not_managed("cuStreamAttachMemAsync", address, bytes);
	else
		sim_stream_get(stream, per_thread, &result);
	sim_lock_drop();
	return result;
}

SIM_API(cuStreamAttachMemAsync, CUstream stream, CUdeviceptr address, size_t bytes,
	unsigned int flags)
{
	SIM_ENTER(cuStreamAttachMemAsync);
	return attach(stream, address, bytes, flags, false);
}

SIM_API(cuStreamAttachMemAsync_ptsz, CUstream stream, CUdeviceptr address, size_t bytes,
	unsigned int flags)
{
	SIM_ENTER(cuStreamAttachMemAsync_ptsz);
	return attach(stream, address, bytes, flags, true);
}

/* ---- attributes of a range ---- */

static CUdevice device_of(CUmemLocation location)
{
	switch (location.type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		return location.id;
	case CU_MEM_LOCATION_TYPE_INVALID:
		return CU_DEVICE_INVALID;
	default:
		return CU_DEVICE_CPU;
	}
}

static void list_accessed_by(const sim_advice_t *advice, int *list, size_t count)
{
	size_t used = 0;
	if (advice->accessed_by_host && used < count)
		list[used++] = CU_DEVICE_CPU;
	for (CUdevice device = 0; device < sim_device_count && used < count; device++)
		if (advice->accessed_by & 1u << device)
			list[used++] = device;
	while (used < count)
		list[used++] = CU_DEVICE_INVALID;
}

static CUresult range_attribute(void *data, size_t bytes, CUmem_range_attribute attribute,
				const sim_advice_t *advice)
{
	if (!data || !bytes || bytes % sizeof(int) ||
	    (attribute != CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY && bytes != sizeof(int)))
		return CUDA_ERROR_INVALID_VALUE;
	int value;
	switch (attribute) {
	case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
		value = advice->read_mostly;
		break;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
		value = device_of(advice->preferred);
		break;
	case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
		list_accessed_by(advice, data, bytes / sizeof(int));
		return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
		value = device_of(advice->prefetched);
		break;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
		value = (int)advice->preferred.type;
		break;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
		value = advice->preferred.id;
		break;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
		value = (int)advice->prefetched.type;
		break;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
		value = advice->prefetched.id;
		break;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
	memcpy(data, &value, sizeof(value));
	return CUDA_SUCCESS;
}

static CUresult range_advice(CUdeviceptr address, size_t bytes, sim_advice_t *advice)
{
	sim_lock_take();
	sim_range_t *range = managed_range(address, bytes);
	if (range)
		*advice = sim_managed_advice(range, (uintptr_t)address, bytes);
	sim_lock_drop();
	return range ? CUDA_SUCCESS : not_managed("cuMemRangeGetAttribute", address, bytes);
}

SIM_API(cuMemRangeGetAttribute, void *data, size_t data_bytes, CUmem_range_attribute attribute,
	CUdeviceptr address, size_t count)
{
	SIM_ENTER(cuMemRangeGetAttribute);
	sim_advice_t advice = { 0 };
	CUresult result = range_advice(address, count, &advice);
	return result == CUDA_SUCCESS ? range_attribute(data, data_bytes, attribute, &advice) : result;
}

SIM_API(cuMemRangeGetAttributes, void **data, size_t *data_bytes, CUmem_range_attribute *attributes,
	size_t attribute_count, CUdeviceptr address, size_t count)
{
	SIM_ENTER(cuMemRangeGetAttributes);
	if (!data || !data_bytes || !attributes || !attribute_count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_advice_t advice = { 0 };
	CUresult result = range_advice(address, count, &advice);
	for (size_t i = 0; i < attribute_count && result == CUDA_SUCCESS; i++)
		result = range_attribute(data[i], data_bytes[i], attributes[i], &advice);
	return result;
}
