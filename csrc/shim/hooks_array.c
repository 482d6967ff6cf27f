/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Arrays and mipmapped arrays: charged by their descriptor, refused over budget
 * (an array has no managed form).  How a card pads and tiles them is its own
 * affair, and not charged.
 */
#include "array_size.h"
#include "contexts.h"
#include "hooks.h"
#include "placement.h"

/*
 * `real` is the driver's call, `handle` what it fills.  An array that takes no
 * memory of its own (sparse, deferred) or whose descriptor the driver will refuse
 * has size 0 and is let pass.
 */
#define CREATE(export, kind_of, handle, size, real)                                     \
	do {                                                                            \
		emuv_where_t where;                                                     \
		emuv_grant_t grant;                                                     \
		CUresult result;                                                        \
		uint64_t bytes = descriptor ? (size) : 0;                               \
		if (!(handle) || !bytes)                                                \
			return real;                                                    \
		if (!emuv_where_current(&where))                                        \
			return emuv_uncounted(real);                                    \
		emuv_account_call(where.device, EMUV_FN_##export);                      \
		if (!emuv_placement_reserve(&where, bytes, 0, &grant))                  \
			return CUDA_ERROR_OUT_OF_MEMORY;                                \
		result = real;                                                          \
		if (result) {                                                           \
			emuv_account_roll_back(where.device, &grant);                   \
		} else {                                                                \
			emuv_entry_t entry = {                                          \
				.kind = kind_of,                                        \
				.key = (uint64_t)(uintptr_t) * (handle),                \
				.context = (uint64_t)(uintptr_t)where.context,          \
			};                                                              \
			emuv_account_commit(where.device, &grant, &entry, false);       \
		}                                                                       \
		return result;                                                          \
	} while (0)

CUresult hook_cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor)
{
	CREATE(cuArrayCreate_v2, EMUV_KIND_ARRAY, array,
	       emuv_array_bytes(descriptor->Width, descriptor->Height, 0, descriptor->Format,
				descriptor->NumChannels, 0, 1),
	       g_real.cuArrayCreate_v2(array, descriptor));
}

CUresult hook_cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor)
{
	CREATE(cuArrayCreate, EMUV_KIND_ARRAY, array,
	       emuv_array_bytes(descriptor->Width, descriptor->Height, 0, descriptor->Format,
				descriptor->NumChannels, 0, 1),
	       g_real.cuArrayCreate(array, descriptor));
}

CUresult hook_cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
	CREATE(cuArray3DCreate_v2, EMUV_KIND_ARRAY, array,
	       emuv_array_bytes(descriptor->Width, descriptor->Height, descriptor->Depth,
				descriptor->Format, descriptor->NumChannels, descriptor->Flags, 1),
	       g_real.cuArray3DCreate_v2(array, descriptor));
}

CUresult hook_cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor)
{
	CREATE(cuArray3DCreate, EMUV_KIND_ARRAY, array,
	       emuv_array_bytes(descriptor->Width, descriptor->Height, descriptor->Depth,
				descriptor->Format, descriptor->NumChannels, descriptor->Flags, 1),
	       g_real.cuArray3DCreate(array, descriptor));
}

CUresult hook_cuMipmappedArrayCreate(CUmipmappedArray *mipmap,
				     const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
				     unsigned int levels)
{
	CREATE(cuMipmappedArrayCreate, EMUV_KIND_MIPMAP, mipmap,
	       emuv_array_bytes(descriptor->Width, descriptor->Height, descriptor->Depth,
				descriptor->Format, descriptor->NumChannels, descriptor->Flags,
				levels ? levels : 1),
	       g_real.cuMipmappedArrayCreate(mipmap, descriptor, levels));
}

#define DESTROY(export, kind_of, type)                                                  \
	CUresult hook_##export(type handle)                                             \
	{                                                                               \
		emuv_entry_t entry;                                                     \
		CUresult result;                                                        \
		if (!emuv_account_take(kind_of, (uint64_t)(uintptr_t)handle, &entry))   \
			return g_real.export(handle);                                   \
		emuv_account_call(entry.device, EMUV_FN_##export);                      \
		result = g_real.export(handle);                                         \
		if (result)                                                             \
			emuv_account_restore(&entry);                                   \
		else                                                                    \
			emuv_account_freed(&entry);                                     \
		return result;                                                          \
	}
DESTROY(cuArrayDestroy, EMUV_KIND_ARRAY, CUarray)
DESTROY(cuMipmappedArrayDestroy, EMUV_KIND_MIPMAP, CUmipmappedArray)
