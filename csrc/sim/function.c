/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a function is asked and told; how many blocks of it fit the card at once.
 * Launches: launch.c.
 */
#include "image.h"
#include "internal.h"
#include "launch.h"

#define MULTIPROCESSOR_THREADS 2048
#define MULTIPROCESSOR_BLOCKS 32
#define MULTIPROCESSOR_REGISTERS 65536
#define MULTIPROCESSOR_SHARED 167936
#define RESERVED_SHARED 1024 /* a block */

/* sim_lock held.  The function of a handle, with what its code says of its attributes. */
static sim_function_t *settled(CUfunction handle, CUresult *why)
{
	sim_function_t *function = sim_function_get(handle, why);

	/* Where the code is refused, the attributes stay what they can be guessed to be. */
	if (function)
		sim_attributes_settle(function->attributes, &function->settled,
				      function->module->image, function->entry);
	return function;
}

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
	function = settled(handle, &result);
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
	function = settled(handle, &result);
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

int sim_occupancy(const sim_function_t *function, int threads, size_t dynamic_shared)
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
	function = settled(handle, &result);
	if (function)
		*blocks = sim_occupancy(function, threads, dynamic_shared);
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
	function = settled(handle, &result);
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
		int blocks = sim_occupancy(&copy, asked, shared);

		if (blocks * asked > best) {
			best = blocks * asked;
			*threads = asked;
			*grid = blocks * SIM_MULTIPROCESSORS;
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
	function = settled(handle, &result);
	if (function) {
		int room = MULTIPROCESSOR_SHARED / blocks - RESERVED_SHARED -
			   function->attributes[1];

		if (room > function->attributes[8])
			room = function->attributes[8];
		*bytes = room > 0 && sim_occupancy(function, threads, 0) >= blocks ? (size_t)room : 0;
	}
	sim_lock_drop();
	return result;
}

/* ---- clusters: of one block, on a card that has none ---- */

static CUresult clusters(int *answer, CUfunction handle, const CUlaunchConfig *config, bool size)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;
	sim_launch_t launch;

	if (!answer || !config || (config->numAttrs && !config->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	result = sim_launch_attributes(config, &launch);
	if (result != CUDA_SUCCESS)
		return result;
	sim_lock_take();
	function = settled(handle, &result);
	if (function)
		*answer = size ? 1
			       : sim_occupancy(function,
					       (int)(config->blockDimX * config->blockDimY *
						     config->blockDimZ),
					       config->sharedMemBytes) * SIM_MULTIPROCESSORS;
	sim_lock_drop();
	return result;
}

SIM_API(cuOccupancyMaxPotentialClusterSize, int *size, CUfunction handle,
	const CUlaunchConfig *config)
{
	SIM_ENTER(cuOccupancyMaxPotentialClusterSize);
	return clusters(size, handle, config, true);
}

SIM_API(cuOccupancyMaxActiveClusters, int *count, CUfunction handle, const CUlaunchConfig *config)
{
	SIM_ENTER(cuOccupancyMaxActiveClusters);
	return clusters(count, handle, config, false);
}
