/* SPDX-License-Identifier: GPL-2.0-only */
/* What stats.c keeps and stats_write.c tells. */
#ifndef EMUV_SIM_STATS_PRIVATE_H
#define EMUV_SIM_STATS_PRIVATE_H

#include "internal.h"
#include "stats.h"

#define SIM_STATS_ENDED 4096
#define SIM_STATS_KERNELS 4096
#define SIM_STATS_STRETCHES ((size_t)1 << 22) /* 160 MiB */

typedef struct {
	sim_cost_t sum;
	uint64_t launches, followed;
	uint64_t kernel_ns, end_ns; /* virtual */
} sim_by_device_t;

typedef struct {
	uint64_t id, bytes;
	CUdevice device;
	sim_cost_t cost;
} sim_ended_t;

typedef struct {
	char *name;
	uint64_t launches, ns;
	sim_cost_t sum;
} sim_by_kernel_t;

/* Blocks [block, end) of an allocation, all used alike.  Allocation 0: small ones share them. */
typedef struct {
	uint64_t allocation, bytes;
	uint32_t kind, uses;
	uint32_t block, end;
} sim_stretch_t;

typedef struct {
	sim_launch_info_t info; /* but for the name: that is the kernel's */
	size_t kernel;
	CUdevice device;
	bool complete;
	size_t first, end; /* stretches */
	sim_cost_t cost;
	uint64_t start_ns, end_ns;
} sim_launch_t;

typedef struct {
	sim_by_device_t devices[SIM_MAX_DEVICES];
	sim_ended_t *ended;
	size_t ended_count, ended_room;
	uint64_t others; /* ended allocations beyond the limit */
	sim_cost_t other;
	sim_by_kernel_t *kernels;
	size_t kernel_count, kernel_room;
	sim_launch_t *launches;
	size_t launch_count, launch_room;
	sim_stretch_t *stretches;
	size_t stretch_count, stretch_room;
} sim_stats_t;
extern sim_stats_t sim_stats;

#endif
