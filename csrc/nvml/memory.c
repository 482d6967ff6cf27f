/* SPDX-License-Identifier: GPL-2.0-only */
/* How much memory a card has: total is what the budget makes visible, as cuMemGetInfo has it. */
#include "shown.h"

NVML_API(nvmlDeviceGetMemoryInfo, nvmlDevice_t device, nvmlMemory_t *memory)
{
	nvmlReturn_t result = SHOWN_ASK(nvmlDeviceGetMemoryInfo, device, memory);

	if (result == NVML_SUCCESS)
		shown_memory(device, memory);
	return result;
}

NVML_API(nvmlDeviceGetMemoryInfo_v2, nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
	nvmlReturn_t result = SHOWN_ASK(nvmlDeviceGetMemoryInfo_v2, device, memory);
	nvmlMemory_t shown;

	if (result != NVML_SUCCESS)
		return result;
	/* The card's whole, of which the driver keeps a part for itself. */
	shown = (nvmlMemory_t){ memory->total, memory->free, memory->used };
	if (shown_memory(device, &shown)) {
		memory->total = shown.total;
		memory->free = shown.free;
		memory->used = shown.used;
		memory->reserved = 0; /* none of it is taken out of a budget */
	}
	return result;
}
