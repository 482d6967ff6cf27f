/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Arrays and mipmapped arrays: the driver's, with formats in the runtime's words (bits
 * a channel, and their kind).  Block-compressed and planar formats are not translated.
 */
#include "cudart.h"

/* Bits a channel of a plain format; 0: another format. */
static int channel_bits(CUarray_format format)
{
	switch (format) {
	case CU_AD_FORMAT_UNSIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT8:
		return 8;
	case CU_AD_FORMAT_UNSIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_HALF:
		return 16;
	case CU_AD_FORMAT_UNSIGNED_INT32:
	case CU_AD_FORMAT_SIGNED_INT32:
	case CU_AD_FORMAT_FLOAT:
		return 32;
	default:
		return 0;
	}
}

static int channel_kind(CUarray_format format)
{
	switch (format) {
	case CU_AD_FORMAT_SIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT32:
		return cudaChannelFormatKindSigned;
	case CU_AD_FORMAT_HALF:
	case CU_AD_FORMAT_FLOAT:
		return cudaChannelFormatKindFloat;
	default:
		return cudaChannelFormatKindUnsigned;
	}
}

/* The driver's format; false: there is none for these channels. */
static bool format_of(const struct cudaChannelFormatDesc *desc, CUDA_ARRAY3D_DESCRIPTOR *format)
{
	static const CUarray_format formats[3][3] = {
		[cudaChannelFormatKindSigned] = { CU_AD_FORMAT_SIGNED_INT8,
						  CU_AD_FORMAT_SIGNED_INT16,
						  CU_AD_FORMAT_SIGNED_INT32 },
		[cudaChannelFormatKindUnsigned] = { CU_AD_FORMAT_UNSIGNED_INT8,
						    CU_AD_FORMAT_UNSIGNED_INT16,
						    CU_AD_FORMAT_UNSIGNED_INT32 },
		[cudaChannelFormatKindFloat] = { 0, CU_AD_FORMAT_HALF, CU_AD_FORMAT_FLOAT },
	};
	const int bits[4] = { desc->x, desc->y, desc->z, desc->w };
	unsigned int channels = 0;
	int width;

	while (channels < 4 && bits[channels])
		channels++;
	for (unsigned int i = 0; i < 4; i++)
		if (i < channels ? bits[i] != bits[0] : bits[i] != 0)
			return false;
	if (channels == 0 || channels == 3 || desc->f < 0 || desc->f > cudaChannelFormatKindFloat)
		return false;
	width = bits[0] == 8 ? 0 : bits[0] == 16 ? 1 : bits[0] == 32 ? 2 : -1;
	if (width < 0 || !formats[desc->f][width])
		return false;
	format->Format = formats[desc->f][width];
	format->NumChannels = channels;
	return true;
}

size_t rt_element_bytes(cudaArray_const_t array)
{
	CUDA_ARRAY3D_DESCRIPTOR format;

	if (rt_driver.cuArray3DGetDescriptor_v2(&format, rt_array(array)) != CUDA_SUCCESS)
		return 0;
	return (size_t)channel_bits(format.Format) / 8 * format.NumChannels;
}

RT_EXPORT struct cudaChannelFormatDesc cudaCreateChannelDesc(int x, int y, int z, int w, int f);
RT_EXPORT struct cudaChannelFormatDesc cudaCreateChannelDesc(int x, int y, int z, int w, int f)
{
	RT_COUNT(cudaCreateChannelDesc);
	return (struct cudaChannelFormatDesc){ x, y, z, w, f };
}

static cudaError_t describe(CUDA_ARRAY3D_DESCRIPTOR *format, const struct cudaChannelFormatDesc *desc,
			    struct cudaExtent extent, unsigned int flags)
{
	*format = (CUDA_ARRAY3D_DESCRIPTOR){ .Width = extent.width, .Height = extent.height,
					     .Depth = extent.depth, .Flags = flags };
	if (!desc)
		return CUDA_ERROR_INVALID_VALUE;
	return format_of(desc, format) ? 0 : RT_ERROR_INVALID_CHANNEL;
}

static cudaError_t make(cudaArray_t *array, const struct cudaChannelFormatDesc *desc,
			struct cudaExtent extent, unsigned int flags)
{
	CUDA_ARRAY3D_DESCRIPTOR format;
	cudaError_t result;

	if (!array)
		return CUDA_ERROR_INVALID_VALUE;
	result = describe(&format, desc, extent, flags);
	return result == 0 ? (cudaError_t)rt_driver.cuArray3DCreate_v2((CUarray *)array, &format)
			   : result;
}

RT_API(cudaMallocArray, cudaArray_t *array, const struct cudaChannelFormatDesc *desc, size_t width,
       size_t height, unsigned int flags)
{
	RT_NEED(cudaMallocArray);
	return rt_end(make(array, desc, (struct cudaExtent){ width, height, 0 }, flags));
}

RT_API(cudaMalloc3DArray, cudaArray_t *array, const struct cudaChannelFormatDesc *desc,
       struct cudaExtent extent, unsigned int flags)
{
	RT_NEED(cudaMalloc3DArray);
	return rt_end(make(array, desc, extent, flags));
}

RT_API(cudaMallocMipmappedArray, cudaMipmappedArray_t *array,
       const struct cudaChannelFormatDesc *desc, struct cudaExtent extent, unsigned int levels,
       unsigned int flags)
{
	CUDA_ARRAY3D_DESCRIPTOR format;
	cudaError_t result;

	RT_NEED(cudaMallocMipmappedArray);
	if (!array)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = describe(&format, desc, extent, flags);
	if (result == 0)
		result = rt_driver.cuMipmappedArrayCreate((CUmipmappedArray *)array, &format,
							  levels);
	return rt_end(result);
}

RT_API(cudaFreeArray, cudaArray_t array)
{
	RT_NEED(cudaFreeArray);
	return rt_end(array ? rt_driver.cuArrayDestroy(rt_array(array)) : 0);
}

RT_API(cudaFreeMipmappedArray, cudaMipmappedArray_t array)
{
	RT_NEED(cudaFreeMipmappedArray);
	return rt_end(array ? rt_driver.cuMipmappedArrayDestroy((CUmipmappedArray)array) : 0);
}

RT_API(cudaArrayGetInfo, struct cudaChannelFormatDesc *desc, struct cudaExtent *extent,
       unsigned int *flags, cudaArray_t array)
{
	CUDA_ARRAY3D_DESCRIPTOR format;
	cudaError_t result;
	int bits;

	RT_NEED(cudaArrayGetInfo);
	result = rt_driver.cuArray3DGetDescriptor_v2(&format, rt_array(array));
	if (result != 0)
		return rt_end(result);
	bits = channel_bits(format.Format);
	if (desc && !bits)
		return rt_end(CUDA_ERROR_NOT_SUPPORTED);
	if (desc)
		*desc = (struct cudaChannelFormatDesc){ bits, format.NumChannels > 1 ? bits : 0,
							format.NumChannels > 2 ? bits : 0,
							format.NumChannels > 2 ? bits : 0,
							channel_kind(format.Format) };
	if (extent)
		*extent = (struct cudaExtent){ format.Width, format.Height, format.Depth };
	if (flags)
		*flags = format.Flags;
	return 0;
}

RT_API(cudaGetChannelDesc, struct cudaChannelFormatDesc *desc, cudaArray_const_t array)
{
	RT_COUNT(cudaGetChannelDesc);
	if (!desc)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	return cudaArrayGetInfo(desc, NULL, NULL, (cudaArray_t)(uintptr_t)array);
}

RT_FORWARD(cudaGetMipmappedArrayLevel, cuMipmappedArrayGetLevel,
	   (cudaArray_t *level, cudaMipmappedArray_const_t array, unsigned int index),
	   ((CUarray *)level, (CUmipmappedArray)(uintptr_t)array, index))
RT_FORWARD(cudaArrayGetPlane, cuArrayGetPlane,
	   (cudaArray_t *plane, cudaArray_t array, unsigned int index),
	   ((CUarray *)plane, rt_array(array), index))
RT_FORWARD(cudaArrayGetMemoryRequirements, cuArrayGetMemoryRequirements,
	   (struct cudaArrayMemoryRequirements *requirements, cudaArray_t array, int device),
	   ((CUDA_ARRAY_MEMORY_REQUIREMENTS *)requirements, rt_array(array), device))
RT_FORWARD(cudaMipmappedArrayGetMemoryRequirements, cuMipmappedArrayGetMemoryRequirements,
	   (struct cudaArrayMemoryRequirements *requirements, cudaMipmappedArray_t array, int device),
	   ((CUDA_ARRAY_MEMORY_REQUIREMENTS *)requirements, (CUmipmappedArray)array, device))
RT_FORWARD(cudaArrayGetSparseProperties, cuArrayGetSparseProperties,
	   (struct cudaArraySparseProperties *properties, cudaArray_t array),
	   ((CUDA_ARRAY_SPARSE_PROPERTIES *)properties, rt_array(array)))
RT_FORWARD(cudaMipmappedArrayGetSparseProperties, cuMipmappedArrayGetSparseProperties,
	   (struct cudaArraySparseProperties *properties, cudaMipmappedArray_t array),
	   ((CUDA_ARRAY_SPARSE_PROPERTIES *)properties, (CUmipmappedArray)array))

RT_API(cudaDeviceGetTexture1DLinearMaxWidth, size_t *width, const struct cudaChannelFormatDesc *desc,
       int device)
{
	CUDA_ARRAY3D_DESCRIPTOR format;

	RT_READY(cudaDeviceGetTexture1DLinearMaxWidth);
	if (!width || !desc)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	if (!format_of(desc, &format))
		return rt_end(RT_ERROR_INVALID_CHANNEL);
	return rt_end(rt_driver.cuDeviceGetTexture1DLinearMaxWidth(width, format.Format,
								   format.NumChannels, device));
}
