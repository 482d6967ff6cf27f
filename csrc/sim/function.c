/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a function is asked and told, and launches of it, which do not happen yet.
 *
 * A launch is checked as the driver would, and then refused: the answer is
 * CUDA_ERROR_NOT_SUPPORTED and, once a kernel name, one line on stderr.  A program
 * must never take memory that no kernel wrote for a result.
 */
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "internal.h"

#define MAX_BLOCK_THREADS 1024u
#define MULTIPROCESSOR_THREADS 2048
#define MULTIPROCESSOR_BLOCKS 32
#define MULTIPROCESSOR_REGISTERS 65536
#define MULTIPROCESSOR_SHARED 167936
#define RESERVED_SHARED 1024 /* a block */
#define MULTIPROCESSORS 16

CUresult sim_parameter(const sim_entry_t *entry, size_t index, size_t *offset, size_t *bytes)
{
	if (!entry)
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED,
				"the parameters of a kernel in a fat binary are not known");
	if (index >= entry->parameter_count)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = entry->parameters[index].offset;
	if (bytes)
		*bytes = entry->parameters[index].bytes;
	return CUDA_SUCCESS;
}

SIM_API(cuFuncGetParamInfo, CUfunction handle, size_t index, size_t *offset, size_t *bytes)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	SIM_ENTER(cuFuncGetParamInfo);
	if (!offset)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function)
		result = sim_parameter(function->entry, index, offset, bytes);
	sim_lock_drop();
	return result;
}

SIM_API(cuFuncGetAttribute, int *value, int number, CUfunction handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	SIM_ENTER(cuFuncGetAttribute);
	if (!value || number < 0 || number >= 16)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function)
		*value = function->attributes[number];
	sim_lock_drop();
	return result;
}

SIM_API(cuFuncSetAttribute, CUfunction handle, int number, int value)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	SIM_ENTER(cuFuncSetAttribute);
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function)
		result = sim_attribute_set(function->attributes, number, value);
	sim_lock_drop();
	return result;
}

SIM_API(cuFuncGetModule, CUmodule *module, CUfunction handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	SIM_ENTER(cuFuncGetModule);
	if (!module)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function)
		*module = (CUmodule)function->module;
	sim_lock_drop();
	return result;
}

SIM_API(cuFuncGetName, const char **name, CUfunction handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	SIM_ENTER(cuFuncGetName);
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function)
		*name = function->name;
	sim_lock_drop();
	return result;
}

static CUresult only_check(CUfunction handle)
{
	CUresult result = CUDA_SUCCESS;

	sim_lock_take();
	sim_function_get(handle, &result);
	sim_lock_drop();
	return result;
}

SIM_API(cuFuncIsLoaded, int *state, CUfunction handle)
{
	SIM_ENTER(cuFuncIsLoaded);
	if (!state)
		return CUDA_ERROR_INVALID_VALUE;
	*state = 1;
	return only_check(handle);
}

SIM_API(cuFuncLoad, CUfunction handle)
{
	SIM_ENTER(cuFuncLoad);
	return only_check(handle);
}

SIM_API(cuFuncSetCacheConfig, CUfunction handle, int config)
{
	SIM_ENTER(cuFuncSetCacheConfig);
	return config < 0 || config > 3 ? CUDA_ERROR_INVALID_VALUE : only_check(handle);
}

SIM_API(cuFuncSetSharedMemConfig, CUfunction handle, int config)
{
	SIM_ENTER(cuFuncSetSharedMemConfig);
	return config < 0 || config > 2 ? CUDA_ERROR_INVALID_VALUE : only_check(handle);
}

/* ---- occupancy ---- */

static int blocks_for(const sim_function_t *function, int threads, size_t dynamic_shared)
{
	size_t shared = (size_t)function->attributes[1] + dynamic_shared + RESERVED_SHARED;
	int warps = (threads + 31) / 32, registers, blocks;

	if (threads > function->attributes[0] ||
	    dynamic_shared > (size_t)function->attributes[8])
		return 0;
	/* Registers are given out a warp at a time, in units of 256. */
	registers = (function->attributes[4] * 32 + 255) / 256 * 256;
	blocks = MULTIPROCESSOR_THREADS / (warps * 32);
	if (blocks > MULTIPROCESSOR_BLOCKS)
		blocks = MULTIPROCESSOR_BLOCKS;
	if (blocks > MULTIPROCESSOR_REGISTERS / registers / warps)
		blocks = MULTIPROCESSOR_REGISTERS / registers / warps;
	if ((size_t)blocks > MULTIPROCESSOR_SHARED / shared)
		blocks = (int)(MULTIPROCESSOR_SHARED / shared);
	return blocks;
}

static CUresult max_active(int *blocks, CUfunction handle, int threads, size_t dynamic_shared)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	if (!blocks || threads <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function)
		*blocks = blocks_for(function, threads, dynamic_shared);
	sim_lock_drop();
	return result;
}

SIM_API(cuOccupancyMaxActiveBlocksPerMultiprocessor, int *blocks, CUfunction handle, int threads,
	size_t dynamic_shared)
{
	SIM_ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessor);
	return max_active(blocks, handle, threads, dynamic_shared);
}

SIM_API(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, int *blocks, CUfunction handle,
	int threads, size_t dynamic_shared, unsigned int flags)
{
	SIM_ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags);
	return flags & ~1u ? CUDA_ERROR_INVALID_VALUE
			   : max_active(blocks, handle, threads, dynamic_shared);
}

typedef size_t (*shared_for_t)(int threads);

/* The largest block size of those that keep the most threads busy. */
static CUresult potential(int *grid, int *threads, CUfunction handle, shared_for_t shared_for,
			  size_t dynamic_shared, int limit)
{
	sim_function_t *function, copy;
	CUresult result = CUDA_SUCCESS;
	int best = 0;

	if (!grid || !threads)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function)
		copy = *function;
	sim_lock_drop();
	if (!function)
		return result;
	*grid = *threads = 0;
	if (limit <= 0 || limit > copy.attributes[0])
		limit = copy.attributes[0];
	/* The program's own function is called without the lock. */
	for (int size = (limit + 31) / 32 * 32; size > 0; size -= 32) {
		int asked = size > limit ? limit : size;
		size_t shared = shared_for ? shared_for(asked) : dynamic_shared;
		int blocks = blocks_for(&copy, asked, shared);

		if (blocks * asked > best) {
			best = blocks * asked;
			*threads = asked;
			*grid = blocks * MULTIPROCESSORS;
		}
	}
	return CUDA_SUCCESS;
}

SIM_API(cuOccupancyMaxPotentialBlockSize, int *grid, int *threads, CUfunction handle,
	size_t (*shared_for)(int threads), size_t dynamic_shared, int limit)
{
	SIM_ENTER(cuOccupancyMaxPotentialBlockSize);
	return potential(grid, threads, handle, shared_for, dynamic_shared, limit);
}

SIM_API(cuOccupancyMaxPotentialBlockSizeWithFlags, int *grid, int *threads, CUfunction handle,
	size_t (*shared_for)(int threads), size_t dynamic_shared, int limit, unsigned int flags)
{
	SIM_ENTER(cuOccupancyMaxPotentialBlockSizeWithFlags);
	return flags & ~1u ? CUDA_ERROR_INVALID_VALUE
			   : potential(grid, threads, handle, shared_for, dynamic_shared, limit);
}

SIM_API(cuOccupancyAvailableDynamicSMemPerBlock, size_t *bytes, CUfunction handle, int blocks,
	int threads)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	SIM_ENTER(cuOccupancyAvailableDynamicSMemPerBlock);
	if (!bytes || blocks <= 0 || threads <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (function) {
		int room = MULTIPROCESSOR_SHARED / blocks - RESERVED_SHARED -
			   function->attributes[1];

		if (room > function->attributes[8])
			room = function->attributes[8];
		*bytes = room > 0 && blocks_for(function, threads, 0) >= blocks ? (size_t)room : 0;
	}
	sim_lock_drop();
	return result;
}

/* ---- launches ---- */

typedef struct {
	unsigned int grid[3], block[3], shared;
	CUstream stream;
} shape_t;

/* sim_lock held.  True the first time a name comes. */
static bool first_time(const char *name)
{
	static struct said {
		struct said *next;
		char name[];
	} *said;
	struct said *one;

	for (one = said; one; one = one->next)
		if (strcmp(one->name, name) == 0)
			return false;
	one = malloc(sizeof(*one) + strlen(name) + 1);
	if (!one)
		return true;
	strcpy(one->name, name);
	one->next = said;
	said = one;
	return true;
}

static CUresult refuse(CUfunction handle, const shape_t *shape, bool per_thread)
{
	uint64_t threads = (uint64_t)shape->block[0] * shape->block[1] * shape->block[2];
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	if (!sim_current())
		return sim_no_context();
	sim_lock_take();
	function = sim_function_get(handle, &result);
	if (!function || !sim_stream_get(shape->stream, per_thread, &result)) {
		sim_lock_drop();
		return result;
	}
	if (!threads || shape->block[0] > 1024 || shape->block[1] > 1024 || shape->block[2] > 64 ||
	    threads > MAX_BLOCK_THREADS || !shape->grid[0] || !shape->grid[1] || !shape->grid[2] ||
	    shape->grid[0] > 0x7fffffffu || shape->grid[1] > 65535 || shape->grid[2] > 65535)
		result = sim_fail(CUDA_ERROR_INVALID_VALUE,
				  "launch of \"%s\": %u x %u x %u blocks of %u x %u x %u threads",
				  function->name, shape->grid[0], shape->grid[1], shape->grid[2],
				  shape->block[0], shape->block[1], shape->block[2]);
	else if (threads > (unsigned int)function->attributes[0])
		result = sim_fail(CUDA_ERROR_INVALID_VALUE,
				  "launch of \"%s\": %u threads a block, it takes %d",
				  function->name, (unsigned int)threads, function->attributes[0]);
	else if (shape->shared > (unsigned int)function->attributes[8])
		result = sim_fail(CUDA_ERROR_INVALID_VALUE,
				  "launch of \"%s\": %u bytes of shared memory, it may take %d",
				  function->name, shape->shared, function->attributes[8]);
	if (result == CUDA_SUCCESS) {
		result = CUDA_ERROR_NOT_SUPPORTED;
		if (first_time(function->name))
			sim_say("kernel \"%.200s\" was not run: this version of the simulated GPU "
				"has no kernels", function->name);
	}
	sim_lock_drop();
	return result;
}

#define LAUNCH(name, per_thread)                                                                  \
	SIM_API(name, CUfunction handle, unsigned int grid_x, unsigned int grid_y,                \
		unsigned int grid_z, unsigned int block_x, unsigned int block_y,                  \
		unsigned int block_z, unsigned int shared, CUstream stream, void **parameters,    \
		void **extra)                                                                     \
	{                                                                                         \
		shape_t shape = { { grid_x, grid_y, grid_z },                                     \
				  { block_x, block_y, block_z },                                  \
				  shared,                                                         \
				  stream };                                                       \
		SIM_ENTER(name);                                                                  \
		if (parameters && extra)                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                          \
		return refuse(handle, &shape, per_thread);                                        \
	}
LAUNCH(cuLaunchKernel, false)
LAUNCH(cuLaunchKernel_ptsz, true)

#define LAUNCH_COOPERATIVE(name, per_thread)                                                      \
	SIM_API(name, CUfunction handle, unsigned int grid_x, unsigned int grid_y,                \
		unsigned int grid_z, unsigned int block_x, unsigned int block_y,                  \
		unsigned int block_z, unsigned int shared, CUstream stream, void **parameters)    \
	{                                                                                         \
		shape_t shape = { { grid_x, grid_y, grid_z },                                     \
				  { block_x, block_y, block_z },                                  \
				  shared,                                                         \
				  stream };                                                       \
		SIM_ENTER(name);                                                                  \
		(void)parameters;                                                                 \
		return refuse(handle, &shape, per_thread);                                        \
	}
LAUNCH_COOPERATIVE(cuLaunchCooperativeKernel, false)
LAUNCH_COOPERATIVE(cuLaunchCooperativeKernel_ptsz, true)

static CUresult launch_config(const CUlaunchConfig *config, CUfunction handle, void **parameters,
			      void **extra, bool per_thread)
{
	shape_t shape;

	if (!config || (parameters && extra) || (config->numAttrs && !config->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	shape = (shape_t){ { config->gridDimX, config->gridDimY, config->gridDimZ },
			   { config->blockDimX, config->blockDimY, config->blockDimZ },
			   config->sharedMemBytes,
			   config->hStream };
	return refuse(handle, &shape, per_thread);
}

SIM_API(cuLaunchKernelEx, const CUlaunchConfig *config, CUfunction handle, void **parameters,
	void **extra)
{
	SIM_ENTER(cuLaunchKernelEx);
	return launch_config(config, handle, parameters, extra, false);
}

SIM_API(cuLaunchKernelEx_ptsz, const CUlaunchConfig *config, CUfunction handle, void **parameters,
	void **extra)
{
	SIM_ENTER(cuLaunchKernelEx_ptsz);
	return launch_config(config, handle, parameters, extra, true);
}

/* Launches of before CUDA 4: the shape of a block was set on the function. */
static CUresult launch_old(CUfunction handle, int width, int height, CUstream stream)
{
	shape_t shape = { { (unsigned int)width, (unsigned int)height, 1 },
			  { 1, 1, 1 },
			  0,
			  stream };

	if (width <= 0 || height <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	return refuse(handle, &shape, false);
}

SIM_API(cuLaunch, CUfunction handle)
{
	SIM_ENTER(cuLaunch);
	return launch_old(handle, 1, 1, NULL);
}

SIM_API(cuLaunchGrid, CUfunction handle, int width, int height)
{
	SIM_ENTER(cuLaunchGrid);
	return launch_old(handle, width, height, NULL);
}

SIM_API(cuLaunchGridAsync, CUfunction handle, int width, int height, CUstream stream)
{
	SIM_ENTER(cuLaunchGridAsync);
	return launch_old(handle, width, height, stream);
}
