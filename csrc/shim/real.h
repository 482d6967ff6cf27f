/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The real driver's functions, and emuV's own in their place.
 *
 * g_real holds a pointer for every row of hooks.def.  None is ever NULL: until
 * the driver is open, and where it lacks a function, the pointer is a function
 * of the same signature that answers an error.
 */
#ifndef EMUV_REAL_H
#define EMUV_REAL_H

#include "cuda_abi.h"
#include "emuv_segment.h"

#define EMUV_EXPORT __attribute__((visibility("default")))

typedef struct {
#define EMUV_HOOK(export, params, args) CUresult(*export) params;
#define EMUV_USE(export, params, args) CUresult(*export) params;
#include "hooks.def"
} emuv_real_t;

extern emuv_real_t g_real;

#define EMUV_HOOK(export, params, args) EMUV_EXPORT CUresult export params;
#include "hooks.def"

/* Index of a hooked function: its row in hooks.def. */
enum emuv_function {
#define EMUV_HOOK(export, params, args) EMUV_FN_##export,
#include "hooks.def"
	EMUV_N_HOOKS
};
_Static_assert(EMUV_N_HOOKS <= EMUV_MAX_FUNCTIONS, "calls[] of the segment is too short");

#endif
