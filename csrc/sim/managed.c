/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Managed memory: where each 2 MiB block is, and what has been advised.
 *
 * A block is nowhere (never touched), on the host, on a device, or, where it is
 * read-mostly, on several at once.  The bytes themselves are host memory throughout:
 * residency is an account, kept exactly.  A block resident on a device takes its
 * bytes of the card: 2 MiB, or for the last block of a range what is left of the
 * range rounded up to 64 KiB.
 *
 * What a device's touch does (sim_managed_touch), simplified from the real driver:
 *   resident there          nothing; a write drops other copies
 *   preferred on the host,
 *   or on the host with
 *   accessed-by the device  stays on (or comes to) the host, accessed remotely
 *   read-mostly, read       copied to the device, kept where it was
 *   else                    moves to the device; where its card is full and nothing can
 *                           be evicted, stays on (or comes to) the host
 * Advice holds for whole blocks, where a real driver keeps it by page: advising a part
 * of a block advises the block.
 *
 * Eviction takes the block that was made resident longest ago, as the real driver
 * does: a touch does not make it younger, a prefetch does.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "memory.h"

#define TAIL_BYTES ((size_t)64 << 10)

/* A block's presence on one device: in that device's list while resident. */
typedef struct sim_presence {
	struct sim_presence *prev, *next;
	sim_managed_t *managed;
	uint64_t since; /* when made resident; 0: is not */
} sim_presence_t;

typedef struct {
	bool host; /* has a copy on the host */
	bool read_mostly;
	bool accessed_by_host;
	uint32_t accessed_by;
	CUmemLocation preferred, prefetched; /* type 0: none */
} sim_block_t;

struct sim_managed {
	uintptr_t start;
	size_t bytes, blocks;
	sim_block_t *block;
	sim_presence_t *presence; /* of block b on device d: [b * sim_device_count + d] */
};

static sim_presence_t *oldest[SIM_MAX_DEVICES], *youngest[SIM_MAX_DEVICES];
static uint64_t now; /* counts residencies */

CUresult sim_managed_attach(sim_range_t *range)
{
	sim_managed_t *managed = calloc(1, sizeof(*managed));
	if (!managed)
		return CUDA_ERROR_OUT_OF_MEMORY;
	managed->start = range->start;
	managed->bytes = range->bytes;
	managed->blocks = (range->bytes + SIM_BLOCK_BYTES - 1) / SIM_BLOCK_BYTES;
	managed->block = calloc(managed->blocks, sizeof(*managed->block));
	managed->presence = calloc(managed->blocks * (size_t)sim_device_count,
				   sizeof(*managed->presence));
	if (!managed->block || !managed->presence) {
		free(managed->block);
		free(managed->presence);
		free(managed);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	range->managed = managed;
	return CUDA_SUCCESS;
}

static sim_presence_t *presence_of(sim_managed_t *managed, size_t block, CUdevice device)
{
	return &managed->presence[block * (size_t)sim_device_count + (size_t)device];
}

/* What the block takes of a card. */
static uint64_t block_cost(const sim_managed_t *managed, size_t block)
{
	size_t rest = managed->bytes - block * SIM_BLOCK_BYTES;
	return rest >= SIM_BLOCK_BYTES ? SIM_BLOCK_BYTES : sim_round_up(rest, TAIL_BYTES);
}

static void list_add(sim_presence_t *presence, CUdevice device)
{
	presence->prev = youngest[device];
	presence->next = NULL;
	if (presence->prev)
		presence->prev->next = presence;
	else
		oldest[device] = presence;
	youngest[device] = presence;
	presence->since = ++now;
}

static void list_remove(sim_presence_t *presence, CUdevice device)
{
	if (presence->prev)
		presence->prev->next = presence->next;
	else
		oldest[device] = presence->next;
	if (presence->next)
		presence->next->prev = presence->prev;
	else
		youngest[device] = presence->prev;
	presence->since = 0;
}

static void leave(sim_managed_t *managed, size_t block, CUdevice device)
{
	sim_presence_t *presence = presence_of(managed, block, device);
	if (!presence->since)
		return;
	list_remove(presence, device);
	sim_devices[device].resident_bytes -= block_cost(managed, block);
}

/* Off every device but `except` (-1: off all). */
static void leave_all(sim_managed_t *managed, size_t block, CUdevice except)
{
	for (CUdevice device = 0; device < sim_device_count; device++)
		if (device != except)
			leave(managed, block, device);
}

static bool on_a_device(sim_managed_t *managed, size_t block)
{
	for (CUdevice device = 0; device < sim_device_count; device++)
		if (presence_of(managed, block, device)->since)
			return true;
	return false;
}

void sim_managed_detach(sim_range_t *range)
{
	sim_managed_t *managed = range->managed;
	for (size_t block = 0; block < managed->blocks; block++)
		leave_all(managed, block, -1);
	free(managed->block);
	free(managed->presence);
	free(managed);
	range->managed = NULL;
}

/* Evicts the oldest block that was made resident before `since`. */
static bool evict(CUdevice device, uint64_t since)
{
	sim_presence_t *presence = oldest[device];
	if (!presence || presence->since > since)
		return false;
	sim_managed_t *managed = presence->managed;
	size_t block = (size_t)(presence - managed->presence) / (size_t)sim_device_count;
	leave(managed, block, device);
	if (!on_a_device(managed, block))
		managed->block[block].host = true;
	return true;
}

bool sim_managed_evict(CUdevice device)
{
	return evict(device, UINT64_MAX);
}

/*
 * Makes the block resident on the device, evicting only what has been resident since
 * before `since`.  False: no room.
 */
static bool arrive(sim_managed_t *managed, size_t block, CUdevice device, uint64_t since)
{
	sim_device_t *card = &sim_devices[device];
	sim_presence_t *presence = presence_of(managed, block, device);
	uint64_t cost = block_cost(managed, block);
	if (card->context_bytes + card->device_bytes + cost > card->card_bytes)
		return false;
	while (sim_card_used(device) + cost > card->card_bytes)
		if (!evict(device, since))
			return false;
	presence->managed = managed;
	list_add(presence, device);
	card->resident_bytes += cost;
	sim_card_used(device);
	return true;
}

/* The blocks that [address, address + bytes) has a byte in: [*first, *end). */
static void blocks_of(const sim_managed_t *managed, uintptr_t address, size_t bytes, size_t *first,
		      size_t *end)
{
	size_t offset = address - managed->start;
	*first = offset / SIM_BLOCK_BYTES;
	*end = (offset + bytes + SIM_BLOCK_BYTES - 1) / SIM_BLOCK_BYTES;
}

static void touch_block(sim_managed_t *managed, size_t index, CUdevice device, bool write)
{
	sim_block_t *block = &managed->block[index];
	bool copy = block->read_mostly && !write;
	bool populated = block->host || on_a_device(managed, index);

	if (presence_of(managed, index, device)->since) {
		if (!copy && block->read_mostly) {
			leave_all(managed, index, device);
			block->host = false;
		}
		return;
	}
	bool remote = block->preferred.type >= CU_MEM_LOCATION_TYPE_HOST ||
		      (populated && (block->accessed_by & 1u << device));
	if (!block->read_mostly && remote) {
		if (!populated)
			block->host = true;
		return;
	}
	if (!arrive(managed, index, device, UINT64_MAX)) {
		if (!populated)
			block->host = true;
		return;
	}
	if (copy && populated)
		return;
	leave_all(managed, index, device);
	block->host = false;
}

void sim_managed_touch(sim_range_t *range, uintptr_t address, size_t bytes, CUdevice device,
		       bool write)
{
	size_t first, end;
	blocks_of(range->managed, address, bytes, &first, &end);
	for (size_t block = first; block < end; block++)
		touch_block(range->managed, block, device, write);
}

void sim_managed_prefetch(sim_range_t *range, uintptr_t address, size_t bytes, CUmemLocation to)
{
	sim_managed_t *managed = range->managed;
	uint64_t began = now;
	size_t first, end;
	blocks_of(managed, address, bytes, &first, &end);
	for (size_t index = first; index < end; index++) {
		sim_block_t *block = &managed->block[index];
		if (to.type != CU_MEM_LOCATION_TYPE_DEVICE) {
			if (!block->read_mostly)
				leave_all(managed, index, -1);
			block->host = true;
			continue;
		}
		sim_presence_t *presence = presence_of(managed, index, to.id);
		if (presence->since) {
			list_remove(presence, to.id);
			list_add(presence, to.id);
			continue;
		}
		bool populated = block->host || on_a_device(managed, index);
		if (!arrive(managed, index, to.id, began)) {
			/* Full of what may not go: the block stays where it was. */
			if (!populated)
				block->host = true;
		} else if (!block->read_mostly || !populated) {
			leave_all(managed, index, to.id);
			block->host = false;
		}
	}
}

void sim_managed_prefetch_asked(sim_range_t *range, uintptr_t address, size_t bytes,
				CUmemLocation to)
{
	size_t first, end;
	blocks_of(range->managed, address, bytes, &first, &end);
	for (size_t index = first; index < end; index++)
		range->managed->block[index].prefetched = to;
}

void sim_managed_discard(sim_range_t *range, uintptr_t address, size_t bytes)
{
	/* Discarded bytes may read as anything until written: here as zeros, which frees them. */
	uintptr_t start = sim_round_up(address, SIM_BLOCK_BYTES);
	uintptr_t end = (address + bytes) / SIM_BLOCK_BYTES * SIM_BLOCK_BYTES;
	if (address + bytes == range->start + range->bytes)
		end = sim_round_up(address + bytes, SIM_BLOCK_BYTES);
	if (start < end)
		madvise((void *)start, end - start, MADV_DONTNEED);
}

void sim_managed_advise(sim_range_t *range, uintptr_t address, size_t bytes, CUmem_advise advice,
			CUmemLocation location)
{
	sim_managed_t *managed = range->managed;
	size_t first, end;
	blocks_of(managed, address, bytes, &first, &end);
	for (size_t index = first; index < end; index++) {
		sim_block_t *block = &managed->block[index];
		bool device = location.type == CU_MEM_LOCATION_TYPE_DEVICE;
		switch (advice) {
		case CU_MEM_ADVISE_SET_READ_MOSTLY:
			block->read_mostly = true;
			break;
		case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
			block->read_mostly = false;
			if (block->host) /* copies collapse into the host's */
				leave_all(managed, index, -1);
			break;
		case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
			block->preferred = location;
			break;
		case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
			block->preferred = (CUmemLocation){ 0 };
			break;
		case CU_MEM_ADVISE_SET_ACCESSED_BY:
			if (device)
				block->accessed_by |= 1u << location.id;
			else
				block->accessed_by_host = true;
			break;
		case CU_MEM_ADVISE_UNSET_ACCESSED_BY:
			if (device)
				block->accessed_by &= ~(1u << location.id);
			else
				block->accessed_by_host = false;
			break;
		}
	}
}

static void agree(CUmemLocation *all, CUmemLocation one)
{
	if (all->type != one.type || all->id != one.id)
		*all = (CUmemLocation){ 0 };
}

sim_advice_t sim_managed_advice(sim_range_t *range, uintptr_t address, size_t bytes)
{
	const sim_managed_t *managed = range->managed;
	size_t first, end;
	blocks_of(managed, address, bytes, &first, &end);
	sim_advice_t advice = {
		.read_mostly = true,
		.accessed_by = UINT32_MAX,
		.accessed_by_host = true,
		.preferred = managed->block[first].preferred,
		.prefetched = managed->block[first].prefetched,
	};
	for (size_t index = first; index < end; index++) {
		const sim_block_t *block = &managed->block[index];
		advice.read_mostly &= block->read_mostly;
		advice.accessed_by &= block->accessed_by;
		advice.accessed_by_host &= block->accessed_by_host;
		agree(&advice.preferred, block->preferred);
		agree(&advice.prefetched, block->prefetched);
	}
	return advice;
}

CUresult sim_managed_resident(CUdeviceptr address, size_t bytes, CUdevice device, uint64_t *resident)
{
	if (!resident || !bytes || device < 0 || device >= sim_device_count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	bool inside = range && range->kind == SIM_RANGE_MANAGED &&
		      bytes <= range->bytes - (address - range->start);
	if (inside) {
		sim_managed_t *managed = range->managed;
		size_t first, end;
		blocks_of(managed, (uintptr_t)address, bytes, &first, &end);
		*resident = 0;
		for (size_t block = first; block < end; block++) {
			if (!presence_of(managed, block, device)->since)
				continue;
			uintptr_t low = managed->start + block * SIM_BLOCK_BYTES;
			uintptr_t high = low + SIM_BLOCK_BYTES;
			low = low > address ? low : address;
			high = high < address + bytes ? high : address + bytes;
			*resident += high - low;
		}
	}
	sim_lock_drop();
	return inside ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
