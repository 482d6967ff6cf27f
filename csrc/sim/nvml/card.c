/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which simulated cards there are, and what each says of itself.
 *
 * A handle is the address of a card's place in a table that never moves.  How many
 * cards there are, and how large, the environment says as it does to the driver
 * (EMUV_SIM_DEVICES, EMUV_SIM_VRAM); where it is silent, the programs that are seen
 * to run are believed, so that a monitor needs no settings.
 */
#define _GNU_SOURCE /* secure_getenv */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "nvml_sim.h"
#include "one_line.h"
#include "sim/identity.h"

struct nvmlDevice_st {
	char unused;
};
static struct nvmlDevice_st cards[SIM_MAX_DEVICES];

/* Written once by whoever initialises first; every thread would write the same. */
static unsigned int set_cards; /* 0: not set */
static uint64_t set_bytes;

/* ---- the environment ---- */

static bool setting(const char *name, uint64_t least, uint64_t most, uint64_t *value)
{
	const char *text = secure_getenv(name);
	char line[256], *end;
	int length;

	*value = 0;
	if (!text)
		return true;
	errno = 0;
	if (isdigit((unsigned char)text[0]))
		*value = strtoull(text, &end, 10);
	if (*value >= least && *value <= most && !errno && !*end)
		return true;
	length = snprintf(line, sizeof(line),
			  "emuv-sim: error: %s=\"%.80s\" is not a number from %llu to %llu\n", name,
			  text, (unsigned long long)least, (unsigned long long)most);
	emuv_one_line(line, (size_t)length - 1);
	return write(STDERR_FILENO, line, (size_t)length) < 0; /* false, unless nobody hears it */
}

bool nvml_sim_configure(void)
{
	uint64_t count, bytes;

	if (!setting("EMUV_SIM_DEVICES", 1, SIM_MAX_DEVICES, &count) ||
	    !setting("EMUV_SIM_VRAM", SIM_CARD_BYTES_LEAST, SIM_CARD_BYTES_MOST, &bytes))
		return false;
	__atomic_store_n(&set_cards, (unsigned int)count, __ATOMIC_RELAXED);
	__atomic_store_n(&set_bytes, bytes, __ATOMIC_RELAXED);
	return true;
}

static nvmlReturn_t card_count(unsigned int *count)
{
	nvml_use_t use;

	*count = __atomic_load_n(&set_cards, __ATOMIC_RELAXED);
	if (*count)
		return NVML_SUCCESS;
	if (!nvml_sim_use(0, &use))
		return NVML_ERROR_MEMORY;
	*count = use.cards ? use.cards : 1;
	nvml_sim_use_drop(&use);
	return NVML_SUCCESS;
}

uint64_t nvml_sim_card_bytes(const nvml_use_t *use)
{
	uint64_t bytes = __atomic_load_n(&set_bytes, __ATOMIC_RELAXED);

	if (!bytes)
		bytes = use->card_bytes ? use->card_bytes : SIM_CARD_BYTES;
	return bytes;
}

/* ---- handles ---- */

int nvml_sim_card(nvmlDevice_t device)
{
	for (int i = 0; i < SIM_MAX_DEVICES; i++)
		if (device == &cards[i])
			return i;
	return -1;
}

static nvmlReturn_t get_count(unsigned int *count)
{
	NVML_ENTER();
	return count ? card_count(count) : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API(nvmlDeviceGetCount_v2, unsigned int *count)
{
	return get_count(count);
}

NVML_API(nvmlDeviceGetCount, unsigned int *count)
{
	return get_count(count);
}

static nvmlReturn_t by_index(unsigned int index, nvmlDevice_t *device)
{
	unsigned int count;
	nvmlReturn_t result;

	NVML_ENTER();
	if (!device)
		return NVML_ERROR_INVALID_ARGUMENT;
	result = card_count(&count);
	if (result == NVML_SUCCESS && index >= count)
		result = NVML_ERROR_INVALID_ARGUMENT;
	if (result == NVML_SUCCESS)
		*device = &cards[index];
	return result;
}

NVML_API(nvmlDeviceGetHandleByIndex_v2, unsigned int index, nvmlDevice_t *device)
{
	return by_index(index, device);
}

NVML_API(nvmlDeviceGetHandleByIndex, unsigned int index, nvmlDevice_t *device)
{
	return by_index(index, device);
}

static nvmlReturn_t by_bus_id(const char *text, nvmlDevice_t *device)
{
	unsigned int at[4];
	nvmlReturn_t result;

	NVML_ENTER();
	if (!text || !device || sim_identity_pci(text, at) != 0)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (at[0] || !at[1] || at[1] > SIM_MAX_DEVICES || at[2] || at[3])
		return NVML_ERROR_NOT_FOUND;
	result = by_index(at[1] - SIM_CARD_BUS(0), device);
	return result == NVML_ERROR_INVALID_ARGUMENT ? NVML_ERROR_NOT_FOUND : result;
}

NVML_API(nvmlDeviceGetHandleByPciBusId_v2, const char *text, nvmlDevice_t *device)
{
	return by_bus_id(text, device);
}

NVML_API(nvmlDeviceGetHandleByPciBusId, const char *text, nvmlDevice_t *device)
{
	return by_bus_id(text, device);
}

static nvmlReturn_t by_uuid(const char *wanted, const unsigned char *bytes, nvmlDevice_t *device)
{
	unsigned int count;
	nvmlReturn_t result;

	result = card_count(&count);
	if (result != NVML_SUCCESS)
		return result;
	for (unsigned int i = 0; i < count; i++) {
		unsigned char uuid[16];
		char text[48];

		sim_identity_uuid((int)i, uuid);
		sim_identity_uuid_text((int)i, text);
		if (wanted ? strcasecmp(wanted, text) != 0 : memcmp(bytes, uuid, 16) != 0)
			continue;
		*device = &cards[i];
		return NVML_SUCCESS;
	}
	return NVML_ERROR_NOT_FOUND;
}

NVML_API(nvmlDeviceGetHandleByUUID, const char *uuid, nvmlDevice_t *device)
{
	NVML_ENTER();
	return uuid && device ? by_uuid(uuid, NULL, device) : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API(nvmlDeviceGetHandleByUUIDV, const nvmlUUID_v1_t *uuid, nvmlDevice_t *device)
{
	NVML_ENTER();
	if (!uuid || !device)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (uuid->version != NVML_VERSION_OF(nvmlUUID_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	if (uuid->type == NVML_UUID_TYPE_BINARY)
		return by_uuid(NULL, uuid->value.bytes, device);
	if (uuid->type != NVML_UUID_TYPE_ASCII || !memchr(uuid->value.str, '\0', 41))
		return NVML_ERROR_INVALID_ARGUMENT;
	return by_uuid(uuid->value.str, NULL, device);
}

/* ---- identity ---- */

NVML_API(nvmlDeviceGetIndex, nvmlDevice_t device, unsigned int *index)
{
	NVML_CARD(card, device);
	if (!index)
		return NVML_ERROR_INVALID_ARGUMENT;
	*index = (unsigned int)card;
	return NVML_SUCCESS;
}

NVML_API(nvmlDeviceGetName, nvmlDevice_t device, char *name, unsigned int length)
{
	NVML_CARD(card, device);
	(void)card;
	return nvml_sim_text(name, length, SIM_CARD_NAME);
}

NVML_API(nvmlDeviceGetUUID, nvmlDevice_t device, char *uuid, unsigned int length)
{
	char text[48];

	NVML_CARD(card, device);
	sim_identity_uuid_text(card, text);
	return nvml_sim_text(uuid, length, text);
}

static nvmlReturn_t pci(nvmlDevice_t device, nvmlPciInfo_t *info)
{
	NVML_CARD(card, device);
	if (!info)
		return NVML_ERROR_INVALID_ARGUMENT;
	*info = (nvmlPciInfo_t){ .bus = SIM_CARD_BUS(card) };
	snprintf(info->busIdLegacy, sizeof(info->busIdLegacy), "0000:%02X:00.0", info->bus);
	snprintf(info->busId, sizeof(info->busId), "00000000:%02X:00.0", info->bus);
	return NVML_SUCCESS;
}

NVML_API(nvmlDeviceGetPciInfo_v3, nvmlDevice_t device, nvmlPciInfo_t *info)
{
	return pci(device, info);
}

NVML_API(nvmlDeviceGetPciInfo_v2, nvmlDevice_t device, nvmlPciInfo_t *info)
{
	return pci(device, info);
}

/* The first one knew the structure up to busIdLegacy … pciDeviceId; callers of today do not. */
NVML_API(nvmlDeviceGetPciInfo, nvmlDevice_t device, nvmlPciInfo_t *info)
{
	return pci(device, info);
}

NVML_API(nvmlDeviceGetPciInfoExt, nvmlDevice_t device, nvmlPciInfoExt_v1_t *info)
{
	nvmlPciInfo_t known;
	nvmlReturn_t result = pci(device, &known);

	if (result != NVML_SUCCESS)
		return result;
	if (!info)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (info->version != NVML_VERSION_OF(nvmlPciInfoExt_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	*info = (nvmlPciInfoExt_v1_t){ .version = info->version,
				       .bus = known.bus,
				       .baseClass = 3, /* a display controller, of 3-D */
				       .subClass = 2 };
	memcpy(info->busId, known.busId, sizeof(info->busId));
	return NVML_SUCCESS;
}

/* ---- memory ---- */

static nvmlReturn_t memory(nvmlDevice_t device, nvmlMemory_t *answer)
{
	nvml_use_t use;

	NVML_CARD(card, device);
	if (!nvml_sim_use(card, &use))
		return NVML_ERROR_MEMORY;
	answer->total = nvml_sim_card_bytes(&use);
	/* Several programs' simulated cards are shown as one: together they may hold more. */
	answer->used = use.used < answer->total ? use.used : answer->total;
	answer->free = answer->total - answer->used;
	nvml_sim_use_drop(&use);
	return NVML_SUCCESS;
}

NVML_API(nvmlDeviceGetMemoryInfo, nvmlDevice_t device, nvmlMemory_t *answer)
{
	return answer ? memory(device, answer) : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API(nvmlDeviceGetMemoryInfo_v2, nvmlDevice_t device, nvmlMemory_v2_t *answer)
{
	nvmlMemory_t known;
	nvmlReturn_t result = memory(device, &known);

	if (result != NVML_SUCCESS)
		return result;
	if (!answer)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (answer->version != NVML_VERSION_OF(nvmlMemory_v2_t, 2))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	*answer = (nvmlMemory_v2_t){ answer->version, known.total, 0, known.free, known.used };
	return NVML_SUCCESS;
}
