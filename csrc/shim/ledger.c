/* SPDX-License-Identifier: GPL-2.0-only */
#include "ledger.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_CAPACITY 256

/* Keys are addresses and handles: low bits carry little.  Fibonacci hashing of
 * the key, with the kind mixed in. */
static size_t home(const emuv_ledger_t *ledger, uint8_t kind, uint64_t key)
{
	uint64_t h = (key ^ ((uint64_t)kind << 56)) * UINT64_C(0x9e3779b97f4a7c15);

	return (size_t)(h ^ (h >> 32)) & (ledger->capacity - 1);
}

static size_t next(const emuv_ledger_t *ledger, size_t at)
{
	return (at + 1) & (ledger->capacity - 1);
}

/* The slot of the key, or the empty slot where it would go. */
static size_t probe(const emuv_ledger_t *ledger, uint8_t kind, uint64_t key)
{
	size_t at = home(ledger, kind, key);

	while (ledger->slots[at].kind &&
	       !(ledger->slots[at].key == key && ledger->slots[at].kind == kind))
		at = next(ledger, at);
	return at;
}

/* mmap, not malloc: the program's allocator may be the one that called us. */
static int grow(emuv_ledger_t *ledger, size_t capacity)
{
	emuv_ledger_t bigger = { .capacity = capacity, .count = ledger->count,
				 .promised = ledger->promised };

	bigger.slots = mmap(NULL, capacity * sizeof *bigger.slots, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bigger.slots == MAP_FAILED)
		return -ENOMEM;
	for (size_t i = 0; i < ledger->capacity; i++)
		if (ledger->slots[i].kind)
			bigger.slots[probe(&bigger, ledger->slots[i].kind,
					   ledger->slots[i].key)] = ledger->slots[i];
	emuv_ledger_free(ledger);
	*ledger = bigger;
	return 0;
}

int emuv_ledger_promise(emuv_ledger_t *ledger)
{
	size_t wanted = ledger->count + ledger->promised + 1;

	/* At most two thirds full: probes stay short. */
	if (wanted * 3 > ledger->capacity * 2) {
		size_t capacity = ledger->capacity ? ledger->capacity * 2 : FIRST_CAPACITY;
		int error = grow(ledger, capacity);

		if (error)
			return error;
	}
	ledger->promised++;
	return 0;
}

void emuv_ledger_unpromise(emuv_ledger_t *ledger)
{
	ledger->promised--;
}

bool emuv_ledger_insert(emuv_ledger_t *ledger, const emuv_entry_t *entry, emuv_entry_t *replaced)
{
	size_t at = probe(ledger, entry->kind, entry->key);
	bool known = ledger->slots[at].kind != 0;

	ledger->promised--;
	if (known && replaced)
		*replaced = ledger->slots[at];
	if (!known)
		ledger->count++;
	ledger->slots[at] = *entry;
	return known;
}

emuv_entry_t *emuv_ledger_find(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key)
{
	size_t at;

	if (!ledger->capacity)
		return NULL;
	at = probe(ledger, (uint8_t)kind, key);
	return ledger->slots[at].kind ? &ledger->slots[at] : NULL;
}

/* Empties a slot and moves back what had been displaced over it. */
static void vacate(emuv_ledger_t *ledger, size_t hole)
{
	size_t mask = ledger->capacity - 1;

	for (size_t at = next(ledger, hole); ledger->slots[at].kind; at = next(ledger, at)) {
		size_t wants = home(ledger, ledger->slots[at].kind, ledger->slots[at].key);

		/* Movable if its home is not in (hole, at], going round. */
		if (((at - wants) & mask) >= ((at - hole) & mask)) {
			ledger->slots[hole] = ledger->slots[at];
			hole = at;
		}
	}
	memset(&ledger->slots[hole], 0, sizeof ledger->slots[hole]);
	ledger->count--;
}

bool emuv_ledger_take(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key, emuv_entry_t *taken)
{
	emuv_entry_t *entry = emuv_ledger_find(ledger, kind, key);

	if (!entry)
		return false;
	*taken = *entry;
	vacate(ledger, (size_t)(entry - ledger->slots));
	return true;
}

void emuv_ledger_take_all(emuv_ledger_t *ledger,
			  bool (*match)(const emuv_entry_t *entry, const void *argument),
			  void (*each)(const emuv_entry_t *entry, void *state),
			  const void *argument, void *state)
{
	size_t at = 0;

	while (at < ledger->capacity) {
		emuv_entry_t entry = ledger->slots[at];

		if (!entry.kind || !match(&entry, argument)) {
			at++;
			continue;
		}
		/*
		 * Something may have moved into this slot: look at it again.  What
		 * wraps round from the end moves to a slot not yet passed or to one
		 * whose visitor it has met already, so nothing is skipped: an entry
		 * moved from the start of the table to its end is seen a second time.
		 */
		vacate(ledger, at);
		each(&entry, state);
	}
}

void emuv_ledger_forget(emuv_ledger_t *ledger)
{
	memset(ledger, 0, sizeof *ledger);
}

void emuv_ledger_free(emuv_ledger_t *ledger)
{
	if (ledger->capacity)
		munmap(ledger->slots, ledger->capacity * sizeof *ledger->slots);
	emuv_ledger_forget(ledger);
}
