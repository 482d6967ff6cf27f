/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the driver says of handles, where some are spilled.  The program asked for
 * memory on its device and takes it for that: were it told of the host, it would
 * reach for it by the CPU, which the mapping does not let it.
 */
#include "hooks_vmm.h"

#include "hooks.h"

/* A multiple that holds on the device and on the host: any handle may have to go there. */
CUresult hook_cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
					    CUmemAllocationGranularity_flags option)
{
	CUresult result = g_real.cuMemGetAllocationGranularity(granularity, prop, option);
	emuv_report_t report;
	uint64_t host;

	if (result || prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE || prop->location.id < 0 ||
	    prop->location.id >= EMUV_MAX_DEVICES)
		return result;
	emuv_account_call(prop->location.id, EMUV_FN_cuMemGetAllocationGranularity);
	emuv_account_report(prop->location.id, &report);
	if (report.policy != EMUV_POLICY_SPILL)
		return result;
	host = emuv_vmm_host_granularity(prop->location.id);
	if (*granularity && host > *granularity && host % *granularity == 0)
		*granularity = host;
	return result;
}

CUresult hook_cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
						     CUmemGenericAllocationHandle handle)
{
	CUresult result = g_real.cuMemGetAllocationPropertiesFromHandle(prop, handle);
	emuv_entry_t memory;

	if (result || !emuv_vmm_handle_spilled(handle, &memory))
		return result;
	emuv_account_call(memory.device, EMUV_FN_cuMemGetAllocationPropertiesFromHandle);
	/* Its flags are the driver's: what it says it can, it can. */
	prop->location = (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, memory.device };
	return result;
}

/* ---- pointers ---- */

/* Of a mapping of spilled memory these tell of the host. */
static bool tells_where(CUpointer_attribute attribute)
{
	return attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE ||
	       attribute == CU_POINTER_ATTRIBUTE_HOST_POINTER ||
	       attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
}

static void put_right(CUpointer_attribute attribute, void *data, CUdevice device)
{
	if (attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
		*(unsigned int *)data = CU_MEMORYTYPE_DEVICE;
	else if (attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
		*(int *)data = device;
	else
		*(void **)data = NULL;
}

CUresult hook_cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
	CUresult result = g_real.cuPointerGetAttribute(data, attribute, address);
	emuv_entry_t memory;

	if (result || !tells_where(attribute) || !emuv_vmm_address_spilled(address, &memory))
		return result;
	emuv_account_call(memory.device, EMUV_FN_cuPointerGetAttribute);
	put_right(attribute, data, memory.device);
	/* As the driver answers for device memory. */
	return attribute == CU_POINTER_ATTRIBUTE_HOST_POINTER ? CUDA_ERROR_INVALID_VALUE : result;
}

CUresult hook_cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **data,
				     CUdeviceptr address)
{
	CUresult result = g_real.cuPointerGetAttributes(count, attributes, data, address);
	emuv_entry_t memory;

	if (result || !emuv_vmm_address_spilled(address, &memory))
		return result;
	emuv_account_call(memory.device, EMUV_FN_cuPointerGetAttributes);
	for (unsigned int i = 0; i < count; i++)
		if (tells_where(attributes[i]))
			put_right(attributes[i], data[i], memory.device);
	return result;
}

/* ---- multicast objects: of device memory only ---- */

static CUresult bound_handle(CUresult result, CUmemGenericAllocationHandle handle)
{
	emuv_entry_t memory;

	if (result && emuv_vmm_handle_spilled(handle, &memory))
		emuv_vmm_tell_device_only("cuMulticastBindMem");
	return result;
}

static CUresult bound_address(CUresult result, CUdeviceptr address)
{
	emuv_entry_t memory;

	if (result && emuv_vmm_address_spilled(address, &memory))
		emuv_vmm_tell_device_only("cuMulticastBindAddr");
	return result;
}

CUresult hook_cuMulticastBindMem(CUmemGenericAllocationHandle multicast, size_t at,
				 CUmemGenericAllocationHandle handle, size_t offset, size_t bytes,
				 unsigned long long flags)
{
	return bound_handle(g_real.cuMulticastBindMem(multicast, at, handle, offset, bytes, flags),
			    handle);
}

CUresult hook_cuMulticastBindMem_v2(CUmemGenericAllocationHandle multicast, CUdevice device,
				    size_t at, CUmemGenericAllocationHandle handle, size_t offset,
				    size_t bytes, unsigned long long flags)
{
	return bound_handle(g_real.cuMulticastBindMem_v2(multicast, device, at, handle, offset,
							 bytes, flags),
			    handle);
}

CUresult hook_cuMulticastBindAddr(CUmemGenericAllocationHandle multicast, size_t at,
				  CUdeviceptr address, size_t bytes, unsigned long long flags)
{
	return bound_address(g_real.cuMulticastBindAddr(multicast, at, address, bytes, flags),
			     address);
}

CUresult hook_cuMulticastBindAddr_v2(CUmemGenericAllocationHandle multicast, CUdevice device,
				     size_t at, CUdeviceptr address, size_t bytes,
				     unsigned long long flags)
{
	return bound_address(g_real.cuMulticastBindAddr_v2(multicast, device, at, address, bytes,
							   flags),
			     address);
}
