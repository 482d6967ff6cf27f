/* SPDX-License-Identifier: GPL-2.0-only */
/* The books' VMM side: handles and mappings lead by number to the memory behind them. */
#include "account.h"
#include "books.h"

void emuv_account_handle_more(uint64_t handle, uint64_t id, CUdevice device)
{
	emuv_entry_t fresh = {
		.kind = EMUV_KIND_VMM_HANDLE, .key = handle, .link = id,
		.device = (int16_t)device, .placement = EMUV_PLACED_NOWHERE,
	};
	emuv_entry_t *found;

	emuv_books_lock();
	found = emuv_ledger_find(&g_books.ledger, EMUV_KIND_VMM_HANDLE, handle);
	if (found && found->link == id)
		found->references++;
	else if (!emuv_ledger_promise(&g_books.ledger))
		emuv_books_enter(&fresh);
	/* Else the handle stays unknown and its memory charged: too much, never too little. */
	emuv_books_unlock();
}

bool emuv_account_handle_less(uint64_t handle, emuv_entry_t *entry, bool *last)
{
	emuv_entry_t *found;

	emuv_books_lock();
	found = emuv_ledger_find(&g_books.ledger, EMUV_KIND_VMM_HANDLE, handle);
	if (found) {
		*entry = *found;
		*last = found->references == 0;
		if (*last) {
			emuv_ledger_take(&g_books.ledger, EMUV_KIND_VMM_HANDLE, handle, entry);
			g_books.ledger.promised++;
		} else {
			found->references--;
		}
	}
	emuv_books_unlock();
	return found != NULL;
}

uint32_t emuv_account_refer(enum emuv_kind kind, uint64_t key, int change)
{
	emuv_entry_t *found, gone;
	uint32_t left = 0;

	emuv_books_lock();
	found = emuv_ledger_find(&g_books.ledger, kind, key);
	if (found) {
		found->references += (uint32_t)change;
		left = found->references;
		if (!left && emuv_ledger_take(&g_books.ledger, kind, key, &gone))
			emuv_books_uncharge(&gone);
	}
	emuv_books_unlock();
	return left;
}

/* Lock held. */
static bool memory_of(const emuv_entry_t *link, emuv_entry_t *memory)
{
	const emuv_entry_t *found = NULL;

	if (link)
		found = emuv_ledger_find(&g_books.ledger, EMUV_KIND_VMM_MEMORY, link->link);
	if (found)
		*memory = *found;
	return found != NULL;
}

bool emuv_account_handle(uint64_t handle, emuv_entry_t *memory)
{
	bool known;

	emuv_books_lock();
	known = memory_of(emuv_ledger_find(&g_books.ledger, EMUV_KIND_VMM_HANDLE, handle), memory);
	emuv_books_unlock();
	return known;
}

bool emuv_account_mapped(uint64_t address, emuv_entry_t *memory)
{
	bool known;

	emuv_books_lock();
	known = memory_of(emuv_ledger_mapping(&g_books.ledger, address), memory);
	emuv_books_unlock();
	return known;
}

uint64_t emuv_account_vmm_home(CUdevice device)
{
	return __atomic_load_n(&g_books.vmm_homes[device], __ATOMIC_RELAXED);
}

void emuv_account_set_vmm_home(CUdevice device, uint64_t home)
{
	__atomic_store_n(&g_books.vmm_homes[device], home, __ATOMIC_RELAXED);
}
