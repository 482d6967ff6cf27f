/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of races share. */
#ifndef EMUV_TEST_RACES_H
#define EMUV_TEST_RACES_H

#include "hooks_test.h"

static inline CUstream new_stream(void)
{
	CUstream stream;

	CHECK_EQ(g_real.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
	return stream;
}

static inline CUdeviceptr spilled(uint64_t bytes)
{
	CUdeviceptr address;

	CHECK_EQ(hook_cuMemAlloc_v2(&address, bytes), CUDA_SUCCESS);
	return address;
}

typedef struct {
	const char *name;
	void (*test)(void);
} race_t;
#define TEST(name) { #name, name }

/* Runs all, or the one that the command line names. */
static inline void run_races(const race_t *races, size_t n_races, int n, char **names)
{
	for (size_t i = 0; i < n_races; i++)
		if (n < 2 || strcmp(names[1], races[i].name) == 0)
			races[i].test();
}

#endif
