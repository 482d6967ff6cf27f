/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bytes of a card in use, asked without a context: from the simulated GPU's own
 * table, else from NVML.
 */
#ifndef EMUV_DEVICE_USE_H
#define EMUV_DEVICE_USE_H

#include <stdbool.h>
#include <stdint.h>

#include "cuda_abi.h"

/* True where the driver is emuV's simulated GPU. */
bool emuv_device_is_sim(void);
/*
 * Bytes in use on `device`: by this process where the source can tell
 * (*whole_card 0), else on the whole card.  `has_context`: this process has a
 * context there, so a list of processes without it is of no use (MPS).  False: no
 * source.
 */
bool emuv_device_used(CUdevice device, bool has_context, uint64_t *bytes, int *whole_card);

#endif
