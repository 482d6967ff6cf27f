/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * In front of every generated kernel, after kernel/abi.h: memory and integers.  What the
 * rows of isa.def call is here and in prelude_*.h, as emuv_<name>.
 *
 * - Nothing is included: the C compiler's own builtins and libm, no header.
 * - Everything is `static inline` or a macro: what a kernel does not use costs it nothing.
 * - An expression handed to a macro has no side effects, but may be long: macros name
 *   each argument once, or it is a register.
 * - No operation traps the process: a shift, a division and a conversion by whatever
 *   value have a result, the one of the hardware where the ISA leaves it open.
 */
#ifndef EMUV_TRACK
#define EMUV_TRACK 0
#endif
#define EMUV_INLINE static inline __attribute__((always_inline, unused))
#define EMUV_OUTLINE static __attribute__((noinline, unused)) /* long, and not in a hurry */
#define EMUV_RARE static __attribute__((noinline, cold, unused))
#define EMUV_UNLIKELY(x) __builtin_expect(!!(x), 0)

typedef unsigned __int128 emuv_u128 __attribute__((aligned(8)));
typedef __int128 emuv_s128;

/* What instructions need of the launch: at the start of each generated function. */
#define EMUV_LOCALS                                                                       \
	const emuv_launch_t *const emuv_launch __attribute__((unused)) = thread->launch;  \
	const uint64_t emuv_base __attribute__((unused)) = emuv_launch->arena_base;       \
	const uint64_t emuv_reject __attribute__((unused)) = emuv_launch->arena_reject;   \
	const volatile uint8_t *const emuv_table __attribute__((unused)) =                \
		EMUV_TRACK ? emuv_launch->table : NULL;                                   \
	uint8_t *const emuv_shared __attribute__((unused)) = thread->block->shared;       \
	uint32_t emuv_carry __attribute__((unused)) = 0 /* CC.CF */

/* ---- memory ---- */

EMUV_RARE void *emuv_slow(emuv_thread_t *thread, uint64_t address, uint32_t bytes, uint32_t rights)
{
	const emuv_launch_t *launch = thread->launch;
	uint64_t offset = address - launch->arena_base, block = offset >> 21;

	/* A remote block that the tally is of already: counted here, as it is with each access. */
	if (EMUV_TRACK && !(offset & (launch->arena_reject | (bytes - 1)))) {
		emuv_tally_t *tally = &thread->tallies[block % EMUV_TALLIES];
		uint32_t remote = *(const volatile uint8_t *)&launch->table[block] >> EMUV_REMOTE_SHIFT;

		if (tally->block == block + 1 && !(~remote & rights & (EMUV_READ | EMUV_WRITE))) {
			tally->read += rights & EMUV_READ ? bytes : 0;
			tally->written += rights & EMUV_WRITE ? bytes : 0;
			return (void *)address;
		}
	}
	return launch->engine->access(thread, address, bytes, rights);
}

/*
 * Where the bytes at an address of the arena are: the address itself, once it is known
 * to be in the arena, aligned, and (tracked) of a block with the rights.  A vector is
 * one access of its whole size, as on the card.
 */
EMUV_INLINE void *emuv_at(emuv_thread_t *thread, uint64_t base, uint64_t reject,
			  const volatile uint8_t *table, uint64_t address, uint32_t bytes,
			  uint32_t rights)
{
	uint64_t offset = address - base;

	if (EMUV_UNLIKELY(offset & (reject | (bytes - 1))))
		return emuv_slow(thread, address, bytes, rights);
	if (EMUV_TRACK) {
		if (rights & EMUV_READ)
			thread->bytes_read += bytes;
		if (rights & EMUV_WRITE)
			thread->bytes_written += bytes;
		if (EMUV_UNLIKELY(~table[offset >> 21] & rights & (EMUV_READ | EMUV_WRITE)))
			return emuv_slow(thread, address, bytes, rights);
	}
	return (void *)address;
}
#define EMUV_AT(address, bytes, rights) \
	emuv_at(thread, emuv_base, emuv_reject, emuv_table, address, bytes, rights)
/* The window takes 32 bits of offset: whatever a register holds is in it (abi.h). */
#define EMUV_PARAMETER(offset, bytes) (parameters + emuv_parameter(thread, offset, bytes))
#define EMUV_SHARED(offset) ((void *)(emuv_shared + (uint32_t)(offset)))

/* The offset of a parameter, once it is known to be inside. */
EMUV_INLINE uint64_t emuv_parameter(emuv_thread_t *thread, uint64_t offset, uint32_t bytes)
{
	const emuv_launch_t *launch = thread->launch;

	if (EMUV_UNLIKELY(offset > launch->parameter_bytes || bytes > launch->parameter_bytes - offset))
		launch->engine->trap(thread, EMUV_TRAP_ADDRESS, offset);
	return offset;
}

/* What a basic block counts. */
#if EMUV_TRACK
#define EMUV_COUNT(n) (void)(thread->instructions += (n))
#else
#define EMUV_COUNT(n) (void)0
#endif

#define EMUV_LOAD(T, pointer, order)                              \
	({                                                        \
		T emuv_v;                                         \
		__atomic_load((const T *)(pointer), &emuv_v, order); \
		emuv_v;                                           \
	})
#define EMUV_STORE(T, pointer, value, order)                 \
	do {                                                 \
		T emuv_v = (value);                          \
		__atomic_store((T *)(pointer), &emuv_v, order); \
	} while (0)

/*
 * cp.async, done at once: `from` of `bytes` come from the source, the rest are zeros
 * (9.7.9.25.3.1).  A source of which nothing is read is not looked at.
 */
#define EMUV_COPY_ASYNC(to, source, bytes, from)                                           \
	do {                                                                               \
		uint8_t *emuv_d = (uint8_t *)(to);                                         \
		uint64_t emuv_s = (source);                                                \
		uint32_t emuv_n = (from) < (bytes) ? (from) : (bytes);                     \
		if (emuv_n == (bytes)) {                                                   \
			__builtin_memcpy(emuv_d, EMUV_AT(emuv_s, bytes, EMUV_READ), bytes); \
		} else {                                                                   \
			for (uint32_t emuv_i = 0; emuv_i < (bytes); emuv_i++)              \
				emuv_d[emuv_i] =                                           \
					emuv_i < emuv_n                                    \
						? *(uint8_t *)EMUV_AT(emuv_s + emuv_i, 1, EMUV_READ) \
						: 0;                                       \
		}                                                                          \
	} while (0)

/* ---- read, modify, write ---- */

#define EMUV_OP_add(old, v, o) ((old) + (v))
#define EMUV_OP_and(old, v, o) ((old) & (v))
#define EMUV_OP_or(old, v, o) ((old) | (v))
#define EMUV_OP_xor(old, v, o) ((old) ^ (v))
#define EMUV_OP_exch(old, v, o) (v)
#define EMUV_OP_min(old, v, o) ((old) < (v) ? (old) : (v))
#define EMUV_OP_max(old, v, o) ((old) > (v) ? (old) : (v))
#define EMUV_OP_inc(old, v, o) ((old) >= (v) ? 0 : (old) + 1)
#define EMUV_OP_dec(old, v, o) ((old) == 0 || (old) > (v) ? (v) : (old) - 1)
#define EMUV_OP_cas(old, v, o) ((old) == (v) ? (o) : (old))
#define EMUV_FETCH_add(pointer, v, order) __atomic_fetch_add(pointer, v, order)
#define EMUV_FETCH_and(pointer, v, order) __atomic_fetch_and(pointer, v, order)
#define EMUV_FETCH_or(pointer, v, order) __atomic_fetch_or(pointer, v, order)
#define EMUV_FETCH_xor(pointer, v, order) __atomic_fetch_xor(pointer, v, order)
#define EMUV_FETCH_exch(pointer, v, order) __atomic_exchange_n(pointer, v, order)
/* `next` is an expression of emuv_old; U has the bits of T. */
#define EMUV_RMW(T, U, pointer, next, order)                                              \
	({                                                                                \
		U *emuv_p = (pointer), emuv_was = __atomic_load_n(emuv_p, __ATOMIC_RELAXED), emuv_is; \
		T emuv_old, emuv_new;                                                     \
		do {                                                                      \
			__builtin_memcpy(&emuv_old, &emuv_was, sizeof(emuv_was));         \
			emuv_new = (T)(next);                                             \
			__builtin_memcpy(&emuv_is, &emuv_new, sizeof(emuv_was));          \
		} while (!__atomic_compare_exchange_n(emuv_p, &emuv_was, emuv_is, 0, order, \
						      __ATOMIC_RELAXED));                 \
		emuv_old;                                                                 \
	})
#define EMUV_RMW_ALONE(T, pointer, next)                    \
	({                                                  \
		T *emuv_p = (pointer), emuv_old = *emuv_p;  \
		*emuv_p = (T)(next);                        \
		emuv_old;                                   \
	})
#if defined(__x86_64__)
__attribute__((target("cx16")))
#endif
EMUV_RARE emuv_u128 emuv_swap_wide(void *pointer, emuv_u128 was, emuv_u128 is)
{
	return __sync_val_compare_and_swap((unsigned __int128 *)pointer, was, is);
}
#define EMUV_RMW_WIDE(pointer, next)                                                      \
	({                                                                                \
		emuv_u128 emuv_old = *(emuv_u128 *)(pointer), emuv_seen;                  \
		while ((emuv_seen = emuv_swap_wide(pointer, emuv_old, next)) != emuv_old) \
			emuv_old = emuv_seen;                                             \
		emuv_old;                                                                 \
	})
#define EMUV_IS_SHARED(pointer) ((uint64_t)(pointer) - (uint64_t)emuv_shared < 0x100000000)
#define EMUV_IS_LOCAL(pointer) \
	((uint64_t)(pointer) - thread->local_start < thread->local_end - thread->local_start)
#define EMUV_IS_PARAM(pointer) \
	(param_window && (uint64_t)(pointer) - param_window < emuv_launch->parameter_bytes)
#define EMUV_IS_GLOBAL(pointer)                                                           \
	(!(((uint64_t)(pointer) - emuv_base) & emuv_reject) && !EMUV_IS_SHARED(pointer) && \
	 !EMUV_IS_LOCAL(pointer))

/* alloca: 9.7.17.3. */
EMUV_INLINE uint64_t emuv_alloca(emuv_thread_t *thread, uint64_t bytes, uint64_t align)
{
	uint64_t start = (thread->local_next + align - 1) & -align;

	if (EMUV_UNLIKELY(start > thread->local_end || bytes > thread->local_end - start))
		thread->launch->engine->trap(thread, EMUV_TRAP_STACK, bytes);
	thread->local_next = start + bytes;
	return start;
}

/* ---- integers: for each type what the rows name ---- */

#define EMUV_INTEGER(name, T, U, W, bits)                                                  \
	/* x / 0 is all ones and x % 0 is x, as the hardware does (the ISA: unspecified); */ \
	/* the least integer by -1 is itself, remainder 0. */                              \
	EMUV_INLINE T emuv_div_##name(T a, T b)                                            \
	{                                                                                  \
		if (EMUV_UNLIKELY(b == 0))                                                 \
			return (T)-1;                                                      \
		return (T)-1 < 0 && b == (T)-1 ? (T)(0 - (U)a) : (T)(a / b);               \
	}                                                                                  \
	EMUV_INLINE T emuv_rem_##name(T a, T b)                                            \
	{                                                                                  \
		if (EMUV_UNLIKELY(b == 0))                                                 \
			return a;                                                          \
		return (T)-1 < 0 && b == (T)-1 ? (T)0 : (T)(a % b);                        \
	}                                                                                  \
	EMUV_INLINE T emuv_mulhi_##name(T a, T b) { return (T)(((W)a * (W)b) >> bits); }   \
	EMUV_INLINE T emuv_min_##name(T a, T b) { return a < b ? a : b; }                  \
	EMUV_INLINE T emuv_max_##name(T a, T b) { return a > b ? a : b; }                  \
	EMUV_INLINE T emuv_sad_##name(T a, T b, T c)                                       \
	{                                                                                  \
		return (T)((U)c + (a < b ? (U)b - (U)a : (U)a - (U)b));                    \
	}                                                                                  \
	EMUV_INLINE T emuv_shr_##name(T a, uint32_t n)                                     \
	{                                                                                  \
		return (T)(n < bits ? a >> n : (T)-1 < 0 ? a >> (bits - 1) : 0);           \
	}                                                                                  \
	EMUV_INLINE T emuv_shl_##name(T a, uint32_t n) { return (T)(n < bits ? (U)a << n : 0); }
EMUV_INTEGER(u16, uint16_t, uint16_t, uint32_t, 16)
EMUV_INTEGER(s16, int16_t, uint16_t, int32_t, 16)
EMUV_INTEGER(u32, uint32_t, uint32_t, uint64_t, 32)
EMUV_INTEGER(s32, int32_t, uint32_t, int64_t, 32)
EMUV_INTEGER(u64, uint64_t, uint64_t, unsigned __int128, 64)
EMUV_INTEGER(s64, int64_t, uint64_t, __int128, 64)
#define emuv_shl_b16 emuv_shl_u16
#define emuv_shl_b32 emuv_shl_u32
#define emuv_shl_b64 emuv_shl_u64
#define emuv_shr_b16 emuv_shr_u16
#define emuv_shr_b32 emuv_shr_u32
#define emuv_shr_b64 emuv_shr_u64

/* mul24: bits 31 to 0 and 47 to 16 of the product of 24-bit integers. */
#define EMUV_LOW24_u32(x) ((uint64_t)((x) & 0xffffff))
#define EMUV_LOW24_s32(x) ((int64_t)((int32_t)((uint32_t)(x) << 8) >> 8))
#define emuv_mul24_lo_u32(a, b) ((uint32_t)(EMUV_LOW24_u32(a) * EMUV_LOW24_u32(b)))
#define emuv_mul24_hi_u32(a, b) ((uint32_t)(EMUV_LOW24_u32(a) * EMUV_LOW24_u32(b) >> 16))
#define emuv_mul24_lo_s32(a, b) ((int32_t)(EMUV_LOW24_s32(a) * EMUV_LOW24_s32(b)))
#define emuv_mul24_hi_s32(a, b) ((int32_t)(EMUV_LOW24_s32(a) * EMUV_LOW24_s32(b) >> 16))

/* .sat of 32 bits, and of cvt (every integer fits in 128 bits). */
EMUV_INLINE int32_t emuv_sat_s32(int64_t x)
{
	return x < -0x80000000ll ? (int32_t)-0x80000000ll : x > 0x7fffffff ? 0x7fffffff : (int32_t)x;
}
#define EMUV_CLAMP(name, T, low, high)                                        \
	EMUV_INLINE T emuv_clamp_##name(emuv_s128 x)                          \
	{                                                                     \
		return (T)(x < (low) ? (low) : x > (high) ? (high) : x);      \
	}
EMUV_CLAMP(u8, uint8_t, 0, 0xff)
EMUV_CLAMP(s8, int8_t, -0x80, 0x7f)
EMUV_CLAMP(u16, uint16_t, 0, 0xffff)
EMUV_CLAMP(s16, int16_t, -0x8000, 0x7fff)
EMUV_CLAMP(u32, uint32_t, 0, 0xffffffffll)
EMUV_CLAMP(s32, int32_t, -0x80000000ll, 0x7fffffffll)
EMUV_CLAMP(u64, uint64_t, 0, (emuv_s128)0xffffffffffffffffull)
EMUV_CLAMP(s64, int64_t, -(emuv_s128)0x8000000000000000ull, 0x7fffffffffffffffll)

/* a + b + carry in; the carry out is CC.CF.  Borrow likewise (9.7.2). */
#define EMUV_CARRY(bits)                                                                  \
	EMUV_INLINE uint##bits##_t emuv_adc_##bits(uint##bits##_t a, uint##bits##_t b,    \
						   uint32_t in, uint32_t *out)            \
	{                                                                                 \
		uint##bits##_t t = a + b, d = t + in;                                     \
		if (out)                                                                  \
			*out = (t < a) | (d < t);                                         \
		return d;                                                                 \
	}                                                                                 \
	EMUV_INLINE uint##bits##_t emuv_sbb_##bits(uint##bits##_t a, uint##bits##_t b,    \
						   uint32_t in, uint32_t *out)            \
	{                                                                                 \
		uint##bits##_t t = a - b, d = t - in;                                     \
		if (out)                                                                  \
			*out = (a < b) | (t < in);                                        \
		return d;                                                                 \
	}
EMUV_CARRY(32)
EMUV_CARRY(64)

EMUV_INLINE uint32_t emuv_popc_b32(uint32_t a) { return (uint32_t)__builtin_popcount(a); }
EMUV_INLINE uint32_t emuv_popc_b64(uint64_t a) { return (uint32_t)__builtin_popcountll(a); }
EMUV_INLINE uint32_t emuv_clz_b32(uint32_t a) { return a ? (uint32_t)__builtin_clz(a) : 32; }
EMUV_INLINE uint32_t emuv_clz_b64(uint64_t a) { return a ? (uint32_t)__builtin_clzll(a) : 64; }
/* The most significant bit that is not the sign; 0xffffffff: none.  shiftamt: from the top. */
#define EMUV_BFIND(name, bits, positive)                                              \
	EMUV_INLINE uint32_t emuv_bfind_##name(uint##bits##_t a)                      \
	{                                                                             \
		uint##bits##_t x = positive;                                          \
		return x ? bits - 1 - emuv_clz_b##bits(x) : ~0u;                      \
	}                                                                             \
	EMUV_INLINE uint32_t emuv_bfind_shiftamt_##name(uint##bits##_t a)             \
	{                                                                             \
		uint##bits##_t x = positive;                                          \
		return x ? emuv_clz_b##bits(x) : ~0u;                                 \
	}
EMUV_BFIND(u32, 32, a)
EMUV_BFIND(u64, 64, a)
EMUV_BFIND(s32, 32, (int32_t)a < 0 ? ~a : a)
EMUV_BFIND(s64, 64, (int64_t)a < 0 ? ~a : a)

EMUV_INLINE uint32_t emuv_fns(uint32_t mask, uint32_t base, int32_t offset)
{
	int64_t count = offset < 0 ? -(int64_t)offset : offset, step = offset < 0 ? -1 : 1;

	if (offset == 0)
		return base < 32 && mask >> base & 1 ? base : ~0u;
	for (int64_t at = base; at >= 0 && at < 32; at += step)
		if (mask >> at & 1 && --count == 0)
			return (uint32_t)at;
	return ~0u;
}

EMUV_INLINE uint32_t emuv_brev_b32(uint32_t a)
{
	a = (a >> 1 & 0x55555555u) | (a & 0x55555555u) << 1;
	a = (a >> 2 & 0x33333333u) | (a & 0x33333333u) << 2;
	a = (a >> 4 & 0x0f0f0f0fu) | (a & 0x0f0f0f0fu) << 4;
	return __builtin_bswap32(a);
}
EMUV_INLINE uint64_t emuv_brev_b64(uint64_t a)
{
	return (uint64_t)emuv_brev_b32((uint32_t)a) << 32 | emuv_brev_b32((uint32_t)(a >> 32));
}

/* Position and length are the low 8 bits of their operands. */
#define EMUV_BITFIELD(bits)                                                                  \
	EMUV_INLINE uint##bits##_t emuv_ones_b##bits(uint32_t n)                             \
	{                                                                                    \
		return n >= bits ? ~(uint##bits##_t)0 : ((uint##bits##_t)1 << n) - 1;        \
	}                                                                                    \
	EMUV_INLINE uint##bits##_t emuv_bfe_u##bits(uint##bits##_t a, uint32_t b, uint32_t c) \
	{                                                                                    \
		return emuv_shr_u##bits(a, b & 255) & emuv_ones_b##bits(c & 255);            \
	}                                                                                    \
	EMUV_INLINE int##bits##_t emuv_bfe_s##bits(int##bits##_t a, uint32_t b, uint32_t c)  \
	{                                                                                    \
		uint32_t length = c & 255, left;                                             \
		int##bits##_t x = emuv_shr_s##bits(a, b & 255);                              \
		if (length == 0)                                                             \
			return 0;                                                            \
		left = length < bits ? bits - length : 0;                                    \
		return (int##bits##_t)((uint##bits##_t)x << left) >> left;                   \
	}                                                                                    \
	EMUV_INLINE uint##bits##_t emuv_bfi_b##bits(uint##bits##_t a, uint##bits##_t b,      \
						    uint32_t c, uint32_t d)                  \
	{                                                                                    \
		uint##bits##_t mask = emuv_shl_u##bits(emuv_ones_b##bits(d & 255), c & 255); \
		return (b & ~mask) | (emuv_shl_u##bits(a, c & 255) & mask);                  \
	}
EMUV_BITFIELD(32)
EMUV_BITFIELD(64)

EMUV_INLINE uint32_t emuv_bmsk_clamp(uint32_t a, uint32_t b)
{
	return emuv_shl_u32(emuv_ones_b32(b), a);
}
EMUV_INLINE uint32_t emuv_bmsk_wrap(uint32_t a, uint32_t b)
{
	return emuv_ones_b32(b & 31) << (a & 31);
}
EMUV_INLINE uint32_t emuv_szext_clamp_u32(uint32_t a, uint32_t b) { return a & emuv_ones_b32(b); }
EMUV_INLINE uint32_t emuv_szext_wrap_u32(uint32_t a, uint32_t b) { return a & emuv_ones_b32(b & 31); }
EMUV_INLINE int32_t emuv_szext_clamp_s32(int32_t a, uint32_t b)
{
	return emuv_bfe_s32(a, 0, b < 32 ? b : 32);
}
EMUV_INLINE int32_t emuv_szext_wrap_s32(int32_t a, uint32_t b) { return emuv_bfe_s32(a, 0, b & 31); }

/* Bytes and halves of a register, signed or not. */
#define EMUV_BYTE_u32(x, i) ((uint32_t)(uint8_t)((x) >> 8 * (i)))
#define EMUV_BYTE_s32(x, i) ((uint32_t)(int8_t)((x) >> 8 * (i)))
#define EMUV_HALF_u32(x, i) ((uint32_t)(uint16_t)((x) >> 16 * (i)))
#define EMUV_HALF_s32(x, i) ((uint32_t)(int16_t)((x) >> 16 * (i)))
#define EMUV_DOT(at, bt)                                                                  \
	EMUV_INLINE uint32_t emuv_dp4a_##at##_##bt(uint32_t a, uint32_t b, uint32_t c)    \
	{                                                                                 \
		for (int i = 0; i < 4; i++)                                               \
			c += EMUV_BYTE_##at(a, i) * EMUV_BYTE_##bt(b, i);                 \
		return c;                                                                 \
	}                                                                                 \
	EMUV_INLINE uint32_t emuv_dp2a_lo_##at##_##bt(uint32_t a, uint32_t b, uint32_t c) \
	{                                                                                 \
		return c + EMUV_HALF_##at(a, 0) * EMUV_BYTE_##bt(b, 0) +                  \
		       EMUV_HALF_##at(a, 1) * EMUV_BYTE_##bt(b, 1);                       \
	}                                                                                 \
	EMUV_INLINE uint32_t emuv_dp2a_hi_##at##_##bt(uint32_t a, uint32_t b, uint32_t c) \
	{                                                                                 \
		return emuv_dp2a_lo_##at##_##bt(a, b >> 16, c);                           \
	}
EMUV_DOT(u32, u32)
EMUV_DOT(u32, s32)
EMUV_DOT(s32, u32)
EMUV_DOT(s32, s32)

/* Two 16-bit halves: each by the operation of one. */
#define EMUV_PAIR(name, op)                                                           \
	EMUV_INLINE uint32_t emuv_##name(uint32_t a, uint32_t b)                      \
	{                                                                             \
		uint16_t low = (uint16_t)op((uint16_t)a, (uint16_t)b);                \
		uint16_t high = (uint16_t)op((uint16_t)(a >> 16), (uint16_t)(b >> 16)); \
		return (uint32_t)high << 16 | low;                                    \
	}
#define EMUV_ADD(a, b) ((a) + (b))
#define EMUV_MIN_S16(a, b) emuv_min_s16((int16_t)(a), (int16_t)(b))
#define EMUV_MAX_S16(a, b) emuv_max_s16((int16_t)(a), (int16_t)(b))
#define EMUV_MIN_RELU_S16(a, b) emuv_max_s16(EMUV_MIN_S16(a, b), 0)
#define EMUV_MAX_RELU_S16(a, b) emuv_max_s16(EMUV_MAX_S16(a, b), 0)
EMUV_PAIR(add_u16x2, EMUV_ADD)
EMUV_PAIR(add_s16x2, EMUV_ADD)
EMUV_PAIR(min_u16x2, emuv_min_u16)
EMUV_PAIR(max_u16x2, emuv_max_u16)
EMUV_PAIR(min_s16x2, EMUV_MIN_S16)
EMUV_PAIR(max_s16x2, EMUV_MAX_S16)
EMUV_PAIR(min_relu_s16x2, EMUV_MIN_RELU_S16)
EMUV_PAIR(max_relu_s16x2, EMUV_MAX_RELU_S16)

EMUV_INLINE uint32_t emuv_join(uint16_t low, uint16_t high) { return (uint32_t)high << 16 | low; }

/* ---- logic ---- */

/* One term for each set bit of the table; with a constant table little is left. */
EMUV_INLINE uint32_t emuv_lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
	uint32_t d = 0;

	for (int i = 0; i < 8; i++)
		if (table >> i & 1)
			d |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
	return d;
}
EMUV_INLINE uint32_t emuv_shf_l_clamp(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t n = c < 32 ? c : 32;

	return (uint32_t)((((uint64_t)b << 32 | a) << n) >> 32);
}
EMUV_INLINE uint32_t emuv_shf_r_clamp(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t n = c < 32 ? c : 32;

	return (uint32_t)(((uint64_t)b << 32 | a) >> n);
}
EMUV_INLINE uint32_t emuv_shf_l_wrap(uint32_t a, uint32_t b, uint32_t c)
{
	return emuv_shf_l_clamp(a, b, c & 31);
}
EMUV_INLINE uint32_t emuv_shf_r_wrap(uint32_t a, uint32_t b, uint32_t c)
{
	return emuv_shf_r_clamp(a, b, c & 31);
}

/* A byte of {b, a} by a selector: bit 3 spreads the byte's sign. */
EMUV_INLINE uint32_t emuv_prmt(uint32_t a, uint32_t b, uint32_t c)
{
	uint64_t from = (uint64_t)b << 32 | a;
	uint32_t d = 0;

	for (int i = 0; i < 4; i++) {
		uint32_t selector = c >> 4 * i & 15;
		uint32_t byte = (uint32_t)(from >> 8 * (selector & 7)) & 255;

		if (selector & 8)
			byte = byte & 128 ? 255 : 0;
		d |= byte << 8 * i;
	}
	return d;
}
/* The modes, as the selector that does the same. */
EMUV_INLINE uint32_t emuv_prmt_f4e(uint32_t a, uint32_t b, uint32_t c)
{
	return emuv_prmt(a, b, 0x3210 + 0x1111 * (c & 3));
}
EMUV_INLINE uint32_t emuv_prmt_b4e(uint32_t a, uint32_t b, uint32_t c)
{
	c &= 3;
	return emuv_prmt(a, b, c | ((c - 1) & 7) << 4 | ((c - 2) & 7) << 8 | ((c - 3) & 7) << 12);
}
EMUV_INLINE uint32_t emuv_prmt_rc8(uint32_t a, uint32_t b, uint32_t c)
{
	return emuv_prmt(a, b, 0x1111 * (c & 3));
}
EMUV_INLINE uint32_t emuv_prmt_ecl(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t d = 0;

	for (uint32_t i = 0; i < 4; i++)
		d |= (i < (c & 3) ? c & 3 : i) << 4 * i;
	return emuv_prmt(a, b, d);
}
EMUV_INLINE uint32_t emuv_prmt_ecr(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t d = 0;

	for (uint32_t i = 0; i < 4; i++)
		d |= (i > (c & 3) ? c & 3 : i) << 4 * i;
	return emuv_prmt(a, b, d);
}
EMUV_INLINE uint32_t emuv_prmt_rc16(uint32_t a, uint32_t b, uint32_t c)
{
	return emuv_prmt(a, b, c & 1 ? 0x3232 : 0x1010);
}
