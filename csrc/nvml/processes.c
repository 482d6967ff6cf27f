/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who uses a card: the list is the machine's; an entry of a process of this run carries
 * what emuV charges it.
 */
#include "shown.h"

#define LIST(name, type)                                                               \
	NVML_API(name, nvmlDevice_t device, unsigned int *count, type *array)          \
	{                                                                              \
		nvmlReturn_t result = SHOWN_REAL(name)(device, count, array);          \
                                                                                       \
		for (unsigned int i = 0; result == NVML_SUCCESS && array && i < *count; i++) \
			shown_charge(device, array[i].pid, &array[i].usedGpuMemory);   \
		return result;                                                         \
	}
LIST(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)

NVML_API(nvmlDeviceGetRunningProcessDetailList, nvmlDevice_t device,
	 nvmlProcessDetailList_v1_t *list)
{
	nvmlReturn_t result = SHOWN_REAL(nvmlDeviceGetRunningProcessDetailList)(device, list);

	/* A later version of the structure is not known here. */
	if (result != NVML_SUCCESS ||
	    list->version != NVML_VERSION_OF(nvmlProcessDetailList_v1_t, 1) || !list->procArray)
		return result;
	for (unsigned int i = 0; i < list->numProcArrayEntries; i++)
		shown_charge(device, list->procArray[i].pid, &list->procArray[i].usedGpuMemory);
	return result;
}
