/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cudaMemset and its kin: bytes, in one, two and three dimensions.  Those without a
 * stream wait until they are done, which a real runtime need not.
 */
#include "cudart.h"

static cudaError_t wait(cudaError_t result, CUstream stream)
{
	return result == 0 ? (cudaError_t)rt_driver.cuStreamSynchronize(stream) : result;
}

static cudaError_t set_2d(void *to, size_t pitch, int value, size_t width, size_t height,
			  CUstream stream)
{
	if (!width || !height)
		return 0;
	if (pitch < width && height > 1)
		return CUDA_ERROR_INVALID_VALUE;
	return rt_driver.cuMemsetD2D8Async(rt_address(to), pitch, (unsigned char)value, width,
					   height, stream);
}

/* Slices whose rows follow each other are one piece of rows. */
static cudaError_t set_3d(struct cudaPitchedPtr to, int value, struct cudaExtent extent,
			  CUstream stream)
{
	size_t slice = to.pitch * to.ysize;
	cudaError_t result = 0;

	if (!extent.width || !extent.height || !extent.depth)
		return 0;
	if (extent.depth > 1 && extent.height > to.ysize)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t z = 0; z < extent.depth && result == 0; z++)
		result = set_2d((char *)to.ptr + z * slice, to.pitch, value, extent.width,
				extent.height, stream);
	return result;
}

RT_BOTH(cudaMemset, _ptds, (void *to, int value, size_t bytes),
	return rt_end(!bytes ? 0
		      : per_thread ? wait(rt_driver.cuMemsetD8Async(rt_address(to),
								    (unsigned char)value, bytes,
								    RT_DEFAULT), RT_DEFAULT)
				   : (cudaError_t)rt_driver.cuMemsetD8_v2(
					     rt_address(to), (unsigned char)value, bytes));)
RT_BOTH(cudaMemsetAsync, _ptsz, (void *to, int value, size_t bytes, cudaStream_t stream),
	return rt_end(bytes ? rt_driver.cuMemsetD8Async(rt_address(to), (unsigned char)value,
							bytes, RT_STREAM(stream))
			    : 0);)
RT_BOTH(cudaMemset2D, _ptds, (void *to, size_t pitch, int value, size_t width, size_t height),
	return rt_end(wait(set_2d(to, pitch, value, width, height, RT_DEFAULT), RT_DEFAULT));)
RT_BOTH(cudaMemset2DAsync, _ptsz,
	(void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream),
	return rt_end(set_2d(to, pitch, value, width, height, RT_STREAM(stream)));)
RT_BOTH(cudaMemset3D, _ptds, (struct cudaPitchedPtr to, int value, struct cudaExtent extent),
	return rt_end(wait(set_3d(to, value, extent, RT_DEFAULT), RT_DEFAULT));)
RT_BOTH(cudaMemset3DAsync, _ptsz,
	(struct cudaPitchedPtr to, int value, struct cudaExtent extent, cudaStream_t stream),
	return rt_end(set_3d(to, value, extent, RT_STREAM(stream)));)
