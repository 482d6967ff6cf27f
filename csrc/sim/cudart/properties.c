/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cudaGetDeviceProperties and cudaChooseDevice.
 *
 * A row below is a field and the number of the driver's attribute that it is.  The two
 * versions have different layouts (runtime_abi.h); the oldest one, which libcudart.so.12
 * still exports without the suffix _v2, is a beginning of that of 12.
 */
#include <string.h>

#include "cudart.h"

typedef struct cudaDeviceProp prop_t;

#define ROW(field, attribute) { attribute, offsetof(prop_t, field), sizeof(((prop_t *)0)->field) }
#define AT(field, index, attribute) \
	{ attribute, offsetof(prop_t, field) + (index) * sizeof(int), sizeof(int) }
static const struct {
	int attribute;
	size_t offset, bytes;
} rows[] = {
	ROW(sharedMemPerBlock, 8), ROW(regsPerBlock, 12), ROW(warpSize, 10), ROW(memPitch, 11),
	ROW(maxThreadsPerBlock, 1), AT(maxThreadsDim, 0, 2), AT(maxThreadsDim, 1, 3),
	AT(maxThreadsDim, 2, 4), AT(maxGridSize, 0, 5), AT(maxGridSize, 1, 6),
	AT(maxGridSize, 2, 7), ROW(totalConstMem, 9), ROW(major, 75), ROW(minor, 76),
	ROW(textureAlignment, 14), ROW(texturePitchAlignment, 51), ROW(multiProcessorCount, 16),
	ROW(integrated, 18), ROW(canMapHostMemory, 19), ROW(maxTexture1D, 21),
	ROW(maxTexture1DMipmap, 77), AT(maxTexture2D, 0, 22), AT(maxTexture2D, 1, 23),
	AT(maxTexture2DMipmap, 0, 73), AT(maxTexture2DMipmap, 1, 74),
	AT(maxTexture2DLinear, 0, 70), AT(maxTexture2DLinear, 1, 71),
	AT(maxTexture2DLinear, 2, 72), AT(maxTexture2DGather, 0, 45),
	AT(maxTexture2DGather, 1, 46), AT(maxTexture3D, 0, 24), AT(maxTexture3D, 1, 25),
	AT(maxTexture3D, 2, 26), AT(maxTexture3DAlt, 0, 47), AT(maxTexture3DAlt, 1, 48),
	AT(maxTexture3DAlt, 2, 49), ROW(maxTextureCubemap, 52), AT(maxTexture1DLayered, 0, 42),
	AT(maxTexture1DLayered, 1, 43), AT(maxTexture2DLayered, 0, 27),
	AT(maxTexture2DLayered, 1, 28), AT(maxTexture2DLayered, 2, 29),
	AT(maxTextureCubemapLayered, 0, 53), AT(maxTextureCubemapLayered, 1, 54),
	ROW(maxSurface1D, 55), AT(maxSurface2D, 0, 56), AT(maxSurface2D, 1, 57),
	AT(maxSurface3D, 0, 58), AT(maxSurface3D, 1, 59), AT(maxSurface3D, 2, 60),
	AT(maxSurface1DLayered, 0, 61), AT(maxSurface1DLayered, 1, 62),
	AT(maxSurface2DLayered, 0, 63), AT(maxSurface2DLayered, 1, 64),
	AT(maxSurface2DLayered, 2, 65), ROW(maxSurfaceCubemap, 66),
	AT(maxSurfaceCubemapLayered, 0, 67), AT(maxSurfaceCubemapLayered, 1, 68),
	ROW(surfaceAlignment, 30), ROW(concurrentKernels, 31), ROW(ECCEnabled, 32),
	ROW(pciBusID, 33), ROW(pciDeviceID, 34), ROW(pciDomainID, 50), ROW(tccDriver, 35),
	ROW(asyncEngineCount, 40), ROW(unifiedAddressing, 41), ROW(memoryBusWidth, 37),
	ROW(l2CacheSize, 38), ROW(persistingL2CacheMaxSize, 108),
	ROW(maxThreadsPerMultiProcessor, 39), ROW(streamPrioritiesSupported, 78),
	ROW(globalL1CacheSupported, 79), ROW(localL1CacheSupported, 80),
	ROW(sharedMemPerMultiprocessor, 81), ROW(regsPerMultiprocessor, 82),
	ROW(managedMemory, 83), ROW(isMultiGpuBoard, 84), ROW(multiGpuBoardGroupID, 85),
	ROW(hostNativeAtomicSupported, 86), ROW(pageableMemoryAccess, 88),
	ROW(concurrentManagedAccess, 89), ROW(computePreemptionSupported, 90),
	ROW(canUseHostPointerForRegisteredMem, 91), ROW(cooperativeLaunch, 95),
	ROW(sharedMemPerBlockOptin, 97), ROW(pageableMemoryAccessUsesHostPageTables, 100),
	ROW(directManagedMemAccessFromHost, 101), ROW(maxBlocksPerMultiProcessor, 106),
	ROW(accessPolicyMaxWindowSize, 109), ROW(reservedSharedMemPerBlock, 111),
	ROW(hostRegisterSupported, 99), ROW(sparseCudaArraySupported, 112),
	ROW(hostRegisterReadOnlySupported, 113), ROW(timelineSemaphoreInteropSupported, 114),
	ROW(memoryPoolsSupported, 115), ROW(gpuDirectRDMASupported, 116),
	ROW(gpuDirectRDMAFlushWritesOptions, 117), ROW(gpuDirectRDMAWritesOrdering, 118),
	ROW(memoryPoolSupportedHandleTypes, 119), ROW(deferredMappingCudaArraySupported, 121),
	ROW(ipcEventSupported, 125), ROW(clusterLaunch, 120), ROW(unifiedFunctionPointers, 129),
#if RT_MAJOR == 12
	ROW(clockRate, 13), ROW(deviceOverlap, 15), ROW(kernelExecTimeoutEnabled, 17),
	ROW(computeMode, 20), ROW(maxTexture1DLinear, 69), ROW(memoryClockRate, 36),
	ROW(singleToDoublePrecisionPerfRatio, 87), ROW(cooperativeMultiDeviceLaunch, 96),
#else
	ROW(deviceNumaConfig, 130), ROW(deviceNumaId, 131), ROW(mpsEnabled, 133),
	ROW(hostNumaId, 134), ROW(gpuPciDeviceID, 139), ROW(gpuPciSubsystemID, 140),
	ROW(hostNumaMultinodeIpcSupported, 143),
#endif
};

static cudaError_t fill(prop_t *prop, int device)
{
	CUresult result;

	memset(prop, 0, sizeof(*prop));
	result = rt_driver.cuDeviceGetName(prop->name, sizeof(prop->name), device);
	if (result == CUDA_SUCCESS)
		result = rt_driver.cuDeviceTotalMem_v2(&prop->totalGlobalMem, device);
	if (result == CUDA_SUCCESS)
		result = rt_driver.cuDeviceGetUuid_v2(&prop->uuid, device);
	if (result != CUDA_SUCCESS)
		return result;
	/* Only Windows has these. */
	rt_driver.cuDeviceGetLuid(prop->luid, &prop->luidDeviceNodeMask, device);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		char *field = (char *)prop + rows[i].offset;
		int value = 0;

		/* What the driver does not know of stays 0. */
		if (rt_driver.cuDeviceGetAttribute(&value, rows[i].attribute, device) !=
		    CUDA_SUCCESS)
			continue;
		if (rows[i].bytes == sizeof(size_t))
			*(size_t *)(void *)field = (size_t)value;
		else
			*(int *)(void *)field = value;
	}
	return 0;
}

static cudaError_t properties(prop_t *prop, int device)
{
	return prop ? fill(prop, device) : CUDA_ERROR_INVALID_VALUE;
}

#if RT_MAJOR == 12
RT_API(cudaGetDeviceProperties_v2, struct cudaDeviceProp *prop, int device)
{
	RT_READY(cudaGetDeviceProperties_v2);
	return rt_end(properties(prop, device));
}

/* Who asks under this name has the structure of 11, which ended here. */
RT_API(cudaGetDeviceProperties, struct cudaDeviceProp *prop, int device)
{
	prop_t whole;
	cudaError_t result;

	RT_READY(cudaGetDeviceProperties);
	if (!prop)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = fill(&whole, device);
	if (result == 0)
		memcpy(prop, &whole, offsetof(prop_t, hostRegisterSupported));
	return rt_end(result);
}
#else
RT_API(cudaGetDeviceProperties, struct cudaDeviceProp *prop, int device)
{
	RT_READY(cudaGetDeviceProperties);
	return rt_end(properties(prop, device));
}
#endif

/* The device that has what is asked for, by the few fields that programs ask by. */
RT_API(cudaChooseDevice, int *device, const struct cudaDeviceProp *wanted)
{
	int count, best = 0, best_score = -1;

	RT_READY(cudaChooseDevice);
	if (!device || !wanted)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	rt_driver.cuDeviceGetCount(&count);
	for (int i = 0; i < count; i++) {
		prop_t prop;
		int score;

		if (fill(&prop, i) != 0)
			continue;
		score = (prop.major * 10 + prop.minor >= wanted->major * 10 + wanted->minor) * 2 +
			(prop.totalGlobalMem >= wanted->totalGlobalMem);
		if (score > best_score) {
			best = i;
			best_score = score;
		}
	}
	*device = best;
	return 0;
}
