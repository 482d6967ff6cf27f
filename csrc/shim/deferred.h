/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream-ordered frees of spilled memory.  cuMemFreeAsync does not take managed
 * memory, and cuMemFree is not stream-ordered: so an event is recorded in the
 * stream, and the range is freed once the event has come to pass, by whichever
 * later call looks.  It stays charged, and on the list, until then.
 */
#ifndef EMUV_DEFERRED_H
#define EMUV_DEFERRED_H

#include "account.h"

/*
 * Takes over an entry (already taken from the ledger) to be freed after what is in
 * `stream` now; the stream's context, `context`, is current.  An error: nothing was
 * taken over.
 */
CUresult emuv_deferred_free(const emuv_entry_t *entry, CUcontext context, CUstream stream,
			    bool per_thread);
/* Frees what has become free.  Cheap when nothing waits. */
void emuv_deferred_reap(void);
/* What waits for the device: bytes, and of them those on it.  False: nothing. */
bool emuv_deferred_coming(CUdevice device, uint64_t *bytes, uint64_t *resident);
/* The program has freed this address, and its time has not come yet. */
bool emuv_deferred_waits(CUdeviceptr address);

/*
 * Around the destruction of a context, with which its events and ranges go.  `take`
 * sets aside what waits in it, so that nobody asks the driver about it meanwhile; it
 * still counts as waiting.  Then `gone` ends it, or `put_back` undoes the taking.  A
 * ticket for either; 0: nothing waits.
 */
uint64_t emuv_deferred_take(CUcontext context);
void emuv_deferred_gone(uint64_t ticket);
void emuv_deferred_put_back(uint64_t ticket);

void emuv_deferred_fork_child(void);

#endif
