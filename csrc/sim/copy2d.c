/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver's copies in two and three dimensions, and of arrays in one: each turns its
 * arguments into a box (box.h).
 */
#include "box.h"

/* ---- descriptors ---- */

/*
 * The two ABIs, and CUDA_MEMCPY3D and its peer form, have the same field names.  The
 * address of a side depends on its type.
 */
#define ADDRESS(d, side, type) \
	((type) == CU_MEMORYTYPE_HOST ? (uintptr_t)(d)->side##Host : (uint64_t)(d)->side##Device)
#define SIDE_2D(d, side)                                                \
	{                                                               \
		.type = (d)->side##MemoryType,                          \
		.address = ADDRESS(d, side, (d)->side##MemoryType),     \
		.array = (d)->side##Array,                              \
		.x = (d)->side##XInBytes,                               \
		.y = (d)->side##Y,                                      \
		.pitch = (d)->side##Pitch,                              \
	}
#define SIDE_3D(d, side)                                                \
	{                                                               \
		.type = (d)->side##MemoryType,                          \
		.address = ADDRESS(d, side, (d)->side##MemoryType),     \
		.array = (d)->side##Array,                              \
		.x = (d)->side##XInBytes,                               \
		.y = (d)->side##Y,                                      \
		.z = (d)->side##Z,                                      \
		.pitch = (d)->side##Pitch,                              \
		.height = (d)->side##Height,                            \
	}
#define BOX_2D(d)                                                       \
	{                                                               \
		.from = SIDE_2D(d, src), .to = SIDE_2D(d, dst),         \
		.width = (d)->WidthInBytes, .height = (d)->Height, .depth = 1, \
	}
#define BOX_3D(d)                                                       \
	{                                                               \
		.from = SIDE_3D(d, src), .to = SIDE_3D(d, dst),         \
		.width = (d)->WidthInBytes, .height = (d)->Height, .depth = (d)->Depth, \
	}

sim_box_t sim_box_of(const CUDA_MEMCPY3D *d)
{
	return (sim_box_t)BOX_3D(d);
}

#define COPY_2D(name, descriptor, per_thread)                           \
	SIM_API(name, const descriptor *d)                              \
	{                                                               \
		SIM_ENTER(name);                                        \
		if (!d)                                                 \
			return CUDA_ERROR_INVALID_VALUE;                \
		sim_box_t box = BOX_2D(d);                              \
		return sim_box_now(&box, per_thread);                   \
	}
#define COPY_2D_ASYNC(name, descriptor, per_thread)                     \
	SIM_API(name, const descriptor *d, CUstream stream)             \
	{                                                               \
		SIM_ENTER(name);                                        \
		if (!d)                                                 \
			return CUDA_ERROR_INVALID_VALUE;                \
		sim_box_t box = BOX_2D(d);                              \
		return sim_box_async(&box, stream, per_thread);         \
	}
#define COPY_3D(name, descriptor, per_thread)                           \
	SIM_API(name, const descriptor *d)                              \
	{                                                               \
		SIM_ENTER(name);                                        \
		if (!d || d->srcLOD || d->dstLOD)                       \
			return CUDA_ERROR_INVALID_VALUE;                \
		sim_box_t box = BOX_3D(d);                              \
		return sim_box_now(&box, per_thread);                   \
	}
#define COPY_3D_ASYNC(name, descriptor, per_thread)                     \
	SIM_API(name, const descriptor *d, CUstream stream)             \
	{                                                               \
		SIM_ENTER(name);                                        \
		if (!d || d->srcLOD || d->dstLOD)                       \
			return CUDA_ERROR_INVALID_VALUE;                \
		sim_box_t box = BOX_3D(d);                              \
		return sim_box_async(&box, stream, per_thread);         \
	}

COPY_2D(cuMemcpy2D, CUDA_MEMCPY2D_v1, false)
COPY_2D(cuMemcpy2D_v2, CUDA_MEMCPY2D, false)
COPY_2D(cuMemcpy2D_v2_ptds, CUDA_MEMCPY2D, true)
COPY_2D(cuMemcpy2DUnaligned, CUDA_MEMCPY2D_v1, false)
COPY_2D(cuMemcpy2DUnaligned_v2, CUDA_MEMCPY2D, false)
COPY_2D(cuMemcpy2DUnaligned_v2_ptds, CUDA_MEMCPY2D, true)
COPY_2D_ASYNC(cuMemcpy2DAsync, CUDA_MEMCPY2D_v1, false)
COPY_2D_ASYNC(cuMemcpy2DAsync_v2, CUDA_MEMCPY2D, false)
COPY_2D_ASYNC(cuMemcpy2DAsync_v2_ptsz, CUDA_MEMCPY2D, true)

COPY_3D(cuMemcpy3D, CUDA_MEMCPY3D_v1, false)
COPY_3D(cuMemcpy3D_v2, CUDA_MEMCPY3D, false)
COPY_3D(cuMemcpy3D_v2_ptds, CUDA_MEMCPY3D, true)
COPY_3D_ASYNC(cuMemcpy3DAsync, CUDA_MEMCPY3D_v1, false)
COPY_3D_ASYNC(cuMemcpy3DAsync_v2, CUDA_MEMCPY3D, false)
COPY_3D_ASYNC(cuMemcpy3DAsync_v2_ptsz, CUDA_MEMCPY3D, true)

/* ---- between contexts ---- */

/* An end that is memory of a device names the live context it belongs to. */
static bool peers_live(const CUDA_MEMCPY3D_PEER *d)
{
	sim_lock_take();
	bool live = (d->srcMemoryType != CU_MEMORYTYPE_DEVICE ||
		     sim_object_get(d->srcContext, SIM_CONTEXT)) &&
		    (d->dstMemoryType != CU_MEMORYTYPE_DEVICE ||
		     sim_object_get(d->dstContext, SIM_CONTEXT));
	sim_lock_drop();
	return live;
}

#define COPY_3D_PEER(name, per_thread)                                  \
	SIM_API(name, const CUDA_MEMCPY3D_PEER *d)                      \
	{                                                               \
		SIM_ENTER(name);                                        \
		if (!d || d->srcLOD || d->dstLOD)                       \
			return CUDA_ERROR_INVALID_VALUE;                \
		if (!peers_live(d))                                     \
			return CUDA_ERROR_INVALID_CONTEXT;              \
		sim_box_t box = BOX_3D(d);                              \
		return sim_box_now(&box, per_thread);                   \
	}
#define COPY_3D_PEER_ASYNC(name, per_thread)                            \
	SIM_API(name, const CUDA_MEMCPY3D_PEER *d, CUstream stream)     \
	{                                                               \
		SIM_ENTER(name);                                        \
		if (!d || d->srcLOD || d->dstLOD)                       \
			return CUDA_ERROR_INVALID_VALUE;                \
		if (!peers_live(d))                                     \
			return CUDA_ERROR_INVALID_CONTEXT;              \
		sim_box_t box = BOX_3D(d);                              \
		return sim_box_async(&box, stream, per_thread);         \
	}
COPY_3D_PEER(cuMemcpy3DPeer, false)
COPY_3D_PEER(cuMemcpy3DPeer_ptds, true)
COPY_3D_PEER_ASYNC(cuMemcpy3DPeerAsync, false)
COPY_3D_PEER_ASYNC(cuMemcpy3DPeerAsync_ptsz, true)

/* ---- arrays in one dimension: a piece of the first row ---- */

static sim_side_t array_at(CUarray array, size_t offset)
{
	return (sim_side_t){ .type = CU_MEMORYTYPE_ARRAY, .array = array, .x = offset };
}

static sim_box_t row(sim_side_t to, sim_side_t from, size_t bytes)
{
	return (sim_box_t){ .from = from, .to = to, .width = bytes, .height = 1, .depth = 1 };
}

#define COPY_TO_ARRAY(name, from_t, from_at, size_type, per_thread)                     \
	SIM_API(name, CUarray array, size_type offset, from_t from, size_type bytes)    \
	{                                                                               \
		SIM_ENTER(name);                                                        \
		sim_box_t box = row(array_at(array, offset), from_at(from), bytes);     \
		return sim_box_now(&box, per_thread);                                   \
	}
#define COPY_TO_ARRAY_ASYNC(name, size_type, per_thread)                                \
	SIM_API(name, CUarray array, size_type offset, const void *from, size_type bytes, \
		CUstream stream)                                                        \
	{                                                                               \
		SIM_ENTER(name);                                                        \
		sim_box_t box = row(array_at(array, offset), sim_host_at(from), bytes);     \
		return sim_box_async(&box, stream, per_thread);                         \
	}
#define COPY_FROM_ARRAY(name, to_t, to_at, size_type, per_thread)                       \
	SIM_API(name, to_t to, CUarray array, size_type offset, size_type bytes)        \
	{                                                                               \
		SIM_ENTER(name);                                                        \
		sim_box_t box = row(to_at(to), array_at(array, offset), bytes);         \
		return sim_box_now(&box, per_thread);                                   \
	}
#define COPY_FROM_ARRAY_ASYNC(name, size_type, per_thread)                              \
	SIM_API(name, void *to, CUarray array, size_type offset, size_type bytes,       \
		CUstream stream)                                                        \
	{                                                                               \
		SIM_ENTER(name);                                                        \
		sim_box_t box = row(sim_host_at(to), array_at(array, offset), bytes);       \
		return sim_box_async(&box, stream, per_thread);                         \
	}
#define COPY_ARRAYS(name, size_type, per_thread)                                        \
	SIM_API(name, CUarray to, size_type to_offset, CUarray from, size_type from_offset, \
		size_type bytes)                                                        \
	{                                                                               \
		SIM_ENTER(name);                                                        \
		sim_box_t box = row(array_at(to, to_offset), array_at(from, from_offset), bytes); \
		return sim_box_now(&box, per_thread);                                   \
	}

typedef void *host_t;
typedef const void *host_const_t;

COPY_TO_ARRAY(cuMemcpyDtoA, CUdeviceptr_v1, sim_device_at, unsigned int, false)
COPY_TO_ARRAY(cuMemcpyDtoA_v2, CUdeviceptr, sim_device_at, size_t, false)
COPY_TO_ARRAY(cuMemcpyDtoA_v2_ptds, CUdeviceptr, sim_device_at, size_t, true)
COPY_TO_ARRAY(cuMemcpyHtoA, host_const_t, sim_host_at, unsigned int, false)
COPY_TO_ARRAY(cuMemcpyHtoA_v2, host_const_t, sim_host_at, size_t, false)
COPY_TO_ARRAY(cuMemcpyHtoA_v2_ptds, host_const_t, sim_host_at, size_t, true)
COPY_TO_ARRAY_ASYNC(cuMemcpyHtoAAsync, unsigned int, false)
COPY_TO_ARRAY_ASYNC(cuMemcpyHtoAAsync_v2, size_t, false)
COPY_TO_ARRAY_ASYNC(cuMemcpyHtoAAsync_v2_ptsz, size_t, true)

COPY_FROM_ARRAY(cuMemcpyAtoD, CUdeviceptr_v1, sim_device_at, unsigned int, false)
COPY_FROM_ARRAY(cuMemcpyAtoD_v2, CUdeviceptr, sim_device_at, size_t, false)
COPY_FROM_ARRAY(cuMemcpyAtoD_v2_ptds, CUdeviceptr, sim_device_at, size_t, true)
COPY_FROM_ARRAY(cuMemcpyAtoH, host_t, sim_host_at, unsigned int, false)
COPY_FROM_ARRAY(cuMemcpyAtoH_v2, host_t, sim_host_at, size_t, false)
COPY_FROM_ARRAY(cuMemcpyAtoH_v2_ptds, host_t, sim_host_at, size_t, true)
COPY_FROM_ARRAY_ASYNC(cuMemcpyAtoHAsync, unsigned int, false)
COPY_FROM_ARRAY_ASYNC(cuMemcpyAtoHAsync_v2, size_t, false)
COPY_FROM_ARRAY_ASYNC(cuMemcpyAtoHAsync_v2_ptsz, size_t, true)

COPY_ARRAYS(cuMemcpyAtoA, unsigned int, false)
COPY_ARRAYS(cuMemcpyAtoA_v2, size_t, false)
COPY_ARRAYS(cuMemcpyAtoA_v2_ptds, size_t, true)

/* ---- batches ---- */

/* Bytes of an element of the copy: an array's, or 1; 0 where there is no such array. */
static size_t element_bytes(const CUDA_MEMCPY3D_BATCH_OP *op)
{
	const CUmemcpy3DOperand *operand =
		op->src.type == CU_MEMCPY_OPERAND_TYPE_ARRAY ? &op->src : &op->dst;
	if (operand->type != CU_MEMCPY_OPERAND_TYPE_ARRAY)
		return 1;
	sim_lock_take();
	const sim_array_t *array = sim_object_get(operand->op.array.array, SIM_ARRAY);
	size_t bytes = array ? array->element_bytes : 0;
	sim_lock_drop();
	return bytes;
}

static sim_side_t operand_side(const CUmemcpy3DOperand *operand, size_t element)
{
	if (operand->type == CU_MEMCPY_OPERAND_TYPE_ARRAY)
		return (sim_side_t){
			.type = CU_MEMORYTYPE_ARRAY,
			.array = operand->op.array.array,
			.x = operand->op.array.offset.x * element,
			.y = operand->op.array.offset.y,
			.z = operand->op.array.offset.z,
		};
	return (sim_side_t){
		.type = operand->type == CU_MEMCPY_OPERAND_TYPE_POINTER ? CU_MEMORYTYPE_UNIFIED : 0,
		.address = operand->op.ptr.ptr,
		.pitch = operand->op.ptr.rowLength * element,
		.height = operand->op.ptr.layerHeight,
	};
}

static CUresult copy_op(const CUDA_MEMCPY3D_BATCH_OP *op, CUstream stream, bool per_thread)
{
	size_t element = element_bytes(op);
	if (!element || !op->extent.width || !op->extent.height || !op->extent.depth ||
	    op->extent.width > SIM_MAX_BYTES / element ||
	    op->srcAccessOrder < CU_MEMCPY_SRC_ACCESS_ORDER_STREAM ||
	    op->srcAccessOrder > CU_MEMCPY_SRC_ACCESS_ORDER_ANY)
		return CUDA_ERROR_INVALID_VALUE;
	sim_box_t box = {
		.from = operand_side(&op->src, element),
		.to = operand_side(&op->dst, element),
		.width = op->extent.width * element,
		.height = op->extent.height,
		.depth = op->extent.depth,
	};
	return sim_box_async(&box, stream, per_thread);
}

static CUresult copy_batch(size_t count, const CUDA_MEMCPY3D_BATCH_OP *ops, size_t *fail_index,
			   unsigned long long flags, CUstream stream, bool per_thread)
{
	if (fail_index)
		*fail_index = SIZE_MAX;
	if (!sim_current())
		return sim_no_context();
	if (!count || !ops || flags || stream == CU_STREAM_LEGACY || (!stream && !per_thread))
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_SUCCESS;
	for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) {
		result = copy_op(&ops[i], stream, per_thread);
		if (result != CUDA_SUCCESS && fail_index)
			*fail_index = i;
	}
	return result;
}

#define COPY_BATCH_V1(name, per_thread)                                                       \
	SIM_API(name, size_t count, CUDA_MEMCPY3D_BATCH_OP *ops, size_t *fail_index,          \
		unsigned long long flags, CUstream stream)                                    \
	{                                                                                     \
		SIM_ENTER(name);                                                              \
		return copy_batch(count, ops, fail_index, flags, stream, per_thread);         \
	}
#define COPY_BATCH_V2(name, per_thread)                                                       \
	SIM_API(name, size_t count, CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags,    \
		CUstream stream)                                                              \
	{                                                                                     \
		SIM_ENTER(name);                                                              \
		return copy_batch(count, ops, NULL, flags, stream, per_thread);               \
	}
COPY_BATCH_V1(cuMemcpy3DBatchAsync, false)
COPY_BATCH_V1(cuMemcpy3DBatchAsync_ptsz, true)
COPY_BATCH_V2(cuMemcpy3DBatchAsync_v2, false)
COPY_BATCH_V2(cuMemcpy3DBatchAsync_v2_ptsz, true)
