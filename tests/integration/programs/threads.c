/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * threads STEPS [SEED]: eight threads allocate and free at random through every kind
 * of device memory, also what other threads allocated, and look whether the bytes
 * they wrote are still theirs.  Says "ready", waits for a line, and in the end says
 * how much it was granted and refused, having freed all.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda_abi.h"

CUresult cuInit(unsigned int flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuCtxSynchronize(void);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes);
CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height,
			    unsigned int element);
CUresult cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags);
CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream);
CUresult cuMemFree_v2(CUdeviceptr address);
CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream);
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total);
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor);
CUresult cuArrayDestroy(CUarray array);
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
		     const CUmemAllocationProp *prop, unsigned long long flags);
CUresult cuMemRelease(CUmemGenericAllocationHandle handle);

#define MUST(call)                                                                    \
	do {                                                                          \
		CUresult result_ = (call);                                            \
		if (result_) {                                                        \
			fprintf(stderr, "threads: line %d: %s: %d\n", __LINE__, #call, \
				(int)result_);                                        \
			exit(5);                                                      \
		}                                                                     \
	} while (0)

#define N_THREADS 8
#define N_SHARED 48

typedef struct {
	CUdeviceptr address;
	size_t bytes;
	int managed; /* by the program's own wish: cuMemFreeAsync does not take it */
} piece_t;

static CUcontext context;
static long steps;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static piece_t shared[N_SHARED];
static unsigned long granted, refused;

static unsigned int below(unsigned int *seed, unsigned int limit)
{
	return (unsigned int)(((unsigned long long)(unsigned int)rand_r(seed) * 7919u >> 3) % limit);
}

static piece_t exchange(unsigned int *seed, piece_t piece)
{
	unsigned int at = below(seed, N_SHARED);
	piece_t old;

	pthread_mutex_lock(&lock);
	old = shared[at];
	shared[at] = piece;
	pthread_mutex_unlock(&lock);
	return old;
}

/* Its own address, at both ends: two live pieces that overlap would show. */
static void mark(const piece_t *piece)
{
	MUST(cuMemcpyHtoD_v2(piece->address, &piece->address, sizeof piece->address));
	MUST(cuMemcpyHtoD_v2(piece->address + piece->bytes - sizeof piece->address,
			     &piece->address, sizeof piece->address));
}

static void give(const piece_t *piece, unsigned int *seed, CUstream stream)
{
	CUdeviceptr first = 0, last = 0;

	MUST(cuMemcpyDtoH_v2(&first, piece->address, sizeof first));
	MUST(cuMemcpyDtoH_v2(&last, piece->address + piece->bytes - sizeof last, sizeof last));
	if (first != piece->address || last != piece->address) {
		fprintf(stderr, "threads: bytes of %#llx were overwritten\n", piece->address);
		exit(6);
	}
	if (!piece->managed && below(seed, 2))
		MUST(cuMemFreeAsync(piece->address, stream));
	else
		MUST(cuMemFree_v2(piece->address));
}

static int counted(CUresult result)
{
	if (result && result != CUDA_ERROR_OUT_OF_MEMORY)
		MUST(result);
	__atomic_add_fetch(result ? &refused : &granted, 1, __ATOMIC_RELAXED);
	return !result;
}

static void others(unsigned int *seed)
{
	static const CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
	};
	CUDA_ARRAY_DESCRIPTOR flat = { 1024, 1 + below(seed, 2048), CU_AD_FORMAT_UNSIGNED_INT8, 1 };
	CUmemGenericAllocationHandle handle;
	size_t available, total;
	CUarray array;

	if (counted(cuArrayCreate_v2(&array, &flat)))
		MUST(cuArrayDestroy(array));
	if (counted(cuMemCreate(&handle, (size_t)(2 + 2 * below(seed, 3)) << 20, &prop, 0)))
		MUST(cuMemRelease(handle));
	MUST(cuMemGetInfo_v2(&available, &total));
	if (available > total)
		exit(7);
}

static void *work(void *argument)
{
	unsigned int seed = (unsigned int)(unsigned long)argument;
	CUstream stream;

	MUST(cuCtxSetCurrent(context));
	MUST(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	for (long step = 0; step < steps; step++) {
		unsigned int what = below(&seed, 10);
		/* Whole granules of every kind, so that what is asked for is what the card gives. */
		size_t units = 1 + below(&seed, below(&seed, 8) ? 8 : 192);
		piece_t piece = { 0, units << 16, 0 };
		CUresult result;
		size_t pitch;

		if (what == 0) {
			others(&seed);
			continue;
		}
		if (what < 4) {
			piece.bytes = 0;
		} else if (what == 4) {
			result = cuMemAllocPitch_v2(&piece.address, &pitch, 1000,
						    piece.bytes / 1024, 4);
		} else if (what == 5) {
			piece.managed = 1;
			result = cuMemAllocManaged(&piece.address, piece.bytes,
						   CU_MEM_ATTACH_GLOBAL);
		} else if (what < 8) {
			result = cuMemAllocAsync(&piece.address, piece.bytes, stream);
		} else {
			result = cuMemAlloc_v2(&piece.address, piece.bytes);
		}
		if (piece.bytes) {
			if (!counted(result))
				continue;
			mark(&piece);
		}
		piece = exchange(&seed, piece);
		if (piece.bytes)
			give(&piece, &seed, stream);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int seed = argc > 2 ? (unsigned int)atoi(argv[2]) : 1;
	pthread_t threads[N_THREADS];
	CUdeviceptr last;
	char line[16];

	steps = argc > 1 ? atol(argv[1]) : 1000;
	MUST(cuInit(0));
	MUST(cuDevicePrimaryCtxRetain(&context, 0));
	MUST(cuCtxSetCurrent(context));
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof line, stdin))
		return 4;
	for (unsigned long i = 0; i < N_THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)(seed * 100 + i + 1)))
			return 4;
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < N_SHARED; i++)
		if (shared[i].bytes)
			MUST(cuMemFree_v2(shared[i].address));
	MUST(cuCtxSynchronize());
	/* Frees that streams held up are brought to an end by the next allocation. */
	MUST(cuMemAlloc_v2(&last, 1));
	MUST(cuMemFree_v2(last));
	printf("{\"granted\": %lu, \"refused\": %lu}\n", granted, refused);
	return 0;
}
