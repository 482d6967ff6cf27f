/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * After prelude.h: f32 and f64.
 *
 * - Rounding is by .rn in the machine's own arithmetic.  The other modes start from that
 *   result and move it by one unit in the last place where the sign of the exact error
 *   says so; the error is exact because it is found in a type with more than twice the
 *   bits (f32: double; f64: 113 bits).  No rounding mode of the machine is ever changed.
 * - A NaN result of f32 is 0x7fffffff, as the ISA has it; one of f64 is the machine's.
 *   The test is a branch that is not taken, and so not on the path of the values.
 * - .ftz and .sat are put around operands and result by isa.c.
 * - .approx gives the exact or libm's result: inside what the ISA allows.
 */

EMUV_INLINE uint32_t emuv_bits_f32(float x)
{
	uint32_t bits;

	__builtin_memcpy(&bits, &x, 4);
	return bits;
}
EMUV_INLINE float emuv_f32_bits(uint32_t bits)
{
	float x;

	__builtin_memcpy(&x, &bits, 4);
	return x;
}
EMUV_INLINE uint64_t emuv_bits_f64(double x)
{
	uint64_t bits;

	__builtin_memcpy(&bits, &x, 8);
	return bits;
}
EMUV_INLINE double emuv_f64_bits(uint64_t bits)
{
	double x;

	__builtin_memcpy(&x, &bits, 8);
	return x;
}
EMUV_INLINE float emuv_quiet_f32(float x)
{
	if (EMUV_UNLIKELY(x != x)) {
		__asm__(""); /* keeps it a branch */
		return emuv_f32_bits(0x7fffffff);
	}
	return x;
}
EMUV_INLINE double emuv_quiet_f64(double x) { return x; }
#define EMUV_NAN_f32 emuv_f32_bits(0x7fffffff)
#define EMUV_NAN_f64 emuv_f64_bits(0x7ff8000000000000)

EMUV_INLINE float emuv_ftz_f32(float x)
{
	return (emuv_bits_f32(x) & 0x7f800000) == 0 ? emuv_f32_bits(emuv_bits_f32(x) & 0x80000000) : x;
}
EMUV_INLINE double emuv_ftz_f64(double x)
{
	return (emuv_bits_f64(x) >> 52 & 0x7ff) == 0
		       ? emuv_f64_bits(emuv_bits_f64(x) & 0x8000000000000000)
		       : x;
}
/* To [0, 1]; NaN becomes +0. */
EMUV_INLINE float emuv_sat_f32(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
EMUV_INLINE double emuv_sat_f64(double x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
/* Negative becomes +0; NaN the canonical one. */
EMUV_INLINE float emuv_relu_f32(float x)
{
	return x != x ? EMUV_NAN_f32 : emuv_bits_f32(x) >> 31 ? 0 : x;
}
EMUV_INLINE float emuv_abs_f32(float x) { return __builtin_fabsf(x); }
EMUV_INLINE double emuv_abs_f64(double x) { return __builtin_fabs(x); }
EMUV_INLINE float emuv_neg_f32(float x) { return emuv_f32_bits(emuv_bits_f32(x) ^ 0x80000000); }
EMUV_INLINE double emuv_neg_f64(double x) { return emuv_f64_bits(emuv_bits_f64(x) ^ 0x8000000000000000); }
/* Sign of the first, value of the second. */
EMUV_INLINE float emuv_copysign_f32(float a, float b) { return __builtin_copysignf(b, a); }
EMUV_INLINE double emuv_copysign_f64(double a, double b) { return __builtin_copysign(b, a); }

/* ---- the five ways to round ---- */

#ifdef __SIZEOF_FLOAT128__
typedef __float128 emuv_f128;
#else
typedef long double emuv_f128; /* 113 bits where there is no __float128 (aarch64) */
#endif

/*
 * `near`: the exact result rounded to nearest; `error`: the sign of exact - near.
 * An infinity that came by overflow has an error, a true one has none.
 */
#define EMUV_ROUND(t, T, U, B, sign, W)                                                        \
	EMUV_INLINE T emuv_up_##t(T x)                                                         \
	{                                                                                      \
		B bits = emuv_bits_##t(x);                                                     \
		return x == 0 ? emuv_##t##_bits(1) : emuv_##t##_bits(bits & sign ? bits - 1 : bits + 1); \
	}                                                                                      \
	EMUV_INLINE T emuv_down_##t(T x) { return -emuv_up_##t(-x); }                          \
	EMUV_INLINE T emuv_fix_rz_##t(T near, int error)                                       \
	{                                                                                      \
		if (near > 0 && error < 0)                                                     \
			return emuv_down_##t(near);                                            \
		return near < 0 && error > 0 ? emuv_up_##t(near) : near;                       \
	}                                                                                      \
	EMUV_INLINE T emuv_fix_rm_##t(T near, int error) { return error < 0 ? emuv_down_##t(near) : near; } \
	EMUV_INLINE T emuv_fix_rp_##t(T near, int error) { return error > 0 ? emuv_up_##t(near) : near; } \
	/* The error of near against a + b, which W need not hold: its sum and what that lost. */ \
	EMUV_INLINE int emuv_error_sum_##t(T near, W a, W b)                                     \
	{                                                                                      \
		W s = a + b, part = s - a, lost = (a - (s - part)) + (b - part), left = s - (W)near; \
		return left > 0 ? 1 : left < 0 ? -1 : lost > 0 ? 1 : lost < 0 ? -1 : 0;        \
	}                                                                                      \
	EMUV_INLINE int emuv_error_div_##t(T near, T a, T b)                                     \
	{                                                                                      \
		W p, x = a;                                                                    \
		if (near != near || a - a != 0 || b - b != 0 || b == 0)                        \
			return 0;                                                              \
		p = (W)near * (W)b;                                                            \
		return x == p ? 0 : (x > p) == (b > 0) ? 1 : -1;                               \
	}                                                                                      \
	EMUV_INLINE int emuv_error_sqrt_##t(T near, T a)                                         \
	{                                                                                      \
		W p = (W)near * (W)near;                                                       \
		return near - near != 0 || (W)a == p ? 0 : (W)a > p ? 1 : -1;                  \
	}                                                                                      \
	EMUV_INLINE int emuv_error_fma_##t(T near, T a, T b, T c)                                \
	{                                                                                      \
		if (a - a != 0 || b - b != 0 || c - c != 0)                                    \
			return 0;                                                              \
		return emuv_error_sum_##t(near, (W)a * (W)b, c);                               \
	}                                                                                      \
	/* An exact zero sum of terms of both signs is -0 in .rm. */                           \
	EMUV_INLINE T emuv_zero_rm_##t(T near, int error, T p, T c)                            \
	{                                                                                      \
		bool differ = ((emuv_bits_##t(p) ^ emuv_bits_##t(c)) & sign) != 0;             \
		return near == 0 && error == 0 && differ ? (T)-0.0 : near;                     \
	}                                                                                      \
	EMUV_INLINE T emuv_fma_rn_##t(T a, T b, T c) { return emuv_quiet_##t(__builtin_fma##U(a, b, c)); } \
	EMUV_INLINE T emuv_add_rn_##t(T a, T b) { return emuv_quiet_##t(a + b); }              \
	EMUV_INLINE T emuv_sub_rn_##t(T a, T b) { return emuv_quiet_##t(a - b); }              \
	EMUV_INLINE T emuv_mul_rn_##t(T a, T b) { return emuv_quiet_##t(a * b); }              \
	EMUV_INLINE T emuv_div_rn_##t(T a, T b) { return emuv_quiet_##t(a / b); }              \
	EMUV_INLINE T emuv_rcp_rn_##t(T a) { return emuv_quiet_##t(1 / a); }                   \
	EMUV_INLINE T emuv_sqrt_rn_##t(T a) { return emuv_quiet_##t(__builtin_sqrt##U(a)); }
EMUV_ROUND(f32, float, f, uint32_t, 0x80000000u, double)
EMUV_ROUND(f64, double, , uint64_t, 0x8000000000000000ull, emuv_f128)

#define EMUV_DIRECTED(t, T, U, mode, zero)                                                     \
	EMUV_OUTLINE T emuv_fma_##mode##_##t(T a, T b, T c)                                     \
	{                                                                                      \
		T near = __builtin_fma##U(a, b, c), p = a * b;                                 \
		int error = emuv_error_fma_##t(near, a, b, c);                                 \
		return emuv_quiet_##t(zero(emuv_fix_##mode##_##t(near, error), error, p, c));  \
	}                                                                                      \
	EMUV_INLINE T emuv_add_##mode##_##t(T a, T b) { return emuv_fma_##mode##_##t(a, 1, b); } \
	EMUV_OUTLINE T emuv_sub_##mode##_##t(T a, T b)                                          \
	{                                                                                      \
		return b != b ? emuv_quiet_##t(a - b) : emuv_fma_##mode##_##t(a, 1, -b);       \
	}                                                                                      \
	/* A product is exact in the wide type: adding a zero of its sign changes nothing. */  \
	EMUV_OUTLINE T emuv_mul_##mode##_##t(T a, T b)                                          \
	{                                                                                      \
		T near = a * b;                                                                \
		return emuv_quiet_##t(emuv_fix_##mode##_##t(near, emuv_error_fma_##t(near, a, b, 0))); \
	}                                                                                      \
	EMUV_OUTLINE T emuv_div_##mode##_##t(T a, T b)                                          \
	{                                                                                      \
		T near = a / b;                                                                \
		return emuv_quiet_##t(emuv_fix_##mode##_##t(near, emuv_error_div_##t(near, a, b))); \
	}                                                                                      \
	EMUV_INLINE T emuv_rcp_##mode##_##t(T a) { return emuv_div_##mode##_##t(1, a); }       \
	EMUV_OUTLINE T emuv_sqrt_##mode##_##t(T a)                                              \
	{                                                                                      \
		T near = __builtin_sqrt##U(a);                                                 \
		return emuv_quiet_##t(emuv_fix_##mode##_##t(near, emuv_error_sqrt_##t(near, a))); \
	}
#define EMUV_ZERO_AS_IS(near, error, p, c) (near)
EMUV_DIRECTED(f32, float, f, rz, EMUV_ZERO_AS_IS)
EMUV_DIRECTED(f32, float, f, rp, EMUV_ZERO_AS_IS)
EMUV_DIRECTED(f32, float, f, rm, emuv_zero_rm_f32)
EMUV_DIRECTED(f64, double, , rz, EMUV_ZERO_AS_IS)
EMUV_DIRECTED(f64, double, , rp, EMUV_ZERO_AS_IS)
EMUV_DIRECTED(f64, double, , rm, emuv_zero_rm_f64)

/* ---- min, max: a NaN gives way to a number, and -0 < +0; .NaN: it does not ---- */

#define EMUV_MINMAX(t, T, B)                                                                  \
	EMUV_INLINE T emuv_min_##t(T a, T b)                                                  \
	{                                                                                     \
		if (EMUV_UNLIKELY(!(a < b || a > b))) {                                       \
			if (a == b)                                                           \
				return emuv_##t##_bits(emuv_bits_##t(a) | emuv_bits_##t(b));  \
			return a == a ? a : b == b ? b : EMUV_NAN_##t;                        \
		}                                                                             \
		return a < b ? a : b;                                                         \
	}                                                                                     \
	EMUV_INLINE T emuv_max_##t(T a, T b)                                                  \
	{                                                                                     \
		if (EMUV_UNLIKELY(!(a < b || a > b))) {                                       \
			if (a == b)                                                           \
				return emuv_##t##_bits(emuv_bits_##t(a) & emuv_bits_##t(b));  \
			return a == a ? a : b == b ? b : EMUV_NAN_##t;                        \
		}                                                                             \
		return a > b ? a : b;                                                         \
	}                                                                                     \
	EMUV_INLINE T emuv_min_NaN_##t(T a, T b)                                              \
	{                                                                                     \
		return __builtin_isunordered(a, b) ? EMUV_NAN_##t : emuv_min_##t(a, b);       \
	}                                                                                     \
	EMUV_INLINE T emuv_max_NaN_##t(T a, T b)                                              \
	{                                                                                     \
		return __builtin_isunordered(a, b) ? EMUV_NAN_##t : emuv_max_##t(a, b);       \
	}
EMUV_MINMAX(f32, float, uint32_t)
EMUV_MINMAX(f64, double, uint64_t)
/* .xorsign.abs: the smaller or larger magnitude, the sign of the product. */
EMUV_INLINE float emuv_xorsign_f32(float d, float a, float b)
{
	uint32_t sign = (emuv_bits_f32(a) ^ emuv_bits_f32(b)) & 0x80000000;

	return d != d ? d : emuv_f32_bits((emuv_bits_f32(d) & 0x7fffffff) | sign);
}

/* atom.add flushes in global memory, and not in shared (9.7.13.5). */
EMUV_INLINE float emuv_atom_add_f32(float old, float value, bool flush)
{
	return flush ? emuv_ftz_f32(emuv_add_rn_f32(emuv_ftz_f32(old), emuv_ftz_f32(value)))
		     : emuv_add_rn_f32(old, value);
}

/* ---- comparisons, on any type; u: or unordered ---- */

#define emuv_cmp_eq(a, b) ((a) == (b))
#define emuv_cmp_lt(a, b) ((a) < (b))
#define emuv_cmp_le(a, b) ((a) <= (b))
#define emuv_cmp_gt(a, b) ((a) > (b))
#define emuv_cmp_ge(a, b) ((a) >= (b))
#define emuv_cmp_ne(a, b) ((a) < (b) || (a) > (b))
#define emuv_cmp_lo emuv_cmp_lt
#define emuv_cmp_ls emuv_cmp_le
#define emuv_cmp_hi emuv_cmp_gt
#define emuv_cmp_hs emuv_cmp_ge
#define emuv_cmp_equ(a, b) (!emuv_cmp_ne(a, b))
#define emuv_cmp_neu(a, b) ((a) != (b))
#define emuv_cmp_ltu(a, b) (!((a) >= (b)))
#define emuv_cmp_leu(a, b) (!((a) > (b)))
#define emuv_cmp_gtu(a, b) (!((a) <= (b)))
#define emuv_cmp_geu(a, b) (!((a) < (b)))
#define emuv_cmp_num(a, b) (!__builtin_isunordered(a, b))
#define emuv_cmp_nan(a, b) (__builtin_isunordered(a, b) != 0)
#define emuv_bool_and(p, q) ((p) & (q))
#define emuv_bool_or(p, q) ((p) | (q))
#define emuv_bool_xor(p, q) ((p) ^ (q))

#define EMUV_TESTP(t, T, least)                                                              \
	EMUV_INLINE bool emuv_testp_finite_##t(T x) { return x - x == 0; }                   \
	EMUV_INLINE bool emuv_testp_infinite_##t(T x) { return x == x && x - x != 0; }       \
	EMUV_INLINE bool emuv_testp_number_##t(T x) { return x == x; }                       \
	EMUV_INLINE bool emuv_testp_notanumber_##t(T x) { return x != x; }                   \
	EMUV_INLINE bool emuv_testp_normal_##t(T x)                                          \
	{                                                                                    \
		return x - x == 0 && (x >= least || x <= -least);                            \
	}                                                                                    \
	EMUV_INLINE bool emuv_testp_subnormal_##t(T x) { return x != 0 && x < least && x > -least; }
EMUV_TESTP(f32, float, 0x1p-126f)
EMUV_TESTP(f64, double, 0x1p-1022)

/* ---- approximations ---- */

EMUV_INLINE float emuv_rcp_approx_f32(float a) { return emuv_rcp_rn_f32(a); }
EMUV_INLINE float emuv_div_approx_f32(float a, float b) { return emuv_div_rn_f32(a, b); }
EMUV_INLINE float emuv_sqrt_approx_f32(float a) { return emuv_sqrt_rn_f32(a); }
EMUV_INLINE float emuv_rsqrt_approx_f32(float a)
{
	return emuv_quiet_f32((float)(1 / __builtin_sqrt((double)a)));
}
EMUV_INLINE double emuv_rsqrt_approx_f64(double a) { return 1 / __builtin_sqrt(a); }
EMUV_INLINE float emuv_sin_approx_f32(float a) { return emuv_quiet_f32(__builtin_sinf(a)); }
EMUV_INLINE float emuv_cos_approx_f32(float a) { return emuv_quiet_f32(__builtin_cosf(a)); }
EMUV_INLINE float emuv_lg2_approx_f32(float a) { return emuv_quiet_f32(__builtin_log2f(a)); }
EMUV_INLINE float emuv_ex2_approx_f32(float a) { return emuv_quiet_f32(__builtin_exp2f(a)); }
EMUV_INLINE float emuv_tanh_approx_f32(float a) { return emuv_quiet_f32(__builtin_tanhf(a)); }
/* The f64 forms look at and give the upper 32 bits only (9.7.3.14, 9.7.3.17). */
EMUV_INLINE double emuv_high_f64(double a)
{
	return emuv_f64_bits(emuv_bits_f64(a) & 0xffffffff00000000);
}
EMUV_INLINE double emuv_rcp_high_f64(double a)
{
	return emuv_high_f64(emuv_ftz_f64(1 / emuv_ftz_f64(emuv_high_f64(a))));
}
EMUV_INLINE double emuv_rsqrt_high_f64(double a)
{
	return emuv_high_f64(1 / __builtin_sqrt(emuv_ftz_f64(emuv_high_f64(a))));
}
