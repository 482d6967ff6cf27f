/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Finding the driver: the libcuda.so.1 that any program of this process would get,
 * opened when the first call needs it, as programs that link a runtime expect.
 */
#include <dlfcn.h>

#include "cudart.h"

static CUresult missing(void)
{
	return CUDA_ERROR_NOT_SUPPORTED;
}

/* Arguments are ignored, whatever they are: both calling conventions allow that. */
#define MISSING ((void (*)(void))missing)
rt_driver_t rt_driver = {
#define EMUV_USE(name, parameters) .name = (CUresult (*) parameters)MISSING,
#include "driver_uses.def"
#undef EMUV_USE
};

_Bool rt_driver_load(void)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW);
	void *symbol;

	if (!library)
		return false;
#define EMUV_USE(name, parameters)                \
	symbol = dlsym(library, #name);           \
	if (symbol)                               \
		*(void **)&rt_driver.name = symbol;
#include "driver_uses.def"
#undef EMUV_USE
	return true;
}
