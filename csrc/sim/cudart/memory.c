/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory of every kind but arrays: device, pitched, pinned, managed; what is known of
 * a pointer; advice and prefetch.
 */
#include <string.h>

#include "cudart.h"

RT_API(cudaMalloc, void **pointer, size_t bytes)
{
	RT_NEED(cudaMalloc);
	if (!pointer)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	*pointer = NULL;
	if (!bytes)
		return 0;
	return rt_end(rt_driver.cuMemAlloc_v2((CUdeviceptr *)pointer, bytes));
}

/* cudaFree(NULL) makes a context, and nothing else: that is how programs warm up. */
RT_API(cudaFree, void *pointer)
{
	RT_NEED(cudaFree);
	return rt_end(pointer ? rt_driver.cuMemFree_v2(rt_address(pointer)) : 0);
}

/* Rows are aligned as the widest loads want them. */
#define PITCH_ELEMENT 16

RT_API(cudaMallocPitch, void **pointer, size_t *pitch, size_t width, size_t height)
{
	RT_NEED(cudaMallocPitch);
	if (!pointer || !pitch)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	*pointer = NULL;
	*pitch = 0;
	if (!width || !height)
		return 0;
	return rt_end(rt_driver.cuMemAllocPitch_v2((CUdeviceptr *)pointer, pitch, width, height,
						   PITCH_ELEMENT));
}

RT_API(cudaMalloc3D, struct cudaPitchedPtr *pitched, struct cudaExtent extent)
{
	cudaError_t result = 0;

	RT_NEED(cudaMalloc3D);
	if (!pitched)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	*pitched = (struct cudaPitchedPtr){ NULL, 0, extent.width, extent.height };
	if (extent.width && extent.height && extent.depth)
		result = rt_driver.cuMemAllocPitch_v2((CUdeviceptr *)&pitched->ptr,
						      &pitched->pitch, extent.width,
						      extent.height * extent.depth, PITCH_ELEMENT);
	return rt_end(result);
}

RT_API(cudaMallocManaged, void **pointer, size_t bytes, unsigned int flags)
{
	RT_NEED(cudaMallocManaged);
	if (!pointer || !bytes)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	return rt_end(rt_driver.cuMemAllocManaged((CUdeviceptr *)pointer, bytes, flags));
}

RT_FORWARD(cudaMemGetInfo, cuMemGetInfo_v2, (size_t *free_bytes, size_t *total_bytes),
	   (free_bytes, total_bytes))

/* ---- pinned host memory ---- */

static cudaError_t host_alloc(void **pointer, size_t bytes, unsigned int flags)
{
	if (!pointer)
		return CUDA_ERROR_INVALID_VALUE;
	*pointer = NULL;
	/* Every context may use it, as documented where addresses are unified. */
	return bytes ? rt_driver.cuMemHostAlloc(pointer, bytes, flags) : 0;
}

RT_API(cudaHostAlloc, void **pointer, size_t bytes, unsigned int flags)
{
	RT_NEED(cudaHostAlloc);
	return rt_end(host_alloc(pointer, bytes, flags));
}

RT_API(cudaMallocHost, void **pointer, size_t bytes)
{
	RT_NEED(cudaMallocHost);
	return rt_end(host_alloc(pointer, bytes, 0));
}

RT_API(cudaFreeHost, void *pointer)
{
	RT_NEED(cudaFreeHost);
	return rt_end(pointer ? rt_driver.cuMemFreeHost(pointer) : 0);
}

RT_FORWARD(cudaHostRegister, cuMemHostRegister_v2, (void *pointer, size_t bytes, unsigned int flags),
	   (pointer, bytes, flags))
RT_FORWARD(cudaHostUnregister, cuMemHostUnregister, (void *pointer), (pointer))
RT_FORWARD(cudaHostGetFlags, cuMemHostGetFlags, (unsigned int *flags, void *pointer),
	   (flags, pointer))
RT_FORWARD(cudaHostGetDevicePointer, cuMemHostGetDevicePointer_v2,
	   (void **answer, void *pointer, unsigned int flags),
	   ((CUdeviceptr *)answer, pointer, flags))

/* ---- pointers ---- */

RT_API(cudaPointerGetAttributes, struct cudaPointerAttributes *answer, const void *pointer)
{
	unsigned int type = 0, managed = 0;
	int device = -2; /* of memory that CUDA does not know */
	CUdeviceptr on_device = 0;
	void *on_host = NULL;
	CUpointer_attribute wanted[] = {
		CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
		CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
		CU_POINTER_ATTRIBUTE_HOST_POINTER,
	};
	void *data[] = { &type, &managed, &device, &on_device, &on_host };
	cudaError_t result;

	RT_NEED(cudaPointerGetAttributes);
	if (!answer)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	memset(answer, 0, sizeof(*answer));
	result = rt_driver.cuPointerGetAttributes(5, wanted, data, rt_address(pointer));
	if (result != 0)
		return rt_end(result);
	if (!type) {
		answer->type = cudaMemoryTypeUnregistered;
		answer->device = -2;
		answer->hostPointer = (void *)(uintptr_t)pointer;
		return 0;
	}
	answer->type = managed ? cudaMemoryTypeManaged
		       : type == CU_MEMORYTYPE_HOST ? cudaMemoryTypeHost
						    : cudaMemoryTypeDevice;
	answer->device = device;
	answer->devicePointer = (void *)(uintptr_t)on_device;
	answer->hostPointer = on_host;
	return 0;
}

/* ---- managed memory ---- */

static CUmemLocation location_of(struct cudaMemLocation location)
{
	return (CUmemLocation){ location.type, location.id };
}

/* With a place instead of a device: the newer form of these calls, then the only one. */
#define WITH_LOCATIONS(advise, prefetch)                                                      \
	RT_API(advise, const void *pointer, size_t bytes, int advice,                         \
	       struct cudaMemLocation location)                                               \
	{                                                                                     \
		RT_NEED(advise);                                                              \
		return rt_end(rt_driver.cuMemAdvise_v2(rt_address(pointer), bytes, advice,    \
						       location_of(location)));               \
	}                                                                                     \
	RT_BOTH(prefetch, _ptsz,                                                              \
		(const void *pointer, size_t bytes, struct cudaMemLocation location,          \
		 unsigned int flags, cudaStream_t stream),                                    \
		return rt_end(rt_driver.cuMemPrefetchAsync_v2(rt_address(pointer), bytes,     \
							      location_of(location), flags,   \
							      RT_STREAM(stream)));)

#if RT_MAJOR == 12

static CUmemLocation location_of_device(int device)
{
	return (CUmemLocation){ device == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST
							: CU_MEM_LOCATION_TYPE_DEVICE,
				device == CU_DEVICE_CPU ? 0 : device };
}

RT_API(cudaMemAdvise, const void *pointer, size_t bytes, int advice, int device)
{
	RT_NEED(cudaMemAdvise);
	return rt_end(rt_driver.cuMemAdvise_v2(rt_address(pointer), bytes, advice,
					       location_of_device(device)));
}

RT_BOTH(cudaMemPrefetchAsync, _ptsz,
	(const void *pointer, size_t bytes, int device, cudaStream_t stream),
	return rt_end(rt_driver.cuMemPrefetchAsync_v2(rt_address(pointer), bytes,
						      location_of_device(device), 0,
						      RT_STREAM(stream)));)

WITH_LOCATIONS(cudaMemAdvise_v2, cudaMemPrefetchAsync_v2)
#else
WITH_LOCATIONS(cudaMemAdvise, cudaMemPrefetchAsync)

RT_BOTH(cudaMemPrefetchBatchAsync, _ptsz,
	(void **pointers, size_t *sizes, size_t count, struct cudaMemLocation *locations,
	 size_t *first, size_t location_count, unsigned long long flags, cudaStream_t stream),
	return rt_end(rt_driver.cuMemPrefetchBatchAsync(
		(CUdeviceptr *)pointers, sizes, count, (CUmemLocation *)locations, first,
		location_count, flags, RT_STREAM(stream)));)

RT_BOTH(cudaMemDiscardBatchAsync, _ptsz,
	(void **pointers, size_t *sizes, size_t count, unsigned long long flags,
	 cudaStream_t stream),
	return rt_end(rt_driver.cuMemDiscardBatchAsync((CUdeviceptr *)pointers, sizes, count,
						       flags, RT_STREAM(stream)));)

RT_BOTH(cudaMemDiscardAndPrefetchBatchAsync, _ptsz,
	(void **pointers, size_t *sizes, size_t count, struct cudaMemLocation *locations,
	 size_t *first, size_t location_count, unsigned long long flags, cudaStream_t stream),
	return rt_end(rt_driver.cuMemDiscardAndPrefetchBatchAsync(
		(CUdeviceptr *)pointers, sizes, count, (CUmemLocation *)locations, first,
		location_count, flags, RT_STREAM(stream)));)
#endif

RT_FORWARD(cudaMemRangeGetAttribute, cuMemRangeGetAttribute,
	   (void *data, size_t bytes, int attribute, const void *pointer, size_t length),
	   (data, bytes, attribute, rt_address(pointer), length))
RT_FORWARD(cudaMemRangeGetAttributes, cuMemRangeGetAttributes,
	   (void **data, size_t *sizes, int *attributes, size_t count, const void *pointer,
	    size_t length),
	   (data, sizes, (CUmem_range_attribute *)attributes, count, rt_address(pointer), length))

RT_BOTH(cudaStreamAttachMemAsync, _ptsz,
	(cudaStream_t stream, void *pointer, size_t bytes, unsigned int flags),
	return rt_end(rt_driver.cuStreamAttachMemAsync(RT_STREAM(stream), rt_address(pointer),
						       bytes, flags));)

/* ---- between processes ---- */

RT_FORWARD(cudaIpcGetMemHandle, cuIpcGetMemHandle, (cudaIpcMemHandle_t *handle, void *pointer),
	   ((CUipcMemHandle *)handle, rt_address(pointer)))
RT_FORWARD(cudaIpcCloseMemHandle, cuIpcCloseMemHandle, (void *pointer), (rt_address(pointer)))
RT_FORWARD(cudaIpcGetEventHandle, cuIpcGetEventHandle,
	   (cudaIpcEventHandle_t *handle, cudaEvent_t event), ((CUipcEventHandle *)handle, event))

RT_API(cudaIpcOpenMemHandle, void **pointer, cudaIpcMemHandle_t handle, unsigned int flags)
{
	CUipcMemHandle given;

	RT_NEED(cudaIpcOpenMemHandle);
	memcpy(&given, &handle, sizeof(given));
	return rt_end(rt_driver.cuIpcOpenMemHandle_v2((CUdeviceptr *)pointer, given, flags));
}

RT_API(cudaIpcOpenEventHandle, cudaEvent_t *event, cudaIpcEventHandle_t handle)
{
	CUipcEventHandle given;

	RT_NEED(cudaIpcOpenEventHandle);
	memcpy(&given, &handle, sizeof(given));
	return rt_end(rt_driver.cuIpcOpenEventHandle(event, given));
}
