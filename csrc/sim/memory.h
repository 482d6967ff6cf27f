/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated GPU's memory side, internal: what its files say to each other.
 *
 *   arena.c    the address space that kernels reach, in 2 MiB blocks (paging.h)
 *   space.c    pieces of it for the small
 *   range.c    address -> range
 *   memory.c   the card's account; cuMemAlloc and its kin; what a context owns
 *   host.c     pinned and registered host memory
 *   managed.c  managed blocks, and what was advised; migrate.c: how they move;
 *              advise.c: the calls that steer them
 *   paging.c   what kernels, copies and sets touch (paging.h); clock.c, profile.c:
 *              its price; stats.c: what is told of it
 *   pool.c     stream-ordered allocation
 *   vmm.c      reservations, handles, mappings
 *   array.c    arrays and mipmaps
 *   copy.c     address checks and 1-D copies; set.c
 *   box.c      copies in two and three dimensions; copy2d.c: the calls that make them
 *   pointer.c  pointer attributes
 *   ipc.c      memory of other processes; share.h: the files that hold it
 *
 * Everything here wants sim_lock held, but for sim_map and sim_unmap, which do with and
 * without it.
 */
#ifndef EMUV_SIM_MEMORY_H
#define EMUV_SIM_MEMORY_H

#include "memory_abi.h"
#include "paging.h"
#include "sim.h"

#define SIM_GRANULE_BYTES ((size_t)512)
/* No size beyond this is ever tried: the sum of two such sizes cannot wrap. */
#define SIM_MAX_BYTES ((size_t)1 << 46)

/* The calling thread's context; where there is none, the entry point ends. */
#define SIM_NEED_CONTEXT(name)                 \
	sim_context_t *name = sim_current();   \
	if (!name)                             \
		return sim_no_context()

static inline size_t sim_round_up(size_t bytes, size_t to)
{
	return (bytes + to - 1) / to * to;
}

/* ---- arena.c ---- */
/* Bytes of the arena, aligned to 2 MiB, that cost nothing until touched, or NULL. */
void *sim_map(size_t bytes);
void sim_unmap(void *address, size_t bytes); /* of a mapping outside the arena, too */

/* ---- space.c ---- */
typedef struct sim_space sim_space_t;
/*
 * Bytes of device memory: small ones from a slab (*space says which), large ones a
 * mapping of their own (*space is NULL).  NULL: the operating system has none.
 */
void *sim_space_take(size_t bytes, sim_space_t **space);
/* Gives a piece of a slab back; of a mapping, the caller calls sim_unmap without the lock. */
void sim_space_give(void *address, sim_space_t *space);
/* All of a slab: its start and *bytes; where its file is kept; no more slots of it are given out. */
uintptr_t sim_space_span(const sim_space_t *slab, size_t *bytes);
struct sim_share **sim_space_share(sim_space_t *slab);
void sim_space_retire(sim_space_t *slab);

/* ---- range.c ---- */
/* A new range that overlaps no other; NULL: no host memory for the record. */
sim_range_t *sim_range_add(sim_range_kind_t kind, uintptr_t start, size_t bytes);
void sim_range_remove(sim_range_t *range);
/* The first range that has a byte in [start, start + bytes), or NULL. */
sim_range_t *sim_range_overlap(uintptr_t start, size_t bytes);

/* ---- memory.c ---- */
/* Pages to give back once the lock is dropped. */
typedef struct {
	void *address;
	size_t bytes;
} sim_leftover_t;
/* Bytes and a range for them, of any kind but RESERVED.  Books nothing on the card. */
CUresult sim_memory_new(sim_range_kind_t kind, size_t bytes, CUdevice device, sim_range_t **range);
/* Ends the range; card and pool have been settled by the caller. */
sim_leftover_t sim_memory_delete(sim_range_t *range);
/* Frees what cuMemFree frees, the card or pool included. */
sim_leftover_t sim_memory_free(sim_range_t *range);
void sim_leftover_drop(sim_leftover_t leftover); /* without the lock */

/* ---- ipc.c ---- */
/* The range goes: its handles open no more; *leftover where it is another process's memory. */
void sim_share_end(sim_range_t *range, sim_leftover_t *leftover);
void sim_share_free(struct sim_share *share);
/* Can it have a handle (CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE)? */
bool sim_ipc_capable(const sim_range_t *range);

/* ---- managed.c ---- */
typedef struct sim_managed sim_managed_t;
CUresult sim_managed_attach(sim_range_t *range);
void sim_managed_detach(sim_range_t *range);
void sim_managed_prefetch(sim_range_t *range, uintptr_t address, size_t bytes, CUmemLocation to,
			  sim_cost_t *cost);
/* The last prefetch is remembered from the call on (CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION). */
void sim_managed_prefetch_asked(sim_range_t *range, uintptr_t address, size_t bytes,
				CUmemLocation to);
void sim_managed_discard(sim_range_t *range, uintptr_t address, size_t bytes);
/* The managed block whose turn it is leaves `device`; false: none. */
bool sim_managed_evict(CUdevice device, sim_cost_t *cost);
void sim_managed_advise(sim_range_t *range, uintptr_t address, size_t bytes, CUmem_advise advice,
			CUmemLocation location);

/* Advice as it stands over a whole piece of a range; type 0: none, or not the same all over. */
typedef struct {
	bool read_mostly;
	uint32_t accessed_by; /* a bit a device */
	bool accessed_by_host;
	CUmemLocation preferred, prefetched;
} sim_advice_t;
sim_advice_t sim_managed_advice(sim_range_t *range, uintptr_t address, size_t bytes);

/* ---- pool.c ---- */
/* Takes the range out of its pool's account. */
void sim_pool_settle(sim_range_t *range);
CUmemoryPool sim_pool_handle(const struct sim_pool *pool);
bool sim_pool_exports(const struct sim_pool *pool);

/* ---- vmm.c ---- */
/* What is mapped at `address` of a reservation. */
typedef struct {
	uintptr_t start;
	size_t bytes;
	CUmemLocation location;
	unsigned int handle_types;
	CUmemAccess_flags access; /* of the device asked for */
} sim_mapping_t;
bool sim_vmm_mapping(const sim_range_t *range, uintptr_t address, CUdevice device,
		     sim_mapping_t *mapping);

/* ---- array.c ---- */
typedef struct sim_array {
	sim_object_t object;
	CUDA_ARRAY3D_DESCRIPTOR format;
	unsigned int element_bytes; /* of an element, or of a 4 x 4 block of a BC format */
	size_t row_bytes, rows, slices; /* as stored: x, y, z or layer */
	size_t bytes;
	char *data;
	sim_space_t *space;
	CUdevice device;
	bool level; /* lives and dies with its mipmap */
} sim_array_t;
void sim_array_drop_context(sim_context_t *context);

/* ---- paging.c ---- */
typedef enum { SIM_USE_READ, SIM_USE_WRITE } sim_use_t;
/*
 * The context's device copies or sets `bytes` of [address, address + span) of any memory,
 * plain host memory included, now: moves managed blocks, and adds all that it costs to
 * *cost.  (A copy touches both its ends, but not where both are plain host memory.)
 */
void sim_touch(const sim_context_t *context, uint64_t address, size_t span, uint64_t bytes,
	       sim_use_t use, sim_cost_t *cost);

/* ---- copy.c ---- */
/* How a call uses memory: may it be plain host memory? */
typedef enum { SIM_ADDRESS_DEVICE, SIM_ADDRESS_HOST, SIM_ADDRESS_ANY } sim_address_t;
/* May the context's device read or write [address, address + bytes)?  `what` names it. */
CUresult sim_check(const sim_context_t *context, uint64_t address, size_t bytes, sim_use_t use,
		   sim_address_t kind, const char *what);
/*
 * Work that goes on in the range of an address: sim_unpin when it is done.  NULL: none.
 * Who frees a range finds it by sim_range_unused, which waits (without sim_lock) while
 * there is any: of a correct program there is none.
 */
sim_range_t *sim_pin(uint64_t address);
void sim_unpin(sim_range_t *range);
sim_range_t *sim_range_unused(uint64_t address);
/* Which memory an address is in. */
typedef enum { SIM_MEMORY_PAGEABLE, SIM_MEMORY_PINNED, SIM_MEMORY_DEVICE, SIM_MEMORY_MANAGED } sim_memory_t;
sim_memory_t sim_memory_at(uint64_t address);

#endif
