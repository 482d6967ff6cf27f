/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the driver takes of a device by itself, for contexts and the code that runs in
 * them: found by comparing what is in use with what is charged.
 */
#ifndef EMUV_OVERHEAD_H
#define EMUV_OVERHEAD_H

#include "account.h"

/* What a device has in use beyond what emuV has charged: contexts, and other processes. */
typedef struct {
	bool known;
	int whole_card; /* other processes' too */
	int64_t bytes;
} emuv_use_t;

/* Looks up to `looks` times, until nothing was charged or released meanwhile. */
emuv_use_t emuv_use_measure(CUdevice device, bool has_context, int looks);
/*
 * What came about between two measurements, and the flags that say how well it is known.
 * Of a whole card it is an upper bound, for which nobody is refused.
 */
uint64_t emuv_use_grown(CUdevice device, emuv_use_t before, emuv_use_t after, uint64_t *flags);

/*
 * Measures around a call that loads code, or that unloads it; seldom enough to cost a
 * small part of the time.  What is not measured then is found by emuv_overhead_settle.
 */
bool emuv_overhead_begin(CUdevice device, emuv_use_t *before);
/* After a load: what it took is charged, whatever the budget says; the bytes. */
uint64_t emuv_overhead_loaded(CUdevice device, const emuv_use_t *before);
/* After an unload, for which `given` bytes were uncharged already. */
void emuv_overhead_unloaded(CUdevice device, const emuv_use_t *before, uint64_t given);
/* Code was loaded or set up that the driver may take memory for later. */
void emuv_overhead_expect(CUdevice device);

/*
 * Charges what the driver was found to have taken since (code that is loaded when it is
 * first used, local memory, heaps), where it can be told from other processes'.  For the
 * moments when room is short: one atomic load where no code was ever loaded.
 */
bool emuv_overhead_due(CUdevice device);
void emuv_overhead_settle(CUdevice device);
/* The last context of a device is gone, and all that goes with it. */
void emuv_overhead_ends(CUdevice device);

void emuv_overhead_fork_child(void);

#endif
