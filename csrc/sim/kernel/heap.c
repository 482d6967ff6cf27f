/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * malloc and free of kernels: a heap in device memory for each context that uses one.
 *
 * CU_LIMIT_MALLOC_HEAP_SIZE bytes, taken when a kernel first asks, given back with the
 * context.  What is free is a list in order of address, outside of the heap: a kernel
 * that writes where it may not harms no list.  First fit; 16 bytes are the unit.
 */
#include <stdlib.h>

#include "engine.h"
#include "internal.h"
#include "memory.h"

#define HEAP_LIMIT 2 /* CU_LIMIT_MALLOC_HEAP_SIZE */
#define UNIT 16

typedef struct piece {
	struct piece *next;
	uint64_t start, bytes;
	bool used;
} piece_t;

typedef struct heap {
	struct heap *next;
	const sim_context_t *context;
	uint64_t id; /* of the context: the primary one lives again */
	piece_t *pieces;
} heap_t;

static pthread_mutex_t heap_lock = PTHREAD_MUTEX_INITIALIZER;
static heap_t *heaps;

/* heap_lock held.  NULL: there is none yet. */
static heap_t *find(const sim_context_t *context)
{
	heap_t *heap = heaps;

	while (heap && (heap->context != context || heap->id != context->id))
		heap = heap->next;
	return heap;
}

/* sim_lock and heap_lock held. */
static void make(sim_context_t *context)
{
	uint64_t bytes = context->limits[HEAP_LIMIT] / UNIT * UNIT;
	heap_t *heap = calloc(1, sizeof(*heap));
	piece_t *all = calloc(1, sizeof(*all));
	sim_range_t *range = NULL;

	if (heap && all && sim_card_take(context->device, bytes)) {
		if (sim_memory_new(SIM_RANGE_DEVICE, bytes, context->device, &range) == CUDA_SUCCESS)
			range->context = context;
		else
			sim_card_give(context->device, bytes);
	}
	if (!range) {
		free(heap);
		free(all);
		return;
	}
	*all = (piece_t){ NULL, range->start, bytes, false };
	*heap = (heap_t){ heaps, context, context->id, all };
	heaps = heap;
}

/* Comes back with heap_lock held; NULL: no memory on the card. */
static heap_t *heap_of(sim_context_t *context)
{
	heap_t *heap;

	pthread_mutex_lock(&heap_lock);
	heap = find(context);
	if (heap)
		return heap;
	pthread_mutex_unlock(&heap_lock); /* sim_lock comes first */
	sim_lock_take();
	pthread_mutex_lock(&heap_lock);
	if (!find(context))
		make(context);
	sim_lock_drop();
	return find(context);
}

uint64_t sim_heap_allocate(emuv_thread_t *thread, uint64_t bytes)
{
	sim_context_t *context = sim_core_of(thread)->run->what->context;
	uint64_t address = 0;
	heap_t *heap;

	if (!bytes || bytes > SIM_MAX_BYTES)
		return 0;
	bytes = sim_round_up(bytes, UNIT);
	heap = heap_of(context);
	for (piece_t *piece = heap ? heap->pieces : NULL; piece; piece = piece->next) {
		piece_t *rest;

		if (piece->used || piece->bytes < bytes)
			continue;
		if (piece->bytes > bytes) {
			rest = malloc(sizeof(*rest));
			if (!rest)
				break;
			*rest = (piece_t){ piece->next, piece->start + bytes, piece->bytes - bytes,
					   false };
			piece->next = rest;
			piece->bytes = bytes;
		}
		piece->used = true;
		address = piece->start;
		break;
	}
	pthread_mutex_unlock(&heap_lock);
	return address;
}

static void join(piece_t *piece)
{
	piece_t *next = piece->next;

	if (piece->used || !next || next->used)
		return;
	piece->bytes += next->bytes;
	piece->next = next->next;
	free(next);
}

void sim_heap_release(emuv_thread_t *thread, uint64_t address)
{
	sim_context_t *context = sim_core_of(thread)->run->what->context;
	bool found = !address;
	heap_t *heap;

	pthread_mutex_lock(&heap_lock);
	for (heap = heaps; heap; heap = heap->next) {
		piece_t *last = NULL;

		if (heap->context != context || heap->id != context->id)
			continue;
		for (piece_t *piece = heap->pieces; piece && !found; last = piece, piece = piece->next) {
			if (piece->start != address || !piece->used)
				continue;
			piece->used = false;
			join(piece);
			if (last)
				join(last);
			found = true;
			break;
		}
	}
	pthread_mutex_unlock(&heap_lock);
	if (!found)
		sim_trap(thread, EMUV_TRAP_INSTRUCTION, "free of 0x%llx, which malloc did not give",
			 (unsigned long long)address);
}

void sim_heap_drop_context(const sim_context_t *context)
{
	pthread_mutex_lock(&heap_lock);
	for (heap_t **at = &heaps; *at;) {
		heap_t *heap = *at;

		if (heap->context != context) {
			at = &heap->next;
			continue;
		}
		*at = heap->next;
		while (heap->pieces) {
			piece_t *piece = heap->pieces;

			heap->pieces = piece->next;
			free(piece);
		}
		free(heap);
	}
	pthread_mutex_unlock(&heap_lock);
}
