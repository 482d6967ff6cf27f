// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/array_size.c
/*
 * The bytes of arrays, worked by hand.  A size that is too small would let a
 * program past its budget, so unknown formats are checked to be charged the most.
 */
#include "array_size.h"
#include "check.h"

static uint64_t flat(uint64_t width, uint64_t height, CUarray_format format, unsigned int channels)
{
	return emuv_array_bytes(width, height, 0, format, channels, 0, 1);
}

static void elements(void)
{
	static const struct {
		CUarray_format format;
		unsigned int bytes;
	} plain[] = {
		{ CU_AD_FORMAT_UNSIGNED_INT8, 1 }, { CU_AD_FORMAT_SIGNED_INT8, 1 },
		{ CU_AD_FORMAT_UNSIGNED_INT16, 2 }, { CU_AD_FORMAT_SIGNED_INT16, 2 },
		{ CU_AD_FORMAT_HALF, 2 }, { CU_AD_FORMAT_UNSIGNED_INT32, 4 },
		{ CU_AD_FORMAT_SIGNED_INT32, 4 }, { CU_AD_FORMAT_FLOAT, 4 },
	};
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
		for (unsigned int channels = 1; channels <= 4; channels *= 2)
			CHECK_EQ(flat(100, 7, plain[i].format, channels),
				 700 * plain[i].bytes * channels);
	/* These name their own channels. */
	CHECK_EQ(flat(10, 10, CU_AD_FORMAT_UNORM_INT8X1, 1), 100);
	CHECK_EQ(flat(10, 10, CU_AD_FORMAT_SNORM_INT8X2, 2), 200);
	CHECK_EQ(flat(10, 10, CU_AD_FORMAT_UNORM_INT8X4, 4), 400);
	CHECK_EQ(flat(10, 10, CU_AD_FORMAT_SNORM_INT16X4, 4), 800);
	CHECK_EQ(flat(10, 10, CU_AD_FORMAT_UNORM_INT_101010_2, 4), 400);
	/* Unknown: 16 bytes an element, the most there is. */
	CHECK_EQ(flat(10, 10, (CUarray_format)0x7777, 1), 1600);
}

/* 4 x 4 elements a block, edges rounded up. */
static void compressed(void)
{
	CHECK_EQ(flat(64, 64, CU_AD_FORMAT_BC1_UNORM, 4), 16 * 16 * 8);
	CHECK_EQ(flat(64, 64, CU_AD_FORMAT_BC7_UNORM, 4), 16 * 16 * 16);
	CHECK_EQ(flat(65, 1, CU_AD_FORMAT_BC4_SNORM, 1), 17 * 8);
	CHECK_EQ(flat(1, 1, CU_AD_FORMAT_BC6H_UF16, 3), 16);
	CHECK_EQ(emuv_array_bytes(8, 8, 3, CU_AD_FORMAT_BC1_UNORM, 4, 0, 1), 3 * 32);
}

static void planes(void)
{
	CHECK_EQ(flat(64, 48, CU_AD_FORMAT_NV12, 3), 64 * 48 * 3 / 2);
	CHECK_EQ(flat(3, 3, CU_AD_FORMAT_NV12, 3), 14); /* 13.5, up */
	CHECK_EQ(flat(64, 48, CU_AD_FORMAT_P010, 3), 64 * 48 * 3);
	CHECK_EQ(flat(64, 48, CU_AD_FORMAT_YUY2, 3), 64 * 48 * 2);
	CHECK_EQ(flat(64, 48, CU_AD_FORMAT_Y416, 3), 64 * 48 * 8);
}

static void shapes(void)
{
	const CUarray_format f = CU_AD_FORMAT_FLOAT;

	/* 1-D: height 0; 2-D: depth 0 is one layer, not nothing. */
	CHECK_EQ(emuv_array_bytes(1000, 0, 0, f, 1, 0, 1), 4000);
	CHECK_EQ(emuv_array_bytes(100, 100, 0, f, 1, 0, 1), 40000);
	CHECK_EQ(emuv_array_bytes(10, 10, 10, f, 1, 0, 1), 4000);
	CHECK_EQ(emuv_array_bytes(10, 10, 6, f, 1, CUDA_ARRAY3D_CUBEMAP, 1), 2400);
	CHECK_EQ(emuv_array_bytes(10, 0, 5, f, 1, CUDA_ARRAY3D_LAYERED, 1), 200);
	/* No memory of its own. */
	CHECK_EQ(emuv_array_bytes(0, 10, 10, f, 1, 0, 1), 0);
	CHECK_EQ(emuv_array_bytes(10, 10, 10, f, 1, CUDA_ARRAY3D_SPARSE, 1), 0);
	CHECK_EQ(emuv_array_bytes(10, 10, 10, f, 1, CUDA_ARRAY3D_DEFERRED_MAPPING, 1), 0);
}

static void mipmaps(void)
{
	const CUarray_format f = CU_AD_FORMAT_UNSIGNED_INT8;

	CHECK_EQ(emuv_array_bytes(8, 8, 0, f, 1, 0, 4), 64 + 16 + 4 + 1);
	CHECK_EQ(emuv_array_bytes(8, 8, 8, f, 1, 0, 4), 512 + 64 + 8 + 1);
	CHECK_EQ(emuv_array_bytes(8, 2, 0, f, 1, 0, 4), 16 + 4 + 2 + 1); /* never under 1 */
	/* Layers and faces do not shrink. */
	CHECK_EQ(emuv_array_bytes(8, 8, 3, f, 1, CUDA_ARRAY3D_LAYERED, 4), 3 * (64 + 16 + 4 + 1));
	CHECK_EQ(emuv_array_bytes(8, 8, 6, f, 1, CUDA_ARRAY3D_CUBEMAP, 2), 6 * (64 + 16));
	CHECK_EQ(emuv_array_bytes(8, 8, 0, f, 1, 0, 0), 0);
	/* More levels than there are halvings: the driver refuses or ignores them; finite here. */
	CHECK(emuv_array_bytes(8, 8, 0, f, 1, 0, 4000000000u) < 200);
}

/* What does not fit 64 bits is too large for any budget, never small. */
static void overflow(void)
{
	const CUarray_format f = CU_AD_FORMAT_FLOAT;
	const uint64_t huge = UINT64_C(1) << 40;

	CHECK_EQ(flat(huge, huge, f, 4), UINT64_MAX);
	CHECK_EQ(emuv_array_bytes(huge, 1 << 20, huge, f, 1, 0, 1), UINT64_MAX);
	CHECK_EQ(emuv_array_bytes(UINT64_MAX, 1, 1, f, 1, 0, 2), UINT64_MAX);
	CHECK_EQ(emuv_array_bytes(UINT64_MAX, UINT64_MAX, 1, CU_AD_FORMAT_BC1_UNORM, 1, 0, 1),
		 UINT64_MAX);
	CHECK_EQ(emuv_array_bytes(UINT64_MAX / 4, 1, 1, f, 1, 0, 1), UINT64_MAX);
}

int main(void)
{
	alarm(50);
	elements();
	compressed();
	planes();
	shapes();
	mipmaps();
	overflow();
	return 0;
}
