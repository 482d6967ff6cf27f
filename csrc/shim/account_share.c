/* SPDX-License-Identifier: GPL-2.0-only */
/* Statistics of what is charged nothing: imported memory, pinned host memory. */
#include "account.h"
#include "books.h"

void emuv_account_tally(const emuv_entry_t *entry)
{
	emuv_entry_t copy = *entry;
	emuv_entry_t *found;

	copy.placement = EMUV_PLACED_NOWHERE;
	copy.references = 1;
	emuv_books_lock();
	found = emuv_ledger_find(&g_books.ledger, (enum emuv_kind)copy.kind, copy.key);
	if (found && found->bytes == copy.bytes && found->context == copy.context) {
		found->references++;
	} else if (!emuv_ledger_promise(&g_books.ledger)) {
		emuv_books_enter(&copy);
		emuv_books_tally(&copy, true);
		emuv_books_publish(copy.device);
	}
	/* Else there is no memory for the books: it is not told of, and missed by nobody. */
	emuv_books_unlock();
}

bool emuv_account_untally(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry, bool *last)
{
	emuv_entry_t *found;

	emuv_books_lock();
	found = emuv_ledger_find(&g_books.ledger, kind, key);
	if (found) {
		*entry = *found;
		*last = found->references <= 1;
		if (*last) {
			emuv_ledger_take(&g_books.ledger, kind, key, entry);
			g_books.ledger.promised++;
		} else {
			found->references--;
		}
	}
	emuv_books_unlock();
	return found != NULL;
}

void emuv_account_grow(enum emuv_kind kind, uint64_t key, uint64_t bytes)
{
	emuv_entry_t *found;

	emuv_books_lock();
	found = emuv_ledger_find(&g_books.ledger, kind, key);
	if (found && found->bytes < bytes) {
		emuv_books_tally(found, false);
		found->bytes = bytes;
		emuv_books_tally(found, true);
		emuv_books_publish(found->device);
	}
	emuv_books_unlock();
}
