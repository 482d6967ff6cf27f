/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who uses a card: the list is the machine's; an entry of a process of this run carries
 * what emuV charges it.
 */
#include <stdlib.h>

#include "shown.h"

static void charge(const shown_users_t *users, unsigned int pid, unsigned long long *bytes)
{
	for (size_t i = 0; i < users->count; i++)
		if ((unsigned int)users->user[i].pid == pid)
			*bytes = users->user[i].bytes;
}

/* In every entry of an array, whatever its layout. */
#define CHARGE(device, array, count)                                               \
	do {                                                                       \
		shown_users_t users;                                               \
                                                                                   \
		shown_users(device, &users);                                       \
		for (unsigned int i = 0; i < (count); i++)                         \
			charge(&users, (array)[i].pid, &(array)[i].usedGpuMemory); \
		free(users.user);                                                  \
	} while (0)

#define LIST(name, type)                                                      \
	NVML_API(name, nvmlDevice_t device, unsigned int *count, type *array) \
	{                                                                     \
		nvmlReturn_t result = SHOWN_ASK(name, device, count, array); \
                                                                              \
		if (result == NVML_SUCCESS && array && *count)                \
			CHARGE(device, array, *count);                        \
		return result;                                                \
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
	nvmlReturn_t result = SHOWN_ASK(nvmlDeviceGetRunningProcessDetailList, device, list);

	/* A later version of the structure is not known here. */
	if (result == NVML_SUCCESS && list->procArray && list->numProcArrayEntries &&
	    list->version == NVML_VERSION_OF(nvmlProcessDetailList_v1_t, 1))
		CHARGE(device, list->procArray, list->numProcArrayEntries);
	return result;
}
