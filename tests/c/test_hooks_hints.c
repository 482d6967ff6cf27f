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
 * The program's own hints: every driver call fails once, in every form; what another
 * thread might do between two steps of a hook; and threads at random.  The fake driver
 * ends the test when a byte more than vram is on the device at any instant.
 */
#include <pthread.h>

#include "message.h"
#include "races.h"
#include "residency.h"

#define VRAM MIB(32)

static CUcontext context;
static CUstream stream, other;
static CUdeviceptr filler, range, second;
static bool own;
static const CUmemLocation to_host = { CU_MEM_LOCATION_TYPE_HOST, 0 };
static const CUmemLocation to_device = { CU_MEM_LOCATION_TYPE_DEVICE, 0 };

/* As a controller does it: odd while it writes. */
static void set_vram(uint64_t bytes)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	emuv_control_t *control = &emuv_account_segment()->control;

	pthread_mutex_lock(&one_at_a_time);
	__atomic_fetch_add(&control->generation, 1, __ATOMIC_ACQ_REL);
	for (int i = 0; i < FAKE_DEVICES; i++)
		__atomic_store_n(&control->budget[i].vram_bytes, bytes, __ATOMIC_RELAXED);
	__atomic_fetch_add(&control->generation, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&one_at_a_time);
}

static void begin(void)
{
	start((setup_t){ .vram = VRAM, .extra = MIB(256), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(256) });
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), 0);
	stream = new_stream();
	other = new_stream();
	filler = range = second = 0;
	own = false;
}

/* A range of 40 MiB of which nothing is on the device, and room for so much. */
static void with_room(uint64_t room)
{
	begin();
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, VRAM), 0);
	CHECK_EQ(hook_cuMemAllocManaged(&range, MIB(40), CU_MEM_ATTACH_GLOBAL), 0);
	CHECK_EQ(hook_cuMemAllocManaged(&second, MIB(7), CU_MEM_ATTACH_HOST), 0);
	CHECK_EQ(books(0).resident, 0);
	CHECK_EQ(hook_cuMemFree_v2(filler), 0);
	filler = 0;
	if (room < VRAM)
		CHECK_EQ(hook_cuMemAlloc_v2(&filler, VRAM - room), 0);
}

/* Nothing is under way, and all is given back. */
static void end(void)
{
	fake_hold(false);
	emuv_deferred_reap();
	/* Of its own memory that was taken back nobody knows where it was. */
	if (!own)
		CHECK_EQ(books(0).resident, fake_resident(range) + fake_resident(second));
	if (range)
		CHECK_EQ(hook_cuMemFree_v2(range), 0);
	if (second)
		CHECK_EQ(hook_cuMemFree_v2(second), 0);
	if (filler)
		CHECK_EQ(hook_cuMemFree_v2(filler), 0);
	CHECK_BOOKS(books(0), ((books_t){ 0 }));
	CHECK_EQ(hook_cuCtxDestroy_v2(context), 0);
	check_empty();
}

static const emuv_device_counters_t *counters(void)
{
	return &emuv_account_segment()->device[0];
}

/* ---- every driver call fails once ---- */

static void room_for_all(void) { with_room(VRAM); }
static void room_for_some(void) { with_room(MIB(9)); }
static void no_room(void) { with_room(0); }

static void with_windows(void)
{
	with_room(MIB(16));
	CHECK_EQ(hook_cuMemPrefetchAsync(range + MIB(4), MIB(4), 0, stream), 0);
	CHECK_EQ(hook_cuMemPrefetchAsync(range + MIB(20), MIB(6), 0, stream), 0);
	CHECK_EQ(hook_cuMemPrefetchAsync(second, MIB(7), 0, stream), 0);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, MIB(16));
	CHECK_EQ(fake_resident(range), MIB(10));
	CHECK_EQ(fake_resident(second), MIB(6)); /* no room for its last block */
}

static void with_own(void)
{
	begin();
	CHECK_EQ(hook_cuMemAllocManaged(&range, MIB(20), CU_MEM_ATTACH_GLOBAL), 0);
	CHECK_EQ(hook_cuMemAllocManaged(&second, MIB(3), CU_MEM_ATTACH_GLOBAL), 0);
	CHECK_EQ(counters()->movable_bytes, MIB(23));
	own = true;
	set_vram(MIB(5));
}

static CUresult act_bring(void) { return hook_cuMemPrefetchAsync(range, MIB(40), 0, stream); }
static CUresult act_end(void) { return hook_cuMemPrefetchAsync_ptsz(second, MIB(7), 0, stream); }
static CUresult act_window(void)
{
	return hook_cuMemPrefetchAsync_v2(range + MIB(3), MIB(10) + 5, to_device, 0, stream);
}

static CUresult act_home(void)
{
	return hook_cuMemPrefetchAsync_v2_ptsz(range, MIB(40), to_host, 0, stream);
}

static CUresult act_part_home(void)
{
	return hook_cuMemPrefetchAsync(range + MIB(6), MIB(16), CU_DEVICE_CPU, stream);
}

static CUresult act_batch(void)
{
	CUdeviceptr addresses[] = { range + MIB(4), second, range + MIB(18), range };
	size_t sizes[] = { MIB(4), MIB(7), MIB(10), MIB(4) };
	CUmemLocation locations[] = { to_device, to_host, to_device };
	size_t first[] = { 0, 1, 2 };

	return hook_cuMemPrefetchBatchAsync(addresses, sizes, 4, locations, first, 3, 0, stream);
}

static CUresult act_discard(void)
{
	CUdeviceptr addresses[] = { range, second };
	size_t sizes[] = { MIB(40), MIB(7) };
	CUmemLocation location = to_device;
	size_t first = 0;

	return hook_cuMemDiscardAndPrefetchBatchAsync_ptsz(addresses, sizes, 2, &location, &first, 1,
							   0, stream);
}

static CUresult act_advise(void)
{
	CUresult result = CUDA_SUCCESS;

	for (int advice = 1; advice <= 6 && !result; advice++)
		result = hook_cuMemAdvise(range + MIB(2), MIB(4), (CUmem_advise)advice, 0);
	for (int advice = 1; advice <= 6 && !result; advice++)
		result = hook_cuMemAdvise_v2(range, MIB(40), (CUmem_advise)advice, to_device);
	return result;
}

/* A lowered vram: the next allocation moves what is over, or it is tried again. */
static CUresult act_shrink(void)
{
	CUdeviceptr more;

	set_vram(MIB(5));
	CHECK_EQ(hook_cuMemAlloc_v2(&more, MIB(1000)), CUDA_ERROR_OUT_OF_MEMORY);
	return CUDA_SUCCESS;
}

static CUresult act_make_room(void)
{
	const emuv_where_t where = { 0, context };

	return emuv_residency_make_room(&where, MIB(9)) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static const struct {
	const char *name;
	void (*before)(void);
	CUresult (*act)(void);
	uint64_t resident; /* after it has succeeded */
	uint64_t clipped;
} scenarios[] = {
	{ "prefetch, some", room_for_some, act_bring, MIB(8), MIB(32) },
	{ "prefetch, most", room_for_all, act_bring, MIB(32), MIB(8) },
	{ "prefetch, none", no_room, act_bring, 0, MIB(40) },
	{ "prefetch, to the end", room_for_all, act_end, MIB(7), 0 },
	{ "prefetch, window", room_for_all, act_window, MIB(12), 0 },
	{ "prefetch, over windows", with_windows, act_bring, MIB(16), MIB(30) + MIB(1) },
	{ "home", with_windows, act_home, MIB(6), MIB(1) },
	{ "part home", with_windows, act_part_home, MIB(12), MIB(1) },
	{ "nothing home", room_for_some, act_home, 0, 0 },
	{ "batch", with_windows, act_batch, MIB(10), MIB(1) + MIB(8) },
	{ "batch, all", room_for_all, act_discard, MIB(32), MIB(15) },
	{ "batch, none", no_room, act_discard, 0, MIB(47) },
	{ "advice", with_windows, act_advise, MIB(16), MIB(1) + 4 * MIB(44) },
	{ "shrink", with_windows, act_shrink, 0, MIB(1) },
	{ "shrink own", with_own, act_shrink, MIB(2), 0 },
	{ "make room", with_windows, act_make_room, MIB(6), MIB(1) },
};

/* True while there was an n-th call to fail. */
static bool run(size_t which, uint64_t n, CUresult code)
{
	uint64_t before;
	CUresult result;
	bool struck;

	scenarios[which].before();
	before = books(0).resident;
	fake_fail(n, code);
	result = scenarios[which].act();
	struck = fake_struck() != NULL;
	fake_fail(0, CUDA_SUCCESS);
	/* What is there is charged, whatever the driver refused; after pop, of which context? */
	fake_set_current(context);
	CHECK(fake_resident(range) + fake_resident(second) <= books(0).resident + books(0).device);
	CHECK(!result || struck);
	if (result && scenarios[which].act != act_make_room)
		CHECK(books(0).resident <= before);
	emuv_deferred_reap();
	if (!struck) {
		CHECK_EQ(result, CUDA_SUCCESS);
		CHECK_EQ(books(0).resident, scenarios[which].resident);
		CHECK_EQ(counters()->clipped_bytes, scenarios[which].clipped);
		end();
		return false;
	}
	/* Once more, and all comes and goes as ever. */
	scenarios[which].act();
	CHECK(fake_resident(range) + fake_resident(second) <= books(0).resident + books(0).device);
	emuv_deferred_reap();
	CHECK(books(0).resident >= fake_resident(range) + fake_resident(second));
	CHECK_EQ(hook_cuMemFree_v2(range), 0);
	CHECK_EQ(hook_cuMemFree_v2(second), 0);
	if (filler)
		CHECK_EQ(hook_cuMemFree_v2(filler), 0);
	emuv_deferred_reap();
	CHECK_BOOKS(books(0), ((books_t){ 0 }));
	CHECK_EQ(hook_cuCtxDestroy_v2(context), 0);
	return true;
}

static void every_call_fails_once(void)
{
	static const CUresult codes[] = { CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_LAUNCH_FAILED };
	uint64_t faults = 0;

	for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
		for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
			uint64_t n = 1;

			while (run(i, n, codes[c]))
				n++;
			CHECK(n > 1);
			faults += n - 1;
		}
	CHECK(faults > 250);
}

/* ---- between two steps ---- */

static CUresult (*real_prefetch)(CUdeviceptr, size_t, CUdevice, CUstream);
static void (*meanwhile)(void);
static bool refuse;

static CUresult interrupted(CUdeviceptr address, size_t bytes, CUdevice device, CUstream in)
{
	g_real.cuMemPrefetchAsync = real_prefetch;
	meanwhile();
	return refuse ? CUDA_ERROR_LAUNCH_FAILED : real_prefetch(address, bytes, device, in);
}

/* Does `what` before the driver's next prefetch; which it then refuses, maybe. */
static void interrupt(void (*what)(void), bool then_refuse)
{
	real_prefetch = g_real.cuMemPrefetchAsync;
	g_real.cuMemPrefetchAsync = interrupted;
	meanwhile = what;
	refuse = then_refuse;
}

static void free_it(void)
{
	CHECK_EQ(hook_cuMemFree_v2(range), 0);
	range = 0;
}

static void freed_meanwhile(void)
{
	for (int home = 0; home < 2; home++) {
		with_room(MIB(16));
		CHECK_EQ(hook_cuMemPrefetchAsync(range + MIB(4), MIB(4), 0, stream), 0);
		interrupt(free_it, false);
		CHECK(hook_cuMemPrefetchAsync(range, MIB(20), home ? CU_DEVICE_CPU : 0, stream));
		CHECK_EQ(books(0).resident, 0);
		end();
	}
}

static void bring_it_too(void)
{
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(12), 0, other), 0);
}

/* What one thread is about to bring, another one neither pays for nor brings. */
static void brought_twice(void)
{
	for (int refused = 0; refused < 2; refused++) {
		with_room(MIB(16));
		interrupt(bring_it_too, refused);
		CHECK_EQ(hook_cuMemPrefetchAsync(range + MIB(2), MIB(6), 0, stream), refused ? 719 : 0);
		emuv_deferred_reap();
		CHECK_EQ(books(0).resident, refused ? MIB(6) : MIB(12));
		CHECK_EQ(counters()->clipped_calls, 0);
		end();
	}
}

static void take_it_home(void)
{
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(40), CU_DEVICE_CPU, other), 0);
	emuv_deferred_reap();
}

/* One thread's arrival may overtake another's departure: it stays charged. */
static void home_meanwhile(void)
{
	with_room(MIB(16));
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), 0, stream), 0);
	emuv_deferred_reap();
	interrupt(take_it_home, false);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(12), 0, stream), 0);
	CHECK_EQ(books(0).resident, MIB(12));
	end();
}

static void bring_all(void)
{
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(40), 0, other), 0);
	emuv_deferred_reap();
}

/* The other way round: the driver may see the departure first. */
static void brought_while_leaving(void)
{
	with_room(MIB(16));
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), 0, stream), 0);
	emuv_deferred_reap();
	interrupt(bring_all, false);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(40), CU_DEVICE_CPU, stream), 0);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, MIB(16)); /* the driver brought it first, this time */
	CHECK_EQ(fake_resident(range), 0);
	range = (hook_cuMemFree_v2(range), 0);
	end();
}

/* Streams have their own time. */
static void held_streams(void)
{
	with_room(MIB(16));
	fake_hold(true);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), 0, stream), 0);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), CU_DEVICE_CPU, other), 0);
	fake_hold(false);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, MIB(8)); /* not known to have left after it came */
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), 0, stream), 0);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), CU_DEVICE_CPU, stream), 0);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, 0);
	/* On their way home they have their room still, and coming back costs nothing. */
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(16), 0, stream), 0);
	emuv_deferred_reap();
	fake_hold(true);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), CU_DEVICE_CPU, other), 0);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, MIB(16));
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(4), 0, stream), 0);
	CHECK_EQ(counters()->clipped_calls, 0);
	fake_hold(false);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, fake_resident(range));
	end();
}

static void lower(void)
{
	CUdeviceptr more;

	set_vram(MIB(2));
	CHECK_EQ(hook_cuMemAlloc_v2(&more, MIB(1000)), CUDA_ERROR_OUT_OF_MEMORY);
}

/* What is on its way cannot be told to leave; when it has come, it is. */
static void lowered_meanwhile(void)
{
	with_room(VRAM);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), 0, stream), 0);
	emuv_deferred_reap();
	interrupt(lower, false);
	CHECK_EQ(hook_cuMemPrefetchAsync(range + MIB(20), MIB(10), 0, stream), 0);
	CHECK_EQ(books(0).resident, MIB(10));
	fake_hold(false);
	lower();
	CHECK_EQ(books(0).resident, MIB(2));
	CHECK_EQ(fake_resident(range), MIB(2));
	end();
}

static CUresult (*real_advise)(CUdeviceptr, size_t, CUmem_advise, CUdevice);

static CUresult lower_while_pinning(CUdeviceptr address, size_t bytes, CUmem_advise advice,
				    CUdevice device)
{
	CUdeviceptr more;

	g_real.cuMemAdvise = real_advise;
	set_vram(MIB(6));
	CHECK_EQ(hook_cuMemAlloc_v2(&more, MIB(1000)), CUDA_ERROR_OUT_OF_MEMORY);
	return real_advise(address, bytes, advice, device);
}

/* Nothing of a range that is not pinned yet is told to leave: it would come back. */
static void lowered_while_pinning(void)
{
	with_own();
	real_advise = g_real.cuMemAdvise;
	g_real.cuMemAdvise = lower_while_pinning;
	lower();
	lower();
	CHECK(books(0).resident + books(0).device <= MIB(6));
	end();
}

static CUresult refuse_free(CUdeviceptr address)
{
	(void)address;
	fake_hold(false);
	emuv_deferred_reap(); /* the range is off the books, and its prefetch comes about */
	return CUDA_ERROR_LAUNCH_FAILED;
}

static void free_that_is_refused(void)
{
	CUresult (*real_free)(CUdeviceptr) = g_real.cuMemFree_v2;

	with_room(VRAM);
	real_free = g_real.cuMemFree_v2;
	fake_hold(true);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), 0, stream), 0);
	g_real.cuMemFree_v2 = refuse_free;
	CHECK_EQ(hook_cuMemFree_v2(range), 719);
	g_real.cuMemFree_v2 = real_free;
	CHECK_EQ(books(0).resident, MIB(8));
	/* It is as it was, and can be told to leave. */
	lower();
	CHECK_EQ(books(0).resident, MIB(2));
	end();
}

/* A context takes what waits in it along, a stream's of another context only the events. */
static void contexts_that_go(void)
{
	CUcontext second_context;
	CUstream there;

	with_room(VRAM);
	CHECK_EQ(hook_cuCtxCreate_v2(&second_context, 0, 0), 0);
	there = new_stream();
	fake_hold(true);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(8), 0, there), 0);
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(4), CU_DEVICE_CPU, there), 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(second_context), 0);
	fake_set_current(context);
	CHECK_EQ(books(0).resident, MIB(8)); /* may not have left */
	lower();
	CHECK_EQ(books(0).resident, MIB(2));
	range = (hook_cuMemFree_v2(range), 0);
	fake_hold(true);
	set_vram(VRAM);
	CHECK_EQ(hook_cuMemPrefetchAsync(second, MIB(4), 0, stream), 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), 0);
	fake_hold(false);
	emuv_deferred_reap();
	check_empty();
}

/* A hundred windows: as many runs as a map has, and one call for no more than a few. */
static void many_windows(void)
{
	begin();
	set_vram(MIB(250));
	fake_limit(0, MIB(256));
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(250)), 0);
	CHECK_EQ(hook_cuMemAllocManaged(&range, MIB(200), CU_MEM_ATTACH_GLOBAL), 0);
	CHECK_EQ(hook_cuMemFree_v2(filler), 0);
	filler = 0;
	for (int i = 0; i < 100; i += 2)
		CHECK_EQ(hook_cuMemPrefetchAsync(range + MIB(2 * i), 1, 0, stream), 0);
	emuv_deferred_reap();
	CHECK_EQ(fake_resident(range), MIB(100));
	CHECK_EQ(hook_cuMemPrefetchAsync(range, MIB(200), 0, stream), 0);
	emuv_deferred_reap();
	CHECK_EQ(fake_resident(range), MIB(200));
	for (int i = 0; i < 100; i += 2)
		CHECK_EQ(hook_cuMemPrefetchAsync(range + MIB(2 * i), MIB(2), CU_DEVICE_CPU, stream), 0);
	emuv_deferred_reap();
	CHECK_EQ(books(0).resident, MIB(100));
	lower();
	CHECK_EQ(books(0).resident, MIB(2));
	end();
}

/* ---- at random ---- */

#define THREADS 4

static void *at_random(void *seed_at)
{
	uint64_t seed = *(uint64_t *)seed_at;
	CUstream mine;

	fake_set_current(context);
	mine = new_stream();
	for (int i = 0; i < 400; i++) {
		uint64_t offset = random_below(&seed, 20) * MIB(2), bytes = MIB(2) * 5;
		CUdevice to = random_below(&seed, 3) ? 0 : CU_DEVICE_CPU;
		CUdeviceptr one;

		switch (random_below(&seed, 8)) {
		case 0:
			if (!hook_cuMemAllocManaged(&one, MIB(20), CU_MEM_ATTACH_GLOBAL)) {
				hook_cuMemAdvise(one, MIB(20), CU_MEM_ADVISE_SET_ACCESSED_BY, 0);
				hook_cuMemFree_v2(one);
			}
			break;
		case 1:
			if (!hook_cuMemAlloc_v2(&one, MIB(1) + random_below(&seed, MIB(9))))
				hook_cuMemFree_v2(one);
			break;
		case 2:
			if (random_below(&seed, 4) == 0)
				set_vram(MIB(20 + random_below(&seed, 12)));
			break;
		default:
			if (offset + bytes > MIB(40))
				bytes = MIB(40) - offset;
			hook_cuMemPrefetchAsync(range + offset, bytes, to,
						random_below(&seed, 2) ? mine : stream);
		}
	}
	return NULL;
}

static void threads_at_random(void)
{
	pthread_t threads[THREADS];
	uint64_t seeds[THREADS];

	with_room(VRAM);
	for (int i = 0; i < THREADS; i++) {
		seeds[i] = 77 + (uint64_t)i;
		CHECK_EQ(pthread_create(&threads[i], NULL, at_random, &seeds[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	emuv_deferred_reap();
	CHECK(fake_resident(range) <= books(0).resident);
	range = (hook_cuMemFree_v2(range), 0);
	end();
}

int main(int n, char **names)
{
	static const race_t races[] = {
		TEST(every_call_fails_once), TEST(freed_meanwhile), TEST(brought_twice),
		TEST(home_meanwhile), TEST(brought_while_leaving), TEST(held_streams),
		TEST(lowered_meanwhile), TEST(lowered_while_pinning),
		TEST(free_that_is_refused), TEST(contexts_that_go), TEST(many_windows),
		TEST(threads_at_random),
	};

	alarm(50);
	emuv_message_quiet(1);
	run_races(races, sizeof races / sizeof *races, n, names);
	return 0;
}
