/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Managed memory, internal: the record of a block, shared by managed.c (what is known
 * of it), migrate.c (how it moves) and stats.c (what it cost).
 */
#ifndef EMUV_SIM_MANAGED_H
#define EMUV_SIM_MANAGED_H

#include "memory.h"
#include "paging.h"

/* A device has room for the block: in that device's list while it has. */
typedef struct sim_presence {
	struct sim_presence *prev, *next;
	sim_managed_t *managed;
	uint64_t since;   /* when it was made resident, in moves; 0: is not */
	uint64_t left;    /* when it last left over the link, in work (sim_work_done); 0: never */
	uint64_t batch;   /* of faults, that it was last in */
	bool discarded;   /* what it holds is not worth keeping */
} sim_presence_t;

typedef struct {
	bool host; /* has a copy on the host */
	bool read_mostly;
	bool accessed_by_host;
	uint32_t accessed_by;
	uint32_t mapped; /* devices that reach it where it is, without having it */
	CUmemLocation preferred, prefetched; /* type 0: none */
} sim_block_t;

struct sim_managed {
	uintptr_t start;
	size_t bytes, blocks;
	sim_block_t *block;
	sim_presence_t *presence; /* of block b on device d: [b * sim_device_count + d] */
	sim_cost_t cost;          /* what this allocation's blocks cost so far */
};

static inline sim_presence_t *sim_presence_of(const sim_managed_t *managed, size_t block,
					      CUdevice device)
{
	return &managed->presence[block * (size_t)sim_device_count + (size_t)device];
}

/* The blocks that [address, address + bytes) has a byte in: [*first, *end). */
void sim_managed_blocks(const sim_managed_t *managed, uintptr_t address, size_t bytes,
			size_t *first, size_t *end);

/* ---- migrate.c ---- */
bool sim_block_on_a_device(const sim_managed_t *managed, size_t block);
/* Off every device but `except` (-1: off all); nothing crosses the link. */
void sim_block_leave(sim_managed_t *managed, size_t block, CUdevice except);
/* Where it is has changed, or what it may be used for: kernels that run ask again. */
void sim_block_changed(const sim_managed_t *managed, size_t block);

/* Where a touched block is for who touched it. */
typedef enum { SIM_LOCAL, SIM_REMOTE } sim_reach_t;
/*
 * `device` (CU_DEVICE_CPU: the host) touches the block.  `peers`: a bit for each device
 * whose memory it may use directly.
 */
sim_reach_t sim_block_touch(sim_managed_t *managed, size_t block, CUdevice device, uint32_t peers,
			    bool write, sim_cost_t *cost);

/* ---- managed.c ---- */
extern size_t sim_managed_count; /* live ranges */
/* The host has it no longer: its pages go. */
void sim_managed_forget(sim_managed_t *managed, size_t block);

/* ---- paging.c ---- */
/* Kernels that run have no right to the block any more: they ask again. */
void sim_paging_revoke(uintptr_t block);

#endif
