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
 * What happens between two steps of a hook.  Each test puts something in the place
 * of one driver function that does, there and then, what another thread might: the
 * races are met every time, not now and again.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

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

static CUcontext new_context(CUdevice device)
{
	CUcontext context;

	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, device), CUDA_SUCCESS);
	return context;
}

static void set_vram(uint64_t bytes)
{
	emuv_control_t *control = &emuv_account_segment()->control;

	control->budget[0].vram_bytes = bytes;
	control->generation += 2;
}

/* ---- a lowered vram ---- */

static CUresult (*real_prefetch)(CUdeviceptr, size_t, CUdevice, CUstream);

static CUresult no_prefetch(CUdeviceptr address, size_t bytes, CUdevice device, CUstream stream)
{
	(void)address, (void)bytes, (void)device, (void)stream;
	return CUDA_ERROR_ILLEGAL_ADDRESS;
}

/*
 * A driver that moves nothing, as after a kernel's error: the call comes back, and
 * once the driver moves pages again they leave.
 */
static void heads_that_do_not_leave(void)
{
	CUcontext context;
	CUdeviceptr a, ranges[40], more;

	start((setup_t){ .vram = MIB(3), .extra = MIB(400), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	fake_limit(0, MIB(512));
	context = new_context(0);
	for (int i = 0; i < 40; i++) {
		set_vram(MIB(3 + 2 * i));
		ranges[i] = spilled(MIB(4));
	}
	CHECK_EQ(books(0).resident, MIB(80));
	real_prefetch = g_real.cuMemPrefetchAsync;
	g_real.cuMemPrefetchAsync = no_prefetch;
	set_vram(0);
	CHECK_EQ(hook_cuMemAlloc_v2(&more, MIB(1000)), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(books(0).resident, MIB(80));
	g_real.cuMemPrefetchAsync = real_prefetch;
	a = spilled(MIB(4));
	CHECK_EQ(books(0).resident, 0);
	CHECK_EQ(fake_resident(ranges[0]) + fake_resident(ranges[39]) + fake_resident(a), 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static CUresult (*real_managed)(CUdeviceptr *, size_t, unsigned int);

/* While a spill is under way, vram is lowered and another thread looks after it. */
static CUresult lower_meanwhile(CUdeviceptr *address, size_t bytes, unsigned int flags)
{
	CUdeviceptr other;

	g_real.cuMemAllocManaged = real_managed;
	set_vram(MIB(2));
	CHECK_EQ(hook_cuMemAlloc_v2(&other, MIB(1)), CUDA_SUCCESS);
	return real_managed(address, bytes, flags);
}

static void lowered_under_a_spill(void)
{
	CUcontext context;
	CUdeviceptr range;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	context = new_context(0);
	real_managed = g_real.cuMemAllocManaged;
	g_real.cuMemAllocManaged = lower_meanwhile;
	range = spilled(MIB(64));
	CHECK_EQ(books(0).resident, MIB(16));
	spilled(4096);
	CHECK(books(0).device + books(0).resident <= MIB(2));
	CHECK_EQ(fake_resident(range), books(0).resident);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static CUresult (*real_free)(CUdeviceptr);

static CUresult free_refused(CUdeviceptr address)
{
	CUdeviceptr other;

	(void)address;
	g_real.cuMemFree_v2 = real_free;
	set_vram(MIB(2));
	CHECK_EQ(hook_cuMemAlloc_v2(&other, MIB(1)), CUDA_SUCCESS);
	return CUDA_ERROR_INVALID_VALUE;
}

static void lowered_under_a_free_that_fails(void)
{
	CUcontext context;
	CUdeviceptr range;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	context = new_context(0);
	range = spilled(MIB(64));
	real_free = g_real.cuMemFree_v2;
	g_real.cuMemFree_v2 = free_refused;
	CHECK_EQ(hook_cuMemFree_v2(range), CUDA_ERROR_INVALID_VALUE);
	spilled(4096);
	CHECK(books(0).device + books(0).resident <= MIB(2));
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* Two threads lower one excess: what is leaving is not made to leave twice. */
static CUresult prefetch_and_look(CUdeviceptr address, size_t bytes, CUdevice device,
				  CUstream stream)
{
	CUdeviceptr other;

	g_real.cuMemPrefetchAsync = real_prefetch;
	emuv_account_segment()->control.generation += 2;
	CHECK_EQ(hook_cuMemAlloc_v2(&other, MIB(1000)), CUDA_ERROR_OUT_OF_MEMORY);
	return real_prefetch(address, bytes, device, stream);
}

static void an_excess_leaves_once(void)
{
	CUcontext context;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	context = new_context(0);
	spilled(MIB(64));
	real_prefetch = g_real.cuMemPrefetchAsync;
	g_real.cuMemPrefetchAsync = prefetch_and_look;
	set_vram(MIB(10));
	spilled(4096);
	CHECK_EQ(books(0).resident, MIB(10));
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* ---- frees that wait ---- */

/* A range freed in a stream of another context outlives neither that context nor its own. */
static void freed_in_another_context(bool stream_first)
{
	CUcontext owner, other, keep;
	CUdeviceptr range;
	CUstream stream;
	fake_state_t state;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	keep = new_context(1);
	other = new_context(0);
	stream = new_stream();
	owner = new_context(0);
	range = spilled(MIB(64));
	fake_hold(true);
	CHECK_EQ(hook_cuMemFreeAsync(range, stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(stream_first ? other : owner), CUDA_SUCCESS);
	fake_hold(false);
	fake_set_current(keep);
	emuv_deferred_reap();
	CHECK_EQ(books(0).managed, 0);
	fake_state(&state);
	CHECK_EQ(state.managed[0], 0);
	CHECK_EQ(state.objects[FAKE_EVENT], 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(stream_first ? owner : other), CUDA_SUCCESS);
	CHECK_EQ(hook_cuCtxDestroy_v2(keep), CUDA_SUCCESS);
	check_empty();
}

/* An array cannot be spilled, and what waits has nothing on the device: no use in waiting. */
static void no_hope_is_no_wait(void)
{
	const CUDA_ARRAY_DESCRIPTOR descriptor = { 4096, 4096, CU_AD_FORMAT_UNSIGNED_INT8, 1 };
	struct timespec before, after;
	CUdeviceptr filler, range;
	CUcontext context;
	CUstream stream;
	CUarray array;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	context = new_context(0);
	stream = new_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&filler, MIB(16)), CUDA_SUCCESS);
	range = spilled(MIB(64));
	fake_hold(true);
	CHECK_EQ(hook_cuMemFreeAsync(range, stream), CUDA_SUCCESS);
	clock_gettime(CLOCK_MONOTONIC, &before);
	CHECK_EQ(hook_cuArrayCreate_v2(&array, &descriptor), CUDA_ERROR_OUT_OF_MEMORY);
	clock_gettime(CLOCK_MONOTONIC, &after);
	CHECK(after.tv_sec - before.tv_sec < 5);
	fake_hold(false);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

/* ---- modules that go ---- */

static CUdeviceptr variable;

static CUresult get_global(CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name)
{
	(void)module, (void)name;
	*address = variable;
	*bytes = MIB(1);
	return CUDA_SUCCESS;
}

static CUresult is_managed(void *value, CUpointer_attribute attribute, CUdeviceptr address)
{
	CHECK(attribute == CU_POINTER_ATTRIBUTE_IS_MANAGED && address == variable);
	*(unsigned int *)value = 1;
	return CUDA_SUCCESS;
}

static const CUmodule module = (CUmodule)0x5000;

/* Gone, and another thread has a new one behind its handle, with a variable of its own. */
static CUresult unloaded_and_anew(CUmodule gone)
{
	CHECK_EQ((uintptr_t)gone, (uintptr_t)module);
	variable += MIB(2);
	CHECK_EQ(hook_cuModuleGetGlobal_v2(NULL, &(size_t){ 0 }, module, "v"), CUDA_SUCCESS);
	return CUDA_SUCCESS;
}

static CUresult loaded(CUmodule *out, const void *image)
{
	(void)image;
	*out = module;
	return CUDA_SUCCESS;
}

static CUresult unloaded(CUmodule gone)
{
	(void)gone;
	return CUDA_SUCCESS;
}

static void a_new_module_keeps_its_variables(void)
{
	emuv_real_t before = g_real;
	CUcontext context;
	CUmodule out;

	start((setup_t){ .vram = MIB(16), .policy = EMUV_POLICY_CAP, .card = MIB(512) });
	context = new_context(0);
	variable = 0x600000000;
	g_real.cuModuleLoadData = loaded;
	g_real.cuModuleUnload = unloaded_and_anew;
	g_real.cuModuleGetGlobal_v2 = get_global;
	g_real.cuPointerGetAttribute = is_managed;
	CHECK_EQ(hook_cuModuleLoadData(&out, ""), CUDA_SUCCESS);
	CHECK_EQ(hook_cuModuleGetGlobal_v2(NULL, &(size_t){ 0 }, out, "v"), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(1));
	CHECK_EQ(hook_cuModuleUnload(out), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, MIB(1));
	g_real.cuModuleUnload = unloaded;
	CHECK_EQ(hook_cuModuleLoadData(&out, ""), CUDA_SUCCESS);
	CHECK_EQ(hook_cuModuleUnload(out), CUDA_SUCCESS);
	CHECK_EQ(books(0).device, 0);
	g_real = before;
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static CUresult (*real_release)(CUdevice);
static CUresult (*real_query)(CUevent);
static int n_queries;

static CUresult counted_query(CUevent event)
{
	n_queries++;
	return real_query(event);
}

static CUresult stream_number(CUstream stream, unsigned long long *id)
{
	*id = (uintptr_t)stream;
	return CUDA_SUCCESS;
}

/* However much waits in a stream that has not come to the first of it: one question. */
static void a_stream_is_asked_once(void)
{
	CUresult (*unnumbered)(CUstream, unsigned long long *) = g_real.cuStreamGetId;
	CUdeviceptr ranges[40], small;
	CUcontext context;
	CUstream streams[2];

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	context = new_context(0);
	g_real.cuStreamGetId = stream_number;
	for (int i = 0; i < 2; i++)
		streams[i] = new_stream();
	CHECK_EQ(hook_cuMemAlloc_v2(&small, MIB(15)), CUDA_SUCCESS);
	for (int i = 0; i < 40; i++)
		ranges[i] = spilled(MIB(2));
	fake_hold(true);
	for (int i = 0; i < 40; i++)
		CHECK_EQ(hook_cuMemFreeAsync(ranges[i], streams[i % 2]), CUDA_SUCCESS);
	real_query = g_real.cuEventQuery;
	g_real.cuEventQuery = counted_query;
	n_queries = 0;
	CHECK_EQ(hook_cuMemAlloc_v2(&small, 4096), CUDA_SUCCESS);
	CHECK_EQ(n_queries, 2);
	fake_hold(false);
	emuv_deferred_reap();
	CHECK_EQ(n_queries, 42);
	CHECK_EQ(books(0).managed, 0);
	g_real.cuStreamGetId = unnumbered;
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static CUcontext primary;
static sem_t reached, go_on;

static void *allocate_meanwhile(void *result)
{
	CUdeviceptr address;

	fake_set_current(primary);
	*(CUresult *)result = hook_cuMemAlloc_v2(&address, MIB(100));
	return NULL;
}

static CUresult slow_release(CUdevice device)
{
	const struct timespec pause = { 0, 200000000 };

	sem_post(&reached);
	nanosleep(&pause, NULL);
	return real_release(device);
}

static void *release(void *device)
{
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2((CUdevice)(intptr_t)device), CUDA_SUCCESS);
	return NULL;
}

/*
 * One of two holders releases the primary context, which stays: what waits in it is
 * set aside meanwhile, and whoever needs its room waits for it all the same.
 */
static void set_aside_still_counts(void)
{
	CUresult result = CUDA_ERROR_UNKNOWN;
	CUdeviceptr range;
	CUstream stream;
	pthread_t releaser, allocator;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	CHECK_EQ(sem_init(&reached, 0, 0), 0);
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
	fake_set_current(primary);
	stream = new_stream();
	range = spilled(MIB(100));
	CHECK_EQ(hook_cuMemFreeAsync(range, stream), CUDA_SUCCESS);
	real_release = g_real.cuDevicePrimaryCtxRelease_v2;
	g_real.cuDevicePrimaryCtxRelease_v2 = slow_release;
	CHECK_EQ(pthread_create(&releaser, NULL, release, NULL), 0);
	sem_wait(&reached);
	CHECK_EQ(pthread_create(&allocator, NULL, allocate_meanwhile, &result), 0);
	CHECK_EQ(pthread_join(allocator, NULL), 0);
	CHECK_EQ(pthread_join(releaser, NULL), 0);
	CHECK_EQ(result, CUDA_SUCCESS);
	g_real.cuDevicePrimaryCtxRelease_v2 = real_release;
	CHECK_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
	fake_set_current(NULL);
	check_empty();
}

static CUresult slow_query(CUevent event)
{
	sem_post(&reached);
	sem_wait(&go_on);
	return real_query(event);
}

static void *reap(void *argument)
{
	emuv_deferred_reap();
	return argument;
}

static void *destroy_cancelled(void *context)
{
	pthread_cancel(pthread_self());
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	return NULL;
}

/* A cancelled thread that waits for another one's look at the driver undoes what it began. */
static void cancelled_while_it_waits(void)
{
	const struct timespec pause = { 0, 100000000 };
	pthread_t reaper, destroyer;
	CUcontext context;
	CUdeviceptr range;
	CUstream stream;

	start((setup_t){ .vram = MIB(16), .extra = MIB(100), .policy = EMUV_POLICY_SPILL,
			 .card = MIB(512) });
	CHECK_EQ(sem_init(&reached, 0, 0), 0);
	CHECK_EQ(sem_init(&go_on, 0, 0), 0);
	context = new_context(0);
	stream = new_stream();
	range = spilled(MIB(64));
	CHECK_EQ(hook_cuMemFreeAsync(range, stream), CUDA_SUCCESS);
	real_query = g_real.cuEventQuery;
	g_real.cuEventQuery = slow_query;
	CHECK_EQ(pthread_create(&reaper, NULL, reap, NULL), 0);
	sem_wait(&reached);
	CHECK_EQ(pthread_create(&destroyer, NULL, destroy_cancelled, context), 0);
	nanosleep(&pause, NULL);
	sem_post(&go_on);
	CHECK_EQ(pthread_join(reaper, NULL), 0);
	CHECK_EQ(pthread_join(destroyer, NULL), 0);
	g_real.cuEventQuery = real_query;
	fake_set_current(NULL);
	check_empty();
}

/* ---- start and fork ---- */

static void *start_cancelled(void *argument)
{
	pthread_cancel(pthread_self());
	emuv_lifecycle_start();
	return argument;
}

/* A thread that is to end opens the books all the same: others count on them. */
static void cancelled_in_its_start(void)
{
	pthread_t starter;

	start((setup_t){ .vram = MIB(16), .policy = EMUV_POLICY_CAP, .card = MIB(512) });
	CHECK_EQ(pthread_create(&starter, NULL, start_cancelled, NULL), 0);
	CHECK_EQ(pthread_join(starter, NULL), 0);
	CHECK_EQ(__atomic_load_n(&emuv_active, __ATOMIC_ACQUIRE), 1);
}

static int n_forks;

static void fork_here(int signal)
{
	int saved = errno, status;
	pid_t child = fork();

	(void)signal;
	if (child == 0)
		_exit(emuv_active || emuv_inside);
	CHECK(child > 0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	n_forks++;
	errno = saved;
}

/* A signal handler forks wherever it may have interrupted a hook. */
static void forked_in_a_handler(void)
{
#ifdef __SANITIZE_THREAD__
	return; /* which calls malloc in the handler, and says so */
#endif
	const struct sigaction action = { .sa_handler = fork_here, .sa_flags = SA_RESTART };
	const struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, never = { { 0, 0 }, { 0, 0 } };
	CUcontext context;
	CUdeviceptr address;

	start((setup_t){ .vram = MIB(16), .policy = EMUV_POLICY_CAP, .card = MIB(512) });
	context = new_context(0);
	CHECK_EQ(sigaction(SIGPROF, &action, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_PROF, &often, NULL), 0);
	while (n_forks < 100) {
		CHECK_EQ(hook_cuMemAlloc_v2(&address, 4096), CUDA_SUCCESS);
		CHECK_EQ(hook_cuMemFree_v2(address), CUDA_SUCCESS);
	}
	CHECK_EQ(setitimer(ITIMER_PROF, &never, NULL), 0);
	CHECK_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
	check_empty();
}

static void freed_in_another_context_both(void)
{
	freed_in_another_context(true);
	freed_in_another_context(false);
}

int main(int n, char **names)
{
	static const race_t races[] = {
		TEST(heads_that_do_not_leave),
		TEST(lowered_under_a_spill),
		TEST(lowered_under_a_free_that_fails),
		TEST(an_excess_leaves_once),
		TEST(no_hope_is_no_wait),
		TEST(a_stream_is_asked_once),
		TEST(a_new_module_keeps_its_variables),
		TEST(set_aside_still_counts),
		TEST(cancelled_while_it_waits),
		TEST(cancelled_in_its_start),
		TEST(forked_in_a_handler),
		TEST(freed_in_another_context_both),
	};

	alarm(55);
	emuv_message_quiet(1);
	run_races(races, sizeof races / sizeof *races, n, names);
	return 0;
}
