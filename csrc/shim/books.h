/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the account_*.c files share: the books themselves and their one lock.
 * Nobody else includes this; account.h is the way in.
 *
 * Every function here wants the lock held, but for start and fork.  Nothing is
 * called under it that may block, allocate or reach the driver, with two exceptions:
 * the ledger's table grows in emuv_ledger_promise, and emuv_share_settle looks at
 * another process's claim that is under way, for some milliseconds if that is stopped.
 */
#ifndef EMUV_BOOKS_H
#define EMUV_BOOKS_H

#include <pthread.h>

#include "account.h"
#include "extents.h"
#include "shared.h"

/* A memory pool of the driver's: account_pools.c. */
typedef struct {
	uint64_t handle; /* 0: vacant */
	uint64_t live;   /* charged as device memory, what is under way included */
	uint64_t reserved, unsure;
	uint64_t asked;  /* what all allocations ever may have made it grow by */
	uint64_t begun;  /* ... those that are under way */
	uint64_t seen;   /* all that the driver ever said it has reserved, or-ed */
	uint64_t refused_room;          /* with no more room than this it grew too much */
	uint64_t spilled, spilled_high; /* its allocations in managed memory */
	uint32_t lookers; /* threads that ask the driver about it */
	uint32_t answers; /* that they brought; wraps */
	int16_t device;
	bool leaving; /* being destroyed: nobody asks the driver about it any more */
	bool gone;    /* destroyed, and not all of it freed */
	bool wider; /* it was seen to grow by more than was asked of it: in pieces */
} emuv_pool_t;
#define EMUV_MAX_POOLS 256

typedef struct {
	pthread_mutex_t lock;
	emuv_ledger_t ledger;
	emuv_budget_device_t devices[EMUV_MAX_DEVICES];
	uint64_t leaving[EMUV_MAX_DEVICES]; /* charged as resident, on their way to the host */
	uint64_t graph_pending[EMUV_MAX_DEVICES]; /* of graph_bytes: launches under way */
	uint32_t graph_answers[EMUV_MAX_DEVICES]; /* the driver's, that have come in; wraps */
	emuv_pool_t pools[EMUV_MAX_POOLS];
	uint64_t others_leaving[EMUV_MAX_DEVICES]; /* ... of the run's other processes */
	emuv_share_t *share; /* NULL: the budget is this process's alone */
	uint64_t applied_generation; /* of the control block */
	uint64_t last_serial;        /* of entries, in the order of entering */
	uint64_t last_ticket;        /* of moves of spilled ranges' blocks */
	emuv_extents_t *retired;     /* maps of ranges that are gone; emuv_books_sweep */
	uint32_t allocation;         /* enum emuv_allocation; atomic */
	uint32_t over; /* atomic; bit i: device i's resident heads exceed its vram */
	bool said_spill, said_denial, said_clip;
	uint64_t vmm_homes[EMUV_MAX_DEVICES]; /* atomic; emuv_account_vmm_home */
	/* Publishing goes to the private one until the process has a segment file. */
	emuv_segment_t *segment;
	const emuv_control_t *control; /* what controllers write: the segment's, or the run's */
	emuv_segment_t private_segment;
} emuv_books_t;

extern emuv_books_t g_books;

/* Takes the lock that another thread has. */
void emuv_books_wait(void);

static inline void emuv_books_lock(void)
{
	if (__builtin_expect(pthread_mutex_trylock(&g_books.lock), 0))
		emuv_books_wait();
}

static inline void emuv_books_unlock(void)
{
	pthread_mutex_unlock(&g_books.lock);
}

/* Copies the device's counters out, but for calls[], which is counted in place. */
void emuv_books_publish(CUdevice device);
/*
 * Takes up what a controller wrote, and what the others of a shared run hold; one
 * atomic load when there is neither.
 */
void emuv_books_refresh(CUdevice device);
/* The same for a decision that may be made again; see shared.h. */
static inline void emuv_books_look(CUdevice device, const emuv_attempt_t *attempt)
{
	emuv_books_refresh(device);
	if (__builtin_expect(attempt->count_pending, 0))
		emuv_share_look(g_books.share, device, &g_books.devices[device], attempt,
				&g_books.others_leaving[device]);
}
/*
 * After a decision that may have raised a device's charges; `full`: all was granted,
 * on the device; `guess`: so much of the rise need not fit.  False: undo it, unlock, and
 * ask emuv_books_again().
 */
static inline bool emuv_books_settle(CUdevice device, emuv_attempt_t *attempt, bool full,
				     uint64_t guess)
{
	if (__builtin_expect(!g_books.share, 1))
		return true;
	return emuv_share_settle(g_books.share, device, &g_books.devices[device], attempt, full,
				 guess);
}
/* Without the lock. */
static inline bool emuv_books_again(emuv_attempt_t *attempt)
{
	return __builtin_expect(attempt->again, 0) && emuv_share_again(g_books.share, attempt);
}
/* What is charged as being on the device and not on its way to the host. */
uint64_t emuv_books_staying(CUdevice device);
/* What is on the device, ours and the others', and `want` more, beyond vram. */
uint64_t emuv_books_excess(CUdevice device, uint64_t want);
/* After vram fell or a head came back: does some of the heads have to leave? */
void emuv_books_weigh(CUdevice device);
/*
 * Enters what there is a promise for.  Where the driver gave out a key that was
 * still on the books, the old entry is gone (freed in a way emuV does not see), and
 * so is its charge.
 */
void emuv_books_enter(emuv_entry_t *entry);
/* Of a pool (how >> EMUV_POOL_SHIFT), as emuv_budget_reserve. */
bool emuv_books_pool_reserve(CUdevice device, uint64_t bytes, unsigned int how,
			     emuv_grant_t *grant);
/* The pool of a number, or NULL. */
emuv_pool_t *emuv_books_pool(unsigned int slot);
/* The pool is as it was before a reservation that did not stand. */
void emuv_books_pool_undo(emuv_pool_t *pool, const emuv_pool_t *before);
/* A pool's grant has become an entry, or was rolled back. */
void emuv_books_pool_ends(const emuv_grant_t *grant, bool undone);
/* An entry with EMUV_ENTRY_POOL: entered as spilled, uncharged. */
void emuv_books_pool_spilled(const emuv_entry_t *entry);
void emuv_books_pool_freed(const emuv_entry_t *entry);
/* Adds an entry's bytes to the statistic that they are in, if to any; or takes them out. */
void emuv_books_tally(const emuv_entry_t *entry, bool add);
/* Uncharges an entry that has left the ledger. */
void emuv_books_uncharge(const emuv_entry_t *entry);

/* ---- spilled ranges: account_residency.c ---- */

/*
 * Blocks are counted from a range's start.  Without a map (emuv_entry_t.link) the first
 * `resident` bytes are on the device; with one, what has a tag in it is charged: a
 * ticket, eight times, and one of these.
 */
enum { EMUV_LEAVING = 1, EMUV_RESIDENT, EMUV_NEW, EMUV_AGAIN, EMUV_ARRIVING };
#define EMUV_TAG(ticket, kind) ((ticket) << 3 | (kind))

static inline emuv_extents_t *emuv_books_map(const emuv_entry_t *entry)
{
	bool may = entry->kind == EMUV_KIND_MEMORY && entry->placement == EMUV_PLACED_MANAGED;

	return may ? (emuv_extents_t *)(uintptr_t)entry->link : NULL;
}

/* The program's own, which migrates as it likes and is charged as device memory; it need not. */
static inline bool emuv_books_movable(const emuv_entry_t *entry)
{
	return entry->placement == EMUV_PLACED_DEVICE && entry->flags & EMUV_ENTRY_OWN_MANAGED &&
	       !(entry->flags & EMUV_ENTRY_STREAM_ORDER) &&
	       g_books.devices[entry->device].can_spill;
}

/* What blocks [start, end) of a range take of the device. */
uint64_t emuv_books_block_bytes(const emuv_entry_t *entry, uint32_t start, uint32_t end);
uint32_t emuv_books_blocks(const emuv_entry_t *entry);
/*
 * Takes the lock and finds the spilled range as it is now, with a map that has a vacant
 * place for each of its runs and `vacant` more; 0: as it is.  NULL: gone, or no memory;
 * the lock is held all the same.
 */
emuv_entry_t *emuv_books_range(uint64_t key, uint64_t serial, uint32_t vacant);
/* The range is as it was, but nobody waits for its moves any more. */
void emuv_books_calm(emuv_entry_t *entry);
/* The map of a range that is gone; without the lock, emuv_books_sweep frees them. */
void emuv_books_retire(emuv_extents_t *map);
void emuv_books_sweep(void);

#endif
