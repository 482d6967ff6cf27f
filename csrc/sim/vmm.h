/* SPDX-License-Identifier: GPL-2.0-only */
/* Physical memory by handle (vmm.c), as sharing it with other processes (vmm_share.c) sees it. */
#ifndef EMUV_SIM_VMM_H
#define EMUV_SIM_VMM_H

#include <sys/types.h>

#include "memory.h"

typedef struct {
	CUmemAllocationProp prop;
	size_t bytes;
	int file;                    /* that its bytes are in; its own where it may be exported */
	bool own_file;
	bool imported;               /* another process's: takes nothing of this one's card */
	off_t offset;                /* in the file */
	unsigned int references;     /* what cuMemRelease counts down */
	unsigned int mappings;
	struct vmm_object *handle;   /* NULL without references */
} vmm_t;
struct vmm_object {
	sim_object_t object;
	vmm_t *vmm;
};

/* All with sim_lock held. */
/* NULL: no live handle. */
vmm_t *sim_vmm_get(CUmemGenericAllocationHandle handle);
/* A record with one reference, its bytes in `file`, which is its own; NULL: no memory. */
vmm_t *sim_vmm_new(size_t bytes, const CUmemAllocationProp *prop, int file);

/* ---- vmm_share.c ---- */
/* A file for the bytes of memory that may be exported, which says what it is; -1. */
int sim_vmm_file(size_t bytes, const CUmemAllocationProp *prop);

#endif
