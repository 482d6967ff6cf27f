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
/*
 * The program's prefetches of spilled ranges come about in stream order, too.  `ready`
 * makes what `moved` takes, before the driver is asked for the prefetch: NULL, there is
 * no event to be had.  `moved` settles the moves (account.h) when all that is in `stream`
 * now is done; `not_moved` gives back what `ready` made.
 */
typedef struct waiting emuv_deferred_t;
emuv_deferred_t *emuv_deferred_ready(CUcontext context);
void emuv_deferred_moved(emuv_deferred_t *ready, const emuv_move_t *moves, size_t n_moves,
			 CUstream stream, bool per_thread);
void emuv_deferred_not_moved(emuv_deferred_t *ready);
/*
 * A range of so many bytes that was freed in this stream and is there still: what comes
 * in the stream from now on may have it, without waiting and without a call that might
 * wait (cuMemFree does, for the whole device).  It is the caller's, as `entry`, charged as
 * it was; the caller enters it again.  `pool`: as its entry has it.
 */
bool emuv_deferred_reuse(const emuv_where_t *where, uint64_t bytes, uint32_t pool, CUstream stream,
			 bool per_thread, emuv_entry_t *entry);
/* Does anything wait? */
bool emuv_deferred_any(void);
/* Frees what has become free.  Cheap when nothing waits. */
void emuv_deferred_reap(void);
/* The same, but not past `most` that are still to come. */
void emuv_deferred_reap_some(int most);
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
