/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * churn SEED MOST [ROUNDS]: allocates and frees at random, at most MOST bytes a piece, in
 * two threads, by cuMemAlloc, cuMemAllocManaged and (not with CHURN_PLAIN set)
 * cuMemAllocAsync, until it is killed or has done ROUNDS.  "ready" when it has begun; at
 * the end "N granted".
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cuda_abi.h"

CUresult cuInit(unsigned int flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes);
CUresult cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags);
CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream);
CUresult cuMemFree_v2(CUdeviceptr address);

static CUcontext context;
static size_t most;
static long rounds = -1;
static int plain;
static unsigned long granted;

static void *churn(void *argument)
{
	unsigned int seed = (unsigned int)(unsigned long)argument;
	CUdeviceptr held[6];
	int n = 0;

	if (cuCtxSetCurrent(context))
		exit(1);
	for (long i = 0; i != rounds; i++) {
		size_t bytes = 1 + ((size_t)rand_r(&seed) * 4099 + (size_t)rand_r(&seed)) % most;
		CUresult result;

		if (n == 6 || (n && rand_r(&seed) % 2)) {
			if (cuMemFree_v2(held[--n]))
				exit(2);
			continue;
		}
		switch (rand_r(&seed) % 4) {
		case 0:
			result = cuMemAllocManaged(&held[n], bytes, 1);
			break;
		case 1:
			result = plain ? cuMemAlloc_v2(&held[n], bytes) :
					 cuMemAllocAsync(&held[n], bytes, NULL);
			break;
		default:
			result = cuMemAlloc_v2(&held[n], bytes);
		}
		if (result && result != CUDA_ERROR_OUT_OF_MEMORY)
			exit(3);
		n += !result;
		__atomic_fetch_add(&granted, !result, __ATOMIC_RELAXED);
		usleep((unsigned int)rand_r(&seed) % 300);
	}
	while (n)
		if (cuMemFree_v2(held[--n]))
			exit(4);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long seed = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
	pthread_t threads[2];

	most = argc > 2 ? strtoul(argv[2], NULL, 10) : 1 << 20;
	plain = getenv("CHURN_PLAIN") != NULL;
	if (argc > 3)
		rounds = strtol(argv[3], NULL, 10);
	if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0))
		return 1;
	puts("ready");
	fflush(stdout);
	for (unsigned long i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, churn, (void *)(seed * 2 + i + 1)))
			return 1;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("%lu granted\n", granted);
	return 0;
}
