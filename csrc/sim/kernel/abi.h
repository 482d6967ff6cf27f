/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Between the engine and the C that PTX becomes.  The engine includes this file; its
 * text, followed by that of ../ptx/prelude.h, also stands in front of every generated
 * file, so it includes nothing, and a change here changes the key of the cache.
 *
 * Addresses
 *   Every byte that a kernel may reach lies in the arena: one stretch of address space,
 *   a power of two long and aligned to its length.  Device, managed and pinned host
 *   memory, the windows of shared memory and the local memory of threads are there.
 *   A generic address is the address itself; a shared address is an offset in the
 *   block's window; a local address is a generic one.  The one test in front of every
 *   access,  (address - base) & (reject | (bytes - 1)),  finds what is outside and what
 *   is not aligned; what is inside and not mapped ends in the engine's SIGSEGV handler.
 *
 * Tracking
 *   Generated code is compiled with EMUV_TRACK 0 or 1.  With 1, each access also asks
 *   table[offset >> 21] for the right it needs (EMUV_READ, EMUV_WRITE) and counts its
 *   bytes; without the right it calls access(), which sees to faults, marks the block
 *   as touched, and grants rights until the block is evicted or the launch ends.
 */
#ifndef EMUV_KERNEL_ABI_H
#define EMUV_KERNEL_ABI_H

#ifndef EMUV_GENERATED
#include <stdint.h>
#else
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __SIZE_TYPE__ size_t;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)
#endif

#define EMUV_KERNEL_VERSION 1

typedef struct emuv_launch emuv_launch_t;
typedef struct emuv_block emuv_block_t;
typedef struct emuv_thread emuv_thread_t;

/* Rights and kinds of access. */
#define EMUV_READ 1u
#define EMUV_WRITE 2u
#define EMUV_ATOMIC 4u /* with both of the above */

/* Why a kernel ends early. */
enum {
	EMUV_TRAP_NONE,
	EMUV_TRAP_ADDRESS,    /* CUDA_ERROR_ILLEGAL_ADDRESS */
	EMUV_TRAP_ALIGNMENT,  /* CUDA_ERROR_MISALIGNED_ADDRESS */
	EMUV_TRAP_INSTRUCTION, /* trap; CUDA_ERROR_LAUNCH_FAILED */
	EMUV_TRAP_ASSERT,     /* CUDA_ERROR_ASSERT */
	EMUV_TRAP_STACK,      /* local memory used up; CUDA_ERROR_LAUNCH_FAILED */
	EMUV_TRAP_FUNCTION,   /* call of no function; CUDA_ERROR_INVALID_PC */
	EMUV_TRAP_TIME,       /* EMUV_SIM_KERNEL_MS; CUDA_ERROR_LAUNCH_TIMEOUT */
	EMUV_TRAP_DEADLOCK,   /* no lane can go on (detail: at barriers, << 32 in warps); the same */
	EMUV_TRAP_STOPPED,    /* the context or the process ends */
	EMUV_TRAP_LANES,      /* as _INSTRUCTION: a lane that is not in its mask (the detail) */
};

/* Operations of a warp or a block: every lane of `mask` (or thread of the barrier) takes part. */
enum {
	EMUV_WARP_SYNC,       /* bar.warp.sync; returns 0 */
	EMUV_WARP_SHUFFLE,    /* the value of lane `source`; the engine copies, the caller chose */
	EMUV_WARP_ALL, EMUV_WARP_ANY, EMUV_WARP_UNI, EMUV_WARP_BALLOT, /* value: predicate */
	EMUV_WARP_MATCH_ANY,  /* lanes with the same value */
	EMUV_WARP_MATCH_ALL,  /* mask, or 0 where values differ */
	EMUV_WARP_ADD, EMUV_WARP_MIN_U, EMUV_WARP_MIN_S, EMUV_WARP_MAX_U, EMUV_WARP_MAX_S,
	EMUV_WARP_AND, EMUV_WARP_OR, EMUV_WARP_XOR, /* redux.sync on 32 bits */
	EMUV_WARP_ELECT,      /* the lowest lane of mask */
	EMUV_WARP_ACTIVE,     /* activemask: lanes that wait at the same place (`value`) */
};
enum { EMUV_BARRIER_SYNC, EMUV_BARRIER_ARRIVE, EMUV_BARRIER_POPC, EMUV_BARRIER_AND, EMUV_BARRIER_OR };

/* What generated code calls.  None of these is NULL; those marked ! do not return. */
typedef struct {
	/*
	 * The slow path of an access: returns where the bytes are in this process, or
	 * ends the kernel.  `rights`: of EMUV_READ, EMUV_WRITE, EMUV_ATOMIC.
	 */
	void *(*access)(emuv_thread_t *thread, uint64_t address, uint32_t bytes, uint32_t rights);
	void (*trap)(emuv_thread_t *thread, int why, uint64_t detail); /* ! */
	/* bar / barrier: `threads` 0: all of the block.  The reductions return their result. */
	uint32_t (*barrier)(emuv_thread_t *thread, uint32_t operation, uint32_t id,
			    uint32_t threads, uint32_t predicate);
	/*
	 * A warp operation among the lanes of `mask`, of which the caller is one.
	 * SHUFFLE: every lane gives its value and the lane it wants (`source`, 0 to 31); a
	 * source that is not in the mask gives the caller's own value.
	 */
	uint64_t (*warp)(emuv_thread_t *thread, uint32_t operation, uint32_t mask, uint64_t value,
			 uint32_t source);
	void (*yield)(emuv_thread_t *thread); /* let the other lanes go on */
	void (*grid_sync)(emuv_thread_t *thread);
	int32_t (*print)(emuv_thread_t *thread, uint64_t format, uint64_t arguments); /* vprintf */
	/* __assertfail: addresses of NUL-terminated text in device memory. ! */
	void (*assert_fail)(emuv_thread_t *thread, uint64_t message, uint64_t file, uint32_t line,
			    uint64_t function);
	uint64_t (*allocate)(emuv_thread_t *thread, uint64_t bytes); /* device malloc; 0: no memory */
	void (*release)(emuv_thread_t *thread, uint64_t address);
	uint64_t (*nanoseconds)(emuv_thread_t *thread); /* %globaltimer */
} emuv_engine_t;

/*
 * Remote bytes of one block, counted by one thread of the host: it has EMUV_TALLIES of these,
 * and a block's place among them is its number modulo that.  A block is remote where the
 * table has the right that is asked for EMUV_REMOTE_SHIFT bits higher.
 */
#define EMUV_TALLIES 8
#define EMUV_REMOTE_SHIFT 4
typedef struct {
	uint64_t block; /* of the arena, from 1 on; 0: none */
	uint64_t read, written;
} emuv_tally_t;

struct emuv_launch {
	const emuv_engine_t *engine;
	uint64_t arena_base;
	uint64_t arena_reject;       /* ~(length - 1) */
	const uint8_t *table;        /* rights by block of the arena; EMUV_TRACK 1 only */
	const uint8_t *parameters;   /* the buffer; 16-aligned */
	const uint64_t *variables;   /* address of each .global and .const, by index */
	uint32_t parameter_bytes;
	uint32_t dynamic_shared;     /* bytes; they follow the static ones */
	uint32_t grid[3], block[3];
	uint32_t shared_bytes;       /* static + dynamic: what of the window may be used */
	uint32_t processors;         /* %nsmid */
	uint64_t grid_id;
	const volatile uint32_t *stop; /* not 0: leave at the next back edge, by engine->yield */
	void *engine_private;
};

struct emuv_block {
	const emuv_launch_t *launch;
	uint32_t index[3];           /* %ctaid */
	uint32_t processor;          /* %smid */
	/*
	 * The window: offset o is the byte at shared + o.  4 GiB of address space belong
	 * to it, of which shared_bytes are mapped: a 32-bit offset needs no test.
	 */
	uint8_t *shared;
	void *engine_private;
};

struct emuv_thread {
	const emuv_launch_t *launch;
	emuv_block_t *block;
	uint32_t index[3];           /* %tid */
	uint32_t linear;             /* tid.x + ntid.x * (tid.y + ntid.y * tid.z); lane: & 31 */
	uint64_t local_next;         /* the thread's local memory: next free byte … */
	uint64_t local_start, local_end; /* … and where it is; addresses in the arena */
	/* EMUV_TRACK 1: sums that the engine collects when the thread is done. */
	uint64_t instructions, bytes_read, bytes_written;
	emuv_tally_t *tallies;
	void *engine_private;
};

/* What a generated file exports, under the name emuv_kernel. */
#define EMUV_KERNEL_SYNC 1u   /* threads wait for each other: one fiber each, `thread` */
#define EMUV_KERNEL_GRID 2u   /* and blocks do */
#define EMUV_KERNEL_CROSS 4u  /* blocks may depend on each other: run them in order, one at a time */
typedef struct {
	uint32_t version;     /* EMUV_KERNEL_VERSION */
	uint32_t flags;
	uint32_t track;       /* EMUV_TRACK of this file */
	uint32_t step_bytes;  /* local memory that block() takes for each thread at once, besides */
	/* All threads of thread->block, one after another; the function fills in index and
	 * linear.  NULL with EMUV_KERNEL_SYNC. */
	void (*block)(emuv_thread_t *thread);
	/* One thread, on a stack of its own.  NULL without EMUV_KERNEL_SYNC. */
	void (*thread)(emuv_thread_t *thread);
} emuv_kernel_t;

#endif
