/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream-ordered allocation: cuMemAllocAsync, cuMemFreeAsync.
 *
 * Memory is there as soon as it was asked for: its address may be used by whatever is
 * ordered after the call, and nothing has to wait for that.  A free takes effect at its
 * place in the stream; until then the range is `leaving`: no call takes its address any
 * more.  Where an allocation finds no room it takes over what frees that come before it
 * in its own stream will give back, and then waits for the frees of other streams.
 */
#include "graph.h"
#include "pool.h"
#include "work.h"

static uint64_t frees_queued;

/* ---- frees, as pieces of work ---- */

typedef struct {
	sim_work_t work;
	uint64_t address, id; /* of the range */
} free_work_t;

static sim_range_t *range_of(const free_work_t *free)
{
	sim_range_t *range = sim_range_find((uintptr_t)free->address);
	return range && range->start == free->address && range->id == free->id ? range : NULL;
}

static CUresult free_run(sim_work_t *work, sim_cost_t *cost)
{
	sim_leftover_t leftover = { 0 };
	(void)cost;
	sim_lock_take();
	sim_range_unused(((free_work_t *)work)->address);
	sim_range_t *range = range_of((free_work_t *)work);
	if (range)
		leftover = sim_memory_free(range);
	sim_lock_drop();
	sim_leftover_drop(leftover);
	return CUDA_SUCCESS;
}

static void free_done(sim_work_t *work)
{
	(void)work;
	frees_queued--;
}

static const sim_work_kind_t free_kind = {
	.name = "free",
	.bytes = sizeof(free_work_t),
	.run = free_run,
	.done = free_done,
};

/* Bytes that are free before anything that is submitted to the stream now. */
static void settle_early(const sim_stream_t *stream)
{
	for (const sim_work_t *work = stream->first; work; work = work->next) {
		sim_range_t *range = work->kind == &free_kind ? range_of((const free_work_t *)work) :
								NULL;
		if (!range || range->settled)
			continue;
		if (range->pool)
			sim_pool_settle(range);
		else
			sim_card_give(range->device, range->bytes);
		range->settled = true;
	}
}

/* ---- allocation ---- */

/* sim_lock held. */
static CUresult pool_allocate(struct sim_pool *pool, size_t bytes, CUdeviceptr *address)
{
	if (bytes > SIM_MAX_BYTES || !sim_pool_take(pool, bytes))
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_range_kind_t kind = SIM_RANGE_DEVICE;
	if (pool->props.allocType == CU_MEM_ALLOCATION_TYPE_MANAGED)
		kind = SIM_RANGE_MANAGED;
	else if (!sim_pool_on_card(pool))
		kind = SIM_RANGE_HOST;
	sim_range_t *range;
	CUresult result = sim_memory_new(kind, bytes, sim_pool_device(pool), &range);
	if (result != CUDA_SUCCESS) {
		sim_pool_put(pool, bytes);
		return result;
	}
	range->pool = pool;
	if (kind == SIM_RANGE_MANAGED && pool->props.location.type != CU_MEM_LOCATION_TYPE_INVALID)
		sim_managed_advise(range, range->start, bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION,
				   pool->props.location);
	*address = range->start;
	return CUDA_SUCCESS;
}

/* A node of the graph; of pools, only memory of a card can be captured. */
static CUresult capture_allocate(sim_stream_t *stream, const struct sim_pool *pool,
				 CUdeviceptr *address, size_t bytes)
{
	sim_work_t *work;
	if (!sim_pool_on_card(pool))
		return CUDA_ERROR_NOT_SUPPORTED;
	CUresult result = sim_graph_alloc_work(stream->object.context, sim_pool_device(pool), bytes,
					       &work, address);
	return result == CUDA_SUCCESS ? sim_stream_submit(stream, work) : result;
}

/* sim_lock held; dropped where it has to wait. */
static CUresult allocate_on(sim_stream_t *stream, CUdeviceptr *address, size_t bytes,
			    CUmemoryPool handle)
{
	sim_context_t *context = stream->object.context;
	struct sim_pool *pool = sim_pool_get(handle);
	if (!pool || pool->imported)
		return CUDA_ERROR_INVALID_VALUE;
	if (stream->capture)
		return capture_allocate(stream, pool, address, bytes);
	CUresult result = pool_allocate(pool, bytes, address);
	if (result != CUDA_ERROR_OUT_OF_MEMORY || !frees_queued)
		return result;
	settle_early(stream);
	result = pool_allocate(pool, bytes, address);
	if (result != CUDA_ERROR_OUT_OF_MEMORY || !frees_queued)
		return result;
	result = sim_context_finish(context);
	pool = sim_pool_get(handle);
	if (result == CUDA_SUCCESS)
		result = pool ? pool_allocate(pool, bytes, address) : CUDA_ERROR_INVALID_VALUE;
	return result;
}

/* From `handle`, or from the current pool of the stream's device where there is none. */
static CUresult allocate(CUdeviceptr *address, size_t bytes, CUmemoryPool handle, bool current,
			 CUstream stream, bool per_thread)
{
	if (!address || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_SUCCESS;
	sim_lock_take();
	sim_stream_t *target = sim_stream_get(stream, per_thread, &result);
	if (target && current) {
		CUmemLocation card = { CU_MEM_LOCATION_TYPE_DEVICE, target->object.context->device };
		result = sim_pool_at(card, CU_MEM_ALLOCATION_TYPE_PINNED, SIM_POOL_CURRENT, &handle);
	}
	if (target && result == CUDA_SUCCESS)
		result = allocate_on(target, address, bytes, handle);
	sim_lock_drop();
	return result;
}

SIM_API(cuMemAllocAsync, CUdeviceptr *dptr, size_t bytes, CUstream stream)
{
	SIM_ENTER(cuMemAllocAsync);
	return allocate(dptr, bytes, NULL, true, stream, false);
}

SIM_API(cuMemAllocAsync_ptsz, CUdeviceptr *dptr, size_t bytes, CUstream stream)
{
	SIM_ENTER(cuMemAllocAsync_ptsz);
	return allocate(dptr, bytes, NULL, true, stream, true);
}

SIM_API(cuMemAllocFromPoolAsync, CUdeviceptr *dptr, size_t bytes, CUmemoryPool pool, CUstream stream)
{
	SIM_ENTER(cuMemAllocFromPoolAsync);
	return allocate(dptr, bytes, pool, false, stream, false);
}

SIM_API(cuMemAllocFromPoolAsync_ptsz, CUdeviceptr *dptr, size_t bytes, CUmemoryPool pool,
	CUstream stream)
{
	SIM_ENTER(cuMemAllocFromPoolAsync_ptsz);
	return allocate(dptr, bytes, pool, false, stream, true);
}

static CUresult capture_free(sim_stream_t *stream, sim_range_t *range)
{
	sim_work_t *work;
	CUresult result = sim_graph_free_work(stream->object.context, range->start, &work);
	return result == CUDA_SUCCESS ? sim_stream_submit(stream, work) : result;
}

/* sim_lock held.  What has to wait for nothing is free at once. */
static CUresult release_on(sim_stream_t *stream, sim_range_t *range, sim_leftover_t *leftover)
{
	if (stream->capture)
		return capture_free(stream, range);
	if (sim_stream_quiet(stream) && !range->pins) {
		*leftover = sim_memory_free(range);
		return CUDA_SUCCESS;
	}
	sim_work_t *work = sim_work_new(&free_kind, stream->object.context);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((free_work_t *)work)->address = range->start;
	((free_work_t *)work)->id = range->id;
	range->leaving = true;
	frees_queued++;
	CUresult result = sim_stream_submit(stream, work);
	if (result != CUDA_SUCCESS) {
		range->leaving = false;
		frees_queued--;
	}
	return result;
}

/* Pool memory of every kind, and what cuMemAlloc made. */
static CUresult release(CUdeviceptr address, CUstream handle, bool per_thread)
{
	CUresult result = CUDA_SUCCESS;
	sim_leftover_t leftover = { 0 };
	sim_lock_take();
	sim_stream_t *stream = sim_stream_get(handle, per_thread, &result);
	sim_range_t *range = stream ? sim_range_find((uintptr_t)address) : NULL;
	bool ours = range && range->start == address && !range->leaving &&
		    (range->pool || (range->kind == SIM_RANGE_DEVICE && !range->import));
	if (ours && range->graph && !stream->capture)
		ours = sim_graph_memory_release(range);
	else if (ours)
		result = release_on(stream, range, &leftover);
	sim_lock_drop();
	if (stream && !ours)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuMemFreeAsync: 0x%llx is not the start "
				"of a live allocation", (unsigned long long)address);
	sim_leftover_drop(leftover);
	return result;
}

SIM_API(cuMemFreeAsync, CUdeviceptr dptr, CUstream stream)
{
	SIM_ENTER(cuMemFreeAsync);
	return release(dptr, stream, false);
}

SIM_API(cuMemFreeAsync_ptsz, CUdeviceptr dptr, CUstream stream)
{
	SIM_ENTER(cuMemFreeAsync_ptsz);
	return release(dptr, stream, true);
}
