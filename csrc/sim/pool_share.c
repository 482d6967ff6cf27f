/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pools between processes.  An exported pool is a file descriptor (share.h) that says
 * what pool it is; an exported pointer is shared as CUDA IPC shares memory (ipc.c), and
 * is imported into the pool that it was allocated from, by the pool's key.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "pool.h"
#include "share.h"

typedef struct {
	CUmemPoolProps props;
	uint32_t physical; /* device, where the memory is of one */
} label_t;

/* sim_lock held.  The pool's file, made when first asked for. */
static bool make_file(struct sim_pool *pool)
{
	label_t label = { .props = pool->props };
	int fd;

	if (pool->file)
		return true;
	label.props.win32SecurityAttributes = NULL;
	if (sim_pool_on_card(pool))
		label.physical = (uint32_t)sim_devices[sim_pool_device(pool)].physical;
	fd = sim_share_new(SIM_SHARE_POOL, sizeof(label), &pool->key);
	if (fd >= 0 && pwrite(fd, &label, sizeof(label), 0) == sizeof(label)) {
		pool->file = fd;
		return true;
	}
	if (fd >= 0)
		close(fd);
	return false;
}

SIM_API(cuMemPoolExportToShareableHandle, void *shareable, CUmemoryPool handle,
	CUmemAllocationHandleType type, unsigned long long flags)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	struct sim_pool *pool;
	int fd = -1;

	SIM_ENTER(cuMemPoolExportToShareableHandle);
	if (!shareable || flags || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	pool = sim_pool_get(handle);
	if (pool && sim_pool_exports(pool) && !pool->imported) {
		if (make_file(pool))
			fd = fcntl(pool->file, F_DUPFD_CLOEXEC, 0);
		result = fd < 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
	}
	sim_lock_drop();
	if (result == CUDA_SUCCESS)
		memcpy(shareable, &fd, sizeof(fd));
	return result;
}

static bool read_label(int fd, label_t *label, uint64_t *key)
{
	CUmemPoolProps *props = &label->props;
	size_t bytes;

	if (!sim_share_is(fd, SIM_SHARE_POOL, key, &bytes) ||
	    pread(fd, label, sizeof(*label), 0) != sizeof(*label) ||
	    props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
		return false;
	if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
		props->location.id = sim_share_device(label->physical);
		return props->location.id >= 0;
	}
	return props->location.type == CU_MEM_LOCATION_TYPE_HOST ||
	       props->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA ||
	       props->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
}

SIM_API(cuMemPoolImportFromShareableHandle, CUmemoryPool *handle, void *shareable,
	CUmemAllocationHandleType type, unsigned long long flags)
{
	struct sim_pool *pool;
	label_t label;
	uint64_t key;

	SIM_ENTER(cuMemPoolImportFromShareableHandle);
	if (!handle || flags || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
	    !read_label((int)(intptr_t)shareable, &label, &key))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	pool = sim_pool_new(&label.props);
	if (pool) {
		pool->imported = true;
		pool->key = key;
		*handle = sim_pool_handle(pool);
	}
	sim_lock_drop();
	return pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API(cuMemPoolExportPointer, CUmemPoolPtrExportData *data, CUdeviceptr address)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_handle_t handle;
	sim_range_t *range;

	SIM_ENTER(cuMemPoolExportPointer);
	if (!data)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	range = sim_range_find((uintptr_t)address);
	if (range && range->start == address && !range->leaving && !range->import &&
	    sim_pool_exports(range->pool)) {
		result = make_file(range->pool) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
		if (result == CUDA_SUCCESS) {
			uint64_t key = range->pool->key;

			result = sim_share_range(range->start, range->id, &handle);
			handle.pool = key;
		}
	}
	sim_lock_drop();
	if (result == CUDA_ERROR_INVALID_VALUE)
		return sim_fail(result, "cuMemPoolExportPointer: 0x%llx is not the start of memory "
				"from a pool that can be exported", (unsigned long long)address);
	if (result == CUDA_SUCCESS)
		memcpy(data, &handle, sizeof(handle));
	return result;
}

SIM_API(cuMemPoolImportPointer, CUdeviceptr *address, CUmemoryPool handle,
	CUmemPoolPtrExportData *data)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	struct sim_pool *pool;
	sim_range_t *range;
	sim_handle_t given;

	SIM_ENTER(cuMemPoolImportPointer);
	if (!address || !data)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&given, data, sizeof(given));
	sim_lock_take();
	pool = sim_pool_get(handle);
	if (pool && pool->imported && given.pool && given.pool == pool->key &&
	    given.bytes <= SIM_MAX_BYTES &&
	    sim_pool_take(pool, given.bytes)) {
		result = sim_share_map(&given, sim_pool_on_card(pool) ? SIM_RANGE_DEVICE : SIM_RANGE_HOST,
				       &range);
		if (result == CUDA_SUCCESS) {
			range->pool = pool;
			range->settled = false; /* its pool has an account of it */
			*address = range->start;
		} else {
			sim_pool_put(pool, given.bytes);
		}
	}
	sim_lock_drop();
	/* The documentation knows no other. */
	return result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY ? result
									    : CUDA_ERROR_INVALID_VALUE;
}
