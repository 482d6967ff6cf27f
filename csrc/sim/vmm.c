/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtual memory management: reservations, physical memory by handle, mappings.
 *
 * The bytes of handles that stay in the process live in one sparse memfd, each handle
 * at its own offset, so that several mappings of a handle are the same bytes, and that
 * a thousand handles cost one file descriptor.  Offsets are never used twice (a 64-bit file is long
 * enough); a handle's bytes go back to the system when the handle is gone.
 *
 * A handle lives while it has references (cuMemCreate, cuMemRetainAllocationHandle)
 * or mappings; its CUmemGenericAllocationHandle is dead without references.  Its card
 * bytes belong to no context.  Mappings start without access, and are mapped without
 * access for the CPU as well, until cuMemSetAccess.
 *
 * Invariant: the mappings of a reservation are sorted by address and do not overlap.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"
#include "paging.h"
#include "share.h"
#include "vmm.h"
#include "work.h"

#define GRANULARITY SIM_BLOCK_BYTES
#define FILE_BYTES ((off_t)1 << 62)

typedef struct {
	uintptr_t start;
	size_t bytes;
	vmm_t *vmm;
	CUmemAccess_flags access[SIM_MAX_DEVICES];
	CUmemAccess_flags host_access;
} map_t;
struct sim_vmm_map {
	size_t count, room;
	map_t map[];
};

static int file = -1;
static off_t file_used;

vmm_t *sim_vmm_get(CUmemGenericAllocationHandle handle)
{
	struct vmm_object *object = sim_object_get((void *)(uintptr_t)handle, SIM_VMM);
	return object ? object->vmm : NULL;
}

static bool on_card(const vmm_t *vmm)
{
	return vmm->prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE;
}

/* Ends what has neither references nor mappings. */
static void vmm_settle(vmm_t *vmm)
{
	if (vmm->references || vmm->mappings)
		return;
	if (on_card(vmm) && !vmm->imported)
		sim_card_give(vmm->prop.location.id, vmm->bytes);
	if (vmm->own_file)
		close(vmm->file);
	else
		fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, vmm->offset,
			  (off_t)vmm->bytes);
	free(vmm);
}

/* ---- what may be created ---- */

/* The one node of the simulated machine (CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID). */
#define HOST_NODE 0

static CUresult prop_check(const CUmemAllocationProp *prop)
{
	if (!prop || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	switch (prop->location.type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		if (prop->location.id < 0 || prop->location.id >= sim_device_count)
			return CUDA_ERROR_INVALID_DEVICE;
		return CUDA_SUCCESS;
	case CU_MEM_LOCATION_TYPE_HOST: /* of which nothing can be exported */
		return prop->requestedHandleTypes ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
		return prop->location.id == HOST_NODE ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
	default: /* HOST_NUMA_CURRENT too: a handle has a node by its number, or none */
		return CUDA_ERROR_INVALID_VALUE;
	}
}

SIM_API(cuMemGetAllocationGranularity, size_t *granularity, const CUmemAllocationProp *prop,
	CUmemAllocationGranularity_flags option)
{
	SIM_ENTER(cuMemGetAllocationGranularity);
	if (!granularity || (option != CU_MEM_ALLOC_GRANULARITY_MINIMUM &&
			     option != CU_MEM_ALLOC_GRANULARITY_RECOMMENDED))
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = prop_check(prop);
	if (result == CUDA_SUCCESS)
		*granularity = GRANULARITY;
	return result;
}

static bool file_open(void)
{
	if (file >= 0)
		return true;
	int opened = memfd_create("emuv-sim-vmm", MFD_CLOEXEC);
	if (opened < 0)
		return false;
	if (ftruncate(opened, FILE_BYTES)) {
		close(opened);
		return false;
	}
	file = sim_share_high(opened);
	return true;
}

vmm_t *sim_vmm_new(size_t bytes, const CUmemAllocationProp *prop, int own)
{
	vmm_t *vmm = calloc(1, sizeof(*vmm));
	struct vmm_object *handle = vmm ? sim_object_new(SIM_VMM, sizeof(*handle), NULL) : NULL;
	if (!handle) {
		free(vmm);
		return NULL;
	}
	handle->vmm = vmm;
	vmm->prop = *prop;
	vmm->prop.allocFlags.compressionType = 0; /* a hint; this card compresses nothing */
	vmm->bytes = bytes;
	vmm->references = 1;
	vmm->handle = handle;
	vmm->file = own;
	vmm->own_file = true;
	return vmm;
}

/* sim_lock held.  What may be exported is in a file of its own, the rest in that of all. */
static vmm_t *create(size_t bytes, const CUmemAllocationProp *prop)
{
	bool exports = prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE;
	int own = exports ? sim_vmm_file(bytes, prop) : -1;
	vmm_t *vmm = NULL;
	if (exports ? own >= 0 : file_open())
		vmm = sim_vmm_new(bytes, prop, own);
	if (vmm && !exports) {
		vmm->file = file;
		vmm->own_file = false;
		vmm->offset = file_used;
		file_used += (off_t)bytes;
	}
	if (!vmm && own >= 0)
		close(own);
	return vmm;
}

SIM_API(cuMemCreate, CUmemGenericAllocationHandle *handle, size_t bytes,
	const CUmemAllocationProp *prop, unsigned long long flags)
{
	SIM_ENTER(cuMemCreate);
	if (!handle || !bytes || bytes % GRANULARITY || flags)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = prop_check(prop);
	if (result != CUDA_SUCCESS)
		return result;
	if (prop->requestedHandleTypes & ~(unsigned int)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;

	bool device = prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
	result = CUDA_ERROR_OUT_OF_MEMORY;
	sim_lock_take();
	if (bytes <= SIM_MAX_BYTES && (!device || sim_card_take(prop->location.id, bytes))) {
		vmm_t *vmm = create(bytes, prop);
		if (vmm) {
			*handle = (uintptr_t)vmm->handle;
			result = CUDA_SUCCESS;
		} else if (device) {
			sim_card_give(prop->location.id, bytes);
		}
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuMemRelease, CUmemGenericAllocationHandle handle)
{
	SIM_ENTER(cuMemRelease);
	sim_lock_take();
	vmm_t *vmm = sim_vmm_get(handle);
	if (vmm && !--vmm->references) {
		sim_object_delete(vmm->handle);
		vmm->handle = NULL;
		vmm_settle(vmm);
	}
	sim_lock_drop();
	return vmm ? CUDA_SUCCESS : sim_fail(CUDA_ERROR_INVALID_VALUE,
					     "cuMemRelease: 0x%llx is no live handle", handle);
}

SIM_API(cuMemGetAllocationPropertiesFromHandle, CUmemAllocationProp *prop,
	CUmemGenericAllocationHandle handle)
{
	SIM_ENTER(cuMemGetAllocationPropertiesFromHandle);
	if (!prop)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	vmm_t *vmm = sim_vmm_get(handle);
	if (vmm)
		*prop = vmm->prop;
	sim_lock_drop();
	return vmm ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- reservations ---- */

SIM_API(cuMemAddressReserve, CUdeviceptr *address, size_t bytes, size_t alignment, CUdeviceptr hint,
	unsigned long long flags)
{
	SIM_ENTER(cuMemAddressReserve);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	if (!address || !bytes || bytes % page || flags || (alignment & (alignment - 1)))
		return CUDA_ERROR_INVALID_VALUE;
	if (alignment < GRANULARITY)
		alignment = GRANULARITY;
	if (bytes > SIM_MAX_BYTES || alignment > SIM_MAX_BYTES)
		return CUDA_ERROR_OUT_OF_MEMORY;
	void *start = sim_arena_take(bytes, alignment, (uintptr_t)hint);
	if (!start)
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_lock_take();
	sim_range_t *range = sim_range_add(SIM_RANGE_RESERVED, (uintptr_t)start, bytes);
	sim_lock_drop();
	if (!range) {
		sim_arena_give(start, bytes);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*address = (uintptr_t)start;
	return CUDA_SUCCESS;
}

SIM_API(cuMemAddressFree, CUdeviceptr address, size_t bytes)
{
	SIM_ENTER(cuMemAddressFree);
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	bool may = range && range->kind == SIM_RANGE_RESERVED && range->start == address &&
		   range->bytes == bytes && !(range->maps && range->maps->count);
	if (may) {
		free(range->maps);
		sim_range_remove(range);
	}
	sim_lock_drop();
	if (!may)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuMemAddressFree: 0x%llx + %zu is no "
				"reservation, or has mappings", (unsigned long long)address, bytes);
	sim_arena_give((void *)(uintptr_t)address, bytes);
	return CUDA_SUCCESS;
}

/* ---- mappings ---- */

/* Index of the first mapping that ends after the address. */
static size_t map_index(const struct sim_vmm_map *maps, uintptr_t address)
{
	size_t low = 0, high = maps ? maps->count : 0;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (maps->map[middle].start + maps->map[middle].bytes <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static map_t *map_at(const sim_range_t *range, uintptr_t address)
{
	size_t index = map_index(range->maps, address);
	if (!range->maps || index == range->maps->count || range->maps->map[index].start > address)
		return NULL;
	return &range->maps->map[index];
}

bool sim_vmm_mapping(const sim_range_t *range, uintptr_t address, CUdevice device,
		     sim_mapping_t *mapping)
{
	const map_t *map = map_at(range, address);
	if (!map)
		return false;
	*mapping = (sim_mapping_t){
		.start = map->start,
		.bytes = map->bytes,
		.location = map->vmm->prop.location,
		.handle_types = map->vmm->prop.requestedHandleTypes,
		.access = map->access[device],
	};
	return true;
}

/* The reservation that [address, address + bytes) lies in, or NULL.  sim_lock held. */
static sim_range_t *reservation(CUdeviceptr address, size_t bytes)
{
	sim_range_t *range = sim_range_find((uintptr_t)address);
	if (!range || range->kind != SIM_RANGE_RESERVED || !bytes ||
	    bytes > range->bytes - (address - range->start))
		return NULL;
	return range;
}

/* Room for one more mapping at the index; false: no memory. */
static bool map_insert(sim_range_t *range, size_t index)
{
	struct sim_vmm_map *maps = range->maps;
	if (!maps || maps->count == maps->room) {
		size_t count = maps ? maps->count : 0, room = count ? 2 * count : 8;
		maps = realloc(maps, sizeof(*maps) + room * sizeof(maps->map[0]));
		if (!maps)
			return false;
		maps->count = count;
		maps->room = room;
		range->maps = maps;
	}
	memmove(&maps->map[index + 1], &maps->map[index],
		(maps->count - index) * sizeof(maps->map[0]));
	maps->count++;
	return true;
}

SIM_API(cuMemMap, CUdeviceptr address, size_t bytes, size_t offset,
	CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	SIM_ENTER(cuMemMap);
	if (!bytes || (address | bytes | offset) % GRANULARITY || flags)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	vmm_t *vmm = sim_vmm_get(handle);
	sim_range_t *range = reservation(address, bytes);
	size_t index = range ? map_index(range->maps, (uintptr_t)address) : 0;
	bool taken = range && range->maps && index < range->maps->count &&
		     range->maps->map[index].start < address + bytes;
	if (vmm && range && !taken && offset <= vmm->bytes && bytes <= vmm->bytes - offset) {
		result = CUDA_ERROR_OUT_OF_MEMORY;
		if (mmap((void *)(uintptr_t)address, bytes, PROT_NONE,
			 MAP_SHARED | MAP_FIXED | MAP_NORESERVE, vmm->file,
			 vmm->offset + (off_t)offset) != MAP_FAILED &&
		    map_insert(range, index)) {
			range->maps->map[index] = (map_t){
				.start = (uintptr_t)address, .bytes = bytes, .vmm = vmm,
			};
			vmm->mappings++;
			result = CUDA_SUCCESS;
		}
	}
	sim_lock_drop();
	if (result == CUDA_ERROR_INVALID_VALUE)
		return sim_fail(result, "cuMemMap: 0x%llx + %zu is not reserved, is mapped already, "
				"or handle 0x%llx is not alive or too small",
				(unsigned long long)address, bytes, handle);
	return result;
}

/*
 * The mappings that make up [address, address + bytes) without a gap and without one
 * being cut: *first, and how many; 0 where they do not.  sim_lock held.
 */
static size_t whole_maps(const sim_range_t *range, uintptr_t address, size_t bytes, size_t *first)
{
	if (!range || !range->maps)
		return 0;
	*first = map_index(range->maps, address);
	uintptr_t at = address, end = address + bytes;
	size_t index = *first;
	for (; at < end && index < range->maps->count && range->maps->map[index].start == at; index++)
		at += range->maps->map[index].bytes;
	return at == end ? index - *first : 0;
}

SIM_API(cuMemUnmap, CUdeviceptr address, size_t bytes)
{
	SIM_ENTER(cuMemUnmap);
	sim_lock_take();
	CUresult result = sim_current_finish();
	if (result != CUDA_SUCCESS) {
		sim_lock_drop();
		return result;
	}
	sim_range_t *range = reservation(address, bytes);
	size_t first, count = whole_maps(range, (uintptr_t)address, bytes, &first);
	if (count) {
		mmap((void *)(uintptr_t)address, bytes, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		struct sim_vmm_map *maps = range->maps;
		for (size_t i = first; i < first + count; i++) {
			maps->map[i].vmm->mappings--;
			vmm_settle(maps->map[i].vmm);
		}
		memmove(&maps->map[first], &maps->map[first + count],
			(maps->count - first - count) * sizeof(maps->map[0]));
		maps->count -= count;
	}
	sim_lock_drop();
	if (!count)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuMemUnmap: 0x%llx + %zu is not made up "
				"of whole mappings", (unsigned long long)address, bytes);
	return CUDA_SUCCESS;
}

SIM_API(cuMemRetainAllocationHandle, CUmemGenericAllocationHandle *handle, void *address)
{
	SIM_ENTER(cuMemRetainAllocationHandle);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	map_t *map = range && range->kind == SIM_RANGE_RESERVED ? map_at(range, (uintptr_t)address)
								: NULL;
	if (map) {
		vmm_t *vmm = map->vmm;
		if (!vmm->handle) {
			vmm->handle = sim_object_new(SIM_VMM, sizeof(*vmm->handle), NULL);
			if (vmm->handle)
				vmm->handle->vmm = vmm;
		}
		result = CUDA_ERROR_OUT_OF_MEMORY;
		if (vmm->handle) {
			vmm->references++;
			*handle = (uintptr_t)vmm->handle;
			result = CUDA_SUCCESS;
		}
	}
	sim_lock_drop();
	return result;
}

/* ---- access ---- */

static CUresult access_check(const CUmemAccessDesc *desc)
{
	if (desc->flags != CU_MEM_ACCESS_FLAGS_PROT_NONE &&
	    desc->flags != CU_MEM_ACCESS_FLAGS_PROT_READ &&
	    desc->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
		return CUDA_ERROR_INVALID_VALUE;
	if (desc->location.type == CU_MEM_LOCATION_TYPE_HOST ||
	    desc->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA)
		return CUDA_SUCCESS;
	if (desc->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	return desc->location.id >= 0 && desc->location.id < sim_device_count ?
		       CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* The CPU may do what any one device or the host may: it does the devices' work. */
static void map_protect(const map_t *map)
{
	unsigned int all = map->host_access;
	for (CUdevice device = 0; device < sim_device_count; device++)
		all |= map->access[device];
	int protection = all == CU_MEM_ACCESS_FLAGS_PROT_NONE ? PROT_NONE :
			 all == CU_MEM_ACCESS_FLAGS_PROT_READ ? PROT_READ :
								PROT_READ | PROT_WRITE;
	mprotect((void *)map->start, map->bytes, protection);
}

/* Device memory has no access from the host, and only a node's memory from a node. */
static bool may_access(const vmm_t *vmm, CUmemLocationType from)
{
	switch (from) {
	case CU_MEM_LOCATION_TYPE_HOST:
		return !on_card(vmm);
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
		return vmm->prop.location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA;
	default:
		return true;
	}
}

SIM_API(cuMemSetAccess, CUdeviceptr address, size_t bytes, const CUmemAccessDesc *desc, size_t count)
{
	SIM_ENTER(cuMemSetAccess);
	if (!desc || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		CUresult result = access_check(&desc[i]);
		if (result != CUDA_SUCCESS)
			return result;
	}
	bool good = true;
	sim_lock_take();
	sim_range_t *range = reservation(address, bytes);
	size_t first = 0, maps = whole_maps(range, (uintptr_t)address, bytes, &first);
	for (size_t i = first; i < first + maps; i++)
		for (size_t k = 0; k < count; k++)
			good = good && may_access(range->maps->map[i].vmm, desc[k].location.type);
	for (size_t i = first; i < first + maps && good; i++) {
		map_t *map = &range->maps->map[i];
		for (size_t k = 0; k < count; k++) {
			if (desc[k].location.type == CU_MEM_LOCATION_TYPE_DEVICE)
				map->access[desc[k].location.id] = desc[k].flags;
			else
				map->host_access = desc[k].flags;
		}
		map_protect(map);
	}
	sim_lock_drop();
	return good && maps ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuMemGetAccess, unsigned long long *flags, const CUmemLocation *location,
	CUdeviceptr address)
{
	SIM_ENTER(cuMemGetAccess);
	if (!flags || !location)
		return CUDA_ERROR_INVALID_VALUE;
	CUmemAccessDesc desc = { *location, CU_MEM_ACCESS_FLAGS_PROT_NONE };
	CUresult result = access_check(&desc);
	if (result != CUDA_SUCCESS)
		return result;
	sim_lock_take();
	sim_range_t *range = sim_range_find((uintptr_t)address);
	map_t *map = range && range->kind == SIM_RANGE_RESERVED ?
			     map_at(range, (uintptr_t)address) : NULL;
	if (map)
		*flags = location->type == CU_MEM_LOCATION_TYPE_DEVICE ? map->access[location->id]
									: map->host_access;
	sim_lock_drop();
	return map ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
