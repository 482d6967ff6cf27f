/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Takes device memory, a mebibyte at a time, until it is refused, through whatever
 * pointers it is given, and says how far it came.  What it took it keeps to its end,
 * for the segment to show.
 */
#ifndef EMUV_TEST_TAKE_H
#define EMUV_TEST_TAKE_H

#include <stdio.h>

#include "cuda_abi.h"

typedef struct {
	CUresult (*init)(unsigned int flags);
	CUresult (*retain)(CUcontext *context, CUdevice device);
	CUresult (*set_current)(CUcontext context);
	/* One of the two. */
	CUresult (*alloc)(CUdeviceptr *address, size_t bytes);
	CUresult (*alloc_async)(CUdeviceptr *address, size_t bytes, CUstream stream);
	CUresult (*total)(size_t *bytes, CUdevice device);
} take_api_t;

/* Prints one line of JSON; 0, or 3 where CUDA could not be started. */
static inline int take(const take_api_t *api)
{
	CUcontext context;
	CUdeviceptr address;
	size_t total = 0;
	int taken = 0, code = 0;

	if (api->init(0) || api->retain(&context, 0) || api->set_current(context)) {
		fprintf(stderr, "take: CUDA does not start\n");
		return 3;
	}
	if (api->total)
		api->total(&total, 0);
	while (!code && taken < 1000) {
		code = api->alloc ? (int)api->alloc(&address, 1 << 20) :
				    (int)api->alloc_async(&address, 1 << 20, NULL);
		taken += !code;
	}
	printf("{\"got\": %d, \"code\": %d, \"total\": %zu}\n", taken, code, total);
	fflush(stdout);
	return 0;
}

#endif
