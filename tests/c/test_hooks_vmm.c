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
 * Handles past the budget, over drivers that have host memory of various kinds:
 * where they go, what is charged for how long, what the program is told of them.
 */
#include <sys/mman.h>

static void *may_map(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
#define mmap may_map
#include "../../csrc/shim/ledger.c"
#undef mmap

#include "hooks_test.h"
#include "message.h"

#define AT UINT64_C(0x10000000)
#define ASKED(...) (CUmemAllocationProp){ \
	.type = CU_MEM_ALLOCATION_TYPE_PINNED, \
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 }, __VA_ARGS__ }

static const CUmemAllocationProp plain = ASKED(.requestedHandleTypes = 0);
/* As PyTorch's expandable segments ask. */
static const CUmemAllocationProp torch = ASKED(
	.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
	.allocFlags = { .gpuDirectRDMACapable = 1 });
static const CUmemAllocationProp fabric = ASKED(.requestedHandleTypes = CU_MEM_HANDLE_TYPE_FABRIC);

static CUmemGenericAllocationHandle filler;

/* vram 128 of which 100 MiB are taken, and 64 MiB beyond it. */
static void nearly_full(const fake_host_t *host)
{
	start((setup_t){ .vram = MIB(128), .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(256) });
	if (host)
		fake_host(host);
	CHECK_EQ(hook_cuMemCreate(&filler, MIB(100), &plain, 0), 0);
}

static void end(void)
{
	CHECK_EQ(hook_cuMemRelease(filler), 0);
	check_empty();
}

static emuv_device_counters_t counters(void)
{
	return emuv_account_segment()->device[0];
}

static CUmemAllocationProp properties(CUmemGenericAllocationHandle handle)
{
	CUmemAllocationProp prop = { 0 };

	CHECK_EQ(hook_cuMemGetAllocationPropertiesFromHandle(&prop, handle), 0);
	return prop;
}

/* ---- where they go ---- */

static void past_the_budget_whole(void)
{
	CUmemGenericAllocationHandle spilled, more;
	fake_state_t state;

	nearly_full(NULL);
	CHECK_EQ(hook_cuMemCreate(&spilled, MIB(40), &torch, 0), 0);
	/* 28 MiB of room, and none of it is used: a handle is in one place. */
	CHECK_BOOKS(books(0), ((books_t){ MIB(100), MIB(40), 0, 0, 2 }));
	fake_state(&state);
	CHECK_EQ(state.physical[0], MIB(100));
	CHECK_EQ(state.managed[0], MIB(40));
	CHECK_EQ(counters().spills, 1);
	CHECK_EQ(counters().spilled_bytes, MIB(40));
	/* What fits still goes to the device. */
	CHECK_EQ(hook_cuMemCreate(&more, MIB(28), &torch, 0), 0);
	CHECK_EQ(books(0).device, MIB(128));
	CHECK_EQ(hook_cuMemRelease(more), 0);
	/* 192 - 140 are left in all. */
	CHECK_EQ(hook_cuMemCreate(&more, MIB(54), &torch, 0), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(counters().denials, 1);
	CHECK_EQ(hook_cuMemCreate(&more, MIB(52), &torch, 0), 0);
	CHECK_EQ(hook_cuMemRelease(more), 0);
	CHECK_EQ(hook_cuMemRelease(spilled), 0);
	CHECK_EQ(hook_cuMemRelease(spilled), CUDA_ERROR_INVALID_VALUE);
	end();
}

/* Another process has the card: 64 MiB of it are there. */
static void card_full(void)
{
	CUmemGenericAllocationHandle first, second;

	start((setup_t){ .vram = MIB(128), .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(64) });
	CHECK_EQ(hook_cuMemCreate(&first, MIB(40), &torch, 0), 0);
	CHECK_EQ(hook_cuMemCreate(&second, MIB(40), &torch, 0), 0);
	CHECK_BOOKS(books(0), ((books_t){ MIB(40), MIB(40), 0, 0, 2 }));
	CHECK_EQ(counters().driver_oom_spills, 1);
	CHECK_EQ(hook_cuMemRelease(first), 0);
	CHECK_EQ(hook_cuMemRelease(second), 0);
	check_empty();
}

static void without_a_virtual(void)
{
	CUmemGenericAllocationHandle handle;

	start((setup_t){ .vram = MIB(128), .extra = MIB(64), .policy = EMUV_POLICY_CAP,
			 .card = MIB(256) });
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(130), &torch, 0), CUDA_ERROR_OUT_OF_MEMORY);
	check_empty();
}

/* A driver, what is asked of it past the budget, and what comes of it. */
static const struct {
	const char *name;
	fake_host_t host;
	const CUmemAllocationProp *prop;
	uint64_t bytes;
	CUresult result;
	unsigned int types; /* that the handle ends up with */
} drivers[] = {
	{ "a node", { .node = true, .node_id = 3, .granularity = MIB(2) }, &torch, MIB(40), 0, 1 },
	{ "no NUMA", { .node = true, .node_id = -1, .granularity = MIB(2) }, &torch, MIB(40), 0, 1 },
	{ "before 12.9", { .unasked = true, .node = true, .node_id = 1, .granularity = MIB(2) },
	  &torch, MIB(40), 0, 1 },
	{ "before 12.2", { .unasked = true, .granularity = MIB(2) }, &torch, MIB(40),
	  CUDA_ERROR_OUT_OF_MEMORY, 0 },
	{ "nothing", { .granularity = MIB(2) }, &torch, MIB(40), CUDA_ERROR_OUT_OF_MEMORY, 0 },
	{ "the host", { .host = true, .granularity = MIB(2) }, &torch, MIB(40), 0, 0 },
	{ "the host, plain", { .host = true, .granularity = MIB(2) }, &plain, MIB(40), 0, 0 },
	{ "the host, fabric", { .host = true, .granularity = MIB(2) }, &fabric, MIB(40),
	  CUDA_ERROR_OUT_OF_MEMORY, 0 },
	{ "not shared", { .node = true, .granularity = MIB(2), .shared = CUDA_ERROR_NOT_SUPPORTED },
	  &torch, MIB(40), 0, 0 },
	/* PyTorch tries this first, and takes the answer for the driver's. */
	{ "no fabric", { .node = true, .granularity = MIB(2), .shared = CUDA_ERROR_NOT_PERMITTED },
	  &fabric, MIB(40), CUDA_ERROR_NOT_PERMITTED, 0 },
	{ "fabric", { .node = true, .granularity = MIB(2) }, &fabric, MIB(40), 0, 8 },
	{ "small pages", { .node = true, .granularity = 4096 }, &torch, MIB(40), 0, 1 },
	{ "large pages", { .node = true, .granularity = MIB(16) }, &torch, MIB(48), 0, 1 },
	{ "large pages, no multiple", { .node = true, .granularity = MIB(16) }, &torch, MIB(40),
	  CUDA_ERROR_OUT_OF_MEMORY, 0 },
};

static void every_driver(void)
{
	for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
		CUmemGenericAllocationHandle handle;
		books_t before;
		CUresult result;

		nearly_full(&drivers[i].host);
		before = books(0);
		result = hook_cuMemCreate(&handle, drivers[i].bytes, drivers[i].prop, 0);
		if (result != drivers[i].result)
			fprintf(stderr, "%s: %d\n", drivers[i].name, result);
		CHECK_EQ(result, drivers[i].result);
		if (!result) {
			CHECK_EQ(properties(handle).location.type, CU_MEM_LOCATION_TYPE_DEVICE);
			CHECK_EQ(properties(handle).location.id, 0);
			CHECK_EQ(properties(handle).requestedHandleTypes, drivers[i].types);
			CHECK_EQ(hook_cuMemRelease(handle), 0);
		} else {
			CHECK_EQ(counters().denials, result == CUDA_ERROR_OUT_OF_MEMORY);
		}
		CHECK_BOOKS(books(0), before);
		end();
	}
}

static void what_stays_on_the_device(void)
{
	const CUmemAllocationProp tiles = ASKED(.allocFlags = { .usage = 1 });
	const CUmemAllocationProp squeezed = ASKED(.allocFlags = { .compressionType = 1 });
	CUmemGenericAllocationHandle handle;

	nearly_full(NULL);
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(40), &tiles, 0), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(20), &tiles, 0), 0);
	CHECK_EQ(books(0).device, MIB(120));
	CHECK_EQ(hook_cuMemRelease(handle), 0);
	/* A hint: the handle's properties say what came of it. */
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(40), &squeezed, 0), 0);
	CHECK_EQ(properties(handle).allocFlags.compressionType, 0);
	CHECK_EQ(hook_cuMemRelease(handle), 0);
	end();
}

/* What a driver answers in a bad moment is not remembered. */
static void asked_again(void)
{
	CUmemGenericAllocationHandle handle;
	uint64_t calls;

	start((setup_t){ .vram = MIB(4), .extra = MIB(64), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(256) });
	for (uint64_t n = 1;; n++) {
		CUresult result;

		emuv_account_set_vmm_home(0, 0);
		fake_fail(n, CUDA_ERROR_LAUNCH_FAILED);
		result = hook_cuMemCreate(&handle, MIB(8), &torch, 0);
		if (!fake_struck()) {
			CHECK_EQ(result, 0);
			break;
		}
		CHECK(result == CUDA_ERROR_OUT_OF_MEMORY || result == CUDA_ERROR_LAUNCH_FAILED ||
		      !result);
		if (!result)
			CHECK_EQ(hook_cuMemRelease(handle), 0);
	}
	fake_fail(0, 0);
	CHECK_EQ(hook_cuMemRelease(handle), 0);
	/* From then on nothing is asked. */
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(8), &torch, 0), 0);
	CHECK_EQ(hook_cuMemRelease(handle), 0);
	calls = fake_calls();
	CHECK_EQ(hook_cuMemCreate(&handle, MIB(8), &torch, 0), 0);
	CHECK_EQ(fake_calls() - calls, 2); /* the current context, and the handle */
	CHECK_EQ(hook_cuMemRelease(handle), 0);
	check_empty();
}

/* ---- how long they are charged ---- */

static void mappings_hold_it(void)
{
	CUmemGenericAllocationHandle spilled, device, again;

	nearly_full(NULL);
	CHECK_EQ(hook_cuMemCreate(&spilled, MIB(40), &torch, 0), 0);
	CHECK_EQ(hook_cuMemCreate(&device, MIB(8), &torch, 0), 0);
	/* Twice, once in part, with the device's own between. */
	CHECK_EQ(hook_cuMemMap(AT, MIB(40), 0, spilled, 0), 0);
	CHECK_EQ(hook_cuMemMap(AT + MIB(40), MIB(8), 0, device, 0), 0);
	CHECK_EQ(hook_cuMemMap(AT + MIB(48), MIB(16), MIB(8), spilled, 0), 0);
	CHECK_EQ(hook_cuMemRelease(spilled), 0);
	CHECK_EQ(hook_cuMemRelease(device), 0);
	CHECK_BOOKS(books(0), ((books_t){ MIB(108), MIB(40), 0, 0, 3 }));
	CHECK_EQ(hook_cuMemUnmap(AT, MIB(40)), 0);
	CHECK_EQ(books(0).managed, MIB(40));
	CHECK_EQ(hook_cuMemRetainAllocationHandle(&again, (void *)(AT + MIB(63))), 0);
	CHECK_EQ(again, spilled);
	CHECK_EQ(properties(again).location.type, CU_MEM_LOCATION_TYPE_DEVICE);
	CHECK_EQ(hook_cuMemUnmap(AT + MIB(40), MIB(24)), 0); /* both at once */
	CHECK_BOOKS(books(0), ((books_t){ MIB(100), MIB(40), 0, 0, 2 }));
	CHECK_EQ(hook_cuMemMap(AT, MIB(40), 0, again, 0), 0);
	CHECK_EQ(hook_cuMemRelease(again), 0);
	CHECK_EQ(books(0).managed, MIB(40));
	CHECK_EQ(hook_cuMemUnmap(AT, MIB(40)), 0);
	end();
}

/* ---- what is told of them ---- */

static void pointers_are_of_the_device(void)
{
	CUpointer_attribute which[] = {
		CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_HOST_POINTER,
		CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
	};
	CUmemGenericAllocationHandle handles[2];

	nearly_full(NULL);
	CHECK_EQ(hook_cuMemCreate(&handles[0], MIB(40), &torch, 0), 0);
	CHECK_EQ(hook_cuMemCreate(&handles[1], MIB(8), &torch, 0), 0);
	CHECK_EQ(hook_cuMemMap(AT, MIB(40), 0, handles[0], 0), 0);
	CHECK_EQ(hook_cuMemMap(AT + MIB(40), MIB(8), 0, handles[1], 0), 0);
	for (CUdeviceptr at = AT + 7; at < AT + MIB(48); at += MIB(6)) {
		uint64_t type = 0, host = 1, ordinal = 9, address = 0;
		void *data[] = { &type, &host, &ordinal, &address };

		CHECK_EQ(hook_cuPointerGetAttributes(4, which, data, at), 0);
		CHECK_EQ((uint32_t)type, CU_MEMORYTYPE_DEVICE);
		CHECK_EQ(host, 0);
		CHECK_EQ((uint32_t)ordinal, 0);
		CHECK_EQ(address, at);
		CHECK_EQ(hook_cuPointerGetAttribute(&type, which[0], at), 0);
		CHECK_EQ((uint32_t)type, CU_MEMORYTYPE_DEVICE);
		CHECK_EQ(hook_cuPointerGetAttribute(&host, which[1], at), CUDA_ERROR_INVALID_VALUE);
		CHECK_EQ(hook_cuPointerGetAttribute(&ordinal, which[2], at), 0);
		CHECK_EQ((uint32_t)ordinal, 0);
	}
	/* Multicast objects take the device's, and the driver says no to the other. */
	CHECK_EQ(hook_cuMulticastBindMem(1, 0, handles[0], 0, MIB(8), 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMulticastBindMem(1, 0, handles[1], 0, MIB(8), 0), 0);
	CHECK_EQ(hook_cuMulticastBindAddr(1, 0, AT, MIB(8), 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMulticastBindAddr(1, 0, AT + MIB(40), MIB(8), 0), 0);
	CHECK_EQ(hook_cuMulticastBindMem_v2(1, 0, 0, handles[0], 0, MIB(8), 0),
		 CUDA_ERROR_NOT_SUPPORTED);
	CHECK_EQ(hook_cuMulticastBindAddr_v2(1, 0, 0, AT, MIB(8), 0), CUDA_ERROR_NOT_SUPPORTED);
	CHECK_EQ(hook_cuMemUnmap(AT, MIB(48)), 0);
	CHECK_EQ(hook_cuPointerGetAttribute(which, which[0], AT), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuMemRelease(handles[0]), 0);
	CHECK_EQ(hook_cuMemRelease(handles[1]), 0);
	end();
}

/* The program's sizes are to be multiples of both. */
static void granularity(void)
{
	const CUmemAllocationProp far = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_HOST_NUMA, 0 },
	};
	const fake_host_t large = { .node = true, .granularity = MIB(16) };
	const fake_host_t small = { .node = true, .granularity = 4096 };
	size_t bytes;

	nearly_full(&large);
	CHECK_EQ(hook_cuMemGetAllocationGranularity(&bytes, &plain, 0), 0);
	CHECK_EQ(bytes, MIB(16));
	CHECK_EQ(hook_cuMemGetAllocationGranularity(&bytes, &far, 0), 0);
	CHECK_EQ(bytes, MIB(16));
	end();
	nearly_full(&small);
	CHECK_EQ(hook_cuMemGetAllocationGranularity(&bytes, &plain, 0), 0);
	CHECK_EQ(bytes, MIB(2));
	end();
	/* Where nothing spills, the device's own. */
	start((setup_t){ .vram = MIB(128), .policy = EMUV_POLICY_CAP, .card = MIB(256) });
	fake_host(&large);
	CHECK_EQ(hook_cuMemGetAllocationGranularity(&bytes, &plain, 0), 0);
	CHECK_EQ(bytes, MIB(2));
}

/* ---- no memory for the books ---- */

static bool no_memory;

static void *may_map(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return no_memory ? MAP_FAILED : mmap(at, bytes, protection, flags, fd, offset);
}

/* What cannot be counted is not given, and nothing of it stays with the driver. */
static void no_memory_for_the_books(void)
{
	const emuv_entry_t one = { .kind = EMUV_KIND_POOL, .key = 1 };
	CUmemGenericAllocationHandle handles[FIRST_CAPACITY];
	fake_state_t state;
	uint64_t n = 0;

	start((setup_t){ .vram = MIB(512), .policy = EMUV_POLICY_CAP, .card = MIB(1024) });
	/* A handle is two entries: the last one's memory finds room, and it does not. */
	CHECK_EQ(emuv_account_note(&one), 0);
	no_memory = true;
	while (!hook_cuMemCreate(&handles[n], MIB(2), &plain, 0))
		n++;
	CHECK_EQ(n, FIRST_CAPACITY / 4 - 1);
	fake_state(&state);
	CHECK_EQ(state.objects[FAKE_VMM], n);
	CHECK_EQ(books(0).device, MIB(2) * n);
	/* One more finds room, and then none does. */
	CHECK_EQ(emuv_account_note(&(emuv_entry_t){ .kind = EMUV_KIND_POOL, .key = 2 }), 0);
	CHECK_EQ(hook_cuMemMap(AT, MIB(2), 0, handles[0], 0), CUDA_ERROR_OUT_OF_MEMORY);
	no_memory = false;
	while (n)
		CHECK_EQ(hook_cuMemRelease(handles[--n]), CUDA_SUCCESS);
	check_empty();
}

int main(void)
{
	alarm(50);
	emuv_message_quiet(1);
	past_the_budget_whole();
	card_full();
	without_a_virtual();
	every_driver();
	what_stays_on_the_device();
	asked_again();
	mappings_hold_it();
	pointers_are_of_the_device();
	granularity();
	no_memory_for_the_books();
	return 0;
}
