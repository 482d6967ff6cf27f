/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Launches: <<<...>>> (a configuration pushed and popped around the stub that nvcc
 * writes) and the calls that name a function.
 */
#include <stdlib.h>

#include "cudart.h"

/* ---- <<<grid, block, shared, stream>>> ---- */

typedef struct {
	dim3 grid, block;
	size_t shared_bytes;
	CUstream stream;
} configuration_t;

/* Arguments of a launch may themselves launch: a few deep, hardly ever more than one. */
#define NESTED 16
static _Thread_local struct {
	configuration_t stack[NESTED];
	unsigned int depth;
} t_pushed;

RT_EXPORT unsigned int __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
						   CUstream stream);
RT_EXPORT unsigned int __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
						   CUstream stream)
{
	RT_COUNT(__cudaPushCallConfiguration);
	if (t_pushed.depth == NESTED)
		return (unsigned int)rt_end(CUDA_ERROR_OUT_OF_MEMORY);
	t_pushed.stack[t_pushed.depth++] = (configuration_t){ grid, block, shared_bytes, stream };
	return 0;
}

RT_API(__cudaPopCallConfiguration, dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream)
{
	const configuration_t *top;

	RT_COUNT(__cudaPopCallConfiguration);
	if (!t_pushed.depth)
		return rt_end(RT_ERROR_MISSING_CONFIGURATION);
	top = &t_pushed.stack[--t_pushed.depth];
	*grid = top->grid;
	*block = top->block;
	*shared_bytes = top->shared_bytes;
	*(CUstream *)stream = top->stream;
	return 0;
}

/* ---- launches ---- */

/* What no device can run, whatever the kernel: the runtime has a code of its own for it. */
static bool impossible(dim3 grid, dim3 block, size_t shared_bytes)
{
	return !grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z ||
	       shared_bytes > 0xffffffffu ||
	       (unsigned long long)block.x * block.y * block.z > 1024;
}

/* The driver takes a kernel where it takes a function. */
static cudaError_t callable(const void *function, CUfunction *answer)
{
	CUkernel kernel;
	cudaError_t result = rt_kernel(function, &kernel);

	if (result == RT_ERROR_INVALID_FUNCTION)
		return rt_function(function, answer);
	*answer = (CUfunction)kernel;
	return result;
}

static cudaError_t launch(const void *function, dim3 grid, dim3 block, void **arguments,
			  size_t shared_bytes, CUstream stream, bool cooperative)
{
	CUfunction target;
	cudaError_t result = callable(function, &target);

	if (result != 0)
		return result;
	if (impossible(grid, block, shared_bytes))
		return RT_ERROR_INVALID_CONFIGURATION;
	if (cooperative)
		return rt_driver.cuLaunchCooperativeKernel(target, grid.x, grid.y, grid.z, block.x,
							   block.y, block.z,
							   (unsigned int)shared_bytes, stream,
							   arguments);
	return rt_driver.cuLaunchKernel(target, grid.x, grid.y, grid.z, block.x, block.y, block.z,
					(unsigned int)shared_bytes, stream, arguments, NULL);
}

RT_BOTH(cudaLaunchKernel, _ptsz,
	(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
	 cudaStream_t stream),
	return rt_end(launch(function, grid, block, arguments, shared_bytes, RT_STREAM(stream),
			     false));)
RT_BOTH(cudaLaunchCooperativeKernel, _ptsz,
	(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
	 cudaStream_t stream),
	return rt_end(launch(function, grid, block, arguments, shared_bytes, RT_STREAM(stream),
			     true));)

/* The stub asks for the kernel's handle once, and launches by the handle. */
RT_BOTH(__cudaLaunchKernel, _ptsz,
	(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
	 cudaStream_t stream),
	return rt_end(launch(kernel, grid, block, arguments, shared_bytes, RT_STREAM(stream),
			     false));)

static cudaError_t configuration(const cudaLaunchConfig_t *config, CUlaunchConfig *answer,
				 bool per_thread)
{
	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	if (impossible(config->gridDim, config->blockDim, config->dynamicSmemBytes))
		return RT_ERROR_INVALID_CONFIGURATION;
	*answer = (CUlaunchConfig){
		.gridDimX = config->gridDim.x,
		.gridDimY = config->gridDim.y,
		.gridDimZ = config->gridDim.z,
		.blockDimX = config->blockDim.x,
		.blockDimY = config->blockDim.y,
		.blockDimZ = config->blockDim.z,
		.sharedMemBytes = (unsigned int)config->dynamicSmemBytes,
		.hStream = RT_STREAM(config->stream),
		.attrs = (CUlaunchAttribute *)config->attrs,
		.numAttrs = config->numAttrs,
	};
	return 0;
}

static cudaError_t launch_ex(const cudaLaunchConfig_t *config, const void *function,
			     void **arguments, bool per_thread)
{
	CUlaunchConfig driver_config;
	CUfunction target;
	cudaError_t result = callable(function, &target);

	if (result == 0)
		result = configuration(config, &driver_config, per_thread);
	return result == 0 ? (cudaError_t)rt_driver.cuLaunchKernelEx(&driver_config, target,
								     arguments, NULL)
			   : result;
}

RT_BOTH(cudaLaunchKernelExC, _ptsz,
	(const cudaLaunchConfig_t *config, const void *function, void **arguments),
	return rt_end(launch_ex(config, function, arguments, per_thread));)

RT_API(cudaOccupancyMaxPotentialClusterSize, int *size, const void *function,
       const cudaLaunchConfig_t *config)
{
	CUlaunchConfig driver_config;
	CUfunction target;
	cudaError_t result;

	RT_NEED(cudaOccupancyMaxPotentialClusterSize);
	result = rt_function(function, &target);
	if (result == 0)
		result = configuration(config, &driver_config, false);
	if (result == 0)
		result = rt_driver.cuOccupancyMaxPotentialClusterSize(size, target,
								      &driver_config);
	return rt_end(result);
}

RT_API(cudaOccupancyMaxActiveClusters, int *clusters, const void *function,
       const cudaLaunchConfig_t *config)
{
	CUlaunchConfig driver_config;
	CUfunction target;
	cudaError_t result;

	RT_NEED(cudaOccupancyMaxActiveClusters);
	result = rt_function(function, &target);
	if (result == 0)
		result = configuration(config, &driver_config, false);
	if (result == 0)
		result = rt_driver.cuOccupancyMaxActiveClusters(clusters, target, &driver_config);
	return rt_end(result);
}
