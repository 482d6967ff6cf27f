// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/hooks_memory.c csrc/shim/hooks_pool.c csrc/shim/hooks_graph.c csrc/shim/hooks_stream.c csrc/shim/hooks_array.c
// link: csrc/shim/hooks_vmm*.c csrc/shim/hooks_context.c csrc/shim/device_use.c
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/contexts.c
// link: csrc/shim/deferred.c csrc/shim/placement.c csrc/shim/pools.c csrc/shim/overhead.c csrc/shim/hooks_module.c csrc/shim/keep.c csrc/shim/residency.c
// link: csrc/shim/extents.c csrc/shim/host_memory.c csrc/shim/message.c csrc/shim/array_size.c
// link: csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
// link: csrc/shim/lifecycle.c csrc/shim/caller.c csrc/shim/config.c csrc/common/emuv_segment_create.c
// link: tests/c/fake_driver.c tests/c/fake_memory.c tests/c/fake_vmm.c tests/c/fake_contexts.c
// link: csrc/common/emuv_environ.c
/*
 * The primary context between its last release and its next retain: it may go, stay,
 * or be made anew under the same handle while emuV looks.  As in test_hooks_races.c,
 * something in the place of a driver function does what another thread might.
 */
#include <errno.h>

#include "lifecycle.h"
#include "message.h"
#include "races.h"
#include "resolve.h"

/* Of resolve.c, which would open a driver. */
int emuv_resolve_open(const char *path, char *error, size_t error_bytes)
{
	(void)path, (void)error, (void)error_bytes;
	return -ENOENT;
}

bool emuv_resolve_is_home(void)
{
	return true;
}
void emuv_resolve_fork_child(void)
{
}

static CUresult (*real_free)(CUdeviceptr);
static CUresult (*real_release)(CUdevice);
static CUcontext primary;

static CUresult (*real_retain)(CUcontext *, CUdevice);

/* The context is there, and before its maker can measure it another thread has it too. */
static CUresult retain_meanwhile(CUcontext *context, CUdevice device)
{
	CUresult result = real_retain(context, device);
	CUcontext other;

	g_real.cuDevicePrimaryCtxRetain = real_retain;
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&other, device), CUDA_SUCCESS);
	CHECK(other == *context);
	return result;
}

static void the_second_to_retain_is_first_to_enter(void)
{
	CUcontext context;

	start((setup_t){ .vram = MIB(64), .policy = EMUV_POLICY_CAP, .card = MIB(512),
			 .context = MIB(3) });
	real_retain = g_real.cuDevicePrimaryCtxRetain;
	g_real.cuDevicePrimaryCtxRetain = retain_meanwhile;
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
	CHECK_EQ(books(0).overhead, MIB(3));
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	CHECK_EQ(books(0).overhead, MIB(3));
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	check_empty();
}

static unsigned long long primary_id;

static CUresult id_of_primary(CUcontext context, unsigned long long *id)
{
	unsigned int flags;
	int active = 0;

	(void)context;
	*id = primary_id;
	g_real.cuDevicePrimaryCtxGetState(0, &flags, &active);
	return active ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult release_and_retain(CUdevice device)
{
	CUresult result = real_release(device);

	g_real.cuDevicePrimaryCtxRelease_v2 = real_release;
	primary_id++;
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, device), CUDA_SUCCESS);
	return result;
}

/* Released and made anew by another thread: the side stream of the old one is not used. */
static void made_anew_with_the_same_handle(void)
{
	CUdeviceptr range;
	CUcontext old;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512), .context = MIB(2) });
	primary_id = 1;
	g_real.cuCtxGetId = id_of_primary;
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&old, 0), CUDA_SUCCESS);
	fake_set_current(old);
	range = spilled(MIB(64));
	CHECK_EQ(fake_resident(range), MIB(14));
	real_release = g_real.cuDevicePrimaryCtxRelease_v2;
	g_real.cuDevicePrimaryCtxRelease_v2 = release_and_retain;
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	CHECK(primary == old);
	CHECK_BOOKS(books(0), ((books_t){ .overhead = MIB(2) }));
	range = spilled(MIB(64));
	CHECK_EQ(fake_resident(range), MIB(14));
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	fake_set_current(NULL);
	check_empty();
}

/* The same, and by then the other has filled vram: too late to refuse anybody. */
static CUresult retain_and_fill(CUcontext *context, CUdevice device)
{
	CUresult result = retain_meanwhile(context, device);
	CUdeviceptr address;

	fake_set_current(*context);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(64)), CUDA_SUCCESS);
	return result;
}

static void the_second_to_retain_fills_vram(void)
{
	CUcontext context;

	start((setup_t){ .vram = MIB(64), .policy = EMUV_POLICY_CAP, .card = MIB(512),
			 .context = MIB(3) });
	fake_limit(0, MIB(512));
	real_retain = g_real.cuDevicePrimaryCtxRetain;
	g_real.cuDevicePrimaryCtxRetain = retain_and_fill;
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
	CHECK_EQ(books(0).overhead, MIB(3));
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	fake_set_current(NULL);
	check_empty();
}

/*
 * A release finds the context gone and takes it off the table; another thread retains
 * it before the second look, and does not know what it costs.
 */
static CUresult (*real_state)(CUdevice, unsigned int *, int *);
static int n_looks;

static CUresult retained_between_looks(CUdevice device, unsigned int *flags, int *active)
{
	CUcontext unknown;

	if (++n_looks == 3) {
		g_real.cuDevicePrimaryCtxGetState = real_state;
		CHECK_EQ(real_retain(&primary, device), CUDA_SUCCESS);
		CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&unknown, device), CUDA_SUCCESS);
		CHECK_EQ(g_real.cuDevicePrimaryCtxRelease_v2(device), CUDA_SUCCESS);
	}
	return real_state(device, flags, active);
}

static void the_charge_stays_with_the_context(void)
{
	start((setup_t){ .vram = MIB(64), .policy = EMUV_POLICY_CAP, .card = MIB(512),
			 .context = MIB(3) });
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
	real_retain = g_real.cuDevicePrimaryCtxRetain;
	real_state = g_real.cuDevicePrimaryCtxGetState;
	g_real.cuDevicePrimaryCtxGetState = retained_between_looks;
	n_looks = 0;
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	CHECK_EQ(n_looks, 3);
	CHECK_EQ(books(0).overhead, MIB(3));
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	check_empty();
}

static CUdeviceptr left_waiting;
static CUstream left_stream;
static bool retain_again;

/*
 * Another holder allocates and frees between the start of this release and its end,
 * and releases before it: not the last, so what it leaves is for this one to drop.
 */
static CUresult not_first_but_last(CUdevice device)
{
	CUdeviceptr left;
	CUresult result;

	g_real.cuDevicePrimaryCtxRelease_v2 = real_release;
	CHECK_EQ(hook_cuMemFreeAsync(left_waiting, left_stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemAlloc_v2(&left, MIB(1)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(device), CUDA_SUCCESS);
	result = real_release(device);
	if (retain_again) {
		primary_id++;
		CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, device), CUDA_SUCCESS);
	}
	return result;
}

static void the_last_release_drops_all(bool again)
{
	CUdeviceptr range;
	fake_state_t state;

	start((setup_t){ .vram = MIB(16), .extra = MIB(200), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512), .context = MIB(2) });
	primary_id = 1;
	retain_again = again;
	g_real.cuCtxGetId = id_of_primary;
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
	fake_set_current(primary);
	left_stream = new_stream();
	left_waiting = spilled(MIB(64));
	fake_hold(true);
	real_release = g_real.cuDevicePrimaryCtxRelease_v2;
	g_real.cuDevicePrimaryCtxRelease_v2 = not_first_but_last;
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	if (again) {
		/* The new context's memory has the old one's addresses. */
		new_stream();
		range = spilled(MIB(64));
		fake_hold(false);
		emuv_deferred_reap();
		fake_state(&state);
		CHECK_EQ(state.managed[0], MIB(64));
		CHECK_BOOKS(books(0), ((books_t){ .managed = MIB(64), .resident = MIB(14),
						  .overhead = MIB(2), .live = 1 }));
		CHECK_EQ(hook_cuMemFree_v2(range), CUDA_SUCCESS);
		CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	}
	fake_hold(false);
	fake_set_current(NULL);
	emuv_deferred_reap();
	check_empty();
}

static CUdeviceptr not_freed;

static CUresult refuse(CUdeviceptr address)
{
	(void)address;
	return CUDA_ERROR_INVALID_VALUE;
}

/* Before the context goes, another thread's free in it is refused. */
static CUresult refuse_and_release(CUdevice device)
{
	real_free = g_real.cuMemFree_v2;
	g_real.cuMemFree_v2 = refuse;
	CHECK_EQ(hook_cuMemFree_v2(not_freed), CUDA_ERROR_INVALID_VALUE);
	g_real.cuMemFree_v2 = real_free;
	return real_release(device);
}

static void a_refused_free_keeps_its_age(void)
{
	CUcontext context;

	start((setup_t){ .vram = MIB(16), .policy = EMUV_POLICY_CAP, .card = MIB(512) });
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
	fake_set_current(context);
	CHECK_EQ(hook_cuMemAlloc_v2(&not_freed, MIB(1)), CUDA_SUCCESS);
	real_release = g_real.cuDevicePrimaryCtxRelease_v2;
	g_real.cuDevicePrimaryCtxRelease_v2 = refuse_and_release;
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	fake_set_current(NULL);
	check_empty();
}

/* ---- green contexts, which hold the primary one ---- */

static CUgreenCtx new_green(CUdevice device)
{
	static char resources;
	CUgreenCtx green;

	CHECK_EQ(hook_cuGreenCtxCreate(&green, (CUdevResourceDesc)&resources, device, 1),
		 CUDA_SUCCESS);
	return green;
}

static CUresult no_green(CUgreenCtx *green, CUdevResourceDesc resources, CUdevice device,
			 unsigned int flags)
{
	(void)green, (void)resources, (void)device, (void)flags;
	return CUDA_ERROR_INVALID_VALUE;
}

static void green_contexts_bring_the_primary_one(void)
{
	CUdeviceptr address;
	CUgreenCtx first, second;

	start((setup_t){ .vram = MIB(64), .policy = EMUV_POLICY_CAP, .card = MIB(512),
			 .context = MIB(3) });
	first = new_green(1);
	CHECK_BOOKS(books(1), ((books_t){ .overhead = MIB(3) }));
	second = new_green(1);
	CHECK_EQ(books(1).overhead, MIB(3));
	/* What is allocated in it, and its last holders go one by one. */
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 1), CUDA_SUCCESS);
	fake_set_current(primary);
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(1)), CUDA_SUCCESS);
	CHECK_EQ(hook_cuGreenCtxDestroy(first), CUDA_SUCCESS);
	CHECK_EQ(hook_cuGreenCtxDestroy(first), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(1), CUDA_SUCCESS);
	CHECK_BOOKS(books(1), ((books_t){ .device = MIB(1), .overhead = MIB(3), .live = 1 }));
	CHECK_EQ(hook_cuGreenCtxDestroy(second), CUDA_SUCCESS);
	fake_set_current(NULL);
	check_empty();
}

/* As cuCtxFromGreenCtx makes one: in another thread's hands it cannot be pushed. */
static char view;

static CUresult view_is_current(CUcontext *context)
{
	*context = (CUcontext)&view;
	return CUDA_SUCCESS;
}

static CUresult view_of_stream(CUstream stream, CUcontext *context)
{
	(void)stream;
	return view_is_current(context);
}

static CUresult primary_of_stream(CUstream stream, CUcontext *context, CUgreenCtx *green)
{
	(void)stream;
	*context = primary;
	*green = (CUgreenCtx)&view;
	return CUDA_SUCCESS;
}

static void memory_of_a_green_context_is_the_primary_ones(void)
{
	CUdeviceptr address;
	CUstream stream;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512), .context = MIB(2) });
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
	fake_set_current(primary);
	stream = new_stream();
	g_real.cuStreamGetCtx = view_of_stream;
	g_real.cuStreamGetCtx_v2 = primary_of_stream;
	CHECK_EQ(hook_cuMemAllocAsync(&address, MIB(1), stream), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(1));
	CHECK_EQ(hook_cuMemFree_v2(address), CUDA_SUCCESS);
	g_real.cuCtxGetCurrent = view_is_current;
	CHECK_EQ(hook_cuMemAlloc_v2(&address, MIB(4)), CUDA_SUCCESS);
	CHECK_EQ(fake_resident(spilled(MIB(64))), MIB(10));
	CHECK_BOOKS(books(0), ((books_t){ .device = MIB(4), .managed = MIB(64), .live = 2,
					  .resident = MIB(10), .overhead = MIB(2) }));
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	fake_set_current(NULL);
	check_empty();
}

static void a_green_context_that_cannot_be(void)
{
	static char resources;
	CUdevResourceDesc some = (CUdevResourceDesc)&resources;
	CUgreenCtx green;

	/* The driver refuses it. */
	start((setup_t){ .vram = MIB(64), .policy = EMUV_POLICY_CAP, .card = MIB(512),
			 .context = MIB(3) });
	g_real.cuGreenCtxCreate = no_green;
	CHECK_EQ(hook_cuGreenCtxCreate(&green, some, 0, 1), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(hook_cuGreenCtxCreate(&green, NULL, 0, 1), CUDA_ERROR_INVALID_VALUE);
	check_empty();
	/* Its primary context does not fit. */
	start((setup_t){ .vram = MIB(2), .policy = EMUV_POLICY_CAP, .card = MIB(512),
			 .context = MIB(3) });
	fake_limit(0, MIB(512));
	CHECK_EQ(hook_cuGreenCtxCreate(&green, some, 0, 1), CUDA_ERROR_OUT_OF_MEMORY);
	check_empty();
}

static void the_last_release_drops_all_both(void)
{
	the_last_release_drops_all(false);
	the_last_release_drops_all(true);
}

int main(int n, char **names)
{
	static const race_t races[] = {
		TEST(the_second_to_retain_is_first_to_enter),
		TEST(the_second_to_retain_fills_vram),
		TEST(the_charge_stays_with_the_context),
		TEST(made_anew_with_the_same_handle),
		TEST(a_refused_free_keeps_its_age),
		TEST(the_last_release_drops_all_both),
		TEST(green_contexts_bring_the_primary_one),
		TEST(memory_of_a_green_context_is_the_primary_ones),
		TEST(a_green_context_that_cannot_be),
	};

	alarm(55);
	emuv_message_quiet(1);
	run_races(races, sizeof races / sizeof *races, n, names);
	return 0;
}
