/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory pools: their life, what they say of themselves, and which one a device uses.
 *
 * A pool's attributes are the driver's figures of the memory that the pool has on its
 * device, and on top of them, in both `used` and `reserved`, those of the pool's
 * allocations that emuV has put in managed memory: to the program they are the pool's.
 * `free` of cuMemGetInfo has what a pool keeps unused; emuV gets it back when it is needed.
 */
#include "hooks.h"
#include "pause.h"
#include "pools.h"

#define LOOKER_WAITS 50000 /* of 20 µs: a look is one question to the driver */

static CUdevice device_at(CUmemLocation location)
{
	return location.type == CU_MEM_LOCATION_TYPE_DEVICE && location.id >= 0 &&
			       location.id < EMUV_MAX_DEVICES ?
		       location.id : 0;
}

CUresult hook_cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
	CUresult result = g_real.cuMemPoolCreate(pool, props);

	if (!result) {
		emuv_account_call(device_at(props->location), EMUV_FN_cuMemPoolCreate);
		emuv_pools_note(*pool, props);
	}
	return result;
}

/* Nobody asks the driver about a pool that is being destroyed. */
static void wait_for_lookers(unsigned int slot)
{
	for (int i = 0; i < LOOKER_WAITS && !emuv_account_pool_leaves(slot); i++)
		emuv_pause_us(20);
}

CUresult hook_cuMemPoolDestroy(CUmemoryPool pool)
{
	emuv_entry_t entry;
	bool known = emuv_account_take(EMUV_KIND_POOL, (uint64_t)(uintptr_t)pool, &entry);
	unsigned int slot = known ? emuv_pools_slot(&entry) : 0;
	CUresult result;

	wait_for_lookers(slot);
	result = g_real.cuMemPoolDestroy(pool);
	/* It may have been the current one of its device. */
	emuv_pools_current_changes();
	if (!known)
		return result;
	emuv_account_call(entry.device, EMUV_FN_cuMemPoolDestroy);
	if (result) {
		emuv_account_pool_stays(slot);
		emuv_account_restore(&entry);
	} else {
		emuv_account_pool_gone(slot);
		emuv_account_freed(&entry);
	}
	return result;
}

/* ---- attributes ---- */

/* The pool's number in the books, and its device, on which the call is counted. */
static unsigned int slot_of(CUmemoryPool pool, enum emuv_function function, CUdevice *device)
{
	unsigned int slot;
	bool managed;

	*device = 0;
	emuv_pools_of(pool, device, &slot, &managed);
	emuv_account_call(*device, (int)function);
	return slot;
}

CUresult hook_cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
	CUresult result = g_real.cuMemPoolGetAttribute(pool, attribute, value);
	uint64_t now, high;
	unsigned int slot;
	CUdevice device;

	if (result || attribute < CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT ||
	    attribute > CU_MEMPOOL_ATTR_USED_MEM_HIGH)
		return result;
	slot = slot_of(pool, EMUV_FN_cuMemPoolGetAttribute, &device);
	emuv_account_pool_spilled(slot, &now, &high, false);
	*(cuuint64_t *)value += attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT ||
						attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT ?
					now : high;
	return result;
}

/* The threshold passes as it is: what a pool keeps is counted, and trimmed when needed. */
CUresult hook_cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
	CUresult result = g_real.cuMemPoolSetAttribute(pool, attribute, value);
	uint64_t now, high;
	unsigned int slot;
	CUdevice device;

	if (result)
		return result;
	slot = slot_of(pool, EMUV_FN_cuMemPoolSetAttribute, &device);
	if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ||
	    attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
		emuv_account_pool_spilled(slot, &now, &high, true);
	/* A lower threshold may have released something. */
	emuv_pools_look(device);
	return result;
}

CUresult hook_cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
	CUresult result = g_real.cuMemPoolTrimTo(pool, keep);
	CUdevice device;

	if (!result && slot_of(pool, EMUV_FN_cuMemPoolTrimTo, &device))
		emuv_pools_look(device);
	return result;
}

/* ---- the current pool ---- */

/* Forgotten before and after: another thread may ask in between. */
CUresult hook_cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool)
{
	CUresult result;

	emuv_pools_current_changes();
	result = g_real.cuDeviceSetMemPool(device, pool);
	emuv_pools_current_changes();
	return result;
}

/* The default pools of host memory and of managed memory are nobody's making. */
static CUresult given(CUresult result, enum emuv_function function, const CUmemoryPool *pool,
		      const CUmemLocation *location, CUmemAllocationType type)
{
	const CUmemPoolProps props = { .allocType = type,
				       .location = location ? *location : (CUmemLocation){ 0 } };

	if (!result) {
		emuv_account_call(device_at(props.location), (int)function);
		emuv_pools_met(*pool, &props);
	}
	return result;
}

CUresult hook_cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location,
				     CUmemAllocationType type)
{
	return given(g_real.cuMemGetDefaultMemPool(pool, location, type),
		     EMUV_FN_cuMemGetDefaultMemPool, pool, location, type);
}

CUresult hook_cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location,
			      CUmemAllocationType type)
{
	return given(g_real.cuMemGetMemPool(pool, location, type), EMUV_FN_cuMemGetMemPool, pool,
		     location, type);
}

CUresult hook_cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
	CUresult result;

	emuv_pools_current_changes();
	result = g_real.cuMemSetMemPool(location, type, pool);
	emuv_pools_current_changes();
	return result;
}
