/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A CUDA driver of handles and numbers only, in g_real's place, for testing the
 * hooks without a library.  It keeps the shim honest in every single call:
 *
 *   - each call takes the shim's own locks; were one of them held across a driver
 *     call, the test would stand still (and alarm() end it);
 *   - memory on a device may never exceed fake_limit, by a byte, at any instant;
 *   - a managed range is hinted to the host before a byte of it is prefetched;
 *   - handles and addresses are given out again at once after they are freed.
 */
#ifndef EMUV_TEST_FAKE_DRIVER_H
#define EMUV_TEST_FAKE_DRIVER_H

#include <stdbool.h>

#include "cuda_abi.h"

#define FAKE_DEVICES 2

enum fake_kind {
	FAKE_NOTHING, FAKE_DEVICE, FAKE_POOLED, FAKE_MANAGED, FAKE_ARRAY, FAKE_MIPMAP, FAKE_VMM,
	FAKE_MAPPING, FAKE_POOL, FAKE_CONTEXT, FAKE_GREEN, FAKE_STREAM, FAKE_EVENT,
	FAKE_KINDS,
};

typedef struct {
	uint64_t objects[FAKE_KINDS];
	uint64_t physical[FAKE_DEVICES]; /* bytes on the device, contexts included */
	uint64_t managed[FAKE_DEVICES]; /* and handles of host memory, as device 0's */
} fake_state_t;

/* What the driver has of handles of host memory. */
typedef struct {
	bool unasked; /* it does not know the attributes: CUDA 12.2 to 12.8 */
	bool node, host;
	int node_id;  /* the one that it takes */
	uint64_t granularity;
	CUresult shared; /* what a handle of the node with handle types gets; 0: it is made */
} fake_host_t;

/* An empty driver whose cards have `card` bytes; a context takes `context` of them. */
void fake_reset(uint64_t card, uint64_t context);
/* Bytes on `device` that must never be exceeded; UINT64_MAX at first. */
void fake_limit(CUdevice device, uint64_t bytes);
void fake_state(fake_state_t *state);
/* The n-th next call (1: the next) fails with `code`; 0: none does. */
void fake_fail(uint64_t n, CUresult code);
/* The function that fake_fail's failure struck; NULL: none yet. */
const char *fake_struck(void);
/* While held, no event comes to pass. */
void fake_hold(bool held);
/* Streams are being captured. */
void fake_capture(bool capturing);
/* At first: node 1, of 2 MiB, that can be shared. */
void fake_host(const fake_host_t *host);
/* Bytes that one row of a pitched allocation is padded to; 512 at first. */
void fake_pitch(uint64_t alignment);
/* Bytes of the managed range at `address` that are on its device. */
uint64_t fake_resident(CUdeviceptr address);
uint64_t fake_calls(void);
/* Called where cuCtxDestroy has done its work and not yet returned; NULL: nothing is. */
void fake_after_destroy(void (*callback)(void));
/* Makes `context` current for the calling thread, alone on its stack. */
void fake_set_current(CUcontext context);

#endif
