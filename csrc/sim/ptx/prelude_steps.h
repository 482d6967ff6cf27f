/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * After kernel/lanes.h: kernels in steps (translate_steps.c).  A thread that waits puts
 * what it waits for into its emuv_lane_t and returns; here those meet that wait for
 * each other.
 */
#define EMUV_STEP_DONE 0xffff

/* What EMUV_WARP and EMUV_BARRIER are in front of the return, and behind it. */
#define EMUV_OFFER(o, m, v, s) \
	(lane->operation = (o), lane->mask = (m), lane->value = (v), lane->source = (uint8_t)(s), 0ull)
#define EMUV_OFFER_BLOCK(o, predicate) EMUV_OFFER(EMUV_LANE_BLOCK | (o), 0, predicate, 0)

/* Of the lanes that wait for their warp, those whose partners are all there: they go on. */
EMUV_RARE uint32_t emuv_steps_meet(emuv_thread_t *thread, emuv_lane_t *warp, uint32_t alive,
				   uint32_t waiting)
{
	uint32_t ready = 0, active = 0;

	while (waiting) {
		uint32_t first = (uint32_t)__builtin_ctz(waiting), group = 0;
		uint32_t mask = warp[first].mask, operation = warp[first].operation;

		EMUV_EACH_LANE(other, waiting)
			group |= (uint32_t)(warp[other].mask == mask &&
					    warp[other].operation == operation) << other;
		waiting &= ~group;
		if (operation == EMUV_WARP_ACTIVE) {
			active |= group;
		} else if (group & ~mask) {
			thread->linear = first;
			thread->launch->engine->trap(thread, EMUV_TRAP_LANES, mask);
		} else if (group == (mask & alive)) {
			emuv_lanes_exchange(warp, operation, group);
			ready |= group;
		}
	}
	/* activemask waits until nobody else of the warp comes by. */
	if (!ready && active) {
		emuv_lanes_exchange(warp, EMUV_WARP_ACTIVE, active);
		ready = active;
	}
	return ready;
}

/* All threads that have not ended are at the block's barrier. */
EMUV_RARE void emuv_steps_release(emuv_lane_t *lane, const uint32_t *alive, uint32_t warps)
{
	uint32_t trues = 0, all = 0;

	for (uint32_t w = 0; w < warps; w++) {
		trues += (uint32_t)__builtin_popcount(emuv_lanes_true(lane + 32 * w, alive[w]));
		all += (uint32_t)__builtin_popcount(alive[w]);
	}
	for (uint32_t w = 0; w < warps; w++)
		EMUV_EACH_LANE(one, alive[w]) {
			emuv_lane_t *at = &lane[32 * w + one];
			uint32_t operation = at->operation & ~EMUV_LANE_BLOCK;

			at->result = operation == EMUV_BARRIER_POPC  ? trues
				     : operation == EMUV_BARRIER_AND ? trues == all
				     : operation == EMUV_BARRIER_OR  ? trues != 0
								     : 0;
		}
}

/* Where each thread is; which lanes there are.  The number of warps. */
EMUV_RARE uint32_t emuv_steps_begin(const emuv_launch_t *launch, emuv_lane_t *lane, uint32_t *alive)
{
	uint32_t linear = 0;

	for (uint32_t z = 0; z < launch->block[2]; z++)
		for (uint32_t y = 0; y < launch->block[1]; y++)
			for (uint32_t x = 0; x < launch->block[0]; x++, linear++)
				lane[linear] = (emuv_lane_t){ .x = (uint16_t)x, .y = (uint16_t)y,
							      .z = (uint16_t)z };
	for (uint32_t w = 0; 32 * w < linear; w++)
		alive[w] = linear - 32 * w < 32 ? (1u << (linear - 32 * w)) - 1 : ~0u;
	return (linear + 31) / 32;
}
