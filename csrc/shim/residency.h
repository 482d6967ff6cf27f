/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the pages of a spilled range are.  A range gets preferred location = CPU
 * and accessed-by = its device once; from then on no page of it migrates by
 * itself, and only a prefetch of emuV's moves one (docs/driver-behaviour.md).
 * That is what makes the physical budget hold.
 */
#ifndef EMUV_RESIDENCY_H
#define EMUV_RESIDENCY_H

#include "account.h"

/*
 * Pins a new managed range to the host, prefetches its first `head` bytes to the
 * device, and, when `eager`, populates the rest on the host.  An error: the range
 * would migrate as the driver likes and must not be used.
 */
CUresult emuv_residency_place(const emuv_where_t *where, CUdeviceptr address, uint64_t bytes,
			      uint64_t head, bool eager);

/*
 * Moves what a lowered vram no longer covers back to the host: blocks of spilled ranges,
 * then the program's own managed memory, which stays pinned there.
 */
void emuv_residency_shrink(const emuv_where_t *where);
/*
 * Moves blocks of spilled ranges back to the host until there is room for so much plain
 * device memory; false: there is not.  Nothing is reserved by it.
 */
bool emuv_residency_make_room(const emuv_where_t *where, uint64_t bytes);

#endif
