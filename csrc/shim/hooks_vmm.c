/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtual memory management.  The bytes of cuMemCreate live until the last handle
 * is released and the last mapping undone, in either order; a program may release
 * the handle and keep the mapping.  So three kinds of entries: handles and
 * mappings, which are charged nothing and lead to an allocation by its number, and
 * the allocation, which is charged and counts them.  Numbers are emuV's own: the
 * driver may reuse a released handle while a mapping still holds its memory.
 *
 * Over budget a handle is made of host memory (hooks_vmm.h), which maps as any other.
 */
#include "hooks_vmm.h"

#include <stdlib.h>

#include "contexts.h"
#include "hooks.h"
#include "placement.h"

static uint64_t next_id(void)
{
	static uint64_t last;

	return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

/* A handle or mapping that leads to allocation `id`. */
static int note_link(enum emuv_kind kind, uint64_t key, uint64_t id, uint64_t bytes,
		     int16_t device)
{
	emuv_entry_t entry = {
		.kind = (uint8_t)kind, .key = key, .link = id, .bytes = bytes, .device = device,
	};

	return emuv_account_note(&entry);
}

CUresult hook_cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
			  const CUmemAllocationProp *prop, unsigned long long flags)
{
	emuv_where_t where = { 0 };
	emuv_entry_t entry = { .kind = EMUV_KIND_VMM_MEMORY, .references = 1 };
	bool card_full = false;
	const char *why_not;
	emuv_grant_t grant;
	unsigned int how;
	CUresult result = CUDA_SUCCESS;

	if (!handle || !bytes || !prop || prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
	    prop->location.id < 0 || prop->location.id >= EMUV_MAX_DEVICES)
		return g_real.cuMemCreate(handle, bytes, prop, flags);
	emuv_where_current(&where); /* for what may make room; none is fine */
	where.device = prop->location.id;
	emuv_account_call(where.device, EMUV_FN_cuMemCreate);
	why_not = emuv_vmm_why_not(where.device, bytes, prop);
	how = why_not || flags ? 0 : EMUV_MAY_SPILL | EMUV_WHOLE;
	if (!emuv_placement_reserve(&where, bytes, how, &grant)) {
		emuv_vmm_tell_why_not(where.device, bytes, why_not);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (grant.placement == EMUV_PLACED_DEVICE) {
		result = g_real.cuMemCreate(handle, bytes, prop, flags);
		if (result == CUDA_ERROR_OUT_OF_MEMORY && how) {
			if (!emuv_placement_card_full(&where, &grant))
				return result;
			card_full = true;
		}
	}
	if (grant.placement == EMUV_PLACED_MANAGED)
		result = emuv_vmm_spill(where.device, &grant, prop, handle);
	if (result) {
		emuv_account_roll_back(where.device, &grant);
		return result;
	}
	entry.key = next_id();
	if (note_link(EMUV_KIND_VMM_HANDLE, *handle, entry.key, 0, (int16_t)where.device)) {
		/* No memory for the books: what cannot be counted is not given. */
		g_real.cuMemRelease(*handle);
		emuv_account_roll_back(where.device, &grant);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	emuv_account_commit(where.device, &grant, &entry, card_full);
	return CUDA_SUCCESS;
}

/*
 * Charged to its owner; counted here, from when its size shows.  The driver may hand out
 * the handle of memory that this process created, or has imported, itself.
 */
void emuv_vmm_imported(CUmemGenericAllocationHandle handle, CUdevice device)
{
	emuv_entry_t memory = {
		.kind = EMUV_KIND_VMM_MEMORY, .device = (int16_t)device,
		.flags = EMUV_ENTRY_IMPORTED, .references = 1,
	};

	if (emuv_account_handle(handle, &memory)) {
		if (emuv_account_refer(EMUV_KIND_VMM_MEMORY, memory.key, 1))
			emuv_account_handle_more(handle, memory.key, memory.device);
		return;
	}
	memory.key = next_id();
	if (!emuv_account_note(&memory) &&
	    note_link(EMUV_KIND_VMM_HANDLE, handle, memory.key, 0, (int16_t)device))
		emuv_account_refer(EMUV_KIND_VMM_MEMORY, memory.key, -1);
}

CUresult hook_cuMemRelease(CUmemGenericAllocationHandle handle)
{
	emuv_entry_t entry;
	CUresult result;
	bool last;

	if (!emuv_account_handle_less(handle, &entry, &last))
		return g_real.cuMemRelease(handle);
	emuv_account_call(entry.device, EMUV_FN_cuMemRelease);
	result = g_real.cuMemRelease(handle);
	if (result) {
		if (last)
			emuv_account_restore(&entry);
		else
			emuv_account_handle_more(handle, entry.link, entry.device);
		return result;
	}
	if (last)
		emuv_account_freed(&entry);
	emuv_account_refer(EMUV_KIND_VMM_MEMORY, entry.link, -1);
	return CUDA_SUCCESS;
}

/* Counted before the call: an unmapping in between must not be the last reference. */
CUresult hook_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
	emuv_entry_t memory;
	CUresult result;

	if (!emuv_account_mapped((uint64_t)(uintptr_t)address, &memory) ||
	    !emuv_account_refer(EMUV_KIND_VMM_MEMORY, memory.key, 1))
		return g_real.cuMemRetainAllocationHandle(handle, address);
	emuv_account_call(memory.device, EMUV_FN_cuMemRetainAllocationHandle);
	result = g_real.cuMemRetainAllocationHandle(handle, address);
	if (result)
		emuv_account_refer(EMUV_KIND_VMM_MEMORY, memory.key, -1);
	else
		emuv_account_handle_more(*handle, memory.key, memory.device);
	return result;
}

CUresult hook_cuMemMap(CUdeviceptr address, size_t bytes, size_t offset,
		       CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	emuv_entry_t entry, memory;
	bool known = emuv_account_look(EMUV_KIND_VMM_HANDLE, handle, &entry);
	CUresult result;

	if (!known)
		return g_real.cuMemMap(address, bytes, offset, handle, flags);
	emuv_account_call(entry.device, EMUV_FN_cuMemMap);
	/* Counted before the call: once mapped, another thread may release the handle. */
	emuv_account_refer(EMUV_KIND_VMM_MEMORY, entry.link, 1);
	result = g_real.cuMemMap(address, bytes, offset, handle, flags);
	/*
	 * Entered after it: where the driver refuses because something is mapped there
	 * already, that mapping's entry must stay.
	 */
	if (!result && note_link(EMUV_KIND_VMM_MAPPING, address, entry.link, bytes, entry.device)) {
		g_real.cuMemUnmap(address, bytes);
		result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result)
		emuv_account_refer(EMUV_KIND_VMM_MEMORY, entry.link, -1);
	else if (emuv_account_look(EMUV_KIND_VMM_MEMORY, entry.link, &memory) &&
		 memory.flags & EMUV_ENTRY_IMPORTED)
		emuv_account_grow(EMUV_KIND_VMM_MEMORY, entry.link, offset + bytes);
	return result;
}

/* Takes the mappings of [address, address + bytes); returns them in a malloc'd list. */
static emuv_entry_t *take_mappings(CUdeviceptr address, size_t bytes, size_t *n)
{
	emuv_entry_t *list = NULL, entry;
	size_t room = 0;

	*n = 0;
	for (CUdeviceptr at = address; at - address < bytes; at += entry.bytes) {
		if (*n == room) {
			emuv_entry_t *more = realloc(list, (room + 16) * sizeof *list);

			if (!more)
				break;
			list = more;
			room += 16;
		}
		if (!emuv_account_take(EMUV_KIND_VMM_MAPPING, at, &entry))
			break;
		list[(*n)++] = entry;
	}
	return list;
}

/* One call may undo several mappings that lie side by side. */
CUresult hook_cuMemUnmap(CUdeviceptr address, size_t bytes)
{
	size_t n;
	emuv_entry_t *mappings = take_mappings(address, bytes, &n);
	CUresult result = g_real.cuMemUnmap(address, bytes);

	if (n)
		emuv_account_call(mappings[0].device, EMUV_FN_cuMemUnmap);
	for (size_t i = 0; i < n; i++) {
		if (result) {
			emuv_account_restore(&mappings[i]);
			continue;
		}
		emuv_account_freed(&mappings[i]);
		emuv_account_refer(EMUV_KIND_VMM_MEMORY, mappings[i].link, -1);
	}
	free(mappings);
	return result;
}
