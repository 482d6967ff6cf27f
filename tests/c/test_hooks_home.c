// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/hooks_memory.c csrc/shim/hooks_pool.c csrc/shim/hooks_stream.c
// link: csrc/shim/hooks_hints.c csrc/shim/hooks_prefetch_batch.c csrc/shim/hooks_graph.c
// link: csrc/shim/hooks_vmm*.c csrc/shim/hooks_context.c csrc/shim/device_use.c
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/contexts.c
// link: csrc/shim/deferred.c csrc/shim/placement.c csrc/shim/pools.c csrc/shim/overhead.c csrc/shim/hooks_module.c csrc/shim/keep.c csrc/shim/residency.c
// link: csrc/shim/extents.c csrc/shim/host_memory.c csrc/shim/message.c csrc/shim/array_size.c
// link: csrc/common/emuv_segment_control.c csrc/common/emuv_environ.c csrc/common/emuv_segment_file.c
// link: tests/c/fake_driver.c tests/c/fake_memory.c tests/c/fake_vmm.c
// link: tests/c/fake_contexts.c
/*
 * What a program prefetches home while the head that emuV itself promoted may not have
 * arrived: it stays charged, whichever form asks, as the head may come about later.
 */
#include "hooks_test.h"
#include "message.h"

static const CUmemLocation to_host = { CU_MEM_LOCATION_TYPE_HOST, 0 };

static bool on_its_way;
static CUresult query(CUstream stream)
{
	(void)stream;
	return on_its_way ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

static CUresult single(CUdeviceptr address, size_t bytes, CUstream stream)
{
	return hook_cuMemPrefetchAsync(address, bytes, CU_DEVICE_CPU, stream);
}

static CUresult batch(CUdeviceptr address, size_t bytes, CUstream stream)
{
	CUmemLocation location = to_host;
	size_t first = 0;

	return hook_cuMemPrefetchBatchAsync(&address, &bytes, 1, &location, &first, 1, 0, stream);
}

static void home(CUresult (*prefetch)(CUdeviceptr, size_t, CUstream))
{
	CUcontext context;
	CUdeviceptr range;
	CUstream stream;

	start((setup_t){ .vram = MIB(16), .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(256) });
	g_real.cuStreamQuery = query;
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
	CHECK_EQ(g_real.cuStreamCreate(&stream, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&range, MIB(40)), CUDA_SUCCESS);
	CHECK_EQ(books(0).resident, MIB(16));
	on_its_way = true;
	CHECK_EQ(prefetch(range, MIB(40), stream), CUDA_SUCCESS);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, MIB(16));
	on_its_way = false;
	CHECK_EQ(prefetch(range, MIB(40), stream), CUDA_SUCCESS);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, 0);
	CHECK_EQ(hook_cuMemFree_v2(range), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	CHECK_BOOKS(books(0), ((books_t){ 0 }));
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	home(single);
	home(batch);
	return 0;
}
