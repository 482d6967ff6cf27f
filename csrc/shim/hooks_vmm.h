/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Handles past the budget.  What cuMemCreate cannot place on the device any more it
 * places on the host: a handle of the NUMA node next to the device, or of the host at
 * large, maps at the same addresses, and the device reaches it over the link.  Such a
 * handle is spilled whole (resident 0), and stays what it is until it is gone.
 *
 * Of what the program asked for it has the size and, where the host can, the handle
 * types; it is not compressible and not capable of GPUDirect RDMA, which are hints
 * that a program may not rely on without asking for the handle's properties.
 */
#ifndef EMUV_HOOKS_VMM_H
#define EMUV_HOOKS_VMM_H

#include "account.h"

/* Why such a handle could not be spilled; NULL: it can. */
const char *emuv_vmm_why_not(CUdevice device, uint64_t bytes, const CUmemAllocationProp *prop);
/* Says, once, why a handle that was refused was not spilled. */
void emuv_vmm_tell_why_not(CUdevice device, uint64_t bytes, const char *why);

/*
 * Makes the handle of a managed grant.  On error the grant is still held: the caller
 * rolls back.
 */
CUresult emuv_vmm_spill(CUdevice device, const emuv_grant_t *grant,
			const CUmemAllocationProp *prop, CUmemGenericAllocationHandle *handle);

/* What sizes and addresses of spilled handles are multiples of; 0: nothing is spilled there. */
uint64_t emuv_vmm_host_granularity(CUdevice device);

/* Is it spilled?  *memory is then a copy of its entry. */
bool emuv_vmm_handle_spilled(CUmemGenericAllocationHandle handle, emuv_entry_t *memory);
bool emuv_vmm_address_spilled(CUdeviceptr address, emuv_entry_t *memory);
/* A handle came from another process. */
void emuv_vmm_imported(CUmemGenericAllocationHandle handle, CUdevice device);
/* The driver refused to do with spilled memory what only device memory can: says so, once. */
void emuv_vmm_tell_device_only(const char *function);

#endif
