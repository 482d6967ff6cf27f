/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hooks.  Every row EMUV_HOOK(f, …) of hooks.def has its body hook_f here; the
 * exported f itself (hook_entry.c, made from the list) is the guard around it.
 *
 * The one shape of a body that allocates:
 *
 *	if (what the driver would refuse anyway)
 *		return g_real.f(…);
 *	where  = device and context the call acts on
 *	grant  = reserve(where, bytes)          refused: CUDA_ERROR_OUT_OF_MEMORY
 *	result = g_real.f(…), or a spill
 *	result ? roll back : commit
 *
 * and of one that frees: take the entry, call the driver, then `freed` or, where
 * the driver refused, `restore`.  No lock is held across any driver call.
 */
#ifndef EMUV_HOOKS_H
#define EMUV_HOOKS_H

#include "account.h"
#include "real.h"

#define EMUV_HOOK(export, params, args) CUresult hook_##export params;
#include "hooks.def"

/*
 * The driver's answer to an allocation in a place that emuV could not find out, or
 * knows no budget for.  It would mostly refuse; where it did not, that is counted.
 */
static inline CUresult emuv_uncounted(CUresult result)
{
	if (!result)
		emuv_account_uncounted(0);
	return result;
}

#endif
