/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory between processes and APIs.  What comes from elsewhere is charged to its owner
 * and counted here as a statistic.  What goes elsewhere must be device memory: of spilled
 * memory the driver makes no handle, and emuV says in one line why, and what helps.
 */
#include "contexts.h"
#include "hooks.h"
#include "hooks_vmm.h"

/* ---- what comes in ---- */

static void tally(enum emuv_kind kind, uint64_t key, uint64_t bytes, const emuv_where_t *where,
		  uint32_t flags)
{
	const emuv_entry_t entry = {
		.kind = (uint8_t)kind,
		.key = key,
		.bytes = bytes,
		.context = (uint64_t)(uintptr_t)where->context,
		.device = (int16_t)where->device,
		.flags = EMUV_ENTRY_IMPORTED | flags,
	};

	emuv_account_tally(&entry);
}

/* The allocation that an imported address is the start of; 0: the driver does not say. */
static uint64_t size_of(CUdeviceptr address)
{
	CUdeviceptr base;
	size_t bytes;

	return g_real.cuMemGetAddressRange_v2(&base, &bytes, address) ? 0 : bytes;
}

static CUresult opened(CUresult result, enum emuv_function function, CUdeviceptr *address)
{
	emuv_where_t where;

	if (result || !emuv_where_current(&where))
		return result;
	emuv_account_call(where.device, (int)function);
	tally(EMUV_KIND_IMPORT, *address, size_of(*address), &where, 0);
	return CUDA_SUCCESS;
}

CUresult hook_cuIpcOpenMemHandle(CUdeviceptr *address, CUipcMemHandle handle, unsigned int flags)
{
	return opened(g_real.cuIpcOpenMemHandle(address, handle, flags),
		      EMUV_FN_cuIpcOpenMemHandle, address);
}

CUresult hook_cuIpcOpenMemHandle_v2(CUdeviceptr *address, CUipcMemHandle handle, unsigned int flags)
{
	return opened(g_real.cuIpcOpenMemHandle_v2(address, handle, flags),
		      EMUV_FN_cuIpcOpenMemHandle_v2, address);
}

/* After the driver's answer to giving back what `untally` took a reference of. */
static CUresult closed(CUresult result, const emuv_entry_t *entry, bool last)
{
	if (result && last)
		emuv_account_restore(entry);
	else if (result)
		emuv_account_tally(entry);
	else if (last)
		emuv_account_freed(entry);
	return result;
}

CUresult hook_cuIpcCloseMemHandle(CUdeviceptr address)
{
	emuv_entry_t entry;
	bool last;

	if (!emuv_account_untally(EMUV_KIND_IMPORT, address, &entry, &last))
		return g_real.cuIpcCloseMemHandle(address);
	emuv_account_call(entry.device, EMUV_FN_cuIpcCloseMemHandle);
	return closed(g_real.cuIpcCloseMemHandle(address), &entry, last);
}

/* Its size shows when it is mapped (hook_cuMemMap). */
CUresult hook_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *shareable,
					     CUmemAllocationHandleType type)
{
	CUresult result = g_real.cuMemImportFromShareableHandle(handle, shareable, type);
	CUmemAllocationProp prop;
	CUdevice device = 0;

	if (result)
		return result;
	if (!g_real.cuMemGetAllocationPropertiesFromHandle(&prop, *handle) &&
	    prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE && prop.location.id >= 0 &&
	    prop.location.id < EMUV_MAX_DEVICES)
		device = prop.location.id;
	emuv_account_call(device, EMUV_FN_cuMemImportFromShareableHandle);
	emuv_vmm_imported(*handle, device);
	return CUDA_SUCCESS;
}

/* Freed as any memory of a pool. */
CUresult hook_cuMemPoolImportPointer(CUdeviceptr *address, CUmemoryPool pool,
				     CUmemPoolPtrExportData *data)
{
	CUresult result = g_real.cuMemPoolImportPointer(address, pool, data);
	emuv_where_t where = { 0 };

	if (result)
		return result;
	emuv_where_current(&where); /* the pool may be of a device without a context */
	emuv_account_call(where.device, EMUV_FN_cuMemPoolImportPointer);
	tally(EMUV_KIND_MEMORY, *address, size_of(*address), &where, EMUV_ENTRY_STREAM_ORDER);
	return CUDA_SUCCESS;
}

CUresult hook_cuImportExternalMemory(CUexternalMemory *memory,
				     const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *descriptor)
{
	CUresult result = g_real.cuImportExternalMemory(memory, descriptor);
	emuv_where_t where;

	if (result || !emuv_where_current(&where))
		return result;
	emuv_account_call(where.device, EMUV_FN_cuImportExternalMemory);
	tally(EMUV_KIND_EXTERNAL, (uint64_t)(uintptr_t)*memory, descriptor->size, &where, 0);
	return CUDA_SUCCESS;
}

CUresult hook_cuDestroyExternalMemory(CUexternalMemory memory)
{
	emuv_entry_t entry;
	bool last;

	if (!emuv_account_untally(EMUV_KIND_EXTERNAL, (uint64_t)(uintptr_t)memory, &entry, &last))
		return g_real.cuDestroyExternalMemory(memory);
	emuv_account_call(entry.device, EMUV_FN_cuDestroyExternalMemory);
	return closed(g_real.cuDestroyExternalMemory(memory), &entry, last);
}

/* ---- what goes out ---- */

/* Is what the address lies in spilled memory? */
static bool spilled(CUdeviceptr address, emuv_entry_t *entry)
{
	CUdeviceptr base;
	size_t bytes;

	if (emuv_vmm_address_spilled(address, entry))
		return true;
	if (g_real.cuMemGetAddressRange_v2(&base, &bytes, address))
		base = address;
	return emuv_account_look(EMUV_KIND_MEMORY, base, entry) &&
	       entry->placement == EMUV_PLACED_MANAGED && !(entry->flags & EMUV_ENTRY_OWN_MANAGED);
}

/* The driver's answer stands; where it is no and the memory is spilled, that is why. */
static CUresult asked_of(CUresult result, CUdeviceptr address, enum emuv_function function,
			 const char *name)
{
	emuv_entry_t entry;

	if (!result || !spilled(address, &entry))
		return result;
	emuv_account_call(entry.device, (int)function);
	emuv_vmm_tell_device_only(name);
	return result;
}

CUresult hook_cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr address)
{
	return asked_of(g_real.cuIpcGetMemHandle(handle, address), address,
			EMUV_FN_cuIpcGetMemHandle, "cuIpcGetMemHandle");
}

CUresult hook_cuMemPoolExportPointer(CUmemPoolPtrExportData *data, CUdeviceptr address)
{
	return asked_of(g_real.cuMemPoolExportPointer(data, address), address,
			EMUV_FN_cuMemPoolExportPointer, "cuMemPoolExportPointer");
}

CUresult hook_cuMemGetHandleForAddressRange(void *handle, CUdeviceptr address, size_t bytes,
					    CUmemRangeHandleType type, unsigned long long flags)
{
	return asked_of(g_real.cuMemGetHandleForAddressRange(handle, address, bytes, type, flags),
			address, EMUV_FN_cuMemGetHandleForAddressRange,
			"cuMemGetHandleForAddressRange");
}

/* Synchronous memory operations, which libraries ask for before RDMA: not of managed memory. */
CUresult hook_cuPointerSetAttribute(const void *value, CUpointer_attribute attribute,
				    CUdeviceptr address)
{
	return asked_of(g_real.cuPointerSetAttribute(value, attribute, address), address,
			EMUV_FN_cuPointerSetAttribute, "cuPointerSetAttribute");
}

CUresult hook_cuMemExportToShareableHandle(void *shareable, CUmemGenericAllocationHandle handle,
					   CUmemAllocationHandleType type, unsigned long long flags)
{
	CUresult result = g_real.cuMemExportToShareableHandle(shareable, handle, type, flags);
	emuv_entry_t memory;

	if (!result || !emuv_vmm_handle_spilled(handle, &memory))
		return result;
	emuv_account_call(memory.device, EMUV_FN_cuMemExportToShareableHandle);
	emuv_vmm_tell_device_only("cuMemExportToShareableHandle");
	return result;
}
