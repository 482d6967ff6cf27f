// SPDX-License-Identifier: GPL-2.0-only
// A program of the runtime API, as nvcc builds it: managed and device memory, a constant,
// a device variable, shared memory and atomics.  Prints the sum that the device found.
#include <cmath>
#include <cstdio>
#include <cstdlib>

struct Arrays {
	float *to, *from;
	int count;
};
__constant__ float scale;
__device__ int done;

__global__ void map(Arrays arrays)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < arrays.count) {
		arrays.to[i] = scale * arrays.from[i] + sqrtf((float)i);
		atomicAdd(&done, 1);
	}
}

template <int THREADS> __global__ void sum(const float *from, float *to, int count)
{
	__shared__ float part[THREADS];
	float mine = 0;

	for (int i = threadIdx.x + blockIdx.x * THREADS; i < count; i += THREADS * gridDim.x)
		mine += from[i];
	part[threadIdx.x] = mine;
	__syncthreads();
	for (int half = THREADS / 2; half; half /= 2) {
		if (threadIdx.x < half)
			part[threadIdx.x] += part[threadIdx.x + half];
		__syncthreads();
	}
	if (threadIdx.x == 0)
		atomicAdd(to, part[0]);
}

static void check(cudaError_t error, const char *what)
{
	if (error == cudaSuccess)
		return;
	printf("%s: %d\n", what, (int)error);
	exit(1);
}
#define CHECK(call) check(call, #call)

int main()
{
	Arrays arrays = { nullptr, nullptr, 100000 };
	float three = 3, found = 0, *total;
	double wanted = 0;
	int count = 0;

	CHECK(cudaMalloc(&arrays.to, arrays.count * sizeof(float)));
	CHECK(cudaMallocManaged(&arrays.from, arrays.count * sizeof(float)));
	for (int i = 0; i < arrays.count; i++) {
		arrays.from[i] = i % 7;
		wanted += 3 * (i % 7) + std::sqrt((double)i);
	}
	CHECK(cudaMemcpyToSymbol(scale, &three, sizeof(three)));
	map<<<(arrays.count + 255) / 256, 256>>>(arrays);
	CHECK(cudaGetLastError());
	CHECK(cudaMalloc(&total, sizeof(*total)));
	CHECK(cudaMemset(total, 0, sizeof(*total)));
	sum<256><<<20, 256>>>(arrays.to, total, arrays.count);
	CHECK(cudaDeviceSynchronize());
	CHECK(cudaMemcpy(&found, total, sizeof(found), cudaMemcpyDeviceToHost));
	CHECK(cudaMemcpyFromSymbol(&count, done, sizeof(count)));
	printf("%d %s\n", count, std::fabs(found - wanted) < 1e-5 * wanted ? "right" : "wrong");
	return 0;
}
