/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the account_*.c files share: the books themselves and their one lock.
 * Nobody else includes this; account.h is the way in.
 *
 * Every function here wants the lock held, but for start and fork.  Nothing is
 * called under it that may block, allocate or reach the driver (the ledger's table
 * grows in emuv_ledger_promise, which is the exception).
 */
#ifndef EMUV_BOOKS_H
#define EMUV_BOOKS_H

#include <pthread.h>

#include "account.h"

typedef struct {
	pthread_mutex_t lock;
	emuv_ledger_t ledger;
	emuv_budget_device_t devices[EMUV_MAX_DEVICES];
	uint64_t leaving[EMUV_MAX_DEVICES]; /* charged as resident, on their way to the host */
	uint64_t applied_generation; /* of the control block */
	uint64_t last_serial;        /* of entries, in the order of entering */
	uint32_t allocation;         /* enum emuv_allocation; atomic */
	uint32_t over; /* atomic; bit i: device i's resident heads exceed its vram */
	bool said_spill, said_denial;
	uint64_t vmm_homes[EMUV_MAX_DEVICES]; /* atomic; emuv_account_vmm_home */
	/* Publishing goes to the private one until the process has a segment file. */
	emuv_segment_t *segment;
	const emuv_control_t *control; /* what controllers write: the segment's */
	emuv_segment_t private_segment;
} emuv_books_t;

extern emuv_books_t g_books;

static inline void emuv_books_lock(void)
{
	pthread_mutex_lock(&g_books.lock);
}

static inline void emuv_books_unlock(void)
{
	pthread_mutex_unlock(&g_books.lock);
}

/* Copies the device's counters out, but for calls[], which is counted in place. */
void emuv_books_publish(CUdevice device);
/* Takes up what a controller wrote; one atomic load when it wrote nothing. */
void emuv_books_refresh(CUdevice device);
/* What is charged as being on the device and not on its way to the host. */
uint64_t emuv_books_staying(CUdevice device);
/* After vram fell or a head came back: does some of the heads have to leave? */
void emuv_books_weigh(CUdevice device);
/*
 * Enters what there is a promise for.  Where the driver gave out a key that was
 * still on the books, the old entry is gone (freed in a way emuV does not see), and
 * so is its charge.
 */
void emuv_books_enter(emuv_entry_t *entry);
/* Uncharges an entry that has left the ledger. */
void emuv_books_uncharge(const emuv_entry_t *entry);

#endif
