/* SPDX-License-Identifier: GPL-2.0-only */
/* cuMemset as a piece of work: set.c, and graphs' nodes. */
#ifndef EMUV_SIM_SET_H
#define EMUV_SIM_SET_H

#include "memory.h"
#include "work.h"

typedef struct {
	uint64_t address;
	size_t pitch; /* bytes */
	size_t width; /* bytes of a value: 1, 2 or 4 */
	size_t count; /* values in a row */
	size_t rows;
	unsigned int value;
} sim_set_t;
typedef struct {
	sim_work_t work;
	sim_set_t set;
	sim_range_t *pinned; /* while it runs */
} sim_set_work_t;
extern const sim_work_kind_t sim_set_kind;

/* sim_lock held.  Would it be legal, as memory is now? */
CUresult sim_set_check(const sim_context_t *context, const sim_set_t *set);

#endif
