/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies in two and three dimensions, arrays included, in the driver's words.
 *
 * The runtime counts the x of an array in elements in cudaMemcpy3D, and in bytes in the
 * two-dimensional calls; widths likewise.  The driver counts bytes always.
 */
#include <string.h>

#include "cudart.h"

cudaError_t rt_copy_kinds(int kind, CUmemorytype *to, CUmemorytype *from)
{
	static const struct {
		CUmemorytype to, from;
	} kinds[] = {
		[cudaMemcpyHostToHost] = { CU_MEMORYTYPE_HOST, CU_MEMORYTYPE_HOST },
		[cudaMemcpyHostToDevice] = { CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST },
		[cudaMemcpyDeviceToHost] = { CU_MEMORYTYPE_HOST, CU_MEMORYTYPE_DEVICE },
		[cudaMemcpyDeviceToDevice] = { CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_DEVICE },
		[cudaMemcpyDefault] = { CU_MEMORYTYPE_UNIFIED, CU_MEMORYTYPE_UNIFIED },
	};

	if (kind < 0 || kind > cudaMemcpyDefault)
		return RT_ERROR_INVALID_DIRECTION;
	*to = kinds[kind].to;
	*from = kinds[kind].from;
	return 0;
}

/* ---- two dimensions ---- */

static void from_pointer(CUDA_MEMCPY2D *copy, const void *from, size_t pitch, CUmemorytype type)
{
	copy->srcMemoryType = type;
	copy->srcPitch = pitch;
	copy->srcHost = from;
	copy->srcDevice = rt_address(from);
}

static void to_pointer(CUDA_MEMCPY2D *copy, void *to, size_t pitch, CUmemorytype type)
{
	copy->dstMemoryType = type;
	copy->dstPitch = pitch;
	copy->dstHost = to;
	copy->dstDevice = rt_address(to);
}

static void from_array(CUDA_MEMCPY2D *copy, cudaArray_const_t array, size_t x, size_t y)
{
	copy->srcMemoryType = CU_MEMORYTYPE_ARRAY;
	copy->srcArray = rt_array(array);
	copy->srcXInBytes = x;
	copy->srcY = y;
}

static void to_array(CUDA_MEMCPY2D *copy, cudaArray_const_t array, size_t x, size_t y)
{
	copy->dstMemoryType = CU_MEMORYTYPE_ARRAY;
	copy->dstArray = rt_array(array);
	copy->dstXInBytes = x;
	copy->dstY = y;
}

static cudaError_t submit_2d(const CUDA_MEMCPY2D *copy, bool async, CUstream stream)
{
	cudaError_t result;

	if (!copy->WidthInBytes || !copy->Height)
		return 0;
	if (!async && stream == CU_STREAM_LEGACY)
		return rt_driver.cuMemcpy2DUnaligned_v2(copy);
	result = rt_driver.cuMemcpy2DAsync_v2(copy, stream);
	return result == 0 && !async ? (cudaError_t)rt_driver.cuStreamSynchronize(stream) : result;
}

static cudaError_t copy_2d(void *to, size_t to_pitch, const void *from, size_t from_pitch,
			   size_t width, size_t height, int kind, bool async, CUstream stream)
{
	CUDA_MEMCPY2D copy = { .WidthInBytes = width, .Height = height };
	CUmemorytype to_type, from_type;
	cudaError_t result = rt_copy_kinds(kind, &to_type, &from_type);

	if (result != 0)
		return result;
	if (width > to_pitch || width > from_pitch)
		return RT_ERROR_INVALID_PITCH;
	from_pointer(&copy, from, from_pitch, from_type);
	to_pointer(&copy, to, to_pitch, to_type);
	return submit_2d(&copy, async, stream);
}

/* Between an array and rows that lie `pitch` apart. */
static cudaError_t check_2d(const CUDA_MEMCPY2D *copy, size_t pitch, int kind, CUmemorytype *to,
			    CUmemorytype *from)
{
	cudaError_t result = rt_copy_kinds(kind, to, from);

	if (result == 0 && copy->WidthInBytes > pitch && copy->Height > 1)
		result = RT_ERROR_INVALID_PITCH;
	return result;
}

static cudaError_t copy_2d_to_array(cudaArray_t to, size_t x, size_t y, const void *from,
				    size_t pitch, size_t width, size_t height, int kind,
				    bool async, CUstream stream)
{
	CUDA_MEMCPY2D copy = { .WidthInBytes = width, .Height = height };
	CUmemorytype to_type, from_type;
	cudaError_t result = check_2d(&copy, pitch, kind, &to_type, &from_type);

	if (result != 0)
		return result;
	from_pointer(&copy, from, pitch, from_type);
	to_array(&copy, to, x, y);
	return submit_2d(&copy, async, stream);
}

static cudaError_t copy_2d_from_array(void *to, size_t pitch, cudaArray_const_t from, size_t x,
				      size_t y, size_t width, size_t height, int kind, bool async,
				      CUstream stream)
{
	CUDA_MEMCPY2D copy = { .WidthInBytes = width, .Height = height };
	CUmemorytype to_type, from_type;
	cudaError_t result = check_2d(&copy, pitch, kind, &to_type, &from_type);

	if (result != 0)
		return result;
	from_array(&copy, from, x, y);
	to_pointer(&copy, to, pitch, to_type);
	return submit_2d(&copy, async, stream);
}

static cudaError_t copy_2d_arrays(cudaArray_t to, size_t to_x, size_t to_y, cudaArray_const_t from,
				  size_t from_x, size_t from_y, size_t width, size_t height,
				  CUstream stream)
{
	CUDA_MEMCPY2D copy = { .WidthInBytes = width, .Height = height };

	from_array(&copy, from, from_x, from_y);
	to_array(&copy, to, to_x, to_y);
	return submit_2d(&copy, false, stream);
}

RT_BOTH(cudaMemcpy2D, _ptds,
	(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
	 size_t height, int kind),
	return rt_end(copy_2d(to, to_pitch, from, from_pitch, width, height, kind, false,
			      RT_DEFAULT));)
RT_BOTH(cudaMemcpy2DAsync, _ptsz,
	(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
	 size_t height, int kind, cudaStream_t stream),
	return rt_end(copy_2d(to, to_pitch, from, from_pitch, width, height, kind, true,
			      RT_STREAM(stream)));)
RT_BOTH(cudaMemcpy2DToArray, _ptds,
	(cudaArray_t to, size_t x, size_t y, const void *from, size_t pitch, size_t width,
	 size_t height, int kind),
	return rt_end(copy_2d_to_array(to, x, y, from, pitch, width, height, kind, false,
				       RT_DEFAULT));)
RT_BOTH(cudaMemcpy2DToArrayAsync, _ptsz,
	(cudaArray_t to, size_t x, size_t y, const void *from, size_t pitch, size_t width,
	 size_t height, int kind, cudaStream_t stream),
	return rt_end(copy_2d_to_array(to, x, y, from, pitch, width, height, kind, true,
				       RT_STREAM(stream)));)
RT_BOTH(cudaMemcpy2DFromArray, _ptds,
	(void *to, size_t pitch, cudaArray_const_t from, size_t x, size_t y, size_t width,
	 size_t height, int kind),
	return rt_end(copy_2d_from_array(to, pitch, from, x, y, width, height, kind, false,
					 RT_DEFAULT));)
RT_BOTH(cudaMemcpy2DFromArrayAsync, _ptsz,
	(void *to, size_t pitch, cudaArray_const_t from, size_t x, size_t y, size_t width,
	 size_t height, int kind, cudaStream_t stream),
	return rt_end(copy_2d_from_array(to, pitch, from, x, y, width, height, kind, true,
					 RT_STREAM(stream)));)
RT_BOTH(cudaMemcpy2DArrayToArray, _ptds,
	(cudaArray_t to, size_t to_x, size_t to_y, cudaArray_const_t from, size_t from_x,
	 size_t from_y, size_t width, size_t height, int kind),
	(void)kind;
	return rt_end(copy_2d_arrays(to, to_x, to_y, from, from_x, from_y, width, height,
				     RT_DEFAULT));)

/* ---- a run of bytes of an array, row after row ---- */

static cudaError_t copy_run(cudaArray_const_t array, size_t x, size_t y, char *pointer,
			    size_t bytes, int kind, bool into, bool async, CUstream stream)
{
	size_t element = rt_element_bytes(array), row;
	CUDA_ARRAY3D_DESCRIPTOR format;
	cudaError_t result = 0;

	if (!element)
		return CUDA_ERROR_INVALID_HANDLE;
	result = rt_driver.cuArray3DGetDescriptor_v2(&format, rt_array(array));
	row = format.Width * element;
	if (result == 0 && (x >= row || !row))
		return bytes ? CUDA_ERROR_INVALID_VALUE : 0;
	while (bytes && result == 0) {
		size_t piece = bytes < row - x ? bytes : row - x;
		size_t rows = x ? 1 : bytes / row ? bytes / row : 1;

		if (into)
			result = copy_2d_to_array((cudaArray_t)(uintptr_t)array, x, y, pointer,
						  piece, piece, rows, kind, async, stream);
		else
			result = copy_2d_from_array(pointer, piece, array, x, y, piece, rows, kind,
						    async, stream);
		pointer += piece * rows;
		bytes -= piece * rows;
		y += rows;
		x = 0;
	}
	return result;
}

RT_BOTH(cudaMemcpyToArray, _ptds,
	(cudaArray_t to, size_t x, size_t y, const void *from, size_t bytes, int kind),
	return rt_end(copy_run(to, x, y, (char *)(uintptr_t)from, bytes, kind, true, false,
			       RT_DEFAULT));)
RT_BOTH(cudaMemcpyToArrayAsync, _ptsz,
	(cudaArray_t to, size_t x, size_t y, const void *from, size_t bytes, int kind,
	 cudaStream_t stream),
	return rt_end(copy_run(to, x, y, (char *)(uintptr_t)from, bytes, kind, true, true,
			       RT_STREAM(stream)));)
RT_BOTH(cudaMemcpyFromArray, _ptds,
	(void *to, cudaArray_const_t from, size_t x, size_t y, size_t bytes, int kind),
	return rt_end(copy_run(from, x, y, to, bytes, kind, false, false, RT_DEFAULT));)
RT_BOTH(cudaMemcpyFromArrayAsync, _ptsz,
	(void *to, cudaArray_const_t from, size_t x, size_t y, size_t bytes, int kind,
	 cudaStream_t stream),
	return rt_end(copy_run(from, x, y, to, bytes, kind, false, true, RT_STREAM(stream)));)

/* ---- three dimensions ---- */

/* Bytes of what x and width count: of an element, where an array takes part. */
static size_t unit_bytes(cudaArray_const_t to, cudaArray_const_t from)
{
	return from ? rt_element_bytes(from) : to ? rt_element_bytes(to) : 1;
}

cudaError_t rt_copy_3d(const struct cudaMemcpy3DParms *p, CUDA_MEMCPY3D *copy)
{
	CUmemorytype to_type, from_type;
	size_t unit;
	cudaError_t result;

	if (!p || (!p->srcArray && !p->srcPtr.ptr) || (!p->dstArray && !p->dstPtr.ptr) ||
	    (p->srcArray && p->srcPtr.ptr) || (p->dstArray && p->dstPtr.ptr))
		return CUDA_ERROR_INVALID_VALUE;
	result = rt_copy_kinds(p->kind, &to_type, &from_type);
	if (result != 0)
		return result;
	unit = unit_bytes(p->dstArray, p->srcArray);
	if (!unit)
		return CUDA_ERROR_INVALID_HANDLE;
	*copy = (CUDA_MEMCPY3D){
		.srcMemoryType = p->srcArray ? CU_MEMORYTYPE_ARRAY : from_type,
		.srcArray = rt_array(p->srcArray),
		.srcHost = p->srcPtr.ptr,
		.srcDevice = rt_address(p->srcPtr.ptr),
		.srcPitch = p->srcPtr.pitch,
		.srcHeight = p->srcPtr.ysize,
		.srcXInBytes = p->srcPos.x * (p->srcArray ? unit : 1),
		.srcY = p->srcPos.y,
		.srcZ = p->srcPos.z,
		.dstMemoryType = p->dstArray ? CU_MEMORYTYPE_ARRAY : to_type,
		.dstArray = rt_array(p->dstArray),
		.dstHost = p->dstPtr.ptr,
		.dstDevice = rt_address(p->dstPtr.ptr),
		.dstPitch = p->dstPtr.pitch,
		.dstHeight = p->dstPtr.ysize,
		.dstXInBytes = p->dstPos.x * (p->dstArray ? unit : 1),
		.dstY = p->dstPos.y,
		.dstZ = p->dstPos.z,
		.WidthInBytes = p->extent.width * unit,
		.Height = p->extent.height,
		.Depth = p->extent.depth,
	};
	if ((!p->srcArray && copy->WidthInBytes > copy->srcPitch) ||
	    (!p->dstArray && copy->WidthInBytes > copy->dstPitch))
		return RT_ERROR_INVALID_PITCH;
	return 0;
}

static cudaError_t copy_3d(const struct cudaMemcpy3DParms *p, bool async, CUstream stream)
{
	CUDA_MEMCPY3D copy;
	cudaError_t result = rt_copy_3d(p, &copy);

	if (result != 0 || !copy.WidthInBytes || !copy.Height || !copy.Depth)
		return result;
	if (!async && stream == CU_STREAM_LEGACY)
		return rt_driver.cuMemcpy3D_v2(&copy);
	result = rt_driver.cuMemcpy3DAsync_v2(&copy, stream);
	return result == 0 && !async ? (cudaError_t)rt_driver.cuStreamSynchronize(stream) : result;
}

RT_BOTH(cudaMemcpy3D, _ptds, (const struct cudaMemcpy3DParms *p),
	return rt_end(copy_3d(p, false, RT_DEFAULT));)
RT_BOTH(cudaMemcpy3DAsync, _ptsz, (const struct cudaMemcpy3DParms *p, cudaStream_t stream),
	return rt_end(copy_3d(p, true, RT_STREAM(stream)));)

static cudaError_t copy_3d_peer(const struct cudaMemcpy3DPeerParms *p, bool async, CUstream stream)
{
	struct cudaMemcpy3DParms plain;
	CUDA_MEMCPY3D_PEER copy;
	CUDA_MEMCPY3D same;
	cudaError_t result;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	plain = (struct cudaMemcpy3DParms){ p->srcArray, p->srcPos, p->srcPtr,
					    p->dstArray, p->dstPos, p->dstPtr,
					    p->extent,   cudaMemcpyDefault };
	result = rt_copy_3d(&plain, &same);
	if (result != 0 || !same.WidthInBytes || !same.Height || !same.Depth)
		return result;
	/* The two differ only in what stands where CUDA_MEMCPY3D has something reserved. */
	_Static_assert(sizeof(copy) == sizeof(same), "the same layout");
	memcpy(&copy, &same, sizeof(copy));
	result = rt_primary(p->srcDevice, &copy.srcContext);
	if (result == 0)
		result = rt_primary(p->dstDevice, &copy.dstContext);
	if (result != 0)
		return result;
	if (!async && stream == CU_STREAM_LEGACY)
		return rt_driver.cuMemcpy3DPeer(&copy);
	result = rt_driver.cuMemcpy3DPeerAsync(&copy, stream);
	return result == 0 && !async ? (cudaError_t)rt_driver.cuStreamSynchronize(stream) : result;
}

RT_BOTH(cudaMemcpy3DPeer, _ptds, (const struct cudaMemcpy3DPeerParms *p),
	return rt_end(copy_3d_peer(p, false, RT_DEFAULT));)
RT_BOTH(cudaMemcpy3DPeerAsync, _ptsz,
	(const struct cudaMemcpy3DPeerParms *p, cudaStream_t stream),
	return rt_end(copy_3d_peer(p, true, RT_STREAM(stream)));)
