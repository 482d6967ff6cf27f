/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Handles of cuMemCreate between processes, as file descriptors.
 *
 * Memory that asked for it has a file of its own (share.h); a page behind the bytes says
 * what they are.  An exported descriptor is that file: it may be inherited or sent over a
 * socket, and the bytes live while anybody has it open or mapped.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "share.h"
#include "vmm.h"

typedef struct {
	uint64_t bytes;
	uint32_t physical, unused; /* device, where the memory is of one */
	CUmemAllocationProp prop;
} label_t;
#define LABEL_BYTES 4096
_Static_assert(sizeof(label_t) <= LABEL_BYTES, "a label has a page");

int sim_vmm_file(size_t bytes, const CUmemAllocationProp *prop)
{
	label_t label = { .bytes = bytes, .prop = *prop };
	uint64_t key;
	int fd = sim_share_new(SIM_SHARE_VMM, bytes + LABEL_BYTES, &key);

	label.prop.win32HandleMetaData = NULL;
	if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
		label.physical = (uint32_t)sim_devices[prop->location.id].physical;
	if (fd >= 0 && pwrite(fd, &label, sizeof(label), (off_t)bytes) != sizeof(label)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

SIM_API(cuMemExportToShareableHandle, void *shareable, CUmemGenericAllocationHandle handle,
	CUmemAllocationHandleType type, unsigned long long flags)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	vmm_t *vmm;
	int fd = -1;

	SIM_ENTER(cuMemExportToShareableHandle);
	if (!shareable || flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	sim_lock_take();
	vmm = sim_vmm_get(handle);
	if (vmm && vmm->prop.requestedHandleTypes & (unsigned int)type) {
		fd = fcntl(vmm->file, F_DUPFD_CLOEXEC, 0);
		result = fd < 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
	}
	sim_lock_drop();
	if (result == CUDA_ERROR_INVALID_VALUE)
		return sim_fail(result, "cuMemExportToShareableHandle: 0x%llx is no handle of memory "
				"that was asked for to be exported", handle);
	if (result == CUDA_SUCCESS)
		memcpy(shareable, &fd, sizeof(fd));
	return result;
}

/* A stranger's words, as far as this process can take them. */
static CUresult read_label(int fd, label_t *label)
{
	size_t bytes;
	uint64_t key;
	CUdevice device;

	if (!sim_share_is(fd, SIM_SHARE_VMM, &key, &bytes) || bytes <= LABEL_BYTES ||
	    pread(fd, label, sizeof(*label), (off_t)(bytes - LABEL_BYTES)) != sizeof(*label) ||
	    label->bytes != bytes - LABEL_BYTES || label->bytes % SIM_BLOCK_BYTES ||
	    label->bytes > SIM_MAX_BYTES || label->prop.type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuMemImportFromShareableHandle: file "
				"descriptor %d is no exported memory", fd);
	if (label->prop.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_SUCCESS;
	device = sim_share_device(label->physical);
	if (device < 0)
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED, "cuMemImportFromShareableHandle: the memory "
				"is of a device that this process does not see");
	label->prop.location.id = device;
	return CUDA_SUCCESS;
}

SIM_API(cuMemImportFromShareableHandle, CUmemGenericAllocationHandle *handle, void *shareable,
	CUmemAllocationHandleType type)
{
	label_t label = { 0 };
	CUresult result;
	vmm_t *vmm;
	int fd;

	SIM_ENTER(cuMemImportFromShareableHandle);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	fd = sim_share_high(fcntl((int)(intptr_t)shareable, F_DUPFD_CLOEXEC, 0));
	if (fd < 0)
		return CUDA_ERROR_INVALID_VALUE;
	result = read_label(fd, &label);
	if (result != CUDA_SUCCESS) {
		close(fd);
		return result;
	}
	sim_lock_take();
	vmm = sim_vmm_new(label.bytes, &label.prop, fd);
	if (vmm) {
		vmm->imported = true;
		*handle = (uintptr_t)vmm->handle;
	}
	sim_lock_drop();
	if (!vmm)
		close(fd);
	return vmm ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
