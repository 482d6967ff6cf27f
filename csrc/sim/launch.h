/* SPDX-License-Identifier: GPL-2.0-only */
/* Launches: launch.c, launch_attributes.c, launch_legacy.c; for graphs, too. */
#ifndef EMUV_SIM_LAUNCH_H
#define EMUV_SIM_LAUNCH_H

#include "image.h"
#include "kernel/kernel.h"
#include "work.h"

/* A launch as it was asked for. */
typedef struct {
	CUfunction function; /* or a CUkernel */
	unsigned int grid[3], block[3], shared;
	void **parameters, **extra; /* one of them, or none */
	bool cooperative;
} sim_launch_t;

/* A launch that was checked, with a copy of its parameters.  Reads as work; `asked` is for graphs. */
typedef struct {
	sim_work_t work;
	sim_launch_t asked;         /* parameters, extra: NULL */
	sim_function_t *function;   /* may be gone */
	sim_image_t *image;
	const sim_entry_t *entry;
	sim_kernel_launch_t what;
	uint8_t *buffer;            /* the parameters, and behind them the variables' addresses */
	size_t buffer_bytes;
} sim_launch_work_t;

/*
 * sim_lock held, dropped while the kernel is compiled.  Everything that a launch is
 * refused for is found out here.
 */
CUresult sim_launch_make(const sim_launch_t *launch, sim_launch_work_t **work);
/* How many blocks fit a multiprocessor at once: function.c.  sim_lock held. */
int sim_occupancy(const sim_function_t *function, int threads, size_t dynamic_shared);
#define SIM_MULTIPROCESSORS 16

/* Without the lock: makes it and puts it into the stream.  launch.c */
CUresult sim_launch(const sim_launch_t *launch, CUstream stream, bool per_thread);
/* The attributes of cuLaunchKernelEx that mean something here.  launch_attributes.c */
CUresult sim_launch_attributes(const CUlaunchConfig *config, sim_launch_t *launch);

#endif
