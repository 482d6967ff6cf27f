/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cuGetExportTable: emuV's own table, and nothing else.
 *
 * NVIDIA's libraries ask for tables of their own through the same call; those are not
 * public, and this driver does not have them.
 */
#include <string.h>

#include "emuv_sim_table.h"
#include "internal.h"

static bool valid(CUdevice device)
{
	return device >= 0 && device < sim_device_count;
}

static CUresult device_used(CUdevice device, uint64_t *bytes)
{
	if (!valid(device) || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	sim_order_settle();
	*bytes = sim_card_used(device);
	sim_lock_drop();
	return CUDA_SUCCESS;
}

static CUresult context_bytes(CUdevice device, uint64_t *bytes)
{
	if (!valid(device) || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	*bytes = sim_devices[device].context_bytes;
	sim_lock_drop();
	return CUDA_SUCCESS;
}

static CUresult resident(CUdeviceptr address, size_t bytes, CUdevice device, uint64_t *answer)
{
	sim_lock_take();
	sim_order_settle();
	sim_lock_drop();
	return sim_managed_resident(address, bytes, device, answer);
}

static CUresult hold_stream(CUstream handle, int hold)
{
	sim_stream_t *stream;
	CUresult result;

	sim_lock_take();
	stream = sim_stream_get(handle, false, &result);
	if (stream)
		result = sim_stream_hold(stream, hold != 0);
	sim_lock_drop();
	return result;
}

static CUresult fail(const char *function, uint64_t n, CUresult code)
{
	return function ? sim_fault_arm(function, n, true, code) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult calls(const char *function, uint64_t *count)
{
	const sim_call_t *call;

	if (!function || !count)
		return CUDA_ERROR_INVALID_VALUE;
	call = sim_call_find(function);
	if (!call)
		return CUDA_ERROR_NOT_FOUND;
	*count = atomic_load_explicit(&call->count, memory_order_relaxed);
	return CUDA_SUCCESS;
}

typedef struct {
	CUdevice device;
	unsigned int count;
} contexts_t;

static void count_context(void *object, void *argument)
{
	const sim_context_t *context = object;
	contexts_t *contexts = argument;

	if (context->device == contexts->device && context->alive)
		contexts->count++;
}

static CUresult identify(CUdevice device, int *physical, unsigned int *contexts)
{
	contexts_t found = { device, 0 };

	if (sim_forked() || !valid(device) || !physical || !contexts)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	*physical = sim_devices[device].physical;
	sim_object_each(SIM_CONTEXT, count_context, &found);
	sim_lock_drop();
	*contexts = found.count;
	return CUDA_SUCCESS;
}

static const emuv_sim_table_t table = {
	.size = sizeof(table),
	.device_used = device_used,
	.context_bytes = context_bytes,
	.resident = resident,
	.hold_stream = hold_stream,
	.fail = fail,
	.calls = calls,
	.identify = identify,
};

SIM_API(cuGetExportTable, const void **answer, const CUuuid *uuid)
{
	static const char ours[16] = EMUV_SIM_TABLE_UUID_BYTES;

	SIM_ENTER_EARLY(cuGetExportTable);
	if (!answer)
		return CUDA_ERROR_INVALID_VALUE;
	*answer = NULL;
	if (!uuid)
		return CUDA_ERROR_INVALID_VALUE;
	if (memcmp(uuid->bytes, ours, sizeof(ours)) != 0)
		return CUDA_ERROR_NOT_FOUND;
	*answer = &table;
	return CUDA_SUCCESS;
}
