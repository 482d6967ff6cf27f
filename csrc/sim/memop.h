/* SPDX-License-Identifier: GPL-2.0-only */
/* Stream memory operations as a piece of work: memop.c, and graphs' nodes. */
#ifndef EMUV_SIM_MEMOP_H
#define EMUV_SIM_MEMOP_H

#include "graph_abi.h"
#include "memory.h"
#include "work.h"

typedef struct {
	sim_work_t work;
	CUstreamBatchMemOpParams *ops;
	unsigned int count;
	unsigned int next; /* the first that is not done */
} sim_memop_work_t;
extern const sim_work_kind_t sim_memop_kind;

/* sim_lock held. */
CUresult sim_memop_check(const sim_context_t *context, const CUstreamBatchMemOpParams *ops,
			 unsigned int count);
/* NULL: no memory. */
sim_work_t *sim_memop_new(sim_context_t *context, const CUstreamBatchMemOpParams *ops,
			  unsigned int count);

#endif
