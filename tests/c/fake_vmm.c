// SPDX-License-Identifier: GPL-2.0-only
/* The fake driver: virtual memory management, advice and prefetch of managed memory. */
#include "fake_internal.h"

/* ---- virtual memory ---- */

static CUresult device_attribute(int *value, int attribute, CUdevice device)
{
	(void)device;
	BEGIN();
	if (attribute == 134) { /* HOST_NUMA_ID */
		*value = fake.host.node_id;
		return CUDA_SUCCESS;
	}
	if (fake.host.unasked)
		return CUDA_ERROR_INVALID_VALUE;
	*value = attribute == 141 ? fake.host.node : attribute == 145 ? fake.host.host : 0;
	return CUDA_SUCCESS;
}

/* Is there such host memory to make a handle of? */
static CUresult host_may(const CUmemAllocationProp *prop)
{
	bool node = prop->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA;
	int known = fake.host.node_id < 0 ? 0 : fake.host.node_id;

	if (node ? !fake.host.node : !fake.host.host)
		return CUDA_ERROR_INVALID_VALUE;
	if (node && prop->location.id != known)
		return CUDA_ERROR_INVALID_DEVICE;
	CHECK(!prop->allocFlags.usage && !prop->allocFlags.gpuDirectRDMACapable &&
	      !prop->allocFlags.compressionType);
	if (!prop->requestedHandleTypes)
		return CUDA_SUCCESS;
	return node ? fake.host.shared : CUDA_ERROR_INVALID_VALUE;
}

static CUresult vmm_granularity(size_t *granularity, const CUmemAllocationProp *prop,
				CUmemAllocationGranularity_flags option)
{
	bool device = prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
	CUresult result;

	(void)option;
	BEGIN();
	result = device ? CUDA_SUCCESS : host_may(prop);
	if (!result)
		*granularity = device ? MIB(2) : fake.host.granularity;
	return result;
}

static CUresult vmm_create(CUmemGenericAllocationHandle *handle, size_t bytes,
			   const CUmemAllocationProp *prop, unsigned long long flags)
{
	bool on_host = prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE;
	uint64_t made = 0;
	CUresult result;

	(void)flags;
	BEGIN();
	LOCK();
	if (on_host) {
		result = bytes % fake.host.granularity ? CUDA_ERROR_INVALID_VALUE : host_may(prop);
		if (!result)
			made = fake_make(FAKE_VMM, 0, bytes, NULL);
	} else {
		result = fake_place(FAKE_VMM, prop->location.id, bytes, NULL, &made);
	}
	if (!result) {
		OBJECT(made, FAKE_VMM)->handles = 1;
		OBJECT(made, FAKE_VMM)->on_host = on_host;
		/* What was asked for, in a word: cuMemGetAllocationPropertiesFromHandle. */
		OBJECT(made, FAKE_VMM)->link = (uint64_t)prop->location.type << 32 |
					       (uint32_t)prop->requestedHandleTypes;
		*handle = made;
	}
	UNLOCK();
	return result;
}

static CUresult vmm_properties(CUmemAllocationProp *prop, CUmemGenericAllocationHandle handle)
{
	const fake_object_t *o;

	BEGIN();
	LOCK();
	o = fake_object(handle, FAKE_VMM);
	if (o)
		*prop = (CUmemAllocationProp){
			.type = CU_MEM_ALLOCATION_TYPE_PINNED,
			.location = { (CUmemLocationType)(o->link >> 32), o->device },
			.requestedHandleTypes = (CUmemAllocationHandleType)(uint32_t)o->link,
		};
	UNLOCK();
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static void drop_unused(fake_object_t *memory)
{
	if (!memory->handles && !memory->mappings)
		fake_drop(memory);
}

static CUresult vmm_release(CUmemGenericAllocationHandle handle)
{
	fake_object_t *o;
	bool known;

	BEGIN();
	LOCK();
	o = fake_object(handle, FAKE_VMM);
	known = o && o->handles;
	if (known) {
		o->handles--;
		drop_unused(o);
	}
	UNLOCK();
	return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static fake_object_t *mapping_at(uint64_t address)
{
	for (size_t i = 0; i < FAKE_OBJECTS; i++)
		if (fake.objects[i].kind == FAKE_MAPPING && address >= fake.objects[i].address &&
		    address - fake.objects[i].address < fake.objects[i].bytes)
			return &fake.objects[i];
	return NULL;
}

static CUresult vmm_retain(CUmemGenericAllocationHandle *handle, void *address)
{
	const fake_object_t *mapping;

	BEGIN();
	LOCK();
	mapping = mapping_at((uint64_t)(uintptr_t)address);
	if (mapping) {
		fake.objects[mapping->link].handles++;
		*handle = fake_handle(mapping->link);
	}
	UNLOCK();
	return mapping ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult vmm_map(CUdeviceptr address, size_t bytes, size_t offset,
			CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	fake_object_t *memory;

	(void)offset, (void)flags;
	BEGIN();
	LOCK();
	memory = fake_object(handle, FAKE_VMM);
	if (memory && !mapping_at(address)) {
		fake_object_t *mapping = fake_object(fake_make(FAKE_MAPPING, 0, bytes, NULL), FAKE_MAPPING);

		mapping->link = (uint64_t)(memory - fake.objects);
		mapping->address = address;
		memory->mappings++;
		result = CUDA_SUCCESS;
	}
	UNLOCK();
	return result;
}

static CUresult vmm_unmap(CUdeviceptr address, size_t bytes)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	fake_object_t *mapping;

	BEGIN();
	LOCK();
	while (bytes && (mapping = mapping_at(address)) && mapping->bytes <= bytes) {
		fake_object_t *memory = &fake.objects[mapping->link];

		address += mapping->bytes;
		bytes -= mapping->bytes;
		mapping->kind = FAKE_NOTHING;
		memory->mappings--;
		drop_unused(memory);
		result = CUDA_SUCCESS;
	}
	UNLOCK();
	return result;
}

/* The memory of the mapping that an address is in. */
static const fake_object_t *memory_at(CUdeviceptr address)
{
	const fake_object_t *mapping = mapping_at(address);

	return mapping ? &fake.objects[mapping->link] : NULL;
}

static CUresult pointer_attribute(void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
	const fake_object_t *o;
	CUresult result = CUDA_SUCCESS;
	uint64_t start, bytes;

	BEGIN();
	LOCK();
	o = memory_at(address);
	if (fake_managed_start(address, &start, &bytes))
		*(uint64_t *)data = attribute == CU_POINTER_ATTRIBUTE_RANGE_SIZE ? bytes : start;
	else if (!o || (attribute == CU_POINTER_ATTRIBUTE_HOST_POINTER && !o->on_host))
		result = CUDA_ERROR_INVALID_VALUE;
	else if (attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
		*(unsigned int *)data = o->on_host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
	else if (attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
		*(int *)data = o->on_host ? CU_DEVICE_CPU : o->device;
	else
		*(CUdeviceptr *)data = address;
	UNLOCK();
	return result;
}

static CUresult pointer_attributes(unsigned int count, CUpointer_attribute *attributes, void **data,
				   CUdeviceptr address)
{
	for (unsigned int i = 0; i < count; i++)
		if (pointer_attribute(data[i], attributes[i], address))
			*(void **)data[i] = NULL;
	return CUDA_SUCCESS;
}

/* Multicast objects bind device memory only. */
static CUresult bind_memory(CUmemGenericAllocationHandle multicast, size_t at,
			    CUmemGenericAllocationHandle handle, size_t offset, size_t bytes,
			    unsigned long long flags)
{
	const fake_object_t *o;

	(void)multicast, (void)at, (void)offset, (void)bytes, (void)flags;
	BEGIN();
	LOCK();
	o = fake_object(handle, FAKE_VMM);
	UNLOCK();
	return o && !o->on_host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult bind_address(CUmemGenericAllocationHandle multicast, size_t at, CUdeviceptr address,
			     size_t bytes, unsigned long long flags)
{
	const fake_object_t *o;

	(void)multicast, (void)at, (void)bytes, (void)flags;
	BEGIN();
	LOCK();
	o = memory_at(address);
	UNLOCK();
	return o && !o->on_host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

void fake_install_vmm(void)
{
	g_real.cuMemCreate = vmm_create;
	g_real.cuMemRelease = vmm_release;
	g_real.cuMemRetainAllocationHandle = vmm_retain;
	g_real.cuMemMap = vmm_map;
	g_real.cuMemUnmap = vmm_unmap;
	g_real.cuDeviceGetAttribute = device_attribute;
	g_real.cuMemGetAllocationGranularity = vmm_granularity;
	g_real.cuMemGetAllocationPropertiesFromHandle = vmm_properties;
	g_real.cuPointerGetAttribute = pointer_attribute;
	g_real.cuPointerGetAttributes = pointer_attributes;
	g_real.cuMulticastBindMem = bind_memory;
	g_real.cuMulticastBindAddr = bind_address;
}
