/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * CUDA arrays and mipmapped arrays.
 *
 * An array is stored row after row, slice after slice, with nothing in between (a real
 * one is tiled; no program sees that).  Block-compressed formats are stored by 4 x 4
 * block: a row is a row of blocks.  The levels of a mipmap are arrays that share its
 * bytes and live as long as it does.
 *
 * Sparse and deferred-mapping arrays, and the video formats of several planes, are not
 * simulated: CUDA_ERROR_NOT_SUPPORTED.
 */
#include <stdlib.h>

#include "memory.h"
#include "work.h"

#define LEVELS 18 /* of the widest array there may be */

typedef struct {
	sim_object_t object;
	CUDA_ARRAY3D_DESCRIPTOR format;
	CUdevice device;
	size_t bytes;
	char *data;
	sim_space_t *space;
	unsigned int levels;
	sim_array_t *level[LEVELS];
} mipmap_t;

/* ---- descriptors ---- */

static bool is_compressed(CUarray_format format)
{
	return format >= CU_AD_FORMAT_BC1_UNORM && format <= CU_AD_FORMAT_BC7_UNORM_SRGB;
}

/*
 * Bytes of an element of that format and number of channels, or of a compressed block;
 * 0: the combination does not exist.
 */
static unsigned int element_size(CUarray_format format, unsigned int channels)
{
	unsigned int component = 0;
	switch (format) {
	case CU_AD_FORMAT_UNSIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT8:
		component = 1;
		break;
	case CU_AD_FORMAT_UNSIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_HALF:
		component = 2;
		break;
	case CU_AD_FORMAT_UNSIGNED_INT32:
	case CU_AD_FORMAT_SIGNED_INT32:
	case CU_AD_FORMAT_FLOAT:
		component = 4;
		break;
	case CU_AD_FORMAT_UNORM_INT8X1:
	case CU_AD_FORMAT_SNORM_INT8X1:
		return channels == 1 ? 1 : 0;
	case CU_AD_FORMAT_UNORM_INT8X2:
	case CU_AD_FORMAT_SNORM_INT8X2:
		return channels == 2 ? 2 : 0;
	case CU_AD_FORMAT_UNORM_INT8X4:
	case CU_AD_FORMAT_SNORM_INT8X4:
	case CU_AD_FORMAT_UNORM_INT_101010_2:
		return channels == 4 ? 4 : 0;
	case CU_AD_FORMAT_UNORM_INT16X1:
	case CU_AD_FORMAT_SNORM_INT16X1:
		return channels == 1 ? 2 : 0;
	case CU_AD_FORMAT_UNORM_INT16X2:
	case CU_AD_FORMAT_SNORM_INT16X2:
		return channels == 2 ? 4 : 0;
	case CU_AD_FORMAT_UNORM_INT16X4:
	case CU_AD_FORMAT_SNORM_INT16X4:
		return channels == 4 ? 8 : 0;
	case CU_AD_FORMAT_BC1_UNORM:
	case CU_AD_FORMAT_BC1_UNORM_SRGB:
		return channels == 4 ? 8 : 0;
	case CU_AD_FORMAT_BC2_UNORM:
	case CU_AD_FORMAT_BC2_UNORM_SRGB:
	case CU_AD_FORMAT_BC3_UNORM:
	case CU_AD_FORMAT_BC3_UNORM_SRGB:
	case CU_AD_FORMAT_BC7_UNORM:
	case CU_AD_FORMAT_BC7_UNORM_SRGB:
		return channels == 4 ? 16 : 0;
	case CU_AD_FORMAT_BC4_UNORM:
	case CU_AD_FORMAT_BC4_SNORM:
		return channels == 1 ? 8 : 0;
	case CU_AD_FORMAT_BC5_UNORM:
	case CU_AD_FORMAT_BC5_SNORM:
		return channels == 2 ? 16 : 0;
	case CU_AD_FORMAT_BC6H_UF16:
	case CU_AD_FORMAT_BC6H_SF16:
		return channels == 3 ? 16 : 0;
	default:
		return 0;
	}
	return channels == 1 || channels == 2 || channels == 4 ? component * channels : 0;
}

static bool is_video(CUarray_format format)
{
	return format == CU_AD_FORMAT_NV12 ||
	       (format >= CU_AD_FORMAT_P010 && format <= CU_AD_FORMAT_Y410) ||
	       (format >= CU_AD_FORMAT_Y416 && format <= CU_AD_FORMAT_YUV444_16bit_SemiPlanar);
}

static bool within(const CUDA_ARRAY3D_DESCRIPTOR *d, size_t width, size_t height, size_t depth)
{
	return d->Width <= width && d->Height <= height && d->Depth <= depth;
}

/* The extents each kind of array may have: the device attributes MAXIMUM_TEXTURE*. */
static bool extents_ok(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	const unsigned int flags = d->Flags;
	const bool layered = flags & CUDA_ARRAY3D_LAYERED;
	if (!d->Width)
		return false;
	if (flags & CUDA_ARRAY3D_CUBEMAP) {
		if (d->Width != d->Height || d->Depth % 6 || !d->Depth)
			return false;
		return layered ? within(d, 32768, 32768, 2046) : within(d, 32768, 32768, 6);
	}
	if (layered)
		return d->Depth && within(d, 32768, 32768, 2048);
	if (d->Depth)
		return d->Height && (within(d, 16384, 16384, 16384) || within(d, 8192, 8192, 32768));
	if (flags & CUDA_ARRAY3D_TEXTURE_GATHER)
		return d->Height && within(d, 32768, 32768, 0);
	return d->Height ? within(d, 131072, 65536, 0) : within(d, 131072, 0, 0);
}

static CUresult descriptor_check(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	const unsigned int known =
		CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_CUBEMAP |
		CUDA_ARRAY3D_TEXTURE_GATHER | CUDA_ARRAY3D_DEPTH_TEXTURE |
		CUDA_ARRAY3D_COLOR_ATTACHMENT | CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING;
	if (d->Flags & ~known)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "array flags 0x%x are unknown", d->Flags);
	if (d->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING) || is_video(d->Format))
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED, "arrays of format 0x%x with flags 0x%x are "
				"not simulated", d->Format, d->Flags);
	if (!element_size(d->Format, d->NumChannels))
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "there are no arrays of format 0x%x with %u "
				"channels", d->Format, d->NumChannels);
	if (!extents_ok(d))
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "array extents %zu x %zu x %zu with flags "
				"0x%x are not valid", d->Width, d->Height, d->Depth, d->Flags);
	return CUDA_SUCCESS;
}

/* Sets what follows from the descriptor: how the array is stored, and its size. */
static void lay_out(sim_array_t *array, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	size_t block = is_compressed(d->Format) ? 4 : 1;
	array->format = *d;
	array->element_bytes = element_size(d->Format, d->NumChannels);
	array->row_bytes = (d->Width + block - 1) / block * array->element_bytes;
	array->rows = d->Height ? (d->Height + block - 1) / block : 1;
	array->slices = d->Depth ? d->Depth : 1;
	array->bytes = array->row_bytes * array->rows * array->slices;
}

/* ---- bytes ---- */

static CUresult data_take(CUdevice device, size_t bytes, char **data, sim_space_t **space)
{
	if (!sim_card_take(device, bytes))
		return CUDA_ERROR_OUT_OF_MEMORY;
	*data = sim_space_take(bytes, space);
	if (*data)
		return CUDA_SUCCESS;
	sim_card_give(device, bytes);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

static sim_leftover_t data_give(CUdevice device, size_t bytes, char *data, sim_space_t *space)
{
	sim_leftover_t leftover = { space ? NULL : data, bytes };
	sim_card_give(device, bytes);
	sim_space_give(data, space);
	return leftover;
}

/* ---- arrays ---- */

static CUresult array_create(CUarray *handle, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	SIM_NEED_CONTEXT(context);
	if (!handle || !d)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = descriptor_check(d);
	if (result != CUDA_SUCCESS)
		return result;

	result = CUDA_ERROR_OUT_OF_MEMORY;
	sim_lock_take();
	sim_array_t *array = sim_object_new(SIM_ARRAY, sizeof(*array), context);
	if (array) {
		lay_out(array, d);
		array->device = context->device;
		result = data_take(array->device, array->bytes, &array->data, &array->space);
		if (result == CUDA_SUCCESS)
			*handle = (CUarray)array;
		else
			sim_object_delete(array);
	}
	sim_lock_drop();
	return result;
}

static sim_leftover_t array_delete(sim_array_t *array)
{
	sim_leftover_t leftover = { 0 };
	if (!array->level)
		leftover = data_give(array->device, array->bytes, array->data, array->space);
	sim_object_delete(array);
	return leftover;
}

static CUDA_ARRAY3D_DESCRIPTOR from_2d(size_t width, size_t height, CUarray_format format,
				       unsigned int channels)
{
	return (CUDA_ARRAY3D_DESCRIPTOR){
		.Width = width, .Height = height, .Format = format, .NumChannels = channels,
	};
}

SIM_API(cuArrayCreate_v2, CUarray *handle, const CUDA_ARRAY_DESCRIPTOR *d)
{
	SIM_ENTER(cuArrayCreate_v2);
	if (!d)
		return array_create(handle, NULL);
	CUDA_ARRAY3D_DESCRIPTOR full = from_2d(d->Width, d->Height, d->Format, d->NumChannels);
	return array_create(handle, &full);
}

SIM_API(cuArrayCreate, CUarray *handle, const CUDA_ARRAY_DESCRIPTOR_v1 *d)
{
	SIM_ENTER(cuArrayCreate);
	if (!d)
		return array_create(handle, NULL);
	CUDA_ARRAY3D_DESCRIPTOR full = from_2d(d->Width, d->Height, d->Format, d->NumChannels);
	return array_create(handle, &full);
}

SIM_API(cuArray3DCreate_v2, CUarray *handle, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	SIM_ENTER(cuArray3DCreate_v2);
	return array_create(handle, d);
}

SIM_API(cuArray3DCreate, CUarray *handle, const CUDA_ARRAY3D_DESCRIPTOR_v1 *d)
{
	SIM_ENTER(cuArray3DCreate);
	if (!d)
		return array_create(handle, NULL);
	CUDA_ARRAY3D_DESCRIPTOR full = from_2d(d->Width, d->Height, d->Format, d->NumChannels);
	full.Depth = d->Depth;
	full.Flags = d->Flags;
	return array_create(handle, &full);
}

SIM_API(cuArrayDestroy, CUarray handle)
{
	SIM_ENTER(cuArrayDestroy);
	SIM_NEED_CONTEXT(context);
	sim_lock_take();
	CUresult result = sim_context_finish(context);
	if (result != CUDA_SUCCESS) {
		sim_lock_drop();
		return result;
	}
	sim_array_t *array = sim_object_get(handle, SIM_ARRAY);
	bool may = array && !array->level;
	sim_leftover_t leftover = { 0 };
	if (may)
		leftover = array_delete(array);
	sim_lock_drop();
	sim_leftover_drop(leftover);
	return may ? CUDA_SUCCESS : sim_fail(CUDA_ERROR_INVALID_HANDLE,
					     "cuArrayDestroy: %p is no live array, or the level of "
					     "a mipmap", (void *)handle);
}

/* The array's descriptor, by value: it may be gone once the lock is dropped. */
static CUresult describe(CUarray handle, CUDA_ARRAY3D_DESCRIPTOR *d)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	sim_lock_take();
	sim_array_t *array = sim_object_get(handle, SIM_ARRAY);
	if (array)
		*d = array->format;
	sim_lock_drop();
	return array ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API(cuArrayGetDescriptor_v2, CUDA_ARRAY_DESCRIPTOR *d, CUarray array)
{
	SIM_ENTER(cuArrayGetDescriptor_v2);
	CUDA_ARRAY3D_DESCRIPTOR full = { 0 };
	if (!d)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = describe(array, &full);
	if (result == CUDA_SUCCESS)
		*d = (CUDA_ARRAY_DESCRIPTOR){ full.Width, full.Height, full.Format,
					      full.NumChannels };
	return result;
}

SIM_API(cuArrayGetDescriptor, CUDA_ARRAY_DESCRIPTOR_v1 *d, CUarray array)
{
	SIM_ENTER(cuArrayGetDescriptor);
	CUDA_ARRAY3D_DESCRIPTOR full = { 0 };
	if (!d)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = describe(array, &full);
	if (result == CUDA_SUCCESS)
		*d = (CUDA_ARRAY_DESCRIPTOR_v1){ (unsigned int)full.Width, (unsigned int)full.Height,
						 full.Format, full.NumChannels };
	return result;
}

SIM_API(cuArray3DGetDescriptor_v2, CUDA_ARRAY3D_DESCRIPTOR *d, CUarray array)
{
	SIM_ENTER(cuArray3DGetDescriptor_v2);
	return d ? describe(array, d) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuArray3DGetDescriptor, CUDA_ARRAY3D_DESCRIPTOR_v1 *d, CUarray array)
{
	SIM_ENTER(cuArray3DGetDescriptor);
	CUDA_ARRAY3D_DESCRIPTOR full = { 0 };
	if (!d)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = describe(array, &full);
	if (result == CUDA_SUCCESS)
		*d = (CUDA_ARRAY3D_DESCRIPTOR_v1){
			(unsigned int)full.Width, (unsigned int)full.Height,
			(unsigned int)full.Depth, full.Format, full.NumChannels, full.Flags,
		};
	return result;
}

/* ---- mipmaps ---- */

static size_t halved(size_t extent, unsigned int times)
{
	return extent && !(extent >> times) ? 1 : extent >> times;
}

static CUDA_ARRAY3D_DESCRIPTOR level_of(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int level)
{
	CUDA_ARRAY3D_DESCRIPTOR at = *d;
	at.Width = halved(d->Width, level);
	at.Height = halved(d->Height, level);
	if (!(d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)))
		at.Depth = halved(d->Depth, level);
	return at;
}

/* How many levels the extents allow. */
static unsigned int most_levels(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	size_t widest = d->Width > d->Height ? d->Width : d->Height;
	if (!(d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) && d->Depth > widest)
		widest = d->Depth;
	return 64 - (unsigned int)__builtin_clzll(widest);
}

static sim_leftover_t mipmap_delete(mipmap_t *mipmap)
{
	sim_leftover_t leftover = { 0 };
	for (unsigned int i = 0; i < mipmap->levels; i++)
		if (mipmap->level[i])
			sim_object_delete(mipmap->level[i]);
	if (mipmap->data)
		leftover = data_give(mipmap->device, mipmap->bytes, mipmap->data, mipmap->space);
	sim_object_delete(mipmap);
	return leftover;
}

/* Makes the levels of a mipmap that has its descriptor and number of levels, then its bytes. */
static CUresult mipmap_fill(mipmap_t *mipmap)
{
	size_t offset[LEVELS] = { 0 };
	for (unsigned int i = 0; i < mipmap->levels; i++) {
		sim_array_t *level = sim_object_new(SIM_ARRAY, sizeof(*level), mipmap->object.context);
		if (!level)
			return CUDA_ERROR_OUT_OF_MEMORY;
		CUDA_ARRAY3D_DESCRIPTOR d = level_of(&mipmap->format, i);
		lay_out(level, &d);
		level->level = true;
		level->device = mipmap->device;
		mipmap->level[i] = level;
		offset[i] = mipmap->bytes;
		mipmap->bytes += sim_round_up(level->bytes, SIM_GRANULE_BYTES);
	}
	CUresult result = data_take(mipmap->device, mipmap->bytes, &mipmap->data, &mipmap->space);
	for (unsigned int i = 0; i < mipmap->levels && result == CUDA_SUCCESS; i++)
		mipmap->level[i]->data = mipmap->data + offset[i];
	return result;
}

SIM_API(cuMipmappedArrayCreate, CUmipmappedArray *handle, const CUDA_ARRAY3D_DESCRIPTOR *d,
	unsigned int levels)
{
	SIM_ENTER(cuMipmappedArrayCreate);
	SIM_NEED_CONTEXT(context);
	if (!handle || !d || !levels)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = descriptor_check(d);
	if (result != CUDA_SUCCESS)
		return result;

	sim_leftover_t leftover = { 0 };
	result = CUDA_ERROR_OUT_OF_MEMORY;
	sim_lock_take();
	mipmap_t *mipmap = sim_object_new(SIM_MIPMAP, sizeof(*mipmap), context);
	if (mipmap) {
		mipmap->format = *d;
		mipmap->device = context->device;
		mipmap->levels = levels < most_levels(d) ? levels : most_levels(d);
		result = mipmap_fill(mipmap);
		if (result == CUDA_SUCCESS)
			*handle = (CUmipmappedArray)mipmap;
		else
			leftover = mipmap_delete(mipmap);
	}
	sim_lock_drop();
	sim_leftover_drop(leftover);
	return result;
}

SIM_API(cuMipmappedArrayGetLevel, CUarray *handle, CUmipmappedArray of, unsigned int level)
{
	SIM_ENTER(cuMipmappedArrayGetLevel);
	SIM_NEED_CONTEXT(context);
	(void)context;
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_SUCCESS;
	sim_lock_take();
	mipmap_t *mipmap = sim_object_get(of, SIM_MIPMAP);
	if (!mipmap)
		result = CUDA_ERROR_INVALID_HANDLE;
	else if (level >= mipmap->levels)
		result = CUDA_ERROR_INVALID_VALUE;
	else
		*handle = (CUarray)mipmap->level[level];
	sim_lock_drop();
	return result;
}

SIM_API(cuMipmappedArrayDestroy, CUmipmappedArray handle)
{
	SIM_ENTER(cuMipmappedArrayDestroy);
	SIM_NEED_CONTEXT(context);
	sim_lock_take();
	CUresult result = sim_context_finish(context);
	if (result != CUDA_SUCCESS) {
		sim_lock_drop();
		return result;
	}
	mipmap_t *mipmap = sim_object_get(handle, SIM_MIPMAP);
	sim_leftover_t leftover = { 0 };
	if (mipmap)
		leftover = mipmap_delete(mipmap);
	sim_lock_drop();
	sim_leftover_drop(leftover);
	return mipmap ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* ---- what no array here has: planes, tiles, deferred memory ---- */

static CUresult no_such_property(const void *handle, sim_kind_t kind, const void *out)
{
	sim_lock_take();
	bool live = sim_object_get(handle, kind);
	sim_lock_drop();
	return live || !out ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API(cuArrayGetPlane, CUarray *plane, CUarray array, unsigned int index)
{
	SIM_ENTER(cuArrayGetPlane);
	(void)index;
	return no_such_property(array, SIM_ARRAY, plane);
}

SIM_API(cuArrayGetSparseProperties, CUDA_ARRAY_SPARSE_PROPERTIES *properties, CUarray array)
{
	SIM_ENTER(cuArrayGetSparseProperties);
	return no_such_property(array, SIM_ARRAY, properties);
}

SIM_API(cuMipmappedArrayGetSparseProperties, CUDA_ARRAY_SPARSE_PROPERTIES *properties,
	CUmipmappedArray mipmap)
{
	SIM_ENTER(cuMipmappedArrayGetSparseProperties);
	return no_such_property(mipmap, SIM_MIPMAP, properties);
}

SIM_API(cuArrayGetMemoryRequirements, CUDA_ARRAY_MEMORY_REQUIREMENTS *requirements, CUarray array,
	CUdevice device)
{
	SIM_ENTER(cuArrayGetMemoryRequirements);
	(void)device;
	return no_such_property(array, SIM_ARRAY, requirements);
}

SIM_API(cuMipmappedArrayGetMemoryRequirements, CUDA_ARRAY_MEMORY_REQUIREMENTS *requirements,
	CUmipmappedArray mipmap, CUdevice device)
{
	SIM_ENTER(cuMipmappedArrayGetMemoryRequirements);
	(void)device;
	return no_such_property(mipmap, SIM_MIPMAP, requirements);
}

/* ---- the end of a context ---- */

static void drop_array(void *object, void *context)
{
	sim_array_t *array = object;
	if (array->object.context == context && !array->level)
		sim_leftover_drop(array_delete(array));
}

static void drop_mipmap(void *object, void *context)
{
	mipmap_t *mipmap = object;
	if (mipmap->object.context == context)
		sim_leftover_drop(mipmap_delete(mipmap));
}

void sim_array_drop_context(sim_context_t *context)
{
	sim_object_each(SIM_ARRAY, drop_array, context);
	sim_object_each(SIM_MIPMAP, drop_mipmap, context);
}
