/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kernels FILE ENTRY GRID BLOCK LAUNCHES ELEMENTS SIDE
 *
 * Loads the PTX of FILE, launches ENTRY(a, b, out, side) once and says "ready FIRST",
 * nanoseconds from the module's load to the end of that launch.  Then, for each line of its
 * input, LAUNCHES launches and a synchronisation: "WALL CPU", nanoseconds for all of them
 * by the clock on the wall and of the process' CPU time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cuda_abi.h"

CUresult cuInit(unsigned int flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuCtxSynchronize(void);
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes);
CUresult cuMemsetD32_v2(CUdeviceptr address, unsigned int value, size_t count);
CUresult cuModuleLoadData(CUmodule *module, const void *image);
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
			unsigned int grid_z, unsigned int block_x, unsigned int block_y,
			unsigned int block_z, unsigned int shared, CUstream stream,
			void **parameters, void **extra);

static void check(CUresult result, const char *what)
{
	if (result == CUDA_SUCCESS)
		return;
	fprintf(stderr, "kernels: %s: error %d\n", what, result);
	exit(1);
}

static long long now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	char *text = calloc(1, 1 << 20);

	if (!file || !text || !fread(text, 1, (1 << 20) - 1, file)) {
		fprintf(stderr, "kernels: %s cannot be read\n", path);
		exit(2);
	}
	fclose(file);
	return text;
}

int main(int count, char **words)
{
	unsigned int shape[2][3] = { { 1, 1, 1 }, { 1, 1, 1 } }, side;
	CUdeviceptr address[3];
	long launches, elements;
	CUfunction function;
	long long start;
	CUcontext context;
	CUmodule module;
	char line[16];
	void *parameters[4];

	if (count != 8 || sscanf(words[3], "%u,%u", &shape[0][0], &shape[0][1]) < 1 ||
	    sscanf(words[4], "%u,%u", &shape[1][0], &shape[1][1]) < 1 ||
	    (launches = atol(words[5])) < 1 || (elements = atol(words[6])) < 1) {
		fprintf(stderr, "usage: kernels FILE ENTRY GRID BLOCK LAUNCHES ELEMENTS SIDE\n");
		return 2;
	}
	side = (unsigned int)atoi(words[7]);
	char *text = read_file(words[1]);
	check(cuInit(0), "cuInit");
	check(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
	check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
	for (int i = 0; i < 3; i++) {
		check(cuMemAlloc_v2(&address[i], (size_t)elements * 8), "cuMemAlloc");
		/* 0.5 in either width, near enough: no zeros, no NaN */
		check(cuMemsetD32_v2(address[i], 0x3f000000, (size_t)elements * 2), "cuMemsetD32");
		parameters[i] = &address[i];
	}
	parameters[3] = &side;
	check(cuCtxSynchronize(), "cuCtxSynchronize");
	start = now(CLOCK_MONOTONIC);
	check(cuModuleLoadData(&module, text), "cuModuleLoadData");
	check(cuModuleGetFunction(&function, module, words[2]), "cuModuleGetFunction");
	check(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL), "cuLaunchKernel");
	check(cuCtxSynchronize(), "cuCtxSynchronize");
	printf("ready %lld\n", now(CLOCK_MONOTONIC) - start);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		long long wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);

		for (long i = 0; i < launches; i++)
			check(cuLaunchKernel(function, shape[0][0], shape[0][1], shape[0][2],
					     shape[1][0], shape[1][1], shape[1][2], 0, NULL,
					     parameters, NULL), "cuLaunchKernel");
		check(cuCtxSynchronize(), "cuCtxSynchronize");
		printf("%lld %lld\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
		fflush(stdout);
	}
	return 0;
}
