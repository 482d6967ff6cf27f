/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream-ordered frees of spilled memory.  cuMemFreeAsync does not take managed
 * memory, and cuMemFree is not stream-ordered: so an event is recorded in the
 * stream, and the range is freed once the event has come to pass, by whichever
 * later call looks.  It stays charged until then.
 */
#ifndef EMUV_DEFERRED_H
#define EMUV_DEFERRED_H

#include "account.h"

/*
 * Takes over an entry (already taken from the ledger) to be freed after what is in
 * `stream` now; the stream's context is current.  An error: nothing was taken over.
 */
CUresult emuv_deferred_free(const emuv_entry_t *entry, CUstream stream, bool per_thread);
/* Frees what has become free.  Cheap when nothing waits. */
void emuv_deferred_reap(void);
/*
 * Waits (at most EMUV_DEFERRED_WAIT_MS) for the oldest waiting range and frees it;
 * false where none waits or the time is over.
 */
#define EMUV_DEFERRED_WAIT_MS 10000
bool emuv_deferred_wait_one(void);
/* The context has been destroyed, and with it the ranges and events that wait in it. */
void emuv_deferred_context_gone(CUcontext context);
void emuv_deferred_fork_child(void);

#endif
