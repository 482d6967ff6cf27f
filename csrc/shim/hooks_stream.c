/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream-ordered memory.  What fits the budget comes from the driver's pools, which
 * keep what is freed (hooks_pool.c); what does not is managed memory, there at once (which is
 * before any point of the stream), and freed in stream order by deferred.c.
 */
#include "contexts.h"
#include "deferred.h"
#include "hooks.h"
#include "keep.h"
#include "pause.h"
#include "placement.h"
#include "pools.h"

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
	bool per_thread, from_pool;
} form_t;

static CUresult call(const form_t *form, CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
		     CUstream stream)
{
	return form->from_pool ? form->alloc_from(address, bytes, pool, stream) :
				 form->alloc(address, bytes, stream);
}

#define UNDO_TRIES 10

/*
 * What the pool grew by does not fit after all: the allocation goes back.  Where the driver
 * does not take it, it is the program's, charged as it is.
 */
static bool undo(const form_t *form, const emuv_where_t *where, emuv_grant_t *grant,
		 unsigned int how, CUdeviceptr address, CUstream stream)
{
	unsigned int pool = grant->pool;
	uint64_t bytes = grant->bytes;

	if (form->per_thread ? g_real.cuMemFreeAsync_ptsz(address, stream) :
			       g_real.cuMemFreeAsync(address, stream))
		return true;
	emuv_account_roll_back(where->device, grant);
	/* Its free may come after other work of the stream, which nobody waits for long. */
	for (int i = 0; i < UNDO_TRIES && !emuv_pools_fits(where->device, grant); i++)
		emuv_pause_us(200);
	emuv_account_pool_refused(pool);
	if (!emuv_keep_wants(bytes) &&
	    emuv_account_reserve(where->device, bytes, how | EMUV_NOT_DEVICE, grant))
		return true;
	emuv_account_denied(where->device, bytes);
	return false;
}

/* The pool that the form allocates from.  False: its memory is on the host. */
static bool find_pool(const form_t *form, CUmemoryPool pool, emuv_where_t *where,
		      unsigned int *slot, bool *managed)
{
	*managed = false;
	if (!form->alloc)
		return emuv_pools_of(pool, &where->device, slot, managed);
	*slot = emuv_pools_current(where->device);
	return true;
}

/*
 * A spill that the stream has freed before, where the device has no room either way: a
 * loop that allocates and frees past the budget makes and frees managed memory once.
 */
static bool reuse(const form_t *form, const emuv_where_t *where, uint64_t bytes, unsigned int slot,
		  CUstream stream, CUdeviceptr *address)
{
	emuv_entry_t entry;

	if (!emuv_deferred_any() || !emuv_account_may_reuse(where->device, bytes) ||
	    emuv_keep_wants(bytes) ||
	    !emuv_deferred_reuse(where, bytes, slot, stream, form->per_thread, &entry))
		return false;
	emuv_account_reused(&entry);
	*address = entry.key;
	return true;
}

static CUresult allocate(const form_t *form, CUdeviceptr *address, size_t bytes,
			 CUmemoryPool pool, CUstream stream)
{
	emuv_entry_t entry = { .kind = EMUV_KIND_MEMORY };
	emuv_where_t where;
	emuv_grant_t grant;
	unsigned int slot, how = EMUV_MAY_SPILL;
	bool card_full = false, managed;
	CUresult result = CUDA_SUCCESS;

	if (!address || !bytes || !emuv_where_stream(stream, &where))
		return emuv_uncounted(call(form, address, bytes, pool, stream));
	/* A node of the graph that is being captured: counted when that is launched. */
	if (capturing(stream, form->per_thread) ||
	    !find_pool(form, pool, &where, &slot, &managed))
		return call(form, address, bytes, pool, stream);
	emuv_account_call(where.device, (int)form->function);
	if (reuse(form, &where, bytes, slot, stream, address))
		return CUDA_SUCCESS;
	if (!emuv_placement_reserve(&where, bytes, how | slot << EMUV_POOL_SHIFT, &grant))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (grant.placement == EMUV_PLACED_DEVICE) {
		result = call(form, address, bytes, pool, stream);
		entry.flags = EMUV_ENTRY_STREAM_ORDER | (managed ? EMUV_ENTRY_OWN_MANAGED : 0);
		if (result == CUDA_ERROR_OUT_OF_MEMORY) {
			if (!emuv_placement_card_full(&where, &grant))
				return result;
			card_full = true;
		} else if (!result && grant.verify && !emuv_pools_fits(where.device, &grant) &&
			   !undo(form, &where, &grant, how, *address, stream)) {
			return CUDA_ERROR_OUT_OF_MEMORY;
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
	if (slot) {
		entry.flags |= EMUV_ENTRY_POOL;
		entry.references = slot;
	}
	entry.key = *address;
	entry.context = (uint64_t)(uintptr_t)where.context;
	emuv_account_commit(where.device, &grant, &entry, card_full);
	if (slot && emuv_account_pools_unsure(where.device))
		emuv_pools_look(where.device);
	return CUDA_SUCCESS;
}

CUresult hook_cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocAsync, g_real.cuMemAllocAsync, NULL, false,
			      false };

	return allocate(&form, address, bytes, NULL, stream);
}

CUresult hook_cuMemAllocAsync_ptsz(CUdeviceptr *address, size_t bytes, CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocAsync_ptsz, g_real.cuMemAllocAsync_ptsz, NULL,
			      true, false };

	return allocate(&form, address, bytes, NULL, stream);
}

CUresult hook_cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
				      CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocFromPoolAsync, NULL,
			      g_real.cuMemAllocFromPoolAsync, false, true };

	return allocate(&form, address, bytes, pool, stream);
}

CUresult hook_cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
					   CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemAllocFromPoolAsync_ptsz, NULL,
			      g_real.cuMemAllocFromPoolAsync_ptsz, true, true };

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

	emuv_pools_settle();
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
