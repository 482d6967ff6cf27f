/* SPDX-License-Identifier: GPL-2.0-only */
/* What contexts own and take, and what goes with them. */
#include "account.h"
#include "books.h"

typedef struct {
	uint64_t context, mark;
} owner_t;

static bool owned_by(const emuv_entry_t *entry, const void *argument)
{
	const owner_t *owner = argument;

	return entry->context == owner->context && entry->serial <= owner->mark &&
	       !(entry->flags & EMUV_ENTRY_STREAM_ORDER);
}

static void uncharge_each(const emuv_entry_t *entry, void *state)
{
	(void)state;
	emuv_books_uncharge(entry);
}

uint64_t emuv_account_mark(void)
{
	uint64_t mark;

	emuv_books_lock();
	mark = g_books.last_serial;
	emuv_books_unlock();
	return mark;
}

void emuv_account_context_gone(CUcontext context, uint64_t mark)
{
	const owner_t owner = { (uint64_t)(uintptr_t)context, mark };

	if (!context)
		return;
	emuv_books_lock();
	emuv_ledger_take_all(&g_books.ledger, owned_by, uncharge_each, &owner, NULL);
	emuv_books_unlock();
	emuv_books_sweep();
}

bool emuv_account_overhead(CUdevice device, uint64_t bytes, uint64_t flags, bool owed)
{
	emuv_budget_device_t *d = &g_books.devices[device];
	emuv_attempt_t attempt = { 0 };
	bool wanted, fits;

	do {
		emuv_books_lock();
		emuv_books_look(device, &attempt);
		wanted = emuv_budget_overhead(d, bytes);
		fits = emuv_books_settle(device, &attempt, wanted, 0) && wanted;
		if (wanted && !fits)
			d->counters.overhead_bytes -= bytes;
		if (!fits && owed && !attempt.again) {
			fits = true;
			d->counters.overhead_bytes += bytes;
			emuv_books_weigh(device); /* heads make room for it */
		}
		if (fits)
			emuv_budget_held(d);
		d->counters.flags |= flags;
		emuv_books_publish(device);
		emuv_books_unlock();
	} while (!fits && emuv_books_again(&attempt));
	return fits;
}

void emuv_account_overhead_gone(CUdevice device, uint64_t bytes)
{
	emuv_books_lock();
	g_books.devices[device].counters.overhead_bytes -= bytes;
	emuv_books_publish(device);
	emuv_books_unlock();
}

/* ---- modules ---- */

void emuv_account_variables_gone(uint64_t owner, uint64_t mark)
{
	emuv_ledger_t *ledger = &g_books.ledger;
	emuv_entry_t gone;

	emuv_books_lock();
	/* Entries keep their places while others are taken. */
	for (size_t i = 0; i < ledger->n_entries; i++) {
		emuv_entry_t entry = ledger->entries[i];

		if (entry.kind != EMUV_KIND_VARIABLE || entry.link != owner ||
		    entry.serial > mark)
			continue;
		emuv_ledger_take(ledger, EMUV_KIND_VARIABLE, entry.key, &gone);
		if (emuv_ledger_take(ledger, EMUV_KIND_MEMORY, entry.key, &gone))
			emuv_books_uncharge(&gone);
	}
	emuv_books_unlock();
	emuv_books_sweep();
}
