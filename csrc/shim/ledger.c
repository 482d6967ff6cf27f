/* SPDX-License-Identifier: GPL-2.0-only */
#include "ledger.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_CAPACITY 256

/*
 * Fibonacci hashing, of the key with the kind mixed in.  Addresses come at regular
 * distances, which the middle bits of the product spread so evenly that they hardly
 * ever meet; folding in other bits would make them meet at random.
 */
static uint32_t tag_of(uint8_t kind, uint64_t key)
{
	uint64_t h = (key ^ ((uint64_t)kind << 56)) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint32_t)(h >> 32) | 1u << 31;
}

static size_t home(const emuv_ledger_t *ledger, uint32_t tag)
{
	return tag & (ledger->capacity - 1);
}

static size_t next(const emuv_ledger_t *ledger, size_t at)
{
	return (at + 1) & (ledger->capacity - 1);
}

/* The slot of the key, or the empty slot where it would go. */
static size_t probe(const emuv_ledger_t *ledger, uint8_t kind, uint64_t key)
{
	uint32_t tag = tag_of(kind, key);
	size_t at = home(ledger, tag);

	for (; ledger->slots[at].tag; at = next(ledger, at)) {
		const emuv_entry_t *entry = &ledger->entries[ledger->slots[at].entry];

		/* Two keys may have one tag: the entry decides. */
		if (ledger->slots[at].tag == tag && entry->key == key && entry->kind == kind)
			break;
	}
	return at;
}

/* One mapping holds all the slots and, after them, all the entries, and then their nodes. */
static size_t mapping_bytes(size_t capacity)
{
	return capacity * sizeof(emuv_slot_t) +
	       capacity / 2 * (sizeof(emuv_entry_t) + sizeof(emuv_node_t));
}

/* mmap, not malloc: the program's allocator may be the one that called us. */
static int grow(emuv_ledger_t *ledger, size_t capacity)
{
	emuv_ledger_t bigger = *ledger;
	void *mapping = mmap(NULL, mapping_bytes(capacity), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mapping == MAP_FAILED)
		return -ENOMEM;
	bigger.capacity = capacity;
	bigger.slots = mapping;
	bigger.entries = (emuv_entry_t *)(bigger.slots + capacity);
	bigger.nodes = (emuv_node_t *)(bigger.entries + capacity / 2);
	/* Entries keep their places; only the way to them is made anew. */
	if (ledger->n_entries)
		memcpy(bigger.entries, ledger->entries, ledger->n_entries * sizeof *bigger.entries);
	if (ledger->root)
		memcpy(bigger.nodes, ledger->nodes, ledger->n_entries * sizeof *bigger.nodes);
	for (size_t i = 0; i < ledger->capacity; i++) {
		size_t at = home(&bigger, ledger->slots[i].tag);

		if (!ledger->slots[i].tag)
			continue;
		while (bigger.slots[at].tag)
			at = next(&bigger, at);
		bigger.slots[at] = ledger->slots[i];
	}
	emuv_ledger_free(ledger);
	*ledger = bigger;
	return 0;
}

int emuv_ledger_promise(emuv_ledger_t *ledger)
{
	size_t wanted = ledger->count + ledger->promised + 1;

	/* At most half full: probes stay short. */
	if (wanted > ledger->capacity / 2) {
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

/* ---- mappings by address ---- */

static bool in_order(uint8_t kind)
{
	return kind == EMUV_KIND_VMM_MAPPING;
}

static emuv_entry_t *entry_at(const emuv_ledger_t *ledger, uint32_t node)
{
	return &ledger->entries[node - 1];
}

static emuv_node_t *node_at(const emuv_ledger_t *ledger, uint32_t node)
{
	return &ledger->nodes[node - 1];
}

/* Parents have a priority no lower than their children's: that keeps the tree shallow. */
static uint32_t priority(const emuv_ledger_t *ledger, uint32_t node)
{
	uint64_t h = entry_at(ledger, node)->key * UINT64_C(0xd6e8feb86659fd93);

	return (uint32_t)((h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93) >> 32);
}

/* The link from which the key's node hangs, or would, below nodes of higher priority. */
static uint32_t *find_link(emuv_ledger_t *ledger, uint32_t node)
{
	uint64_t key = entry_at(ledger, node)->key;
	uint32_t own = priority(ledger, node), *link = &ledger->root;

	while (*link && *link != node && priority(ledger, *link) >= own)
		link = key < entry_at(ledger, *link)->key ? &node_at(ledger, *link)->less
							  : &node_at(ledger, *link)->more;
	return link;
}

/* The node takes the place of what hangs there, which is divided under it. */
static void order_in(emuv_ledger_t *ledger, uint32_t node)
{
	uint32_t *link = find_link(ledger, node), rest = *link;
	uint32_t *less = &node_at(ledger, node)->less, *more = &node_at(ledger, node)->more;

	*link = node;
	while (rest)
		if (entry_at(ledger, rest)->key < entry_at(ledger, node)->key) {
			*less = rest;
			less = &node_at(ledger, rest)->more;
			rest = *less;
		} else {
			*more = rest;
			more = &node_at(ledger, rest)->less;
			rest = *more;
		}
	*less = *more = 0;
}

/* What hangs under the node is joined in its place. */
static void order_out(emuv_ledger_t *ledger, uint32_t node)
{
	uint32_t *link = find_link(ledger, node);
	uint32_t less = node_at(ledger, node)->less, more = node_at(ledger, node)->more;

	while (less && more)
		if (priority(ledger, less) >= priority(ledger, more)) {
			*link = less;
			link = &node_at(ledger, less)->more;
			less = *link;
		} else {
			*link = more;
			link = &node_at(ledger, more)->less;
			more = *link;
		}
	*link = less ? less : more;
}

const emuv_entry_t *emuv_ledger_mapping(const emuv_ledger_t *ledger, uint64_t address)
{
	const emuv_entry_t *entry = NULL;

	/* The last one that begins at the address or before it. */
	for (uint32_t at = ledger->root; at;)
		if (entry_at(ledger, at)->key <= address) {
			entry = entry_at(ledger, at);
			at = node_at(ledger, at)->more;
		} else {
			at = node_at(ledger, at)->less;
		}
	return entry && address - entry->key < entry->bytes ? entry : NULL;
}

/* ---- entries ---- */

/* An entry to fill: the one vacated last, which is still in the cache, or a fresh one. */
static uint32_t occupy(emuv_ledger_t *ledger)
{
	size_t at = ledger->vacant;

	ledger->count++;
	if (!at)
		return (uint32_t)ledger->n_entries++;
	ledger->vacant = ledger->entries[at - 1].link;
	return (uint32_t)(at - 1);
}

bool emuv_ledger_insert(emuv_ledger_t *ledger, const emuv_entry_t *entry, emuv_entry_t *replaced)
{
	emuv_slot_t *slot = &ledger->slots[probe(ledger, entry->kind, entry->key)];
	bool known = slot->tag != 0;

	ledger->promised--;
	if (!known)
		*slot = (emuv_slot_t){ tag_of(entry->kind, entry->key), occupy(ledger) };
	else if (replaced)
		*replaced = ledger->entries[slot->entry];
	ledger->entries[slot->entry] = *entry;
	if (!known && in_order(entry->kind))
		order_in(ledger, slot->entry + 1);
	return known;
}

emuv_entry_t *emuv_ledger_find(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key)
{
	const emuv_slot_t *slot;

	if (!ledger->capacity)
		return NULL;
	slot = &ledger->slots[probe(ledger, (uint8_t)kind, key)];
	return slot->tag ? &ledger->entries[slot->entry] : NULL;
}

/* Empties a slot and its entry, and moves back what had been displaced over the slot. */
static void vacate(emuv_ledger_t *ledger, size_t hole)
{
	size_t mask = ledger->capacity - 1;
	uint32_t gone = ledger->slots[hole].entry;

	if (in_order(ledger->entries[gone].kind))
		order_out(ledger, gone + 1);
	for (size_t at = next(ledger, hole); ledger->slots[at].tag; at = next(ledger, at)) {
		size_t wants = home(ledger, ledger->slots[at].tag);

		/* Movable if its home is not in (hole, at], going round. */
		if (((at - wants) & mask) >= ((at - hole) & mask)) {
			ledger->slots[hole] = ledger->slots[at];
			hole = at;
		}
	}
	ledger->slots[hole] = (emuv_slot_t){ 0, 0 };
	ledger->entries[gone] = (emuv_entry_t){ .link = ledger->vacant };
	ledger->vacant = (size_t)gone + 1;
	ledger->count--;
}

bool emuv_ledger_take(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key, emuv_entry_t *taken)
{
	size_t at;

	if (!ledger->capacity)
		return false;
	at = probe(ledger, (uint8_t)kind, key);
	if (!ledger->slots[at].tag)
		return false;
	*taken = ledger->entries[ledger->slots[at].entry];
	vacate(ledger, at);
	return true;
}

void emuv_ledger_take_all(emuv_ledger_t *ledger,
			  bool (*match)(const emuv_entry_t *entry, const void *argument),
			  void (*each)(const emuv_entry_t *entry, void *state),
			  const void *argument, void *state)
{
	for (size_t i = 0; i < ledger->n_entries; i++) {
		emuv_entry_t entry = ledger->entries[i];

		if (!entry.kind || !match(&entry, argument))
			continue;
		vacate(ledger, probe(ledger, entry.kind, entry.key));
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
		munmap(ledger->slots, mapping_bytes(ledger->capacity));
	emuv_ledger_forget(ledger);
}
