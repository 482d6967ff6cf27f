/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies of boxes: rows of bytes, rows in slices, slices in depth.  What every copy of
 * two and three dimensions, and every copy that involves an array, comes down to.
 */
#ifndef EMUV_SIM_BOX_H
#define EMUV_SIM_BOX_H

#include "memory.h"

/* One end of a copy, as the program describes it. */
typedef struct {
	CUmemorytype type;
	uint64_t address; /* of HOST, DEVICE, UNIFIED */
	CUarray array;    /* of ARRAY */
	size_t x, y, z;   /* x in bytes */
	size_t pitch;     /* bytes from row to row; 0: as the copy needs */
	size_t height;    /* rows from slice to slice; 0: as the copy needs */
} sim_side_t;
typedef struct {
	sim_side_t from, to;
	size_t width, height, depth; /* width in bytes */
} sim_box_t;

/* Checks both ends, then moves the bytes.  Nothing of an extent of 0. */
CUresult sim_box_copy(sim_context_t *context, const sim_box_t *box);
/* The same from a synchronous or an asynchronous entry point. */
CUresult sim_box_now(const sim_box_t *box, bool per_thread);
CUresult sim_box_async(const sim_box_t *box, CUstream stream, bool per_thread);

#endif
