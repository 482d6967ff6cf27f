/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The contexts emuV has seen: their device, what they cost, and the side stream
 * on which emuV prefetches.  Calls the driver, never with its lock held.
 */
#ifndef EMUV_CONTEXTS_H
#define EMUV_CONTEXTS_H

#include "account.h"
#include "cuda_abi.h"

typedef struct {
	CUcontext context;
	CUdevice device;
	bool primary;
	uint64_t overhead;
	CUstream side;
	unsigned long long id; /* emuv_contexts_id */
} emuv_context_t;

/*
 * Enters a context with what it is charged.  A known one is left alone; but one whose
 * overhead could not be measured takes the one it is given, which is then owed.
 */
enum emuv_contexts_added {
	EMUV_CONTEXT_ADDED, EMUV_CONTEXT_KNOWN, EMUV_CONTEXT_OWES, EMUV_CONTEXTS_FULL
};
enum emuv_contexts_added emuv_contexts_add(const emuv_context_t *context);
/*
 * Takes a context out; false: not known.  Its side stream goes with it, and its own
 * bytes are for the caller to uncharge.
 */
bool emuv_contexts_remove(CUcontext context, emuv_context_t *removed);
/*
 * What tells a context from an older one with its handle; 0: the driver does not say
 * (before CUDA 12.0), or there is none.
 */
unsigned long long emuv_contexts_id(CUcontext context);
/* Notes the id of a known context.  True: it is another's, the context was made anew. */
bool emuv_contexts_anew(CUcontext context, unsigned long long id);
/* Is any context of the device known? */
bool emuv_contexts_any(CUdevice device);
/* The primary context of a device, NULL if not seen. */
CUcontext emuv_contexts_primary(CUdevice device);

/*
 * Where the calling thread's current context is, for a green one its primary; false: none,
 * or no device of emuV's.
 */
bool emuv_where_current(emuv_where_t *where);
/* Where work in `stream` happens; the NULL and per-thread streams are the current context's. */
bool emuv_where_stream(CUstream stream, emuv_where_t *where);

/* The side stream of a context, made on first use; NULL where none could be made. */
CUstream emuv_contexts_side_stream(CUcontext context);
/*
 * Around what may destroy a context that stays in the table: its side stream out of
 * everybody's reach, and back where it lives on.  False: it has another by now.
 */
CUstream emuv_contexts_take_side(CUcontext context);
bool emuv_contexts_give_side(CUcontext context, CUstream side);

/* A forked child has no contexts. */
void emuv_contexts_fork_child(void);

#endif
