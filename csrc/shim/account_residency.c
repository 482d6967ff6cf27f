/* SPDX-License-Identifier: GPL-2.0-only */
/* What of spilled ranges is on the device, and who leaves when vram was lowered. */
#include <stdlib.h>

#include "account.h"
#include "books.h"

/* What the end of a range takes of a card: the driver's smallest page there. */
#define TAIL_BYTES (UINT64_C(64) << 10)

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

/* ---- blocks and maps ---- */

uint32_t emuv_books_blocks(const emuv_entry_t *entry)
{
	return (uint32_t)((entry->bytes + EMUV_BLOCK_BYTES - 1) / EMUV_BLOCK_BYTES);
}

uint64_t emuv_books_block_bytes(const emuv_entry_t *entry, uint32_t start, uint32_t end)
{
	uint64_t tail = entry->bytes % EMUV_BLOCK_BYTES;
	uint64_t bytes = (uint64_t)(end - start) * EMUV_BLOCK_BYTES;

	if (tail && start < end && end == emuv_books_blocks(entry))
		bytes -= EMUV_BLOCK_BYTES - (tail + TAIL_BYTES - 1) / TAIL_BYTES * TAIL_BYTES;
	return bytes;
}

/* The blocks of a range without a map that are resident. */
static uint32_t head_blocks(const emuv_entry_t *entry)
{
	return (uint32_t)((entry->resident + EMUV_BLOCK_BYTES - 1) / EMUV_BLOCK_BYTES);
}

void emuv_books_retire(emuv_extents_t *map)
{
	if (!map)
		return;
	map->next = g_books.retired;
	__atomic_store_n(&g_books.retired, map, __ATOMIC_RELAXED);
}

void emuv_books_sweep(void)
{
	emuv_extents_t *map, *next;

	if (!__atomic_load_n(&g_books.retired, __ATOMIC_RELAXED))
		return;
	emuv_books_lock();
	map = g_books.retired;
	__atomic_store_n(&g_books.retired, NULL, __ATOMIC_RELAXED);
	emuv_books_unlock();
	for (; map; map = next) {
		next = map->next;
		free(map);
	}
}

/* Puts what the range's map, or its head, says into the larger `map`, which it gets. */
static void adopt(emuv_entry_t *entry, emuv_extents_t *map)
{
	emuv_extents_t *old = emuv_books_map(entry);

	if (old)
		emuv_extents_copy(map, old);
	else
		emuv_extents_set(map, 0, head_blocks(entry), EMUV_TAG(0, EMUV_RESIDENT), 0);
	emuv_books_retire(old);
	entry->link = (uint64_t)(uintptr_t)map;
}

emuv_entry_t *emuv_books_range(uint64_t key, uint64_t serial, uint32_t vacant)
{
	emuv_extents_t *fresh = NULL;

	for (;;) {
		const emuv_extents_t *map;
		emuv_entry_t *entry;
		uint32_t count, places;

		emuv_books_lock();
		entry = emuv_ledger_find(&g_books.ledger, EMUV_KIND_MEMORY, key);
		if (!entry || entry->serial != serial || entry->placement != EMUV_PLACED_MANAGED) {
			emuv_books_retire(fresh);
			return NULL;
		}
		map = emuv_books_map(entry);
		count = map ? map->count : 1;
		places = vacant ? count + vacant : 0;
		if (map && emuv_extents_vacant(map, places)) {
			emuv_books_retire(fresh);
			return entry;
		}
		if (fresh && fresh->capacity >= count + places) {
			adopt(entry, fresh);
			return entry;
		}
		emuv_books_unlock();
		/* Somebody else's changes may have overtaken it. */
		free(fresh);
		fresh = emuv_extents_new(2 * (count + places + 1));
		if (!fresh) {
			emuv_books_lock();
			return NULL;
		}
	}
}

void emuv_books_calm(emuv_entry_t *entry)
{
	emuv_extents_t *map = emuv_books_map(entry);
	uint32_t at = 0, end = map ? emuv_books_blocks(entry) : 0;

	/* Whole runs: no vacant place is needed. */
	while (at < end) {
		emuv_extent_t run = emuv_extents_run(map, at, end);

		if (run.tag)
			emuv_extents_set(map, run.start, run.end, EMUV_TAG(0, EMUV_RESIDENT), 0);
		at = run.end;
	}
}

/* ---- who leaves ---- */

/* The last blocks of the range that may leave, at most n of them; false: none. */
static bool last_blocks(const emuv_entry_t *entry, uint64_t n, uint32_t *start, uint32_t *end)
{
	const emuv_extents_t *map = emuv_books_map(entry);

	*start = 0;
	*end = map ? 0 : head_blocks(entry);
	for (uint32_t i = map ? map->count : 0; i-- && !*end;)
		if (map->at[i].tag == EMUV_TAG(0, EMUV_RESIDENT)) {
			*start = map->at[i].start;
			*end = map->at[i].end;
		}
	if (*end - *start > n)
		*start = *end - (uint32_t)n;
	return *end > 0;
}

static emuv_piece_t take_piece(emuv_entry_t *entry, uint32_t start, uint32_t end)
{
	uint64_t offset = (uint64_t)start * EMUV_BLOCK_BYTES;
	uint64_t stop = (uint64_t)end * EMUV_BLOCK_BYTES;
	emuv_extents_t *map = emuv_books_map(entry);
	uint64_t charged = emuv_books_block_bytes(entry, start, end);

	if (stop > emuv_entry_span(entry))
		stop = emuv_entry_span(entry);
	/* The end of a run is cut off: no vacant place is needed. */
	if (map)
		emuv_extents_set(map, start, end, 0, 0);
	entry->resident -= charged;
	return (emuv_piece_t){ entry->key, entry->serial, entry->device, entry->key + offset,
			       stop - offset, charged };
}

static bool may_leave(const emuv_entry_t *entry, CUdevice device)
{
	return entry->kind == EMUV_KIND_MEMORY && entry->device == device && entry->resident &&
	       entry->placement == EMUV_PLACED_MANAGED && !(entry->flags & EMUV_ENTRY_PINNING);
}

size_t emuv_account_demote(CUdevice device, uint64_t want, emuv_piece_t *pieces, size_t max)
{
	uint64_t excess;
	size_t n = 0;

	emuv_books_lock();
	/* Of a shared run others may have made room meanwhile, or be about to. */
	emuv_books_refresh(device);
	excess = emuv_books_excess(device, want);
	for (size_t i = 0; i < g_books.ledger.n_entries && n < max && excess; i++) {
		emuv_entry_t *entry = &g_books.ledger.entries[i];
		uint32_t start, end;

		while (may_leave(entry, device) && n < max && excess &&
		       last_blocks(entry, (excess - 1) / EMUV_BLOCK_BYTES + 1, &start, &end)) {
			uint64_t give;

			pieces[n] = take_piece(entry, start, end);
			give = pieces[n++].charged;
			g_books.leaving[device] += give;
			excess -= give < excess ? give : excess;
		}
	}
	if (n < max)
		__atomic_fetch_and(&g_books.over, ~(1u << device), __ATOMIC_RELAXED);
	emuv_books_publish(device);
	emuv_books_unlock();
	return n;
}

/* The piece is its range's again, but for blocks that have been charged anew since. */
static void give_back(emuv_entry_t *entry, const emuv_piece_t *piece)
{
	emuv_device_counters_t *c = &g_books.devices[piece->device].counters;
	uint32_t at = (uint32_t)((piece->address - piece->key) / EMUV_BLOCK_BYTES);
	uint32_t end = at + (uint32_t)((piece->bytes - 1) / EMUV_BLOCK_BYTES + 1);

	while (at < end) {
		emuv_extent_t run = emuv_extents_run(emuv_books_map(entry), at, end);
		uint64_t bytes = emuv_books_block_bytes(entry, run.start, run.end);

		/* Where there is no place to note it, it stays charged until the range is freed. */
		if (!run.tag && emuv_extents_vacant(emuv_books_map(entry), EMUV_EXTENTS_CHANGE))
			emuv_extents_set(emuv_books_map(entry), run.start, run.end,
					 EMUV_TAG(0, EMUV_RESIDENT), 0);
		if (!run.tag)
			entry->resident += bytes;
		else
			c->resident_bytes -= bytes;
		at = run.end;
	}
}

void emuv_account_demoted(const emuv_piece_t *piece, bool moved)
{
	emuv_device_counters_t *c = &g_books.devices[piece->device].counters;
	emuv_entry_t *entry = NULL;

	if (moved)
		emuv_books_lock();
	else
		entry = emuv_books_range(piece->key, piece->serial, EMUV_EXTENTS_CHANGE);
	g_books.leaving[piece->device] -= piece->charged;
	if (entry)
		give_back(entry, piece);
	else
		/* Moved, or freed meanwhile, which a driver answers with an error too. */
		c->resident_bytes -= piece->charged;
	if (moved)
		c->prefetch_host_bytes += piece->bytes;
	else
		emuv_books_weigh(piece->device); /* the next call tries again */
	emuv_books_publish(piece->device);
	emuv_books_unlock();
	emuv_books_sweep();
}

/* ---- the program's own managed memory ---- */

static void turn(emuv_entry_t *entry, bool spilled)
{
	emuv_device_counters_t *c = &g_books.devices[entry->device].counters;
	uint64_t whole = emuv_books_block_bytes(entry, 0, emuv_books_blocks(entry));

	if (spilled) {
		c->device_bytes -= entry->bytes;
		c->movable_bytes -= entry->bytes;
		c->managed_bytes += entry->bytes;
		c->resident_bytes += whole;
		entry->placement = EMUV_PLACED_MANAGED;
		entry->flags |= EMUV_ENTRY_PINNING;
		entry->resident = whole;
		entry->link = 0;
	} else {
		c->device_bytes += entry->bytes;
		c->movable_bytes += entry->bytes;
		c->managed_bytes -= entry->bytes;
		c->resident_bytes -= entry->resident;
		emuv_books_retire(emuv_books_map(entry));
		entry->placement = EMUV_PLACED_DEVICE;
		entry->flags &= ~EMUV_ENTRY_PINNING;
		entry->resident = 0;
		entry->link = 0;
	}
}

size_t emuv_account_unfree(CUdevice device, emuv_entry_t *ranges, size_t max)
{
	uint64_t excess;
	size_t n = 0;

	emuv_books_lock();
	emuv_books_refresh(device);
	excess = emuv_books_excess(device, 0);
	for (size_t i = 0; i < g_books.ledger.n_entries && n < max && excess; i++) {
		emuv_entry_t *entry = &g_books.ledger.entries[i];

		if (entry->kind != EMUV_KIND_MEMORY || entry->device != device ||
		    !emuv_books_movable(entry))
			continue;
		excess -= entry->bytes < excess ? entry->bytes : excess;
		turn(entry, true);
		ranges[n++] = *entry;
	}
	emuv_books_publish(device);
	emuv_books_unlock();
	return n;
}

void emuv_account_pinned(const emuv_entry_t *range, bool pinned)
{
	emuv_entry_t *entry;

	emuv_books_lock();
	entry = emuv_ledger_find(&g_books.ledger, EMUV_KIND_MEMORY, range->key);
	if (entry && entry->serial == range->serial && entry->flags & EMUV_ENTRY_PINNING) {
		if (pinned)
			entry->flags &= ~EMUV_ENTRY_PINNING;
		else
			turn(entry, false);
		emuv_books_publish(range->device);
	}
	emuv_books_unlock();
}
