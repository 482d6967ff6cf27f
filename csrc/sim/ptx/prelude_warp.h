/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * After prelude.h: what lanes and threads do together.  The engine moves the values and
 * waits; which lane is asked is arithmetic, and here.
 */

#define EMUV_WARP(operation, mask, value, source) \
	emuv_launch->engine->warp(thread, operation, mask, value, source)
#define EMUV_LANE (thread->linear & 31)
/* The lanes that are at this place, for the forms from before .sync. */
#define EMUV_ACTIVE(place) ((uint32_t)EMUV_WARP(EMUV_WARP_ACTIVE, ~0u, place, 0))

/* The lane that shfl reads, by 9.7.9.6; *in: it is in range (else: the own lane). */
#define EMUV_SHUFFLE(name, expression, test)                                                    \
	EMUV_INLINE uint32_t emuv_shfl_##name(uint32_t lane, uint32_t b, uint32_t c, bool *in)  \
	{                                                                                       \
		uint32_t segment = c >> 8 & 31, clamp = c & 31, delta = b & 31;                 \
		int32_t least = (int32_t)(lane & segment);                                      \
		int32_t most = (int32_t)((lane & segment) | (clamp & ~segment));                \
		int32_t j = (int32_t)(expression);                                              \
		(void)least, (void)delta;                                                       \
		*in = test;                                                                     \
		return *in ? (uint32_t)j : lane;                                                \
	}
EMUV_SHUFFLE(up, lane - delta, j >= most)
EMUV_SHUFFLE(down, lane + delta, j <= most)
EMUV_SHUFFLE(bfly, lane ^ delta, j <= most)
EMUV_SHUFFLE(idx, (uint32_t)least | (delta & ~segment), j <= most)

#define EMUV_BARRIER(operation, id, threads, predicate) \
	emuv_launch->engine->barrier(thread, operation, id, threads, predicate)
/* barrier.cluster of a cluster of one block: arrive is free, wait is the block's. */
#define EMUV_CLUSTER_BARRIER 16
