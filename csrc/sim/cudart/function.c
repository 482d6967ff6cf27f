/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is known of a kernel, what may be set on it, occupancy; libraries.
 */
#include <string.h>

#include "cudart.h"

/* ---- handles ---- */

static cudaError_t get_kernel(cudaKernel_t *kernel, const void *function)
{
	cudaError_t result;

	if (!kernel)
		return CUDA_ERROR_INVALID_VALUE;
	result = rt_kernel(function, kernel);
	return result == 0 ? rt_remember_kernel(*kernel) : result;
}

RT_API(cudaGetKernel, cudaKernel_t *kernel, const void *function)
{
	RT_NEED(cudaGetKernel);
	return rt_end(get_kernel(kernel, function));
}

RT_API(__cudaGetKernel, cudaKernel_t *kernel, const void *function)
{
	RT_NEED(__cudaGetKernel);
	return rt_end(get_kernel(kernel, function));
}

RT_API(cudaGetFuncBySymbol, cudaFunction_t *function, const void *symbol)
{
	cudaError_t result;

	RT_NEED(cudaGetFuncBySymbol);
	if (!function)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_function(symbol, function);
	return rt_end(result == 0 ? rt_remember_function(*function) : result);
}

/* ---- attributes ---- */

RT_API(cudaFuncGetAttributes, struct cudaFuncAttributes *answer, const void *function)
{
	CUfunction target;
	cudaError_t result;
	int value;
	/* CU_FUNC_ATTRIBUTE_*, by number, and the field of it. */
	const struct {
		int attribute;
		size_t *size;
		int *number;
	} rows[] = {
		{ 0, NULL, &answer->maxThreadsPerBlock },
		{ 1, &answer->sharedSizeBytes, NULL },
		{ 2, &answer->constSizeBytes, NULL },
		{ 3, &answer->localSizeBytes, NULL },
		{ 4, NULL, &answer->numRegs },
		{ 5, NULL, &answer->ptxVersion },
		{ 6, NULL, &answer->binaryVersion },
		{ 7, NULL, &answer->cacheModeCA },
		{ 8, NULL, &answer->maxDynamicSharedSizeBytes },
		{ 9, NULL, &answer->preferredShmemCarveout },
		{ 10, NULL, &answer->clusterDimMustBeSet },
		{ 11, NULL, &answer->requiredClusterWidth },
		{ 12, NULL, &answer->requiredClusterHeight },
		{ 13, NULL, &answer->requiredClusterDepth },
		{ 14, NULL, &answer->nonPortableClusterSizeAllowed },
		{ 15, NULL, &answer->clusterSchedulingPolicyPreference },
	};

	RT_NEED(cudaFuncGetAttributes);
	if (!answer)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_function(function, &target);
	if (result != 0)
		return rt_end(result);
	memset(answer, 0, sizeof(*answer));
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows) && result == 0; i++) {
		result = rt_driver.cuFuncGetAttribute(&value, rows[i].attribute, target);
		if (result == 0 && rows[i].size)
			*rows[i].size = (size_t)value;
		else if (result == 0)
			*rows[i].number = value;
	}
	return rt_end(result);
}

/* Defines a call that does something with the function behind an address. */
#define ON_FUNCTION(name, parameters, call)                 \
	RT_API(name, RT_LIST parameters)                    \
	{                                                   \
		CUfunction target;                          \
		cudaError_t result;                         \
		RT_NEED(name);                              \
		result = rt_function(function, &target);    \
		if (result == 0)                            \
			result = rt_driver.call;            \
		return rt_end(result);                      \
	}

ON_FUNCTION(cudaFuncSetAttribute, (const void *function, int attribute, int value),
	    cuFuncSetAttribute(target, attribute, value))
ON_FUNCTION(cudaFuncSetCacheConfig, (const void *function, int config),
	    cuFuncSetCacheConfig(target, config))
ON_FUNCTION(cudaFuncSetSharedMemConfig, (const void *function, int config),
	    cuFuncSetSharedMemConfig(target, config))
ON_FUNCTION(cudaFuncGetName, (const char **name, const void *function),
	    cuFuncGetName(name, target))
ON_FUNCTION(cudaFuncGetParamInfo,
	    (const void *function, size_t index, size_t *offset, size_t *bytes),
	    cuFuncGetParamInfo(target, index, offset, bytes))
ON_FUNCTION(cudaOccupancyMaxActiveBlocksPerMultiprocessor,
	    (int *blocks, const void *function, int block, size_t shared_bytes),
	    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, target, block,
								 shared_bytes, 0))
ON_FUNCTION(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags,
	    (int *blocks, const void *function, int block, size_t shared_bytes,
	     unsigned int flags),
	    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, target, block,
								 shared_bytes, flags))
ON_FUNCTION(cudaOccupancyAvailableDynamicSMemPerBlock,
	    (size_t *shared_bytes, const void *function, int blocks, int block),
	    cuOccupancyAvailableDynamicSMemPerBlock(shared_bytes, target, blocks, block))

#if RT_MAJOR >= 13
/* Of a newer driver; counted by asking for each. */
RT_API(cudaFuncGetParamCount, const void *function, size_t *count)
{
	CUfunction target;
	cudaError_t result;
	size_t offset, bytes, found = 0;

	RT_NEED(cudaFuncGetParamCount);
	if (!count)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_function(function, &target);
	if (result != 0)
		return rt_end(result);
	while (rt_driver.cuFuncGetParamInfo(target, found, &offset, &bytes) == CUDA_SUCCESS)
		found++;
	*count = found;
	return 0;
}
#endif

RT_FORWARD(cudaKernelSetAttributeForDevice, cuKernelSetAttribute,
	   (cudaKernel_t kernel, int attribute, int value, int device),
	   (attribute, value, kernel, device))

/* ---- libraries ---- */

RT_FORWARD(cudaLibraryLoadData, cuLibraryLoadData,
	   (cudaLibrary_t *library, const void *code, int *jit_options, void **jit_values,
	    unsigned int jit_count, int *options, void **values, unsigned int count),
	   (library, code, jit_options, jit_values, jit_count, options, values, count))
RT_FORWARD(cudaLibraryLoadFromFile, cuLibraryLoadFromFile,
	   (cudaLibrary_t *library, const char *path, int *jit_options, void **jit_values,
	    unsigned int jit_count, int *options, void **values, unsigned int count),
	   (library, path, jit_options, jit_values, jit_count, options, values, count))
RT_FORWARD(cudaLibraryUnload, cuLibraryUnload, (cudaLibrary_t library), (library))
RT_FORWARD(cudaLibraryGetKernelCount, cuLibraryGetKernelCount,
	   (unsigned int *count, cudaLibrary_t library), (count, library))
RT_FORWARD(cudaLibraryGetGlobal, cuLibraryGetGlobal,
	   (void **pointer, size_t *bytes, cudaLibrary_t library, const char *name),
	   ((CUdeviceptr *)pointer, bytes, library, name))
RT_FORWARD(cudaLibraryGetManaged, cuLibraryGetManaged,
	   (void **pointer, size_t *bytes, cudaLibrary_t library, const char *name),
	   ((CUdeviceptr *)pointer, bytes, library, name))
RT_FORWARD(cudaLibraryGetUnifiedFunction, cuLibraryGetUnifiedFunction,
	   (void **pointer, cudaLibrary_t library, const char *name), (pointer, library, name))

RT_API(cudaLibraryGetKernel, cudaKernel_t *kernel, cudaLibrary_t library, const char *name)
{
	cudaError_t result;

	RT_NEED(cudaLibraryGetKernel);
	if (!kernel)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_driver.cuLibraryGetKernel(kernel, library, name);
	return rt_end(result == 0 ? rt_remember_kernel(*kernel) : result);
}

RT_API(cudaLibraryEnumerateKernels, cudaKernel_t *kernels, unsigned int count,
       cudaLibrary_t library)
{
	unsigned int there = 0;
	cudaError_t result;

	RT_NEED(cudaLibraryEnumerateKernels);
	if (!kernels)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_driver.cuLibraryEnumerateKernels(kernels, count, library);
	if (result == 0)
		result = rt_driver.cuLibraryGetKernelCount(&there, library);
	for (unsigned int i = 0; i < count && i < there && result == 0; i++)
		result = rt_remember_kernel(kernels[i]);
	return rt_end(result);
}
