/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cuGetProcAddress: a name, a version and a stream flavour to an exported address.
 *
 * The rows are sim_exports[], sorted here by name, flavour and version; the answer is
 * the newest row that is not newer than what was asked for.  What a program gets is
 * the address of the export itself, as dlsym would give it.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const sim_export_t **rows;

static int compare(const void *left, const void *right)
{
	const sim_export_t *a = *(const sim_export_t *const *)left;
	const sim_export_t *b = *(const sim_export_t *const *)right;
	int names = strcmp(a->name, b->name);

	if (names)
		return names;
	return a->flag != b->flag ? a->flag - b->flag : a->version - b->version;
}

static void sort(void)
{
	rows = calloc((size_t)sim_export_count, sizeof(*rows));
	for (int i = 0; rows && i < sim_export_count; i++)
		rows[i] = &sim_exports[i];
	if (rows)
		qsort(rows, (size_t)sim_export_count, sizeof(*rows), compare);
}

/* The first row of that name, or -1. */
static int find(const char *name)
{
	int low = 0, high = sim_export_count;

	while (low < high) {
		int middle = (low + high) / 2;

		if (strcmp(rows[middle]->name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < sim_export_count && strcmp(rows[low]->name, name) == 0 ? low : -1;
}

static CUresult look_up(const char *name, void **address, int version, cuuint64_t flags, int *status)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const sim_export_t *best = NULL;
	int row;

	if (!name || !address || flags & ~3ull || flags == 3)
		return CUDA_ERROR_INVALID_VALUE;
	*address = NULL;
	if (status)
		*status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	if (version > SIM_DRIVER_VERSION)
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"cuGetProcAddress: \"%s\" as of CUDA %d, this driver is %d", name,
				version, SIM_DRIVER_VERSION);
	pthread_once(&once, sort);
	if (!rows)
		return CUDA_ERROR_OUT_OF_MEMORY;
	row = find(name);
	if (row < 0)
		return CUDA_SUCCESS;
	/* Rows of flavour 0 come first, so that a per-thread one that fits wins. */
	for (; row < sim_export_count && strcmp(rows[row]->name, name) == 0; row++) {
		if (rows[row]->flag && flags != CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
			break;
		if (rows[row]->version <= version)
			best = rows[row];
	}
	if (!best) {
		if (status)
			*status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
		return CUDA_SUCCESS;
	}
	memcpy(address, &best->address, sizeof(*address));
	if (status)
		*status = CU_GET_PROC_ADDRESS_SUCCESS;
	return CUDA_SUCCESS;
}

SIM_API(cuGetProcAddress, const char *name, void **address, int version, cuuint64_t flags)
{
	SIM_ENTER_EARLY(cuGetProcAddress);
	return look_up(name, address, version, flags, NULL);
}

SIM_API(cuGetProcAddress_v2, const char *name, void **address, int version, cuuint64_t flags,
	CUdriverProcAddressQueryResult *status)
{
	int found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	CUresult result;

	SIM_ENTER_EARLY(cuGetProcAddress_v2);
	result = look_up(name, address, version, flags, &found);
	if (status)
		*status = (CUdriverProcAddressQueryResult)found;
	return result;
}
