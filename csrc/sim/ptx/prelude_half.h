/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * After prelude_float.h: conversions between types, and arithmetic on f16 and bf16.
 *
 * A register of f16 or bf16 holds its bits.  Every operation on them is done in double
 * and rounded once: sums and products of two are exact there, but for sums whose terms
 * lie far apart; those are rounded to odd, which rounding again does not spoil (double
 * has more than twice the bits and two).  NaN results are 0x7fff.
 */

/* ---- rounding a double to a narrower format ---- */

enum { EMUV_rn, EMUV_rz, EMUV_rm, EMUV_rp, EMUV_rna };

/*
 * x to `fraction` bits and exponents `low` to `high` by `mode`, as a double.  A sum of
 * the right number of quanta below 2^low: subnormals come out by themselves.
 */
EMUV_OUTLINE double emuv_round_to(double x, int fraction, int low, int high, int mode)
{
	uint64_t bits = emuv_bits_f64(x), magnitude = bits & 0x7fffffffffffffff;
	uint64_t significand = (magnitude & 0xfffffffffffff) | 0x10000000000000, keep, rest, half;
	int exponent = (int)(magnitude >> 52) - 1023, drop = 52 - fraction;
	bool negative = bits >> 63, up;
	double r, most;

	if (magnitude == 0 || exponent == 1024)
		return x;
	if (exponent < low)
		drop += low - exponent;
	if (drop > 54) { /* less than a quarter of the least number: so is a half of it */
		exponent = low - fraction - 2;
		drop = 54;
	}
	keep = significand >> drop;
	rest = significand & (((uint64_t)1 << drop) - 1);
	half = (uint64_t)1 << (drop - 1);
	up = mode == EMUV_rn    ? rest > half || (rest == half && (keep & 1))
	     : mode == EMUV_rna ? rest >= half
	     : mode == EMUV_rm  ? negative && rest
	     : mode == EMUV_rp  ? !negative && rest
				: false;
	r = (double)(keep + up) * emuv_f64_bits((uint64_t)(exponent - 52 + drop + 1023) << 52);
	most = (2 - emuv_f64_bits((uint64_t)(1023 - fraction) << 52)) *
	       emuv_f64_bits((uint64_t)(high + 1023) << 52);
	if (r > most)
		r = mode == EMUV_rz || (mode == EMUV_rm && !negative) || (mode == EMUV_rp && negative)
			    ? most
			    : __builtin_inf();
	return negative ? -r : r;
}

/* a + b, rounded to odd. */
EMUV_INLINE double emuv_odd_sum(double a, double b)
{
	double s = a + b, part = s - a, lost = (a - (s - part)) + (b - part);
	uint64_t bits = emuv_bits_f64(s);

	if ((lost > 0 || lost < 0) && !(bits & 1))
		s = emuv_f64_bits((lost > 0) == (s > 0) ? bits + 1 : bits - 1);
	return s;
}
/* An integer of at most 64 bits and a sign, rounded to odd. */
EMUV_OUTLINE double emuv_odd_integer(emuv_s128 x)
{
	double s = (double)x;
	emuv_s128 lost = x - (emuv_s128)s;
	uint64_t bits = emuv_bits_f64(s);

	if (lost != 0 && !(bits & 1))
		s = emuv_f64_bits((lost > 0) == (s > 0) ? bits + 1 : bits - 1);
	return s;
}

/* ---- a double to each format, and back ---- */

EMUV_INLINE float emuv_narrow_f32(double x, int mode)
{
	if (x != x)
		return EMUV_NAN_f32;
	return mode == EMUV_rn ? (float)x : (float)emuv_round_to(x, 23, -126, 127, mode);
}
EMUV_INLINE float emuv_narrow_tf32(double x, int mode)
{
	return x != x ? EMUV_NAN_f32 : (float)emuv_round_to(x, 10, -126, 127, mode);
}
EMUV_OUTLINE uint16_t emuv_narrow_bf16(double x, int mode)
{
	if (x != x)
		return 0x7fff;
	return (uint16_t)(emuv_bits_f32((float)emuv_round_to(x, 7, -126, 127, mode)) >> 16);
}
/* In double, a half is its bits with another bias: exact, subnormals included. */
EMUV_OUTLINE uint16_t emuv_narrow_f16(double x, int mode)
{
	uint64_t bits;

	if (x != x)
		return 0x7fff;
	x = emuv_round_to(x, 10, -14, 15, mode);
	bits = emuv_bits_f64(x);
	if ((bits << 1) >> 53 == 0x7ff)
		return (uint16_t)((bits >> 48 & 0x8000) | 0x7c00);
	bits = emuv_bits_f64(x * 0x1p-1008);
	return (uint16_t)((bits >> 48 & 0x8000) | (bits >> 42 & 0x7fff));
}
EMUV_INLINE float emuv_wide_f16(uint16_t h)
{
	float x = emuv_f32_bits((uint32_t)(h & 0x7fff) << 13) * 0x1p112f;
	uint32_t bits = emuv_bits_f32(x) | (uint32_t)(h & 0x8000) << 16;

	if (EMUV_UNLIKELY((h & 0x7c00) == 0x7c00))
		return h & 0x3ff ? EMUV_NAN_f32 : emuv_f32_bits(bits | 0x7f800000);
	return emuv_f32_bits(bits);
}
EMUV_INLINE float emuv_wide_bf16(uint16_t h) { return emuv_f32_bits((uint32_t)h << 16); }
EMUV_INLINE float emuv_wide_f32(float x) { return x; }
EMUV_INLINE double emuv_wide_f64(double x) { return x; }

/* cvt between floating types: _<mode>_<to>(double). */
#define EMUV_NARROW(mode)                                                                        \
	EMUV_INLINE float emuv_to_##mode##_f32(double x) { return emuv_narrow_f32(x, EMUV_##mode); } \
	EMUV_INLINE float emuv_to_##mode##_tf32(double x) { return emuv_narrow_tf32(x, EMUV_##mode); } \
	EMUV_INLINE uint16_t emuv_to_##mode##_f16(double x) { return emuv_narrow_f16(x, EMUV_##mode); } \
	EMUV_INLINE uint16_t emuv_to_##mode##_bf16(double x) { return emuv_narrow_bf16(x, EMUV_##mode); }
EMUV_NARROW(rn)
EMUV_NARROW(rz)
EMUV_NARROW(rm)
EMUV_NARROW(rp)
EMUV_NARROW(rna)

/* ---- integers to floating types: every integer type fits in 128 bits ---- */

#define EMUV_FROM_INTEGER(mode)                                                                \
	EMUV_OUTLINE float emuv_int_##mode##_f32(emuv_s128 x)                                   \
	{                                                                                      \
		return emuv_narrow_f32(emuv_odd_integer(x), EMUV_##mode);                      \
	}                                                                                      \
	EMUV_INLINE uint16_t emuv_int_##mode##_f16(emuv_s128 x)                                \
	{                                                                                      \
		return emuv_narrow_f16(emuv_odd_integer(x), EMUV_##mode);                      \
	}                                                                                      \
	EMUV_INLINE uint16_t emuv_int_##mode##_bf16(emuv_s128 x)                               \
	{                                                                                      \
		return emuv_narrow_bf16(emuv_odd_integer(x), EMUV_##mode);                     \
	}
EMUV_FROM_INTEGER(rn)
EMUV_FROM_INTEGER(rz)
EMUV_FROM_INTEGER(rm)
EMUV_FROM_INTEGER(rp)
#define EMUV_FROM_INTEGER_F64(mode)                                                            \
	EMUV_OUTLINE double emuv_int_##mode##_f64(emuv_s128 x)                                  \
	{                                                                                      \
		double near = (double)x;                                                       \
		emuv_s128 lost = x - (emuv_s128)near;                                          \
		return emuv_fix_##mode##_f64(near, lost > 0 ? 1 : lost < 0 ? -1 : 0);          \
	}
EMUV_FROM_INTEGER_F64(rz)
EMUV_FROM_INTEGER_F64(rm)
EMUV_FROM_INTEGER_F64(rp)

/* ---- floating types to integers: clamped to the type ---- */

EMUV_INLINE float emuv_rni_f32(float x) { return emuv_quiet_f32(__builtin_rintf(x)); }
EMUV_INLINE float emuv_rzi_f32(float x) { return emuv_quiet_f32(__builtin_truncf(x)); }
EMUV_INLINE float emuv_rmi_f32(float x) { return emuv_quiet_f32(__builtin_floorf(x)); }
EMUV_INLINE float emuv_rpi_f32(float x) { return emuv_quiet_f32(__builtin_ceilf(x)); }
EMUV_INLINE double emuv_rni_f64(double x) { return __builtin_rint(x); }
EMUV_INLINE double emuv_rzi_f64(double x) { return __builtin_trunc(x); }
EMUV_INLINE double emuv_rmi_f64(double x) { return __builtin_floor(x); }
EMUV_INLINE double emuv_rpi_f64(double x) { return __builtin_ceil(x); }

/*
 * NaN: "zero if source is not .f64 and destination is not .s64, .u64; otherwise
 * 1 << (bits of the destination - 1)" (9.7.9.21).  `x` is whole.
 */
/*
 * As it is, unseen by the compiler: gcc 12 with -fno-trapping-math makes trunc(x) of
 * (float)(int)x, and that has the sign of a zero or of what it rounded to zero.
 */
#define EMUV_KEPT(value)                              \
	({                                            \
		__typeof__(value) emuv_kept = value;  \
		__asm__("" : "+r"(emuv_kept));        \
		emuv_kept;                            \
	})
#define EMUV_TO_INTEGER(name, T, low, end, nan)                                        \
	EMUV_INLINE T emuv_whole_##name##_f32(float x)                                 \
	{                                                                              \
		if (EMUV_UNLIKELY(!(x >= (float)(low) && x < (float)(end))))           \
			return x != x ? (sizeof(T) == 8 ? (T)(nan) : 0)                \
			       : x < 0 ? (T)(low) : (T)~(T)(low);                      \
		return EMUV_KEPT((T)x);                                                \
	}                                                                              \
	EMUV_INLINE T emuv_whole_##name##_f64(double x)                                \
	{                                                                              \
		if (EMUV_UNLIKELY(!(x >= (double)(low) && x < (double)(end))))         \
			return x != x ? (T)(nan) : x < 0 ? (T)(low) : (T)~(T)(low);    \
		return EMUV_KEPT((T)x);                                                \
	}
EMUV_TO_INTEGER(u8, uint8_t, 0, 0x1p8, 0x80)
EMUV_TO_INTEGER(s8, int8_t, -0x80, 0x1p7, -0x80)
EMUV_TO_INTEGER(u16, uint16_t, 0, 0x1p16, 0x8000)
EMUV_TO_INTEGER(s16, int16_t, -0x8000, 0x1p15, -0x8000)
EMUV_TO_INTEGER(u32, uint32_t, 0, 0x1p32, 0x80000000)
EMUV_TO_INTEGER(s32, int32_t, -0x7fffffff - 1, 0x1p31, -0x7fffffff - 1)
EMUV_TO_INTEGER(u64, uint64_t, 0, 0x1p64, 0x8000000000000000)
EMUV_TO_INTEGER(s64, int64_t, -0x7fffffffffffffff - 1, 0x1p63, -0x7fffffffffffffff - 1)

/* ---- f16 and bf16 ---- */

#define EMUV_HALF(t, infinity)                                                                \
	EMUV_INLINE bool emuv_isnan_##t(uint16_t a) { return (a & 0x7fff) > infinity; }       \
	EMUV_INLINE uint16_t emuv_quiet_##t(uint16_t a) { return emuv_isnan_##t(a) ? 0x7fff : a; } \
	EMUV_INLINE uint16_t emuv_ftz_##t(uint16_t a) { return a & infinity ? a : a & 0x8000; } \
	EMUV_OUTLINE uint16_t emuv_fma_##t(uint16_t a, uint16_t b, uint16_t c)                 \
	{                                                                                     \
		double p = (double)emuv_wide_##t(a) * (double)emuv_wide_##t(b);               \
		return emuv_narrow_##t(emuv_odd_sum(p, (double)emuv_wide_##t(c)), EMUV_rn);   \
	}                                                                                     \
	EMUV_OUTLINE uint16_t emuv_add_##t(uint16_t a, uint16_t b)                             \
	{                                                                                     \
		return emuv_narrow_##t(emuv_odd_sum((double)emuv_wide_##t(a),                 \
						    (double)emuv_wide_##t(b)), EMUV_rn);      \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_sub_##t(uint16_t a, uint16_t b) { return emuv_add_##t(a, b ^ 0x8000); } \
	EMUV_INLINE uint16_t emuv_mul_##t(uint16_t a, uint16_t b)                             \
	{                                                                                     \
		return emuv_narrow_##t((double)emuv_wide_##t(a) * (double)emuv_wide_##t(b), EMUV_rn); \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_neg_##t(uint16_t a) { return emuv_quiet_##t(a ^ 0x8000); }  \
	EMUV_INLINE uint16_t emuv_abs_##t(uint16_t a) { return emuv_quiet_##t(a & 0x7fff); }  \
	/* Bits in the order of the values, -0 below +0. */                                   \
	EMUV_INLINE int emuv_order_##t(uint16_t a) { return a & 0x8000 ? 0x7fff - (int)a : (int)a; } \
	EMUV_INLINE uint16_t emuv_min_##t(uint16_t a, uint16_t b)                             \
	{                                                                                     \
		if (emuv_isnan_##t(a) || emuv_isnan_##t(b))                                   \
			return emuv_quiet_##t(emuv_isnan_##t(a) ? b : a);                     \
		return emuv_order_##t(a) < emuv_order_##t(b) ? a : b;                         \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_max_##t(uint16_t a, uint16_t b)                             \
	{                                                                                     \
		if (emuv_isnan_##t(a) || emuv_isnan_##t(b))                                   \
			return emuv_quiet_##t(emuv_isnan_##t(a) ? b : a);                     \
		return emuv_order_##t(a) > emuv_order_##t(b) ? a : b;                         \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_min_NaN_##t(uint16_t a, uint16_t b)                         \
	{                                                                                     \
		return emuv_isnan_##t(a) || emuv_isnan_##t(b) ? 0x7fff : emuv_min_##t(a, b);  \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_max_NaN_##t(uint16_t a, uint16_t b)                         \
	{                                                                                     \
		return emuv_isnan_##t(a) || emuv_isnan_##t(b) ? 0x7fff : emuv_max_##t(a, b);  \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_xorsign_##t(uint16_t d, uint16_t a, uint16_t b)             \
	{                                                                                     \
		return emuv_isnan_##t(d) ? d : (d & 0x7fff) | ((a ^ b) & 0x8000);             \
	}                                                                                     \
	/* .satfinite: the largest number for what is beyond it. */                           \
	EMUV_INLINE uint16_t emuv_satfinite_##t(uint16_t a)                                   \
	{                                                                                     \
		return (a & 0x7fff) == infinity ? a - 1 : a;                                  \
	}                                                                                     \
	/* .sat: to [0, 1], NaN to +0; .relu: negative to +0. */                              \
	EMUV_OUTLINE uint16_t emuv_sat_##t(uint16_t a)                                         \
	{                                                                                     \
		return emuv_narrow_##t((double)emuv_sat_f32(emuv_wide_##t(a)), EMUV_rn);      \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_relu_##t(uint16_t a)                                        \
	{                                                                                     \
		return emuv_isnan_##t(a) ? 0x7fff : a & 0x8000 ? 0 : a;                       \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_tanh_##t(uint16_t a)                                        \
	{                                                                                     \
		return emuv_narrow_##t((double)__builtin_tanhf(emuv_wide_##t(a)), EMUV_rn);   \
	}                                                                                     \
	EMUV_INLINE uint16_t emuv_ex2_##t(uint16_t a)                                         \
	{                                                                                     \
		return emuv_narrow_##t((double)__builtin_exp2f(emuv_wide_##t(a)), EMUV_rn);   \
	}
EMUV_HALF(f16, 0x7c00)
EMUV_HALF(bf16, 0x7f80)

/* Two halves: each by the operation of one. */
#define EMUV_HALVES1(name, t)                                                            \
	EMUV_INLINE uint32_t emuv_##name##_##t##x2(uint32_t a)                           \
	{                                                                                \
		return (uint32_t)emuv_##name##_##t((uint16_t)(a >> 16)) << 16 |          \
		       emuv_##name##_##t((uint16_t)a);                                   \
	}
#define EMUV_HALVES2(name, t)                                                                   \
	EMUV_INLINE uint32_t emuv_##name##_##t##x2(uint32_t a, uint32_t b)                      \
	{                                                                                       \
		return (uint32_t)emuv_##name##_##t((uint16_t)(a >> 16), (uint16_t)(b >> 16)) << 16 | \
		       emuv_##name##_##t((uint16_t)a, (uint16_t)b);                             \
	}
#define EMUV_HALVES3(name, t)                                                                   \
	EMUV_INLINE uint32_t emuv_##name##_##t##x2(uint32_t a, uint32_t b, uint32_t c)          \
	{                                                                                       \
		return (uint32_t)emuv_##name##_##t((uint16_t)(a >> 16), (uint16_t)(b >> 16),    \
						   (uint16_t)(c >> 16)) << 16 |                 \
		       emuv_##name##_##t((uint16_t)a, (uint16_t)b, (uint16_t)c);                \
	}
#define EMUV_HALVES(t)                                                                        \
	EMUV_HALVES1(ftz, t) EMUV_HALVES1(sat, t) EMUV_HALVES1(relu, t) EMUV_HALVES1(neg, t)  \
	EMUV_HALVES1(abs, t) EMUV_HALVES1(tanh, t) EMUV_HALVES1(ex2, t) EMUV_HALVES2(add, t)  \
	EMUV_HALVES2(sub, t) EMUV_HALVES2(mul, t) EMUV_HALVES2(min, t) EMUV_HALVES2(max, t)   \
	EMUV_HALVES2(min_NaN, t) EMUV_HALVES2(max_NaN, t) EMUV_HALVES3(fma, t)                \
	EMUV_HALVES3(xorsign, t)
EMUV_HALVES(f16)
EMUV_HALVES(bf16)
