/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reports: total is what the budget makes visible, free is what can still be
 * allocated.  Any of the pointers may be NULL; the driver is asked first, so that
 * its errors stay its own.
 */
#include <limits.h>

#include "contexts.h"
#include "deferred.h"
#include "hooks.h"
#include "pools.h"

static unsigned int clamp(uint64_t bytes)
{
	return bytes > UINT_MAX ? UINT_MAX : (unsigned int)bytes;
}

/* Where the device has a budget, replaces the driver's figures. */
static void apply(CUdevice device, uint64_t *free_bytes, uint64_t *total_bytes)
{
	emuv_report_t report;

	emuv_account_report(device, &report);
	if (report.visible == EMUV_UNLIMITED)
		return;
	*total_bytes = report.visible;
	/* Under `cap` nothing can be had that the card does not have. */
	if (report.policy == EMUV_POLICY_SPILL || report.free < *free_bytes)
		*free_bytes = report.free;
}

static CUresult get_info(enum emuv_function function, uint64_t *free_bytes, uint64_t *total_bytes)
{
	emuv_where_t where;
	size_t real_free = 0, real_total = 0;
	CUresult result;

	/* What a stream has freed by now is free. */
	emuv_deferred_reap();
	emuv_pools_settle();
	result = g_real.cuMemGetInfo_v2(&real_free, &real_total);
	*free_bytes = real_free;
	*total_bytes = real_total;
	if (!result && emuv_where_current(&where)) {
		emuv_account_call(where.device, function);
		apply(where.device, free_bytes, total_bytes);
	}
	return result;
}

CUresult hook_cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
	uint64_t free_now, total_now;
	CUresult result = get_info(EMUV_FN_cuMemGetInfo_v2, &free_now, &total_now);

	if (!result && free_bytes)
		*free_bytes = free_now;
	if (!result && total_bytes)
		*total_bytes = total_now;
	return result;
}

CUresult hook_cuMemGetInfo(unsigned int *free_bytes, unsigned int *total_bytes)
{
	uint64_t free_now, total_now;
	CUresult result = get_info(EMUV_FN_cuMemGetInfo, &free_now, &total_now);

	if (!result && free_bytes)
		*free_bytes = clamp(free_now);
	if (!result && total_bytes)
		*total_bytes = clamp(total_now);
	return result;
}

static CUresult total_mem(enum emuv_function function, CUdevice device, uint64_t *bytes)
{
	uint64_t ignored = 0;
	size_t total = 0;
	CUresult result = g_real.cuDeviceTotalMem_v2(&total, device);

	*bytes = total;
	if (!result && device >= 0 && device < EMUV_MAX_DEVICES) {
		emuv_account_call(device, function);
		apply(device, &ignored, bytes);
	}
	return result;
}

CUresult hook_cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
	uint64_t total;
	CUresult result;

	if (!bytes)
		return g_real.cuDeviceTotalMem_v2(bytes, device);
	result = total_mem(EMUV_FN_cuDeviceTotalMem_v2, device, &total);
	if (!result)
		*bytes = total;
	return result;
}

CUresult hook_cuDeviceTotalMem(unsigned int *bytes, CUdevice device)
{
	uint64_t total;
	CUresult result;

	if (!bytes)
		return g_real.cuDeviceTotalMem(bytes, device);
	result = total_mem(EMUV_FN_cuDeviceTotalMem, device, &total);
	if (!result)
		*bytes = clamp(total);
	return result;
}
