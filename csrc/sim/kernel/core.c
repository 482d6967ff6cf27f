/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cores: what executing blocks needs, kept from launch to launch while it is hot.
 *
 * Invariants
 *   - A core is used by one host thread at a time.  Free ones wait in a list, the last
 *     used first; of their seats they keep KEPT_SEATS.
 *   - Windows and local memory lie in the arena, where generic addresses reach them;
 *     stacks lie outside, where no kernel's address does.
 *   - A window is 4 GiB of address space, so that no 32-bit offset leaves it; beyond
 *     WIDE_SEATS seats (of cooperative launches), and where the arena is small, it is
 *     NARROW_BYTES: there an offset that is wrong by that much could meet something else.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"
#include "memory.h"
#if SIM_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define KEPT_SEATS 2
#define WIDE_SEATS 32
#define WIDE_BYTES ((size_t)4 << 30)
#define NARROW_BYTES ((size_t)128 << 20)
#define STACK_BYTES ((size_t)128 << 10)
#define DEEP_STACK_BYTES ((size_t)1 << 20) /* of kernels that call themselves */
#define GUARD_BYTES ((size_t)4096)
/* Each guard costs two kernel mappings, of 65,530 that a process may have. */
#define MOST_GUARDS 8192
/*
 * Stacks begin at 16 different places of their pages: if all began at the same one, all
 * frames would fall into the same few sets of the cache.
 */
#define COLOURS 16u
#define COLOUR_BYTES 256u

static pthread_mutex_t cores_lock = PTHREAD_MUTEX_INITIALIZER;
static sim_core_t *cores;
static _Atomic int guards;

static void *map(size_t bytes)
{
	void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	return start == MAP_FAILED ? NULL : start;
}

sim_core_t *sim_core_take(void)
{
	sim_core_t *core;

	pthread_mutex_lock(&cores_lock);
	core = cores;
	if (core)
		cores = core->next;
	pthread_mutex_unlock(&cores_lock);
	if (!core)
		core = calloc(1, sizeof(*core));
	return core;
}

/* ---- seats ---- */

static void drop_stacks(sim_seat_t *seat)
{
	if (seat->stacks) {
		munmap(seat->stacks, seat->stack_bytes * seat->stack_count);
		if (seat->stack_count && seat->fibers[0].guarded)
			atomic_fetch_sub(&guards, (int)seat->stack_count);
	}
	free(seat->fibers);
	seat->fibers = NULL;
	seat->stacks = NULL;
	seat->stack_count = 0;
}

static void drop_seat(sim_seat_t *seat)
{
	drop_stacks(seat);
	if (seat->local)
		sim_unmap(seat->local, seat->local_bytes);
	if (seat->window)
		sim_arena_give(seat->window, seat->window_span);
	free(seat);
}

void sim_core_give(sim_core_t *core)
{
	while (core->seat_count > KEPT_SEATS) {
		core->seat_count--;
		drop_seat(core->seats[core->seat_count]);
	}
	core->run = NULL;
	pthread_mutex_lock(&cores_lock);
	core->next = cores;
	cores = core;
	pthread_mutex_unlock(&cores_lock);
}

static bool make_stacks(sim_seat_t *seat, uint32_t threads, size_t bytes)
{
	/* Whole warps, so that every lane of a mask has a record. */
	uint32_t count = (threads + LANES - 1) / LANES * LANES;
	bool guarded;

	if (seat->stack_count >= count && seat->stack_bytes >= bytes)
		return true;
	drop_stacks(seat);
	seat->fibers = calloc(count, sizeof(*seat->fibers));
	seat->stacks = seat->fibers ? map(count * bytes) : NULL;
	if (!seat->stacks)
		return false;
	seat->stack_bytes = bytes;
	seat->stack_count = count;
	guarded = atomic_fetch_add(&guards, (int)count) + (int)count <= MOST_GUARDS;
	if (!guarded)
		atomic_fetch_sub(&guards, (int)count);
	for (uint32_t i = 0; i < count; i++) {
		char *stack = seat->stacks + i * bytes;

		if (guarded)
			mprotect(stack, GUARD_BYTES, PROT_NONE);
		seat->fibers[i].top = stack + bytes - i % COLOURS * COLOUR_BYTES;
		seat->fibers[i].guarded = guarded;
#if SIM_ASAN
		seat->fibers[i].place.bottom = stack;
		seat->fibers[i].place.bytes = bytes;
#endif
	}
	return true;
}

static bool make_local(sim_seat_t *seat, size_t bytes)
{
	if (seat->local_bytes >= bytes)
		return true;
	if (seat->local)
		sim_unmap(seat->local, seat->local_bytes);
	bytes = sim_round_up(bytes, SIM_BLOCK_BYTES);
	seat->local = sim_map(bytes);
	seat->local_bytes = seat->local ? bytes : 0;
	return seat->local;
}

/*
 * Windows lie at the far end of the arena: what a kernel writes past an allocation does
 * not end in shared memory.
 */
static void *take_window(size_t span)
{
	/* The arena's last block is not to be had. */
	static uint64_t given = SIM_BLOCK_BYTES;
	uint64_t end = __atomic_add_fetch(&given, span, __ATOMIC_RELAXED);

	return sim_arena_take(span, SIM_BLOCK_BYTES,
			      end < sim_arena_bytes / 2 ? sim_arena_base + sim_arena_bytes - end : 0);
}

/* Exactly the pages that the launch may use are accessible. */
static bool make_window(sim_seat_t *seat, uint32_t index, size_t bytes)
{
	bytes = sim_round_up(bytes, (size_t)sysconf(_SC_PAGESIZE));
	if (!seat->window) {
		seat->window_span = index < WIDE_SEATS ? WIDE_BYTES : NARROW_BYTES;
		seat->window = take_window(seat->window_span);
	}
	if (!seat->window) {
		seat->window_span = NARROW_BYTES;
		seat->window = take_window(seat->window_span);
	}
	if (!seat->window)
		return false;
	if (bytes > seat->window_bytes &&
	    mprotect(seat->window, bytes, PROT_READ | PROT_WRITE) != 0)
		return false;
	if (bytes < seat->window_bytes)
		mprotect(seat->window + bytes, seat->window_bytes - bytes, PROT_NONE);
	seat->window_bytes = bytes;
	return true;
}

static void describe(sim_core_t *core, sim_seat_t *seat)
{
	const sim_run_t *run = core->run;
	const uint32_t *block = run->launch.block;
	uint32_t index[3] = { 0 };

	for (uint32_t i = 0; i < seat->stack_count; i++) {
		emuv_thread_t *thread = &seat->fibers[i].thread;

		memset(thread, 0, sizeof(*thread));
		thread->launch = &run->launch;
		thread->tallies = core->tallies;
		thread->block = &seat->block;
		thread->linear = i;
		memcpy(thread->index, index, sizeof(index));
		thread->local_start = (uint64_t)(uintptr_t)seat->local +
				      i * (uint64_t)run->what->local_bytes;
		thread->local_end = thread->local_start + run->what->local_bytes;
		if (++index[0] == block[0]) {
			index[0] = 0;
			if (++index[1] == block[1]) {
				index[1] = 0;
				index[2]++;
			}
		}
	}
}

sim_seat_t *sim_core_seat(sim_core_t *core, uint32_t index)
{
	const sim_run_t *run = core->run;
	bool fibers = run->what->kernel->flags & EMUV_KERNEL_SYNC;
	size_t stack = run->what->recursive ? DEEP_STACK_BYTES : STACK_BYTES;
	sim_seat_t *seat, **more;

	while (core->seat_count <= index) {
		more = realloc(core->seats, (core->seat_count + 1) * sizeof(*more));
		if (!more)
			return NULL;
		core->seats = more;
		more[core->seat_count] = calloc(1, sizeof(**more));
		if (!more[core->seat_count])
			return NULL;
		core->seat_count++;
	}
	seat = core->seats[index];
	seat->core = core;
	seat->alive = 0;
	if (!make_window(seat, index, run->launch.shared_bytes) ||
	    !make_local(seat, (fibers ? run->threads : 1) * run->what->local_bytes +
				      sim_core_step_bytes(run)) ||
	    (fibers && !make_stacks(seat, run->threads, stack)))
		return NULL;
	if (run->paging) {
		sim_paging_own(run->paging, (uint64_t)(uintptr_t)seat->window, seat->window_bytes);
		sim_paging_own(run->paging, (uint64_t)(uintptr_t)seat->local, seat->local_bytes);
	}
	seat->block.launch = &run->launch;
	seat->block.shared = (uint8_t *)seat->window;
	if (fibers)
		describe(core, seat);
	if (core->seats_used <= index)
		core->seats_used = index + 1;
	return seat;
}

bool sim_core_plain(sim_core_t *core)
{
	if (core->plain_stack)
		return true;
	core->plain_stack = map(PLAIN_STACK_BYTES);
	if (!core->plain_stack)
		return false;
	mprotect(core->plain_stack, GUARD_BYTES, PROT_NONE);
#if SIM_ASAN
	core->plain.bottom = core->plain_stack;
	core->plain.bytes = PLAIN_STACK_BYTES;
#endif
	return true;
}

#if SIM_ASAN
/* What was left in the middle of functions (a trap, a stop) is no variable of theirs any more. */
void sim_core_clear_stacks(sim_core_t *core)
{
	if (core->plain_stack)
		__asan_unpoison_memory_region(core->plain_stack, PLAIN_STACK_BYTES);
	for (uint32_t i = 0; i < core->seats_used; i++)
		if (core->seats[i]->stacks)
			__asan_unpoison_memory_region(core->seats[i]->stacks,
						      core->seats[i]->stack_bytes *
							      core->seats[i]->stack_count);
}
#endif

/* ---- whose is an address? ---- */

static bool within(const char *start, size_t size, uint64_t address, uint64_t bytes)
{
	uint64_t offset = address - (uint64_t)(uintptr_t)start;

	return start && offset < size && bytes <= size - offset;
}

uint64_t sim_core_owns(const sim_core_t *core, uint64_t address, uint64_t bytes)
{
	for (uint32_t i = 0; i < core->seats_used; i++) {
		const sim_seat_t *seat = core->seats[i];

		if (within(seat->window, seat->window_bytes, address, bytes))
			return (uint64_t)(uintptr_t)seat->window + seat->window_bytes - address;
		if (within(seat->local, seat->local_bytes, address, bytes))
			return (uint64_t)(uintptr_t)seat->local + seat->local_bytes - address;
	}
	return 0;
}

bool sim_core_guards(const sim_core_t *core, uint64_t address)
{
	if (within(core->plain_stack, GUARD_BYTES, address, 1))
		return true;
	for (uint32_t i = 0; i < core->seats_used; i++) {
		const sim_seat_t *seat = core->seats[i];

		if (within(seat->stacks, seat->stack_bytes * seat->stack_count, address, 1))
			return true;
	}
	return false;
}
