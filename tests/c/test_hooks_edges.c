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
 * What hooks do in the corners: handles that outlive one another, streams that are
 * behind, budgets that change, calls that are wrong.
 */
#include <pthread.h>

#include "hooks_test.h"
#include "message.h"

static const CUmemAllocationProp vmm_prop = {
	.type = CU_MEM_ALLOCATION_TYPE_PINNED,
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
};

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

/* What a controller does to a process that has no segment file. */
static void set_vram(CUdevice device, uint64_t vram)
{
	emuv_control_t *control = &emuv_account_segment()->control;

	__atomic_add_fetch(&control->generation, 1, __ATOMIC_RELEASE);
	control->budget[device].vram_bytes = vram;
	__atomic_add_fetch(&control->generation, 1, __ATOMIC_RELEASE);
}

/* ---- virtual memory ---- */

/* A map that the driver refuses leaves the mapping that was there on the books. */
static void refused_map_over_a_mapping(void)
{
	CUmemGenericAllocationHandle first, second;
	CUcontext context;

	start_spill();
	context = new_context(0);
	CHECK_EQ(hook_cuMemCreate(&first, MIB(8), &vmm_prop, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemCreate(&second, MIB(8), &vmm_prop, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemMap(0x10000000, MIB(8), 0, first, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemMap(0x10000000, MIB(8), 0, second, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemRelease(second), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(8));
	CHECK_EQ(hook_cuMemRelease(first), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(8));
	CHECK_EQ(hook_cuMemUnmap(0x10000000, MIB(8)), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* One handle mapped in two places, and both unmapped by one call. */
static void mappings_side_by_side(void)
{
	CUmemGenericAllocationHandle handle, other;
	CUcontext context;

	start_spill();
	context = new_context(0);
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(8), &vmm_prop, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemCreate(&other, MIB(4), &vmm_prop, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemMap(MIB(16), MIB(8), 0, handle, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemMap(MIB(24), MIB(4), 0, other, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemMap(MIB(28), MIB(8), 0, handle, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemRelease(other), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(12));
	CHECK_EQ(hook_cuMemUnmap(MIB(16), MIB(12)), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(8)); /* `handle` is still mapped once */
	CHECK_EQ(hook_cuMemUnmap(MIB(28), MIB(8)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* Virtual memory belongs to the device: it outlives every context. */
static void vmm_outlives_its_context(void)
{
	CUmemGenericAllocationHandle handle;
	CUcontext context;

	start_spill();
	context = new_context(0);
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(8), &vmm_prop, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(8));
	CHECK_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
	check_empty();
}

/* ---- frees that wait for a stream ---- */

typedef struct {
	CUcontext context;
	CUstream stream;
	CUdeviceptr spilled;
} waiting_t;

/* Beside a plain allocation one that is spilled, and freed in a stream that stands still. */
static waiting_t waiting_free(uint64_t plain, uint64_t spilled)
{
	CUdeviceptr filler;
	waiting_t w;

	start_spill();
	w.context = new_context(0);
	w.stream = new_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, plain), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAllocAsync(&w.spilled, spilled, w.stream), CUDA_SUCCESS);
	CHECK_EQ(books(0).managed, spilled);
	fake_hold(true);
	CHECK_EQ(hook_cuMemFreeAsync(w.spilled, w.stream), CUDA_SUCCESS);
	return w;
}

/*
 * cuMemCreate needs no current context, but a free that has come about does: it
 * is brought to an end in its own.
 */
static void waiting_free_ends_without_a_context(void)
{
	CUmemGenericAllocationHandle handle;
	waiting_t w = waiting_free(MIB(120), MIB(40));
	fake_state_t state;

	CHECK_EQ(books(0).managed, MIB(40)); /* charged until it has come about */
	fake_state(&state);
	CHECK_EQ(state.managed[0], MIB(40));
	fake_hold(false);
	fake_set_current(NULL);
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(2), &vmm_prop, 0), CUDA_SUCCESS);
	fake_state(&state);
	CHECK_EQ(state.managed[0], 0);
	CHECK_EQ(state.objects[FAKE_EVENT], 0);
	CHECK_EQ(books(0).managed, 0);
	CHECK_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(w.context), CUDA_SUCCESS);
	check_empty();
}

static CUresult never_called(CUdeviceptr address, CUstream stream)
{
	(void)address, (void)stream;
	CHECK(!"the driver is not asked to free what waits to be freed");
	return CUDA_SUCCESS;
}

static void a_waiting_free_is_not_freed_again(void)
{
	waiting_t w = waiting_free(MIB(120), MIB(40));

	g_real.cuMemFreeAsync = never_called;
	CHECK_EQ(hook_cuMemFreeAsync(w.spilled, w.stream), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(books(0).managed, MIB(40));
	fake_hold(false);
	CHECK_EQ(hook_cuCtxDestroy_v2(w.context), CUDA_SUCCESS);
	check_empty();
}

static void *release_later(void *argument)
{
	const uint64_t until = *(const uint64_t *)argument;

	/* The other thread asks again and again whether its event has come to pass. */
	while (fake_calls() < until)
		usleep(200);
	fake_hold(false);
	return NULL;
}

/* Full but for a free that is under way: the allocation waits for it. */
static void allocation_waits_for_a_free(void)
{
	waiting_t w = waiting_free(MIB(128), MIB(64));
	CUdeviceptr wanted;
	pthread_t other;
	uint64_t until;

	until = fake_calls() + 12;
	CHECK_EQ(pthread_create(&other, NULL, release_later, &until), 0);
	CHECK_EQ(hook_cuMemAlloc_v2(&wanted, MIB(64)), CUDA_SUCCESS);
	CHECK_EQ(pthread_join(other, NULL), 0);
	CHECK_EQ(books(0).managed, MIB(64));
	CHECK_EQ(emuv_account_segment()->device[0].denials, 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(w.context), CUDA_SUCCESS);
	check_empty();
}

/* A destroyed context takes its waiting frees with it, and no other context's. */
static void waiting_free_goes_with_its_context(void)
{
	CUdeviceptr filler, first, second;
	CUcontext a, b;
	CUstream stream;

	start_spill();
	a = new_context(0);
	b = new_context(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(128)), CUDA_SUCCESS);
	stream = new_stream();
	CHECK_EQ(hook_cuMemAllocAsync(&first, MIB(20), stream), CUDA_SUCCESS);
	fake_hold(true);
	CHECK_EQ(hook_cuMemFreeAsync(first, stream), CUDA_SUCCESS);
	fake_set_current(a);
	stream = new_stream();
	CHECK_EQ(hook_cuMemAllocAsync(&second, MIB(30), stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeAsync(second, stream), CUDA_SUCCESS);
	CHECK_EQ(books(0).managed, MIB(50));
	CHECK_EQ(hook_cuCtxDestroy_v2(b), CUDA_SUCCESS);
	CHECK_EQ(books(0).managed, MIB(30));
	CHECK_EQ(books(0).device, 0);
	fake_hold(false);
	emuv_deferred_reap();
	CHECK_EQ(books(0).managed, 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(a), CUDA_SUCCESS);
	check_empty();
}

/* ---- budgets ---- */

static void context_that_does_not_fit(void)
{
	CUcontext context = NULL;

	start((setup_t){ .vram = MIB(100), .policy = EMUV_POLICY_CAP, .card = MIB(256),
			 .context = MIB(101) });
	fake_limit(0, UINT64_MAX); /* it is measured by making it */
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK(context == NULL);
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&context, 0), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK(context == NULL);
	check_empty();
}

static void context_is_charged(void)
{
	CUdeviceptr address;
	CUcontext context, again;

	start((setup_t){ .vram = MIB(100), .policy = EMUV_POLICY_CAP, .card = MIB(256),
			 .context = MIB(30) });
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&again, 0), CUDA_SUCCESS);
	CHECK_EQ(books(0).overhead, MIB(30)); /* once */
	fake_set_current(context);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(70) + 1), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(70)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(70));
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	check_empty();
}

static CUdeviceptr heap;

static CUresult limit_takes(int limit, size_t value)
{
	(void)limit;
	return g_real.cuMemAlloc_v2(&heap, value);
}

/* What the driver takes for a heap at once is charged at once. */
static void heaps_are_charged(void)
{
	CUdeviceptr address;
	CUcontext context;

	start((setup_t){ .vram = MIB(100), .policy = EMUV_POLICY_CAP, .card = MIB(256) });
	g_real.cuCtxSetLimit = limit_takes;
	context = new_context(0);
	CHECK_EQ(hook_cuCtxSetLimit(2, MIB(30)), CUDA_SUCCESS);
	CHECK_EQ(books(0).overhead, MIB(30));
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(70) + 1), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(70)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static CUresult gl(CUcontext *context) { return hook_cuGLCtxCreate(context, 0, 0); }
static CUresult gl_v2(CUcontext *context) { return hook_cuGLCtxCreate_v2(context, 0, 0); }
static CUresult vdpau(CUcontext *context) { return hook_cuVDPAUCtxCreate(context, 0, 0, 1, NULL); }
static CUresult vdpau_v2(CUcontext *context)
{
	return hook_cuVDPAUCtxCreate_v2(context, 0, 0, 1, NULL);
}

/* Those for OpenGL and VDPAU cost what others do, and fit or not as others. */
static void contexts_of_interop(void)
{
	static CUresult (*const makers[])(CUcontext *) = { gl, gl_v2, vdpau, vdpau_v2 };

	for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
		CUcontext context = NULL, second = NULL;

		start((setup_t){ .vram = MIB(100), .policy = EMUV_POLICY_CAP, .card = MIB(256),
				 .context = MIB(60) });
		fake_limit(0, UINT64_MAX); /* the second is measured by making it */
		CHECK_EQ(makers[i](&context), CUDA_SUCCESS);
		CHECK_EQ(books(0).overhead, MIB(60));
		CHECK_EQ(makers[i](&second), CUDA_ERROR_OUT_OF_MEMORY);
		CHECK(second == NULL);
		CHECK_EQ(books(0).overhead, MIB(60));
		CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
		check_empty();
	}
}

/* The card is full although the budget is not: spilled, with no head, and said so. */
static void card_full(void)
{
	CUdeviceptr a, b;
	CUcontext context;

	start((setup_t){ .vram = MIB(128), .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(40) });
	emuv_account_card(0, MIB(256), 0, true); /* others hold the rest of it */
	context = new_context(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&a, MIB(30)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&b, MIB(30)), CUDA_SUCCESS);
	CHECK_EQ(books(0).managed, MIB(30));
	CHECK_EQ(books(0).resident, 0);
	CHECK_EQ(emuv_account_segment()->device[0].driver_oom_spills, 1);
	CHECK_EQ(hook_cuMemFree_v2(b), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* vram is lowered under two resident heads: whole blocks go back to the host, no more. */
static void heads_are_demoted(void)
{
	CUdeviceptr filler, a, b, small;
	CUcontext context;

	start_spill();
	context = new_context(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(100)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&a, MIB(32)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFree_v2(filler), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(80)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&b, MIB(40)), CUDA_SUCCESS);
	CHECK_EQ(fake_resident(a), MIB(28));
	CHECK_EQ(fake_resident(b), MIB(20));
	CHECK_EQ(books(0).resident, MIB(48));

	set_vram(0, MIB(107)); /* 21 MiB too many: 11 blocks */
	CHECK_EQ(hook_cuMemAlloc_v2(&small, 1000), CUDA_SUCCESS);
	CHECK_EQ(books(0).resident, MIB(26));
	CHECK_EQ(fake_resident(a) + fake_resident(b), MIB(26));
	/* The block that was rounded up to makes room for the small one on the device. */
	CHECK_EQ(books(0).device, MIB(80) + 1000);
	CHECK_EQ(emuv_account_segment()->device[0].prefetch_host_bytes, MIB(22));

	/* Below what cannot move: all heads go, the program is not failed. */
	set_vram(0, MIB(10));
	CHECK_EQ(hook_cuMemAlloc_v2(&small, 1000), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(books(0).resident, 0);
	CHECK_EQ(fake_resident(a) + fake_resident(b), 0);
	CHECK_EQ(hook_cuMemFree_v2(filler), CUDA_SUCCESS);

	/* Raised again: the next one has room. */
	fake_limit(0, MIB(200));
	set_vram(0, MIB(200));
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(150)), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(150) + 1000);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* free is never negative and never more than can be had. */
static void reports_after_a_cut(void)
{
	size_t free_bytes = 1, total = 1;
	unsigned int free_v1 = 1, total_v1 = 1;
	CUdeviceptr address;
	CUcontext context;

	start((setup_t){ .vram = MIB(100), .policy = EMUV_POLICY_CAP, .card = MIB(256) });
	context = new_context(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(90)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemGetInfo_v2(&free_bytes, &total), CUDA_SUCCESS);
	CHECK_EQ(free_bytes, MIB(10));
	CHECK_EQ(total, MIB(100));
	set_vram(0, MIB(50));
	CHECK_EQ(hook_cuMemGetInfo_v2(&free_bytes, NULL), CUDA_SUCCESS);
	CHECK_EQ(free_bytes, 0);
	CHECK_EQ(hook_cuMemGetInfo_v2(NULL, &total), CUDA_SUCCESS);
	CHECK_EQ(total, MIB(50));
	CHECK_EQ(hook_cuMemGetInfo_v2(NULL, NULL), CUDA_SUCCESS);
	set_vram(0, UINT64_C(6) << 30);
	CHECK_EQ(hook_cuMemGetInfo(&free_v1, &total_v1), CUDA_SUCCESS);
	CHECK_EQ(total_v1, MIB(256)); /* the card is the limit */
	CHECK_EQ(free_v1, MIB(166));
	CHECK_EQ(hook_cuMemGetInfo(NULL, NULL), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDeviceTotalMem_v2(&total, 99), CUDA_ERROR_INVALID_DEVICE);
	CHECK_EQ(hook_cuDeviceTotalMem_v2(&total, -1), CUDA_ERROR_INVALID_DEVICE);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* ---- calls that are wrong, or that must not be turned ---- */

static void wrong_calls(void)
{
	CUdeviceptr address;
	CUcontext context;
	CUresult result;
	books_t before;

	start_spill();
	context = new_context(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(1)), CUDA_SUCCESS);
	before = books(0);
	CHECK_EQ(hook_cuMemAlloc_v2(NULL, MIB(1)), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemFree_v2(12345), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemFree_v2(0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemRelease(12345), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemUnmap(MIB(64), MIB(2)), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemUnmap(0, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuArrayDestroy((CUarray)12345), CUDA_ERROR_INVALID_HANDLE);
	CHECK_BOOKS(books(0), before);
	CHECK_EQ(hook_cuMemFree_v2(address), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFree_v2(address), CUDA_ERROR_INVALID_VALUE); /* twice */
	/* With no context it is the driver that says so. */
	fake_set_current(NULL);
	result = hook_cuMemAlloc_v2(&address, MIB(1));
	CHECK_EQ(result, CUDA_ERROR_INVALID_CONTEXT);
	CHECK_EQ(books(0).device, 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* In a graph an allocation is a node: it cannot become managed memory. */
static void captured_streams(void)
{
	CUdeviceptr filler, address;
	CUcontext context;
	CUstream stream;

	start_spill();
	context = new_context(0);
	stream = new_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(120)), CUDA_SUCCESS);
	fake_capture(true);
	/* A node, whatever its size: what it takes is counted when the graph is launched. */
	CHECK_EQ(hook_cuMemAllocAsync(&address, MIB(900), stream), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(120));
	CHECK_EQ(books(0).managed, 0);
	CHECK_EQ(hook_cuMemFreeAsync(address, stream), CUDA_SUCCESS);
	fake_capture(false);
	CHECK_EQ(hook_cuMemAllocAsync(&address, MIB(9), stream), CUDA_SUCCESS);
	CHECK_EQ(books(0).managed, MIB(9));
	/* And a spilled range is not freed by a node either. */
	fake_capture(true);
	CHECK_EQ(hook_cuMemFreeAsync(address, stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	CHECK_EQ(books(0).managed, MIB(9));
	fake_capture(false);
	CHECK_EQ(hook_cuMemFreeAsync(address, stream), CUDA_SUCCESS);
	emuv_deferred_reap();
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* The driver pads rows more than emuV reckons: what it really took is charged. */
static void wide_pitch(void)
{
	CUdeviceptr address;
	CUcontext context;
	size_t pitch;

	start_spill();
	context = new_context(0);
	fake_pitch(4096);
	CHECK_EQ(hook_cuMemAllocPitch_v2(&address, &pitch, 1000, 1000, 4), CUDA_SUCCESS);
	CHECK_EQ(pitch, 4096);
	CHECK_EQ(books(0).device, 4096 * 1000);
	fake_pitch(64); /* where it pads less, the charge errs on the safe side */
	CHECK_EQ(hook_cuMemFree_v2(address), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAllocPitch_v2(&address, &pitch, 1030, 1000, 4), CUDA_SUCCESS);
	CHECK_EQ(pitch, 1088);
	CHECK(books(0).device >= pitch * 1000);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	refused_map_over_a_mapping();
	mappings_side_by_side();
	vmm_outlives_its_context();
	waiting_free_ends_without_a_context();
	a_waiting_free_is_not_freed_again();
	allocation_waits_for_a_free();
	waiting_free_goes_with_its_context();
	context_that_does_not_fit();
	context_is_charged();
	contexts_of_interop();
	heaps_are_charged();
	card_full();
	heads_are_demoted();
	reports_after_a_cut();
	wrong_calls();
	captured_streams();
	wide_pitch();
	return 0;
}
