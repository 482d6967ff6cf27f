/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Barriers of a block, and of a grid.
 *
 * A barrier for all threads waits for those that have not ended.  One for a number of
 * threads counts whole warps, as the hardware does: with the first lane of a warp come
 * those of its lanes that do not exist or have ended.  The last to come goes on at once.
 */
#include "engine.h"

static uint32_t missing(const sim_seat_t *seat, uint32_t warp)
{
	return LANES - (uint32_t)__builtin_popcount(seat->lanes[warp]);
}

static uint32_t reduced(uint32_t operation, uint32_t trues, uint32_t real)
{
	switch (operation) {
	case EMUV_BARRIER_POPC:
		return trues;
	case EMUV_BARRIER_AND:
		return trues == real;
	case EMUV_BARRIER_OR:
		return trues != 0;
	default:
		return 0;
	}
}

static bool complete(const sim_seat_t *seat, const sim_barrier_t *barrier)
{
	return barrier->arrived >= (barrier->expected ? barrier->expected : seat->alive);
}

static void release(sim_seat_t *seat, uint32_t id)
{
	sim_barrier_t *barrier = &seat->barriers[id];

	if (barrier->reduces)
		for (sim_fiber_t *fiber = barrier->waiting.first; fiber; fiber = fiber->next)
			fiber->result = reduced(fiber->source, barrier->trues, barrier->real);
	sim_queue_move(&seat->core->ready, &barrier->waiting);
	barrier->arrived = 0;
	seat->busy &= ~(1u << id);
	seat->core->rounds = 0;
	/* What spins has its turn too: it may be what the next barrier waits for. */
	sim_queue_move(&seat->core->ready, &seat->core->yielded);
}

uint32_t sim_barrier(emuv_thread_t *thread, uint32_t operation, uint32_t id, uint32_t threads,
		     uint32_t predicate)
{
	sim_fiber_t *self = (sim_fiber_t *)thread;
	sim_seat_t *seat = sim_seat_of(thread);
	sim_core_t *core = seat->core;
	uint32_t warp = thread->linear / LANES;
	sim_barrier_t *barrier;

	if (id >= BARRIERS)
		sim_trap(thread, EMUV_TRAP_INSTRUCTION, "there is no barrier %u", id);
	if (__builtin_expect(sim_run_stopped(core->run), 0))
		sim_core_leave(core, CORE_LEFT);
	barrier = &seat->barriers[id];
	if (!barrier->arrived) {
		barrier->expected = threads;
		barrier->real = barrier->trues = barrier->warps = 0;
		barrier->reduces = false;
		barrier->waiting.first = NULL;
		seat->busy |= 1u << id;
	}
	barrier->arrived++;
	barrier->real++;
	barrier->trues += predicate != 0;
	if (barrier->expected && !(barrier->warps >> warp & 1)) {
		barrier->warps |= 1u << warp;
		barrier->arrived += missing(seat, warp);
	}
	barrier->reduces |= operation >= EMUV_BARRIER_POPC;
	if (complete(seat, barrier)) {
		release(seat, id);
		return reduced(operation, barrier->trues, barrier->real);
	}
	if (operation == EMUV_BARRIER_ARRIVE)
		return 0;
	self->source = operation;
	self->barrier = id;
	self->state = FIBER_BARRIER;
	sim_queue_add(&barrier->waiting, self);
	sim_fiber_wait(core, self);
	return (uint32_t)self->result;
}

void sim_barriers_ended(sim_seat_t *seat, const sim_fiber_t *fiber)
{
	uint32_t warp = fiber->thread.linear / LANES;

	for (uint32_t left = seat->busy; left; left &= left - 1) {
		uint32_t id = (uint32_t)__builtin_ctz(left);
		sim_barrier_t *barrier = &seat->barriers[id];

		if (barrier->expected && barrier->warps >> warp & 1)
			barrier->arrived++;
		if (complete(seat, barrier))
			release(seat, id);
	}
}

/* ---- the grid's: of a cooperative launch, whose blocks all sit in one core ---- */

static void grid_release(sim_core_t *core)
{
	if (core->grid_arrived < core->alive)
		return;
	core->grid_arrived = 0;
	core->rounds = 0;
	sim_queue_move(&core->ready, &core->grid_waiting);
}

void sim_grid_sync(emuv_thread_t *thread)
{
	sim_fiber_t *self = (sim_fiber_t *)thread;
	sim_core_t *core = sim_core_of(thread);

	if (!core->run->what->cooperative)
		sim_trap(thread, EMUV_TRAP_INSTRUCTION,
			 "waits for all of its grid, and was not launched as cooperative");
	core->grid_arrived++;
	self->state = FIBER_GRID;
	sim_queue_add(&core->grid_waiting, self);
	grid_release(core);
	sim_fiber_wait(core, self);
}

void sim_grid_ended(sim_core_t *core)
{
	grid_release(core);
}

/* ---- where threads run one after another ---- */

uint32_t sim_barrier_none(emuv_thread_t *thread, uint32_t operation, uint32_t id, uint32_t threads,
			  uint32_t predicate)
{
	(void)operation, (void)threads, (void)predicate;
	sim_trap(thread, EMUV_TRAP_INSTRUCTION, "internal error: barrier %u in a kernel without", id);
}

void sim_grid_none(emuv_thread_t *thread)
{
	sim_trap(thread, EMUV_TRAP_INSTRUCTION, "internal error: waits for its grid, unexpectedly");
}
