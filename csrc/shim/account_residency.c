/* SPDX-License-Identifier: GPL-2.0-only */
/* What of spilled ranges is on the device, and who leaves when vram was lowered. */
#include "account.h"
#include "books.h"

void emuv_account_hints(CUdevice device, uint64_t advised, uint64_t to_device, uint64_t to_host)
{
	emuv_device_counters_t *c = &g_books.devices[device].counters;

	emuv_books_lock();
	c->advised_bytes += advised;
	c->prefetch_device_bytes += to_device;
	c->prefetch_host_bytes += to_host;
	emuv_books_publish(device);
	emuv_books_unlock();
}

bool emuv_account_over(CUdevice device)
{
	if (__atomic_load_n(&g_books.control->generation, __ATOMIC_ACQUIRE) !=
	    __atomic_load_n(&g_books.applied_generation, __ATOMIC_RELAXED)) {
		emuv_books_lock();
		emuv_books_refresh(device);
		emuv_books_unlock();
	}
	return __atomic_load_n(&g_books.over, __ATOMIC_RELAXED) & (1u << device);
}

size_t emuv_account_demote(CUdevice device, emuv_entry_t *pieces, size_t max)
{
	emuv_budget_device_t *d = &g_books.devices[device];
	uint64_t excess;
	size_t n = 0;

	emuv_books_lock();
	excess = emuv_books_staying(device) > d->vram ? emuv_books_staying(device) - d->vram : 0;
	for (size_t i = 0; i < g_books.ledger.n_entries && n < max && excess; i++) {
		emuv_entry_t *entry = &g_books.ledger.entries[i];
		uint64_t give;

		if (entry->kind != EMUV_KIND_MEMORY || entry->device != device || !entry->resident)
			continue;
		/* The tail of the head goes first, in whole blocks. */
		give = (excess + EMUV_BLOCK_BYTES - 1) / EMUV_BLOCK_BYTES * EMUV_BLOCK_BYTES;
		if (give > entry->resident)
			give = entry->resident;
		entry->resident -= give;
		g_books.leaving[device] += give;
		pieces[n] = *entry;
		pieces[n].link = entry->key;
		pieces[n].key += entry->resident;
		pieces[n++].bytes = give;
		excess -= give < excess ? give : excess;
	}
	if (n < max)
		__atomic_fetch_and(&g_books.over, ~(1u << device), __ATOMIC_RELAXED);
	emuv_books_unlock();
	return n;
}

void emuv_account_demoted(const emuv_entry_t *piece, bool moved)
{
	emuv_device_counters_t *c = &g_books.devices[piece->device].counters;
	emuv_entry_t *entry;

	emuv_books_lock();
	g_books.leaving[piece->device] -= piece->bytes;
	entry = emuv_ledger_find(&g_books.ledger, EMUV_KIND_MEMORY, piece->link);
	if (!moved && entry && entry->serial == piece->serial)
		entry->resident += piece->bytes;
	else
		/* Moved, or freed meanwhile, which a driver answers with an error too. */
		c->resident_bytes -= piece->bytes;
	if (moved)
		c->prefetch_host_bytes += piece->bytes;
	else
		emuv_books_weigh(piece->device); /* the next call tries again */
	emuv_books_publish(piece->device);
	emuv_books_unlock();
}
