/* SPDX-License-Identifier: GPL-2.0-only */
/* Plain, pitched and managed memory, and its free. */
#include "contexts.h"
#include "deferred.h"
#include "hooks.h"
#include "placement.h"

static emuv_entry_t entry_of(const emuv_where_t *where, CUdeviceptr address, uint32_t flags)
{
	return (emuv_entry_t){
		.key = address,
		.context = (uint64_t)(uintptr_t)where->context,
		.kind = EMUV_KIND_MEMORY,
		.flags = flags,
	};
}

/* Ends an allocation: enters it or gives the grant back. */
static CUresult settle(const emuv_where_t *where, const emuv_grant_t *grant, CUresult result,
		       CUdeviceptr address, uint32_t flags, bool card_full)
{
	emuv_entry_t entry = entry_of(where, address, flags);

	if (result)
		emuv_account_roll_back(where->device, grant);
	else
		emuv_account_commit(where->device, grant, &entry, card_full);
	return result;
}

CUresult hook_cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
	emuv_where_t where;
	emuv_grant_t grant;
	CUresult result = CUDA_SUCCESS;
	bool card_full = false;

	if (!address || !bytes || !emuv_where_current(&where))
		return emuv_uncounted(g_real.cuMemAlloc_v2(address, bytes));
	emuv_account_call(where.device, EMUV_FN_cuMemAlloc_v2);
	if (!emuv_placement_reserve(&where, bytes, EMUV_MAY_SPILL, &grant))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (grant.placement == EMUV_PLACED_DEVICE) {
		result = g_real.cuMemAlloc_v2(address, bytes);
		if (result == CUDA_ERROR_OUT_OF_MEMORY) {
			if (!emuv_placement_card_full(&where, &grant))
				return result;
			card_full = true;
		}
	}
	if (grant.placement == EMUV_PLACED_MANAGED)
		result = emuv_placement_spill(&where, &grant, CU_MEM_ATTACH_GLOBAL, address);
	return settle(&where, &grant, result, result ? 0 : *address, 0, card_full);
}

/* The 32-bit ABI cannot name an address that managed memory gets: charged, never spilled. */
CUresult hook_cuMemAlloc(CUdeviceptr_v1 *address, unsigned int bytes)
{
	emuv_where_t where;
	emuv_grant_t grant;
	CUresult result;

	if (!address || !bytes || !emuv_where_current(&where))
		return emuv_uncounted(g_real.cuMemAlloc(address, bytes));
	emuv_account_call(where.device, EMUV_FN_cuMemAlloc);
	if (!emuv_placement_reserve(&where, bytes, 0, &grant))
		return CUDA_ERROR_OUT_OF_MEMORY;
	result = g_real.cuMemAlloc(address, bytes);
	return settle(&where, &grant, result, result ? 0 : *address, 0, false);
}

/*
 * Rows are padded to this many bytes in a spilled range, and in the estimate that
 * a device range is reserved by: CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT is 32
 * and the texture alignment 512 on every card since Fermi.
 */
#define PITCH_ALIGNMENT 512

/* The padded size, or false where it overflows. */
static bool pitched(uint64_t width, uint64_t height, uint64_t *pitch, uint64_t *bytes)
{
	return !__builtin_add_overflow(width, PITCH_ALIGNMENT - 1, pitch) &&
	       (*pitch -= *pitch % PITCH_ALIGNMENT, true) &&
	       !__builtin_mul_overflow(*pitch, height, bytes);
}

/* The driver's padding turned out larger than the estimate: books the difference. */
static bool book_rest(const emuv_where_t *where, emuv_grant_t *grant, uint64_t bytes)
{
	if (bytes <= grant->bytes || emuv_account_extend(where->device, grant, bytes - grant->bytes))
		return true;
	emuv_account_denied(where->device, bytes);
	return false;
}

CUresult hook_cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height,
				 unsigned int element)
{
	emuv_where_t where;
	emuv_grant_t grant;
	uint64_t padded, bytes;
	CUresult result = CUDA_SUCCESS;
	bool card_full = false;

	if (!address || !pitch || !width || !height ||
	    (element != 4 && element != 8 && element != 16) || !emuv_where_current(&where))
		return emuv_uncounted(
			g_real.cuMemAllocPitch_v2(address, pitch, width, height, element));
	emuv_account_call(where.device, EMUV_FN_cuMemAllocPitch_v2);
	if (!pitched(width, height, &padded, &bytes)) {
		emuv_account_denied(where.device, EMUV_UNLIMITED);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (!emuv_placement_reserve(&where, bytes, EMUV_MAY_SPILL, &grant))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (grant.placement == EMUV_PLACED_DEVICE) {
		result = g_real.cuMemAllocPitch_v2(address, pitch, width, height, element);
		if (!result && !book_rest(&where, &grant, *pitch * height)) {
			g_real.cuMemFree_v2(*address);
			emuv_account_roll_back(where.device, &grant);
			return CUDA_ERROR_OUT_OF_MEMORY;
		}
		if (result == CUDA_ERROR_OUT_OF_MEMORY) {
			if (!emuv_placement_card_full(&where, &grant))
				return result;
			card_full = true;
		}
	}
	if (grant.placement == EMUV_PLACED_MANAGED) {
		result = emuv_placement_spill(&where, &grant, CU_MEM_ATTACH_GLOBAL, address);
		if (!result)
			*pitch = padded;
	}
	return settle(&where, &grant, result, result ? 0 : *address, 0, card_full);
}

CUresult hook_cuMemAllocPitch(CUdeviceptr_v1 *address, unsigned int *pitch, unsigned int width,
			      unsigned int height, unsigned int element)
{
	emuv_where_t where;
	emuv_grant_t grant;
	uint64_t padded, bytes;
	CUresult result;

	if (!address || !pitch || !width || !height || !emuv_where_current(&where) ||
	    !pitched(width, height, &padded, &bytes))
		return emuv_uncounted(
			g_real.cuMemAllocPitch(address, pitch, width, height, element));
	emuv_account_call(where.device, EMUV_FN_cuMemAllocPitch);
	if (!emuv_placement_reserve(&where, bytes, 0, &grant))
		return CUDA_ERROR_OUT_OF_MEMORY;
	result = g_real.cuMemAllocPitch(address, pitch, width, height, element);
	if (!result && !book_rest(&where, &grant, (uint64_t)*pitch * height)) {
		g_real.cuMemFree(*address);
		emuv_account_roll_back(where.device, &grant);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	return settle(&where, &grant, result, result ? 0 : *address, 0, false);
}

/* The card gives managed memory in pages: what a range does not fill of its last one is charged. */
#define MANAGED_PAGE (UINT64_C(64) << 10)

/*
 * Managed memory that the program asks for itself: what fits the budget may
 * migrate as the program likes and is charged as if it were on the device; what
 * does not is kept on the host by emuV's hints, like a spill.
 */
CUresult hook_cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags)
{
	uint64_t slack = (MANAGED_PAGE - bytes % MANAGED_PAGE) % MANAGED_PAGE;
	emuv_where_t where;
	emuv_grant_t grant, exact;
	CUresult result;

	if (!address || !bytes || !emuv_where_current(&where) ||
	    (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
		return emuv_uncounted(g_real.cuMemAllocManaged(address, bytes, flags));
	emuv_account_call(where.device, EMUV_FN_cuMemAllocManaged);
	if (bytes > UINT64_MAX - slack)
		slack = 0;
	if (!emuv_placement_reserve(&where, bytes + slack, EMUV_MAY_SPILL, &grant))
		return CUDA_ERROR_OUT_OF_MEMORY;
	exact = grant;
	exact.bytes = bytes;
	if (exact.resident > bytes)
		exact.resident = bytes;
	if (grant.placement == EMUV_PLACED_DEVICE)
		result = g_real.cuMemAllocManaged(address, bytes, flags);
	else
		result = emuv_placement_spill(&where, &exact, flags, address);
	return settle(&where, &grant, result, result ? 0 : *address,
		      EMUV_ENTRY_OWN_MANAGED | (uint32_t)slack << EMUV_ENTRY_SLACK_SHIFT, false);
}

/* Out of the ledger before the driver frees: the address may be given out again at once. */
CUresult hook_cuMemFree_v2(CUdeviceptr address)
{
	emuv_entry_t entry;
	CUresult result;

	if (!address || !emuv_account_take(EMUV_KIND_MEMORY, address, &entry)) {
		/* Freed in stream order and not gone yet: a second free is the program's error. */
		if (address && emuv_deferred_waits(address))
			return CUDA_ERROR_INVALID_VALUE;
		return g_real.cuMemFree_v2(address);
	}
	emuv_account_call(entry.device, EMUV_FN_cuMemFree_v2);
	result = g_real.cuMemFree_v2(address);
	if (result)
		emuv_account_restore(&entry);
	else
		emuv_account_freed(&entry);
	return result;
}

CUresult hook_cuMemFree(CUdeviceptr_v1 address)
{
	emuv_entry_t entry;
	CUresult result;

	if (!address || !emuv_account_take(EMUV_KIND_MEMORY, address, &entry))
		return g_real.cuMemFree(address);
	emuv_account_call(entry.device, EMUV_FN_cuMemFree);
	result = g_real.cuMemFree(address);
	if (result)
		emuv_account_restore(&entry);
	else
		emuv_account_freed(&entry);
	return result;
}
