/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every function that programs look up and the stand-in does not have.
 *
 * Each name of nvml_names.def gets a weak function; where another file of this folder
 * defines the name, that definition replaces it at link time.  What is called with
 * arguments is defined without: a C caller's arguments are simply not looked at.
 */
#include "nvml_sim.h"

#define NVML_NAME(name)                                                       \
	__attribute__((weak, visibility("default"))) nvmlReturn_t name(void); \
	nvmlReturn_t name(void)                                               \
	{                                                                     \
		NVML_ENTER();                                                 \
		return NVML_ERROR_NOT_SUPPORTED;                              \
	}
#include "nvml_names.def"
