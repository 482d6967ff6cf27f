/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is kept of the account of paging: by device, by allocation, by kernel, by launch.
 *
 * Memory is bounded: ended allocations, kernels and launches are kept one by one up to
 * a limit, beyond which they are summed (stats_write.c tells how many).
 */
#include <stdlib.h>
#include <string.h>

#include "kernel/abi.h"
#include "managed.h"
#include "stats_private.h"

uint64_t sim_work_done;
bool sim_stats_wanted;
sim_stats_t sim_stats;

static void add(sim_cost_t *sum, const sim_cost_t *cost)
{
	for (int cause = 0; cause < SIM_CAUSES; cause++) {
		sum->to_device[cause] += cost->to_device[cause];
		sum->to_host[cause] += cost->to_host[cause];
	}
	sum->faults += cost->faults;
	sum->fault_batches += cost->fault_batches;
	sum->evictions += cost->evictions;
	sum->thrash += cost->thrash;
	sum->vram_bytes += cost->vram_bytes;
	sum->instructions += cost->instructions;
}

sim_cost_t *sim_cost_of(CUdevice device, sim_cost_t *cost)
{
	return cost->device == device ? cost : &sim_stats.devices[device].sum;
}

/* Room for one more; false: no memory, the caller goes without. */
static bool grow(void *items, size_t count, size_t *room, size_t bytes)
{
	if (count < *room)
		return true;
	size_t more = *room ? 2 * *room : 64;
	void *grown = realloc(*(void **)items, more * bytes);
	if (!grown)
		return false;
	*(void **)items = grown;
	*room = more;
	return true;
}

void sim_stats_ended(const sim_range_t *range, const sim_cost_t *cost)
{
	sim_stats_t *stats = &sim_stats;
	if (!sim_stats_wanted)
		return;
	if (stats->ended_count == SIM_STATS_ENDED ||
	    !grow(&stats->ended, stats->ended_count, &stats->ended_room, sizeof(*stats->ended))) {
		stats->others++;
		add(&stats->other, cost);
		return;
	}
	stats->ended[stats->ended_count++] = (sim_ended_t){
		.id = range->id, .bytes = range->bytes, .device = range->device, .cost = *cost,
	};
}

/* The kernel of that name, or that of all others. */
static size_t kernel_of(const char *name)
{
	sim_stats_t *stats = &sim_stats;
	for (size_t i = 0; i < stats->kernel_count; i++)
		if (strcmp(stats->kernels[i].name, name) == 0)
			return i;
	bool last = stats->kernel_count == SIM_STATS_KERNELS;
	char *copy = strdup(last ? "(others)" : name);
	if (stats->kernel_count > SIM_STATS_KERNELS || !copy ||
	    !grow(&stats->kernels, stats->kernel_count, &stats->kernel_room,
		  sizeof(*stats->kernels))) {
		free(copy);
		return stats->kernel_count ? stats->kernel_count - 1 : 0;
	}
	stats->kernels[stats->kernel_count] = (sim_by_kernel_t){ .name = copy };
	return stats->kernel_count++;
}

/* The range that all of the block belongs to; NULL: several share it. */
static const sim_range_t *owner(uintptr_t address)
{
	const sim_range_t *range = sim_range_overlap(address, SIM_BLOCK_BYTES);
	return range && !range->space ? range : NULL;
}

/* False: no memory for all of it. */
static bool list_touched(sim_stats_t *stats, const sim_touched_t *touched, size_t count)
{
	uint64_t of = UINT64_MAX;
	for (size_t i = 0; i < count; i++) {
		uintptr_t address = sim_arena_base + (uintptr_t)touched[i].block * SIM_BLOCK_BYTES;
		const sim_range_t *range = owner(address);
		uint64_t id = range ? range->id : 0;
		uint32_t block = range ? (uint32_t)((address - range->start) / SIM_BLOCK_BYTES)
				       : touched[i].block;
		if (of == id) { /* so there is one */
			sim_stretch_t *last = &stats->stretches[stats->stretch_count - 1];
			if (last->end == block && last->uses == touched[i].uses) {
				last->end++;
				continue;
			}
		}
		if (stats->stretch_count == SIM_STATS_STRETCHES ||
		    !grow(&stats->stretches, stats->stretch_count, &stats->stretch_room,
			  sizeof(*stats->stretches)))
			return false;
		of = id;
		stats->stretches[stats->stretch_count++] = (sim_stretch_t){
			.allocation = id,
			.bytes = range ? range->bytes : 0,
			.kind = range ? range->kind : 0,
			.uses = touched[i].uses,
			.block = block,
			.end = block + 1,
		};
	}
	return true;
}

/* cost->launch: the record's number and the kernel's, each from 1 on. */
#define LAUNCH(record, kernel) ((uint64_t)(record) << 16 | (uint64_t)((kernel) + 1))

uint64_t sim_stats_launch(CUdevice device, const sim_launch_info_t *info,
			  const sim_touched_t *touched, size_t count)
{
	sim_stats_t *stats = &sim_stats;
	size_t kernel = kernel_of(info->kernel ? info->kernel : "");
	if (!stats->kernel_count)
		return 0;
	if (stats->launch_count >= sim_config.stats_launches ||
	    !grow(&stats->launches, stats->launch_count, &stats->launch_room,
		  sizeof(*stats->launches)))
		return LAUNCH(0, kernel);
	sim_launch_t *launch = &stats->launches[stats->launch_count++];
	*launch = (sim_launch_t){
		.info = *info, .kernel = kernel, .device = device, .first = stats->stretch_count,
	};
	launch->complete = list_touched(stats, touched, count);
	launch->end = stats->stretch_count;
	return LAUNCH(stats->launch_count, kernel);
}

void sim_stats_done(const sim_cost_t *cost, uint64_t start, uint64_t end)
{
	sim_by_device_t *device = &sim_stats.devices[cost->device];
	add(&device->sum, cost);
	device->end_ns = end > device->end_ns ? end : device->end_ns;
	if (cost->kernel || cost->vram_bytes)
		sim_work_done++;
	if (!cost->kernel)
		return;
	device->launches++;
	device->kernel_ns += end - start;
	if (!cost->launch)
		return;
	device->followed++;
	sim_by_kernel_t *kernel = &sim_stats.kernels[(cost->launch & 0xffff) - 1];
	kernel->launches++;
	kernel->ns += end - start;
	add(&kernel->sum, cost);
	if (cost->launch >> 16) {
		sim_launch_t *launch = &sim_stats.launches[(cost->launch >> 16) - 1];
		launch->cost = *cost;
		launch->start_ns = start;
		launch->end_ns = end;
	}
}
