/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A real program for the interposer under sanitizers: two processes of four threads, each
 * with streams of its own, allocate in every form past the budget, look at every byte,
 * and free; in between the first process forks with its threads at work.
 *
 *   work_behind_shim LIBRARY free|keep      keep: ends with much still allocated
 *
 * Refusals (out of memory) are part of it; anything else that the driver refuses ends it.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "check.h"
#include "cuda_abi.h"

enum { THREADS = 4, ROUNDS = 32, LARGEST = 6 << 20, GRANULE = 2 << 20 };

typedef struct {
	pthread_t thread;
	uint64_t state;
	word_t one, two, event;
	unsigned char *seen; /* pinned */
} worker_t;

static word_t context;
static int keep;
static unsigned int granted, refused; /* atomic */

static size_t any(worker_t *worker, size_t limit)
{
	return 1 + (size_t)random_below(&worker->state, limit);
}

/* Whether an allocation came about. */
static int got(int code)
{
	expect(code == 0 || code == CUDA_ERROR_OUT_OF_MEMORY, "an allocation's code");
	__atomic_add_fetch(code ? &refused : &granted, 1, __ATOMIC_RELAXED);
	return code == 0;
}

/* Fills on one stream, reads the first, the middle and the last byte on the other. */
static void use(worker_t *worker, word_t address, size_t bytes)
{
	size_t at[3] = { 0, bytes / 2, bytes - 1 };
	unsigned char value = (unsigned char)any(worker, 250);

	CALL("cuMemsetD8Async", address, value, bytes, worker->one);
	CALL("cuEventRecord", worker->event, worker->one);
	CALL("cuStreamWaitEvent", worker->two, worker->event, 0);
	for (int i = 0; i < 3; i++)
		CALL("cuMemcpyDtoHAsync_v2", worker->seen + i, address + at[i], 1, worker->two);
	CALL("cuStreamSynchronize", worker->two);
	for (int i = 0; i < 3; i++)
		expect(worker->seen[i] == value, "a byte of an allocation");
}

static void plain(worker_t *worker)
{
	size_t bytes = any(worker, LARGEST), pitch;
	word_t first, second;

	if (got(ATTEMPT("cuMemAlloc_v2", &first, bytes))) {
		use(worker, first, bytes);
		if (!keep)
			CALL("cuMemFree_v2", first);
	}
	if (got(ATTEMPT("cuMemAllocPitch_v2", &second, &pitch, 1000, any(worker, 2000), 4))) {
		use(worker, second, pitch);
		CALL("cuMemFree_v2", second);
	}
}

/* Allocated in one stream's order, freed in another's. */
static void ordered(worker_t *worker)
{
	int per_thread = any(worker, 2) == 1;
	size_t bytes = any(worker, LARGEST);
	word_t address;

	if (!got(per_thread ? ATTEMPT("cuMemAllocAsync_ptsz", &address, bytes, 0)
			    : ATTEMPT("cuMemAllocAsync", &address, bytes, worker->one)))
		return;
	if (per_thread)
		CALL("cuStreamSynchronize_ptsz", 0);
	use(worker, address, bytes);
	if (any(worker, 2) == 1)
		CALL("cuMemFreeAsync", address, worker->two);
	else
		CALL("cuMemFree_v2", address);
}

static void managed(worker_t *worker)
{
	size_t bytes = any(worker, LARGEST);
	unsigned char *host;
	word_t address;

	if (!got(ATTEMPT("cuMemAllocManaged", &address, bytes, CU_MEM_ATTACH_GLOBAL)))
		return;
	/* The program's own hints: clipped where they would break the budget. */
	CALL("cuMemAdvise", address, bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, 0);
	CALL("cuMemPrefetchAsync", address, bytes, 0, worker->one);
	use(worker, address, bytes);
	CALL("cuMemPrefetchAsync", address, bytes, CU_DEVICE_CPU, worker->one);
	CALL("cuStreamSynchronize", worker->one);
	host = (unsigned char *)(uintptr_t)address;
	host[bytes - 1] = 7;
	expect(host[bytes - 1] == 7, "a byte of managed memory");
	CALL("cuMemFree_v2", address);
}

/* A pool that keeps what is freed, until it is told not to. */
static void pooled(worker_t *worker)
{
	CUmemPoolProps props = {
		.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE },
	};
	uint64_t all = UINT64_MAX;
	word_t pool, address;

	CALL("cuMemPoolCreate", &pool, &props);
	CALL("cuMemPoolSetAttribute", pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all);
	for (int i = 0; i < 3; i++) {
		size_t bytes = any(worker, LARGEST);

		if (!got(ATTEMPT("cuMemAllocFromPoolAsync", &address, bytes, pool, worker->one)))
			continue;
		use(worker, address, bytes);
		CALL("cuMemFreeAsync", address, worker->one);
	}
	CALL("cuStreamSynchronize", worker->one);
	CALL("cuMemPoolTrimTo", pool, 0);
	CALL("cuMemPoolDestroy", pool);
}

static void mapped(worker_t *worker)
{
	CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE },
	};
	CUmemAccessDesc access = { prop.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	size_t bytes = GRANULE * any(worker, 3);
	word_t address, handle;

	if (!got(ATTEMPT("cuMemCreate", &handle, bytes, &prop, 0)))
		return;
	CALL("cuMemAddressReserve", &address, bytes, 0, 0, 0);
	CALL("cuMemMap", address, bytes, 0, handle, 0);
	CALL("cuMemSetAccess", address, bytes, &access, 1);
	CALL("cuMemRelease", handle);
	use(worker, address, bytes);
	CALL("cuMemUnmap", address, bytes);
	CALL("cuMemAddressFree", address, bytes);
}

static void array(worker_t *worker)
{
	CUDA_ARRAY_DESCRIPTOR descriptor = {
		.Width = any(worker, 1000), .Height = any(worker, 500),
		.Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4,
	};
	word_t handle;

	if (got(ATTEMPT("cuArrayCreate_v2", &handle, &descriptor)))
		CALL("cuArrayDestroy", handle);
}

/* A graph over memory that may be spilled, and with memory of its own, launched twice. */
static void graph(worker_t *worker)
{
	size_t bytes = any(worker, LARGEST);
	word_t address, made, exec, inner;

	if (!got(ATTEMPT("cuMemAlloc_v2", &address, bytes)))
		return;
	CALL("cuStreamBeginCapture_v2", worker->one, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
	CALL("cuMemsetD8Async", address, 0x55, bytes, worker->one);
	CALL("cuMemcpyDtoHAsync_v2", worker->seen, address + bytes - 1, 1, worker->one);
	CALL("cuMemAllocAsync", &inner, 4096, worker->one);
	CALL("cuMemsetD8Async", inner, 0x66, 4096, worker->one);
	CALL("cuMemcpyDtoHAsync_v2", worker->seen + 1, inner + 4095, 1, worker->one);
	CALL("cuMemFreeAsync", inner, worker->one);
	CALL("cuStreamEndCapture", worker->one, &made);
	CALL("cuGraphInstantiateWithFlags", &exec, made, 0);
	for (int i = 0; i < 2 && got(ATTEMPT("cuGraphLaunch", exec, worker->one)); i++) {
		CALL("cuStreamSynchronize", worker->one);
		expect(worker->seen[0] == 0x55 && worker->seen[1] == 0x66, "a graph's bytes");
	}
	CALL("cuGraphExecDestroy", exec);
	CALL("cuGraphDestroy", made);
	CALL("cuMemFree_v2", address);
}

static void *work(void *argument)
{
	static void (*const forms[])(worker_t *) = { plain, ordered, managed, pooled,
						 mapped, array, graph };
	worker_t *worker = argument;
	size_t free_bytes, total;

	CALL("cuCtxSetCurrent", context);
	CALL("cuStreamCreate", &worker->one, 1);
	CALL("cuStreamCreate", &worker->two, 1);
	CALL("cuEventCreate", &worker->event, 2);
	CALL("cuMemHostAlloc", &worker->seen, 64, 0);
	for (int round = 0; round < ROUNDS; round++) {
		forms[any(worker, sizeof(forms) / sizeof(*forms)) - 1](worker);
		CALL("cuMemGetInfo_v2", &free_bytes, &total);
		expect(free_bytes <= total, "cuMemGetInfo");
	}
	CALL("cuStreamSynchronize", worker->two);
	CALL("cuStreamSynchronize", worker->one);
	CALL("cuMemFreeHost", worker->seen);
	CALL("cuEventDestroy_v2", worker->event);
	CALL("cuStreamDestroy_v2", worker->two);
	CALL("cuStreamDestroy_v2", worker->one);
	return NULL;
}

/* A child of a process whose threads are at work: it is answered, and ends. */
static void fork_amid(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		size_t free_bytes, total;
		word_t address;

		ATTEMPT("cuMemGetInfo_v2", &free_bytes, &total);
		ATTEMPT("cuMemAlloc_v2", &address, 4096);
		ATTEMPT("cuInit", 0);
		_exit(0);
	}
	expect(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a forked child's end");
}

int main(int argc, char **argv)
{
	static worker_t workers[THREADS];
	pid_t other;
	int status;

	alarm(100);
	library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!library) {
		fprintf(stderr, "usage: work_behind_shim LIBRARY free|keep (%s)\n",
			argc == 3 ? dlerror() : "");
		return 2;
	}
	keep = argv[2][0] == 'k';
	other = fork();
	CALL("cuInit", 0);
	CALL("cuDevicePrimaryCtxRetain", &context, 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		workers[i].state = 77 + i + (other ? 0 : THREADS);
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (int i = 0; other && i < 3; i++)
		fork_amid();
	for (int i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	if (!keep)
		CALL("cuDevicePrimaryCtxRelease_v2", 0);
	if (!other)
		return 0; /* with its own look for leaks */
	expect(waitpid(other, &status, 0) == other && status == 0, "the other process's end");
	expect(granted > 10 && refused > 0, "some were granted, some refused");
	printf("%u granted, %u refused\n", granted, refused);
	return 0;
}
