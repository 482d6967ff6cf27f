/* SPDX-License-Identifier: GPL-2.0-only */
#include "account.h"

#include "books.h"
#include "message.h"

/* ---- allocations ---- */

bool emuv_account_reserve(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	emuv_budget_device_t *d = &g_books.devices[device];
	emuv_attempt_t attempt = { 0 };
	bool granted;

	do {
		emuv_pool_t *pool = emuv_books_pool(how >> EMUV_POOL_SHIFT), before = { 0 };
		uint64_t unsure;
		bool wanted;

		granted = false;
		emuv_books_lock();
		emuv_books_look(device, &attempt);
		unsure = d->unsure;
		if (!emuv_ledger_promise(&g_books.ledger)) {
			if (pool)
				before = *pool;
			wanted = pool ? emuv_books_pool_reserve(device, bytes, how, grant) :
					emuv_budget_reserve(d, bytes, how, grant);
			granted = wanted && grant->placement == EMUV_PLACED_DEVICE;
			/* An estimate may prove too low: it is looked at afterwards. */
			granted = emuv_books_settle(device, &attempt, granted,
						    how & EMUV_ESTIMATE ? d->unsure - unsure : 0) &&
				  wanted;
			if (wanted && !granted) {
				emuv_budget_release(d, grant);
				if (pool)
					emuv_books_pool_undo(pool, &before);
			}
			if (granted) {
				emuv_books_publish(device);
				grant->nearly = emuv_budget_nearly_full(d);
			} else {
				emuv_ledger_unpromise(&g_books.ledger);
			}
		}
		emuv_books_unlock();
	} while (!granted && emuv_books_again(&attempt));
	return granted;
}

void emuv_account_denied(CUdevice device, uint64_t bytes)
{
	char asked[32], free_text[32], vram[32], others[32];
	uint64_t free_bytes, vram_bytes, others_bytes;
	bool first;

	emuv_books_lock();
	emuv_budget_denied(&g_books.devices[device], bytes);
	emuv_books_publish(device);
	free_bytes = emuv_budget_free(&g_books.devices[device]);
	vram_bytes = g_books.devices[device].vram;
	others_bytes = g_books.devices[device].counters.others_used_bytes;
	first = !g_books.said_denial;
	g_books.said_denial = true;
	emuv_books_unlock();
	if (first)
		emuv_say("device %d: refused %s, %s left of the budget (vram %s%s%s); "
			 "counted from here on", device, emuv_size_text(bytes, asked),
			 emuv_size_text(free_bytes, free_text), emuv_size_text(vram_bytes, vram),
			 others_bytes ? ", of which the run's other processes hold " : "",
			 others_bytes ? emuv_size_text(others_bytes, others) : "");
}

void emuv_account_commit(CUdevice device, const emuv_grant_t *grant, emuv_entry_t *entry,
			 bool card_full)
{
	bool spilled = grant->placement == EMUV_PLACED_MANAGED;
	bool first;

	entry->bytes = grant->bytes;
	entry->resident = grant->resident;
	entry->placement = (uint8_t)grant->placement;
	entry->device = (int16_t)device;
	emuv_books_lock();
	emuv_books_enter(entry);
	emuv_books_pool_ends(grant, false);
	if (spilled && entry->flags & EMUV_ENTRY_POOL)
		emuv_books_pool_spilled(entry);
	g_books.devices[device].counters.live_allocations++;
	emuv_budget_held(&g_books.devices[device]);
	if (spilled)
		emuv_budget_spilled(&g_books.devices[device], grant, card_full);
	first = spilled && !g_books.said_spill;
	g_books.said_spill |= spilled;
	emuv_books_publish(device);
	emuv_books_unlock();
	if (first) {
		char bytes[32], resident[32];

		emuv_say("device %d: first spill: %s go to host memory (%s of it kept on the "
			 "device); counted from here on", device,
			 emuv_size_text(grant->bytes, bytes),
			 emuv_size_text(grant->resident, resident));
	}
}

void emuv_account_roll_back(CUdevice device, const emuv_grant_t *grant)
{
	emuv_books_lock();
	emuv_ledger_unpromise(&g_books.ledger);
	emuv_budget_release(&g_books.devices[device], grant);
	emuv_books_pool_ends(grant, true);
	emuv_books_publish(device);
	emuv_books_unlock();
}

/* ---- frees ---- */

bool emuv_account_take(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry)
{
	bool found;

	emuv_books_lock();
	found = emuv_ledger_take(&g_books.ledger, kind, key, entry);
	/* The room stays promised: a restore cannot fail. */
	if (found)
		g_books.ledger.promised++;
	emuv_books_unlock();
	return found;
}

void emuv_account_freed(const emuv_entry_t *entry)
{
	emuv_books_lock();
	emuv_ledger_unpromise(&g_books.ledger);
	emuv_books_uncharge(entry);
	emuv_books_unlock();
	if (emuv_books_map(entry))
		emuv_books_sweep();
}

void emuv_account_restore(const emuv_entry_t *entry)
{
	emuv_entry_t copy = *entry;

	emuv_books_lock();
	emuv_books_enter(&copy);
	emuv_books_unlock();
}

bool emuv_account_may_reuse(CUdevice device, uint64_t bytes)
{
	const emuv_budget_device_t *d = &g_books.devices[device];
	bool may;

	emuv_books_lock();
	emuv_books_refresh(device);
	may = bytes > emuv_budget_room(d) && d->policy == EMUV_POLICY_SPILL &&
	      !emuv_budget_used_over(d);
	emuv_books_unlock();
	return may;
}

void emuv_account_reused(const emuv_entry_t *entry)
{
	const emuv_grant_t grant = { .placement = EMUV_PLACED_MANAGED, .bytes = entry->bytes };
	emuv_entry_t copy = *entry;

	emuv_books_lock();
	emuv_books_enter(&copy);
	emuv_budget_spilled(&g_books.devices[entry->device], &grant, false);
	emuv_books_publish(entry->device);
	emuv_books_unlock();
}

bool emuv_account_extend(CUdevice device, emuv_grant_t *grant, uint64_t bytes)
{
	emuv_budget_device_t *d = &g_books.devices[device];
	emuv_attempt_t attempt = { 0 };
	bool granted, wanted;
	emuv_grant_t more;

	do {
		emuv_books_lock();
		emuv_books_look(device, &attempt);
		wanted = emuv_budget_reserve(d, bytes, 0, &more);
		granted = emuv_books_settle(device, &attempt, wanted, 0) && wanted;
		if (granted)
			grant->bytes += bytes;
		else if (wanted)
			emuv_budget_release(d, &more);
		emuv_books_publish(device);
		emuv_books_unlock();
	} while (!granted && emuv_books_again(&attempt));
	return granted;
}

bool emuv_account_look(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry)
{
	const emuv_entry_t *found;

	emuv_books_lock();
	found = emuv_ledger_find(&g_books.ledger, kind, key);
	if (found)
		*entry = *found;
	emuv_books_unlock();
	return found != NULL;
}

bool emuv_account_note_once(const emuv_entry_t *entry)
{
	emuv_entry_t copy = *entry;
	bool noted = false;

	copy.placement = EMUV_PLACED_NOWHERE;
	emuv_books_lock();
	if (!emuv_ledger_find(&g_books.ledger, copy.kind, copy.key) &&
	    !emuv_ledger_promise(&g_books.ledger)) {
		emuv_books_enter(&copy);
		noted = true;
	}
	emuv_books_unlock();
	return noted;
}

bool emuv_account_inside(uint64_t address, emuv_entry_t *entry)
{
	bool found = false;

	emuv_books_lock();
	for (size_t i = 0; i < g_books.ledger.n_entries && !found; i++) {
		const emuv_entry_t *one = &g_books.ledger.entries[i];

		found = one->kind == EMUV_KIND_MEMORY && address >= one->key &&
			address - one->key < emuv_entry_span(one);
		if (found)
			*entry = *one;
	}
	emuv_books_unlock();
	return found;
}

int emuv_account_note(const emuv_entry_t *entry)
{
	emuv_entry_t copy = *entry;
	int error;

	copy.placement = EMUV_PLACED_NOWHERE;
	emuv_books_lock();
	error = emuv_ledger_promise(&g_books.ledger);
	if (!error)
		emuv_books_enter(&copy);
	emuv_books_unlock();
	return error;
}
