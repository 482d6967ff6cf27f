/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What lanes of a warp give each other: for the engine, and, as text, for kernels that
 * go in steps.  After abi.h; includes nothing.
 */
#ifndef EMUV_KERNEL_LANES_H
#define EMUV_KERNEL_LANES_H

/* A lane that waits: for others of its warp (operation is one of EMUV_WARP_*), or … */
#define EMUV_LANE_BLOCK 0x80 /* … for the block, with one of EMUV_BARRIER_* */
typedef struct {
	uint64_t value, result;
	uint32_t mask;
	uint8_t operation, source;
	uint16_t step;    /* where it goes on */
	uint16_t x, y, z; /* %tid */
} emuv_lane_t;

#define EMUV_EACH_LANE(lane, mask)                                                        \
	for (uint32_t left_##lane = (mask), lane;                                         \
	     left_##lane && ((lane = (uint32_t)__builtin_ctz(left_##lane)), 1);           \
	     left_##lane &= left_##lane - 1)

static inline uint32_t emuv_lanes_same(const emuv_lane_t *warp, uint32_t mask, uint64_t value)
{
	uint32_t same = 0;

	EMUV_EACH_LANE(lane, mask)
		same |= (uint32_t)(warp[lane].value == value) << lane;
	return same;
}

static inline uint32_t emuv_lanes_true(const emuv_lane_t *warp, uint32_t mask)
{
	return mask & ~emuv_lanes_same(warp, mask, 0);
}

static inline uint32_t emuv_lanes_fold(const emuv_lane_t *warp, uint32_t operation, uint32_t mask)
{
	uint32_t sum = (uint32_t)warp[__builtin_ctz(mask)].value;

	EMUV_EACH_LANE(lane, mask & (mask - 1)) {
		uint32_t value = (uint32_t)warp[lane].value;

		switch (operation) {
		case EMUV_WARP_ADD:
			sum += value;
			break;
		case EMUV_WARP_MIN_U:
			sum = value < sum ? value : sum;
			break;
		case EMUV_WARP_MAX_U:
			sum = value > sum ? value : sum;
			break;
		case EMUV_WARP_MIN_S:
			sum = (int32_t)value < (int32_t)sum ? value : sum;
			break;
		case EMUV_WARP_MAX_S:
			sum = (int32_t)value > (int32_t)sum ? value : sum;
			break;
		case EMUV_WARP_AND:
			sum &= value;
			break;
		case EMUV_WARP_OR:
			sum |= value;
			break;
		default:
			sum ^= value;
			break;
		}
	}
	return sum;
}

/* The lanes of `mask` have met: each one's result. */
static inline void emuv_lanes_exchange(emuv_lane_t *warp, uint32_t operation, uint32_t mask)
{
	uint64_t same;

	switch (operation) {
	case EMUV_WARP_SHUFFLE:
		EMUV_EACH_LANE(lane, mask) {
			uint32_t source = warp[lane].source & 31;

			warp[lane].result = warp[mask >> source & 1 ? source : lane].value;
		}
		return;
	case EMUV_WARP_MATCH_ANY:
	case EMUV_WARP_ACTIVE:
		EMUV_EACH_LANE(lane, mask)
			warp[lane].result = emuv_lanes_same(warp, mask, warp[lane].value);
		return;
	case EMUV_WARP_SYNC:
		same = 0;
		break;
	case EMUV_WARP_ALL:
		same = emuv_lanes_true(warp, mask) == mask;
		break;
	case EMUV_WARP_ANY:
		same = emuv_lanes_true(warp, mask) != 0;
		break;
	case EMUV_WARP_UNI:
		same = emuv_lanes_true(warp, mask) == mask || emuv_lanes_true(warp, mask) == 0;
		break;
	case EMUV_WARP_BALLOT:
		same = emuv_lanes_true(warp, mask);
		break;
	case EMUV_WARP_MATCH_ALL:
		same = emuv_lanes_same(warp, mask, warp[__builtin_ctz(mask)].value) == mask ? mask : 0;
		break;
	case EMUV_WARP_ELECT:
		same = (uint64_t)__builtin_ctz(mask);
		break;
	default:
		same = emuv_lanes_fold(warp, operation, mask);
		break;
	}
	EMUV_EACH_LANE(lane, mask)
		warp[lane].result = same;
}

#endif
