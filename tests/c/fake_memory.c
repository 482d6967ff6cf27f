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
}
