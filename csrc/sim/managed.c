/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Managed memory: what is known of each 2 MiB block, and what has been advised.
 * How blocks move is in migrate.c.
 *
 * Advice holds for whole blocks, where a real driver keeps it by page: advising a part
 * of a block advises the block.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "managed.h"
#include "stats.h"

size_t sim_managed_count;

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
	sim_managed_count++;
	return CUDA_SUCCESS;
}

void sim_managed_detach(sim_range_t *range)
{
	sim_managed_t *managed = range->managed;
	for (size_t block = 0; block < managed->blocks; block++)
		sim_block_leave(managed, block, -1);
	sim_stats_ended(range, &managed->cost);
	free(managed->block);
	free(managed->presence);
	free(managed);
	range->managed = NULL;
	sim_managed_count--;
}

void sim_managed_blocks(const sim_managed_t *managed, uintptr_t address, size_t bytes,
			size_t *first, size_t *end)
{
	size_t offset = address - managed->start;
	*first = offset / SIM_BLOCK_BYTES;
	*end = (offset + bytes + SIM_BLOCK_BYTES - 1) / SIM_BLOCK_BYTES;
}

void sim_managed_forget(sim_managed_t *managed, size_t block)
{
	/* What is read before it is written may be anything: zeros, which take no memory. */
	size_t rest = managed->bytes - block * SIM_BLOCK_BYTES;
	madvise((void *)(managed->start + block * SIM_BLOCK_BYTES),
		rest < SIM_BLOCK_BYTES ? rest : SIM_BLOCK_BYTES, MADV_DONTNEED);
	managed->block[block].host = false;
}

void sim_managed_prefetch_asked(sim_range_t *range, uintptr_t address, size_t bytes,
				CUmemLocation to)
{
	size_t first, end;
	sim_managed_blocks(range->managed, address, bytes, &first, &end);
	for (size_t index = first; index < end; index++)
		range->managed->block[index].prefetched = to;
}

void sim_managed_advise(sim_range_t *range, uintptr_t address, size_t bytes, CUmem_advise advice,
			CUmemLocation location)
{
	sim_managed_t *managed = range->managed;
	size_t first, end;
	sim_managed_blocks(managed, address, bytes, &first, &end);
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
				sim_block_leave(managed, index, -1);
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
		block->mapped = 0;
		sim_block_changed(managed, index);
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
	sim_managed_blocks(managed, address, bytes, &first, &end);
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
		sim_managed_blocks(managed, (uintptr_t)address, bytes, &first, &end);
		*resident = 0;
		for (size_t block = first; block < end; block++) {
			if (!sim_presence_of(managed, block, device)->since)
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
