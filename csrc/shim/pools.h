/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Asking the driver what memory pools and graphs have reserved, and having them give
 * back what nobody uses.  None of it happens on an allocation that fits the budget,
 * unless the device is over it.
 */
#ifndef EMUV_POOLS_H
#define EMUV_POOLS_H

#include "account.h"

/* The program has made a pool. */
void emuv_pools_note(CUmemoryPool pool, const CUmemPoolProps *props);
/* It has been given one, which is of that kind where it has not made it itself. */
void emuv_pools_met(CUmemoryPool pool, const CUmemPoolProps *props);
/*
 * *slot is the pool's number in the books, 0: nothing of its memory is kept on a device.
 * *device is where its memory counts, from the stream's device on; false: it is host
 * memory.
 */
bool emuv_pools_of(CUmemoryPool pool, CUdevice *device, unsigned int *slot, bool *managed);
unsigned int emuv_pools_slot(const emuv_entry_t *entry); /* of a pool */
/* The same of the device's current pool, which cuMemAllocAsync takes from. */
unsigned int emuv_pools_current(CUdevice device);
/* Another pool may be the current one from now on. */
void emuv_pools_current_changes(void);

/* Takes up what pools and graphs have really reserved. */
void emuv_pools_look(CUdevice device);
/*
 * A reservation did not fit, and pools or graphs keep memory: asks what they really
 * keep, then has them give back what is needed.  True: granted.
 */
bool emuv_pools_make_room(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant);
/* The same for what a graph's launch may take. */
bool emuv_pools_make_graph_room(CUdevice device, uint64_t bytes);
/* After the allocation of a grant that was estimated: does all fit?  False: free it. */
bool emuv_pools_fits(CUdevice device, emuv_grant_t *grant);
/* What did not fit and streams have come to since is released; a load where there is none. */
void emuv_pools_settle(void);

/* What graphs have reserved on the device; false: the driver does not say. */
bool emuv_pools_graph_reserved(CUdevice device, uint64_t *bytes);

void emuv_pools_fork_child(void);

#endif
