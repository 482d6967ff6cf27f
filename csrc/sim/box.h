/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies of boxes: rows of bytes, rows in slices, slices in depth.  What every copy of
 * two and three dimensions, and every copy that involves an array, comes down to.
 */
#ifndef EMUV_SIM_BOX_H
#define EMUV_SIM_BOX_H

#include "memory.h"
#include "work.h"

/* One end of a copy, as the program describes it. */
typedef struct {
	CUmemorytype type;
	uint64_t address; /* of HOST, DEVICE, UNIFIED */
	CUarray array;    /* of ARRAY */
	size_t x, y, z;   /* x in bytes */
	size_t pitch;     /* bytes from row to row; 0: as the copy needs */
	size_t height;    /* rows from slice to slice; 0: as the copy needs */
} sim_side_t;

static inline sim_side_t sim_device_at(uint64_t address)
{
	return (sim_side_t){ .type = CU_MEMORYTYPE_DEVICE, .address = address };
}

static inline sim_side_t sim_host_at(const void *address)
{
	return (sim_side_t){ .type = CU_MEMORYTYPE_HOST, .address = (uintptr_t)address };
}
typedef struct {
	sim_side_t from, to;
	size_t width, height, depth; /* width in bytes */
} sim_box_t;

/* A copy as a piece of work. */
typedef struct {
	sim_work_t work;
	sim_box_t box;
	void *staged; /* what pageable memory held when the copy was submitted; or NULL */
	sim_range_t *pinned[2]; /* while it runs */
} sim_copy_work_t;
extern const sim_work_kind_t sim_copy_kind;

/* copy2d.c */
sim_box_t sim_box_of(const CUDA_MEMCPY3D *descriptor);
/* sim_lock held.  Would the copy be legal, as memory is now? */
CUresult sim_box_check(const sim_context_t *context, const sim_box_t *box);
/*
 * A synchronous or an asynchronous entry point; nothing happens for an extent of 0.
 * When each of them returns is documented ("API synchronization behavior"):
 *   now     when the bytes are there; of device memory to device memory: at once
 *   async   at once; from pageable memory: when the bytes have been taken (large ones:
 *           when they are there); to pageable memory, between host memory: when they are
 */
CUresult sim_box_now(const sim_box_t *box, bool per_thread);
CUresult sim_box_async(const sim_box_t *box, CUstream stream, bool per_thread);

#endif
