// SPDX-License-Identifier: GPL-2.0-only
/* The fake driver: plain, pitched, managed and stream-ordered memory, arrays. */
#include "fake_internal.h"

static CUresult allocate(enum fake_kind kind, uint64_t bytes, uint64_t *handle)
{
	CUdevice device;
	CUresult result = CUDA_ERROR_INVALID_CONTEXT;

	LOCK();
	if (fake_here(&device))
		result = fake_place(kind, device, bytes, fake_current(), handle);
	UNLOCK();
	return result;
}

static CUresult alloc(CUdeviceptr *address, size_t bytes)
{
	uint64_t handle = 0;
	CUresult result;

	BEGIN();
	if (!address || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	result = allocate(FAKE_DEVICE, bytes, &handle);
	if (!result)
		*address = handle;
	return result;
}

static CUresult alloc_v1(CUdeviceptr_v1 *address, unsigned int bytes)
{
	uint64_t handle = 0;
	CUresult result;

	BEGIN();
	result = allocate(FAKE_DEVICE, bytes, &handle);
	if (!result)
		*address = (CUdeviceptr_v1)(handle >> 24);
	return result;
}

static uint64_t padded(uint64_t width)
{
	return (width + fake.pitch_alignment - 1) / fake.pitch_alignment * fake.pitch_alignment;
}

static CUresult alloc_pitch(CUdeviceptr *address, size_t *pitch, size_t width, size_t height,
			    unsigned int element)
{
	uint64_t handle = 0;
	CUresult result;

	(void)element;
	BEGIN();
	*pitch = padded(width);
	result = allocate(FAKE_DEVICE, *pitch * height, &handle);
	if (!result)
		*address = handle;
	return result;
}

static CUresult alloc_pitch_v1(CUdeviceptr_v1 *address, unsigned int *pitch, unsigned int width,
			       unsigned int height, unsigned int element)
{
	uint64_t handle = 0;
	CUresult result;

	(void)element;
	BEGIN();
	*pitch = (unsigned int)padded(width);
	result = allocate(FAKE_DEVICE, (uint64_t)*pitch * height, &handle);
	if (!result)
		*address = (CUdeviceptr_v1)(handle >> 24);
	return result;
}

static CUresult alloc_managed(CUdeviceptr *address, size_t bytes, unsigned int flags)
{
	CUdevice device;
	CUresult result = CUDA_ERROR_INVALID_CONTEXT;

	(void)flags;
	BEGIN();
	LOCK();
	if (fake_here(&device)) {
		*address = fake_make(FAKE_MANAGED, device, bytes, fake_current());
		result = CUDA_SUCCESS;
	}
	UNLOCK();
	return result;
}

static CUresult free_any(uint64_t address, bool asynchronous)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	CUdevice device;
	fake_object_t *o;

	LOCK();
	o = fake_object(address, FAKE_DEVICE);
	o = o ? o : fake_object(address, FAKE_POOLED);
	if (!o && !asynchronous) /* cuMemFreeAsync takes no managed memory */
		o = fake_object(address, FAKE_MANAGED);
	if (!fake_here(&device))
		result = CUDA_ERROR_INVALID_CONTEXT;
	else if (o) {
		fake_drop(o);
		result = CUDA_SUCCESS;
	}
	UNLOCK();
	return result;
}

static CUresult mem_free(CUdeviceptr address)
{
	BEGIN();
	return free_any(address, false);
}

static CUresult mem_free_v1(CUdeviceptr_v1 address)
{
	BEGIN();
	return free_any(address, false);
}

/* ---- stream-ordered ---- */

static CUresult alloc_async(CUdeviceptr *address, size_t bytes, CUstream stream)
{
	uint64_t handle = 0;
	CUresult result;

	(void)stream;
	BEGIN();
	/* A captured one is an address: its bytes are there when the graph is launched. */
	if (__atomic_load_n(&fake.capturing, __ATOMIC_RELAXED))
		bytes = 0;
	result = allocate(FAKE_POOLED, bytes, &handle);
	if (!result)
		*address = handle;
	return result;
}

static CUresult alloc_from_pool(CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
				CUstream stream)
{
	uint64_t handle = 0;
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	const fake_object_t *o;

	(void)stream;
	BEGIN();
	LOCK();
	o = OBJECT(pool, FAKE_POOL);
	if (o)
		result = fake_place(FAKE_POOLED, o->device, bytes, NULL, &handle);
	UNLOCK();
	if (!result)
		*address = handle;
	return result;
}

static CUresult free_async(CUdeviceptr address, CUstream stream)
{
	(void)stream;
	BEGIN();
	return free_any(address, true);
}

static CUresult pool_create(CUmemoryPool *pool, const CUmemPoolProps *props)
{
	BEGIN();
	LOCK();
	*pool = (CUmemoryPool)(uintptr_t)fake_make(FAKE_POOL, props->location.id, 0, NULL);
	UNLOCK();
	return CUDA_SUCCESS;
}

static CUresult pool_destroy(CUmemoryPool pool)
{
	BEGIN();
	return fake_destroy((uint64_t)(uintptr_t)pool, FAKE_POOL);
}

/* ---- arrays: bytes, one channel ---- */

static uint64_t volume(uint64_t width, uint64_t height, uint64_t layers)
{
	return width * (height ? height : 1) * (layers ? layers : 1);
}

static CUresult array_create(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor)
{
	BEGIN();
	return allocate(FAKE_ARRAY, volume(descriptor->Width, descriptor->Height, 0),
			(uint64_t *)array);
}

static CUresult array_3d_create(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
	BEGIN();
	return allocate(FAKE_ARRAY,
			volume(descriptor->Width, descriptor->Height, descriptor->Depth),
			(uint64_t *)array);
}

static CUresult mipmap_create(CUmipmappedArray *mipmap, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
			      unsigned int levels)
{
	uint64_t bytes = 0;

	BEGIN();
	for (unsigned int i = 0; i < levels; i++)
		bytes += volume(descriptor->Width >> i, descriptor->Height >> i, 0);
	return allocate(FAKE_MIPMAP, bytes, (uint64_t *)mipmap);
}

static CUresult array_destroy(CUarray array)
{
	BEGIN();
	return fake_destroy((uint64_t)(uintptr_t)array, FAKE_ARRAY);
}

static CUresult mipmap_destroy(CUmipmappedArray mipmap)
{
	BEGIN();
	return fake_destroy((uint64_t)(uintptr_t)mipmap, FAKE_MIPMAP);
}

/*
 * ---- managed memory ----
 * Of each 2 MiB block is known whether it is on the device; and what emuV has promised of
 * what it keeps on the host: once pinned, nothing is advised that would let it migrate,
 * and nobody but its own device is sent a byte.
 */

#define BLOCK (UINT64_C(2) << 20)

static uint64_t block_bytes(const fake_object_t *o, size_t block)
{
	uint64_t rest = o->bytes - block * BLOCK;

	return rest < BLOCK ? (rest + 65535) / 65536 * 65536 : BLOCK;
}

/* Lock held.  The managed range with all of [address, address + bytes). */
static fake_object_t *managed_at(uint64_t address, uint64_t bytes)
{
	uint64_t offset = address & ((UINT64_C(1) << 40) - 1);
	fake_object_t *o = fake_object(address - offset, FAKE_MANAGED);

	return o && bytes && offset < o->bytes && bytes <= o->bytes - offset ? o : NULL;
}

bool fake_managed_start(uint64_t address, uint64_t *start, uint64_t *bytes)
{
	const fake_object_t *o = managed_at(address, 1);

	if (!o)
		return false;
	*start = address & ~((UINT64_C(1) << 40) - 1);
	*bytes = o->bytes;
	return true;
}

static CUresult advise_v2(CUdeviceptr address, size_t bytes, CUmem_advise advice,
			  CUmemLocation location)
{
	bool device = location.type == CU_MEM_LOCATION_TYPE_DEVICE;
	fake_object_t *o;

	BEGIN();
	LOCK();
	o = managed_at(address, bytes);
	if (o && o->prefers_host) {
		CHECK(advice != CU_MEM_ADVISE_SET_READ_MOSTLY);
		CHECK(advice != CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION);
		CHECK(advice != CU_MEM_ADVISE_SET_PREFERRED_LOCATION || !device);
		CHECK(advice != CU_MEM_ADVISE_UNSET_ACCESSED_BY || location.id != o->device);
	}
	if (o && bytes == o->bytes) {
		o->prefers_host |= advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION && !device;
		o->accessed |= advice == CU_MEM_ADVISE_SET_ACCESSED_BY && device &&
			       location.id == o->device;
	}
	UNLOCK();
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUmemLocation location_of(CUdevice device)
{
	return (CUmemLocation){ device == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST :
							  CU_MEM_LOCATION_TYPE_DEVICE,
				device };
}

static CUresult advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUdevice device)
{
	return advise_v2(address, bytes, advice, location_of(device));
}

/* Lock held. */
static void move(fake_object_t *o, uint64_t offset, uint64_t bytes, CUmemLocation to)
{
	bool device = to.type == CU_MEM_LOCATION_TYPE_DEVICE;

	CHECK(o->prefers_host && o->accessed);
	CHECK(!device || to.id == o->device);
	for (size_t block = offset / BLOCK; block * BLOCK < offset + bytes; block++) {
		uint64_t bit = UINT64_C(1) << block % 64;

		if (device == !!(o->blocks[block / 64] & bit))
			continue;
		o->blocks[block / 64] ^= bit;
		if (device)
			fake_add_physical(o->device, block_bytes(o, block));
		else
			fake.physical[o->device] -= block_bytes(o, block);
		o->resident += device ? block_bytes(o, block) : -block_bytes(o, block);
	}
}

static CUresult prefetch_v2(CUdeviceptr address, size_t bytes, CUmemLocation location,
			    unsigned int flags, CUstream stream)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	fake_object_t *o;

	BEGIN();
	LOCK();
	o = managed_at(address, bytes);
	if (o && !flags && OBJECT(stream, FAKE_STREAM)) {
		move(o, address & ((UINT64_C(1) << 40) - 1), bytes, location);
		result = CUDA_SUCCESS;
	}
	UNLOCK();
	return result;
}

static CUresult prefetch(CUdeviceptr address, size_t bytes, CUdevice device, CUstream stream)
{
	return prefetch_v2(address, bytes, location_of(device), 0, stream);
}

static CUresult batch(CUdeviceptr *addresses, size_t *sizes, size_t count, CUmemLocation *locations,
		      size_t *first, size_t n_locations, unsigned long long flags, CUstream stream)
{
	CUresult result = CUDA_SUCCESS;

	BEGIN();
	LOCK();
	if (flags || !count || !n_locations || !OBJECT(stream, FAKE_STREAM))
		result = CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count && !result; i++)
		if (!managed_at(addresses[i], sizes[i]))
			result = CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0, k = 0; i < count && !result; i++) {
		while (k + 1 < n_locations && first[k + 1] <= i)
			k++;
		move(managed_at(addresses[i], sizes[i]), addresses[i] & ((UINT64_C(1) << 40) - 1),
		     sizes[i], locations[k]);
	}
	UNLOCK();
	return result;
}

static CUresult range_attribute(void *data, size_t data_bytes, CUmem_range_attribute attribute,
				CUdeviceptr address, size_t bytes)
{
	bool inside;

	(void)data, (void)data_bytes, (void)attribute;
	BEGIN();
	LOCK();
	inside = managed_at(address, bytes);
	UNLOCK();
	return inside ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

void fake_install_memory(void)
{
	g_real.cuMemAlloc_v2 = alloc;
	g_real.cuMemAlloc = alloc_v1;
	g_real.cuMemAllocPitch_v2 = alloc_pitch;
	g_real.cuMemAllocPitch = alloc_pitch_v1;
	g_real.cuMemAllocManaged = alloc_managed;
	g_real.cuMemFree_v2 = mem_free;
	g_real.cuMemFree = mem_free_v1;
	g_real.cuMemAllocAsync = g_real.cuMemAllocAsync_ptsz = alloc_async;
	g_real.cuMemAllocFromPoolAsync = g_real.cuMemAllocFromPoolAsync_ptsz = alloc_from_pool;
	g_real.cuMemFreeAsync = g_real.cuMemFreeAsync_ptsz = free_async;
	g_real.cuMemPoolCreate = pool_create;
	g_real.cuMemPoolDestroy = pool_destroy;
	g_real.cuArrayCreate_v2 = array_create;
	g_real.cuArray3DCreate_v2 = array_3d_create;
	g_real.cuMipmappedArrayCreate = mipmap_create;
	g_real.cuArrayDestroy = array_destroy;
	g_real.cuMipmappedArrayDestroy = mipmap_destroy;
	g_real.cuMemAdvise = advise;
	g_real.cuMemAdvise_v2 = advise_v2;
	g_real.cuMemPrefetchAsync = g_real.cuMemPrefetchAsync_ptsz = prefetch;
	g_real.cuMemPrefetchAsync_v2 = g_real.cuMemPrefetchAsync_v2_ptsz = prefetch_v2;
	g_real.cuMemPrefetchBatchAsync = g_real.cuMemPrefetchBatchAsync_ptsz = batch;
	g_real.cuMemDiscardAndPrefetchBatchAsync = batch;
	g_real.cuMemDiscardAndPrefetchBatchAsync_ptsz = batch;
	g_real.cuMemRangeGetAttribute = range_attribute;
}
