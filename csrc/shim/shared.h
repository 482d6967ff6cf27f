/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * This process's part in its run's shared budget (emuv_shared.h): joining it, and
 * claims.  No lock is taken that another process could hold, and nothing is waited for
 * but a claim of another that is under way, for some milliseconds.
 *
 * A decision of the books (budget.h) is made under the books' lock with the others'
 * sums as last seen, and then settled:
 *
 *	emuv_attempt_t attempt = { 0 };
 *	do {
 *		lock, refresh; decide; if (!emuv_books_settle(…)) undo; publish; unlock
 *	} while (emuv_attempt_again(&attempt));
 *
 * Settling publishes the claim, reads the others again, and then holds it or asks for
 * another decision.  Two claims that see each other: the lower slot's stays, the
 * higher's withdraws and comes again, so one of them goes through.  One that is stopped
 * with its claim up counts as holding it once it was waited for.
 */
#ifndef EMUV_SHARE_H
#define EMUV_SHARE_H

#include "budget.h"
#include "config.h"
#include "cuda_abi.h"
#include "emuv_shared.h"

/* In a page of its own, which the kernel wipes in a forked child: whose slot it is. */
typedef struct emuv_share {
	emuv_shared_t *file; /* NULL: not ours (any more) */
	uint64_t self;
	unsigned int slot;
	uint64_t looked_ms; /* atomic; when the dead were last looked for thoroughly */
	/* One more than the column of each of the process's devices; 0: it is none of them. */
	uint8_t column[EMUV_MAX_DEVICES];
} emuv_share_t;

/* A decision that may have to be made again.  Zeroed at first. */
typedef struct {
	unsigned int tries;
	bool again;         /* undo what was decided, unlock, and come back */
	bool reap, pause;   /* ... after this */
	bool looked;        /* for the dead */
	bool patient;       /* claims in the way are of the living: wait for them */
	bool count_pending; /* ... have been waited for: they count as held */
} emuv_attempt_t;

/*
 * Joins the run's file and takes a slot; NULL, with the reason said.  Fits in before
 * the driver is initialised: a shared budget that is not shared is not one.
 */
emuv_share_t *emuv_share_join(const emuv_config_t *config);
/* Which card a device is, by a number that all processes agree on. */
void emuv_share_card(emuv_share_t *share, CUdevice device, uint64_t card);
/* Gives the slot up: nothing has been charged to it. */
void emuv_share_leave(emuv_share_t *share);
/* In a forked child, which has no part in it. */
void emuv_share_fork_child(emuv_share_t *share);

/* Under the books' lock: */

/* Fills in what others hold; with `attempt`, as far as it counts. */
void emuv_share_look(const emuv_share_t *share, CUdevice device, emuv_budget_device_t *budget,
		     const emuv_attempt_t *attempt, uint64_t *others_leaving);
/* What the device's charges are now, asked or unasked. */
void emuv_share_publish(const emuv_share_t *share, CUdevice device,
			const emuv_budget_device_t *budget, uint64_t leaving);
/*
 * After a decision.  `full`: all that was asked for was granted, on the device; `guess`:
 * so much of the rise need not fit, and is published afterwards.  False: the decision
 * does not stand; the caller undoes it.
 */
bool emuv_share_settle(const emuv_share_t *share, CUdevice device,
		       const emuv_budget_device_t *budget, emuv_attempt_t *attempt, bool full,
		       uint64_t guess);

/* Without the lock: whether to decide again, after a pause and a look for the dead. */
bool emuv_share_again(emuv_share_t *share, emuv_attempt_t *attempt);
/* Frees the slots of the dead: for reports. */
void emuv_share_tidy(emuv_share_t *share);

#endif
