/* SPDX-License-Identifier: GPL-2.0-only */
/* What the hooks of the program's own hints share: hooks_hints.c, hooks_prefetch_batch.c. */
#ifndef EMUV_HINTS_H
#define EMUV_HINTS_H

#include "account.h"

/* Whose memory begins at an address. */
enum emuv_hinted {
	EMUV_HINTED_PASS,    /* may be hinted about as the program likes, to there */
	EMUV_HINTED_SPILLED, /* in a spilled range */
	EMUV_HINTED_STAYS,   /* must not be moved there: `keep` is where it may be */
};
typedef struct {
	enum emuv_hinted kind;
	uint64_t bytes;      /* from the address on, of what was asked for, this holds */
	emuv_entry_t range;  /* key 0: not in the ledger */
	CUmemLocation keep;
} emuv_hinted_t;

/*
 * What is to be done about a prefetch of memory that begins at `address` to `to`.  Asks
 * the ledger, and for addresses inside of ranges the driver where they begin.
 */
emuv_hinted_t emuv_hints_look(CUdeviceptr address, uint64_t bytes, CUmemLocation to);
/*
 * Names the stream, so that two prefetches of one name are known to come about in the
 * order of their calls.
 */
uint64_t emuv_hints_owner(const emuv_where_t *where, CUstream stream, bool per_thread);
/* What emuV itself has sent to the device in this range's context has arrived. */
bool emuv_hints_head_arrived(const emuv_entry_t *range);

#define EMUV_HINTS_REAP 32 /* moves still under way that a hint looks at, at most */

#endif
