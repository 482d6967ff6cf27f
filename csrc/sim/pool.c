/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory pools; allocation from them is ordered.c's.
 *
 * A pool reserves bytes of the card and hands them out: used <= reserved.  Bytes are
 * reserved in multiples of EMUV_SIM_POOL (by default exactly as they are needed; a real
 * driver takes 2 MiB and more at a time) and freed bytes stay reserved up to the release threshold; what is beyond it goes
 * back at the free's place in its stream, where a real driver waits for the next
 * synchronisation.  Pools of host memory and of managed memory take nothing of a card
 * themselves.
 *
 * A destroyed pool's handle is dead at once; its account lives until the last of its
 * allocations is freed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "pool.h"

/* Default and current pools that belong to no device: of host memory, of managed memory. */
static CUmemoryPool host_pools[2], managed_pools[2];

bool sim_pool_on_card(const struct sim_pool *pool)
{
	return pool->props.allocType == CU_MEM_ALLOCATION_TYPE_PINNED &&
	       pool->props.location.type == CU_MEM_LOCATION_TYPE_DEVICE;
}

CUdevice sim_pool_device(const struct sim_pool *pool)
{
	return pool->props.location.type == CU_MEM_LOCATION_TYPE_DEVICE ? pool->props.location.id : 0;
}

CUmemoryPool sim_pool_handle(const struct sim_pool *pool)
{
	return pool ? (CUmemoryPool)pool->handle : NULL;
}

bool sim_pool_exports(const struct sim_pool *pool)
{
	return pool && pool->props.handleTypes != CU_MEM_HANDLE_TYPE_NONE;
}

struct sim_pool *sim_pool_get(CUmemoryPool handle)
{
	struct pool_object *object = sim_object_get(handle, SIM_POOL);
	return object ? object->pool : NULL;
}

struct sim_pool *sim_pool_new(const CUmemPoolProps *props)
{
	struct sim_pool *pool = calloc(1, sizeof(*pool));
	struct pool_object *handle = pool ? sim_object_new(SIM_POOL, sizeof(*handle), NULL) : NULL;
	if (!handle) {
		free(pool);
		return NULL;
	}
	handle->pool = pool;
	pool->handle = handle;
	pool->props = *props;
	for (size_t i = 0; i < 3; i++)
		pool->reuse[i] = 1;
	for (CUdevice device = 0; device < sim_device_count; device++)
		if (!sim_pool_on_card(pool) || device == props->location.id)
			pool->access[device] = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
	return pool;
}

void sim_pool_free(struct sim_pool *pool)
{
	if (pool->file)
		close(pool->file);
	free(pool);
}

/* ---- accounts ---- */

/* Do its bytes come from this process's account of a card? */
static bool takes_card(const struct sim_pool *pool)
{
	return sim_pool_on_card(pool) && !pool->imported;
}

bool sim_pool_take(struct sim_pool *pool, size_t bytes)
{
	uint64_t need = pool->used + sim_round_up(bytes, SIM_GRANULE_BYTES);
	uint64_t most = sim_round_up(pool->props.maxSize, SIM_GRANULE_BYTES);
	if (most && need > most)
		return false;
	if (need > pool->reserved) {
		uint64_t wanted = sim_round_up(need, sim_config.pool_bytes);
		if (most && wanted > most)
			wanted = most;
		if (takes_card(pool) && !sim_card_take(pool->props.location.id, wanted - pool->reserved))
			return false;
		pool->reserved = wanted;
	}
	pool->used = need;
	pool->live++;
	if (pool->reserved > pool->reserved_high)
		pool->reserved_high = pool->reserved;
	if (pool->used > pool->used_high)
		pool->used_high = pool->used;
	return true;
}

/* Gives unused bytes back until at most `keep` are reserved. */
static void pool_trim(struct sim_pool *pool, uint64_t keep)
{
	if (keep < pool->used)
		keep = pool->used;
	/* Whole pieces only; what it has of more is less than one. */
	if (keep < SIM_MAX_BYTES)
		keep = sim_round_up(keep, sim_config.pool_bytes);
	if (pool->reserved <= keep)
		return;
	if (takes_card(pool))
		sim_card_give(pool->props.location.id, pool->reserved - keep);
	pool->reserved = keep;
}

void sim_pool_put(struct sim_pool *pool, size_t bytes)
{
	pool->used -= sim_round_up(bytes, SIM_GRANULE_BYTES);
	pool->live--;
	pool_trim(pool, pool->handle ? pool->threshold : 0);
	if (!pool->handle && !pool->live)
		sim_pool_free(pool);
}

void sim_pool_settle(sim_range_t *range)
{
	sim_pool_put(range->pool, range->bytes);
	range->pool = NULL;
}

/* ---- default and current pools ---- */

/* Where the handle of a location's pools is kept; NULL: no such location. */
static CUmemoryPool *pool_slot(CUmemLocation location, CUmemAllocationType type, int which)
{
	if (type == CU_MEM_ALLOCATION_TYPE_MANAGED)
		return &managed_pools[which];
	if (type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return NULL;
	switch (location.type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		if (location.id < 0 || location.id >= sim_device_count)
			return NULL;
		return which == SIM_POOL_DEFAULT ? &sim_devices[location.id].default_pool
					: &sim_devices[location.id].current_pool;
	case CU_MEM_LOCATION_TYPE_HOST:
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
	case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
		return &host_pools[which];
	default:
		return NULL;
	}
}

CUresult sim_pool_at(CUmemLocation location, CUmemAllocationType type, int which,
			CUmemoryPool *pool)
{
	CUmemoryPool *first = pool_slot(location, type, SIM_POOL_DEFAULT);
	CUmemoryPool *slot = pool_slot(location, type, which);
	if (!slot)
		return location.type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_ERROR_INVALID_DEVICE
								    : CUDA_ERROR_INVALID_VALUE;
	if (!*first) {
		CUmemPoolProps props = { .allocType = type, .location = location };
		struct sim_pool *made = sim_pool_new(&props);
		if (!made)
			return CUDA_ERROR_OUT_OF_MEMORY;
		made->is_default = true;
		*first = sim_pool_handle(made);
	}
	if (!*slot)
		*slot = *first;
	*pool = *slot;
	return CUDA_SUCCESS;
}

static CUresult pool_query(const CUmemLocation *location, CUmemAllocationType type, int which,
			   CUmemoryPool *pool)
{
	if (!pool || !location)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	CUresult result = sim_pool_at(*location, type, which, pool);
	sim_lock_drop();
	return result;
}

static CUresult pool_assign(CUmemLocation location, CUmemAllocationType type, CUmemoryPool handle)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	struct sim_pool *pool = sim_pool_get(handle);
	CUmemoryPool *slot = pool_slot(location, type, SIM_POOL_CURRENT);
	if (!slot)
		result = location.type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_ERROR_INVALID_DEVICE
								      : CUDA_ERROR_INVALID_VALUE;
	else if (pool && !pool->imported &&
		 slot == pool_slot(pool->props.location, pool->props.allocType, SIM_POOL_CURRENT)) {
		*slot = handle;
		result = CUDA_SUCCESS;
	}
	sim_lock_drop();
	return result;
}

static CUmemLocation at_device(CUdevice device)
{
	return (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, device };
}

SIM_API(cuDeviceGetDefaultMemPool, CUmemoryPool *pool, CUdevice device)
{
	SIM_ENTER(cuDeviceGetDefaultMemPool);
	CUmemLocation location = at_device(device);
	return pool_query(&location, CU_MEM_ALLOCATION_TYPE_PINNED, SIM_POOL_DEFAULT, pool);
}

SIM_API(cuDeviceGetMemPool, CUmemoryPool *pool, CUdevice device)
{
	SIM_ENTER(cuDeviceGetMemPool);
	CUmemLocation location = at_device(device);
	return pool_query(&location, CU_MEM_ALLOCATION_TYPE_PINNED, SIM_POOL_CURRENT, pool);
}

SIM_API(cuDeviceSetMemPool, CUdevice device, CUmemoryPool pool)
{
	SIM_ENTER(cuDeviceSetMemPool);
	return pool_assign(at_device(device), CU_MEM_ALLOCATION_TYPE_PINNED, pool);
}

SIM_API(cuMemGetDefaultMemPool, CUmemoryPool *pool, CUmemLocation *location,
	CUmemAllocationType type)
{
	SIM_ENTER(cuMemGetDefaultMemPool);
	return pool_query(location, type, SIM_POOL_DEFAULT, pool);
}

SIM_API(cuMemGetMemPool, CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type)
{
	SIM_ENTER(cuMemGetMemPool);
	return pool_query(location, type, SIM_POOL_CURRENT, pool);
}

SIM_API(cuMemSetMemPool, CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
	SIM_ENTER(cuMemSetMemPool);
	return location ? pool_assign(*location, type, pool) : CUDA_ERROR_INVALID_VALUE;
}

/* ---- the life of a pool ---- */

SIM_API(cuMemPoolCreate, CUmemoryPool *handle, const CUmemPoolProps *props)
{
	SIM_ENTER(cuMemPoolCreate);
	if (!handle || !props)
		return CUDA_ERROR_INVALID_VALUE;
	if (props->allocType == CU_MEM_ALLOCATION_TYPE_PINNED) {
		if (props->location.type < CU_MEM_LOCATION_TYPE_DEVICE ||
		    props->location.type > CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT)
			return CUDA_ERROR_INVALID_VALUE;
	} else if (props->allocType != CU_MEM_ALLOCATION_TYPE_MANAGED) {
		return CUDA_ERROR_INVALID_VALUE;
	}
	if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
	    (props->location.id < 0 || props->location.id >= sim_device_count))
		return CUDA_ERROR_INVALID_DEVICE;
	/* Managed memory cannot be shared with another process. */
	if (props->handleTypes != CU_MEM_HANDLE_TYPE_NONE &&
	    (props->handleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
	     props->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	struct sim_pool *pool = sim_pool_new(props);
	if (pool)
		*handle = sim_pool_handle(pool);
	sim_lock_drop();
	return pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API(cuMemPoolDestroy, CUmemoryPool handle)
{
	SIM_ENTER(cuMemPoolDestroy);
	sim_lock_take();
	struct sim_pool *pool = sim_pool_get(handle);
	bool may = pool && !pool->is_default;
	if (may) {
		/* Where it was current, the default pool is again. */
		CUmemoryPool *slot = pool_slot(pool->props.location, pool->props.allocType, SIM_POOL_CURRENT);
		if (slot && *slot == handle)
			*slot = NULL;
		sim_object_delete(pool->handle);
		pool->handle = NULL;
		pool_trim(pool, 0);
		if (!pool->live)
			sim_pool_free(pool);
	}
	sim_lock_drop();
	return may ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuMemPoolTrimTo, CUmemoryPool handle, size_t keep)
{
	SIM_ENTER(cuMemPoolTrimTo);
	sim_lock_take();
	struct sim_pool *pool = sim_pool_get(handle);
	if (pool)
		pool_trim(pool, keep);
	sim_lock_drop();
	return pool ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- attributes and access ---- */

static uint64_t *attribute_64(struct sim_pool *pool, CUmemPool_attribute attribute)
{
	switch (attribute) {
	case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: return &pool->threshold;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: return &pool->reserved;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: return &pool->reserved_high;
	case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: return &pool->used;
	case CU_MEMPOOL_ATTR_USED_MEM_HIGH: return &pool->used_high;
	default: return NULL;
	}
}

static bool is_reuse(CUmemPool_attribute attribute)
{
	return attribute >= CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES &&
	       attribute <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES;
}

SIM_API(cuMemPoolGetAttribute, CUmemoryPool handle, CUmemPool_attribute attribute, void *value)
{
	SIM_ENTER(cuMemPoolGetAttribute);
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_SUCCESS;
	sim_lock_take();
	struct sim_pool *pool = sim_pool_get(handle);
	uint64_t *wide = pool ? attribute_64(pool, attribute) : NULL;
	if (wide)
		memcpy(value, wide, sizeof(*wide));
	else if (pool && is_reuse(attribute))
		memcpy(value, &pool->reuse[attribute - 1], sizeof(int));
	else
		result = CUDA_ERROR_INVALID_VALUE;
	sim_lock_drop();
	return result;
}

SIM_API(cuMemPoolSetAttribute, CUmemoryPool handle, CUmemPool_attribute attribute, void *value)
{
	SIM_ENTER(cuMemPoolSetAttribute);
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_SUCCESS;
	sim_lock_take();
	struct sim_pool *pool = sim_pool_get(handle);
	uint64_t *wide = pool ? attribute_64(pool, attribute) : NULL;
	uint64_t given;
	if (pool && is_reuse(attribute)) {
		memcpy(&pool->reuse[attribute - 1], value, sizeof(int));
	} else if (!wide || attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT ||
		   attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT) {
		result = CUDA_ERROR_INVALID_VALUE;
	} else {
		memcpy(&given, value, sizeof(given));
		if (attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
			pool->threshold = given;
		else if (given) /* a high-water mark can only be reset */
			result = CUDA_ERROR_INVALID_VALUE;
		else
			*wide = attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? pool->used
									   : pool->reserved;
	}
	sim_lock_drop();
	return result;
}

static bool access_ok(const struct sim_pool *pool, const CUmemAccessDesc *desc)
{
	if (desc->location.type != CU_MEM_LOCATION_TYPE_DEVICE || desc->location.id < 0 ||
	    desc->location.id >= sim_device_count)
		return false;
	if (desc->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
		return true;
	/* A pool's own device keeps its access. */
	return desc->flags == CU_MEM_ACCESS_FLAGS_PROT_NONE &&
	       !(sim_pool_on_card(pool) && desc->location.id == pool->props.location.id);
}

SIM_API(cuMemPoolSetAccess, CUmemoryPool handle, const CUmemAccessDesc *map, size_t count)
{
	SIM_ENTER(cuMemPoolSetAccess);
	if (!map && count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	struct sim_pool *pool = sim_pool_get(handle);
	bool good = pool;
	for (size_t i = 0; i < count && good; i++)
		good = access_ok(pool, &map[i]);
	for (size_t i = 0; i < count && good; i++)
		pool->access[map[i].location.id] = map[i].flags;
	sim_lock_drop();
	return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuMemPoolGetAccess, CUmemAccess_flags *flags, CUmemoryPool handle, CUmemLocation *location)
{
	SIM_ENTER(cuMemPoolGetAccess);
	if (!flags || !location || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
	    location->id < 0 || location->id >= sim_device_count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	struct sim_pool *pool = sim_pool_get(handle);
	if (pool)
		*flags = pool->access[location->id];
	sim_lock_drop();
	return pool ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
