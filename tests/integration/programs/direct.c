/* SPDX-License-Identifier: GPL-2.0-only */
/* A program linked to libcuda.so.1: its calls are bound by the loader. */
#include "take.h"

CUresult cuInit(unsigned int flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes);
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device);

#ifdef TAKE_SHARED
int plugin_take(void);
int plugin_take(void)
#else
int main(void)
#endif
{
	const take_api_t api = {
		.init = cuInit, .retain = cuDevicePrimaryCtxRetain, .set_current = cuCtxSetCurrent,
		.alloc = cuMemAlloc_v2, .total = cuDeviceTotalMem_v2,
	};
	return take(&api);
}
