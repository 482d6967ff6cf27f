/* SPDX-License-Identifier: GPL-2.0-only */
/* Pinned and registered host memory: nothing is charged, the bytes are told. */
#include "contexts.h"
#include "hooks.h"

static CUresult pinned(CUresult result, const emuv_where_t *where, enum emuv_function function,
		       const void *address, uint64_t bytes)
{
	const emuv_entry_t entry = {
		.kind = EMUV_KIND_HOST,
		.key = (uint64_t)(uintptr_t)address,
		.bytes = bytes,
		.context = (uint64_t)(uintptr_t)where->context,
		.device = (int16_t)where->device,
		.flags = EMUV_ENTRY_PINNED,
	};

	if (result)
		return result;
	emuv_account_call(where->device, (int)function);
	emuv_account_tally(&entry);
	return CUDA_SUCCESS;
}

static CUresult unpinned(CUresult (*real)(void *), enum emuv_function function, void *address)
{
	emuv_entry_t entry;
	CUresult result;
	bool last;

	if (!emuv_account_untally(EMUV_KIND_HOST, (uint64_t)(uintptr_t)address, &entry, &last))
		return real(address);
	emuv_account_call(entry.device, (int)function);
	result = real(address);
	if (result && last)
		emuv_account_restore(&entry);
	else if (result)
		emuv_account_tally(&entry);
	else if (last)
		emuv_account_freed(&entry);
	return result;
}

#define PIN(name, params, args, address, bytes)                                           \
	CUresult hook_##name params                                                       \
	{                                                                                 \
		emuv_where_t where;                                                       \
		CUresult result;                                                          \
		if (!emuv_where_current(&where))                                          \
			return g_real.name args;                                          \
		result = g_real.name args;                                                \
		return pinned(result, &where, EMUV_FN_##name, result ? NULL : (address), bytes); \
	}
PIN(cuMemAllocHost, (void **address, unsigned int bytes), (address, bytes), *address, bytes)
PIN(cuMemAllocHost_v2, (void **address, size_t bytes), (address, bytes), *address, bytes)
PIN(cuMemHostAlloc, (void **address, size_t bytes, unsigned int flags), (address, bytes, flags),
    *address, bytes)
PIN(cuMemHostRegister, (void *address, size_t bytes, unsigned int flags), (address, bytes, flags),
    address, bytes)
PIN(cuMemHostRegister_v2, (void *address, size_t bytes, unsigned int flags),
    (address, bytes, flags), address, bytes)

CUresult hook_cuMemFreeHost(void *address)
{
	return unpinned(g_real.cuMemFreeHost, EMUV_FN_cuMemFreeHost, address);
}

CUresult hook_cuMemHostUnregister(void *address)
{
	return unpinned(g_real.cuMemHostUnregister, EMUV_FN_cuMemHostUnregister, address);
}
