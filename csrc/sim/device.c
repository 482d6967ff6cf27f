/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The cards: which there are, what they say of themselves.
 *
 * sim_devices[] is indexed by the ordinal that the program sees, after
 * CUDA_VISIBLE_DEVICES; `physical` is what identity (UUID, PCI bus) comes from, so
 * that a card is the same card however it was selected.
 */
#define _GNU_SOURCE /* secure_getenv */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity.h"
#include "internal.h"
#include "paging.h"
#include "visible_devices.h"

sim_device_t sim_devices[SIM_MAX_DEVICES];
int sim_device_count;

void sim_device_uuid(int physical, unsigned char uuid[16])
{
	sim_identity_uuid(physical, uuid);
}

void sim_device_uuid_text(int physical, char text[48])
{
	sim_identity_uuid_text(physical, text);
}

static bool uuid_text(int physical, char text[EMUV_UUID_TEXT_BYTES], void *state)
{
	(void)state;
	sim_device_uuid_text(physical, text);
	return true;
}

CUresult sim_devices_init(void)
{
	int visible[SIM_MAX_DEVICES];

	if (sim_config.error[0]) {
		sim_say("%s", sim_config.error);
		return CUDA_ERROR_INVALID_VALUE;
	}
	/* Cards are alike, so that CUDA_DEVICE_ORDER changes nothing. */
	sim_device_count = emuv_visible_devices(secure_getenv("CUDA_VISIBLE_DEVICES"),
						sim_config.devices, uuid_text, NULL, visible);
	if (sim_device_count == 0)
		return sim_fail(CUDA_ERROR_NO_DEVICE,
				"cuInit: CUDA_VISIBLE_DEVICES=\"%s\" leaves none of %d devices",
				secure_getenv("CUDA_VISIBLE_DEVICES"), sim_config.devices);
	if (!sim_arena_init()) {
		sim_say("error: cuInit: the simulated GPU needs 16 GiB of address space in one "
			"piece; raise the limit (ulimit -v unlimited)");
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	for (int i = 0; i < sim_device_count; i++) {
		sim_devices[i].physical = visible[i];
		sim_devices[i].card_bytes = sim_config.card_bytes;
		sim_devices[i].context_cost = sim_config.context_bytes;
	}
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGet, CUdevice *device, int ordinal)
{
	SIM_ENTER(cuDeviceGet);
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGet, ordinal);
	*device = ordinal;
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetCount, int *count)
{
	SIM_ENTER(cuDeviceGetCount);
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	*count = sim_device_count;
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetName, char *name, int length, CUdevice device)
{
	SIM_ENTER(cuDeviceGetName);
	if (!name || length <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetName, device);
	snprintf(name, (size_t)length, SIM_CARD_NAME);
	return CUDA_SUCCESS;
}

static CUresult get_uuid(CUuuid *uuid, CUdevice device)
{
	if (!uuid)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetUuid, device);
	sim_device_uuid(sim_devices[device].physical, (unsigned char *)uuid->bytes);
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetUuid, CUuuid *uuid, CUdevice device)
{
	SIM_ENTER(cuDeviceGetUuid);
	return get_uuid(uuid, device);
}

SIM_API(cuDeviceGetUuid_v2, CUuuid *uuid, CUdevice device)
{
	SIM_ENTER(cuDeviceGetUuid_v2);
	return get_uuid(uuid, device);
}

/* A LUID is a thing of Windows; Linux answers as for a device without one. */
SIM_API(cuDeviceGetLuid, char *luid, unsigned int *node_mask, CUdevice device)
{
	SIM_ENTER(cuDeviceGetLuid);
	if (!luid || !node_mask)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetLuid, device);
	return CUDA_ERROR_NOT_SUPPORTED;
}

SIM_API(cuDeviceTotalMem_v2, size_t *bytes, CUdevice device)
{
	SIM_ENTER(cuDeviceTotalMem_v2);
	if (!bytes)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceTotalMem_v2, device);
	*bytes = sim_devices[device].card_bytes;
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceTotalMem, unsigned int *bytes, CUdevice device)
{
	uint64_t total;

	SIM_ENTER(cuDeviceTotalMem);
	if (!bytes)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceTotalMem, device);
	total = sim_devices[device].card_bytes;
	*bytes = total > UINT32_MAX ? UINT32_MAX : (unsigned int)total;
	return CUDA_SUCCESS;
}

static bool attribute(const sim_device_t *device, int number, int *value)
{
	switch (number) {
#define SIM_ATTRIBUTE(name, id, what) \
	case id:                      \
		*value = (what);      \
		return true;
#include "attributes.def"
#undef SIM_ATTRIBUTE
	default:
		return false;
	}
}

SIM_API(cuDeviceGetAttribute, int *value, int number, CUdevice device)
{
	SIM_ENTER(cuDeviceGetAttribute);
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetAttribute, device);
	if (!attribute(&sim_devices[device], number, value))
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"cuDeviceGetAttribute: CUDA 13.0 has no attribute %d", number);
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceComputeCapability, int *major, int *minor, CUdevice device)
{
	SIM_ENTER(cuDeviceComputeCapability);
	if (!major || !minor)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceComputeCapability, device);
	*major = SIM_CC_MAJOR;
	*minor = SIM_CC_MINOR;
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetProperties, CUdevprop *properties, CUdevice device)
{
	/* The fields, in their order, are these attributes. */
	static const int numbers[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 };
	int *field = (int *)properties;

	SIM_ENTER(cuDeviceGetProperties);
	_Static_assert(sizeof(CUdevprop) == sizeof(numbers), "one attribute a field");
	if (!properties)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetProperties, device);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		attribute(&sim_devices[device], numbers[i], &field[i]);
	return CUDA_SUCCESS;
}

static void bus_id(const sim_device_t *device, char text[16])
{
	snprintf(text, 16, "0000:%02X:00.0", SIM_CARD_BUS(device->physical));
}

SIM_API(cuDeviceGetPCIBusId, char *text, int length, CUdevice device)
{
	char id[16];

	SIM_ENTER(cuDeviceGetPCIBusId);
	if (!text || length <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetPCIBusId, device);
	bus_id(&sim_devices[device], id);
	if ((size_t)length <= strlen(id))
		return CUDA_ERROR_INVALID_VALUE;
	strcpy(text, id);
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetByPCIBusId, CUdevice *device, const char *text)
{
	unsigned int at[4];

	SIM_ENTER(cuDeviceGetByPCIBusId);
	if (!device || !text || sim_identity_pci(text, at) != 0)
		return CUDA_ERROR_INVALID_VALUE;
	for (int i = 0; i < sim_device_count; i++) {
		if (at[0] || at[1] != SIM_CARD_BUS(sim_devices[i].physical) || at[2] || at[3])
			continue;
		*device = i;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_INVALID_DEVICE;
}

SIM_API(cuDeviceCanAccessPeer, int *can, CUdevice device, CUdevice peer)
{
	SIM_ENTER(cuDeviceCanAccessPeer);
	if (!can)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceCanAccessPeer, device);
	SIM_DEVICE_CHECK(cuDeviceCanAccessPeer, peer);
	*can = device != peer;
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetP2PAttribute, int *value, int number, CUdevice source, CUdevice target)
{
	SIM_ENTER(cuDeviceGetP2PAttribute);
	if (!value || number < 1 || number > 5)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetP2PAttribute, source);
	SIM_DEVICE_CHECK(cuDeviceGetP2PAttribute, target);
	if (source == target)
		return sim_fail(CUDA_ERROR_INVALID_DEVICE,
				"cuDeviceGetP2PAttribute: both devices are %d", source);
	/* 1 rank, 2 access, 3 atomics, 4 array access, 5 only some atomics */
	*value = number == 2 || number == 3 || number == 4;
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetExecAffinitySupport, int *supported, int type, CUdevice device)
{
	SIM_ENTER(cuDeviceGetExecAffinitySupport);
	if (!supported || type != 0)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetExecAffinitySupport, device);
	*supported = 0;
	return CUDA_SUCCESS;
}

SIM_API(cuDeviceGetTexture1DLinearMaxWidth, size_t *width, CUarray_format format,
	unsigned int channels, CUdevice device)
{
	SIM_ENTER(cuDeviceGetTexture1DLinearMaxWidth);
	if (!width || (channels != 1 && channels != 2 && channels != 4))
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuDeviceGetTexture1DLinearMaxWidth, device);
	(void)format;
	*width = (size_t)1 << 28;
	return CUDA_SUCCESS;
}
