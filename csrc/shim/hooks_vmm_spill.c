/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a handle goes past the budget.  See hooks_vmm.h. */
#include "hooks_vmm.h"

#include "hooks.h"
#include "message.h"
#include "placement.h"

#define HOST_NUMA_ID 134             /* CU_DEVICE_ATTRIBUTE_… */
#define HOST_NUMA_VMM_SUPPORTED 141  /* since CUDA 12.9 */
#define HOST_VMM_SUPPORTED 145       /* since CUDA 13.0 */

/*
 * Where a device's handles go, in a word for emuv_account_vmm_home, so that threads
 * that find out at the same time need no lock: they find out the same.
 */
typedef struct {
	CUmemLocation location; /* CU_MEM_LOCATION_TYPE_INVALID: nowhere */
	unsigned int shift;     /* the granularity's binary logarithm */
} home_t;

static uint64_t pack(const home_t *home)
{
	return 1 | (uint64_t)home->location.type << 8 | (uint64_t)home->shift << 16 |
	       (uint64_t)(uint32_t)home->location.id << 32;
}

static home_t unpack(uint64_t word)
{
	return (home_t){
		.location = { (CUmemLocationType)(word >> 8 & 0xff), (int)(word >> 32) },
		.shift = word >> 16 & 0xff,
	};
}

/* The driver says that it does not do such a thing; anything else may pass. */
static bool is_refusal(CUresult result)
{
	return result == CUDA_ERROR_INVALID_VALUE || result == CUDA_ERROR_NOT_SUPPORTED ||
	       result == CUDA_ERROR_NOT_PERMITTED || result == CUDA_ERROR_INVALID_DEVICE;
}

static CUmemAllocationProp host_prop(CUmemLocation location)
{
	return (CUmemAllocationProp){
		.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = location,
	};
}

/* Does it take handles at the location, and of which sizes?  An error: cannot be said now. */
static CUresult ask_size(CUmemLocation location, home_t *home)
{
	CUmemAllocationProp prop = host_prop(location);
	size_t granularity = 0;
	CUresult result = g_real.cuMemGetAllocationGranularity(&granularity, &prop,
							       CU_MEM_ALLOC_GRANULARITY_MINIMUM);

	if (result)
		return is_refusal(result) ? CUDA_SUCCESS : result;
	/* A power of two, on every card there is. */
	if (granularity && !(granularity & (granularity - 1)))
		*home = (home_t){ location, (unsigned int)__builtin_ctzll(granularity) };
	return CUDA_SUCCESS;
}

/*
 * The node next to the device, where the driver has that; it had before it could be
 * asked (12.2 against 12.9), and refuses the question for the size where it has not.
 */
static CUresult ask(CUdevice device, home_t *home)
{
	CUmemLocation node = { CU_MEM_LOCATION_TYPE_HOST_NUMA, 0 };
	CUmemLocation host = { CU_MEM_LOCATION_TYPE_HOST, 0 };
	int supported = 0, id = 0;
	CUresult result;

	result = g_real.cuDeviceGetAttribute(&supported, HOST_NUMA_VMM_SUPPORTED, device);
	if (result && !is_refusal(result))
		return result;
	if (result || supported) {
		result = g_real.cuDeviceGetAttribute(&id, HOST_NUMA_ID, device);
		if (result && !is_refusal(result))
			return result;
		node.id = !result && id > 0 ? id : 0; /* 0 where there is no NUMA */
		result = ask_size(node, home);
		if (result || home->location.type)
			return result;
	}
	supported = 0;
	result = g_real.cuDeviceGetAttribute(&supported, HOST_VMM_SUPPORTED, device);
	if (result || !supported)
		return is_refusal(result) ? CUDA_SUCCESS : result;
	return ask_size(host, home);
}

static home_t home_of(CUdevice device)
{
	uint64_t word = emuv_account_vmm_home(device);
	home_t home = { { CU_MEM_LOCATION_TYPE_INVALID, 0 }, 0 };

	if (word)
		return unpack(word);
	/* An error that may pass is not remembered: the next handle asks again. */
	if (!ask(device, &home))
		emuv_account_set_vmm_home(device, pack(&home));
	return home;
}

uint64_t emuv_vmm_host_granularity(CUdevice device)
{
	home_t home = home_of(device);

	return home.location.type ? UINT64_C(1) << home.shift : 0;
}

/* Other than by file descriptor: host memory has such handles only where the driver says so. */
static bool wants_fabric(const CUmemAllocationProp *prop)
{
	return prop->requestedHandleTypes & ~(unsigned int)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
}

const char *emuv_vmm_why_not(CUdevice device, uint64_t bytes, const CUmemAllocationProp *prop)
{
	home_t home;

	/* Tile pools of sparse arrays, and what the card's decompression engine reads. */
	if (prop->type != CU_MEM_ALLOCATION_TYPE_PINNED || prop->allocFlags.usage)
		return "its usage flags are of device memory only";
	home = home_of(device);
	if (!home.location.type)
		return "the driver has no handles of host memory for this device";
	if (bytes & ((UINT64_C(1) << home.shift) - 1))
		return "its size is not a multiple of the host's granularity";
	if (home.location.type == CU_MEM_LOCATION_TYPE_HOST && wants_fabric(prop))
		return "it is to be shared by a fabric handle";
	return NULL;
}

/* Each of these lines once a process. */
static bool first(int *said)
{
	return !__atomic_exchange_n(said, 1, __ATOMIC_RELAXED);
}

void emuv_vmm_tell_why_not(CUdevice device, uint64_t bytes, const char *why)
{
	static int said;
	emuv_report_t report;
	char text[32];

	emuv_account_report(device, &report);
	/* Where there was no room for a spill either, that was the reason. */
	if (why && report.policy == EMUV_POLICY_SPILL && report.free >= bytes && first(&said))
		emuv_say("device %d: a handle of %s cannot be spilled: %s", device,
			 emuv_size_text(bytes, text), why);
}

CUresult emuv_vmm_spill(CUdevice device, const emuv_grant_t *grant,
			const CUmemAllocationProp *prop, CUmemGenericAllocationHandle *handle)
{
	static int said;
	CUmemAllocationProp host = host_prop(home_of(device).location);
	CUresult result;

	if (!emuv_placement_host_backs(grant->bytes)) {
		emuv_account_denied(device, grant->bytes);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	/* Handles of the host at large cannot be shared; those of a node can. */
	if (host.location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA)
		host.requestedHandleTypes = prop->requestedHandleTypes;
	result = g_real.cuMemCreate(handle, grant->bytes, &host, 0);
	if (is_refusal(result) && !wants_fabric(prop) && host.requestedHandleTypes) {
		host.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
		result = g_real.cuMemCreate(handle, grant->bytes, &host, 0);
	}
	/*
	 * PyTorch asks for a fabric handle first, to see whether there are any: the
	 * driver's word that there are none is then the answer, and not that memory ran out.
	 */
	if (is_refusal(result) && !wants_fabric(prop)) {
		emuv_account_denied(device, grant->bytes);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (!result && host.requestedHandleTypes != prop->requestedHandleTypes && first(&said))
		emuv_say("device %d: handles spilled to the host cannot be shared with other "
			 "processes here: exporting one will fail", device);
	return result;
}

/* ---- what is spilled ---- */

bool emuv_vmm_handle_spilled(CUmemGenericAllocationHandle handle, emuv_entry_t *memory)
{
	return emuv_account_handle(handle, memory) && memory->placement == EMUV_PLACED_MANAGED;
}

bool emuv_vmm_address_spilled(CUdeviceptr address, emuv_entry_t *memory)
{
	return emuv_account_mapped(address, memory) && memory->placement == EMUV_PLACED_MANAGED;
}

void emuv_vmm_tell_device_only(const char *function)
{
	static int said;

	if (first(&said))
		emuv_say("%s: the driver refused memory that was spilled to the host; a larger "
			 "--vram, or --keep-device, keeps it on the device", function);
}
