/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From an entry of an image to a kernel that can run: code.c.  Without sim_lock unless
 * it says so.
 */
#ifndef EMUV_SIM_CODE_H
#define EMUV_SIM_CODE_H

#include "abi.h"
#include "image.h"

typedef struct sim_code {
	size_t shared_bytes; /* static */
	size_t local_bytes;  /* of a thread */
	bool recursive;      /* it calls itself, and nobody knows how often */
	unsigned int registers;
} sim_code_t;

/*
 * Translates the entry of an image of PTX, once.  CUDA_ERROR_NOT_SUPPORTED where an
 * instruction is not simulated: then a line has named it.
 */
CUresult sim_code_of(const sim_image_t *image, const sim_entry_t *entry, const sim_code_t **code);
/* And compiles it.  The kernel lives as long as the image. */
CUresult sim_code_kernel(const sim_image_t *image, const sim_entry_t *entry, bool track,
			 const emuv_kernel_t **kernel);
/* NULL: sim_code_kernel would take long. */
const emuv_kernel_t *sim_code_ready(const sim_entry_t *entry, bool track);

#endif
