/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Executing a kernel: what the engine's own files say to each other.
 *
 *   run.c      a launch: its blocks, the cores that take them, how it ends
 *   core.c     what a core keeps from launch to launch: stacks, windows, local memory
 *   fiber.c    the threads of blocks as fibers, and who goes on next
 *   barrier.c  bar, grid synchronisation;  warp.c  operations of a warp
 *   access.c   accesses that generated code did not decide;  fault.c  SIGSEGV, SIGBUS
 *   print.c    printf, assert;  heap.c  malloc and free of kernels
 *
 * Words
 *   run      one launch, from its start to its end
 *   core     executes blocks: one host thread at a time, with memory of its own
 *   seat     where a block sits in a core.  One is enough, unless blocks wait for each
 *            other: then each block of a grid has its own, and all share the core's queues
 *   fiber    a thread of a block that may wait for others, on a stack of its own.  A
 *            kernel without EMUV_KERNEL_SYNC runs all threads on the core's plain stack
 *   root     the host thread's own stack, which starts blocks
 *
 * A fiber runs until it waits, yields or ends, and then switches to the next ready one
 * by itself.  When there is none it goes back to the root, with the reason in core->why.
 * A trap leaves every stack as it is: generated code holds nothing.
 */
#ifndef EMUV_SIM_ENGINE_H
#define EMUV_SIM_ENGINE_H

#include <signal.h>

#include "abi.h"
#include "kernel.h"
#include "paging.h"
#include "sim.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif
#ifndef SIM_ASAN
#define SIM_ASAN 0
#endif

#define LANES 32u
#define BARRIERS 17 /* 0 to 15 of the PTX ISA, and barrier.cluster */
#define BLOCK_THREADS 1024
#define BLOCK_WARPS (BLOCK_THREADS / LANES)

/* ---- a place where execution can go on: fiber.c, fiber_<machine>.S ---- */
typedef struct {
	void *sp;
#if SIM_ASAN
	void *fake;
	const void *bottom;
	size_t bytes;
#endif
} sim_place_t;
/* Saves the callee-saved registers, and goes on at `to` as it was saved. */
void sim_fiber_swap(void **save, void *to);
/* The first words of a stack whose first swap calls function(argument). */
void *sim_fiber_frame(void *top, void (*function)(void *argument), void *argument);

typedef struct sim_fiber {
	emuv_thread_t thread; /* first: the engine gets this address back */
	sim_place_t place;
	struct sim_fiber *next; /* in a queue */
	char *top;              /* of the stack */
	uint64_t value, result; /* of a warp operation, or a barrier's reduction */
	uint32_t source;
	/* The rendezvous that this lane was the first to come to. */
	uint32_t meet_mask, meet_arrived, meet_operation;
	enum { FIBER_DONE, FIBER_READY, FIBER_BARRIER, FIBER_WARP, FIBER_ACTIVE, FIBER_GRID } state;
	uint32_t barrier;
	bool guarded; /* the stack has a page without access below */
} sim_fiber_t;

typedef struct {
	sim_fiber_t *first, *last; /* last is undefined while first is NULL */
} sim_queue_t;

static inline void sim_queue_add(sim_queue_t *queue, sim_fiber_t *fiber)
{
	fiber->next = NULL;
	if (queue->first)
		queue->last->next = fiber;
	else
		queue->first = fiber;
	queue->last = fiber;
}

/* Puts all of `from` behind `to`. */
static inline void sim_queue_move(sim_queue_t *to, sim_queue_t *from)
{
	if (!from->first)
		return;
	if (to->first)
		to->last->next = from->first;
	else
		to->first = from->first;
	to->last = from->last;
	from->first = NULL;
}

typedef struct {
	sim_queue_t waiting;
	uint32_t expected; /* 0: all threads that have not ended */
	uint32_t arrived;  /* with lanes that cannot come, where a number is expected */
	uint32_t real;     /* without */
	uint32_t trues;
	uint32_t warps;    /* that were here */
	bool reduces;
} sim_barrier_t;

typedef struct sim_seat {
	emuv_block_t block; /* first */
	struct sim_core *core;
	uint64_t number;    /* of the block */
	sim_fiber_t *fibers; /* as many as there are stacks */
	uint32_t threads, alive; /* of the block; not ended */
	uint32_t lanes[BLOCK_WARPS];   /* not ended */
	uint32_t meets[BLOCK_WARPS];   /* lanes that keep a rendezvous */
	uint32_t busy;                 /* barriers that somebody came to */
	sim_barrier_t barriers[BARRIERS];
	/* Kept from launch to launch. */
	char *stacks;
	size_t stack_bytes; /* each, its guard page included */
	uint32_t stack_count;
	char *local;
	size_t local_bytes; /* of all threads */
	char *window;
	size_t window_bytes, window_span; /* mapped; of address space */
} sim_seat_t;

typedef struct sim_core {
	struct sim_core *next; /* of those that are free */
	struct sim_run *run;
	sim_place_t root;
	sim_fiber_t *current;  /* NULL: on the plain stack, or the root */
	sim_queue_t ready, yielded, active;
	enum { CORE_IDLE, CORE_STUCK, CORE_STALLED, CORE_LEFT } why;
	uint32_t rounds;       /* of yields, since something else happened */
	bool patient;          /* activemask has waited for one round of yields */
	bool from_root;
	bool entered;          /* generated code runs, or may */
	sim_seat_t **seats;
	uint32_t seat_count, seats_used; /* that there are; that this run has */
	uint32_t alive;        /* fibers of all seats */
	sim_queue_t grid_waiting;
	uint32_t grid_arrived;
	sim_place_t plain;
	char *plain_stack;
	void (*plain_function)(struct sim_core *core);
	emuv_thread_t thread;  /* of a kernel without fibers */
	emuv_tally_t tallies[EMUV_TALLIES];
	/* What a signal handler saw: fault.c. */
	uint64_t fault_address;
	int fault_write;       /* 1, 0, or -1: not known */
	bool fault_stack;
	sigset_t signals_before;
} sim_core_t;

extern _Thread_local sim_core_t *sim_core_here; /* that this host thread executes with */

static inline sim_seat_t *sim_seat_of(const emuv_thread_t *thread)
{
	return (sim_seat_t *)thread->block;
}
static inline sim_core_t *sim_core_of(const emuv_thread_t *thread)
{
	return sim_seat_of(thread)->core;
}

typedef struct sim_run {
	emuv_launch_t launch;
	const sim_kernel_launch_t *what;
	sim_paging_t *paging;        /* NULL: not tracked */
	uint32_t threads;            /* of a block */
	uint64_t blocks, chunk;
	_Atomic uint64_t next_block;
	volatile uint32_t stop;      /* launch.stop: an EMUV_TRAP_…, or 0 */
	_Atomic int trap;            /* the first one */
	_Atomic uint64_t instructions, bytes; /* read and written */
	struct sim_print *print;     /* print.c */
	struct sim_run *next;        /* of all that run: run.c */
	uint64_t deadline;           /* ns; 0: none */
	struct sim_core *owner;      /* the core of the run's own thread */
	uint64_t begun;              /* ns */
	int helpers_most;            /* how many to ask for; 0: none, or they have been */
	int helpers, helpers_wanted; /* run.c's pool */
	struct sim_run *next_wanted;
} sim_run_t;
/* It has ended early, or will at once: written by whoever ends it, read by every core. */
static inline bool sim_run_stopped(const sim_run_t *run)
{
	return __atomic_load_n(&run->stop, __ATOMIC_RELAXED) != 0;
}

/* ---- run.c ---- */
#define SIM_TRAP_MEMORY 100 /* beside EMUV_TRAP_…: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES */
/* The run ends, for that reason if there was none before: then true. */
bool sim_run_ends(sim_run_t *run, int why);
/* A thread of emuV's own, which takes no signal of the program's. */
bool sim_thread_start(void *(*function)(void *argument), void *argument);

/* ---- core.c ---- */
sim_core_t *sim_core_take(void);
void sim_core_give(sim_core_t *core);
/* A seat for blocks of the run; NULL: no memory. */
sim_seat_t *sim_core_seat(sim_core_t *core, uint32_t index);
/* Local memory of a block that goes in steps: of all its threads at once. */
static inline size_t sim_core_step_bytes(const sim_run_t *run)
{
	return (size_t)run->threads * run->what->kernel->step_bytes;
}
bool sim_core_plain(sim_core_t *core);
/* After a launch that was left in the middle.  Nothing to do but for AddressSanitizer. */
#if SIM_ASAN
void sim_core_clear_stacks(sim_core_t *core);
#else
static inline void sim_core_clear_stacks(sim_core_t *core)
{
	(void)core;
}
#endif
#define PLAIN_STACK_BYTES ((size_t)1 << 20)
/* Of windows and local memory: how many bytes there are from the address on; 0: it is not there. */
uint64_t sim_core_owns(const sim_core_t *core, uint64_t address, uint64_t bytes);
/* Is it in a stack, which can only mean its guard? */
bool sim_core_guards(const sim_core_t *core, uint64_t address);

/* ---- fiber.c ---- */
/* Puts a block on a seat: all of its threads are ready. */
void sim_fibers_start(sim_core_t *core, sim_seat_t *seat, uint64_t number);
/* From the root: runs what is ready until core->why has the reason to come back. */
void sim_fibers_go(sim_core_t *core);
/* The fiber waits in some queue: another goes on. */
void sim_fiber_wait(sim_core_t *core, sim_fiber_t *self);
/* From any stack but the root's: back to it for good. */
void sim_core_leave(sim_core_t *core, int why) __attribute__((noreturn));
/* From the root: calls function(core) on the plain stack; it ends by sim_core_leave, or returns. */
void sim_plain_go(sim_core_t *core, void (*function)(sim_core_t *core));
void sim_yield(emuv_thread_t *thread);
void sim_nobody_waits(emuv_thread_t *thread); /* yield of a kernel without fibers */

/* ---- barrier.c, warp.c ---- */
uint32_t sim_barrier(emuv_thread_t *thread, uint32_t operation, uint32_t id, uint32_t threads,
		     uint32_t predicate);
void sim_grid_sync(emuv_thread_t *thread);
uint64_t sim_warp(emuv_thread_t *thread, uint32_t operation, uint32_t mask, uint64_t value,
		  uint32_t source);
/* The same for a kernel without fibers, which has none of them. */
uint32_t sim_barrier_none(emuv_thread_t *thread, uint32_t operation, uint32_t id, uint32_t threads,
			  uint32_t predicate);
void sim_grid_none(emuv_thread_t *thread);
uint64_t sim_warp_none(emuv_thread_t *thread, uint32_t operation, uint32_t mask, uint64_t value,
		       uint32_t source);
/* A thread has ended: who waited for it? */
void sim_barriers_ended(sim_seat_t *seat, const sim_fiber_t *fiber);
void sim_warp_ended(sim_seat_t *seat, const sim_fiber_t *fiber);
void sim_grid_ended(sim_core_t *core);
/* Nobody runs: lanes at activemask are all that come. */
void sim_warp_converge(sim_core_t *core);

/* ---- access.c ---- */
void *sim_access(emuv_thread_t *thread, uint64_t address, uint32_t bytes, uint32_t rights);
/*
 * Ends the kernel: `why` is its answer if no other thread was first; then the line is
 * said, behind the kernel's name.
 */
void sim_trap(emuv_thread_t *thread, int why, const char *format, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
/* The trap of generated code. */
void sim_trap_plain(emuv_thread_t *thread, int why, uint64_t detail) __attribute__((noreturn));
/* An access that may not be: says which, and traps. */
void sim_trap_access(emuv_thread_t *thread, uint64_t address, uint32_t bytes, int write)
	__attribute__((noreturn));
/*
 * The address in this process of `bytes` that the kernel may read, NULL: none.  *room:
 * how many bytes from there on.
 */
const char *sim_kernel_bytes(emuv_thread_t *thread, uint64_t address, uint64_t bytes, uint64_t *room);
uint64_t sim_kernel_time(emuv_thread_t *thread);

/* ---- fault.c ---- */
/* Around generated code, on the thread that runs it. */
void sim_fault_enter(sim_core_t *core);
void sim_fault_leave(sim_core_t *core);

/* ---- print.c, heap.c ---- */
int32_t sim_print(emuv_thread_t *thread, uint64_t format, uint64_t arguments);
void sim_assert_fail(emuv_thread_t *thread, uint64_t message, uint64_t file, uint32_t line,
		     uint64_t function) __attribute__((noreturn));
void sim_print_end(sim_run_t *run); /* the run is over: its lines are the context's */
uint64_t sim_heap_allocate(emuv_thread_t *thread, uint64_t bytes);
void sim_heap_release(emuv_thread_t *thread, uint64_t address);

#endif
