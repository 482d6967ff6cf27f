/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The program's own prefetches of spilled ranges.  What they bring to the device is
 * charged before the driver is asked; what they take from it is uncharged when the
 * driver has done it.
 *
 * Prefetches come about in the order of their streams, not in that of the calls.  So a
 * block that a prefetch is bringing is nobody else's to take away until that prefetch's
 * event has come to pass: whoever thought it gone might be overtaken by its arrival.
 */
#include "account.h"
#include "books.h"
#include "message.h"

static const uint64_t resident = EMUV_TAG(0, EMUV_RESIDENT);

static uint32_t first_block(const emuv_move_t *move, unsigned int run)
{
	return (uint32_t)((move->runs[run].address - move->key) / EMUV_BLOCK_BYTES);
}

static uint32_t end_block(const emuv_move_t *move, unsigned int run)
{
	uint64_t last = move->runs[run].address - move->key + move->runs[run].bytes - 1;

	return (uint32_t)(last / EMUV_BLOCK_BYTES + 1);
}

/* The part of [address, address + bytes) that lies in blocks [start, end). */
static uint64_t part(const emuv_entry_t *entry, uint64_t address, uint64_t bytes, uint32_t start,
		     uint32_t end, uint64_t *from)
{
	uint64_t low = entry->key + (uint64_t)start * EMUV_BLOCK_BYTES;
	uint64_t high = entry->key + (uint64_t)end * EMUV_BLOCK_BYTES;

	*from = low > address ? low : address;
	return (high < address + bytes ? high : address + bytes) - *from;
}

/* How many blocks from `start` fit. */
static uint32_t fitting(const emuv_entry_t *entry, uint32_t start, uint32_t end, uint64_t room)
{
	/* Only the last block of a range is smaller than the others. */
	if (emuv_books_block_bytes(entry, start, end) <= room)
		return end;
	return start + (uint32_t)(room / EMUV_BLOCK_BYTES);
}

static void add_run(emuv_move_t *move, uint64_t address, uint64_t bytes)
{
	unsigned int n = move->n_runs;

	if (n && move->runs[n - 1].address + move->runs[n - 1].bytes == address) {
		move->runs[n - 1].bytes += bytes;
	} else {
		move->runs[n].address = address;
		move->runs[n].bytes = bytes;
		move->n_runs++;
	}
}

/* Takes up one run of blocks of equal state.  True: it may be prefetched. */
static bool take_up(emuv_entry_t *entry, emuv_extent_t *run, emuv_move_t *move)
{
	emuv_budget_device_t *d = &g_books.devices[entry->device];
	emuv_extents_t *map = emuv_books_map(entry);
	emuv_attempt_t once = { 0 };
	uint64_t bytes;

	if (!emuv_extents_vacant(map, EMUV_EXTENTS_CHANGE))
		return false;
	switch (run->tag & 7) {
	case 0:
		run->end = fitting(entry, run->start, run->end, emuv_budget_room(d));
		bytes = emuv_books_block_bytes(entry, run->start, run->end);
		d->counters.resident_bytes += bytes;
		/* A hint need not be taken: others of a shared run that claim the room have it. */
		if (!emuv_books_settle(entry->device, &once, true, 0)) {
			d->counters.resident_bytes -= bytes;
			return false;
		}
		emuv_extents_set(map, run->start, run->end, EMUV_TAG(move->ticket, EMUV_NEW),
				 move->owner);
		entry->resident += bytes;
		return run->end > run->start;
	case EMUV_ARRIVING:
		if (run->owner != move->owner)
			return false;
		break;
	case EMUV_NEW:
	case EMUV_AGAIN:
		return false; /* another thread is about to bring it */
	default:
		break;
	}
	emuv_extents_set(map, run->start, run->end, EMUV_TAG(move->ticket, EMUV_AGAIN),
			 move->owner);
	return true;
}

bool emuv_account_arrive(const emuv_entry_t *range, uint64_t address, uint64_t bytes,
			 uint64_t owner, emuv_move_t *move)
{
	uint32_t block = (uint32_t)((address - range->key) / EMUV_BLOCK_BYTES);
	uint32_t end = (uint32_t)((address - range->key + bytes - 1) / EMUV_BLOCK_BYTES + 1);
	emuv_entry_t *entry;

	emuv_books_sweep();
	*move = (emuv_move_t){ .key = range->key, .serial = range->serial, .owner = owner,
			       .device = range->device };
	entry = emuv_books_range(range->key, range->serial,
				 EMUV_EXTENTS_CHANGE);
	if (!entry) {
		emuv_books_unlock();
		return false;
	}
	emuv_books_refresh(entry->device);
	move->ticket = ++g_books.last_ticket;
	emuv_books_map(entry)->version++;
	while (block < end) {
		emuv_extent_t run = emuv_extents_run(emuv_books_map(entry), block, end);
		uint64_t from, asked = part(entry, address, bytes, run.start, run.end, &from);
		uint32_t stop = run.end;
		bool absent = !run.tag;

		if (move->n_runs < EMUV_MOVE_RUNS && take_up(entry, &run, move)) {
			stop = run.end;
			asked = part(entry, address, bytes, run.start, stop, &from);
			add_run(move, from, asked);
		} else if (absent) {
			move->clipped += asked;
		}
		block = stop;
	}
	emuv_books_publish(entry->device);
	emuv_books_unlock();
	return true;
}

/* Blocks of a run that were charged for it and are not there. */
static void undo_run(emuv_entry_t *entry, const emuv_move_t *move, unsigned int i)
{
	emuv_extents_t *map = emuv_books_map(entry);
	uint32_t at = first_block(move, i), end = end_block(move, i);

	while (at < end) {
		emuv_extent_t run = emuv_extents_run(map, at, end);
		uint64_t bytes = emuv_books_block_bytes(entry, run.start, run.end);

		if (run.tag == EMUV_TAG(move->ticket, EMUV_NEW)) {
			emuv_extents_set(map, run.start, run.end, 0, 0);
			entry->resident -= bytes;
			g_books.devices[entry->device].counters.resident_bytes -= bytes;
		} else if (run.tag == EMUV_TAG(move->ticket, EMUV_AGAIN)) {
			emuv_extents_set(map, run.start, run.end, resident, 0);
		}
		at = run.end;
	}
}

/* No map changes here but for whole runs: nobody else changes what is this move's. */
void emuv_account_arrived(const emuv_move_t *move, unsigned int n_done)
{
	emuv_entry_t *entry = emuv_books_range(move->key, move->serial, 0);
	emuv_budget_device_t *d = &g_books.devices[move->device];

	for (unsigned int i = 0; entry && i < move->n_runs; i++) {
		emuv_extents_t *map = emuv_books_map(entry);

		map->version++;
		if (i >= n_done) {
			undo_run(entry, move, i);
			continue;
		}
		for (int kind = EMUV_NEW; kind <= EMUV_AGAIN; kind++)
			emuv_extents_replace(map, first_block(move, i), end_block(move, i),
					     EMUV_TAG(move->ticket, kind),
					     EMUV_TAG(move->ticket, EMUV_ARRIVING), move->owner);
	}
	emuv_budget_held(d);
	emuv_books_publish(move->device);
	emuv_books_unlock();
}

uint64_t emuv_account_version(const emuv_entry_t *range)
{
	const emuv_entry_t *entry;
	uint64_t version = 0;

	emuv_books_lock();
	entry = emuv_ledger_find(&g_books.ledger, EMUV_KIND_MEMORY, range->key);
	if (entry && entry->serial == range->serial && emuv_books_map(entry))
		version = emuv_books_map(entry)->version;
	emuv_books_unlock();
	return version;
}

bool emuv_account_leave(const emuv_entry_t *range, uint64_t address, uint64_t bytes,
			uint64_t owner, uint64_t version, emuv_move_t *move)
{
	uint64_t offset = address - range->key;
	uint32_t at = (uint32_t)((offset + EMUV_BLOCK_BYTES - 1) / EMUV_BLOCK_BYTES);
	uint32_t end = offset + bytes >= emuv_entry_span(range) ?
			       emuv_books_blocks(range) :
			       (uint32_t)((offset + bytes) / EMUV_BLOCK_BYTES);
	emuv_entry_t *entry;

	*move = (emuv_move_t){ .key = range->key, .serial = range->serial, .owner = owner,
			       .device = range->device };
	entry = emuv_books_range(range->key, range->serial, EMUV_EXTENTS_CHANGE);
	if (entry && emuv_books_map(entry)->version == version) {
		move->ticket = ++g_books.last_ticket;
		while (at < end) {
			emuv_extent_t run = emuv_extents_run(emuv_books_map(entry), at, end);

			if (run.tag == resident ||
			    ((run.tag & 7) == EMUV_ARRIVING && run.owner == owner)) {
				emuv_extents_set(emuv_books_map(entry), run.start, run.end,
						 EMUV_TAG(move->ticket, EMUV_LEAVING), owner);
				move->leaving += emuv_books_block_bytes(entry, run.start, run.end);
			}
			at = run.end;
		}
	}
	emuv_books_unlock();
	emuv_books_sweep();
	return move->leaving;
}

void emuv_account_settled(const emuv_move_t *move, enum emuv_move_end how)
{
	const uint64_t leaving = EMUV_TAG(move->ticket, EMUV_LEAVING);
	const uint64_t arriving = EMUV_TAG(move->ticket, EMUV_ARRIVING);
	emuv_entry_t *entry = emuv_books_range(move->key, move->serial, 0);
	uint32_t at = 0, end = entry ? emuv_books_blocks(entry) : 0;

	/* Whole runs: no vacant place is needed. */
	while (at < end) {
		emuv_extents_t *map = emuv_books_map(entry);
		emuv_extent_t run = emuv_extents_run(map, at, end);
		uint64_t bytes = emuv_books_block_bytes(entry, run.start, run.end);

		if (run.tag == leaving && how == EMUV_MOVE_DONE) {
			emuv_extents_set(map, run.start, run.end, 0, 0);
			entry->resident -= bytes;
			g_books.devices[entry->device].counters.resident_bytes -= bytes;
		} else if (run.tag == leaving || (run.tag == arriving && how != EMUV_MOVE_LOST)) {
			emuv_extents_set(map, run.start, run.end, resident, 0);
		}
		at = run.end;
	}
	emuv_books_weigh(move->device); /* what has arrived can be told to leave */
	emuv_books_publish(move->device);
	emuv_books_unlock();
}

void emuv_account_clipped(CUdevice device, const char *what, uint64_t bytes)
{
	emuv_budget_device_t *d = &g_books.devices[device];
	char kept[32], vram[32];
	uint64_t vram_bytes;
	bool first;

	emuv_books_lock();
	d->counters.clipped_calls++;
	if (__builtin_add_overflow(d->counters.clipped_bytes, bytes, &d->counters.clipped_bytes))
		d->counters.clipped_bytes = UINT64_MAX;
	vram_bytes = d->vram;
	first = !g_books.said_clip;
	g_books.said_clip = true;
	emuv_books_publish(device);
	emuv_books_unlock();
	if (first)
		emuv_say("device %d: %s would have broken the budget (vram %s): %s stay where "
			 "they are; counted from here on", device, what,
			 emuv_size_text(vram_bytes, vram), emuv_size_text(bytes, kept));
}
