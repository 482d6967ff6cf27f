/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Operations of a warp: the lanes of a mask meet, exchange values, and go on.
 *
 * Invariants
 *   - Lanes meet that name the same mask and the same operation, wherever in the
 *     program they are.  Lanes that have ended, or do not exist, are not waited for.
 *   - The record of a meeting is in the fiber of the lane that came first, which waits
 *     there until it is over; seat->meets has a bit for each such lane.
 *   - Lanes are done in their order; the last to come goes on at once.
 */
#include "engine.h"
#include "lanes.h"

#define EACH_LANE EMUV_EACH_LANE

/* Each lane's result. */
static void exchange(sim_fiber_t *warp, uint32_t operation, uint32_t mask)
{
	emuv_lane_t lanes[LANES];

	EACH_LANE(lane, mask) {
		lanes[lane].value = warp[lane].value;
		lanes[lane].source = (uint8_t)warp[lane].source;
	}
	emuv_lanes_exchange(lanes, operation, mask);
	EACH_LANE(lane, mask)
		warp[lane].result = lanes[lane].result;
}

/* Ends the meeting that `host` keeps; the lanes in `mask` but for `self` become ready. */
static void end_meeting(sim_seat_t *seat, uint32_t index, uint32_t host, uint32_t self)
{
	sim_fiber_t *warp = &seat->fibers[index * LANES];
	uint32_t mask = warp[host].meet_arrived;

	exchange(warp, warp[host].meet_operation, mask);
	warp[host].meet_arrived = 0;
	seat->meets[index] &= ~(1u << host);
	seat->core->rounds = 0;
	EACH_LANE(lane, mask)
		if (lane != self)
			sim_queue_add(&seat->core->ready, &warp[lane]);
}

/* activemask: waits until nobody else of the warp comes by (fiber.c). */
static uint64_t active(sim_core_t *core, sim_fiber_t *self, uint32_t alive, uint64_t place)
{
	if (!(alive & (alive - 1)))
		return alive;
	self->value = place;
	self->state = FIBER_ACTIVE;
	sim_queue_add(&core->active, self);
	sim_fiber_wait(core, self);
	return self->result;
}

uint64_t sim_warp(emuv_thread_t *thread, uint32_t operation, uint32_t mask, uint64_t value,
		  uint32_t source)
{
	sim_fiber_t *self = (sim_fiber_t *)thread;
	sim_seat_t *seat = sim_seat_of(thread);
	sim_core_t *core = seat->core;
	uint32_t index = thread->linear / LANES, lane = thread->linear % LANES;
	uint32_t alive = seat->lanes[index], host = lane;
	sim_fiber_t *warp = &seat->fibers[index * LANES];

	if (__builtin_expect(sim_run_stopped(core->run), 0))
		sim_core_leave(core, CORE_LEFT);
	if (operation == EMUV_WARP_ACTIVE)
		return active(core, self, alive, value);
	if (!(mask >> lane & 1))
		sim_trap(thread, EMUV_TRAP_INSTRUCTION,
			 "lane %u takes part in an operation of lanes 0x%08x, which it is none of",
			 lane, mask);
	self->value = value;
	self->source = source;
	EACH_LANE(other, seat->meets[index])
		if (warp[other].meet_mask == mask && warp[other].meet_operation == operation) {
			host = other;
			break;
		}
	if (host == lane) {
		self->meet_mask = mask;
		self->meet_operation = operation;
		self->meet_arrived = 0;
		seat->meets[index] |= 1u << lane;
	}
	warp[host].meet_arrived |= 1u << lane;
	if (warp[host].meet_arrived == (mask & alive)) {
		end_meeting(seat, index, host, lane);
		return self->result;
	}
	self->state = FIBER_WARP;
	sim_fiber_wait(core, self);
	return self->result;
}

void sim_warp_ended(sim_seat_t *seat, const sim_fiber_t *fiber)
{
	uint32_t index = fiber->thread.linear / LANES;
	sim_fiber_t *warp = &seat->fibers[index * LANES];

	EACH_LANE(host, seat->meets[index])
		if (warp[host].meet_arrived == (warp[host].meet_mask & seat->lanes[index]))
			end_meeting(seat, index, host, LANES);
}

void sim_warp_converge(sim_core_t *core)
{
	sim_queue_t waiting = core->active;

	core->active.first = NULL;
	core->rounds = 0;
	/* Of each fiber, those of its warp that wait at the same place. */
	for (sim_fiber_t *fiber = waiting.first; fiber; fiber = fiber->next) {
		sim_seat_t *seat = sim_seat_of(&fiber->thread);
		uint32_t index = fiber->thread.linear / LANES;
		const sim_fiber_t *warp = &seat->fibers[index * LANES];

		fiber->result = 0;
		EACH_LANE(lane, seat->lanes[index])
			if (warp[lane].state == FIBER_ACTIVE && warp[lane].value == fiber->value)
				fiber->result |= 1u << lane;
	}
	sim_queue_move(&core->ready, &waiting);
}

uint64_t sim_warp_none(emuv_thread_t *thread, uint32_t operation, uint32_t mask, uint64_t value,
		       uint32_t source)
{
	(void)mask, (void)value, (void)source;
	sim_trap(thread, EMUV_TRAP_INSTRUCTION,
		 "internal error: warp operation %u in a kernel without", operation);
}
