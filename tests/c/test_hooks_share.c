// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/hooks_memory.c csrc/shim/hooks_pool.c csrc/shim/hooks_graph.c csrc/shim/hooks_stream.c csrc/shim/hooks_share.c
// link: csrc/shim/hooks_host.c csrc/shim/hooks_vmm*.c csrc/shim/hooks_context.c csrc/shim/device_use.c
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/contexts.c
// link: csrc/shim/deferred.c csrc/shim/placement.c csrc/shim/pools.c csrc/shim/overhead.c csrc/shim/hooks_module.c csrc/shim/keep.c csrc/shim/residency.c
// link: csrc/shim/extents.c csrc/shim/host_memory.c csrc/shim/message.c csrc/shim/array_size.c
// link: csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
// link: tests/c/fake_driver.c tests/c/fake_memory.c tests/c/fake_vmm.c tests/c/fake_contexts.c
// link: csrc/common/emuv_environ.c csrc/shim/hooks_hints.c csrc/shim/hooks_prefetch_batch.c
/*
 * Imported and pinned memory: the statistics, where the driver refuses, hands out the
 * same address again, does not tell its size, or forgets; and that nothing of it is ever
 * charged.
 */
#include "hooks_test.h"
#include "message.h"

static CUresult answer;      /* of what gives back, and of exports */
static uint64_t next_address; /* that imports answer */
static uint64_t size;         /* of what lies there; 0: the driver does not say */

static CUresult fake_open(CUdeviceptr *address, CUipcMemHandle handle, unsigned int flags)
{
	(void)handle, (void)flags;
	*address = next_address;
	return answer;
}

static CUresult fake_range(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
	*base = address;
	*bytes = size;
	return size ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult fake_close(CUdeviceptr address)
{
	(void)address;
	return answer;
}

static CUresult fake_external(CUexternalMemory *memory, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *d)
{
	(void)d;
	*memory = (CUexternalMemory)(uintptr_t)next_address;
	return answer;
}

static CUresult fake_destroy(CUexternalMemory memory)
{
	(void)memory;
	return answer;
}

static CUresult fake_pin(void **address, size_t bytes, unsigned int flags)
{
	(void)bytes, (void)flags;
	*address = (void *)(uintptr_t)next_address;
	return answer;
}

static CUresult fake_register(void *address, size_t bytes, unsigned int flags)
{
	(void)address, (void)bytes, (void)flags;
	return answer;
}

static CUresult fake_unpin(void *address)
{
	(void)address;
	return answer;
}

static CUresult fake_export(CUipcMemHandle *handle, CUdeviceptr address)
{
	(void)handle, (void)address;
	return answer;
}

static CUresult fake_import(CUdeviceptr *address, CUmemoryPool pool, CUmemPoolPtrExportData *data)
{
	(void)pool, (void)data;
	*address = next_address;
	return answer;
}

static CUcontext begin(void)
{
	CUcontext context;

	start((setup_t){ .vram = MIB(16), .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(256) });
	g_real.cuIpcOpenMemHandle_v2 = fake_open;
	g_real.cuIpcCloseMemHandle = fake_close;
	g_real.cuIpcGetMemHandle = fake_export;
	g_real.cuMemGetAddressRange_v2 = fake_range;
	g_real.cuImportExternalMemory = fake_external;
	g_real.cuDestroyExternalMemory = fake_destroy;
	g_real.cuMemPoolImportPointer = fake_import;
	g_real.cuMemHostAlloc = fake_pin;
	g_real.cuMemHostRegister_v2 = fake_register;
	g_real.cuMemFreeHost = fake_unpin;
	g_real.cuMemHostUnregister = fake_unpin;
	answer = CUDA_SUCCESS;
	next_address = 0x7000000;
	size = MIB(40);
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
	return context;
}

static uint64_t imported(void)
{
	return emuv_account_segment()->device[0].imported_bytes;
}

static uint64_t pinned(void)
{
	return emuv_account_segment()->device[0].pinned_bytes;
}

static const CUipcMemHandle handle;

static void opened_and_closed(void)
{
	CUcontext context = begin();
	CUdeviceptr address;

	answer = CUDA_ERROR_INVALID_VALUE;
	CHECK_EQ(hook_cuIpcOpenMemHandle_v2(&address, handle, 1), answer);
	CHECK_EQ(imported(), 0);
	answer = CUDA_SUCCESS;
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(hook_cuIpcOpenMemHandle_v2(&address, handle, 1), CUDA_SUCCESS);
		CHECK_EQ(imported(), MIB(40));
	}
	/* Nothing of it is charged: 40 MiB in a vram of 16. */
	CHECK_EQ(books(0).device + books(0).managed + books(0).live, 0);
	/* The driver refuses: as before, whether it would have been the last or not. */
	for (int left = 3; left; left--) {
		answer = CUDA_ERROR_INVALID_VALUE;
		CHECK_EQ(hook_cuIpcCloseMemHandle(address), answer);
		CHECK_EQ(imported(), MIB(40));
		answer = CUDA_SUCCESS;
		CHECK_EQ(hook_cuIpcCloseMemHandle(address), CUDA_SUCCESS);
		CHECK_EQ(imported(), left > 1 ? MIB(40) : 0);
	}
	CHECK_EQ(hook_cuIpcCloseMemHandle(address), CUDA_SUCCESS); /* the driver's affair */
	CHECK_EQ(imported(), 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* Closed in a way that emuV does not see, and the address given out again. */
static void the_same_address_again(void)
{
	CUcontext context = begin();
	CUdeviceptr address;

	CHECK_EQ(hook_cuIpcOpenMemHandle_v2(&address, handle, 1), CUDA_SUCCESS);
	size = MIB(2);
	CHECK_EQ(hook_cuIpcOpenMemHandle_v2(&address, handle, 1), CUDA_SUCCESS);
	CHECK_EQ(imported(), MIB(2));
	size = 0; /* unknown is nothing, not garbage */
	next_address += 0x100000;
	CHECK_EQ(hook_cuIpcOpenMemHandle_v2(&address, handle, 1), CUDA_SUCCESS);
	CHECK_EQ(imported(), MIB(2));
	/* What is left goes with the context. */
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	CHECK_EQ(imported(), 0);
	check_empty();
}

static void of_another_api(void)
{
	CUDA_EXTERNAL_MEMORY_HANDLE_DESC descriptor = { .type = 1, .size = MIB(24) };
	CUcontext context = begin();
	CUexternalMemory memory;

	CHECK_EQ(hook_cuImportExternalMemory(&memory, &descriptor), CUDA_SUCCESS);
	CHECK_EQ(imported(), MIB(24));
	answer = CUDA_ERROR_INVALID_HANDLE;
	CHECK_EQ(hook_cuDestroyExternalMemory(memory), answer);
	CHECK_EQ(imported(), MIB(24));
	CHECK_EQ(hook_cuImportExternalMemory(&memory, &descriptor), answer);
	CHECK_EQ(imported(), MIB(24));
	answer = CUDA_SUCCESS;
	CHECK_EQ(hook_cuDestroyExternalMemory(memory), CUDA_SUCCESS);
	CHECK_EQ(imported(), 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static void host_memory(void)
{
	static char own[4096];
	CUcontext context = begin();
	void *address = NULL;

	answer = CUDA_ERROR_OUT_OF_MEMORY;
	CHECK_EQ(hook_cuMemHostAlloc(&address, 4096, 0), answer);
	CHECK_EQ(hook_cuMemHostRegister_v2(own, sizeof own, 0), answer);
	CHECK_EQ(pinned(), 0);
	answer = CUDA_SUCCESS;
	CHECK_EQ(hook_cuMemHostAlloc(&address, 10000, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemHostRegister_v2(own, sizeof own, 0), CUDA_SUCCESS);
	CHECK_EQ(pinned(), 10000 + sizeof own);
	answer = CUDA_ERROR_INVALID_VALUE;
	CHECK_EQ(hook_cuMemFreeHost(address), answer);
	CHECK_EQ(hook_cuMemHostUnregister(own), answer);
	CHECK_EQ(pinned(), 10000 + sizeof own);
	answer = CUDA_SUCCESS;
	CHECK_EQ(hook_cuMemFreeHost(address), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeHost(address), CUDA_SUCCESS); /* twice counts once */
	CHECK_EQ(pinned(), sizeof own);
	CHECK_EQ(books(0).device + books(0).managed + books(0).live, 0);
	/* Registered twice, where the driver takes it: the second one gives it back. */
	CHECK_EQ(hook_cuMemHostRegister_v2(own, sizeof own, 0), CUDA_SUCCESS);
	answer = CUDA_ERROR_INVALID_VALUE;
	CHECK_EQ(hook_cuMemHostUnregister(own), answer);
	answer = CUDA_SUCCESS;
	CHECK_EQ(hook_cuMemHostUnregister(own), CUDA_SUCCESS);
	CHECK_EQ(pinned(), sizeof own);
	CHECK_EQ(hook_cuMemHostUnregister(own), CUDA_SUCCESS);
	CHECK_EQ(pinned(), 0);
	CHECK_EQ(hook_cuMemHostRegister_v2(own, sizeof own, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	CHECK_EQ(pinned(), 0);
	check_empty();
}

#define MAP_AT UINT64_C(0x10000000)

/* A driver that hands out, for what is imported, the handle that it was exported from. */
static CUresult fake_import_own(CUmemGenericAllocationHandle *made, void *shareable,
				CUmemAllocationHandleType type)
{
	(void)shareable, (void)type;
	return g_real.cuMemRetainAllocationHandle(made, (void *)(uintptr_t)MAP_AT);
}

/* It is charged once, and until the last handle is released. */
static void own_memory_imported(void)
{
	const CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
	};
	CUmemGenericAllocationHandle made, again;
	CUcontext context = begin();

	g_real.cuMemImportFromShareableHandle = fake_import_own;
	CHECK_EQ(hook_cuMemCreate(&made, MIB(8), &prop, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemMap(MAP_AT, MIB(8), 0, made, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemImportFromShareableHandle(&again, NULL, 1), CUDA_SUCCESS);
	CHECK_EQ(again, made);
	CHECK_EQ(hook_cuMemUnmap(MAP_AT, MIB(8)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemRelease(made), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(8));
	CHECK_EQ(imported(), 0);
	CHECK_EQ(hook_cuMemRelease(again), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* Without a context there is no device to count for: the driver's word alone. */
static void without_a_context(void)
{
	CUcontext context = begin(), popped;
	CUdeviceptr address;
	void *pointer;

	CHECK_EQ(g_real.cuCtxPopCurrent_v2(&popped), CUDA_SUCCESS);
	CHECK_EQ(hook_cuIpcOpenMemHandle_v2(&address, handle, 1), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemHostAlloc(&pointer, 4096, 0), CUDA_SUCCESS);
	CHECK_EQ(imported() + pinned(), 0);
	CHECK_EQ(hook_cuIpcCloseMemHandle(address), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeHost(pointer), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* Hints about memory that the books have as of no size end, in the driver's own words. */
static void of_no_known_size(void)
{
	const CUmemLocation to = { CU_MEM_LOCATION_TYPE_DEVICE, 0 };
	CUcontext context = begin();
	CUmemPoolPtrExportData data;
	size_t bytes = 4096, first = 0;
	CUmemLocation location = to;
	CUdeviceptr address;
	CUstream stream;

	size = 0;
	CHECK_EQ(g_real.cuStreamCreate(&stream, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemPoolImportPointer(&address, NULL, &data), CUDA_SUCCESS);
	CHECK_EQ(imported(), 0);
	CHECK_EQ(hook_cuMemPrefetchAsync(address, bytes, 0, stream), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemAdvise(address, bytes, CU_MEM_ADVISE_SET_READ_MOSTLY, 0),
		 CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemPrefetchBatchAsync(&address, &bytes, 1, &location, &first, 1, 0, stream),
		 CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemFreeAsync(address, stream), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(g_real.cuStreamDestroy_v2(stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
}

/* The driver's answer to an export stands, whatever emuV has to say of it. */
static void exports(void)
{
	CUcontext context = begin();
	CUipcMemHandle made;
	CUdeviceptr spilled;

	CHECK_EQ(hook_cuMemAlloc_v2(&spilled, MIB(32)), CUDA_SUCCESS);
	CHECK_EQ(books(0).managed, MIB(32));
	for (int code = 0; code < 3; code++) {
		answer = (CUresult)code;
		CHECK_EQ(hook_cuIpcGetMemHandle(&made, spilled), answer);
	}
	CHECK_EQ(emuv_account_segment()->device[0].calls[EMUV_FN_cuIpcGetMemHandle], 2);
	answer = CUDA_SUCCESS;
	CHECK_EQ(hook_cuMemFree_v2(spilled), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	opened_and_closed();
	the_same_address_again();
	of_another_api();
	host_memory();
	own_memory_imported();
	without_a_context();
	of_no_known_size();
	exports();
	return 0;
}
