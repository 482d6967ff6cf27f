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
 * arrived: it stays charged, whichever form asks, as the head may come about later.  And
 * what else stays where it is.
 */
#include <pthread.h>

#include "hooks_test.h"
#include "message.h"

static const CUmemLocation to_host = { CU_MEM_LOCATION_TYPE_HOST, 0 };
static const CUmemLocation to_device = { CU_MEM_LOCATION_TYPE_DEVICE, 0 };

static CUcontext context;
static CUstream stream;
static CUdeviceptr range;

static void begin(uint64_t vram)
{
	start((setup_t){ .vram = vram, .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = vram });
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
	CHECK_EQ(g_real.cuStreamCreate(&stream, 0), CUDA_SUCCESS);
}

static void end(void)
{
	emuv_deferred_reap();
	CHECK_EQ(hook_cuMemFree_v2(range), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static bool on_its_way;
static CUresult query(CUstream asked_of)
{
	(void)asked_of;
	return on_its_way ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

static CUresult single(CUdeviceptr address, size_t bytes, CUstream in)
{
	return hook_cuMemPrefetchAsync(address, bytes, CU_DEVICE_CPU, in);
}

static CUresult batch(CUdeviceptr address, size_t bytes, CUstream in)
{
	CUmemLocation location = to_host;
	size_t first = 0;

	return hook_cuMemPrefetchBatchAsync(&address, &bytes, 1, &location, &first, 1, 0, in);
}

static void home(CUresult (*prefetch)(CUdeviceptr, size_t, CUstream))
{
	begin(MIB(16));
	g_real.cuStreamQuery = query;
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
	end();
}

/* ---- and what else ---- */

/* A range of which nothing is on the device, where all is free. */
static void with_room(void)
{
	CUdeviceptr filler;

	begin(MIB(16));
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(16)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&range, MIB(40)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFree_v2(filler), CUDA_SUCCESS);
}

/* The fake driver has no default streams. */
static CUresult in_a_stream(CUdeviceptr address, size_t bytes, CUdevice device, CUstream in)
{
	return g_real.cuMemPrefetchAsync(address, bytes, device, in ? in : stream);
}

static void *bring_in_own_default_stream(void *current)
{
	fake_set_current(current);
	CHECK_EQ(hook_cuMemPrefetchAsync_ptsz(range, MIB(8), 0, NULL), 0);
	return NULL;
}

/* Each thread's default stream is its own, and has its own time. */
static void default_streams_of_two_threads(void)
{
	pthread_t thread;

	with_room();
	g_real.cuMemPrefetchAsync_ptsz = in_a_stream;
	fake_hold(true);
	CHECK_EQ(pthread_create(&thread, NULL, bring_in_own_default_stream, context), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(hook_cuMemPrefetchAsync_ptsz(range, MIB(8), CU_DEVICE_CPU, NULL), 0);
	fake_hold(false);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, MIB(8)); /* not known to have left after it came */
	end();
}

static CUdevice asked_for;
static size_t asked_bytes;

static CUresult asked(CUdeviceptr address, size_t bytes, CUdevice device, CUstream in)
{
	(void)address, (void)in;
	asked_for = device;
	asked_bytes = bytes;
	return CUDA_SUCCESS;
}

/* The program's own range stays on the device that it is charged to, all of it. */
static void to_another_device(void)
{
	begin(MIB(32));
	CHECK_EQ(hook_cuMemAllocManaged(&range, MIB(20), CU_MEM_ATTACH_GLOBAL), 0);
	g_real.cuMemPrefetchAsync = asked;
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(20), 1, stream), 0);
	CHECK_EQ(asked_for, 0);
	CHECK_EQ(asked_bytes, 1);
	end();
}

static const size_t *asked_first;

static CUresult refused(CUdeviceptr *addresses, size_t *sizes, size_t count,
			CUmemLocation *locations, size_t *first, size_t n_locations,
			unsigned long long flags, CUstream in)
{
	(void)addresses, (void)sizes, (void)count, (void)locations, (void)n_locations;
	(void)flags, (void)in;
	asked_first = first;
	return CUDA_ERROR_INVALID_VALUE;
}

/* The driver is the one to refuse it, and has it as the program wrote it. */
static void a_batch_in_no_order(void)
{
	CUmemLocation locations[] = { to_device, to_device, to_host };
	size_t first[] = { 0, 2, 1 }, sizes[] = { MIB(2), MIB(2), MIB(2) };
	CUdeviceptr addresses[3];

	with_room();
	g_real.cuMemPrefetchBatchAsync = refused;
	for (int i = 0; i < 3; i++)
		addresses[i] = range + MIB(2 * i);
	for (first[2] = 1; first[2] <= 2; first[2]++) {
		asked_first = NULL;
		CHECK_EQ(hook_cuMemPrefetchBatchAsync(addresses, sizes, 3, locations, first, 3, 0,
						      stream), CUDA_ERROR_INVALID_VALUE);
		CHECK(asked_first == first);
	}
	end();
}

/* An element that goes around the end of all addresses brings nothing, and charges nothing. */
static void a_batch_without_end(void)
{
	CUmemLocation location = to_device;
	size_t first = 0, bytes;

	with_room();
	bytes = UINT64_MAX - range + MIB(2);
	CHECK_EQ(hook_cuMemPrefetchBatchAsync(&range, &bytes, 1, &location, &first, 1, 0, stream),
		 CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(books(0).resident, 0);
	CHECK_EQ(emuv_account_segment()->device[0].clipped_bytes, 0);
	end();
}

/* What is over stays where it is when the host has no room: vram was lowered, not the program. */
static void own_that_the_host_cannot_back(void)
{
	const uint64_t huge = UINT64_C(1) << 44;

	emuv_control_t *control;
	CUdeviceptr more;

	begin(huge);
	control = &emuv_account_segment()->control;
	CHECK_EQ(hook_cuMemAllocManaged(&range, huge, CU_MEM_ATTACH_GLOBAL), 0);
	control->generation++;
	control->budget[0].vram_bytes = MIB(2);
	control->generation++;
	CHECK_EQ(hook_cuMemAlloc_v2(&more, MIB(1000)), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(books(0).device, huge);
	CHECK_EQ(books(0).managed, 0);
	end();
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	home(single);
	home(batch);
	default_streams_of_two_threads();
	to_another_device();
	a_batch_in_no_order();
	a_batch_without_end();
	own_that_the_host_cannot_back();
	return 0;
}
