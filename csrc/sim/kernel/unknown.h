/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Launches of kernels that are an NVIDIA GPU's machine code: they cannot be executed.
 */
#ifndef EMUV_SIM_UNKNOWN_H
#define EMUV_SIM_UNKNOWN_H

#include <stdio.h>

#include "image.h"
#include "kernel.h"

/*
 * sim_lock held.  May a launch of the function, whose code is no PTX, be done by
 * touching its memory (EMUV_SIM_UNKNOWN_KERNELS=touch)?  `parameters_known`: how many
 * bytes of parameters there are.  CUDA_SUCCESS: *name is the kernel's, and lasts for
 * ever.  Else CUDA_ERROR_NO_BINARY_FOR_GPU, and one line on stderr, once for each kernel.
 */
CUresult sim_unknown_allow(const sim_function_t *function, bool parameters_known,
			   const char **name);
/* Does it: launch->kernel is NULL. */
CUresult sim_unknown_run(const sim_kernel_launch_t *launch, sim_cost_t *cost);
/* sim_lock held.  JSON for the report: what was not computed, how often. */
void sim_unknown_list(FILE *file);

#endif
