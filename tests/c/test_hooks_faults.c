// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/hooks_memory.c csrc/shim/hooks_pool.c csrc/shim/hooks_graph.c csrc/shim/hooks_stream.c csrc/shim/hooks_array.c
// link: csrc/shim/hooks_vmm*.c csrc/shim/hooks_context.c csrc/shim/device_use.c
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/contexts.c
// link: csrc/shim/deferred.c csrc/shim/placement.c csrc/shim/pools.c csrc/shim/overhead.c csrc/shim/hooks_module.c csrc/shim/keep.c csrc/shim/residency.c
// link: csrc/shim/extents.c csrc/shim/host_memory.c csrc/shim/message.c csrc/shim/array_size.c
// link: csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
// link: tests/c/fake_driver.c tests/c/fake_memory.c tests/c/fake_vmm.c tests/c/fake_contexts.c
// link: csrc/common/emuv_environ.c
/*
 * Every driver call that a hook makes is made to fail once, in every kind of
 * allocation and free: a hook that answers an error has changed neither the books
 * nor what the driver holds, and can be called again; and in the end all is given
 * back, however it began.
 */
#include "hooks_test.h"
#include "message.h"

static const CUmemAllocationProp vmm_prop = {
	.type = CU_MEM_ALLOCATION_TYPE_PINNED,
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
};
static const CUmemAllocationProp shared_prop = {
	.type = CU_MEM_ALLOCATION_TYPE_PINNED,
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
	.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
	.allocFlags = { .gpuDirectRDMACapable = 1 },
};
static const CUmemPoolProps pool_prop = {
	.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
};
static const CUDA_ARRAY_DESCRIPTOR flat = { 1024, 1024, CU_AD_FORMAT_UNSIGNED_INT8, 1 };
static const CUDA_ARRAY3D_DESCRIPTOR deep = { 1024, 1024, 4, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0 };
static const CUDA_ARRAY3D_DESCRIPTOR mips = { 1024, 1024, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0 };

static CUcontext context;
static CUstream stream;
static CUdeviceptr address, filler;
static CUdeviceptr_v1 address_v1;
static CUarray array;
static CUmipmappedArray mipmap;
static CUmemGenericAllocationHandle handle, retained, first_handle;
static CUmemoryPool pool;
#define MAP_AT UINT64_C(0x10000000)

/* ---- before ---- */

static void with_context(void)
{
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), 0);
}

static void with_stream(void)
{
	with_context();
	CHECK_EQ(g_real.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), 0);
}

/* 100 of 128 MiB taken: 28 MiB of room, and then the host. */
static void nearly_full(void)
{
	with_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(100)), 0);
}

static void with_pool(void)
{
	nearly_full();
	CHECK_EQ(hook_cuMemPoolCreate(&pool, &pool_prop), 0);
}

static void with_device(void)
{
	with_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(4)), 0);
}

static void with_spilled(void)
{
	nearly_full();
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(40)), 0);
	CHECK_EQ(books(0).managed, MIB(40));
}

static void with_device_v1(void)
{
	with_context();
	CHECK_EQ(hook_cuMemAlloc(&address_v1, MIB(4)), 0);
}

static void with_pooled(void)
{
	with_stream();
	CHECK_EQ(hook_cuMemAllocAsync(&address, MIB(4), stream), 0);
}

static void with_array(void)
{
	with_context();
	CHECK_EQ(hook_cuArrayCreate_v2(&array, &flat), 0);
}

static void with_mipmap(void)
{
	with_context();
	CHECK_EQ(hook_cuMipmappedArrayCreate(&mipmap, &mips, 3), 0);
}

static void with_handle(void)
{
	with_context();
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(8), &vmm_prop, 0), 0);
}

static void with_mapping(void)
{
	with_handle();
	CHECK_EQ(hook_cuMemMap(MAP_AT, MIB(8), 0, handle, 0), 0);
}

/* Past the budget: of host memory. */
static void with_spilled_handle(void)
{
	nearly_full();
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(40), &shared_prop, 0), 0);
	CHECK_EQ(books(0).managed, MIB(40));
}

static void with_spilled_mapping(void)
{
	with_spilled_handle();
	CHECK_EQ(hook_cuMemMap(MAP_AT, MIB(24), MIB(8), handle, 0), 0);
	CHECK_EQ(hook_cuMemMap(MAP_AT + MIB(24), MIB(40), 0, handle, 0), 0);
}

/* The card has 256 MiB, of which another process has taken most. */
static void with_full_card(void)
{
	fake_reset(MIB(64), 0);
	with_context();
	CHECK_EQ(hook_cuMemCreate(&first_handle, MIB(60), &vmm_prop, 0), 0);
}

static void with_primary(void)
{
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&context, 0), 0);
	CHECK_EQ(g_real.cuCtxPushCurrent_v2(context), 0);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(4)), 0);
}

static void with_everything(void)
{
	with_spilled();
	CHECK_EQ(hook_cuArrayCreate_v2(&array, &flat) == CUDA_ERROR_OUT_OF_MEMORY, 1);
	CHECK_EQ(hook_cuMemFree_v2(filler), 0);
	CHECK_EQ(hook_cuArrayCreate_v2(&array, &flat), 0);
	fake_hold(true); /* a free that has not come about when its context goes */
	CHECK_EQ(hook_cuMemFreeAsync(address, stream), 0);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(4)), 0);
}

static void nothing(void)
{
}

/* ---- the calls ---- */

static CUresult alloc_small(void) { return hook_cuMemAlloc_v2(&address, MIB(4)); }
static CUresult alloc_large(void) { return hook_cuMemAlloc_v2(&address, MIB(40)); }
static CUresult alloc_v1(void) { return hook_cuMemAlloc(&address_v1, MIB(4)); }

static CUresult alloc_pitch_of(size_t height)
{
	size_t pitch;

	return hook_cuMemAllocPitch_v2(&address, &pitch, 1000, height, 4);
}

static CUresult alloc_pitch(void) { return alloc_pitch_of(1024); }
static CUresult alloc_pitch_large(void) { return alloc_pitch_of(40 * 1024); }

static CUresult alloc_pitch_v1(void)
{
	unsigned int pitch;

	return hook_cuMemAllocPitch(&address_v1, &pitch, 1000, 1024, 4);
}

/* The driver pads more than emuV thought: the rest is booked, or the memory given back. */
static CUresult alloc_pitch_wide(void)
{
	fake_pitch(4096);
	return alloc_pitch_of(1024);
}

static CUresult alloc_managed(void)
{
	return hook_cuMemAllocManaged(&address, MIB(4), CU_MEM_ATTACH_GLOBAL);
}

static CUresult alloc_managed_large(void)
{
	return hook_cuMemAllocManaged(&address, MIB(40), CU_MEM_ATTACH_HOST);
}

static CUresult alloc_async(void) { return hook_cuMemAllocAsync(&address, MIB(4), stream); }

static CUresult alloc_async_large(void)
{
	return hook_cuMemAllocAsync_ptsz(&address, MIB(40), stream);
}

static CUresult alloc_pool(void)
{
	return hook_cuMemAllocFromPoolAsync(&address, MIB(4), pool, stream);
}

static CUresult alloc_pool_large(void)
{
	return hook_cuMemAllocFromPoolAsync_ptsz(&address, MIB(40), pool, stream);
}

static CUresult create_pool(void) { return hook_cuMemPoolCreate(&pool, &pool_prop); }
static CUresult destroy_pool(void) { return hook_cuMemPoolDestroy(pool); }
static CUresult create_vmm(void) { return hook_cuMemCreate(&handle, MIB(8), &vmm_prop, 0); }
static CUresult create_large(void) { return hook_cuMemCreate(&handle, MIB(40), &shared_prop, 0); }

static CUresult create_unshared(void)
{
	fake_host(&(fake_host_t){ .node = true, .granularity = MIB(2),
				  .shared = CUDA_ERROR_NOT_SUPPORTED });
	return create_large();
}

static CUresult create_on_host(void)
{
	fake_host(&(fake_host_t){ .unasked = false, .host = true, .granularity = MIB(2) });
	return create_large();
}

static CUresult unmap_two(void) { return hook_cuMemUnmap(MAP_AT, MIB(64)); }

static CUresult ask_pointer(void)
{
	unsigned int type = 0;
	CUresult result = hook_cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
						     MAP_AT + MIB(30));

	CHECK(result || type == CU_MEMORYTYPE_DEVICE);
	return result;
}

static CUresult ask_properties(void)
{
	CUmemAllocationProp prop = { 0 };
	CUresult result = hook_cuMemGetAllocationPropertiesFromHandle(&prop, handle);

	CHECK(result || prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE);
	return result;
}

static CUresult ask_granularity(void)
{
	size_t granularity;

	return hook_cuMemGetAllocationGranularity(&granularity, &vmm_prop, 0);
}

static CUresult map(void) { return hook_cuMemMap(MAP_AT, MIB(8), 0, handle, 0); }
static CUresult unmap(void) { return hook_cuMemUnmap(MAP_AT, MIB(8)); }
static CUresult release(void) { return hook_cuMemRelease(handle); }

static CUresult retain_handle(void)
{
	return hook_cuMemRetainAllocationHandle(&retained, (void *)(uintptr_t)MAP_AT);
}

static CUresult create_array(void) { return hook_cuArrayCreate_v2(&array, &flat); }
static CUresult create_deep(void) { return hook_cuArray3DCreate_v2(&array, &deep); }
static CUresult create_mipmap(void) { return hook_cuMipmappedArrayCreate(&mipmap, &mips, 3); }
static CUresult destroy_array(void) { return hook_cuArrayDestroy(array); }
static CUresult destroy_mipmap(void) { return hook_cuMipmappedArrayDestroy(mipmap); }
static CUresult free_plain(void) { return hook_cuMemFree_v2(address); }
static CUresult free_v1(void) { return hook_cuMemFree(address_v1); }
static CUresult free_async(void) { return hook_cuMemFreeAsync(address, stream); }
static CUresult create_context(void) { return hook_cuCtxCreate_v2(&context, 0, 0); }
static CUresult destroy_context(void) { return hook_cuCtxDestroy_v2(context); }
static CUresult retain(void) { return hook_cuDevicePrimaryCtxRetain(&context, 0); }
static CUresult primary_release(void) { return hook_cuDevicePrimaryCtxRelease_v2(0); }
static CUresult primary_reset(void) { return hook_cuDevicePrimaryCtxReset_v2(0); }

/* ---- after ---- */

static void drop_pooled(void)
{
	CHECK_EQ(hook_cuMemFreeAsync(address, stream), 0);
}

static void drop_pool(void)
{
	drop_pooled();
	CHECK_EQ(hook_cuMemPoolDestroy(pool), 0);
}

static void drop_empty_pool(void)
{
	CHECK_EQ(hook_cuMemPoolDestroy(pool), 0);
}

static void drop_handle(void)
{
	CHECK_EQ(hook_cuMemRelease(handle), 0);
}

static void drop_both(void)
{
	drop_handle();
	CHECK_EQ(books(0).device, MIB(60));
	CHECK_EQ(hook_cuMemRelease(first_handle), 0);
}

static void drop_spilled_mapping(void)
{
	drop_handle();
	CHECK_EQ(books(0).managed, MIB(40)); /* its mappings hold it */
	CHECK_EQ(unmap_two(), 0);
	CHECK_EQ(books(0).managed, 0);
}

static void drop_spilled_retained(void)
{
	CHECK_EQ(retained, handle);
	CHECK_EQ(hook_cuMemRelease(retained), 0);
	drop_spilled_mapping();
}

static void drop_spilled_released(void)
{
	CHECK_EQ(books(0).managed, MIB(40));
	CHECK_EQ(unmap_two(), 0);
}

static void drop_mapping(void)
{
	CHECK_EQ(hook_cuMemRelease(handle), 0);
	CHECK_EQ(books(0).device, MIB(8)); /* the mapping still holds it */
	CHECK_EQ(hook_cuMemUnmap(MAP_AT, MIB(8)), 0);
}

static void drop_spilled_map(void)
{
	drop_handle();
	CHECK_EQ(books(0).managed, MIB(40));
	CHECK_EQ(hook_cuMemUnmap(MAP_AT, MIB(8)), 0);
}

static void drop_retained(void)
{
	CHECK_EQ(hook_cuMemRelease(retained), 0);
	drop_mapping();
}

static void drop_released(void)
{
	CHECK_EQ(books(0).device, MIB(8));
	CHECK_EQ(hook_cuMemUnmap(MAP_AT, MIB(8)), 0);
}

static void drop_primary(void)
{
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), 0);
	context = NULL;
}

static void gone(void)
{
	context = NULL;
}

static const struct {
	const char *name;
	void (*before)(void);
	CUresult (*act)(void);
	void (*after)(void);
} scenarios[] = {
	{ "cuMemAlloc", with_context, alloc_small, nothing },
	{ "cuMemAlloc, spilled with a head", nearly_full, alloc_large, nothing },
	{ "cuMemAlloc v1", with_context, alloc_v1, nothing },
	{ "cuMemAllocPitch", with_context, alloc_pitch, nothing },
	{ "cuMemAllocPitch, spilled", nearly_full, alloc_pitch_large, nothing },
	{ "cuMemAllocPitch v1", with_context, alloc_pitch_v1, nothing },
	{ "cuMemAllocPitch, padded more", with_context, alloc_pitch_wide, nothing },
	{ "cuMemAllocManaged", with_context, alloc_managed, nothing },
	{ "cuMemAllocManaged, past vram", nearly_full, alloc_managed_large, nothing },
	{ "cuMemAllocAsync", with_stream, alloc_async, drop_pooled },
	{ "cuMemAllocAsync, spilled", nearly_full, alloc_async_large, drop_pooled },
	{ "cuMemAllocFromPoolAsync", with_pool, alloc_pool, drop_pool },
	{ "cuMemAllocFromPoolAsync, spilled", with_pool, alloc_pool_large, drop_pool },
	{ "cuMemPoolCreate", with_context, create_pool, drop_empty_pool },
	{ "cuMemPoolDestroy", with_pool, destroy_pool, nothing },
	{ "cuMemCreate", with_context, create_vmm, drop_handle },
	{ "cuMemCreate, spilled", nearly_full, create_large, drop_handle },
	{ "cuMemCreate, spilled and not to be shared", nearly_full, create_unshared, drop_handle },
	{ "cuMemCreate, spilled to the host", nearly_full, create_on_host, drop_handle },
	{ "cuMemCreate, card full", with_full_card, create_large, drop_both },
	{ "cuMemMap, spilled", with_spilled_handle, map, drop_spilled_map },
	{ "cuMemUnmap, spilled, of two", with_spilled_mapping, unmap_two, drop_handle },
	{ "cuMemRelease, spilled and mapped", with_spilled_mapping, release, drop_spilled_released },
	{ "cuMemRelease, spilled", with_spilled_handle, release, nothing },
	{ "cuMemRetainAllocationHandle, spilled", with_spilled_mapping, retain_handle,
	  drop_spilled_retained },
	{ "cuPointerGetAttribute, spilled", with_spilled_mapping, ask_pointer, drop_spilled_mapping },
	{ "cuMemGetAllocationPropertiesFromHandle, spilled", with_spilled_handle, ask_properties,
	  drop_handle },
	{ "cuMemGetAllocationGranularity", with_context, ask_granularity, nothing },
	{ "cuMemMap", with_handle, map, drop_mapping },
	{ "cuMemUnmap", with_mapping, unmap, drop_handle },
	{ "cuMemRelease, mapped", with_mapping, release, drop_released },
	{ "cuMemRelease", with_handle, release, nothing },
	{ "cuMemRetainAllocationHandle", with_mapping, retain_handle, drop_retained },
	{ "cuArrayCreate", with_context, create_array, nothing },
	{ "cuArray3DCreate", with_context, create_deep, nothing },
	{ "cuMipmappedArrayCreate", with_context, create_mipmap, nothing },
	{ "cuArrayDestroy", with_array, destroy_array, nothing },
	{ "cuMipmappedArrayDestroy", with_mipmap, destroy_mipmap, nothing },
	{ "cuMemFree", with_device, free_plain, nothing },
	{ "cuMemFree, spilled", with_spilled, free_plain, nothing },
	{ "cuMemFree v1", with_device_v1, free_v1, nothing },
	{ "cuMemFreeAsync", with_pooled, free_async, nothing },
	{ "cuMemFreeAsync of cuMemAlloc", with_device, free_async, nothing },
	{ "cuMemFreeAsync, spilled", with_spilled, free_async, nothing },
	{ "cuMemFree of cuMemAllocAsync", with_pooled, free_plain, nothing },
	{ "cuCtxCreate", nothing, create_context, nothing },
	{ "cuCtxDestroy", with_everything, destroy_context, gone },
	{ "cuDevicePrimaryCtxRetain", nothing, retain, drop_primary },
	{ "cuDevicePrimaryCtxRelease", with_primary, primary_release, gone },
	{ "cuDevicePrimaryCtxReset", with_primary, primary_reset, gone },
};

/* Streams are not memory: a side stream may be made early and stays with its context. */
static void check_driver_as(const fake_state_t *wanted)
{
	fake_state_t state;

	fake_state(&state);
	for (int kind = FAKE_DEVICE; kind < FAKE_KINDS; kind++)
		if (kind != FAKE_STREAM)
			CHECK_EQ(state.objects[kind], wanted->objects[kind]);
	CHECK_EQ(state.physical[0], wanted->physical[0]);
	CHECK_EQ(state.managed[0], wanted->managed[0]);
}

/*
 * After some failures nothing can be said of the books: where the driver does not even
 * say which context is current, emuV lets the call pass and counts that it did; the
 * thread's context stack may be off by one; and whether the primary context is gone
 * cannot be known (it stays charged).
 */
static bool struck_hopeless(uint64_t uncounted_before)
{
	return emuv_account_segment()->device[0].uncounted_calls > uncounted_before ||
	       strcmp(fake_struck(), "pop") == 0 || strcmp(fake_struck(), "primary_state") == 0;
}

/* True while there was an n-th call to fail. */
static bool run(size_t which, uint64_t n, CUresult code, uint32_t policy, uint32_t allocation)
{
	fake_state_t driver_before, driver_after;
	uint64_t uncounted;
	books_t before;
	CUresult result;
	bool struck;

	start((setup_t){ .vram = MIB(128), .extra = MIB(64), .policy = policy,
			 .allocation = allocation, .card = MIB(256), .context = MIB(0) });
	fake_limit(0, UINT64_MAX); /* for calls that pass uncounted; see struck_blind */
	context = NULL;
	scenarios[which].before();
	before = books(0);
	fake_state(&driver_before);
	uncounted = emuv_account_segment()->device[0].uncounted_calls;
	fake_fail(n, code);
	result = scenarios[which].act();
	struck = fake_struck() != NULL;
	if (struck && struck_hopeless(uncounted)) {
		emuv_deferred_gone(emuv_deferred_take(context)); /* leave no list behind */
		return true;
	}
	fake_fail(0, 0);
	fake_state(&driver_after);
	CHECK(driver_after.physical[0] <= MIB(128));
	if (result) {
		if (!struck)
			fprintf(stderr, "%s: error %d\n", scenarios[which].name, result);
		CHECK(struck);
		CHECK_BOOKS(books(0), before);
		check_driver_as(&driver_before);
		CHECK_EQ(scenarios[which].act(), CUDA_SUCCESS);
	}
	fake_hold(false);
	scenarios[which].after();
	emuv_deferred_reap();
	if (context)
		CHECK_EQ(hook_cuCtxDestroy_v2(context), 0);
	check_empty();
	return struck;
}

int main(void)
{
	static const CUresult codes[] = { CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_LAUNCH_FAILED };
	uint64_t faults = 0;

	alarm(50);
	emuv_message_quiet(1);
	for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
		for (uint32_t allocation = 0; allocation <= EMUV_ALLOCATION_EAGER; allocation++)
			for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
				uint64_t n = 1;

				while (run(i, n, codes[c], EMUV_POLICY_SPILL, allocation))
					n++;
				CHECK(n > 1); /* the driver was called at all */
				faults += n - 1;
			}
	CHECK(faults > 300);
	return 0;
}
