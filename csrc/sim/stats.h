/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is kept of the account of paging, and told in EMUV_SIM_STATS.  sim_lock held for
 * all of it but for sim_stats_write.
 */
#ifndef EMUV_SIM_STATS_H
#define EMUV_SIM_STATS_H

#include "paging.h"

/* A block that comes back is thrash if it had left within so many pieces of work. */
#define SIM_THRASH_WINDOW 8
/* A batch has at most so many faults (nvidia-uvm's default). */
#define SIM_FAULT_BATCH 256

/* Kernels, copies and sets that have been done: the window's measure. */
extern uint64_t sim_work_done;
extern bool sim_stats_wanted;

/* What is charged for the device: *cost where that is its own, else its total. */
sim_cost_t *sim_cost_of(CUdevice device, sim_cost_t *cost);
/* Into the device's total; says from when to when the model had it run. */
void sim_stats_done(const sim_cost_t *cost, uint64_t start, uint64_t end);
/* A managed range ends. */
void sim_stats_ended(const sim_range_t *range, const sim_cost_t *cost);

/* The blocks of one launch, by address. */
typedef struct {
	uint32_t block; /* of the arena */
	uint32_t uses;  /* of EMUV_READ, EMUV_WRITE */
} sim_touched_t;
/* Returns what cost->launch is to be. */
uint64_t sim_stats_launch(CUdevice device, const sim_launch_info_t *info,
			  const sim_touched_t *touched, size_t count);

/* Writes EMUV_SIM_STATS, if asked for. */
void sim_stats_write(void);

#endif
