/* SPDX-License-Identifier: GPL-2.0-only */
/* The exported functions: for each row of hooks.def, the guard around its body. */
#include <errno.h>

#include "hooks.h"
#include "lifecycle.h"

/*
 * These must work before cuInit.  emuv_inside keeps them from acting on calls
 * that the driver makes to itself.
 */
static bool enter_early(void)
{
	if (emuv_inside || emuv_lifecycle_driver() || emuv_lifecycle_forwards())
		return false;
	emuv_inside = 1;
	return true;
}

static bool is_early(enum emuv_function function)
{
	return function == EMUV_FN_cuInit || function == EMUV_FN_cuGetProcAddress ||
	       function == EMUV_FN_cuGetProcAddress_v2;
}

#define EMUV_HOOK(export, params, args)                                              \
	CUresult export params                                                       \
	{                                                                            \
		CUresult result;                                                     \
		int saved = errno;                                                   \
		if (is_early(EMUV_FN_##export) ? !enter_early() :                    \
						 !emuv_enter(__builtin_return_address(0))) { \
			/* A program that asks before cuInit gets the driver's word. */ \
			if (!emuv_inside && emuv_lifecycle_driver())                 \
				return CUDA_ERROR_NOT_INITIALIZED;                   \
			return g_real.export args;                                   \
		}                                                                    \
		result = hook_##export args;                                         \
		emuv_leave();                                                        \
		errno = saved;                                                       \
		return result;                                                       \
	}
#include "hooks.def"
