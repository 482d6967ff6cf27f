/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Launches of before CUDA 4: the block's shape, shared memory and parameters are set on
 * the function, one call each, and kept until they are set again.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "launch.h"

#define PARAMETER_BYTES 4096

struct sim_legacy {
	unsigned int block[3], shared;
	size_t bytes;
	unsigned char parameters[PARAMETER_BYTES];
};

/* sim_lock held. */
static struct sim_legacy *legacy_of(CUfunction handle, CUresult *why)
{
	sim_function_t *function = sim_function_get(handle, why);

	if (!function)
		return NULL;
	if (!function->legacy)
		function->legacy = calloc(1, sizeof(*function->legacy));
	if (!function->legacy)
		*why = CUDA_ERROR_OUT_OF_MEMORY;
	return function->legacy;
}

SIM_API(cuFuncSetBlockShape, CUfunction handle, int x, int y, int z)
{
	CUresult result = CUDA_SUCCESS;
	struct sim_legacy *legacy;

	SIM_ENTER(cuFuncSetBlockShape);
	if (x <= 0 || y <= 0 || z <= 0 || x > 1024 || y > 1024 || z > 64 || x * y * z > 1024)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	legacy = legacy_of(handle, &result);
	if (legacy) {
		legacy->block[0] = (unsigned int)x;
		legacy->block[1] = (unsigned int)y;
		legacy->block[2] = (unsigned int)z;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuFuncSetSharedSize, CUfunction handle, unsigned int bytes)
{
	CUresult result = CUDA_SUCCESS;
	struct sim_legacy *legacy;

	SIM_ENTER(cuFuncSetSharedSize);
	sim_lock_take();
	legacy = legacy_of(handle, &result);
	if (legacy)
		legacy->shared = bytes;
	sim_lock_drop();
	return result;
}

SIM_API(cuParamSetSize, CUfunction handle, unsigned int bytes)
{
	CUresult result = CUDA_SUCCESS;
	struct sim_legacy *legacy;

	SIM_ENTER(cuParamSetSize);
	if (bytes > PARAMETER_BYTES)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	legacy = legacy_of(handle, &result);
	if (legacy)
		legacy->bytes = bytes;
	sim_lock_drop();
	return result;
}

static CUresult set(CUfunction handle, int offset, const void *from, unsigned int bytes)
{
	CUresult result = CUDA_SUCCESS;
	struct sim_legacy *legacy;

	if (offset < 0 || (bytes && !from) || bytes > PARAMETER_BYTES ||
	    (unsigned int)offset > PARAMETER_BYTES - bytes)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	legacy = legacy_of(handle, &result);
	if (legacy)
		memcpy(legacy->parameters + offset, from, bytes);
	sim_lock_drop();
	return result;
}

SIM_API(cuParamSeti, CUfunction handle, int offset, unsigned int value)
{
	SIM_ENTER(cuParamSeti);
	return set(handle, offset, &value, sizeof(value));
}

SIM_API(cuParamSetf, CUfunction handle, int offset, float value)
{
	SIM_ENTER(cuParamSetf);
	return set(handle, offset, &value, sizeof(value));
}

SIM_API(cuParamSetv, CUfunction handle, int offset, void *from, unsigned int bytes)
{
	SIM_ENTER(cuParamSetv);
	return set(handle, offset, from, bytes);
}

static CUresult launch(CUfunction handle, int width, int height, CUstream stream)
{
	unsigned char parameters[PARAMETER_BYTES];
	CUresult result = CUDA_SUCCESS;
	struct sim_legacy *legacy;
	sim_launch_t asked = { 0 };
	size_t bytes = 0;
	void *extra[] = { (void *)1, parameters, (void *)2, &bytes, NULL };

	if (width <= 0 || height <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sim_current())
		return sim_no_context();
	sim_lock_take();
	legacy = legacy_of(handle, &result);
	if (legacy) {
		memcpy(asked.block, legacy->block, sizeof(asked.block));
		asked.shared = legacy->shared;
		bytes = legacy->bytes;
		memcpy(parameters, legacy->parameters, bytes);
	}
	sim_lock_drop();
	if (!legacy)
		return result;
	asked.function = handle;
	asked.grid[0] = (unsigned int)width;
	asked.grid[1] = (unsigned int)height;
	asked.grid[2] = 1;
	asked.extra = extra;
	return sim_launch(&asked, stream, false);
}

SIM_API(cuLaunch, CUfunction handle)
{
	SIM_ENTER(cuLaunch);
	return launch(handle, 1, 1, NULL);
}

SIM_API(cuLaunchGrid, CUfunction handle, int width, int height)
{
	SIM_ENTER(cuLaunchGrid);
	return launch(handle, width, height, NULL);
}

SIM_API(cuLaunchGridAsync, CUfunction handle, int width, int height, CUstream stream)
{
	SIM_ENTER(cuLaunchGridAsync);
	return launch(handle, width, height, stream);
}
