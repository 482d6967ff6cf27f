// SPDX-License-Identifier: GPL-2.0-only
/* The fake driver: virtual memory management, advice and prefetch of managed memory. */
#include "fake_internal.h"

/* ---- virtual memory ---- */

static CUresult vmm_create(CUmemGenericAllocationHandle *handle, size_t bytes,
			   const CUmemAllocationProp *prop, unsigned long long flags)
{
	uint64_t made = 0;
	CUresult result;

	(void)flags;
	BEGIN();
	LOCK();
	result = fake_place(FAKE_VMM, prop->location.id, bytes, NULL, &made);
	if (!result) {
		OBJECT(made, FAKE_VMM)->handles = 1;
		*handle = made;
	}
	UNLOCK();
	return result;
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

/* ---- managed memory ---- */

static CUresult advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUdevice device)
{
	fake_object_t *o;

	BEGIN();
	LOCK();
	o = fake_object(address, FAKE_MANAGED);
	if (o && bytes == o->bytes) {
		o->prefers_host |= advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION &&
				   device == CU_DEVICE_CPU;
		o->accessed |= advice == CU_MEM_ADVISE_SET_ACCESSED_BY && device == o->device;
	}
	UNLOCK();
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Keeps one number a range: how many bytes from its start are on the device. */
static CUresult prefetch(CUdeviceptr address, size_t bytes, CUdevice device, CUstream stream)
{
	uint64_t offset = address & ((UINT64_C(1) << 40) - 1);
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	fake_object_t *o;

	BEGIN();
	LOCK();
	o = fake_object(address - offset, FAKE_MANAGED);
	if (o && OBJECT(stream, FAKE_STREAM)) {
		CHECK(offset + bytes <= o->bytes);
		CHECK(o->prefers_host && o->accessed);
		if (device == CU_DEVICE_CPU) {
			uint64_t stays = o->resident < offset ? o->resident : offset;

			fake.physical[o->device] -= o->resident - stays;
			o->resident = stays;
		} else {
			CHECK_EQ(offset, 0);
			fake_add_physical(o->device, bytes - o->resident);
			o->resident = bytes;
		}
		result = CUDA_SUCCESS;
	}
	UNLOCK();
	return result;
}

void fake_install_vmm(void)
{
	g_real.cuMemCreate = vmm_create;
	g_real.cuMemRelease = vmm_release;
	g_real.cuMemRetainAllocationHandle = vmm_retain;
	g_real.cuMemMap = vmm_map;
	g_real.cuMemUnmap = vmm_unmap;
	g_real.cuMemAdvise = advise;
	g_real.cuMemPrefetchAsync = prefetch;
}
