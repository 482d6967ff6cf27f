/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * After prelude.h: video instructions (integers of a byte, a half or a word in one
 * register), and mbarrier objects.
 */

/* ---- 9.7.18: what is computed in 64 bits comes out as, or joined with, 32 ---- */

#define emuv_video_vadd(a, b) ((a) + (b))
#define emuv_video_vsub(a, b) ((a) - (b))
#define emuv_video_vabsdiff(a, b) ((a) < (b) ? (b) - (a) : (a) - (b))
#define emuv_video_vmin(a, b) ((a) < (b) ? (a) : (b))
#define emuv_video_vmax(a, b) ((a) > (b) ? (a) : (b))
#define emuv_second_add_u32(x, c) ((uint32_t)(x) + (c))
#define emuv_second_add_s32(x, c) ((int32_t)((uint32_t)(x) + (uint32_t)(c)))
#define emuv_second_min_u32(x, c) emuv_min_u32((uint32_t)(x), c)
#define emuv_second_min_s32(x, c) emuv_min_s32((int32_t)(x), c)
#define emuv_second_max_u32(x, c) emuv_max_u32((uint32_t)(x), c)
#define emuv_second_max_s32(x, c) emuv_max_s32((int32_t)(x), c)

/* Part i of n bits, by sign or not. */
EMUV_INLINE int64_t emuv_video_part(uint32_t x, int i, int n, bool sign)
{
	uint32_t part = (x >> i * n) & ((1u << n) - 1);

	return sign && part >> (n - 1) ? (int64_t)part - (1 << n) : (int64_t)part;
}
/* To the range of n bits. */
EMUV_INLINE int64_t emuv_video_clamp(int64_t x, int n, bool sign)
{
	int64_t low = sign ? -(1ll << (n - 1)) : 0, high = sign ? (1ll << (n - 1)) - 1 : (1ll << n) - 1;

	return x < low ? low : x > high ? high : x;
}
#define EMUV_SAT_ false
#define EMUV_SAT_sat true
#define EMUV_SIGN_u32 false
#define EMUV_SIGN_s32 true
/* All parts of n bits; `sum`: added to c, else side by side. */
#define EMUV_VIDEO(name, expression)                                                          \
	EMUV_INLINE uint32_t emuv_video_##name(uint32_t x, uint32_t y, uint32_t c, int n, bool xs, \
					       bool ys, bool sat, bool ds, bool sum)          \
	{                                                                                     \
		uint32_t d = sum ? c : 0;                                                     \
		for (int i = 0; i < 32 / n; i++) {                                            \
			int64_t a = emuv_video_part(x, i, n, xs), b = emuv_video_part(y, i, n, ys); \
			int64_t t = expression;                                               \
			if (sat)                                                              \
				t = emuv_video_clamp(t, n, ds);                               \
			d += sum ? (uint32_t)t : ((uint32_t)t & ((1u << n) - 1)) << i * n;    \
		}                                                                             \
		return d;                                                                     \
	}
EMUV_VIDEO(add, a + b)
EMUV_VIDEO(sub, a - b)
EMUV_VIDEO(absdiff, a < b ? b - a : a - b)
EMUV_VIDEO(min, a < b ? a : b)
EMUV_VIDEO(max, a > b ? a : b)
EMUV_VIDEO(eq, a == b)
EMUV_VIDEO(ne, a != b)
EMUV_VIDEO(lt, a < b)
EMUV_VIDEO(le, a <= b)
EMUV_VIDEO(gt, a > b)
EMUV_VIDEO(ge, a >= b)

/* ---- 9.7.13.15: an mbarrier is how many are expected, how many are missing, and a phase ---- */

#define EMUV_MBARRIER_COUNT 0xfffffu
#define EMUV_MBARRIER(expected, missing, phase) \
	((uint64_t)(phase) << 40 | (uint64_t)((missing) & EMUV_MBARRIER_COUNT) << 20 | ((expected) & EMUV_MBARRIER_COUNT))
/* The state before; the last to arrive begins the next phase.  One thread of the machine
 * runs the block, so nothing needs to be atomic. */
EMUV_INLINE uint64_t emuv_mbarrier_arrive(void *place, uint32_t count, bool drop)
{
	volatile uint64_t *object = place;
	uint64_t was = *object;
	uint32_t expected = (uint32_t)was & EMUV_MBARRIER_COUNT;
	uint32_t missing = (uint32_t)(was >> 20) & EMUV_MBARRIER_COUNT;

	if (drop)
		expected -= count;
	missing -= count;
	*object = missing ? EMUV_MBARRIER(expected, missing, was >> 40)
			  : EMUV_MBARRIER(expected, expected, (was >> 40) + 1);
	return was;
}
/* Has the phase of `state` ended?  Where not, the others go on. */
EMUV_INLINE bool emuv_mbarrier_test(emuv_thread_t *thread, const void *place, uint64_t state)
{
	if (*(const volatile uint64_t *)place >> 40 != state >> 40)
		return true;
	thread->launch->engine->yield(thread);
	return *(const volatile uint64_t *)place >> 40 != state >> 40;
}
/* Has the last phase of this parity ended? */
EMUV_INLINE bool emuv_mbarrier_parity(emuv_thread_t *thread, const void *place, uint32_t parity)
{
	if ((*(const volatile uint64_t *)place >> 40 & 1) != (parity & 1))
		return true;
	thread->launch->engine->yield(thread);
	return (*(const volatile uint64_t *)place >> 40 & 1) != (parity & 1);
}
