/* SPDX-License-Identifier: GPL-2.0-only */
#include "array_size.h"

/* How a format stores its elements: `half_bytes` an element, or `block` bytes for 4 x 4. */
typedef struct {
	unsigned int half_bytes;
	unsigned int block;
} storage_t;

static storage_t storage_of(CUarray_format format, unsigned int channels)
{
	switch (format) {
	case CU_AD_FORMAT_UNSIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT8:
		return (storage_t){ 2 * channels, 0 };
	case CU_AD_FORMAT_UNSIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_HALF:
		return (storage_t){ 4 * channels, 0 };
	case CU_AD_FORMAT_UNSIGNED_INT32:
	case CU_AD_FORMAT_SIGNED_INT32:
	case CU_AD_FORMAT_FLOAT:
		return (storage_t){ 8 * channels, 0 };
	/* Formats that name their own channels. */
	case CU_AD_FORMAT_UNORM_INT8X1:
	case CU_AD_FORMAT_SNORM_INT8X1:
		return (storage_t){ 2, 0 };
	case CU_AD_FORMAT_UNORM_INT8X2:
	case CU_AD_FORMAT_SNORM_INT8X2:
	case CU_AD_FORMAT_UNORM_INT16X1:
	case CU_AD_FORMAT_SNORM_INT16X1:
		return (storage_t){ 4, 0 };
	case CU_AD_FORMAT_UNORM_INT8X4:
	case CU_AD_FORMAT_SNORM_INT8X4:
	case CU_AD_FORMAT_UNORM_INT16X2:
	case CU_AD_FORMAT_SNORM_INT16X2:
	case CU_AD_FORMAT_UNORM_INT_101010_2:
		return (storage_t){ 8, 0 };
	case CU_AD_FORMAT_UNORM_INT16X4:
	case CU_AD_FORMAT_SNORM_INT16X4:
		return (storage_t){ 16, 0 };
	/* Block-compressed. */
	case CU_AD_FORMAT_BC1_UNORM:
	case CU_AD_FORMAT_BC1_UNORM_SRGB:
	case CU_AD_FORMAT_BC4_UNORM:
	case CU_AD_FORMAT_BC4_SNORM:
		return (storage_t){ 0, 8 };
	case CU_AD_FORMAT_BC2_UNORM:
	case CU_AD_FORMAT_BC2_UNORM_SRGB:
	case CU_AD_FORMAT_BC3_UNORM:
	case CU_AD_FORMAT_BC3_UNORM_SRGB:
	case CU_AD_FORMAT_BC5_UNORM:
	case CU_AD_FORMAT_BC5_SNORM:
	case CU_AD_FORMAT_BC6H_UF16:
	case CU_AD_FORMAT_BC6H_SF16:
	case CU_AD_FORMAT_BC7_UNORM:
	case CU_AD_FORMAT_BC7_UNORM_SRGB:
		return (storage_t){ 0, 16 };
	/* YUV: bytes an element over all planes, times two. */
	case CU_AD_FORMAT_NV12:
		return (storage_t){ 3, 0 };
	case CU_AD_FORMAT_NV16:
	case CU_AD_FORMAT_YUY2:
		return (storage_t){ 4, 0 };
	case CU_AD_FORMAT_P010:
	case CU_AD_FORMAT_P016:
	case CU_AD_FORMAT_Y444_PLANAR8:
	case CU_AD_FORMAT_YUV444_8bit_SemiPlanar:
		return (storage_t){ 6, 0 };
	case CU_AD_FORMAT_P210:
	case CU_AD_FORMAT_P216:
	case CU_AD_FORMAT_Y210:
	case CU_AD_FORMAT_Y216:
	case CU_AD_FORMAT_AYUV:
	case CU_AD_FORMAT_Y410:
		return (storage_t){ 8, 0 };
	case CU_AD_FORMAT_Y444_PLANAR10:
	case CU_AD_FORMAT_YUV444_16bit_SemiPlanar:
		return (storage_t){ 12, 0 };
	case CU_AD_FORMAT_Y416:
		return (storage_t){ 16, 0 };
	}
	/* A format newer than this list: the largest element there is, so that it is
	 * never charged too little. */
	return (storage_t){ 32, 0 };
}

static uint64_t at_least_one(uint64_t n)
{
	return n ? n : 1;
}

static uint64_t product(uint64_t a, uint64_t b)
{
	uint64_t c;

	return __builtin_mul_overflow(a, b, &c) ? UINT64_MAX : c;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
	uint64_t c;

	return __builtin_add_overflow(a, b, &c) ? UINT64_MAX : c;
}

static uint64_t layer_bytes(storage_t storage, uint64_t width, uint64_t height)
{
	uint64_t halves;

	if (storage.block)
		return product(product(width / 4 + !!(width % 4), height / 4 + !!(height % 4)),
			       storage.block);
	halves = product(product(width, height), storage.half_bytes);
	return halves == UINT64_MAX ? halves : halves / 2 + halves % 2;
}

uint64_t emuv_array_bytes(uint64_t width, uint64_t height, uint64_t depth, CUarray_format format,
			  unsigned int channels, unsigned int flags, unsigned int levels)
{
	int layers = (flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
	storage_t storage = storage_of(format, channels);
	uint64_t total = 0;

	if (!width || (flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)))
		return 0;
	height = at_least_one(height);
	depth = at_least_one(depth);
	/* A shift by 64 or more has no meaning; no mip chain is that long. */
	for (unsigned int level = 0; level < levels && level < 64; level++) {
		uint64_t layer = layer_bytes(storage, at_least_one(width >> level),
					     at_least_one(height >> level));

		total = sum(total, product(layer, layers ? depth : at_least_one(depth >> level)));
	}
	return total;
}
