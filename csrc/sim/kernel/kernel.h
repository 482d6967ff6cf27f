/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernels, as the rest of the simulator sees them.
 *
 * Nothing here wants sim_lock unless it says so; sim_kernel_run takes as long as the
 * kernel, and takes the lock itself where a kernel's access needs it.
 */
#ifndef EMUV_SIM_KERNEL_H
#define EMUV_SIM_KERNEL_H

#include "abi.h"
#include "paging.h"
#include "sim.h"

/* A launch, checked: what to run, and with what. */
typedef struct {
	const emuv_kernel_t *kernel;
	const char *name;
	sim_context_t *context;
	uint32_t grid[3], block[3];
	uint32_t static_shared, dynamic_shared;
	size_t local_bytes;         /* of a thread */
	bool recursive;             /* deeper stacks */
	bool cooperative;           /* all blocks at once */
	const uint8_t *parameters;  /* 16-aligned */
	uint32_t parameter_bytes;
	const uint64_t *variables;
} sim_kernel_launch_t;

/*
 * Runs all blocks.  Adds what it cost to *cost.  Every other answer than CUDA_SUCCESS
 * has said its line on stderr, and is the context's from then on.
 */
CUresult sim_kernel_run(const sim_kernel_launch_t *launch, sim_cost_t *cost);
/* The context ends: so do its kernels, at their next back edge or wait. */
void sim_kernels_stop(const sim_context_t *context);
/* How many threads run one kernel. */
int sim_kernel_workers(void);

/*
 * What kernels printed, to the process's standard output.  A call that synchronises sets
 * sim_print_due; then sim_lock_drop does it, without the lock.
 */
extern _Thread_local bool sim_print_due;
void sim_print_flush(void);
/* sim_lock held.  The context's device heap goes (its memory goes with the context's). */
void sim_heap_drop_context(const sim_context_t *context);

#endif
