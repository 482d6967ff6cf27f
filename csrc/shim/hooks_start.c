/* SPDX-License-Identifier: GPL-2.0-only */
/* cuInit, which opens the books, and cuGetProcAddress, which leads back to the hooks. */
#include "hooks.h"
#include "lifecycle.h"
#include "message.h"
#include "resolve.h"

CUresult hook_cuInit(unsigned int flags)
{
	const emuv_config_t *config = emuv_lifecycle_config();
	CUresult result;

	/* No budget, or one that cannot be read, is not an unlimited one. */
	if (!config->valid) {
		emuv_error("%s", config->problem);
		emuv_hint("%s", config->hint);
		return CUDA_ERROR_NOT_PERMITTED;
	}
	if (!emuv_lifecycle_join())
		return CUDA_ERROR_NOT_PERMITTED;
	result = g_real.cuInit(flags);
	if (result) {
		emuv_lifecycle_unjoin();
		return result;
	}
	emuv_lifecycle_start();
	emuv_account_call(0, EMUV_FN_cuInit);
	return CUDA_SUCCESS;
}

/* False: the function is newer than emuV, and has been said to be. */
static bool replace(void **pfn, const char *symbol, int version, cuuint64_t flags)
{
	*pfn = emuv_resolve_replace(*pfn, symbol, version, flags);
	if (*pfn)
		return true;
	emuv_error("the driver's '%s' for CUDA %d.%d is newer than this emuV and would not be "
		   "counted: withheld", symbol, version / 1000, version % 1000 / 10);
	emuv_hint("a newer emuV may know it");
	return false;
}

CUresult hook_cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
	CUresult result = g_real.cuGetProcAddress(symbol, pfn, version, flags);

	if (!result && symbol && pfn && *pfn && !replace(pfn, symbol, version, flags))
		return CUDA_ERROR_NOT_FOUND;
	return result;
}

CUresult hook_cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
				  CUdriverProcAddressQueryResult *status)
{
	CUresult result = g_real.cuGetProcAddress_v2(symbol, pfn, version, flags, status);

	if (!result && symbol && pfn && *pfn && !replace(pfn, symbol, version, flags)) {
		if (status)
			*status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
		return CUDA_ERROR_NOT_FOUND;
	}
	return result;
}
