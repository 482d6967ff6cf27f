// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/hooks_memory.c csrc/shim/hooks_pool.c csrc/shim/hooks_graph.c csrc/shim/hooks_stream.c csrc/shim/hooks_array.c
// link: csrc/shim/hooks_vmm*.c csrc/shim/hooks_context.c csrc/shim/hooks_query.c csrc/shim/device_use.c
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/contexts.c
// link: csrc/shim/deferred.c csrc/shim/placement.c csrc/shim/pools.c csrc/shim/overhead.c csrc/shim/hooks_module.c csrc/shim/keep.c csrc/shim/residency.c
// link: csrc/shim/extents.c csrc/shim/host_memory.c csrc/shim/message.c csrc/shim/array_size.c
// link: csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
// link: tests/c/fake_driver.c tests/c/fake_memory.c tests/c/fake_vmm.c tests/c/fake_contexts.c
// link: csrc/common/emuv_environ.c
/*
 * Several contexts and devices: memory is charged where it is, and goes with what it
 * belongs to, whichever context is current.
 */
#include "hooks_test.h"
#include "message.h"

static void start_spill(void)
{
	start((setup_t){ .vram = MIB(128), .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(256) });
}

static CUcontext new_context(CUdevice device)
{
	CUcontext context;

	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, device), CUDA_SUCCESS);
	return context;
}

static CUstream new_stream(void)
{
	CUstream stream;

	CHECK_EQ(g_real.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
	return stream;
}

/*
 * A stream of another context: the spill belongs there, and so does the side stream
 * on which its head is promoted, which must not go with the current context.
 */
static void side_stream_lives_in_its_context(void)
{
	CUdeviceptr filler, first, second;
	CUcontext other, here;
	CUstream stream;

	start_spill();
	other = new_context(0);
	stream = new_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(100)), CUDA_SUCCESS);
	here = new_context(0);
	CHECK_EQ(hook_cuMemAllocAsync(&first, MIB(32), stream), CUDA_SUCCESS);
	CHECK_EQ(fake_resident(first), MIB(28));
	CHECK_EQ(hook_cuCtxDestroy_v2(here), CUDA_SUCCESS);
	fake_set_current(other);
	CHECK_EQ(hook_cuMemFree_v2(first), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAllocAsync(&second, MIB(32), stream), CUDA_SUCCESS);
	CHECK_EQ(fake_resident(second), MIB(28)); /* hints still reach the driver */
	CHECK_EQ(hook_cuCtxDestroy_v2(other), CUDA_SUCCESS);
	check_empty();
}

static void devices_have_budgets_of_their_own(void)
{
	CUdeviceptr address, more;
	CUcontext first, second;
	CUstream stream;

	start((setup_t){ .vram = MIB(64), .policy = EMUV_POLICY_CAP, .card = MIB(256) });
	first = new_context(0);
	second = new_context(1);
	stream = new_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(64)), CUDA_SUCCESS);
	CHECK_EQ(books(1).device, MIB(64));
	CHECK_EQ(books(0).device, 0);
	CHECK_EQ(hook_cuMemAlloc_v2(&more, 1), CUDA_ERROR_OUT_OF_MEMORY);
	fake_set_current(first);
	CHECK_EQ(hook_cuMemAlloc_v2(&more, 1), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFree_v2(more), CUDA_SUCCESS);
	/* Stream-ordered memory is where the stream is, whatever is current. */
	CHECK_EQ(hook_cuMemAllocAsync(&more, 1, stream), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(hook_cuMemAlloc_v2(&more, MIB(64)), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(64));
	/* Freed while another device is current: released where it was charged. */
	CHECK_EQ(hook_cuMemFree_v2(address), CUDA_SUCCESS);
	CHECK_EQ(books(1).device, 0);
	CHECK_EQ(books(0).device, MIB(64));
	CHECK_EQ(emuv_account_segment()->device[1].denials, 2);
	CHECK_EQ(hook_cuCtxDestroy_v2(second), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(first), CUDA_SUCCESS);
	check_empty();
}

/*
 * A context's handle is given out again, on another device: nothing remembered of the
 * old one decides where the new one's memory is charged.
 */
static void handles_of_contexts_come_again(void)
{
	CUdeviceptr address;
	CUcontext first, second;

	start_spill();
	first = new_context(1);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(1)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(first), CUDA_SUCCESS);
	second = new_context(0);
	CHECK(first == second);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(2)), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(2));
	CHECK_EQ(books(1).device, 0);
	CHECK_EQ(hook_cuMemFree_v2(address), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(second), CUDA_SUCCESS);
	check_empty();
}

/* A device that cannot page managed memory: vram is all there is, whatever was asked for. */
static void devices_that_cannot_spill(void)
{
	size_t free_bytes, total;
	CUdeviceptr address;
	CUcontext context;

	start_spill();
	emuv_account_card(0, MIB(256), 0, false);
	context = new_context(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(129)), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(hook_cuMemGetInfo_v2(&free_bytes, &total), CUDA_SUCCESS);
	CHECK_EQ(free_bytes, MIB(128));
	CHECK_EQ(total, MIB(128));
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* A pool's memory is charged to the pool's device; a pool in host memory to none. */
static void pools_are_where_they_say(void)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
				 .location = { CU_MEM_LOCATION_TYPE_DEVICE, 1 } };
	CUmemoryPool on_device, on_host;
	CUdeviceptr a, b;
	CUcontext context;
	CUstream stream;

	start_spill();
	context = new_context(0);
	stream = new_stream();
	CHECK_EQ(hook_cuMemPoolCreate(&on_device, &props), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAllocFromPoolAsync(&a, MIB(3), on_device, stream), CUDA_SUCCESS);
	CHECK_EQ(books(1).device, MIB(3));
	CHECK_EQ(books(0).device, 0);
	props.location = (CUmemLocation){ CU_MEM_LOCATION_TYPE_HOST, 0 };
	CHECK_EQ(hook_cuMemPoolCreate(&on_host, &props), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAllocFromPoolAsync(&b, MIB(3), on_host, stream), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, 0);
	CHECK_EQ(hook_cuMemFreeAsync(b, stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeAsync(a, stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemPoolDestroy(on_device), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemPoolDestroy(on_host), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* What the driver keeps of a pool when a context goes is the device's, not the context's. */
static void stream_ordered_memory_outlives_its_context(void)
{
	CUdeviceptr pooled, plain;
	CUcontext keep, context;
	CUstream stream;

	start_spill();
	keep = new_context(0);
	context = new_context(0);
	stream = new_stream();
	CHECK_EQ(hook_cuMemAllocAsync(&pooled, MIB(3), stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&plain, MIB(5)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(3));
	fake_set_current(keep);
	CHECK_EQ(hook_cuMemFree_v2(pooled), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(keep), CUDA_SUCCESS);
	check_empty();
}

/* ---- a thread that is quicker ---- */

static CUcontext quick_context;
static CUdeviceptr quick_address;

static void be_quicker(void)
{
	fake_after_destroy(NULL);
	quick_context = new_context(1);
	CHECK_EQ(hook_cuMemAlloc_v2(&quick_address, MIB(7)), CUDA_SUCCESS);
}

/*
 * Between the driver's end of a context and emuV's, another thread has made one, got
 * the same handle, and allocated in it: that memory is not the old one's.
 */
static void a_new_context_has_the_handle_already(void)
{
	CUdeviceptr address;
	CUcontext old;

	start((setup_t){ .vram = MIB(128), .policy = EMUV_POLICY_CAP, .card = MIB(256),
			 .context = MIB(2) });
	old = new_context(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(4)), CUDA_SUCCESS);
	fake_after_destroy(be_quicker);
	CHECK_EQ(hook_cuCtxDestroy_v2(old), CUDA_SUCCESS);
	CHECK(quick_context == old);
	CHECK_BOOKS(books(0), ((books_t){ 0 }));
	CHECK_BOOKS(books(1), ((books_t){ .device = MIB(7), .overhead = MIB(2), .live = 1 }));
	/* And it is known by what it is. */
	fake_set_current(quick_context);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(1)), CUDA_SUCCESS);
	CHECK_EQ(books(1).device, MIB(8));
	CHECK_EQ(hook_cuCtxDestroy_v2(quick_context), CUDA_SUCCESS);
	check_empty();
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	side_stream_lives_in_its_context();
	devices_have_budgets_of_their_own();
	handles_of_contexts_come_again();
	devices_that_cannot_spill();
	pools_are_where_they_say();
	stream_ordered_memory_outlives_its_context();
	a_new_context_has_the_handle_already();
	return 0;
}
