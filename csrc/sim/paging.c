/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What kernels, copies and sets touch.
 *
 * A launch that is tracked has a table with a byte for each block of the arena, which
 * generated code reads: rights (EMUV_READ, EMUV_WRITE) to use the block without asking.
 * A launch begins with none, and asks once for each block and right: so the sets of
 * blocks read and written are exact, and so are faults.  A block that moves away takes
 * its rights with it (revoke), in every launch that runs.
 *
 * Remote blocks get no right, since every access counts: it crosses the link.  They get
 * REMOTE of the right instead; their bytes are summed in tallies of each thread that
 * executes a launch, or by atomic additions where there is none.
 *
 * Small allocations share blocks (space.c): a right is for all of the block.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "kernel/abi.h"
#include "managed.h"
#include "stats.h"
#include "internal.h"

#define RIGHTS (EMUV_READ | EMUV_WRITE)
#define REMOTE(rights) ((rights) << EMUV_REMOTE_SHIFT)
#define OWN 0x80 /* in `seen`: the engine's */

typedef struct {
	_Atomic uint64_t read, written;
} remote_t;

struct sim_paging {
	sim_paging_t *next; /* of those that run, or of those that wait for another launch */
	const sim_context_t *context;
	sim_launch_info_t info;
	sim_cost_t cost;
	_Atomic uint8_t *table;
	uint8_t *seen;        /* rights that were asked for, ever */
	remote_t *remote;     /* bytes over the link */
	remote_t outside;     /* the same, of what lies outside the arena */
	uint32_t *touched;    /* blocks with `seen` */
	size_t count, room;
};

static sim_paging_t *active, *spare;

/* ---- copies and sets ---- */

/* Of `bytes` that lie evenly in a span, those in its first `part` bytes. */
static uint64_t share(uint64_t bytes, size_t part, size_t span)
{
	return (uint64_t)((unsigned __int128)bytes * part / span);
}

static void touch_managed(const sim_context_t *context, const sim_range_t *range, uintptr_t address,
			  size_t span, uint64_t bytes, sim_use_t use, sim_cost_t *cost)
{
	sim_managed_t *managed = range->managed;
	bool write = use == SIM_USE_WRITE;
	size_t first, end;
	sim_managed_blocks(managed, address, span, &first, &end);
	for (size_t block = first; block < end; block++) {
		uintptr_t low = managed->start + block * SIM_BLOCK_BYTES;
		uintptr_t high = low + SIM_BLOCK_BYTES;
		low = low > address ? low : address;
		high = high < address + span ? high : address + span;
		uint64_t part = share(bytes, high - address, span) - share(bytes, low - address, span);
		sim_reach_t reach = sim_block_touch(managed, block, context->device, context->peers,
						    write, cost);
		uint64_t *count = reach == SIM_LOCAL ? &cost->vram_bytes :
				  write ? &cost->to_host[SIM_CAUSE_REMOTE] :
					  &cost->to_device[SIM_CAUSE_REMOTE];
		*count += part;
		if (reach == SIM_REMOTE && write)
			managed->cost.to_host[SIM_CAUSE_REMOTE] += part;
		else if (reach == SIM_REMOTE)
			managed->cost.to_device[SIM_CAUSE_REMOTE] += part;
	}
}

/* The device whose own memory the address is in; -1: the host's. */
static CUdevice home_of(const sim_range_t *range, uint64_t address)
{
	sim_mapping_t mapping;
	if (!range || range->kind == SIM_RANGE_HOST)
		return -1;
	if (range->kind != SIM_RANGE_RESERVED)
		return range->device;
	if (sim_vmm_mapping(range, (uintptr_t)address, 0, &mapping) &&
	    mapping.location.type == CU_MEM_LOCATION_TYPE_DEVICE)
		return mapping.location.id;
	return -1;
}

static void touch_plain(const sim_context_t *context, CUdevice home, uint64_t bytes, sim_use_t use,
			sim_cost_t *cost)
{
	if (home == context->device)
		cost->vram_bytes += bytes;
	else if (use == SIM_USE_WRITE)
		cost->to_host[SIM_CAUSE_COPY] += bytes;
	else
		cost->to_device[SIM_CAUSE_COPY] += bytes;
}

/* Mappings side by side: some may be of host memory. */
static void touch_mapped(const sim_context_t *context, const sim_range_t *range, uint64_t address,
			 size_t span, uint64_t bytes, sim_use_t use, sim_cost_t *cost)
{
	uint64_t end = address + span;
	sim_mapping_t mapping;
	for (uint64_t at = address, next; at < end; at = next) {
		bool mapped = sim_vmm_mapping(range, (uintptr_t)at, context->device, &mapping);
		next = mapped && mapping.start + mapping.bytes < end ? mapping.start + mapping.bytes
								     : end;
		touch_plain(context, home_of(range, at),
			    share(bytes, next - address, span) - share(bytes, at - address, span),
			    use, cost);
	}
}

void sim_touch(const sim_context_t *context, uint64_t address, size_t span, uint64_t bytes,
	       sim_use_t use, sim_cost_t *cost)
{
	const sim_range_t *range = sim_range_find((uintptr_t)address);
	if (range && range->managed)
		touch_managed(context, range, (uintptr_t)address, span, bytes, use, cost);
	else if (range && range->kind == SIM_RANGE_RESERVED)
		touch_mapped(context, range, address, span, bytes, use, cost);
	else
		touch_plain(context, home_of(range, address), bytes, use, cost);
}

/* ---- launches ---- */

bool sim_paging_tracks(CUdevice device)
{
	(void)device;
	if (sim_config.track >= 0)
		return sim_config.track;
	return sim_stats_wanted || sim_clock_events || sim_managed_count;
}

static sim_paging_t *paging_new(void)
{
	size_t blocks = sim_arena_bytes / SIM_BLOCK_BYTES;
	sim_paging_t *paging = calloc(1, sizeof(*paging));
	char *tables = paging ? mmap(NULL, blocks * (2 + sizeof(*paging->remote)),
				     PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
			      : MAP_FAILED;
	if (tables == MAP_FAILED) {
		free(paging);
		return NULL;
	}
	paging->remote = (remote_t *)tables;
	paging->table = (_Atomic uint8_t *)(paging->remote + blocks);
	paging->seen = (uint8_t *)(paging->table + blocks);
	return paging;
}

sim_paging_t *sim_paging_begin(sim_context_t *context, const sim_launch_info_t *info)
{
	sim_lock_take();
	sim_paging_t *paging = spare;
	if (paging)
		spare = paging->next;
	else
		paging = paging_new();
	if (paging) {
		paging->context = context;
		paging->info = *info;
		paging->cost = (sim_cost_t){ .device = context->device, .kernel = true };
		paging->next = active;
		active = paging;
	}
	sim_lock_drop();
	return paging;
}

const uint8_t *sim_paging_table(const sim_paging_t *paging)
{
	return (const uint8_t *)paging->table;
}

void sim_paging_revoke(uintptr_t block)
{
	for (sim_paging_t *paging = active; paging; paging = paging->next)
		atomic_store_explicit(&paging->table[(block - sim_arena_base) / SIM_BLOCK_BYTES], 0,
				      memory_order_relaxed);
}

/* sim_lock held.  False: no memory. */
static bool see(sim_paging_t *paging, uint32_t block, uint8_t uses)
{
	if (!paging->seen[block]) {
		if (paging->count == paging->room) {
			size_t room = paging->room ? 2 * paging->room : 256;
			uint32_t *touched = realloc(paging->touched, room * sizeof(*touched));
			if (!touched)
				return false;
			paging->touched = touched;
			paging->room = room;
		}
		paging->touched[paging->count++] = block;
	}
	paging->seen[block] |= uses;
	return true;
}

void sim_paging_own(sim_paging_t *paging, uint64_t address, uint64_t bytes)
{
	uint64_t offset = address - sim_arena_base;
	sim_lock_take();
	for (uint64_t block = offset / SIM_BLOCK_BYTES;
	     block <= (offset + bytes - 1) / SIM_BLOCK_BYTES; block++)
		if (see(paging, (uint32_t)block, OWN)) /* if not, each access asks the engine */
			atomic_store_explicit(&paging->table[block], RIGHTS, memory_order_relaxed);
	sim_lock_drop();
}

static void count_remote(remote_t *remote, uint32_t bytes, uint32_t rights)
{
	if (rights & EMUV_READ)
		atomic_fetch_add_explicit(&remote->read, bytes, memory_order_relaxed);
	if (rights & EMUV_WRITE)
		atomic_fetch_add_explicit(&remote->written, bytes, memory_order_relaxed);
}

void sim_paging_tally_move(sim_paging_t *paging, emuv_tally_t *tally, uint64_t block)
{
	if (tally->block) {
		remote_t *remote = &paging->remote[tally->block - 1];
		atomic_fetch_add_explicit(&remote->read, tally->read, memory_order_relaxed);
		atomic_fetch_add_explicit(&remote->written, tally->written, memory_order_relaxed);
	}
	*tally = (emuv_tally_t){ .block = block };
}

void sim_paging_flush(sim_paging_t *paging, emuv_tally_t tallies[EMUV_TALLIES])
{
	for (int i = 0; i < EMUV_TALLIES; i++)
		sim_paging_tally_move(paging, &tallies[i], 0);
}

/* May the context's device use plain memory of the range, and where is it? */
static bool reaches(const sim_context_t *context, const sim_range_t *range, uint64_t address,
		    uint32_t bytes, uint32_t rights, sim_reach_t *reach)
{
	CUdevice device = context->device;
	if (range->kind == SIM_RANGE_RESERVED) {
		unsigned int wanted = rights & EMUV_WRITE ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
							  : CU_MEM_ACCESS_FLAGS_PROT_READ;
		sim_mapping_t mapping;
		if (!sim_vmm_mapping(range, (uintptr_t)address, device, &mapping) ||
		    (mapping.access & wanted) != wanted ||
		    bytes > mapping.bytes - (address - mapping.start))
			return false;
	}
	CUdevice home = home_of(range, address);
	*reach = home == device ? SIM_LOCAL : SIM_REMOTE;
	/* Pools and mappings give access by themselves. */
	return home < 0 || home == device || range->kind != SIM_RANGE_DEVICE || range->pool ||
	       context->peers & 1u << home;
}

static CUresult access_slow(sim_paging_t *paging, uint64_t address, uint32_t bytes, uint32_t rights)
{
	const sim_context_t *context = paging->context;
	const sim_range_t *range = sim_range_find((uintptr_t)address);
	sim_reach_t reach;
	if (!range || bytes > range->bytes - (address - range->start))
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	if (range->managed)
		reach = sim_block_touch(range->managed, (address - range->start) / SIM_BLOCK_BYTES,
					context->device, context->peers, rights & EMUV_WRITE,
					&paging->cost);
	else if (!reaches(context, range, address, bytes, rights, &reach))
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	if (!sim_arena_holds((uintptr_t)address)) {
		if (reach == SIM_REMOTE)
			count_remote(&paging->outside, bytes, rights);
		return CUDA_SUCCESS;
	}
	uint32_t block = (uint32_t)((address - sim_arena_base) / SIM_BLOCK_BYTES);
	if (!see(paging, block, rights & RIGHTS))
		return CUDA_ERROR_OUT_OF_MEMORY;
	uint8_t granted = (uint8_t)(rights & RIGHTS);
	if (reach == SIM_REMOTE) {
		count_remote(&paging->remote[block], bytes, rights);
		granted = REMOTE(granted);
	}
	atomic_fetch_or_explicit(&paging->table[block], granted, memory_order_relaxed);
	return CUDA_SUCCESS;
}

CUresult sim_paging_access(sim_paging_t *paging, uint64_t address, uint32_t bytes, uint32_t rights)
{
	uint64_t offset = address - sim_arena_base;
	if (offset < sim_arena_bytes) {
		uint32_t remote = REMOTE(rights & RIGHTS);
		uint8_t has = atomic_load_explicit(&paging->table[offset / SIM_BLOCK_BYTES],
						   memory_order_relaxed);
		if ((has & remote) == remote) {
			count_remote(&paging->remote[offset / SIM_BLOCK_BYTES], bytes, rights);
			return CUDA_SUCCESS;
		}
	}
	sim_lock_take();
	CUresult result = access_slow(paging, address, bytes, rights);
	sim_lock_drop();
	return result;
}

/* ---- the end of a launch ---- */

static int by_block(const void *a, const void *b)
{
	const sim_touched_t *one = a, *other = b;
	return one->block < other->block ? -1 : one->block > other->block;
}

/* What went over the link, by allocation and in all. */
static void settle_remote(sim_paging_t *paging)
{
	sim_cost_t *cost = &paging->cost;
	cost->to_device[SIM_CAUSE_REMOTE] += paging->outside.read;
	cost->to_host[SIM_CAUSE_REMOTE] += paging->outside.written;
	for (size_t i = 0; i < paging->count; i++) {
		remote_t *remote = &paging->remote[paging->touched[i]];
		uint64_t read = remote->read, written = remote->written;
		if (!read && !written)
			continue;
		cost->to_device[SIM_CAUSE_REMOTE] += read;
		cost->to_host[SIM_CAUSE_REMOTE] += written;
		sim_range_t *range =
			sim_range_find(sim_arena_base + paging->touched[i] * SIM_BLOCK_BYTES);
		if (range && range->managed) {
			range->managed->cost.to_device[SIM_CAUSE_REMOTE] += read;
			range->managed->cost.to_host[SIM_CAUSE_REMOTE] += written;
		}
		remote->read = remote->written = 0;
	}
	paging->outside.read = paging->outside.written = 0;
}

/* sim_lock held.  The launch's sets of blocks, for the statistics. */
static void tell(sim_paging_t *paging)
{
	sim_touched_t *touched = malloc((paging->count + 1) * sizeof(*touched));
	size_t count = 0;
	for (size_t i = 0; touched && i < paging->count; i++) {
		uint8_t uses = paging->seen[paging->touched[i]] & RIGHTS;
		if (uses)
			touched[count++] = (sim_touched_t){ paging->touched[i], uses };
	}
	if (touched)
		qsort(touched, count, sizeof(*touched), by_block);
	paging->cost.launch = sim_stats_launch(paging->context->device, &paging->info, touched, count);
	free(touched);
}

static void merge(sim_cost_t *cost, const sim_cost_t *launch)
{
	uint64_t remote = launch->to_device[SIM_CAUSE_REMOTE] + launch->to_host[SIM_CAUSE_REMOTE];
	for (int cause = 0; cause < SIM_CAUSES; cause++) {
		cost->to_device[cause] += launch->to_device[cause];
		cost->to_host[cause] += launch->to_host[cause];
	}
	cost->faults += launch->faults;
	cost->fault_batches += launch->fault_batches;
	cost->evictions += launch->evictions;
	cost->thrash += launch->thrash;
	cost->vram_bytes -= remote < cost->vram_bytes ? remote : cost->vram_bytes;
	cost->launch = launch->launch;
	cost->kernel = true;
}

void sim_paging_end(sim_paging_t *paging, sim_cost_t *cost)
{
	sim_lock_take();
	settle_remote(paging);
	if (sim_stats_wanted)
		tell(paging);
	merge(cost, &paging->cost);
	for (size_t i = 0; i < paging->count; i++) {
		atomic_store_explicit(&paging->table[paging->touched[i]], 0, memory_order_relaxed);
		paging->seen[paging->touched[i]] = 0;
	}
	paging->count = 0;
	sim_paging_t **link = &active;
	while (*link != paging)
		link = &(*link)->next;
	*link = paging->next;
	paging->next = spare;
	spare = paging;
	sim_lock_drop();
}
