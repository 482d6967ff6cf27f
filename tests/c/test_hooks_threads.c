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
 * Eight threads allocate and free at random, also what other threads allocated,
 * while a ninth reads the published counters.  The fake driver sees to it that no
 * lock is held in any driver call and that the budget is not exceeded by a byte at
 * any instant; in the end no byte is lost.
 */
#include <pthread.h>

#include "hooks_test.h"
#include "message.h"

#define N_THREADS 8
#define N_STEPS 6000
#define N_SHARED 64
#define VRAM (MIB(96) + 4097)
#define EXTRA (MIB(40) + 1)

static CUcontext context;
static CUstream stream;
/* Addresses that any thread may free. */
static uint64_t shared[N_SHARED];
static bool done;
static uint64_t n_refused, n_granted;

static const CUmemAllocationProp vmm_prop = {
	.type = CU_MEM_ALLOCATION_TYPE_PINNED,
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
};

static void counted(CUresult result)
{
	CHECK(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY);
	__atomic_add_fetch(result ? &n_refused : &n_granted, 1, __ATOMIC_RELAXED);
}

static void free_somehow(uint64_t *random, CUdeviceptr address)
{
	CUresult result = random_below(random, 2) ? hook_cuMemFree_v2(address) :
						    hook_cuMemFreeAsync(address, stream);

	/* What the program itself made managed is freed by cuMemFree only. */
	if (result)
		result = hook_cuMemFree_v2(address);
	CHECK_EQ(result, CUDA_SUCCESS);
}

static void allocate(uint64_t *random)
{
	size_t bytes = 1 + random_below(random, random_below(random, 8) ? MIB(1) : MIB(20)), pitch;
	CUdeviceptr address = 0;
	CUresult result;

	switch (random_below(random, 5)) {
	case 0:
		result = hook_cuMemAllocPitch_v2(&address, &pitch, 1 + bytes % 5000,
						 1 + bytes / 5000, 4);
		break;
	case 1:
		result = hook_cuMemAllocManaged(&address, bytes, CU_MEM_ATTACH_GLOBAL);
		break;
	case 2:
		result = hook_cuMemAllocAsync(&address, bytes, stream);
		break;
	default:
		result = hook_cuMemAlloc_v2(&address, bytes);
	}
	counted(result);
	if (!result) {
		address = __atomic_exchange_n(&shared[random_below(random, N_SHARED)], address,
					      __ATOMIC_ACQ_REL);
		if (address)
			free_somehow(random, address);
	}
}

static void vmm(uint64_t *random, uint64_t at)
{
	const size_t bytes = MIB(2 * (1 + random_below(random, 4)));
	CUmemGenericAllocationHandle handle, again;
	CUresult result = hook_cuMemCreate(&handle, bytes, &vmm_prop, 0);

	counted(result);
	if (result)
		return;
	CHECK_EQ(hook_cuMemMap(at, bytes, 0, handle, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)at), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemUnmap(at, bytes), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemRelease(again), CUDA_SUCCESS);
}

static void array(uint64_t *random)
{
	const CUDA_ARRAY_DESCRIPTOR descriptor = {
		1 + random_below(random, 4096), 1 + random_below(random, 1024),
		CU_AD_FORMAT_UNSIGNED_INT8, 1,
	};
	CUarray made;
	CUresult result = hook_cuArrayCreate_v2(&made, &descriptor);

	counted(result);
	if (!result)
		CHECK_EQ(hook_cuArrayDestroy(made), CUDA_SUCCESS);
}

static void *work(void *argument)
{
	uint64_t random = (uint64_t)(uintptr_t)argument * 77 + 1, address;

	fake_set_current(context);
	for (int step = 0; step < N_STEPS; step++) {
		switch (random_below(&random, 8)) {
		case 0:
			vmm(&random, (uint64_t)(uintptr_t)argument << 32);
			break;
		case 1:
			array(&random);
			break;
		case 2:
		case 3:
			address = __atomic_exchange_n(&shared[random_below(&random, N_SHARED)], 0,
						      __ATOMIC_ACQ_REL);
			if (address)
				free_somehow(&random, address);
			break;
		default:
			allocate(&random);
		}
	}
	return NULL;
}

/* What a controller would see, at every consistent moment. */
static void *watch(void *argument)
{
	const emuv_segment_t *segment = emuv_account_segment();
	const emuv_device_counters_t *c = &segment->device[0];
	uint64_t *consistent = argument;

	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		uint64_t before = __atomic_load_n(&segment->counters_seq, __ATOMIC_ACQUIRE);
		uint64_t device = __atomic_load_n(&c->device_bytes, __ATOMIC_ACQUIRE);
		uint64_t managed = __atomic_load_n(&c->managed_bytes, __ATOMIC_ACQUIRE);
		uint64_t resident = __atomic_load_n(&c->resident_bytes, __ATOMIC_ACQUIRE);

		if (before % 2 || before != __atomic_load_n(&segment->counters_seq, __ATOMIC_ACQUIRE))
			continue;
		++*consistent;
		CHECK(device + resident <= VRAM);
		CHECK(device + managed <= VRAM + EXTRA);
		CHECK(resident <= managed);
	}
	return NULL;
}

static void run(uint32_t policy)
{
	pthread_t threads[N_THREADS], watcher;
	uint64_t consistent = 0, random = 5;

	start((setup_t){ .vram = VRAM, .extra = policy == EMUV_POLICY_SPILL ? EXTRA : 0,
			 .policy = policy, .card = MIB(256) });
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
	CHECK_EQ(g_real.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
	n_refused = n_granted = 0;
	done = false;
	CHECK_EQ(pthread_create(&watcher, NULL, watch, &consistent), 0);
	for (uintptr_t i = 0; i < N_THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
	for (int i = 0; i < N_THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	CHECK_EQ(pthread_join(watcher, NULL), 0);
	/* It came to the budget, and got somewhere. */
	CHECK(n_refused > 100);
	CHECK(n_granted > 1000);
	CHECK(consistent > 0);
	for (int i = 0; i < N_SHARED; i++)
		if (shared[i])
			free_somehow(&random, shared[i]);
	memset(shared, 0, sizeof shared);
	emuv_deferred_reap();
	CHECK_BOOKS(books(0), ((books_t){ 0 }));
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
	CHECK(emuv_account_segment()->device[0].peak_physical_bytes <= VRAM);
	CHECK_EQ(emuv_account_segment()->device[0].denials, n_refused);
	CHECK_EQ(emuv_account_segment()->device[0].uncounted_calls, 0);
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	run(EMUV_POLICY_CAP);
	run(EMUV_POLICY_SPILL);
	return 0;
}
