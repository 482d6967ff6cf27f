/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The program's own hints about managed memory.  What is charged as device memory moves
 * as the program likes.  A spilled range is where the budget has room for it: a prefetch
 * to the device passes as far as there is room and is charged; advice that would let
 * pages migrate by themselves is not issued.  Hints: the program is told success.
 */
#include "hints.h"

#include <pthread.h>

#include "contexts.h"
#include "deferred.h"
#include "hooks.h"
#include "relaxed.h"

#define CONCURRENT_MANAGED_ACCESS 89 /* CU_DEVICE_ATTRIBUTE_… */

static const CUmemLocation host = { CU_MEM_LOCATION_TYPE_HOST, 0 };

static CUmemLocation location_of(CUdevice device)
{
	return device == CU_DEVICE_CPU ? host :
					 (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, device };
}

/* ---- whose memory is it ---- */

static bool is_limited(CUdevice device)
{
	emuv_report_t report;

	if (device < 0 || device >= EMUV_MAX_DEVICES)
		return false;
	emuv_account_report(device, &report);
	/* Of a device that is none the driver says so. */
	return report.there && report.vram != EMUV_UNLIMITED;
}

/* The range that an address is inside of; false: in none of the ledger's. */
static bool find_range(CUdeviceptr address, CUdeviceptr *start, emuv_entry_t *range)
{
	*start = address;
	if (emuv_account_look(EMUV_KIND_MEMORY, address, range))
		return true;
	if (g_real.cuPointerGetAttribute(start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address) ||
	    !*start) {
		/* The system's own memory, or a driver in trouble. */
		*start = 0;
		return emuv_account_inside(address, range);
	}
	return *start != address && emuv_account_look(EMUV_KIND_MEMORY, *start, range) &&
	       address - *start < emuv_entry_span(range);
}

/* False: no memory that anybody knows. */
static bool find(CUdeviceptr address, uint64_t bytes, emuv_hinted_t *found)
{
	CUdeviceptr start;
	size_t size = 0;

	if (find_range(address, &start, &found->range)) {
		found->bytes = found->range.key + emuv_entry_span(&found->range) - address;
	} else {
		found->range.key = 0;
		if (!start ||
		    g_real.cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address) ||
		    address - start >= size)
			return false;
		found->bytes = start + size - address;
	}
	/* 0: imported, and the driver did not tell its size. */
	if (found->bytes > bytes || !found->bytes)
		found->bytes = bytes;
	return true;
}

emuv_hinted_t emuv_hints_look(CUdeviceptr address, uint64_t bytes, CUmemLocation to)
{
	emuv_hinted_t found = { .kind = EMUV_HINTED_PASS, .bytes = bytes, .keep = host };
	bool to_device = to.type == CU_MEM_LOCATION_TYPE_DEVICE;
	const emuv_entry_t *range = &found.range;

	if (!find(address, bytes, &found)) {
		/* The system's own memory, where the card can page that: nobody counts it. */
		found.bytes = bytes;
		if (to_device && is_limited(to.id))
			found.kind = EMUV_HINTED_STAYS;
		return found;
	}
	if (!range->key)
		return found;
	if (to_device && to.id != range->device && is_limited(to.id)) {
		/* It is another device's budget that it is counted in. */
		if (range->placement == EMUV_PLACED_MANAGED) {
			found.kind = EMUV_HINTED_STAYS;
		} else if (range->flags & EMUV_ENTRY_OWN_MANAGED) {
			found.kind = EMUV_HINTED_STAYS;
			found.keep = location_of(range->device);
		}
		return found;
	}
	if (range->placement == EMUV_PLACED_MANAGED && (!to_device || to.id == range->device))
		found.kind = EMUV_HINTED_SPILLED;
	return found;
}

uint64_t emuv_hints_owner(const emuv_where_t *where, CUstream stream, bool per_thread)
{
	uint64_t context = (uint64_t)(uintptr_t)where->context;

	if (stream && stream != CU_STREAM_LEGACY && stream != CU_STREAM_PER_THREAD)
		return (uint64_t)(uintptr_t)stream;
	/* Each context has a default stream, and one for each thread. */
	if (stream == CU_STREAM_PER_THREAD || (!stream && per_thread))
		return context * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)pthread_self();
	return context | 1;
}

bool emuv_hints_head_arrived(const emuv_entry_t *range)
{
	CUstream side = emuv_contexts_side_stream((CUcontext)(uintptr_t)range->context);
	int mode = emuv_relaxed_enter();
	bool arrived = side && !g_real.cuStreamQuery(side);

	emuv_relaxed_leave(mode);
	return arrived;
}

/* ---- prefetches ---- */

/* The forms differ in nothing but the driver's call. */
typedef struct {
	enum emuv_function function;
	CUresult (*v1)(CUdeviceptr, size_t, CUdevice, CUstream);
	CUresult (*v2)(CUdeviceptr, size_t, CUmemLocation, unsigned int, CUstream);
	bool per_thread;
	unsigned int flags;
	CUstream stream;
} form_t;

static CUresult call(const form_t *form, CUdeviceptr address, size_t bytes, CUmemLocation to)
{
	CUdevice device = to.type == CU_MEM_LOCATION_TYPE_DEVICE ? to.id : CU_DEVICE_CPU;

	return form->v1 ? form->v1(address, bytes, device, form->stream) :
			  form->v2(address, bytes, to, form->flags, form->stream);
}

/*
 * None of it is moved, and the driver says whether it would have been: it is asked to
 * bring to where it is a page of what it knows, all of what nobody does.
 */
static CUresult stay(const form_t *form, const emuv_hinted_t *found, CUdeviceptr address,
		     CUdevice device)
{
	CUresult result = call(form, address, found->range.key ? 1 : found->bytes, found->keep);

	if (!result)
		emuv_account_clipped(device, "a prefetch", found->bytes);
	return result;
}

static CUresult bring(const form_t *form, const emuv_hinted_t *found, CUdeviceptr address)
{
	CUmemLocation to = location_of(found->range.device);
	emuv_deferred_t *ready = NULL;
	CUresult result = CUDA_SUCCESS;
	unsigned int done = 0;
	emuv_where_t where;
	emuv_move_t move;
	uint64_t owner;

	emuv_deferred_reap_some(EMUV_HINTS_REAP);
	if (emuv_where_stream(form->stream, &where))
		ready = emuv_deferred_ready(where.context);
	if (!ready)
		return stay(form, found, address, found->range.device);
	owner = emuv_hints_owner(&where, form->stream, form->per_thread);
	if (!emuv_account_arrive(&found->range, address, found->bytes, owner, &move)) {
		emuv_deferred_not_moved(ready);
		return stay(form, found, address, found->range.device);
	}
	while (done < move.n_runs && !result) {
		result = call(form, move.runs[done].address, move.runs[done].bytes, to);
		done += !result;
	}
	emuv_account_arrived(&move, done);
	if (done)
		emuv_deferred_moved(ready, &move, 1, form->stream, form->per_thread);
	else
		emuv_deferred_not_moved(ready);
	if (!result && move.clipped && !move.n_runs)
		result = call(form, address, 1, host);
	if (!result && move.clipped)
		emuv_account_clipped(found->range.device, "a prefetch", move.clipped);
	return result;
}

static CUresult take_home(const form_t *form, const emuv_hinted_t *found, CUdeviceptr address,
			  CUmemLocation to)
{
	const emuv_entry_t *range = &found->range;
	emuv_deferred_t *ready = NULL;
	emuv_where_t where;
	emuv_move_t move;
	uint64_t version, owner;
	CUresult result;

	if (!range->resident)
		return call(form, address, found->bytes, to);
	emuv_deferred_reap_some(EMUV_HINTS_REAP);
	version = emuv_account_version(range);
	if (emuv_where_stream(form->stream, &where) && emuv_hints_head_arrived(range))
		ready = emuv_deferred_ready(where.context);
	result = call(form, address, found->bytes, to);
	if (!ready)
		return result;
	owner = emuv_hints_owner(&where, form->stream, form->per_thread);
	if (!result && emuv_account_leave(range, address, found->bytes, owner, version, &move))
		emuv_deferred_moved(ready, &move, 1, form->stream, form->per_thread);
	else
		emuv_deferred_not_moved(ready);
	return result;
}

static CUresult prefetch_piece(const form_t *form, const emuv_hinted_t *found,
			       CUdeviceptr address, CUmemLocation to)
{
	if (found->kind == EMUV_HINTED_PASS)
		return call(form, address, found->bytes, to);
	if (found->kind == EMUV_HINTED_STAYS)
		return stay(form, found, address, to.id);
	return to.type == CU_MEM_LOCATION_TYPE_DEVICE ? bring(form, found, address) :
							take_home(form, found, address, to);
}

/* Would the driver take a hint about all of it?  It may lie in several allocations. */
static bool is_managed(CUdeviceptr address, size_t bytes)
{
	int location;

	return !g_real.cuMemRangeGetAttribute(&location, sizeof location,
					      CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION,
					      address, bytes);
}

static CUresult prefetch(const form_t *form, CUdeviceptr address, size_t bytes, CUmemLocation to)
{
	emuv_hinted_t found;
	CUresult result;

	if (!address || !bytes || bytes > UINT64_MAX - address)
		return call(form, address, bytes, to);
	found = emuv_hints_look(address, bytes, to);
	if (found.range.key)
		emuv_account_call(found.range.device, (int)form->function);
	if (found.bytes < bytes && !is_managed(address, bytes))
		return call(form, address, bytes, host); /* which it refuses */
	for (;;) {
		result = prefetch_piece(form, &found, address, to);
		address += found.bytes;
		bytes -= found.bytes;
		if (result || !bytes)
			return result;
		found = emuv_hints_look(address, bytes, to);
	}
}

CUresult hook_cuMemPrefetchAsync(CUdeviceptr address, size_t bytes, CUdevice device,
				 CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemPrefetchAsync, g_real.cuMemPrefetchAsync, NULL, false, 0,
			      stream };

	return prefetch(&form, address, bytes, location_of(device));
}

CUresult hook_cuMemPrefetchAsync_ptsz(CUdeviceptr address, size_t bytes, CUdevice device,
				      CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemPrefetchAsync_ptsz, g_real.cuMemPrefetchAsync_ptsz, NULL,
			      true, 0, stream };

	return prefetch(&form, address, bytes, location_of(device));
}

CUresult hook_cuMemPrefetchAsync_v2(CUdeviceptr address, size_t bytes, CUmemLocation location,
				    unsigned int flags, CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemPrefetchAsync_v2, NULL, g_real.cuMemPrefetchAsync_v2,
			      false, flags, stream };

	return prefetch(&form, address, bytes, location);
}

CUresult hook_cuMemPrefetchAsync_v2_ptsz(CUdeviceptr address, size_t bytes, CUmemLocation location,
					 unsigned int flags, CUstream stream)
{
	const form_t form = { EMUV_FN_cuMemPrefetchAsync_v2_ptsz, NULL,
			      g_real.cuMemPrefetchAsync_v2_ptsz, true, flags, stream };

	return prefetch(&form, address, bytes, location);
}

/* ---- advice ---- */

typedef struct {
	enum emuv_function function;
	bool v2;
} advice_form_t;

static CUresult call_advise(const advice_form_t *form, CUdeviceptr address, size_t bytes,
			    CUmem_advise advice, CUmemLocation location)
{
	CUdevice device = location.type == CU_MEM_LOCATION_TYPE_DEVICE ? location.id :
									 CU_DEVICE_CPU;

	return form->v2 ? g_real.cuMemAdvise_v2(address, bytes, advice, location) :
			  g_real.cuMemAdvise(address, bytes, advice, device);
}

/* Would the advice let pages of a spilled range migrate, or be copied, by themselves? */
static bool unpins(const emuv_entry_t *range, CUmem_advise advice, CUmemLocation location)
{
	bool device = location.type == CU_MEM_LOCATION_TYPE_DEVICE;

	switch (advice) {
	case CU_MEM_ADVISE_SET_READ_MOSTLY:
	case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
		return true;
	case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
		return device;
	case CU_MEM_ADVISE_UNSET_ACCESSED_BY:
		return device && location.id == range->device;
	default:
		return false;
	}
}

/* The advice is not given.  What emuV has said before, said again, tells what the driver thinks. */
static CUresult hold_back(const advice_form_t *form, const emuv_hinted_t *found,
			  CUdeviceptr address, CUmem_advise advice, CUmemLocation location)
{
	CUdevice device = found->range.device;
	CUresult result = CUDA_SUCCESS;
	int concurrent;

	if (advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION)
		result = g_real.cuDeviceGetAttribute(&concurrent, CONCURRENT_MANAGED_ACCESS,
						     location.id);
	if (!result)
		result = call_advise(form, address, found->bytes, CU_MEM_ADVISE_SET_ACCESSED_BY,
				     location_of(device));
	if (!result)
		emuv_account_clipped(device, "advice about managed memory", found->bytes);
	return result;
}

static CUresult advise(const advice_form_t *form, CUdeviceptr address, size_t bytes,
		       CUmem_advise advice, CUmemLocation location)
{
	/* The same ranges as for a prefetch to the host, which asks nothing of another device. */
	emuv_hinted_t found;
	CUresult result;

	if (!address || !bytes || bytes > UINT64_MAX - address)
		return call_advise(form, address, bytes, advice, location);
	found = emuv_hints_look(address, bytes, host);
	if (found.range.key)
		emuv_account_call(found.range.device, (int)form->function);
	if (found.bytes < bytes && !is_managed(address, bytes))
		return CUDA_ERROR_INVALID_VALUE;
	for (;;) {
		if (found.kind == EMUV_HINTED_SPILLED && unpins(&found.range, advice, location))
			result = hold_back(form, &found, address, advice, location);
		else
			result = call_advise(form, address, found.bytes, advice, location);
		address += found.bytes;
		bytes -= found.bytes;
		if (result || !bytes)
			return result;
		found = emuv_hints_look(address, bytes, host);
	}
}

CUresult hook_cuMemAdvise(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUdevice device)
{
	const advice_form_t form = { EMUV_FN_cuMemAdvise, false };

	return advise(&form, address, bytes, advice, location_of(device));
}

CUresult hook_cuMemAdvise_v2(CUdeviceptr address, size_t bytes, CUmem_advise advice,
			     CUmemLocation location)
{
	const advice_form_t form = { EMUV_FN_cuMemAdvise_v2, true };

	return advise(&form, address, bytes, advice, location);
}
