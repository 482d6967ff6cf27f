/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The calls that list processes, in every version that programs ask for.
 *
 * The count goes in as the room in the array and comes out as how many there are; too
 * little room writes nothing.  There is no graphics and no MPS on a simulated card.
 */
#include <stddef.h>

#include "nvml_sim.h"

#define NO_INSTANCE 0xffffffffu /* no MIG */

typedef enum { PROCESS_V1, PROCESS_V2, PROCESS_DETAIL } layout_t;

static void put(void *array, unsigned int at, layout_t layout, const nvml_user_t *user)
{
	switch (layout) {
	case PROCESS_V1:
		((nvmlProcessInfo_v1_t *)array)[at] =
			(nvmlProcessInfo_v1_t){ (unsigned int)user->pid, user->bytes };
		return;
	case PROCESS_V2:
		((nvmlProcessInfo_v2_t *)array)[at] = (nvmlProcessInfo_v2_t){
			(unsigned int)user->pid, user->bytes, NO_INSTANCE, NO_INSTANCE
		};
		return;
	case PROCESS_DETAIL:
		((nvmlProcessDetail_v1_t *)array)[at] = (nvmlProcessDetail_v1_t){
			(unsigned int)user->pid, user->bytes, NO_INSTANCE, NO_INSTANCE, 0
		};
		return;
	}
}

static nvmlReturn_t compute(nvmlDevice_t device, unsigned int *count, void *array, layout_t layout)
{
	unsigned int room;
	nvml_use_t use;

	NVML_CARD(card, device);
	if (!count || (*count && !array))
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!nvml_sim_use(card, &use))
		return NVML_ERROR_MEMORY;
	room = *count;
	*count = use.count;
	for (unsigned int i = 0; use.count <= room && i < use.count; i++)
		put(array, i, layout, &use.user[i]);
	nvml_sim_use_drop(&use);
	return *count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

static nvmlReturn_t nobody(nvmlDevice_t device, unsigned int *count, const void *array)
{
	NVML_CARD(card, device);
	(void)card;
	if (!count || (*count && !array))
		return NVML_ERROR_INVALID_ARGUMENT;
	*count = 0;
	return NVML_SUCCESS;
}

#define COMPUTE(name, type, layout)                                               \
	NVML_API(name, nvmlDevice_t device, unsigned int *count, type *array)     \
	{                                                                         \
		return compute(device, count, array, layout);                     \
	}
COMPUTE(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t, PROCESS_V1)
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, PROCESS_V2)
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t, PROCESS_V2)

#define NOBODY(name, type)                                                        \
	NVML_API(name, nvmlDevice_t device, unsigned int *count, type *array)     \
	{                                                                         \
		return nobody(device, count, array);                              \
	}
NOBODY(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)

NVML_API(nvmlDeviceGetRunningProcessDetailList, nvmlDevice_t device,
	 nvmlProcessDetailList_v1_t *list)
{
	enum { COMPUTE_MODE, GRAPHICS_MODE, MPS_MODE };

	NVML_CARD(card, device);
	(void)card;
	if (!list)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (list->version != NVML_VERSION_OF(nvmlProcessDetailList_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	switch (list->mode) {
	case COMPUTE_MODE:
		return compute(device, &list->numProcArrayEntries, list->procArray,
			       PROCESS_DETAIL);
	case GRAPHICS_MODE:
	case MPS_MODE:
		return nobody(device, &list->numProcArrayEntries, list->procArray);
	}
	return NVML_ERROR_INVALID_ARGUMENT;
}
