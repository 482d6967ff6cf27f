/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What one pair of cuMemAlloc and cuMemFree costs a C program, with whatever driver
 * dlopen("libcuda.so.1") gives it: the real one, or emuV in front of it.
 *
 *   alloc_pairs LIVE SIZE BATCH BATCHES
 *
 * holds LIVE allocations of SIZE bytes, then times BATCHES batches of BATCH pairs, and
 * prints nanoseconds a pair, one batch a line.  Exit status 1: a driver call failed.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef uint64_t address_t;

static int (*mem_alloc)(address_t *, size_t);
static int (*mem_free)(address_t);

static void *find(void *driver, const char *name)
{
	void *found = dlsym(driver, name);

	if (!found) {
		fprintf(stderr, "no %s\n", name);
		exit(1);
	}
	return found;
}

static void check(int code, const char *what)
{
	if (code) {
		fprintf(stderr, "%s: %d\n", what, code);
		exit(1);
	}
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
	int (*init)(unsigned int);
	int (*retain)(void **, int);
	int (*set_current)(void *);
	long live, batch, batches;
	address_t *held, one;
	void *driver, *context;
	size_t size;

	if (argc != 5) {
		fprintf(stderr, "usage: %s LIVE SIZE BATCH BATCHES\n", argv[0]);
		return 2;
	}
	live = atol(argv[1]);
	size = (size_t)atoll(argv[2]);
	batch = atol(argv[3]);
	batches = atol(argv[4]);

	driver = dlopen("libcuda.so.1", RTLD_NOW);
	if (!driver) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	*(void **)&init = find(driver, "cuInit");
	*(void **)&retain = find(driver, "cuDevicePrimaryCtxRetain");
	*(void **)&set_current = find(driver, "cuCtxSetCurrent");
	*(void **)&mem_alloc = find(driver, "cuMemAlloc_v2");
	*(void **)&mem_free = find(driver, "cuMemFree_v2");
	check(init(0), "cuInit");
	check(retain(&context, 0), "cuDevicePrimaryCtxRetain");
	check(set_current(context), "cuCtxSetCurrent");

	held = calloc((size_t)live + 1, sizeof(*held));
	if (!held)
		return 1;
	for (long i = 0; i < live; i++)
		check(mem_alloc(&held[i], size), "cuMemAlloc");
	for (long b = 0; b <= batches; b++) {
		double start = now_ns();

		for (long i = 0; i < batch; i++) {
			check(mem_alloc(&one, size), "cuMemAlloc");
			check(mem_free(one), "cuMemFree");
		}
		if (b) /* the first batch warms up */
			printf("%.1f\n", (now_ns() - start) / (double)batch);
	}
	for (long i = 0; i < live; i++)
		check(mem_free(held[i]), "cuMemFree");
	free(held);
	return 0;
}
