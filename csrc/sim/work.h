/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Work: what a stream does in its order, on the executor's threads.
 *
 * A piece of work is made and checked by the call that submits it and runs later,
 * without sim_lock, when all that comes before it has run.  Graphs keep pieces as
 * templates and submit copies, so a piece is plain bytes: what it owns is behind
 * `copied` and `drop`.
 */
#ifndef EMUV_SIM_WORK_H
#define EMUV_SIM_WORK_H

#include "paging.h"
#include "sim.h"

typedef struct sim_work sim_work_t;

/* What sort of work; one constant for each. */
typedef struct {
	const char *name;  /* "kernel", "copy": for reports and messages */
	size_t bytes;      /* of the structure that starts with sim_work_t */
	int node_type;     /* CUgraphNodeType */
	bool apart;        /* on an executor's thread only: calls the program, or SIM_AGAIN */
	/*
	 * Does it.  Without sim_lock, on any thread.  What it costs is added to *cost.
	 * Another result than CUDA_SUCCESS is the context's from then on (sticky).
	 * NULL: a place in the stream, reached when all before it is done.
	 */
	CUresult (*run)(sim_work_t *work, sim_cost_t *cost);
	/* All of these may be NULL, and are called with sim_lock held. */
	/* A copy was made by memcpy: take references, duplicate buffers.  False: no memory. */
	bool (*copied)(sim_work_t *work);
	/* Gives back what it owns; the piece itself is freed by the caller. */
	void (*drop)(sim_work_t *work);
	/* It takes its place in work->stream; sim_work_after may be called once. */
	void (*enter)(sim_work_t *work);
	/* It is done, or was passed over because of an error; work->start is the moment. */
	void (*done)(sim_work_t *work);
} sim_work_kind_t;

/* What run() answers to be called again a little later: what it waits for is not yet so. */
#define SIM_AGAIN ((CUresult)-1)

struct sim_work {
	const sim_work_kind_t *kind;
	sim_context_t *context;
	/* order.c's own from here */
	struct sim_work *next;
	sim_stream_t *stream;
	uint64_t number;         /* counts pieces of all streams */
	uint64_t start;          /* virtual ns before which it does not start */
	unsigned int unmet;      /* pieces of other streams that come first */
	struct sim_edge *after;  /* pieces that this one comes before */
};

/* A zeroed piece of kind->bytes.  NULL: no memory. */
sim_work_t *sim_work_new(const sim_work_kind_t *kind, sim_context_t *context);
sim_work_t *sim_work_copy(const sim_work_t *work);
/* Drops one that was not submitted. */
void sim_work_drop(sim_work_t *work);

/*
 * sim_lock held.  Takes the piece over, whatever the result: puts it at the end of the
 * stream, or into the stream's capture.
 */
CUresult sim_stream_submit(sim_stream_t *stream, sim_work_t *work);
/* The same, and waits until it is done (not where it was captured). */
CUresult sim_stream_run(sim_stream_t *stream, sim_work_t *work);
/* sim_lock held, from kind->enter: `work` waits for `earlier`, a piece that is queued. */
void sim_work_after(sim_work_t *work, sim_work_t *earlier);
/* sim_lock held.  Would work that is submitted to the stream now find nothing to wait for? */
bool sim_stream_quiet(const sim_stream_t *stream);

/*
 * sim_lock held (dropped while waiting).  All work of the context that was submitted
 * before is done: what cuMemFree, cuModuleUnload and the like begin with.  Returns the
 * context's sticky error, if it has one.
 */
CUresult sim_context_finish(sim_context_t *context);

/* The same for the calling thread's context, and where it has none for every context. */
CUresult sim_current_finish(void);

/*
 * The context can do nothing more: every later call in it answers `code`, until it is
 * destroyed or reset.  Takes sim_lock.  (A result of run() does the same.)
 */
void sim_context_poison(sim_context_t *context, CUresult code);

#endif
