/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated GPU: a CUDA driver in software (docs/sim.md).  Internal header.
 *
 * Words
 *   object   what a driver handle points to; starts with sim_object_t and is
 *            known to the handle table from creation to destruction, so that a
 *            stale or invented handle is found out without being dereferenced.
 *   range    a piece of the address space that the simulator gave out (range.c):
 *            device memory, managed memory, pinned host memory, VMM reservation.
 *   block    2 MiB of managed memory, the unit of residency.
 *
 * Rules
 *   - One lock, sim_lock, guards all state; bytes are copied outside of it.
 *   - Every entry point is SIM_API(name, params) { ... } and starts with
 *     SIM_ENTER(name) (counts the call, applies injected faults, checks cuInit),
 *     or SIM_ENTER_EARLY(name) where the driver answers before cuInit.
 *   - A failure that a programmer would want named goes through sim_fail(), which
 *     prints one line only when EMUV_SIM_VERBOSE is set, and returns its code.
 *   - Device memory is host memory, mapped on demand (mmap, NORESERVE): its size
 *     costs nothing until touched.
 *   - Work is queued by stream and done by the executor's threads, in the streams'
 *     order (work.h, order.c, executor.c).
 */
#ifndef EMUV_SIM_H
#define EMUV_SIM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda_abi.h"

#define SIM_DRIVER_VERSION 13000
/* The compute capability of every simulated card. */
#define SIM_CC_MAJOR 8
#define SIM_CC_MINOR 0
#define SIM_BLOCK_BYTES ((size_t)2 << 20)
#define SIM_MAX_DEVICES 16

#define SIM_API(name, ...)                                             \
	__attribute__((visibility("default"))) CUresult name(__VA_ARGS__); \
	__attribute__((visibility("default"))) CUresult name(__VA_ARGS__)

/* A counter for each function of the driver, by its place in driver_api.def. */
typedef struct {
	_Alignas(64) const char *name; /* NULL: not of this driver's version */
	_Atomic uint64_t count;
	_Atomic uint64_t faults; /* armed and not yet struck; the faults themselves: entry.c */
} sim_call_t;
enum {
#define EMUV_API(export, name, version, flag) SIM_CALL_##export,
#include "driver_api.def"
#undef EMUV_API
	SIM_CALLS,
};
extern sim_call_t sim_calls[SIM_CALLS]; /* stubs.c */

#define SIM_ENTER_(name, need_init)                                               \
	do {                                                                      \
		CUresult injected_ = sim_enter(&sim_calls[SIM_CALL_##name], need_init); \
		if (__builtin_expect(injected_ != CUDA_SUCCESS, 0))               \
			return injected_;                                         \
	} while (0)
#define SIM_ENTER(name) SIM_ENTER_(name, true)
#define SIM_ENTER_EARLY(name) SIM_ENTER_(name, false)
#define SIM_LIST(...) __VA_ARGS__
/* `name` and `name_ptsz`, for which stream 0 is per-thread; `body` sees `per_thread`. */
#define SIM_BOTH(name, parameters, body)             \
	SIM_API(name, SIM_LIST parameters)           \
	{                                            \
		const bool per_thread = false;       \
		SIM_ENTER(name);                     \
		body                                 \
	}                                            \
	SIM_API(name##_ptsz, SIM_LIST parameters)    \
	{                                            \
		const bool per_thread = true;        \
		SIM_ENTER(name##_ptsz);              \
		body                                 \
	}

/* ---- entry, faults, report: entry.c ---- */
/* 0: initialised, no fault armed, no host callback running, not a forked child. */
extern _Atomic int sim_slow;
CUresult sim_enter_slow(sim_call_t *call, uint64_t number, bool need_init);
/* Counts the call; CUDA_ERROR_NOT_INITIALIZED before cuInit when `need_init`. */
static inline CUresult sim_enter(sim_call_t *call, bool need_init)
{
	uint64_t number = atomic_fetch_add_explicit(&call->count, 1, memory_order_relaxed) + 1;

	if (__builtin_expect(atomic_load_explicit(&sim_slow, memory_order_relaxed) == 0, 1))
		return CUDA_SUCCESS;
	return sim_enter_slow(call, number, need_init);
}
CUresult sim_fail(CUresult code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* One line on stderr, "emuv-sim: …", whatever EMUV_SIM_VERBOSE says. */
void sim_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern pthread_mutex_t sim_lock;
void sim_lock_take(void);
void sim_lock_drop(void);

/* ---- objects: object.c ---- */
typedef enum {
	SIM_CONTEXT = 1, SIM_STREAM, SIM_EVENT, SIM_POOL, SIM_ARRAY, SIM_MIPMAP,
	SIM_MODULE, SIM_FUNCTION, SIM_LIBRARY, SIM_KERNEL, SIM_LINK, SIM_VMM,
	SIM_GRAPH, SIM_NODE, SIM_EXEC, SIM_USER_OBJECT,
} sim_kind_t;
typedef struct {
	sim_kind_t kind;
	struct sim_context *context; /* owner, or NULL */
} sim_object_t;
/* All with sim_lock held. */
void *sim_object_new(sim_kind_t kind, size_t bytes, struct sim_context *context); /* zeroed; NULL: no memory */
void sim_object_delete(void *object);
void *sim_object_get(const void *handle, sim_kind_t kind); /* NULL: no such object */
/* Calls visit for each live object of the kind; visit may delete the object it is given. */
void sim_object_each(sim_kind_t kind, void (*visit)(void *object, void *argument), void *argument);

/* ---- devices and contexts: device.c, context.c ---- */
typedef struct {
	uint64_t card_bytes;
	int physical;           /* before CUDA_VISIBLE_DEVICES */
	uint64_t context_cost;  /* EMUV_SIM_CONTEXT */
	uint64_t context_bytes; /* taken by live contexts */
	uint64_t device_bytes;  /* taken by allocations of every plain kind */
	uint64_t resident_bytes; /* taken by managed blocks resident here */
	uint64_t peak_bytes;     /* the most that all three ever were */
	struct sim_context *primary; /* made once, alive while retained */
	unsigned int primary_refs;
	unsigned int primary_flags;
	CUmemoryPool default_pool, current_pool;
} sim_device_t;
extern sim_device_t sim_devices[SIM_MAX_DEVICES];
extern int sim_device_count; /* after CUDA_VISIBLE_DEVICES */

/*
 * Never freed: a thread may have a destroyed context current, and finds out by
 * `alive` without the lock.  The primary one lives again when it is retained again.
 */
typedef struct sim_context {
	sim_object_t object;
	_Atomic bool alive;
	bool primary;
	CUdevice device;
	unsigned int flags;
	uint64_t id;
	unsigned int attached; /* cuCtxAttach's count; 1 when made */
	struct sim_stream *legacy; /* the NULL stream */
	unsigned int peers;    /* bit d: peer access to device d is enabled */
	size_t limits[16];
	int cache_config, shared_config;
	_Atomic int error;     /* a CUresult that sticks: sim_context_poison */
	volatile uint32_t stop; /* not 0: its running work should end soon; kernels poll it */
	bool ending;           /* being torn down, its last work running out */
	uint64_t unfinished;   /* pieces of work */
	uint64_t blocking_moment; /* virtual ns: what its blocking streams did, was done */
} sim_context_t;

extern _Thread_local sim_context_t *sim_top; /* top of this thread's stack */
/*
 * The calling thread's current context; NULL where there is none, where it has been
 * destroyed and where an error sticks to it (callers answer sim_no_context()).
 */
static inline sim_context_t *sim_current(void)
{
	sim_context_t *context = sim_top;

	return context && atomic_load_explicit(&context->alive, memory_order_relaxed) &&
			       !atomic_load_explicit(&context->error, memory_order_relaxed)
		       ? context
		       : NULL;
}
/* CUDA_ERROR_CONTEXT_IS_DESTROYED, _INVALID_CONTEXT or the error that sticks, as it is. */
CUresult sim_no_context(void);
/* sim_lock held.  Drops everything a context owns: S2's part is sim_memory_drop_context. */
void sim_memory_drop_context(sim_context_t *context); /* memory.c */

/* ---- streams and events: stream.c, order.c, event.c ---- */
typedef struct sim_stream {
	sim_object_t object;
	unsigned int flags;
	int priority;
	int sync_policy;    /* CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY */
	uint64_t id;
	bool legacy;       /* the NULL stream of its context */
	bool per_thread;   /* a thread's default stream */
	struct sim_capture *capture; /* what it is captured into: capture.c */
	/* order.c's own from here */
	bool held;
	bool gone;         /* destroyed; freed when the last of its work is done */
	bool running;      /* somebody runs `first` */
	bool ready;        /* in the list of streams whose `first` may run */
	bool polling;      /* `first` asked to be run again later */
	bool looked_at;    /* in the list of streams to look at */
	unsigned int waiters;
	unsigned int queued; /* pieces */
	uint64_t held_from; /* work after this number waits while `held` */
	uint64_t submitted; /* number of the last piece of work */
	uint64_t moment;    /* virtual ns at which what is done was done */
	struct sim_work *first, *last; /* work that is not done, in order */
	struct sim_stream *busy_next, *busy_previous; /* streams that have any */
	struct sim_stream *ready_next, *ready_previous, *look_next;
} sim_stream_t;
/*
 * sim_lock held.  Resolves a CUstream: 0 / CU_STREAM_LEGACY (or, for a _ptsz entry
 * point, 0 as per-thread), CU_STREAM_PER_THREAD, or a handle.  NULL: invalid, or its
 * context can do nothing more; *why then has the code.  Work for it: work.h.
 */
sim_stream_t *sim_stream_get(CUstream stream, bool per_thread, CUresult *why);
/*
 * sim_lock held (dropped while waiting).  Waits for what is in the stream now, and
 * helps.  The context's sticky error; CUDA_ERROR_LAUNCH_TIMEOUT after EMUV_SIM_WAIT_MS
 * where a held stream is what it waits for.
 */
CUresult sim_stream_wait(sim_stream_t *stream);

/* ---- ranges and memory: range.c, memory.c, managed.c (more in memory.h) ---- */
typedef enum {
	SIM_RANGE_DEVICE = 1, /* cuMemAlloc, pools */
	SIM_RANGE_MANAGED,
	SIM_RANGE_HOST,       /* cuMemHostAlloc, cuMemHostRegister */
	SIM_RANGE_RESERVED,   /* cuMemAddressReserve */
} sim_range_kind_t;
typedef struct sim_range {
	sim_range_kind_t kind;
	uint32_t order; /* heap order in the tree; owned by range.c */
	uintptr_t start;
	size_t bytes; /* as asked for */
	CUdevice device;
	unsigned int flags;
	sim_context_t *context; /* NULL for what belongs to a pool or to the device */
	struct sim_pool *pool;
	bool registered;  /* host memory that the program owns */
	bool sync_memops; /* CU_POINTER_ATTRIBUTE_SYNC_MEMOPS */
	bool leaving;     /* cuMemFreeAsync of it is queued */
	unsigned int pins; /* copies and sets that go on in it: it is not unmapped under them */
	bool settled;     /* and its bytes have been given back to the card */
	bool exported;    /* other processes have handles of it */
	uint64_t id;      /* CU_POINTER_ATTRIBUTE_BUFFER_ID */
	struct sim_graph_memory *graph; /* what a graph's node allocates: graph_memory.c */
	struct sim_managed *managed; /* residency and advice by block: managed.c */
	struct sim_vmm_map *maps;    /* of a reservation: vmm.c */
	struct sim_space *space;     /* where the bytes come from: space.c */
	struct sim_share *share;     /* the file that other processes map it by: ipc.c */
	struct sim_import *import;   /* another process's memory: ipc.c */
	struct sim_range *left, *right; /* owned by range.c */
} sim_range_t;
/* sim_lock held.  The range that contains `address`, or NULL. */
sim_range_t *sim_range_find(uintptr_t address);
/* sim_lock held.  Calls visit for every live range by address; visit adds and removes none. */
void sim_range_each(void (*visit)(sim_range_t *range, void *argument), void *argument);
/*
 * sim_lock held.  sim_card_room: can the card of `device` give `bytes` more?  Evicts
 * managed blocks to make room, and books nothing.  sim_card_take books them as
 * device_bytes (false: no room), sim_card_give returns them; both round up to 512.
 * sim_card_used: all that is taken, contexts included; keeps peak_bytes.
 */
bool sim_card_room(CUdevice device, uint64_t bytes);
bool sim_card_take(CUdevice device, uint64_t bytes);
void sim_card_give(CUdevice device, uint64_t bytes);
uint64_t sim_card_used(CUdevice device);

/*
 * Bytes resident on `device` of [address, address + bytes) of managed memory.  Takes
 * sim_lock.  CUDA_ERROR_INVALID_VALUE where that is not inside one managed range.
 */
CUresult sim_managed_resident(CUdeviceptr address, size_t bytes, CUdevice device, uint64_t *resident);

/* ---- report at exit: report.c ---- */
/* Writes EMUV_SIM_REPORT, if asked for. */
void sim_report_write(void);

#endif
