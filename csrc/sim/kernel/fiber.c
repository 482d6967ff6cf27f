/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fibers: the threads of blocks whose threads wait for each other.
 *
 * Invariants
 *   - A fiber is in exactly one place: it runs, or it is in one queue (ready, yielded,
 *     active, a barrier's, the grid's), or in a rendezvous of its warp, or it has ended.
 *   - Ready fibers go before lanes at activemask, and these before those that yielded
 *     (but for one round): so a mask is as full as it can be, and a lane that spins
 *     never keeps the one from running that it waits for.
 *   - Where all that is left only yields, other blocks of the grid are let in (the root
 *     does), as they would be on a card.
 */
#include <sched.h>
#include <string.h>

#include "engine.h"

#if SIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

/* After so many rounds in which fibers only yielded, a further block comes in. */
#define STALL_ROUNDS 2000

_Thread_local sim_core_t *sim_core_here;

void sim_fiber_begin(void);

void *sim_fiber_frame(void *top, void (*function)(void *), void *argument)
{
	uint64_t *frame;

#if defined(__x86_64__)
	/* r15 r14 r13 r12 rbx rbp, the return address; aligned as before a call. */
	frame = (uint64_t *)top - 7;
	frame[3] = (uint64_t)(uintptr_t)function;
	frame[4] = (uint64_t)(uintptr_t)argument;
	frame[5] = 0;
	frame[6] = (uint64_t)(uintptr_t)sim_fiber_begin;
#elif defined(__aarch64__)
	frame = (uint64_t *)top - 20;
	frame[0] = (uint64_t)(uintptr_t)argument;
	frame[1] = (uint64_t)(uintptr_t)function;
	frame[10] = 0;
	frame[11] = (uint64_t)(uintptr_t)sim_fiber_begin;
#else
#error "fibers are written for x86-64 and aarch64"
#endif
	return frame;
}

/* ---- changing places ---- */

#if SIM_ASAN
/* On a stack again, or for the first time. */
static void arrived(sim_core_t *core, void *fake)
{
	const void *bottom;
	size_t bytes;

	__sanitizer_finish_switch_fiber(fake, &bottom, &bytes);
	if (core->from_root) {
		core->root.bottom = bottom;
		core->root.bytes = bytes;
		core->from_root = false;
	}
}
#endif

static inline void change(sim_core_t *core, sim_place_t *from, sim_place_t *to)
{
#if SIM_ASAN
	__sanitizer_start_switch_fiber(&from->fake, to->bottom, to->bytes);
#endif
	sim_fiber_swap(&from->sp, to->sp);
#if SIM_ASAN
	arrived(core, from->fake);
#else
	(void)core;
#endif
}

static void from_root(sim_core_t *core, sim_place_t *place)
{
	core->from_root = true;
	change(core, &core->root, place);
	core->from_root = false;
}

void sim_core_leave(sim_core_t *core, int why)
{
	void *nowhere;

	core->why = why;
	core->current = NULL;
#if SIM_ASAN
	__sanitizer_start_switch_fiber(NULL, core->root.bottom, core->root.bytes);
#endif
	sim_fiber_swap(&nowhere, core->root.sp);
	__builtin_unreachable();
}

static void to_root(sim_core_t *core, sim_place_t *from, int why)
{
	core->why = why;
	core->current = NULL;
	change(core, from, &core->root);
}

/* ---- who is next ---- */

/* No fiber is ready.  NULL: core->why is set, the root goes on. */
static sim_fiber_t *refill(sim_core_t *core, int *why)
{
	if (sim_run_stopped(core->run)) {
		*why = CORE_LEFT;
		return NULL;
	}
	if (core->active.first && (core->patient || !core->yielded.first)) {
		core->patient = false;
		sim_warp_converge(core);
	} else if (core->yielded.first) {
		core->patient = core->active.first != NULL;
		sim_queue_move(&core->ready, &core->yielded);
		if (++core->rounds % 256 == 0) {
			sched_yield();
			if (core->rounds >= STALL_ROUNDS) {
				core->rounds = 0;
				*why = CORE_STALLED;
				return NULL;
			}
		}
	} else {
		*why = core->alive ? CORE_STUCK : CORE_IDLE;
		return NULL;
	}
	sim_fiber_t *next = core->ready.first;
	core->ready.first = next->next;
	return next;
}

static inline sim_fiber_t *next_ready(sim_core_t *core, int *why)
{
	sim_fiber_t *next = core->ready.first;

	if (__builtin_expect(!next, 0))
		return refill(core, why);
	core->ready.first = next->next;
	/* Its stack is cold; by the time the next switch comes, it is not. */
	if (next->next) {
		__builtin_prefetch(next->next->place.sp);
		__builtin_prefetch((char *)next->next->place.sp + 64);
	}
	return next;
}

void sim_fiber_wait(sim_core_t *core, sim_fiber_t *self)
{
	int why = CORE_IDLE;
	sim_fiber_t *next = next_ready(core, &why);

	if (next == self) {
		self->state = FIBER_READY;
		return;
	}
	if (next) {
		next->state = FIBER_READY;
		core->current = next;
		change(core, &self->place, &next->place);
	} else {
		to_root(core, &self->place, why);
	}
}

void sim_fibers_go(sim_core_t *core)
{
	int why = CORE_IDLE;
	sim_fiber_t *next = next_ready(core, &why);

	core->why = why;
	if (!next)
		return;
	next->state = FIBER_READY;
	core->current = next;
	from_root(core, &next->place);
}

void sim_yield(emuv_thread_t *thread)
{
	sim_core_t *core = sim_core_of(thread);
	sim_fiber_t *self = (sim_fiber_t *)thread;

	if (__builtin_expect(sim_run_stopped(core->run), 0))
		sim_core_leave(core, CORE_LEFT);
	sim_queue_add(&core->yielded, self);
	sim_fiber_wait(core, self);
}

void sim_nobody_waits(emuv_thread_t *thread)
{
	sim_core_t *core = sim_core_of(thread);

	if (sim_run_stopped(core->run))
		sim_core_leave(core, CORE_LEFT);
}

/* ---- the life of a fiber ---- */

static void ended(sim_core_t *core, sim_seat_t *seat, sim_fiber_t *self)
{
	uint32_t warp = self->thread.linear / LANES;

	self->state = FIBER_DONE;
	core->alive--;
	core->rounds = 0;
	seat->alive--;
	seat->lanes[warp] &= ~(1u << self->thread.linear % LANES);
	if (seat->meets[warp])
		sim_warp_ended(seat, self);
	if (seat->busy)
		sim_barriers_ended(seat, self);
	if (core->grid_arrived)
		sim_grid_ended(core);
}

static void fiber_main(void *argument)
{
	sim_fiber_t *self = argument, *next;
	sim_seat_t *seat = sim_seat_of(&self->thread);
	sim_core_t *core = seat->core;
	int why = CORE_IDLE;
	void *nowhere;

#if SIM_ASAN
	arrived(core, NULL);
#endif
	core->run->what->kernel->thread(&self->thread);
	ended(core, seat, self);
	next = next_ready(core, &why);
	if (!next)
		sim_core_leave(core, why);
	next->state = FIBER_READY;
	core->current = next;
#if SIM_ASAN
	__sanitizer_start_switch_fiber(NULL, next->place.bottom, next->place.bytes);
#endif
	sim_fiber_swap(&nowhere, next->place.sp);
}

void sim_fibers_start(sim_core_t *core, sim_seat_t *seat, uint64_t number)
{
	const emuv_launch_t *launch = &core->run->launch;
	uint32_t threads = core->run->threads, whole = threads / LANES;

	seat->number = number;
	seat->threads = seat->alive = threads;
	seat->block.index[0] = (uint32_t)(number % launch->grid[0]);
	seat->block.index[1] = (uint32_t)(number / launch->grid[0] % launch->grid[1]);
	seat->block.index[2] = (uint32_t)(number / launch->grid[0] / launch->grid[1]);
	seat->block.processor = (uint32_t)(number % launch->processors);
	for (uint32_t warp = 0; warp < whole; warp++)
		seat->lanes[warp] = ~0u;
	if (threads % LANES)
		seat->lanes[whole] = (1u << threads % LANES) - 1;
	memset(seat->meets, 0, sizeof(seat->meets));
	if (seat->busy) {
		memset(seat->barriers, 0, sizeof(seat->barriers));
		seat->busy = 0;
	}
	for (uint32_t i = 0; i < threads; i++) {
		sim_fiber_t *fiber = &seat->fibers[i];

		fiber->thread.local_next = fiber->thread.local_start;
		fiber->place.sp = sim_fiber_frame(fiber->top, fiber_main, fiber);
		fiber->meet_arrived = 0;
		fiber->state = FIBER_READY;
		sim_queue_add(&core->ready, fiber);
	}
	core->alive += threads;
	core->rounds = 0;
}

static void plain_main(void *argument)
{
	sim_core_t *core = argument;

#if SIM_ASAN
	arrived(core, NULL);
#endif
	core->plain_function(core);
	sim_core_leave(core, CORE_IDLE);
}

void sim_plain_go(sim_core_t *core, void (*function)(sim_core_t *core))
{
	core->plain_function = function;
	core->plain.sp = sim_fiber_frame(core->plain_stack + PLAIN_STACK_BYTES, plain_main, core);
	core->current = NULL;
	from_root(core, &core->plain);
}
