/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How managed blocks move: touch, prefetch, discard, eviction.
 *
 * A block is nowhere (never written), on the host, on a device, or, where it is
 * read-mostly, on several at once.  It moves as a whole, and a move costs the bytes that
 * it takes of a card: 2 MiB, or for the last block of a range what is left of the range
 * rounded up to 64 KiB.  The bytes themselves are host memory throughout.
 *
 * What a touch does, after nvidia-uvm:
 *   resident there          nothing; a write drops other copies
 *   preferred on the host   stays on (or comes to) the host, used over the link
 *   preferred on a peer     the same there
 *   accessed-by the device,
 *   and populated           stays where it is, used over the link
 *   read-mostly, read       copied, kept where it was
 *   else                    moves; where the card is full of what cannot be evicted, it
 *                           stays on (or comes to) the host, used over the link
 *
 * A fault is the first touch of a block that the device has no mapping of: it is not
 * resident, and no advice keeps it mapped; or it was discarded since; or it is a copy
 * and is written.
 *
 * Eviction takes discarded blocks first, then those made resident longest ago.  A touch
 * does not make a block younger, a prefetch does.  (The driver's first choice, chunks
 * that hold nothing, is simply free memory here.)  Every block is copied out, written or
 * not, unless another copy of it exists or it is discarded.
 */
#define _GNU_SOURCE /* mincore */
#include <sys/mman.h>
#include <unistd.h>

#include "managed.h"
#include "stats.h"

#define TAIL_BYTES ((size_t)64 << 10)

/* A prefetch of what is resident makes it young: not verified on a card. */
static const bool prefetch_renews = true;

/* In the order of eviction, of each device. */
enum { DISCARDED, USED, LISTS };
static struct {
	sim_presence_t *oldest, *youngest;
} lists[SIM_MAX_DEVICES][LISTS];
static uint64_t now; /* counts residencies */

static void list_add(sim_presence_t *presence, CUdevice device)
{
	int list = presence->discarded ? DISCARDED : USED;
	presence->prev = lists[device][list].youngest;
	presence->next = NULL;
	if (presence->prev)
		presence->prev->next = presence;
	else
		lists[device][list].oldest = presence;
	lists[device][list].youngest = presence;
	presence->since = ++now;
}

static void list_remove(sim_presence_t *presence, CUdevice device)
{
	int list = presence->discarded ? DISCARDED : USED;
	if (presence->prev)
		presence->prev->next = presence->next;
	else
		lists[device][list].oldest = presence->next;
	if (presence->next)
		presence->next->prev = presence->prev;
	else
		lists[device][list].youngest = presence->prev;
	presence->since = 0;
}

/* To the tail of the list it belongs in. */
static void renew(sim_presence_t *presence, CUdevice device, bool discarded)
{
	list_remove(presence, device);
	presence->discarded = discarded;
	list_add(presence, device);
}

/* What the block takes of a card, and of the link. */
static uint64_t block_bytes(const sim_managed_t *managed, size_t block)
{
	size_t rest = managed->bytes - block * SIM_BLOCK_BYTES;
	return rest >= SIM_BLOCK_BYTES ? SIM_BLOCK_BYTES : sim_round_up(rest, TAIL_BYTES);
}

static void leave(sim_managed_t *managed, size_t block, CUdevice device)
{
	sim_presence_t *presence = sim_presence_of(managed, block, device);
	if (!presence->since)
		return;
	list_remove(presence, device);
	presence->discarded = false;
	sim_devices[device].resident_bytes -= block_bytes(managed, block);
	managed->block[block].mapped = 0;
	sim_block_changed(managed, block);
}

void sim_block_leave(sim_managed_t *managed, size_t block, CUdevice except)
{
	for (CUdevice device = 0; device < sim_device_count; device++)
		if (device != except)
			leave(managed, block, device);
}

void sim_block_changed(const sim_managed_t *managed, size_t block)
{
	sim_paging_revoke(managed->start + block * SIM_BLOCK_BYTES);
}

/* A device that has it, and has not discarded it; -1: none. */
static CUdevice holder(const sim_managed_t *managed, size_t block)
{
	for (CUdevice device = 0; device < sim_device_count; device++) {
		const sim_presence_t *presence = sim_presence_of(managed, block, device);
		if (presence->since && !presence->discarded)
			return device;
	}
	return -1;
}

bool sim_block_on_a_device(const sim_managed_t *managed, size_t block)
{
	return holder(managed, block) >= 0;
}

/*
 * Has anybody written it?  What the program itself stored there is not seen when it
 * happens, but its pages exist, which no device or prefetch has made.
 */
static bool populated(sim_managed_t *managed, size_t index)
{
	sim_block_t *block = &managed->block[index];
	if (block->host || sim_block_on_a_device(managed, index))
		return true;
	for (CUdevice device = 0; device < sim_device_count; device++)
		if (sim_presence_of(managed, index, device)->since)
			return false; /* discarded */
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char there[SIM_BLOCK_BYTES / 4096];
	uintptr_t start = managed->start + index * SIM_BLOCK_BYTES;
	size_t rest = managed->bytes - index * SIM_BLOCK_BYTES;
	size_t bytes = sim_round_up(rest < SIM_BLOCK_BYTES ? rest : SIM_BLOCK_BYTES, page);
	if (!mincore((void *)start, bytes, there))
		for (size_t i = 0; i < bytes / page && !block->host; i++)
			block->host = there[i] & 1;
	return block->host;
}

/* ---- the account ---- */

/* Bytes of the block came to the device, or left it, over the link. */
static void crossed(sim_managed_t *managed, size_t block, CUdevice device, sim_cause_t cause,
		    bool in, sim_cost_t *cost)
{
	sim_presence_t *presence = sim_presence_of(managed, block, device);
	uint64_t bytes = block_bytes(managed, block);
	sim_cost_t *card = sim_cost_of(device, cost);
	if (!in) {
		card->to_host[cause] += bytes;
		managed->cost.to_host[cause] += bytes;
		presence->left = sim_work_done + 1;
		return;
	}
	card->to_device[cause] += bytes;
	managed->cost.to_device[cause] += bytes;
	if (presence->left && sim_work_done + 1 - presence->left <= SIM_THRASH_WINDOW) {
		card->thrash++;
		managed->cost.thrash++;
	}
}

/* Faults fill batches; the block's second fault in one opens the next. */
static void fault(sim_managed_t *managed, size_t block, CUdevice device, sim_cost_t *cost)
{
	static uint64_t batches;
	sim_presence_t *presence = sim_presence_of(managed, block, device);
	cost->faults++;
	managed->cost.faults++;
	if (!cost->batch || cost->batch_faults == SIM_FAULT_BATCH || presence->batch == cost->batch) {
		cost->batch = ++batches;
		cost->batch_faults = 0;
		cost->fault_batches++;
		managed->cost.fault_batches++;
	}
	cost->batch_faults++;
	presence->batch = cost->batch;
}

/* ---- coming and going ---- */

/* Evicts the next in order that was made resident before `since`. */
static bool evict(CUdevice device, uint64_t since, sim_cost_t *cost)
{
	sim_presence_t *presence = lists[device][DISCARDED].oldest;
	if (!presence || presence->since > since)
		presence = lists[device][USED].oldest;
	if (!presence || presence->since > since)
		return false;
	sim_managed_t *managed = presence->managed;
	size_t block = (size_t)(presence - managed->presence) / (size_t)sim_device_count;
	bool discarded = presence->discarded;
	leave(managed, block, device);
	sim_cost_of(device, cost)->evictions++;
	managed->cost.evictions++;
	if (discarded) {
		sim_managed_forget(managed, block);
	} else if (!managed->block[block].host && !sim_block_on_a_device(managed, block)) {
		managed->block[block].host = true;
		crossed(managed, block, device, SIM_CAUSE_EVICTION, false, cost);
	}
	return true;
}

bool sim_managed_evict(CUdevice device, sim_cost_t *cost)
{
	return evict(device, UINT64_MAX, cost);
}

/*
 * Makes room for the block on the device and books it there, evicting only what has been
 * resident since before `since`.  False: no room.
 */
static bool arrive(sim_managed_t *managed, size_t block, CUdevice device, uint64_t since,
		   sim_cost_t *cost)
{
	sim_device_t *card = &sim_devices[device];
	sim_presence_t *presence = sim_presence_of(managed, block, device);
	uint64_t bytes = block_bytes(managed, block);
	if (card->context_bytes + card->device_bytes + bytes > card->card_bytes)
		return false;
	while (sim_card_used(device) + bytes > card->card_bytes)
		if (!evict(device, since, cost))
			return false;
	presence->managed = managed;
	presence->discarded = false;
	list_add(presence, device);
	card->resident_bytes += bytes;
	sim_card_used(device);
	managed->block[block].mapped = 0;
	sim_block_changed(managed, block);
	return true;
}

/*
 * Moves the block to the device, or copies it there and keeps what there is.  False: no
 * room; then it is on the host if it is not anywhere.
 */
static bool bring(sim_managed_t *managed, size_t index, CUdevice device, uint64_t since,
		  sim_cause_t cause, bool copy, sim_cost_t *cost)
{
	sim_block_t *block = &managed->block[index];
	bool had = populated(managed, index);
	CUdevice from = holder(managed, index);
	if (!arrive(managed, index, device, since, cost)) {
		block->host |= from < 0;
		return false;
	}
	if (had) {
		crossed(managed, index, device, cause, true, cost);
		if (!block->host && from >= 0)
			crossed(managed, index, from, cause, false, cost);
	}
	if (!copy || !had) {
		sim_block_leave(managed, index, device);
		block->host = false;
	}
	return true;
}

/* The host gets the block, or a copy of it. */
static void bring_home(sim_managed_t *managed, size_t index, sim_cause_t cause, bool copy,
		       sim_cost_t *cost)
{
	sim_block_t *block = &managed->block[index];
	CUdevice from = holder(managed, index);
	if (!block->host && from >= 0)
		crossed(managed, index, from, cause, false, cost);
	if (!copy)
		sim_block_leave(managed, index, -1);
	if (!block->host)
		sim_block_changed(managed, index);
	block->host = true;
}

/* ---- touches ---- */

/* Is it used where it is, or kept where it is preferred?  (It is not on the device.) */
static bool stays_away(sim_managed_t *managed, size_t index, CUdevice device, uint32_t peers,
		       bool had, sim_cost_t *cost)
{
	const sim_block_t *block = &managed->block[index];
	CUdevice at = holder(managed, index);
	bool reached = at < 0 || peers & 1u << at;
	if (block->preferred.type == CU_MEM_LOCATION_TYPE_DEVICE) {
		CUdevice preferred = block->preferred.id;
		if (preferred != device && peers & 1u << preferred &&
		    (at == preferred || bring(managed, index, preferred, UINT64_MAX,
					      SIM_CAUSE_FAULT, false, cost)))
			return true;
	} else if (block->preferred.type) {
		if (at >= 0 && !reached)
			bring_home(managed, index, SIM_CAUSE_FAULT, false, cost);
		return true;
	}
	return had && reached && block->accessed_by & 1u << device;
}

sim_reach_t sim_block_touch(sim_managed_t *managed, size_t index, CUdevice device, uint32_t peers,
			    bool write, sim_cost_t *cost)
{
	sim_block_t *block = &managed->block[index];
	sim_presence_t *presence = sim_presence_of(managed, index, device);
	bool copy = block->read_mostly && !write;
	if (presence->since) {
		bool copies = block->host;
		for (CUdevice other = 0; other < sim_device_count; other++)
			copies |= other != device && sim_presence_of(managed, index, other)->since;
		if (presence->discarded) {
			fault(managed, index, device, cost);
			renew(presence, device, false);
		} else if (copies && !copy) {
			fault(managed, index, device, cost);
			sim_block_leave(managed, index, device);
			block->host = false;
		}
		return SIM_LOCAL;
	}
	if (block->mapped & 1u << device)
		return SIM_REMOTE;

	bool had = populated(managed, index);
	bool advised = had && block->accessed_by & 1u << device;
	bool remote = !block->read_mostly && stays_away(managed, index, device, peers, had, cost);
	if (!remote || !advised)
		fault(managed, index, device, cost);
	if (!remote && bring(managed, index, device, UINT64_MAX, SIM_CAUSE_FAULT, copy, cost))
		return SIM_LOCAL;
	if (!sim_block_on_a_device(managed, index))
		block->host = true;
	block->mapped |= 1u << device;
	return SIM_REMOTE;
}

/* ---- prefetch and discard ---- */

static void prefetch_home(sim_managed_t *managed, size_t index, sim_cost_t *cost)
{
	/* A device's discarded copy goes for nothing: holder() does not name it. */
	bring_home(managed, index, SIM_CAUSE_PREFETCH, managed->block[index].read_mostly, cost);
}

void sim_managed_prefetch(sim_range_t *range, uintptr_t address, size_t bytes, CUmemLocation to,
			  sim_cost_t *cost)
{
	sim_managed_t *managed = range->managed;
	uint64_t began = now;
	size_t first, end;
	sim_managed_blocks(managed, address, bytes, &first, &end);
	for (size_t index = first; index < end; index++) {
		if (to.type != CU_MEM_LOCATION_TYPE_DEVICE) {
			prefetch_home(managed, index, cost);
			continue;
		}
		sim_presence_t *presence = sim_presence_of(managed, index, to.id);
		if (!presence->since)
			bring(managed, index, to.id, began, SIM_CAUSE_PREFETCH,
			      managed->block[index].read_mostly, cost);
		else if (presence->discarded || prefetch_renews)
			renew(presence, to.id, false);
	}
}

/*
 * Whole blocks only.  What a device has of them goes first when room is needed, and is
 * not copied out; what the host has is given back.
 */
void sim_managed_discard(sim_range_t *range, uintptr_t address, size_t bytes)
{
	sim_managed_t *managed = range->managed;
	uintptr_t start = sim_round_up(address, SIM_BLOCK_BYTES);
	uintptr_t stop = (address + bytes) / SIM_BLOCK_BYTES * SIM_BLOCK_BYTES;
	if (address + bytes == range->start + range->bytes)
		stop = sim_round_up(address + bytes, SIM_BLOCK_BYTES);
	for (uintptr_t at = start; at < stop; at += SIM_BLOCK_BYTES) {
		size_t index = (at - managed->start) / SIM_BLOCK_BYTES;
		for (CUdevice device = 0; device < sim_device_count; device++) {
			sim_presence_t *presence = sim_presence_of(managed, index, device);
			if (presence->since && !presence->discarded)
				renew(presence, device, true);
		}
		sim_managed_forget(managed, index);
		sim_block_changed(managed, index);
	}
}
