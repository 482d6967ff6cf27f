/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a simulated card is and how it is set up: what the driver says of it in device
 * attributes (one list for both, attributes.def), and the modes it is in.  None of it
 * is a reading.
 */
#include <stddef.h>

#include "nvml_sim.h"

static int attribute(int card, int number)
{
	const sim_device_t that = { .physical = card }, *device = &that;

	(void)device;
	switch (number) {
#define SIM_ATTRIBUTE(name, id, what) \
	case id:                      \
		return (what);
#include "sim/attributes.def"
#undef SIM_ATTRIBUTE
	default:
		return 0;
	}
}

enum { CLOCK_KHZ = 13, COMPUTE_MODE = 20, ECC = 32, MEMORY_CLOCK_KHZ = 36, BUS_BITS = 37 };

NVML_API(nvmlDeviceGetCudaComputeCapability, nvmlDevice_t device, int *major, int *minor)
{
	NVML_CARD(card, device);
	(void)card;
	if (!major || !minor)
		return NVML_ERROR_INVALID_ARGUMENT;
	*major = SIM_CC_MAJOR;
	*minor = SIM_CC_MINOR;
	return NVML_SUCCESS;
}

/* A function that answers one value of a card; `value` may use `card`. */
#define ANSWER(name, type, value)                              \
	NVML_API(name, nvmlDevice_t device, type *answer)      \
	{                                                      \
		NVML_CARD(card, device);                       \
		(void)card;                                    \
		if (!answer)                                   \
			return NVML_ERROR_INVALID_ARGUMENT;    \
		*answer = (value);                             \
		return NVML_SUCCESS;                           \
	}
ANSWER(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, NVML_DEVICE_ARCH_AMPERE)
ANSWER(nvmlDeviceGetBrand, nvmlBrandType_t, NVML_BRAND_UNKNOWN)
ANSWER(nvmlDeviceGetComputeMode, nvmlComputeMode_t, (nvmlComputeMode_t)attribute(card, COMPUTE_MODE))
ANSWER(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, NVML_FEATURE_DISABLED)
ANSWER(nvmlDeviceGetDisplayMode, nvmlEnableState_t, NVML_FEATURE_DISABLED)
ANSWER(nvmlDeviceGetDisplayActive, nvmlEnableState_t, NVML_FEATURE_DISABLED)
ANSWER(nvmlDeviceGetVirtualizationMode, nvmlGpuVirtualizationMode_t,
       NVML_GPU_VIRTUALIZATION_MODE_NONE)
ANSWER(nvmlDeviceGetMemoryBusWidth, unsigned int, (unsigned int)attribute(card, BUS_BITS))
ANSWER(nvmlDeviceIsMigDeviceHandle, unsigned int, 0)
ANSWER(nvmlDeviceGetMaxMigDeviceCount, unsigned int, 0)

NVML_API(nvmlDeviceGetEccMode, nvmlDevice_t device, nvmlEnableState_t *current,
	 nvmlEnableState_t *pending)
{
	NVML_CARD(card, device);
	if (!current || !pending)
		return NVML_ERROR_INVALID_ARGUMENT;
	*current = *pending = (nvmlEnableState_t)attribute(card, ECC);
	return NVML_SUCCESS;
}

/* The highest clock there could be, which is what cuDeviceGetAttribute says; none runs. */
NVML_API(nvmlDeviceGetMaxClockInfo, nvmlDevice_t device, nvmlClockType_t type, unsigned int *mhz)
{
	NVML_CARD(card, device);
	if (!mhz)
		return NVML_ERROR_INVALID_ARGUMENT;
	switch (type) {
	case NVML_CLOCK_GRAPHICS:
	case NVML_CLOCK_SM:
		*mhz = (unsigned int)attribute(card, CLOCK_KHZ) / 1000;
		return NVML_SUCCESS;
	case NVML_CLOCK_MEM:
		*mhz = (unsigned int)attribute(card, MEMORY_CLOCK_KHZ) / 1000;
		return NVML_SUCCESS;
	case NVML_CLOCK_VIDEO:
		return NVML_ERROR_NOT_SUPPORTED;
	}
	return NVML_ERROR_INVALID_ARGUMENT;
}

/* Cards sit side by side on one host bridge. */
NVML_API(nvmlDeviceGetTopologyCommonAncestor, nvmlDevice_t device, nvmlDevice_t other,
	 nvmlGpuTopologyLevel_t *level)
{
	NVML_CARD(card, device);
	(void)card;
	if (nvml_sim_card(other) < 0 || !level)
		return NVML_ERROR_INVALID_ARGUMENT;
	*level = device == other ? NVML_TOPOLOGY_INTERNAL : NVML_TOPOLOGY_HOSTBRIDGE;
	return NVML_SUCCESS;
}

/* As cuDeviceCanAccessPeer says, and over nothing but PCIe. */
NVML_API(nvmlDeviceGetP2PStatus, nvmlDevice_t device, nvmlDevice_t other,
	 nvmlGpuP2PCapsIndex_t index, nvmlGpuP2PStatus_t *status)
{
	NVML_CARD(card, device);
	(void)card;
	if (nvml_sim_card(other) < 0 || device == other || !status)
		return NVML_ERROR_INVALID_ARGUMENT;
	switch (index) {
	case NVML_P2P_CAPS_INDEX_READ:
	case NVML_P2P_CAPS_INDEX_WRITE:
	case NVML_P2P_CAPS_INDEX_ATOMICS:
	case NVML_P2P_CAPS_INDEX_PCI:
		*status = NVML_P2P_STATUS_OK;
		return NVML_SUCCESS;
	case NVML_P2P_CAPS_INDEX_NVLINK:
		*status = NVML_P2P_STATUS_NOT_SUPPORTED;
		return NVML_SUCCESS;
	}
	return NVML_ERROR_INVALID_ARGUMENT;
}

/* Asked for many at once; each answers for itself. */
NVML_API(nvmlDeviceGetFieldValues, nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
	NVML_CARD(card, device);
	(void)card;
	if (count <= 0 || !values)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (int i = 0; i < count; i++) {
		values[i].timestamp = values[i].latencyUsec = 0;
		values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
	}
	return NVML_SUCCESS;
}
