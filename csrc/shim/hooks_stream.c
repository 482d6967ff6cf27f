/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream-ordered memory.  What fits the budget comes from the driver's pools; what
 * does not is managed memory, there at once (which is before any point of the
 * stream), and freed in stream order by deferred.c.
 */
#include "contexts.h"
#include "deferred.h"
#include "hooks.h"
#include "placement.h"

/* A default pool that emuV has not met: the one of which device? */
static bool default_pool_device(CUmemoryPool pool, CUdevice *device)
{
	CUmemoryPool candidate;
	int n = 0;

	g_real.cuDeviceGetCount(&n);
	for (int i = 0; i < n && i < EMUV_MAX_DEVICES; i++)
		if (!g_real.cuDeviceGetDefaultMemPool(&candidate, i) && candidate == pool) {
			*device = i;
			return true;
		}
	return false;
}

/* Where a pool's memory comes from: emuv_entry_t.link of its entry. */
enum source { FROM_HOST, FROM_DEVICE, FROM_STREAM_DEVICE };

static void note_pool(CUmemoryPool pool, CUdevice device, enum source source)
{
	emuv_entry_t entry = {
		.key = (uint64_t)(uintptr_t)pool,
		.kind = EMUV_KIND_POOL,
		.device = (int16_t)device,
		.link = source,
	};

	emuv_account_note(&entry);
}

/* The device that a pool's memory counts for, *device being the stream's; false: host memory. */
static bool pool_device(CUmemoryPool pool, CUdevice *device)
{
	emuv_entry_t entry;

	if (emuv_account_look(EMUV_KIND_POOL, (uint64_t)(uintptr_t)pool, &entry)) {
		if (entry.link == FROM_DEVICE)
			*device = entry.device;
		return entry.link != FROM_HOST;
	}
	/* Imported pools stay with the stream's device. */
	if (default_pool_device(pool, device))
		note_pool(pool, *device, FROM_DEVICE);
	return true;
}

static enum source source_of(const CUmemPoolProps *props)
{
	if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE && props->location.id >= 0 &&
	    props->location.id < EMUV_MAX_DEVICES)
		return FROM_DEVICE;
	/* Managed memory goes where it is touched, whatever location is preferred. */
	return props->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED ? FROM_STREAM_DEVICE : FROM_HOST;
}

CUresult hook_cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
	CUresult result = g_real.cuMemPoolCreate(pool, props);

	if (!result) {
		enum source source = source_of(props);
		CUdevice device = source == FROM_DEVICE ? props->location.id : 0;

		emuv_account_call(device, EMUV_FN_cuMemPoolCreate);
		note_pool(*pool, device, source);
	}
	return result;
}

CUresult hook_cuMemPoolDestroy(CUmemoryPool pool)
{
	emuv_entry_t entry;
	bool known = emuv_account_take(EMUV_KIND_POOL, (uint64_t)(uintptr_t)pool, &entry);
	CUresult result = g_real.cuMemPoolDestroy(pool);

	if (known) {
		emuv_account_call(entry.device, EMUV_FN_cuMemPoolDestroy);
		if (result)
			emuv_account_restore(&entry);
		else
			emuv_account_freed(&entry);
	}
	return result;
}

static bool capturing(CUstream stream, bool per_thread)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	CUresult result = per_thread ? g_real.cuStreamIsCapturing_ptsz(stream, &status) :
				       g_real.cuStreamIsCapturing(stream, &status);

	return !result && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* The four forms differ in nothing but the driver's call. */
typedef struct {
	enum emuv_function function;
	CUresult (*alloc)(CUdeviceptr *, size_t, CUstream);
	CUresult (*alloc_from)(CUdeviceptr *, size_t, CUmemoryPool, CUstream);
	bool per_thread;
} form_t;

static CUresult call(const form_t *form, CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
		     CUstream stream)
{
	return form->alloc ? form->alloc(address, bytes, stream) :
			     form->alloc_from(address, bytes, pool, stream);
}

static CUresult allocate(const form_t *form, CUdeviceptr *address, size_t bytes,
			 CUmemoryPool pool, CUstream stream)
{
	emuv_entry_t entry = { .kind = EMUV_KIND_MEMORY };
	emuv_where_t where;
	emuv_grant_t grant;
	unsigned int how = EMUV_MAY_SPILL;
	bool card_full = false;
	CUresult result = CUDA_SUCCESS;

	if (!address || !bytes || !emuv_where_stream(stream, &where))
		return emuv_uncounted(call(form, address, bytes, pool, stream));
	if (!form->alloc && !pool_device(pool, &where.device))
		return call(form, address, bytes, pool, stream);
	emuv_account_call(where.device, (int)form->function);
	/* In a graph the allocation is a node: it cannot become something else. */
	if (capturing(stream, form->per_thread))
		how = 0;
	if (!emuv_placement_reserve(&where, bytes, how, &grant))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (grant.placement == EMUV_PLACED_DEVICE) {
		result = call(form, address, bytes, pool, stream);
		entry.flags = EMUV_ENTRY_STREAM_ORDER;
		if (result == CUDA_ERROR_OUT_OF_MEMORY && how) {
			if (!emuv_placement_card_full(&where, &grant))
				return result;
			card_full = true;
		}
	}
	if (grant.placement == EMUV_PLACED_MANAGED) {
		result = emuv_placement_spill(&where, &grant, CU_MEM_ATTACH_GLOBAL, address);
		entry.flags = 0;
	}
	if (result) {
		emuv_account_roll_back(where.device, &grant);
		return result;
	}
	entry.key = *address;
	entry.context = (uint64_t)(uintptr_t)where.context;
	emuv_account_commit(where.device, &grant, &entry, card_full);
	return CUDA_SUCCESS;
}

CUresult hook_cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocAsync, g_real.cuMemAllocAsync, NULL, false };

	return allocate(&form, address, bytes, NULL, stream);
}

CUresult hook_cuMemAllocAsync_ptsz(CUdeviceptr *address, size_t bytes, CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocAsync_ptsz, g_real.cuMemAllocAsync_ptsz, NULL,
			      true };

	return allocate(&form, address, bytes, NULL, stream);
}

CUresult hook_cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
				      CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocFromPoolAsync, NULL,
			      g_real.cuMemAllocFromPoolAsync, false };

	return allocate(&form, address, bytes, pool, stream);
}

CUresult hook_cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
					   CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocFromPoolAsync_ptsz, NULL,
			      g_real.cuMemAllocFromPoolAsync_ptsz, true };

	return allocate(&form, address, bytes, pool, stream);
}

/* A spilled range: freed once the stream has come to this point. */
static CUresult free_spilled(const emuv_entry_t *entry, CUstream stream, bool per_thread)
{
	emuv_where_t where;
	CUcontext popped;
	CUresult result;

	if (!emuv_where_stream(stream, &where))
		return CUDA_ERROR_INVALID_CONTEXT;
	if (capturing(stream, per_thread))
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	result = g_real.cuCtxPushCurrent_v2(where.context);
	if (result)
		return result;
	result = emuv_deferred_free(entry, where.context, stream, per_thread);
	g_real.cuCtxPopCurrent_v2(&popped);
	return result;
}

static CUresult free_async(enum emuv_function function, CUdeviceptr address, CUstream stream,
			   bool per_thread)
{
	CUresult (*real)(CUdeviceptr, CUstream) = per_thread ? g_real.cuMemFreeAsync_ptsz :
							       g_real.cuMemFreeAsync;
	emuv_entry_t entry;
	CUresult result;

	if (!address || !emuv_account_take(EMUV_KIND_MEMORY, address, &entry)) {
		if (address && emuv_deferred_waits(address))
			return CUDA_ERROR_INVALID_VALUE;
		return real(address, stream);
	}
	emuv_account_call(entry.device, (int)function);
	if (entry.placement == EMUV_PLACED_MANAGED && !(entry.flags & EMUV_ENTRY_OWN_MANAGED)) {
		result = free_spilled(&entry, stream, per_thread);
		if (result)
			emuv_account_restore(&entry);
		return result;
	}
	result = real(address, stream);
	if (result)
		emuv_account_restore(&entry);
	else
		emuv_account_freed(&entry);
	return result;
}

CUresult hook_cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
	return free_async(EMUV_FN_cuMemFreeAsync, address, stream, false);
}

CUresult hook_cuMemFreeAsync_ptsz(CUdeviceptr address, CUstream stream)
{
	return free_async(EMUV_FN_cuMemFreeAsync_ptsz, address, stream, true);
}
