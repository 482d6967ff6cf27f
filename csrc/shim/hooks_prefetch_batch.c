/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Batches of prefetches: each element is treated as hooks_hints.c treats a prefetch, and
 * what may pass goes to the driver in one call, all of it or nothing.
 */
#include <stdlib.h>

#include "contexts.h"
#include "deferred.h"
#include "hints.h"
#include "hooks.h"

typedef CUresult batch_call_t(CUdeviceptr *addresses, size_t *sizes, size_t count,
			      CUmemLocation *locations, size_t *first, size_t n_locations,
			      unsigned long long flags, CUstream stream);

typedef struct {
	enum emuv_function function;
	batch_call_t *real;
	bool per_thread;
	unsigned long long flags;
	CUstream stream;
} form_t;

typedef struct {
	CUdeviceptr *addresses;
	size_t *sizes;
	size_t count;
	CUmemLocation *locations; /* locations[k] from element first[k] on */
	size_t *first;
	size_t n_locations;
} batch_t;

/* A spilled piece on its way. */
typedef struct {
	emuv_hinted_t found;
	CUdeviceptr address;
	uint64_t version;
	bool to_device;
	bool may_leave; /* the head of it that emuV sent to the device cannot come after */
	emuv_move_t move;
} spilled_t;

typedef struct {
	batch_t out; /* each element with a location of its own */
	size_t room; /* of out's arrays */
	spilled_t *spilled;
	size_t n_spilled, spilled_room;
	CUdeviceptr kept; /* some of what was clipped; 0: nothing was */
	uint64_t clipped[EMUV_MAX_DEVICES];
	bool differs; /* from what the program asked for */
	bool no_memory;
} plan_t;

static bool well_formed(const batch_t *in)
{
	if (!in->addresses || !in->sizes || !in->count || !in->locations || !in->first ||
	    !in->n_locations || in->n_locations > in->count || in->first[0])
		return false;
	for (size_t k = 1; k < in->n_locations; k++)
		if (in->first[k] <= in->first[k - 1] || in->first[k] >= in->count)
			return false;
	return true;
}

/* ---- the plan ---- */

static bool grow(void *array, size_t *room, size_t count, size_t each)
{
	size_t wanted = count < 16 ? 32 : 2 * count;
	void *more;

	if (count < *room)
		return true;
	more = reallocarray(*(void **)array, wanted, each);
	if (!more)
		return false;
	*(void **)array = more;
	*room = wanted;
	return true;
}

static void add(plan_t *plan, CUdeviceptr address, size_t bytes, CUmemLocation to)
{
	batch_t *out = &plan->out;
	size_t rooms[] = { plan->room, plan->room, plan->room, plan->room };

	if (!grow(&out->addresses, &rooms[0], out->count, sizeof *out->addresses) ||
	    !grow(&out->sizes, &rooms[1], out->count, sizeof *out->sizes) ||
	    !grow(&out->locations, &rooms[2], out->count, sizeof *out->locations) ||
	    !grow(&out->first, &rooms[3], out->count, sizeof *out->first)) {
		plan->no_memory = true;
		return;
	}
	plan->room = rooms[0];
	out->addresses[out->count] = address;
	out->sizes[out->count] = bytes;
	out->locations[out->count] = to;
	out->first[out->count] = out->count;
	out->count++;
}

static void clip(plan_t *plan, CUdevice device, CUdeviceptr address, uint64_t bytes)
{
	plan->differs = true;
	plan->kept = address;
	plan->clipped[device] += bytes;
}

static void plan_spilled(plan_t *plan, const emuv_hinted_t *found, CUdeviceptr address,
			 CUmemLocation to, uint64_t owner)
{
	spilled_t *s;

	if (!grow(&plan->spilled, &plan->spilled_room, plan->n_spilled, sizeof *plan->spilled)) {
		plan->no_memory = true;
		return;
	}
	s = &plan->spilled[plan->n_spilled];
	*s = (spilled_t){ .found = *found, .address = address,
			  .to_device = to.type == CU_MEM_LOCATION_TYPE_DEVICE };
	if (!s->to_device) {
		s->version = emuv_account_version(&found->range);
		s->may_leave = found->range.resident && emuv_hints_head_arrived(&found->range);
		plan->n_spilled++;
		add(plan, address, found->bytes, to);
		return;
	}
	plan->differs = true;
	if (!emuv_account_arrive(&found->range, address, found->bytes, owner, &s->move)) {
		clip(plan, found->range.device, address, found->bytes);
		return;
	}
	plan->n_spilled++;
	for (unsigned int i = 0; i < s->move.n_runs; i++)
		add(plan, s->move.runs[i].address, s->move.runs[i].bytes, to);
	if (s->move.clipped)
		clip(plan, found->range.device, address, s->move.clipped);
}

static void plan_element(plan_t *plan, CUdeviceptr address, uint64_t bytes, CUmemLocation to,
			 uint64_t owner)
{
	while (bytes) {
		emuv_hinted_t found = emuv_hints_look(address, bytes, to);

		if (found.kind == EMUV_HINTED_PASS) {
			add(plan, address, found.bytes, to);
		} else if (found.kind == EMUV_HINTED_SPILLED) {
			plan_spilled(plan, &found, address, to, owner);
		} else {
			/* What nobody knows stays, but the driver is asked about all of it. */
			clip(plan, to.id, address, found.bytes);
			if (!found.range.key)
				add(plan, address, found.bytes, found.keep);
			else if (found.keep.type == CU_MEM_LOCATION_TYPE_DEVICE)
				add(plan, address, 1, found.keep);
		}
		address += found.bytes;
		bytes -= found.bytes;
	}
}

/* ---- and what comes of it ---- */

static void settle(const form_t *form, plan_t *plan, emuv_deferred_t *ready, CUresult result,
		   uint64_t owner)
{
	emuv_move_t *moves = calloc(plan->n_spilled ? plan->n_spilled : 1, sizeof *moves);
	size_t n_moves = 0;

	for (size_t i = 0; i < plan->n_spilled; i++) {
		spilled_t *s = &plan->spilled[i];
		bool under_way;

		if (s->to_device) {
			under_way = !result && s->move.n_runs;
			emuv_account_arrived(&s->move, under_way ? s->move.n_runs : 0);
		} else {
			under_way = !result && moves && s->may_leave &&
				    emuv_account_leave(&s->found.range, s->address, s->found.bytes,
						       owner, s->version, &s->move);
		}
		if (under_way && moves)
			moves[n_moves++] = s->move;
		else if (under_way)
			emuv_account_settled(&s->move, EMUV_MOVE_LOST);
	}
	if (n_moves)
		emuv_deferred_moved(ready, moves, n_moves, form->stream, form->per_thread);
	else
		emuv_deferred_not_moved(ready);
	free(moves);
	for (int i = 0; !result && i < EMUV_MAX_DEVICES; i++)
		if (plan->clipped[i])
			emuv_account_clipped(i, "a batch of prefetches", plan->clipped[i]);
}

static CUresult batch(const form_t *form, const batch_t *in)
{
	CUmemLocation host = { CU_MEM_LOCATION_TYPE_HOST, 0 };
	size_t zero = 0;
	emuv_deferred_t *ready;
	plan_t plan = { 0 };
	emuv_where_t where;
	CUresult result;
	uint64_t owner;

	if (!well_formed(in)) /* the driver refuses it */
		return form->real(in->addresses, in->sizes, in->count, in->locations, in->first,
				  in->n_locations, form->flags, form->stream);
	emuv_deferred_reap_some(EMUV_HINTS_REAP);
	/* A stream that is none is refused; where there is no event, all goes to the host. */
	if (!emuv_where_stream(form->stream, &where) ||
	    !(ready = emuv_deferred_ready(where.context)))
		return form->real(in->addresses, in->sizes, in->count, &host, &zero, 1,
				  form->flags, form->stream);
	emuv_account_call(where.device, (int)form->function);
	owner = emuv_hints_owner(&where, form->stream, form->per_thread);
	for (size_t i = 0, k = 0; i < in->count && !plan.no_memory; i++) {
		while (k + 1 < in->n_locations && in->first[k + 1] <= i)
			k++;
		if (!in->addresses[i] || !in->sizes[i])
			add(&plan, in->addresses[i], in->sizes[i], in->locations[k]);
		else
			plan_element(&plan, in->addresses[i], in->sizes[i], in->locations[k], owner);
	}
	if (!plan.out.count && plan.kept)
		add(&plan, plan.kept, 1, host);
	if (plan.no_memory)
		result = CUDA_ERROR_OUT_OF_MEMORY;
	else if (!plan.differs)
		result = form->real(in->addresses, in->sizes, in->count, in->locations, in->first,
				    in->n_locations, form->flags, form->stream);
	else if (!plan.out.count) /* other threads are bringing all of it */
		result = CUDA_SUCCESS;
	else
		result = form->real(plan.out.addresses, plan.out.sizes, plan.out.count,
				    plan.out.locations, plan.out.first, plan.out.count, form->flags,
				    form->stream);
	settle(form, &plan, ready, result, owner);
	free(plan.out.addresses);
	free(plan.out.sizes);
	free(plan.out.locations);
	free(plan.out.first);
	free(plan.spilled);
	return result;
}

#define BATCH(name, thread)                                                                   \
	CUresult hook_##name(CUdeviceptr *addresses, size_t *sizes, size_t count,             \
			     CUmemLocation *locations, size_t *first, size_t n_locations,     \
			     unsigned long long flags, CUstream stream)                       \
	{                                                                                     \
		const form_t form = { EMUV_FN_##name, g_real.name, thread, flags, stream };   \
		const batch_t in = { addresses, sizes, count, locations, first, n_locations }; \
									                      \
		return batch(&form, &in);                                                     \
	}

BATCH(cuMemPrefetchBatchAsync, false)
BATCH(cuMemPrefetchBatchAsync_ptsz, true)
BATCH(cuMemDiscardAndPrefetchBatchAsync, false)
BATCH(cuMemDiscardAndPrefetchBatchAsync_ptsz, true)
