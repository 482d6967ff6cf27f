/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream-ordered allocation.  Pools, their properties, attributes and access lists are
 * the driver's, under other names.
 */
#include "cudart.h"

RT_BOTH(cudaMallocAsync, _ptsz, (void **pointer, size_t bytes, cudaStream_t stream),
	if (!pointer)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	*pointer = NULL;
	if (!bytes)
		return 0;
	return rt_end(rt_driver.cuMemAllocAsync((CUdeviceptr *)pointer, bytes,
						RT_STREAM(stream)));)

RT_BOTH(cudaMallocFromPoolAsync, _ptsz,
	(void **pointer, size_t bytes, cudaMemPool_t pool, cudaStream_t stream),
	if (!pointer)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	*pointer = NULL;
	if (!bytes)
		return 0;
	return rt_end(rt_driver.cuMemAllocFromPoolAsync((CUdeviceptr *)pointer, bytes, pool,
							RT_STREAM(stream)));)

RT_BOTH(cudaFreeAsync, _ptsz, (void *pointer, cudaStream_t stream),
	return rt_end(pointer ? rt_driver.cuMemFreeAsync(rt_address(pointer), RT_STREAM(stream))
			      : 0);)

RT_FORWARD(cudaDeviceGetDefaultMemPool, cuDeviceGetDefaultMemPool, (cudaMemPool_t *pool, int device),
	   (pool, device))
RT_FORWARD(cudaDeviceGetMemPool, cuDeviceGetMemPool, (cudaMemPool_t *pool, int device),
	   (pool, device))
RT_FORWARD(cudaDeviceSetMemPool, cuDeviceSetMemPool, (int device, cudaMemPool_t pool),
	   (device, pool))
RT_FORWARD(cudaMemPoolCreate, cuMemPoolCreate,
	   (cudaMemPool_t *pool, const struct cudaMemPoolProps *properties),
	   (pool, (const CUmemPoolProps *)properties))
RT_FORWARD(cudaMemPoolDestroy, cuMemPoolDestroy, (cudaMemPool_t pool), (pool))
RT_FORWARD(cudaMemPoolTrimTo, cuMemPoolTrimTo, (cudaMemPool_t pool, size_t bytes), (pool, bytes))
RT_FORWARD(cudaMemPoolGetAttribute, cuMemPoolGetAttribute,
	   (cudaMemPool_t pool, int attribute, void *value), (pool, attribute, value))
RT_FORWARD(cudaMemPoolSetAttribute, cuMemPoolSetAttribute,
	   (cudaMemPool_t pool, int attribute, void *value), (pool, attribute, value))
RT_FORWARD(cudaMemPoolGetAccess, cuMemPoolGetAccess,
	   (int *flags, cudaMemPool_t pool, struct cudaMemLocation *location),
	   ((CUmemAccess_flags *)flags, pool, (CUmemLocation *)location))
RT_FORWARD(cudaMemPoolSetAccess, cuMemPoolSetAccess,
	   (cudaMemPool_t pool, const struct cudaMemAccessDesc *list, size_t count),
	   (pool, (const CUmemAccessDesc *)list, count))
#if RT_MAJOR >= 13
RT_FORWARD(cudaMemGetDefaultMemPool, cuMemGetDefaultMemPool,
	   (cudaMemPool_t *pool, struct cudaMemLocation *location, int type),
	   (pool, (CUmemLocation *)location, type))
RT_FORWARD(cudaMemGetMemPool, cuMemGetMemPool,
	   (cudaMemPool_t *pool, struct cudaMemLocation *location, int type),
	   (pool, (CUmemLocation *)location, type))
RT_FORWARD(cudaMemSetMemPool, cuMemSetMemPool,
	   (struct cudaMemLocation *location, int type, cudaMemPool_t pool),
	   ((CUmemLocation *)location, type, pool))
#endif

RT_FORWARD(cudaDeviceGraphMemTrim, cuDeviceGraphMemTrim, (int device), (device))
RT_FORWARD(cudaDeviceGetGraphMemAttribute, cuDeviceGetGraphMemAttribute,
	   (int device, int attribute, void *value), (device, attribute, value))
RT_FORWARD(cudaDeviceSetGraphMemAttribute, cuDeviceSetGraphMemAttribute,
	   (int device, int attribute, void *value), (device, attribute, value))

/* ---- between processes ---- */

RT_FORWARD(cudaMemPoolExportToShareableHandle, cuMemPoolExportToShareableHandle,
	   (void *shareable, cudaMemPool_t pool, int type, unsigned int flags),
	   (shareable, pool, (CUmemAllocationHandleType)type, flags))
RT_FORWARD(cudaMemPoolImportFromShareableHandle, cuMemPoolImportFromShareableHandle,
	   (cudaMemPool_t *pool, void *shareable, int type, unsigned int flags),
	   (pool, shareable, (CUmemAllocationHandleType)type, flags))
RT_FORWARD(cudaMemPoolExportPointer, cuMemPoolExportPointer,
	   (struct cudaMemPoolPtrExportData *data, void *pointer),
	   ((CUmemPoolPtrExportData *)data, rt_address(pointer)))
RT_FORWARD(cudaMemPoolImportPointer, cuMemPoolImportPointer,
	   (void **pointer, cudaMemPool_t pool, struct cudaMemPoolPtrExportData *data),
	   ((CUdeviceptr *)pointer, pool, (CUmemPoolPtrExportData *)data))
