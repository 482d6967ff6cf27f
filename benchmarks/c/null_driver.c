/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A driver that does next to nothing, so that what emuV itself costs is seen clean:
 * every function answers success in a few instructions.  An allocation is the next
 * address, 512 bytes on, and never the same one twice: the worst case for a table
 * keyed by address, because no entry is ever met again in the cache.
 *
 * One device of 1 TiB that takes managed memory; one context, current everywhere.
 * Compiled by the benchmarks with the SONAME libcuda.so.1.  No memory stands behind
 * the addresses.
 */
#include <dlfcn.h>
#include <stdint.h>

#include "cuda_abi.h"

#define API __attribute__((visibility("default")))
#define CARD_BYTES (UINT64_C(1) << 40)
#define STEP_BYTES 512
/* Each thread takes addresses from ranges of its own: no shared counter to fight over. */
#define RANGE_BYTES (UINT64_C(1) << 36)

static int context_object, stream_object, pool_object;
static uint64_t next_range = UINT64_C(1) << 40, next_managed = UINT64_C(1) << 56;
static __thread uint64_t next_address, range_end;

static CUdeviceptr take_address(void)
{
	CUdeviceptr address;

	if (__builtin_expect(next_address == range_end, 0)) {
		next_address = __atomic_fetch_add(&next_range, RANGE_BYTES, __ATOMIC_RELAXED);
		range_end = next_address + RANGE_BYTES;
	}
	address = next_address;
	next_address += STEP_BYTES;
	return address;
}

#define ANSWER(name, params, ...)   \
	API CUresult name params;   \
	API CUresult name params    \
	{                           \
		__VA_ARGS__;        \
		return CUDA_SUCCESS; \
	}
#pragma GCC diagnostic ignored "-Wunused-parameter"

ANSWER(cuInit, (unsigned int flags))
ANSWER(cuDriverGetVersion, (int *version), *version = 13000)
ANSWER(cuDeviceGetCount, (int *count), *count = 1)
ANSWER(cuDeviceGet, (CUdevice *device, int ordinal), *device = ordinal)
ANSWER(cuDeviceGetName, (char *name, int bytes, CUdevice device),
       __builtin_memcpy(name, "null driver", sizeof "null driver"))
ANSWER(cuDeviceTotalMem_v2, (size_t *bytes, CUdevice device), *bytes = CARD_BYTES)
ANSWER(cuDeviceGetAttribute, (int *value, int attribute, CUdevice device), *value = 1)
ANSWER(cuMemGetInfo_v2, (size_t *free_bytes, size_t *total), *free_bytes = *total = CARD_BYTES)

ANSWER(cuDevicePrimaryCtxRetain, (CUcontext *context, CUdevice device),
       *context = (CUcontext)&context_object)
ANSWER(cuDevicePrimaryCtxRelease_v2, (CUdevice device))
ANSWER(cuDevicePrimaryCtxGetState, (CUdevice device, unsigned int *flags, int *active),
       *flags = 0, *active = 1)
ANSWER(cuCtxSetCurrent, (CUcontext context))
ANSWER(cuCtxGetCurrent, (CUcontext *context), *context = (CUcontext)&context_object)
ANSWER(cuCtxGetDevice, (CUdevice *device), *device = 0)
ANSWER(cuCtxPushCurrent_v2, (CUcontext context))
ANSWER(cuCtxPopCurrent_v2, (CUcontext *context), *context = (CUcontext)&context_object)

ANSWER(cuStreamCreate, (CUstream *stream, unsigned int flags), *stream = (CUstream)&stream_object)
ANSWER(cuStreamDestroy_v2, (CUstream stream))
ANSWER(cuStreamQuery, (CUstream stream))
ANSWER(cuStreamSynchronize, (CUstream stream))
ANSWER(cuStreamGetCtx, (CUstream stream, CUcontext *context),
       *context = (CUcontext)&context_object)
ANSWER(cuStreamIsCapturing, (CUstream stream, CUstreamCaptureStatus *status),
       *status = CU_STREAM_CAPTURE_STATUS_NONE)
ANSWER(cuGraphLaunch, (CUgraphExec graph, CUstream stream))
ANSWER(cuLaunchKernel,
       (CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
	unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared,
	CUstream stream, void **params, void **extra))

ANSWER(cuMemAlloc_v2, (CUdeviceptr *address, size_t bytes), *address = take_address())
ANSWER(cuMemFree_v2, (CUdeviceptr address))
/* Of some gigabytes each, so that an address says where its range begins. */
#define MANAGED_BYTES (UINT64_C(1) << 32)
ANSWER(cuMemAllocManaged, (CUdeviceptr *address, size_t bytes, unsigned int flags),
       *address = __atomic_fetch_add(&next_managed, MANAGED_BYTES, __ATOMIC_RELAXED))
ANSWER(cuPointerGetAttribute, (void *data, int attribute, CUdeviceptr address),
       *(CUdeviceptr *)data = address & ~(MANAGED_BYTES - 1))
ANSWER(cuEventCreate, (CUevent *event, unsigned int flags), *event = (CUevent)&stream_object)
ANSWER(cuEventRecord, (CUevent event, CUstream stream))
ANSWER(cuEventQuery, (CUevent event))
ANSWER(cuEventDestroy_v2, (CUevent event))
ANSWER(cuMemAdvise, (CUdeviceptr address, size_t bytes, CUmem_advise advice, CUdevice device))
ANSWER(cuMemPrefetchAsync, (CUdeviceptr address, size_t bytes, CUdevice device, CUstream stream))
ANSWER(cuMemAllocAsync, (CUdeviceptr *address, size_t bytes, CUstream stream),
       *address = take_address())
ANSWER(cuMemFreeAsync, (CUdeviceptr address, CUstream stream))
ANSWER(cuMemAddressReserve, (CUdeviceptr *address, size_t bytes, size_t alignment, CUdeviceptr hint,
			     unsigned long long flags),
       *address = __atomic_fetch_add(&next_range, (bytes / RANGE_BYTES + 1) * RANGE_BYTES,
				     __ATOMIC_RELAXED))
ANSWER(cuMemCreate, (CUmemGenericAllocationHandle *handle, size_t bytes,
		     const CUmemAllocationProp *prop, unsigned long long flags),
       *handle = take_address())
ANSWER(cuMemRelease, (CUmemGenericAllocationHandle handle))
ANSWER(cuMemMap, (CUdeviceptr address, size_t bytes, size_t offset,
		  CUmemGenericAllocationHandle handle, unsigned long long flags))
ANSWER(cuMemUnmap, (CUdeviceptr address, size_t bytes))
ANSWER(cuMemRetainAllocationHandle, (CUmemGenericAllocationHandle *handle, void *address),
       *handle = take_address())
ANSWER(cuMemGetAllocationGranularity, (size_t *granularity, const CUmemAllocationProp *prop,
				       CUmemAllocationGranularity_flags option),
       *granularity = (size_t)2 << 20)
ANSWER(cuDeviceGetDefaultMemPool, (CUmemoryPool *pool, CUdevice device),
       *pool = (CUmemoryPool)&pool_object)

/* No undocumented tables: this is not the simulated GPU. */
API CUresult cuGetExportTable(const void **table, const CUuuid *id);
API CUresult cuGetExportTable(const void **table, const CUuuid *id)
{
	return CUDA_ERROR_NOT_FOUND;
}

/* The newest form of a name that this driver has. */
API CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
				 CUdriverProcAddressQueryResult *status);
API CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
				 CUdriverProcAddressQueryResult *status)
{
	static const struct {
		const char *name;
		void *function;
	} table[] = {
		{ "cuDriverGetVersion", (void *)cuDriverGetVersion },
		{ "cuCtxGetDevice", (void *)cuCtxGetDevice },
		{ "cuStreamQuery", (void *)cuStreamQuery },
		{ "cuGraphLaunch", (void *)cuGraphLaunch },
		{ "cuLaunchKernel", (void *)cuLaunchKernel },
	};

	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (__builtin_strcmp(table[i].name, symbol) == 0) {
			*pfn = table[i].function;
			return CUDA_SUCCESS;
		}
	*pfn = (void *)0;
	return CUDA_ERROR_NOT_FOUND;
}
