/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * emuV's own export table on the simulated GPU.
 *
 * cuGetExportTable(&table, &EMUV_SIM_TABLE_UUID) answers it on emuV's simulated
 * driver and on no other.  The shim learns from it that the driver is the
 * simulated one and what a context costs; tests look inside with it.
 */
#ifndef EMUV_SIM_TABLE_H
#define EMUV_SIM_TABLE_H

#include "cuda_abi.h"

/* Random (uuid4), ours alone. */
#define EMUV_SIM_TABLE_UUID_BYTES                                                       \
	{                                                                               \
		(char)0x5f, (char)0x0e, (char)0x6d, (char)0x3b, (char)0xc1, (char)0x42, \
		(char)0x4e, (char)0x97, (char)0xa8, (char)0x1d, (char)0x27, (char)0xe9, \
		(char)0x90, (char)0x5c, (char)0xb6, (char)0x44                          \
	}

typedef struct {
	size_t size; /* sizeof of the struct that the simulator was built with */
	/*
	 * Bytes of device memory in use on `device`, contexts included; no context needed.
	 * This and `resident` answer when what is queued, and not held, is done.
	 */
	CUresult (*device_used)(CUdevice device, uint64_t *bytes);
	/* What contexts alone take on `device`. */
	CUresult (*context_bytes)(CUdevice device, uint64_t *bytes);
	/* Of the managed range [address, address + bytes): bytes resident on `device`. */
	CUresult (*resident)(CUdeviceptr address, size_t bytes, CUdevice device, uint64_t *resident);
	/*
	 * hold != 0: work recorded on the stream from now on stays unfinished (events
	 * answer CUDA_ERROR_NOT_READY, synchronising waits) until hold == 0.
	 */
	CUresult (*hold_stream)(CUstream stream, int hold);
	/* The n-th next call (1: the next) of `function` fails with `code`; 0: none does. */
	CUresult (*fail)(const char *function, uint64_t n, CUresult code);
	/* Calls of `function` so far. */
	CUresult (*calls)(const char *function, uint64_t *count);
	/*
	 * Which card of the machine `device` is (CUDA_VISIBLE_DEVICES picks and orders), and
	 * how many contexts live on it.  CUDA_ERROR_INVALID_VALUE past the last device,
	 * before cuInit and in a forked child.
	 */
	CUresult (*identify)(CUdevice device, int *physical, unsigned int *contexts);
} emuv_sim_table_t;

#endif
