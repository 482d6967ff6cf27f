/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * emuV's own driver calls while the program captures a stream.  Under the global
 * and the thread-local capture mode, calls such as cuEventQuery or
 * cuMemAllocManaged end a capture that emuV has nothing to do with; in the relaxed
 * mode of the calling thread they do not ("CUDA Driver API",
 * cuThreadExchangeStreamCaptureMode).
 */
#ifndef EMUV_RELAXED_H
#define EMUV_RELAXED_H

#include "real.h"

/* Returns the thread's former mode, for emuv_relaxed_leave. */
static inline int emuv_relaxed_enter(void)
{
	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;

	/* Drivers before CUDA 10.1 have no modes. */
	return g_real.cuThreadExchangeStreamCaptureMode(&mode) ? -1 : (int)mode;
}

static inline void emuv_relaxed_leave(int former)
{
	CUstreamCaptureMode mode = (CUstreamCaptureMode)former;

	if (former >= 0)
		g_real.cuThreadExchangeStreamCaptureMode(&mode);
}

#endif
