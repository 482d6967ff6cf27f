/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * CUDA IPC: memory of one process in another of the same user.
 *
 * Device memory is private to the process until a handle is asked for.  Then its pages
 * move into a file (share.h), which is mapped in their place: the address stays, and
 * what other processes map is the same bytes.  What moves together: an allocation with a
 * mapping of its own, or the whole slab that a small one lies in (space.c), which gives
 * out no more slots from then on.  While bytes move nothing runs (sim_order_pause).
 *
 * Behind the memory, each file has a table of the allocations in it that live and were
 * exported, by their place: a handle of what has been freed since opens nothing.
 * A mapping lives until it is closed, whatever becomes of the exporter.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"
#include "order.h"
#include "share.h"
#include "work.h"

typedef struct {
	uint64_t id, bytes; /* id 0: nothing there can be opened */
} entry_t;
#define TABLE_BYTES (SIM_BLOCK_BYTES / SIM_GRANULE_BYTES * sizeof(entry_t))

/* Of an exported mapping or slab. */
struct sim_share {
	int fd;
	uint64_t key;
	uintptr_t start;
	size_t bytes; /* in whole pages */
};

/* Of a range that another process's memory is mapped as. */
struct sim_import {
	uint64_t key, id;
	unsigned int references;
	void *map;
	size_t map_bytes;
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- export ---- */

static bool table_write(const struct sim_share *share, uintptr_t start, entry_t entry)
{
	size_t at = (start - share->start) / SIM_GRANULE_BYTES * sizeof(entry);

	return pwrite(share->fd, &entry, sizeof(entry), (off_t)(share->bytes + at)) == sizeof(entry);
}

static bool is_zero(const char *bytes, size_t count)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, count - 1);
}

/* Pages that were never written stay holes of the file. */
static bool copy_out(int fd, const char *from, size_t bytes, size_t offset)
{
	size_t page = page_bytes();

	for (size_t at = 0; at < bytes; at += page)
		if (!is_zero(from + at, page) &&
		    pwrite(fd, from + at, page, (off_t)(offset + at)) != (ssize_t)page)
			return false;
	return true;
}

/* A piece at a time, so that it takes no second copy's worth of memory. */
static bool move_pages(const struct sim_share *share)
{
	for (size_t at = 0; at < share->bytes; at += SIM_BLOCK_BYTES) {
		char *piece = (char *)share->start + at;
		size_t bytes = share->bytes - at < SIM_BLOCK_BYTES ? share->bytes - at : SIM_BLOCK_BYTES;

		if (!copy_out(share->fd, piece, bytes, at) ||
		    mmap(piece, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
			 share->fd, (off_t)at) == MAP_FAILED)
			return false; /* what has moved has the same bytes where it is */
	}
	return true;
}

static struct sim_share *share_new(uintptr_t start, size_t bytes)
{
	struct sim_share *share = calloc(1, sizeof(*share));

	if (!share)
		return NULL;
	share->start = start;
	share->bytes = sim_round_up(bytes, page_bytes());
	share->fd = sim_share_new(SIM_SHARE_MEMORY, share->bytes + TABLE_BYTES, &share->key);
	if (share->fd >= 0 && move_pages(share))
		return share;
	if (share->fd >= 0)
		close(share->fd);
	free(share);
	return NULL;
}

void sim_share_free(struct sim_share *share)
{
	if (!share)
		return;
	close(share->fd);
	free(share);
}

static struct sim_share **place_of(sim_range_t *range)
{
	return range->space ? sim_space_share(range->space) : &range->share;
}

static CUresult make_shared(uintptr_t start, uint64_t id)
{
	CUresult result = CUDA_ERROR_LAUNCH_TIMEOUT;
	sim_range_t *range;

	if (sim_order_pause()) {
		range = sim_range_find(start);
		result = CUDA_ERROR_INVALID_VALUE; /* freed meanwhile */
		if (range && range->id == id) {
			struct sim_share **place = place_of(range);
			uintptr_t from = range->start;
			size_t bytes = range->bytes;

			if (range->space)
				from = sim_space_span(range->space, &bytes);
			if (!*place)
				*place = share_new(from, bytes);
			if (*place && range->space)
				sim_space_retire(range->space);
			result = *place ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	sim_order_resume();
	return result;
}

CUresult sim_share_range(uintptr_t address, uint64_t id, sim_handle_t *handle)
{
	sim_range_t *range = sim_range_find(address);
	const struct sim_share *share = *place_of(range);

	if (!share) {
		CUresult result = make_shared(address, id);

		if (result != CUDA_SUCCESS)
			return result;
		range = sim_range_find(address);
		share = *place_of(range);
	}
	if (!table_write(share, range->start, (entry_t){ range->id, range->bytes }))
		return CUDA_ERROR_OUT_OF_MEMORY;
	range->exported = true;
	*handle = (sim_handle_t){
		.magic = SIM_HANDLE_MAGIC,
		.key = share->key,
		.id = range->id,
		.offset = range->start - share->start,
		.bytes = range->bytes,
		.pid = sim_share_self(),
		.fd = share->fd,
		.physical = (uint32_t)sim_devices[range->device].physical,
		.kind = SIM_SHARE_MEMORY,
	};
	return CUDA_SUCCESS;
}

/* ---- import ---- */

/* Is what the handle speaks of there, and alive? */
static bool agrees(const sim_handle_t *handle, int fd, size_t bytes)
{
	size_t memory = bytes - TABLE_BYTES;
	entry_t entry = { 0, 0 };

	if (bytes <= TABLE_BYTES || !handle->bytes || handle->offset > memory ||
	    handle->bytes > memory - handle->offset || handle->offset % SIM_GRANULE_BYTES ||
	    handle->offset / SIM_GRANULE_BYTES >= TABLE_BYTES / sizeof(entry))
		return false;
	return pread(fd, &entry, sizeof(entry),
		     (off_t)(memory + handle->offset / SIM_GRANULE_BYTES * sizeof(entry))) ==
		       sizeof(entry) &&
	       entry.id && entry.id == handle->id && entry.bytes == handle->bytes;
}

/* The pages around the allocation, somewhere in the arena. */
static sim_range_t *map_file(const sim_handle_t *handle, int fd, sim_range_kind_t kind)
{
	size_t inside = handle->offset % page_bytes();
	size_t bytes = sim_round_up(inside + handle->bytes, page_bytes());
	struct sim_import *import = calloc(1, sizeof(*import));
	char *map = import ? sim_map(bytes) : NULL;
	sim_range_t *range = NULL;

	if (map && mmap(map, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
			fd, (off_t)(handle->offset - inside)) != MAP_FAILED)
		range = sim_range_add(kind, (uintptr_t)map + inside, handle->bytes);
	if (!range) {
		if (map)
			sim_unmap(map, bytes);
		free(import);
		return NULL;
	}
	*import = (struct sim_import){
		.key = handle->key, .id = handle->id, .references = 1, .map = map, .map_bytes = bytes,
	};
	range->import = import;
	range->settled = true; /* it takes nothing of this process's card */
	return range;
}

CUresult sim_share_map(const sim_handle_t *handle, sim_range_kind_t kind, sim_range_t **range)
{
	CUdevice device = sim_share_device(handle->physical);
	size_t bytes;
	int fd;

	if (handle->magic != SIM_HANDLE_MAGIC || handle->kind != SIM_SHARE_MEMORY)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "a handle of shared memory is none");
	if (device < 0)
		return sim_fail(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED,
				"shared memory is of a device that this process does not see");
	fd = sim_share_open(handle->pid, handle->fd, SIM_SHARE_MEMORY, handle->key, &bytes);
	if (fd < 0)
		return sim_fail(CUDA_ERROR_INVALID_HANDLE, "what a handle of shared memory names is "
				"gone: its process (%d) has ended or freed it", handle->pid);
	*range = NULL;
	if (!agrees(handle, fd, bytes)) {
		close(fd);
		return sim_fail(CUDA_ERROR_INVALID_HANDLE, "what a handle of shared memory names "
				"has been freed");
	}
	*range = map_file(handle, fd, kind);
	close(fd);
	if (!*range)
		return CUDA_ERROR_MAP_FAILED;
	(*range)->device = device;
	return CUDA_SUCCESS;
}

/* ---- the end of either ---- */

void sim_share_end(sim_range_t *range, sim_leftover_t *leftover)
{
	if (range->import) {
		*leftover = (sim_leftover_t){ range->import->map, range->import->map_bytes };
		free(range->import);
		return;
	}
	if (range->exported)
		table_write(*place_of(range), range->start, (entry_t){ 0, 0 });
	sim_share_free(range->share);
}

/* ---- the calls ---- */

bool sim_ipc_capable(const sim_range_t *range)
{
	return range->kind == SIM_RANGE_DEVICE && !range->pool && !range->graph && !range->import &&
	       !range->leaving;
}

SIM_API(cuIpcGetMemHandle, CUipcMemHandle *handle, CUdeviceptr address)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_handle_t made;
	sim_range_t *range;

	SIM_ENTER(cuIpcGetMemHandle);
	SIM_NEED_CONTEXT(context);
	(void)context;
	sim_lock_take();
	range = handle ? sim_range_find((uintptr_t)address) : NULL;
	if (range && sim_ipc_capable(range))
		result = sim_share_range((uintptr_t)address, range->id, &made);
	sim_lock_drop();
	if (result == CUDA_ERROR_INVALID_VALUE)
		return sim_fail(result, "cuIpcGetMemHandle: 0x%llx is not memory from cuMemAlloc",
				(unsigned long long)address);
	if (result == CUDA_SUCCESS)
		memcpy(handle, &made, sizeof(made));
	return result;
}

struct look_up {
	const sim_handle_t *handle;
	sim_range_t *found;
};

static void look_up(sim_range_t *range, void *argument)
{
	struct look_up *look = argument;

	if (range->import && !range->pool && range->import->key == look->handle->key &&
	    range->import->id == look->handle->id)
		look->found = range;
}

/* sim_lock held. */
static CUresult open_in(sim_context_t *context, const sim_handle_t *handle, CUdeviceptr *address)
{
	struct look_up look = { handle, NULL };
	CUresult result;

	sim_range_each(look_up, &look);
	if (look.found) {
		if (look.found->context != context)
			return sim_fail(CUDA_ERROR_INVALID_CONTEXT, "cuIpcOpenMemHandle: another "
					"context of this process has opened the handle");
		look.found->import->references++;
		*address = look.found->start;
		return CUDA_SUCCESS;
	}
	result = sim_share_map(handle, SIM_RANGE_DEVICE, &look.found);
	if (result != CUDA_SUCCESS || !look.found)
		return result;
	look.found->context = context;
	if (look.found->device != context->device)
		context->peers |= 1u << look.found->device;
	*address = look.found->start;
	return CUDA_SUCCESS;
}

static CUresult open_memory(CUdeviceptr *address, const CUipcMemHandle *given, unsigned int flags)
{
	sim_handle_t handle;
	CUresult result;

	SIM_NEED_CONTEXT(context);
	if (!address || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&handle, given, sizeof(handle));
	if (handle.magic != SIM_HANDLE_MAGIC || handle.kind != SIM_SHARE_MEMORY || handle.pool)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuIpcOpenMemHandle: this is no handle of memory");
	if (handle.pid == sim_share_self())
		return sim_fail(CUDA_ERROR_INVALID_CONTEXT,
				"cuIpcOpenMemHandle: the handle is of this process");
	sim_lock_take();
	result = open_in(context, &handle, address);
	sim_lock_drop();
	return result;
}

SIM_API(cuIpcOpenMemHandle, CUdeviceptr *address, CUipcMemHandle handle, unsigned int flags)
{
	SIM_ENTER(cuIpcOpenMemHandle);
	return open_memory(address, &handle, flags);
}

SIM_API(cuIpcOpenMemHandle_v2, CUdeviceptr *address, CUipcMemHandle handle, unsigned int flags)
{
	SIM_ENTER(cuIpcOpenMemHandle_v2);
	return open_memory(address, &handle, flags);
}

SIM_API(cuIpcCloseMemHandle, CUdeviceptr address)
{
	sim_leftover_t leftover = { 0 };
	CUresult result;
	sim_range_t *range;

	SIM_ENTER(cuIpcCloseMemHandle);
	SIM_NEED_CONTEXT(context);
	sim_lock_take();
	result = sim_context_finish(context);
	range = result == CUDA_SUCCESS ? sim_range_unused(address) : NULL;
	if (result == CUDA_SUCCESS && !(range && range->import && !range->pool &&
					range->start == address && range->context == context))
		result = CUDA_ERROR_INVALID_VALUE;
	else if (range && !--range->import->references)
		leftover = sim_memory_delete(range);
	sim_lock_drop();
	sim_leftover_drop(leftover);
	if (result == CUDA_ERROR_INVALID_VALUE)
		return sim_fail(result, "cuIpcCloseMemHandle: 0x%llx was not opened here",
				(unsigned long long)address);
	return result;
}
