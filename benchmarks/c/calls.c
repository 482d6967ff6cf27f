/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Times driver calls, a batch at a time and on command, so that two of these (one
 * with emuV preloaded, one without) can take turns.
 *
 *   calls OPERATION LIVE BYTES THREADS COUNT
 *
 * OPERATION
 *   pair          cuMemAlloc, then cuMemFree of the same
 *   churn         cuMemAlloc, then cuMemFree of the oldest of the LIVE
 *   async-pair    cuMemAllocAsync and cuMemFreeAsync in a stream of the thread's own
 *   async-churn   the same, of the oldest
 *   vmm-round     cuMemCreate, cuMemMap, cuMemUnmap and cuMemRelease, behind the LIVE
 *                 pages of a reservation that have a handle and a mapping each
 *   vmm-find      cuMemRetainAllocationHandle of an address inside of one of the LIVE,
 *                 and cuMemRelease
 *   prefetch         cuMemPrefetchAsync to the device of any of the LIVE, managed ranges
 *   prefetch-inside  the same, of the second half of one
 *   prefetch-head    the same, of the first eighth of one
 *   link-NAME     the function, linked
 *   address-NAME  the function at the address that cuGetProcAddress gives
 * with NAME driver-version, ctx-device, stream-query, launch or graph-launch.
 *
 * Holds LIVE allocations of BYTES (each thread its share), says "ready", the driver's
 * version and the device's name, and then for every line on standard input has each of THREADS threads do COUNT operations, after
 * an eighth as many to warm up, and prints two figures: nanoseconds from the first
 * thread's start to the last one's end, and the mean of the threads' CPU time.  Ends
 * with its input.  Exit status 1: a driver call failed; 2: usage.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda_abi.h"

CUresult cuInit(unsigned int flags);
CUresult cuDriverGetVersion(int *version);
CUresult cuDeviceGetName(char *name, int bytes, CUdevice device);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuCtxGetDevice(CUdevice *device);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuStreamQuery(CUstream stream);
CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
			unsigned int grid_z, unsigned int block_x, unsigned int block_y,
			unsigned int block_z, unsigned int shared, CUstream stream, void **params,
			void **extra);
CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream);
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes);
CUresult cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags);
CUresult cuMemPrefetchAsync(CUdeviceptr address, size_t bytes, CUdevice device, CUstream stream);
CUresult cuMemFree_v2(CUdeviceptr address);
CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream);
CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream);
CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr hint,
			     unsigned long long flags);
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size,
		     const CUmemAllocationProp *prop, unsigned long long flags);
CUresult cuMemRelease(CUmemGenericAllocationHandle handle);
CUresult cuMemMap(CUdeviceptr at, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
		  unsigned long long flags);
CUresult cuMemUnmap(CUdeviceptr at, size_t size);
CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *at);
CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
			     CUdriverProcAddressQueryResult *status);

typedef struct worker {
	void (*operation)(struct worker *, long count);
	pthread_t thread;
	long number, live, at;
	CUdeviceptr *held; /* a ring of `live`, `at` the oldest */
	CUdeviceptr pages; /* a reservation */
	CUstream stream;
	uint64_t start_ns, end_ns, cpu_ns;
} worker_t;

static CUcontext context;
static size_t bytes;
static long n_threads, count;
static pthread_barrier_t begin, finish;
static bool over;

static struct {
	CUresult (*driver_version)(int *);
	CUresult (*ctx_device)(CUdevice *);
	CUresult (*stream_query)(CUstream);
	CUresult (*launch)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int,
			   unsigned int, unsigned int, unsigned int, CUstream, void **, void **);
	CUresult (*graph_launch)(CUgraphExec, CUstream);
} address;

static void check(CUresult result, const char *what)
{
	if (__builtin_expect(result != CUDA_SUCCESS, 0)) {
		fprintf(stderr, "calls: %s: error %d\n", what, (int)result);
		exit(1);
	}
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- operations ---- */

static void op_pair(worker_t *w, long n)
{
	CUdeviceptr one;

	(void)w;
	while (n--) {
		check(cuMemAlloc_v2(&one, bytes), "cuMemAlloc");
		check(cuMemFree_v2(one), "cuMemFree");
	}
}

static void op_churn(worker_t *w, long n)
{
	while (n--) {
		CUdeviceptr oldest = w->held[w->at];

		check(cuMemAlloc_v2(&w->held[w->at], bytes), "cuMemAlloc");
		check(cuMemFree_v2(oldest), "cuMemFree");
		w->at = w->at + 1 == w->live ? 0 : w->at + 1;
	}
}

static void op_async_pair(worker_t *w, long n)
{
	CUdeviceptr one;

	while (n--) {
		check(cuMemAllocAsync(&one, bytes, w->stream), "cuMemAllocAsync");
		check(cuMemFreeAsync(one, w->stream), "cuMemFreeAsync");
	}
}

static void op_async_churn(worker_t *w, long n)
{
	while (n--) {
		CUdeviceptr oldest = w->held[w->at];

		check(cuMemAllocAsync(&w->held[w->at], bytes, w->stream), "cuMemAllocAsync");
		check(cuMemFreeAsync(oldest, w->stream), "cuMemFreeAsync");
		w->at = w->at + 1 == w->live ? 0 : w->at + 1;
	}
}

static const CUmemAllocationProp page = {
	.type = CU_MEM_ALLOCATION_TYPE_PINNED,
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
};

static void map_page(CUdeviceptr at, CUmemGenericAllocationHandle *handle)
{
	check(cuMemCreate(handle, bytes, &page, 0), "cuMemCreate");
	check(cuMemMap(at, bytes, 0, *handle, 0), "cuMemMap");
}

static void op_vmm_round(worker_t *w, long n)
{
	CUdeviceptr free_page = w->pages + (size_t)w->live * bytes;
	CUmemGenericAllocationHandle handle;

	while (n--) {
		map_page(free_page, &handle);
		check(cuMemUnmap(free_page, bytes), "cuMemUnmap");
		check(cuMemRelease(handle), "cuMemRelease");
	}
}

static void op_vmm_find(worker_t *w, long n)
{
	CUmemGenericAllocationHandle handle;

	while (n--) {
		/* Any of them: a stride that has no divisor in common with most numbers. */
		w->at = (w->at + 7919) % w->live;
		check(cuMemRetainAllocationHandle(
			      &handle, (void *)(w->pages + (size_t)w->at * bytes + bytes / 2)),
		      "cuMemRetainAllocationHandle");
		check(cuMemRelease(handle), "cuMemRelease");
	}
}

static void prefetch(worker_t *w, long n, size_t offset, size_t length)
{
	while (n--) {
		w->at = (w->at + 7919) % w->live;
		check(cuMemPrefetchAsync(w->held[w->at] + offset, length, 0, w->stream),
		      "cuMemPrefetchAsync");
	}
}

static void op_prefetch(worker_t *w, long n)
{
	prefetch(w, n, 0, bytes);
}

static void op_prefetch_inside(worker_t *w, long n)
{
	prefetch(w, n, bytes / 2, bytes / 2);
}

static void op_prefetch_head(worker_t *w, long n)
{
	prefetch(w, n, 0, bytes / 8);
}

/* One call in a loop, by link and by address. */
#define CALLS(name, linked, arguments)                          \
	static void op_link_##name(worker_t *w, long n)         \
	{                                                       \
		int value = 0;                                  \
		while (n--)                                     \
			check(linked arguments, #linked);       \
		(void)w, (void)value;                           \
	}                                                       \
	static void op_address_##name(worker_t *w, long n)      \
	{                                                       \
		int value = 0;                                  \
		while (n--)                                     \
			check(address.name arguments, #linked); \
		(void)w, (void)value;                           \
	}
CALLS(driver_version, cuDriverGetVersion, (&value))
CALLS(ctx_device, cuCtxGetDevice, (&value))
CALLS(stream_query, cuStreamQuery, (w->stream))
CALLS(launch, cuLaunchKernel, (NULL, 1, 1, 1, 32, 1, 1, 0, w->stream, NULL, NULL))
CALLS(graph_launch, cuGraphLaunch, (NULL, w->stream))

static const struct {
	const char *name;
	void (*operation)(worker_t *, long);
	enum { PLAIN, ASYNC, PAGES, MANAGED } held; /* what LIVE are of */
} operations[] = {
	{ "pair", op_pair, PLAIN },
	{ "churn", op_churn, PLAIN },
	{ "async-pair", op_async_pair, ASYNC },
	{ "async-churn", op_async_churn, ASYNC },
	{ "vmm-round", op_vmm_round, PAGES },
	{ "vmm-find", op_vmm_find, PAGES },
	{ "prefetch", op_prefetch, MANAGED },
	{ "prefetch-inside", op_prefetch_inside, MANAGED },
	{ "prefetch-head", op_prefetch_head, MANAGED },
	{ "link-driver-version", op_link_driver_version, PLAIN },
	{ "link-ctx-device", op_link_ctx_device, PLAIN },
	{ "link-stream-query", op_link_stream_query, PLAIN },
	{ "link-launch", op_link_launch, PLAIN },
	{ "link-graph-launch", op_link_graph_launch, PLAIN },
	{ "address-driver-version", op_address_driver_version, PLAIN },
	{ "address-ctx-device", op_address_ctx_device, PLAIN },
	{ "address-stream-query", op_address_stream_query, PLAIN },
	{ "address-launch", op_address_launch, PLAIN },
	{ "address-graph-launch", op_address_graph_launch, PLAIN },
};

/* As of CUDA 12.0: from 13.0 on cuCtxGetDevice has another signature. */
static void look_up(const char *name, void *function)
{
	check(cuGetProcAddress_v2(name, function, 12000, 0, NULL), name);
}

/* ---- threads ---- */

static void hold_pages(worker_t *w)
{
	check(cuMemAddressReserve(&w->pages, ((size_t)w->live + 1) * bytes, 0, 0, 0),
	      "cuMemAddressReserve");
	for (long i = 0; i < w->live; i++) {
		CUmemGenericAllocationHandle handle;

		map_page(w->pages + (size_t)i * bytes, &handle);
	}
}

static void hold(worker_t *w, int what)
{
	check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
	check(cuStreamCreate(&w->stream, 1 /* non-blocking */), "cuStreamCreate");
	w->held = calloc((size_t)w->live + 1, sizeof *w->held);
	if (!w->held)
		exit(1);
	if (what == PAGES) {
		hold_pages(w);
		return;
	}
	for (long i = 0; i < w->live && what == MANAGED; i++)
		check(cuMemAllocManaged(&w->held[i], bytes, CU_MEM_ATTACH_GLOBAL), "holding");
	for (long i = 0; i < w->live && what != MANAGED; i++)
		check(what == ASYNC ? cuMemAllocAsync(&w->held[i], bytes, w->stream) :
			      cuMemAlloc_v2(&w->held[i], bytes), "holding");
}

/*
 * Threads are spread over the processors: left alone, the scheduler may keep all of them
 * on one for the length of a batch, and they would not meet.
 */
static void spread(long i)
{
	cpu_set_t allowed, one;
	int n;

	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof allowed, &allowed))
		return;
	n = (int)(i % CPU_COUNT(&allowed));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && n-- == 0)
			CPU_SET(cpu, &one);
	pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

static void *run(void *argument)
{
	worker_t *w = argument;

	if (n_threads > 1)
		spread(w->number);
	check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
	for (;;) {
		pthread_barrier_wait(&begin);
		if (over)
			return NULL;
		w->operation(w, count / 8 + 1);
		w->start_ns = now_ns(CLOCK_MONOTONIC);
		w->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
		w->operation(w, count);
		w->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - w->cpu_ns;
		w->end_ns = now_ns(CLOCK_MONOTONIC);
		pthread_barrier_wait(&finish);
	}
}

int main(int argc, char **argv)
{
	char line[16], name[128] = "";
	worker_t *workers;
	int version = 0;
	size_t which = 0;
	long live;

	if (argc != 6) {
		fprintf(stderr, "usage: %s OPERATION LIVE BYTES THREADS COUNT\n", argv[0]);
		return 2;
	}
	while (which < sizeof operations / sizeof *operations &&
	       strcmp(operations[which].name, argv[1]) != 0)
		which++;
	live = atol(argv[2]);
	bytes = (size_t)atol(argv[3]);
	n_threads = atol(argv[4]);
	count = atol(argv[5]);
	if (which == sizeof operations / sizeof *operations || live < n_threads || !bytes ||
	    n_threads < 1 || count < 1) {
		fprintf(stderr, "%s: no such operation, or fewer live than threads\n", argv[0]);
		return 2;
	}

	check(cuInit(0), "cuInit");
	check(cuDriverGetVersion(&version), "cuDriverGetVersion");
	check(cuDeviceGetName(name, sizeof name, 0), "cuDeviceGetName");
	check(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
	look_up("cuDriverGetVersion", &address.driver_version);
	look_up("cuCtxGetDevice", &address.ctx_device);
	look_up("cuStreamQuery", &address.stream_query);
	look_up("cuLaunchKernel", &address.launch);
	look_up("cuGraphLaunch", &address.graph_launch);

	workers = calloc((size_t)n_threads, sizeof *workers);
	if (!workers)
		return 1;
	pthread_barrier_init(&begin, NULL, (unsigned int)n_threads + 1);
	pthread_barrier_init(&finish, NULL, (unsigned int)n_threads + 1);
	for (long i = 0; i < n_threads; i++) {
		workers[i].number = i;
		workers[i].operation = operations[which].operation;
		workers[i].live = live / n_threads;
		hold(&workers[i], (int)operations[which].held);
		if (pthread_create(&workers[i].thread, NULL, run, &workers[i]))
			return 1;
	}
	printf("ready %d %s\n", version, name);
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		uint64_t first = UINT64_MAX, last = 0, sum = 0;

		pthread_barrier_wait(&begin);
		pthread_barrier_wait(&finish);
		for (long i = 0; i < n_threads; i++) {
			const worker_t *w = &workers[i];

			first = w->start_ns < first ? w->start_ns : first;
			last = w->end_ns > last ? w->end_ns : last;
			sum += w->cpu_ns;
		}
		printf("%llu %llu\n", (unsigned long long)(last - first),
		       (unsigned long long)(sum / (uint64_t)n_threads));
		fflush(stdout);
	}
	over = true;
	pthread_barrier_wait(&begin);
	for (long i = 0; i < n_threads; i++)
		pthread_join(workers[i].thread, NULL);
	return 0;
}
