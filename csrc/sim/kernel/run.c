/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One launch: its blocks are taken by cores, in order, until there are none left.
 *
 * The thread that runs the launch brings one core; where blocks do not depend on each
 * other and there is enough to do, threads of a pool bring more.
 *
 * Invariants
 *   - runs_lock guards the list of runs and the pool; no other lock is taken under it.
 *   - A run ends early by its first trap (sim_run_ends): every core sees run->stop at
 *     its next back edge, wait or block.
 *   - A run is over when no core works for it: it lies on its thread's stack.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "engine.h"
#include "internal.h"

#define PROCESSORS 16 /* multiprocessors of the card: device.c */
/* Helpers are asked for from so many threads on, and after so long: waking one takes time. */
#define PARALLEL_THREADS 8192
#define PARALLEL_NS 30000
#define MOST_SEATS 64 /* of blocks that wait for each other without a cooperative launch */

static pthread_mutex_t runs_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t run_wanted = PTHREAD_COND_INITIALIZER, helper_done = PTHREAD_COND_INITIALIZER;
static sim_run_t *runs, *wanted;
static int helper_count;

static const emuv_engine_t engine_fibers = {
	sim_access, sim_trap_plain, sim_barrier, sim_warp, sim_yield, sim_grid_sync,
	sim_print, sim_assert_fail, sim_heap_allocate, sim_heap_release, sim_kernel_time,
};
/* No thread of it waits for another. */
static const emuv_engine_t engine_plain = {
	sim_access, sim_trap_plain, sim_barrier_none, sim_warp_none, sim_nobody_waits,
	sim_grid_none, sim_print, sim_assert_fail, sim_heap_allocate, sim_heap_release,
	sim_kernel_time,
};

int sim_kernel_workers(void)
{
	static _Atomic int known;
	int count = known;
	cpu_set_t cpus;

	if (sim_config.workers)
		return sim_config.workers;
	if (!count)
		known = count = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
	return count;
}

/* ---- the blocks of a core ---- */

static void ask_helpers(sim_run_t *run);

/* The next blocks of the run for this core, if there are any. */
static bool claim(sim_core_t *core, uint64_t *first, uint64_t *end)
{
	sim_run_t *run = core->run;

	if (sim_run_stopped(run))
		return false;
	/* A launch that is small by its size may still take long. */
	if (run->helpers_most && core == run->owner && sim_now() - run->begun > PARALLEL_NS)
		ask_helpers(run);
	*first = atomic_fetch_add_explicit(&run->next_block, run->chunk, memory_order_relaxed);
	*end = *first + run->chunk < run->blocks ? *first + run->chunk : run->blocks;
	return *first < run->blocks;
}

static void collect(sim_run_t *run, const emuv_thread_t *thread)
{
	if (!run->paging)
		return;
	atomic_fetch_add_explicit(&run->instructions, thread->instructions, memory_order_relaxed);
	atomic_fetch_add_explicit(&run->bytes, thread->bytes_read + thread->bytes_written,
				  memory_order_relaxed);
}

/* On the plain stack: threads one after another. */
static void plain_blocks(sim_core_t *core)
{
	sim_run_t *run = core->run;
	const uint32_t *grid = run->launch.grid;
	sim_seat_t *seat = core->seats[0];
	emuv_thread_t *thread = &core->thread;
	uint64_t first, end;

	while (claim(core, &first, &end)) {
		for (seat->number = first; seat->number < end && !sim_run_stopped(run); seat->number++) {
			seat->block.index[0] = (uint32_t)(seat->number % grid[0]);
			seat->block.index[1] = (uint32_t)(seat->number / grid[0] % grid[1]);
			seat->block.index[2] = (uint32_t)(seat->number / grid[0] / grid[1]);
			seat->block.processor = (uint32_t)(seat->number % PROCESSORS);
			thread->local_next = thread->local_start;
			run->what->kernel->block(thread);
		}
	}
}

static void no_memory(sim_run_t *run)
{
	if (sim_run_ends(run, SIM_TRAP_MEMORY))
		sim_say("error: kernel \"%.200s\": no memory for the stacks or the shared memory of "
			"its threads", run->what->name);
}

static void deadlock(sim_core_t *core)
{
	uint32_t barriers = 0, warps = 0, grid = 0, barrier = 0, mask = 0;
	const sim_seat_t *where = NULL;

	for (uint32_t s = 0; s < core->seats_used; s++) {
		const sim_seat_t *seat = core->seats[s];

		for (uint32_t i = 0; seat->alive && i < seat->threads; i++) {
			const sim_fiber_t *fiber = &seat->fibers[i];

			if (fiber->state != FIBER_DONE && !where)
				where = seat;
			if (fiber->state == FIBER_BARRIER) {
				barriers++;
				barrier = fiber->barrier;
			} else if (fiber->state == FIBER_WARP) {
				warps++;
				if (seat->meets[i / LANES] >> i % LANES & 1)
					mask = fiber->meet_mask;
			} else if (fiber->state == FIBER_GRID) {
				grid++;
			}
		}
	}
	if (!sim_run_ends(core->run, EMUV_TRAP_DEADLOCK) || !where)
		return;
	sim_say("error: kernel \"%.120s\", block (%u, %u, %u): no thread can go on: %u wait at a "
		"barrier (last: %u), %u in an operation of their warp (last: lanes 0x%08x), %u for "
		"the grid; %u have ended",
		core->run->what->name, where->block.index[0], where->block.index[1],
		where->block.index[2], barriers, barrier, warps, mask, grid,
		where->threads - where->alive);
}

/* A seat that no block sits on. */
static sim_seat_t *free_seat(sim_core_t *core)
{
	for (uint32_t i = 0; i < core->seats_used; i++)
		if (!core->seats[i]->alive)
			return core->seats[i];
	return core->seats_used < MOST_SEATS ? sim_core_seat(core, core->seats_used) : NULL;
}

static void fiber_blocks(sim_core_t *core)
{
	sim_run_t *run = core->run;
	uint64_t at_once = run->what->cooperative ? run->blocks : 1, block, end;
	sim_seat_t *seat;

	for (uint64_t i = 0; i < at_once; i++) {
		seat = sim_core_seat(core, (uint32_t)i);
		if (!seat) {
			no_memory(run);
			return;
		}
		if (claim(core, &block, &end))
			sim_fibers_start(core, seat, block);
	}
	for (;;) {
		sim_fibers_go(core);
		if (core->why == CORE_LEFT)
			return;
		if (core->why == CORE_STUCK) {
			deadlock(core);
			return;
		}
		/* All have ended, or those that are here may wait for one to come. */
		seat = free_seat(core);
		if (!seat || !claim(core, &block, &end)) {
			if (core->why == CORE_IDLE)
				return;
			continue;
		}
		sim_fibers_start(core, seat, block);
	}
}

static void work(sim_core_t *core, sim_run_t *run)
{
	bool fibers = run->what->kernel->flags & EMUV_KERNEL_SYNC;

	core->run = run;
	core->ready.first = core->yielded.first = core->active.first = core->grid_waiting.first = NULL;
	core->alive = core->seats_used = core->grid_arrived = core->rounds = 0;
	core->current = NULL;
	if (fibers ? !sim_core_seat(core, 0) : !sim_core_plain(core) || !sim_core_seat(core, 0)) {
		if (core == run->owner) /* a helper that cannot help is none */
			no_memory(run);
		return;
	}
	sim_fault_enter(core);
	if (fibers) {
		fiber_blocks(core);
		for (uint32_t s = 0; s < core->seats_used; s++)
			for (uint32_t i = 0; i < run->threads; i++)
				collect(run, &core->seats[s]->fibers[i].thread);
	} else {
		core->thread = (emuv_thread_t){
			.launch = &run->launch,
			.tallies = core->tallies,
			.block = &core->seats[0]->block,
			.local_start = (uint64_t)(uintptr_t)core->seats[0]->local,
			.local_end = (uint64_t)(uintptr_t)core->seats[0]->local +
				     run->what->local_bytes + sim_core_step_bytes(run),
		};
		sim_plain_go(core, plain_blocks);
		collect(run, &core->thread);
	}
	if (sim_run_stopped(run))
		sim_core_clear_stacks(core);
	sim_fault_leave(core);
	if (run->paging)
		sim_paging_flush(run->paging, core->tallies);
}

/* ---- helpers ---- */

/* runs_lock held. */
static void forget_wanted(sim_run_t *run)
{
	for (sim_run_t **at = &wanted; *at; at = &(*at)->next_wanted)
		if (*at == run) {
			*at = run->next_wanted;
			return;
		}
}

static void *help(void *nothing)
{
	pthread_mutex_lock(&runs_lock);
	for (;;) {
		sim_run_t *run = wanted;
		sim_core_t *core;

		if (!run) {
			pthread_cond_wait(&run_wanted, &runs_lock);
			continue;
		}
		run->helpers++;
		if (--run->helpers_wanted == 0)
			forget_wanted(run);
		pthread_mutex_unlock(&runs_lock);
		core = sim_core_take();
		if (core) {
			work(core, run);
			sim_core_give(core);
		}
		pthread_mutex_lock(&runs_lock);
		if (--run->helpers == 0)
			pthread_cond_broadcast(&helper_done);
	}
	return nothing;
}

/* A thread of emuV's own: it takes no signal that is the program's. */
bool sim_thread_start(void *(*function)(void *argument), void *argument)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	bool started;

	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	started = pthread_create(&thread, &attributes, function, argument) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return started;
}

/* How many there may be, beside the thread of the run. */
static int helpers_for(const sim_run_t *run)
{
	uint64_t most = (uint64_t)sim_kernel_workers() - 1;

	if (run->what->kernel->flags & (EMUV_KERNEL_CROSS | EMUV_KERNEL_GRID) ||
	    run->what->cooperative)
		return 0;
	return (int)(most < run->blocks - 1 ? most : run->blocks - 1);
}

static void ask_helpers(sim_run_t *run)
{
	int helpers = run->helpers_most;

	run->helpers_most = 0; /* asked */
	pthread_mutex_lock(&runs_lock);
	while (helper_count < helpers && sim_thread_start(help, NULL))
		helper_count++;
	if (helper_count < helpers)
		helpers = helper_count;
	run->helpers_wanted = helpers;
	if (helpers) {
		run->next_wanted = wanted;
		wanted = run;
		pthread_cond_broadcast(&run_wanted);
	}
	pthread_mutex_unlock(&runs_lock);
}

/* ---- the watch over time ---- */

static pthread_cond_t watch_changed;
static bool watching;

static void *watch(void *nothing)
{
	pthread_mutex_lock(&runs_lock);
	for (;;) {
		uint64_t now = sim_now(), nearest = UINT64_MAX;
		struct timespec until;

		for (sim_run_t *run = runs; run; run = run->next) {
			if (!run->deadline || sim_run_stopped(run))
				continue;
			if (run->deadline <= now && sim_run_ends(run, EMUV_TRAP_TIME))
				sim_say("error: kernel \"%.200s\" runs for more than "
					"EMUV_SIM_KERNEL_MS=%u: stopped", run->what->name,
					sim_config.kernel_ms);
			else if (run->deadline < nearest)
				nearest = run->deadline;
		}
		if (nearest == UINT64_MAX) {
			pthread_cond_wait(&watch_changed, &runs_lock);
			continue;
		}
		until.tv_sec = (time_t)(nearest / 1000000000u);
		until.tv_nsec = (long)(nearest % 1000000000u);
		pthread_cond_timedwait(&watch_changed, &runs_lock, &until);
	}
	return nothing;
}

/* runs_lock held. */
static void watch_over(sim_run_t *run)
{
	if (!watching) {
		pthread_condattr_t attributes;

		pthread_condattr_init(&attributes);
		pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
		pthread_cond_init(&watch_changed, &attributes);
		pthread_condattr_destroy(&attributes);
		watching = sim_thread_start(watch, NULL);
	}
	run->deadline = sim_now() + sim_config.kernel_ms * 1000000ull;
	pthread_cond_signal(&watch_changed);
}

/* ---- a run ---- */

bool sim_run_ends(sim_run_t *run, int why)
{
	int none = EMUV_TRAP_NONE;
	bool first = atomic_compare_exchange_strong(&run->trap, &none, why);

	if (first)
		__atomic_store_n(&run->stop, (uint32_t)why, __ATOMIC_RELEASE);
	return first;
}

void sim_kernels_stop(const sim_context_t *context)
{
	pthread_mutex_lock(&runs_lock);
	for (sim_run_t *run = runs; run; run = run->next)
		if (run->what->context == context)
			sim_run_ends(run, EMUV_TRAP_STOPPED);
	pthread_mutex_unlock(&runs_lock);
}

static void begin(sim_run_t *run)
{
	run->helpers_most = helpers_for(run);
	/* Small pieces towards the end would be better still; blocks are usually alike. */
	run->chunk = run->what->kernel->flags & EMUV_KERNEL_SYNC
			     ? 1
			     : run->blocks / (uint64_t)(run->helpers_most + 1) / 8 + 1;
	if (run->chunk > 64)
		run->chunk = 64;
	run->begun = run->helpers_most ? sim_now() : 0;
	pthread_mutex_lock(&runs_lock);
	run->next = runs;
	runs = run;
	/* Told to stop between the submission and now: sim_kernels_stop did not see it. */
	if (run->what->context->stop)
		sim_run_ends(run, EMUV_TRAP_STOPPED);
	if (sim_config.kernel_ms)
		watch_over(run);
	pthread_mutex_unlock(&runs_lock);
	if (run->helpers_most && run->blocks * run->threads >= PARALLEL_THREADS)
		ask_helpers(run);
}

static void end(sim_run_t *run)
{
	pthread_mutex_lock(&runs_lock);
	forget_wanted(run);
	while (run->helpers)
		pthread_cond_wait(&helper_done, &runs_lock);
	for (sim_run_t **at = &runs; *at; at = &(*at)->next)
		if (*at == run) {
			*at = run->next;
			break;
		}
	pthread_mutex_unlock(&runs_lock);
}

static CUresult answer(int trap)
{
	switch (trap) {
	case EMUV_TRAP_NONE:
		return CUDA_SUCCESS;
	case EMUV_TRAP_ADDRESS:
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	case EMUV_TRAP_ALIGNMENT:
		return CUDA_ERROR_MISALIGNED_ADDRESS;
	case EMUV_TRAP_ASSERT:
		return CUDA_ERROR_ASSERT;
	case EMUV_TRAP_FUNCTION:
		return CUDA_ERROR_INVALID_PC;
	case EMUV_TRAP_TIME:
		return CUDA_ERROR_LAUNCH_TIMEOUT;
	case SIM_TRAP_MEMORY:
		return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
	default:
		return CUDA_ERROR_LAUNCH_FAILED;
	}
}

CUresult sim_kernel_run(const sim_kernel_launch_t *what, sim_cost_t *cost)
{
	static _Atomic uint64_t grids;
	sim_run_t run = { .what = what };
	sim_core_t *core = sim_core_take();

	if (!core)
		return CUDA_ERROR_OUT_OF_MEMORY;
	run.threads = what->block[0] * what->block[1] * what->block[2];
	run.blocks = (uint64_t)what->grid[0] * what->grid[1] * what->grid[2];
	run.launch = (emuv_launch_t){
		.engine = what->kernel->flags & EMUV_KERNEL_SYNC ? &engine_fibers : &engine_plain,
		.arena_base = sim_arena_base,
		.arena_reject = ~(sim_arena_bytes - 1),
		.parameters = what->parameters,
		.variables = what->variables,
		.parameter_bytes = what->parameter_bytes,
		.dynamic_shared = what->dynamic_shared,
		.grid = { what->grid[0], what->grid[1], what->grid[2] },
		.block = { what->block[0], what->block[1], what->block[2] },
		.shared_bytes = what->static_shared + what->dynamic_shared,
		.processors = PROCESSORS,
		.grid_id = atomic_fetch_add(&grids, 1) + 1,
		.stop = &run.stop,
		.engine_private = &run,
	};
	if (what->kernel->track) {
		sim_launch_info_t info = { .kernel = what->name, .computed = true };

		memcpy(info.grid, what->grid, sizeof(info.grid));
		memcpy(info.block, what->block, sizeof(info.block));
		run.paging = sim_paging_begin(what->context, &info);
		if (!run.paging) {
			sim_core_give(core);
			return CUDA_ERROR_OUT_OF_MEMORY;
		}
		run.launch.table = sim_paging_table(run.paging);
	}
	run.owner = core;
	begin(&run);
	work(core, &run);
	sim_core_give(core);
	end(&run);
	cost->kernel = true;
	cost->instructions += run.instructions;
	cost->vram_bytes += run.bytes;
	if (run.paging)
		sim_paging_end(run.paging, cost);
	sim_print_end(&run);
	return answer(run.trap);
}
