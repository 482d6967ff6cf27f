/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the bytes of simulated memory come from.
 *
 * A piece of 1 MiB or more is a stretch of the arena of its own (arena.c).  Smaller
 * pieces are slots of a slab: 2 MiB of equal slots, a multiple of 512 bytes each.  There are four slot sizes to each
 * doubling, so at most a fifth of a slot is lost.
 *
 * Invariants: a slab is in its class's list exactly while it has a free slot; at
 * most one empty slab a class is kept, and it holds at most PURGE_BYTES of memory.
 * One that other processes map counts as full from then on, and goes with its last slot.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "memory.h"

#define CLASSES 40
#define SMALL_BYTES ((size_t)1 << 20) /* from here on, a mapping */
/* A free slot this large gives its pages back at once; smaller ones when the slab is empty. */
#define SLOT_PURGE_BYTES ((size_t)64 << 10)
#define PURGE_BYTES ((size_t)256 << 10)

struct sim_space {
	struct sim_space *prev, *next;
	char *start;
	size_t slot_bytes;
	unsigned int class;
	unsigned int slots, used;
	unsigned int fresh; /* slots from here on were never given out */
	unsigned int freed; /* entries of `free` */
	struct sim_share *share; /* the file that other processes map it by: ipc.c */
	uint16_t free[];
};

static sim_space_t *partial[CLASSES];

/* The class of a size below SMALL_BYTES, and its slot size. */
static unsigned int class_of(size_t bytes, size_t *slot_bytes)
{
	unsigned int granules = (unsigned int)((bytes + SIM_GRANULE_BYTES - 1) / SIM_GRANULE_BYTES);
	if (granules <= 8) {
		*slot_bytes = granules * SIM_GRANULE_BYTES;
		return granules - 1;
	}
	unsigned int shift = 31 - (unsigned int)__builtin_clz(granules - 1) - 2;
	unsigned int quarters = ((granules - 1) >> shift) + 1; /* 5 to 8 */
	*slot_bytes = ((size_t)quarters << shift) * SIM_GRANULE_BYTES;
	return 8 + (shift - 1) * 4 + (quarters - 5);
}

static void list_add(sim_space_t *slab)
{
	slab->prev = NULL;
	slab->next = partial[slab->class];
	if (slab->next)
		slab->next->prev = slab;
	partial[slab->class] = slab;
}

static void list_remove(sim_space_t *slab)
{
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		partial[slab->class] = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
}

static sim_space_t *slab_new(unsigned int class, size_t slot_bytes)
{
	unsigned int slots = (unsigned int)(SIM_BLOCK_BYTES / slot_bytes);
	sim_space_t *slab = calloc(1, sizeof(*slab) + slots * sizeof(slab->free[0]));
	if (!slab)
		return NULL;
	slab->start = sim_map(SIM_BLOCK_BYTES);
	if (!slab->start) {
		free(slab);
		return NULL;
	}
	slab->slot_bytes = slot_bytes;
	slab->class = class;
	slab->slots = slots;
	list_add(slab);
	return slab;
}

void *sim_space_take(size_t bytes, sim_space_t **space)
{
	*space = NULL;
	if (bytes >= SMALL_BYTES)
		return sim_map(bytes);

	size_t slot_bytes;
	unsigned int class = class_of(bytes, &slot_bytes);
	sim_space_t *slab = partial[class] ? partial[class] : slab_new(class, slot_bytes);
	if (!slab)
		return NULL;
	unsigned int slot = slab->freed ? slab->free[--slab->freed] : slab->fresh++;
	if (++slab->used == slab->slots)
		list_remove(slab);
	*space = slab;
	return slab->start + slot * slot_bytes;
}

void sim_space_give(void *address, sim_space_t *slab)
{
	if (!slab)
		return;
	if (slab->share) {
		if (--slab->used)
			return;
		sim_share_free(slab->share);
		sim_unmap(slab->start, SIM_BLOCK_BYTES);
		free(slab);
		return;
	}
	if (slab->used-- == slab->slots)
		list_add(slab);
	slab->free[slab->freed++] = (uint16_t)((size_t)((char *)address - slab->start) / slab->slot_bytes);
	if (slab->used) {
		if (slab->slot_bytes >= SLOT_PURGE_BYTES)
			madvise(address, slab->slot_bytes, MADV_DONTNEED);
		return;
	}
	if (slab->prev || slab->next) {
		list_remove(slab);
		sim_unmap(slab->start, SIM_BLOCK_BYTES);
		free(slab);
		return;
	}
	if (slab->fresh * slab->slot_bytes > PURGE_BYTES) {
		madvise(slab->start, SIM_BLOCK_BYTES, MADV_DONTNEED);
		slab->fresh = slab->freed = 0;
	}
}

uintptr_t sim_space_span(const sim_space_t *slab, size_t *bytes)
{
	*bytes = SIM_BLOCK_BYTES;
	return (uintptr_t)slab->start;
}

struct sim_share **sim_space_share(sim_space_t *slab)
{
	return &slab->share;
}

void sim_space_retire(sim_space_t *slab)
{
	if (partial[slab->class] == slab || slab->prev)
		list_remove(slab);
	slab->prev = slab->next = NULL;
}
