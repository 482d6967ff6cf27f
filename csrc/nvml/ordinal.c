/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which CUDA device a card is, where CUDA is not there to say.
 *
 * An index in CUDA_VISIBLE_DEVICES is taken as NVML's: so it is with
 * CUDA_DEVICE_ORDER=PCI_BUS_ID, and on machines whose cards are alike.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shown.h"
#include "visible_devices.h"

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info);

static emuv_config_t config;

static void read_config(void)
{
	emuv_config_read(&config);
}

const emuv_config_t *shown_config(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, read_config);
	return &config;
}

bool shown_uuid_text(nvmlDevice_t device, char *text, unsigned int bytes)
{
	return SHOWN_REAL(nvmlDeviceGetUUID)(device, text, bytes) == NVML_SUCCESS;
}

uint64_t shown_pci(nvmlDevice_t device)
{
	nvmlPciInfo_t info;

	if (SHOWN_REAL(nvmlDeviceGetPciInfo_v3)(device, &info) != NVML_SUCCESS)
		return 0;
	return 1 + ((uint64_t)info.domain << 16 | (info.bus & 0xff) << 8 |
		    (info.device & 0x1f) << 3);
}

static bool uuid_of_index(int index, char text[EMUV_UUID_TEXT_BYTES], void *state)
{
	nvmlDevice_t device;

	(void)state;
	return SHOWN_REAL(nvmlDeviceGetHandleByIndex_v2)((unsigned int)index, &device) ==
		       NVML_SUCCESS &&
	       shown_uuid_text(device, text, EMUV_UUID_TEXT_BYTES);
}

int shown_ordinal(nvmlDevice_t device)
{
	const char *value = secure_getenv("CUDA_VISIBLE_DEVICES");
	char uuid[EMUV_UUID_TEXT_BYTES], other[EMUV_UUID_TEXT_BYTES];
	int visible[EMUV_MAX_DEVICES], found;
	unsigned int count = 0;

	if (!shown_uuid_text(device, uuid, sizeof uuid))
		return -1;
	/* A part of a card is a device only where it is asked for. */
	if (strncmp(uuid, "MIG-", 4) == 0)
		return emuv_visible_instance(value, uuid) ? 0 : -1;
	if (SHOWN_REAL(nvmlDeviceGetCount_v2)(&count) != NVML_SUCCESS)
		return -1;
	if (count > EMUV_MAX_DEVICES)
		count = EMUV_MAX_DEVICES;
	found = emuv_visible_devices(value, (int)count, uuid_of_index, NULL, visible);
	for (int i = 0; i < found; i++)
		if (uuid_of_index(visible[i], other, NULL) && strcmp(other, uuid) == 0)
			return i;
	return -1;
}
