/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Accesses that generated code did not decide by itself, and how a kernel is ended.
 *
 * What a kernel may reach: live ranges of the arena, its windows and local memory, and
 * host memory that was registered.  The rest is an illegal address, pageable host memory
 * included.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "internal.h"
#include "memory.h"

/* ---- ends ---- */

static void say(const emuv_thread_t *thread, const char *format, va_list arguments)
{
	const uint32_t *block = thread->block->index, *index = thread->index;
	char text[320];

	vsnprintf(text, sizeof(text), format, arguments);
	sim_say("error: kernel \"%.120s\", block (%u, %u, %u), thread (%u, %u, %u): %s",
		sim_core_of(thread)->run->what->name, block[0], block[1], block[2], index[0],
		index[1], index[2], text);
}

void sim_trap(emuv_thread_t *thread, int why, const char *format, ...)
{
	sim_core_t *core = sim_core_of(thread);
	va_list arguments;

	if (sim_run_ends(core->run, why)) {
		va_start(arguments, format);
		say(thread, format, arguments);
		va_end(arguments);
	}
	sim_core_leave(core, CORE_LEFT);
}

void sim_trap_plain(emuv_thread_t *thread, int why, uint64_t detail)
{
	switch (why) {
	case EMUV_TRAP_ADDRESS:
		sim_trap(thread, why, "address 0x%llx", (unsigned long long)detail);
	case EMUV_TRAP_ALIGNMENT:
		sim_trap(thread, why, "address 0x%llx is not aligned", (unsigned long long)detail);
	case EMUV_TRAP_STACK:
		sim_trap(thread, why, "its local memory is used up: raise CU_LIMIT_STACK_SIZE");
	case EMUV_TRAP_FUNCTION:
		sim_trap(thread, why, "calls 0x%llx, which is no function",
			 (unsigned long long)detail);
	case EMUV_TRAP_LANES:
		sim_trap(thread, EMUV_TRAP_INSTRUCTION,
			 "lane %u takes part in an operation of lanes 0x%08llx, which it is none of",
			 thread->linear % LANES, (unsigned long long)detail);
	case EMUV_TRAP_DEADLOCK:
		sim_trap(thread, why,
			 "no thread can go on: %u wait at a barrier, %u in an operation of their "
			 "warp", (uint32_t)detail, (uint32_t)(detail >> 32));
	case EMUV_TRAP_STOPPED:
	case EMUV_TRAP_TIME:
		sim_core_leave(sim_core_of(thread), CORE_LEFT);
	default:
		sim_trap(thread, why, "trap");
	}
}

/* ---- where an address is, in words ---- */

typedef struct {
	uint64_t address, distance, start, bytes;
	bool behind;
	sim_range_kind_t kind;
} nearest_t;

static void nearer(sim_range_t *range, void *argument)
{
	nearest_t *nearest = argument;
	uint64_t end = range->start + range->bytes, distance;
	bool behind = nearest->address >= end;

	if (range->kind == SIM_RANGE_RESERVED)
		return;
	distance = behind ? nearest->address - end + 1
			  : nearest->address < range->start ? range->start - nearest->address : 0;
	if (distance < nearest->distance) {
		nearest->distance = distance;
		nearest->start = range->start;
		nearest->bytes = range->bytes;
		nearest->behind = behind;
		nearest->kind = range->kind;
	}
}

static const char *kind_name(sim_range_kind_t kind)
{
	return kind == SIM_RANGE_HOST ? "host" : kind == SIM_RANGE_MANAGED ? "managed" : "device";
}

void sim_trap_access(emuv_thread_t *thread, uint64_t address, uint32_t bytes, int write)
{
	nearest_t nearest = { .address = address, .distance = UINT64_MAX };
	char what[64], where[160];
	sim_core_t *core = sim_core_of(thread);
	const sim_seat_t *seat = sim_seat_of(thread);

	if (bytes)
		snprintf(what, sizeof(what), "%s of %u bytes", write < 0 ? "access" : write ? "write" : "read",
			 bytes);
	else
		snprintf(what, sizeof(what), "%s", write < 0 ? "access" : write ? "write" : "read");
	if (bytes && address & (bytes - 1))
		sim_trap(thread, EMUV_TRAP_ALIGNMENT, "%s at 0x%llx, which is not a multiple of %u",
			 what, (unsigned long long)address, bytes);
	sim_lock_take();
	sim_range_each(nearer, &nearest);
	sim_lock_drop();
	if (seat->window && address - (uint64_t)(uintptr_t)seat->window < UINT32_MAX)
		snprintf(where, sizeof(where), "offset 0x%llx of shared memory, of which the block has %u bytes",
			 (unsigned long long)(address - (uint64_t)(uintptr_t)seat->window),
			 core->run->launch.shared_bytes);
	else if (nearest.distance == UINT64_MAX || nearest.distance > (uint64_t)1 << 40)
		snprintf(where, sizeof(where), "nowhere near an allocation");
	else if (!nearest.distance)
		snprintf(where, sizeof(where), "in the %s memory of %llu bytes at 0x%llx, which it may not "
			 "access so", kind_name(nearest.kind), (unsigned long long)nearest.bytes,
			 (unsigned long long)nearest.start);
	else
		snprintf(where, sizeof(where), "%llu bytes %s %llu bytes of %s memory at 0x%llx",
			 (unsigned long long)nearest.distance - nearest.behind,
			 nearest.behind ? "past the end of the" : "in front of the",
			 (unsigned long long)nearest.bytes, kind_name(nearest.kind),
			 (unsigned long long)nearest.start);
	sim_trap(thread, EMUV_TRAP_ADDRESS, "%s at 0x%llx: %s", what, (unsigned long long)address, where);
}

/* ---- the slow path ---- */

/* sim_lock held.  How many bytes a kernel may use from the address on. */
static uint64_t reachable(uint64_t address)
{
	sim_range_t *range = sim_range_find((uintptr_t)address);
	sim_mapping_t mapping;

	if (!range)
		return 0;
	if (range->kind != SIM_RANGE_RESERVED)
		return range->start + range->bytes - address;
	if (!sim_vmm_mapping(range, (uintptr_t)address, 0, &mapping) ||
	    mapping.access == CU_MEM_ACCESS_FLAGS_PROT_NONE)
		return 0;
	return mapping.start + mapping.bytes - address;
}

static __attribute__((noinline)) void *access_slow(emuv_thread_t *thread, uint64_t address,
						   uint32_t bytes, uint32_t rights)
{
	sim_core_t *core = sim_core_of(thread);
	sim_run_t *run = core->run;
	bool inside = sim_arena_holds((uintptr_t)address);
	CUresult result = CUDA_SUCCESS;

	if (address & (bytes - 1))
		sim_trap_access(thread, address, bytes, (rights & EMUV_WRITE) != 0);
	if (inside && sim_core_owns(core, address, bytes))
		return (void *)(uintptr_t)address;
	if (run->paging) {
		result = sim_paging_access(run->paging, address, bytes, rights);
	} else if (!inside) {
		sim_lock_take();
		if (reachable(address) < bytes)
			result = CUDA_ERROR_ILLEGAL_ADDRESS;
		sim_lock_drop();
	}
	if (result == CUDA_ERROR_OUT_OF_MEMORY)
		sim_trap(thread, SIM_TRAP_MEMORY, "no memory on the card for the block of 0x%llx",
			 (unsigned long long)address);
	if (result != CUDA_SUCCESS)
		sim_trap_access(thread, address, bytes, (rights & EMUV_WRITE) != 0);
	return (void *)(uintptr_t)address;
}

/* Remote blocks come here with each access. */
void *sim_access(emuv_thread_t *thread, uint64_t address, uint32_t bytes, uint32_t rights)
{
	sim_core_t *core = sim_core_of(thread);
	sim_run_t *run = core->run;

	if (run->paging && !(address & (bytes - 1)) &&
	    sim_paging_remote(run->paging, &run->launch, core->tallies, address, bytes, rights))
		return (void *)(uintptr_t)address;
	return access_slow(thread, address, bytes, rights);
}

const char *sim_kernel_bytes(emuv_thread_t *thread, uint64_t address, uint64_t bytes, uint64_t *room)
{
	*room = sim_core_owns(sim_core_of(thread), address, bytes);
	if (!*room) {
		sim_lock_take();
		*room = reachable(address);
		sim_lock_drop();
	}
	return *room >= bytes && *room ? (const char *)(uintptr_t)address : NULL;
}

uint64_t sim_kernel_time(emuv_thread_t *thread)
{
	(void)thread;
	return sim_now();
}
