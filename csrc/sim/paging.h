/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Paging and its price: which 2 MiB blocks move, why, and what a card would have
 * taken for it.
 *
 * Counts are facts about a program and a policy.  Times are a model's, from a profile
 * (profiles/ *.ini, each number with its source), on a clock of their own.
 */
#ifndef EMUV_SIM_PAGING_H
#define EMUV_SIM_PAGING_H

#include "kernel/abi.h"
#include "sim.h"

/* Why bytes crossed the link. */
typedef enum {
	SIM_CAUSE_FAULT, SIM_CAUSE_PREFETCH, SIM_CAUSE_EVICTION, SIM_CAUSE_REMOTE,
	SIM_CAUSE_COPY,
	SIM_CAUSES,
} sim_cause_t;

/*
 * What one piece of work cost; sums, no order within it.  Zeroed by who makes it, but
 * for the device.
 */
typedef struct {
	CUdevice device;
	uint64_t to_device[SIM_CAUSES], to_host[SIM_CAUSES]; /* bytes over the link */
	uint64_t faults, fault_batches, evictions;
	uint64_t thrash;        /* blocks that came back soon after they had left */
	uint64_t vram_bytes;    /* read and written in the card's own memory */
	uint64_t instructions;  /* of kernels, by thread */
	bool kernel;
	/* paging's own: the open batch of faults, and the launch's record (stats.c). */
	uint64_t batch, launch;
	unsigned int batch_faults;
} sim_cost_t;

/*
 * The moment at which work that may start at `start` (virtual ns) and costs `cost` is
 * done.  Books the link and the card for it, and the device's counters.  Once for each
 * piece of work.  sim_lock held.
 */
uint64_t sim_clock_run(const sim_cost_t *cost, uint64_t start);
/* EMUV_SIM_CLOCK=virtual: cuEventElapsedTime answers virtual times. */
extern bool sim_clock_events;

/* ---- the arena: arena.c; with or without sim_lock ---- */
#define SIM_ARENA_BYTES ((uint64_t)4 << 40) /* at most: less where address space is limited */
extern uintptr_t sim_arena_base; /* 0 before cuInit; a multiple of sim_arena_bytes */
extern uint64_t sim_arena_bytes; /* a power of two */
/* At cuInit.  False: the address space is not to be had (ulimit -v). */
bool sim_arena_init(void);
bool sim_arena_holds(uintptr_t address);
/*
 * A stretch of the arena, aligned to `align` (a power of two >= 2 MiB), not accessible
 * (PROT_NONE).  `hint` 0 or where it would best be.  NULL: no room.
 */
void *sim_arena_take(size_t bytes, size_t align, uintptr_t hint);
/* Whatever was mapped there; memory goes back, and the addresses fault from then on. */
void sim_arena_give(void *address, size_t bytes);

/* ---- kernels: paging.c ---- */
/*
 * sim_paging_tracks: should this launch run tracked code?  (EMUV_SIM_TRACK:
 * 0 never, 1 always; else where statistics or virtual times are asked for, or managed
 * memory exists.)  begin and end bracket a launch; between them, sim_paging_access is
 * the slow path of an access.  Several worker threads of one launch may be in it at once.
 */
bool sim_paging_tracks(CUdevice device);
typedef struct {
	const char *kernel;
	uint32_t grid[3], block[3];
	bool computed; /* false: its memory is touched, and nothing computed */
} sim_launch_info_t;
typedef struct sim_paging sim_paging_t;
/* Takes sim_lock.  NULL: no memory. */
sim_paging_t *sim_paging_begin(sim_context_t *context, const sim_launch_info_t *info);
const uint8_t *sim_paging_table(const sim_paging_t *paging);
/* Windows and local memory, the engine's own: all rights there, and nothing is counted. */
void sim_paging_own(sim_paging_t *paging, uint64_t address, uint64_t bytes);
/*
 * Takes sim_lock, but for remote blocks.  May the kernel do that?  Sees to faults and
 * eviction, marks the block touched and grants rights in the table.  CUDA_SUCCESS,
 * CUDA_ERROR_ILLEGAL_ADDRESS (outside every live range, or without access),
 * CUDA_ERROR_OUT_OF_MEMORY.  A remote block gets no right: each access comes here, and
 * its bytes are counted.  The address may lie outside the arena (registered host memory).
 */
CUresult sim_paging_access(sim_paging_t *paging, uint64_t address, uint32_t bytes, uint32_t rights);
/*
 * Remote blocks without sim_lock: each thread that executes a launch has tallies (abi.h),
 * zeroed, asks sim_paging_remote first, and flushes them before sim_paging_end.
 */
void sim_paging_tally_move(sim_paging_t *paging, emuv_tally_t *tally, uint64_t block);
void sim_paging_flush(sim_paging_t *paging, emuv_tally_t tallies[EMUV_TALLIES]);
/* Was that an access to a remote block, which is now counted? */
static inline bool sim_paging_remote(sim_paging_t *paging, const emuv_launch_t *launch,
				     emuv_tally_t tallies[EMUV_TALLIES], uint64_t address,
				     uint32_t bytes, uint32_t rights)
{
	uint64_t offset = address - launch->arena_base, block = offset / SIM_BLOCK_BYTES;

	if (offset & launch->arena_reject ||
	    ~(__atomic_load_n(&launch->table[block], __ATOMIC_RELAXED) >> EMUV_REMOTE_SHIFT) &
		    rights & (EMUV_READ | EMUV_WRITE))
		return false;
	emuv_tally_t *tally = &tallies[block % EMUV_TALLIES];
	if (tally->block != block + 1)
		sim_paging_tally_move(paging, tally, block + 1);
	tally->read += rights & EMUV_READ ? bytes : 0;
	tally->written += rights & EMUV_WRITE ? bytes : 0;
	return true;
}
/*
 * Takes sim_lock.  Adds what the launch cost to *cost; rights go.  The caller has set
 * cost->instructions, and cost->vram_bytes to all bytes that the kernel read and wrote:
 * those of remote blocks are taken out of it.
 */
void sim_paging_end(sim_paging_t *paging, sim_cost_t *cost);

#endif
