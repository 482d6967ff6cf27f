/* SPDX-License-Identifier: GPL-2.0-only */
/* The bytes of a CUDA array, from its descriptor. */
#ifndef EMUV_ARRAY_SIZE_H
#define EMUV_ARRAY_SIZE_H

#include "cuda_abi.h"

/*
 * Width, height and depth in elements (0: the dimension is not used), with
 * CUDA_ARRAY3D_LAYERED or _CUBEMAP the depth counts layers or faces, which do not
 * shrink with the mip level.  0: takes no memory of its own (sparse, deferred
 * mapping) or is no valid descriptor.  UINT64_MAX: overflows.
 *
 * Source: "CUDA Driver API", cuArray3DCreate and CUarray_format; block-compressed
 * formats store 4 x 4 elements in 8 (BC1, BC4) or 16 bytes.
 */
uint64_t emuv_array_bytes(uint64_t width, uint64_t height, uint64_t depth, CUarray_format format,
			  unsigned int channels, unsigned int flags, unsigned int levels);

#endif
