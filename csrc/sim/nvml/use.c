/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who uses a simulated card.
 *
 * A simulated card lives in the process that uses it.  A process that has the simulated
 * driver therefore sees its own card, by the driver's own table, and nobody else on it.
 * Any other process (a monitor in another terminal) is shown what the segments of
 * emuV's programs say, as if they shared one card: a segment goes with its process, so
 * the dead are not listed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emuv_segment_list.h"
#include "emuv_sim_table.h"
#include "nvml_sim.h"
#include "sim/identity.h"

static bool add(nvml_use_t *use, pid_t pid, uint64_t bytes)
{
	nvml_user_t *more = realloc(use->user, (use->count + 1) * sizeof(*more));

	if (!more)
		return false;
	use->user = more;
	more[use->count++] = (nvml_user_t){ pid, bytes };
	use->used += bytes;
	return true;
}

void nvml_sim_use_drop(nvml_use_t *use)
{
	free(use->user);
	use->user = NULL;
}

/* ---- this process ---- */

static int is_driver(struct dl_phdr_info *info, size_t size, void *found)
{
	const char *base = strrchr(info->dlpi_name, '/');

	(void)size;
	base = base ? base + 1 : info->dlpi_name;
	if (strncmp(base, "libcuda.so", 10) == 0)
		*(bool *)found = true;
	return 0;
}

/*
 * The table of the simulated driver, NULL where this process has none loaded.  Where a
 * driver is loaded, libcuda.so.1 is it, or emuV in front of it: nothing gets loaded,
 * or started, by this.
 */
static const emuv_sim_table_t *table_of_process(void)
{
	static const CUuuid id = { EMUV_SIM_TABLE_UUID_BYTES };
	CUresult (*get)(const void **, const CUuuid *);
	const void *table = NULL;
	bool loaded = false;
	void *library;

	dl_iterate_phdr(is_driver, &loaded);
	library = loaded ? dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD) : NULL;
	if (!library)
		return NULL;
	*(void **)&get = dlsym(library, "cuGetExportTable");
	if (!get || get(&table, &id) != CUDA_SUCCESS)
		table = NULL;
	dlclose(library);
	if (table && ((const emuv_sim_table_t *)table)->size <=
			     offsetof(emuv_sim_table_t, identify))
		return NULL; /* an older one */
	return table;
}

/* True: this process has initialised the simulated driver; *enough: memory sufficed. */
static bool use_of_process(int index, nvml_use_t *use, bool *enough)
{
	const emuv_sim_table_t *table = table_of_process();
	unsigned int contexts;
	int physical;

	if (!table || table->identify(0, &physical, &contexts) != CUDA_SUCCESS)
		return false;
	for (CUdevice device = 0; table->identify(device, &physical, &contexts) == CUDA_SUCCESS;
	     device++) {
		uint64_t bytes = 0;

		if (physical != index || table->device_used(device, &bytes) != CUDA_SUCCESS ||
		    (!contexts && !bytes))
			continue;
		*enough = add(use, getpid(), bytes);
	}
	return true;
}

/* ---- the programs under emuV ---- */

static uint64_t at_most(uint64_t bytes, uint64_t most)
{
	return bytes < most ? bytes : most;
}

typedef struct {
	int index;
	nvml_use_t *use;
	bool enough;
} programs_t;

static bool use_of_segment(const emuv_segment_t *segment, void *state)
{
	programs_t *programs = state;
	nvml_use_t *use = programs->use;

	for (uint32_t i = 0; segment->is_sim && i < segment->n_devices; i++) {
		const emuv_device_counters_t *device = &segment->device[i];
		uint64_t card = at_most(device->card_bytes, SIM_CARD_BYTES_MOST), bytes;
		uint64_t physical = ((device->pci - 1) >> 8 & 0xff) - 1;

		if (!device->pci || physical >= SIM_MAX_DEVICES)
			continue;
		if (physical + 1 > use->cards)
			use->cards = (unsigned int)physical + 1;
		if ((int)physical != programs->index)
			continue;
		if (card > use->card_bytes)
			use->card_bytes = card;
		bytes = at_most(at_most(device->device_bytes, card) +
					at_most(device->resident_bytes, card) +
					at_most(device->overhead_bytes, card) +
					at_most(device->graph_bytes, card) +
					at_most(device->kept_bytes, card),
				card);
		/* Its context has been made, or something is there without one. */
		if ((device->flags & EMUV_DEVICE_OVERHEAD_KNOWN || bytes) &&
		    !add(use, segment->pid, bytes))
			return programs->enough = false;
	}
	return true;
}

static bool use_of_programs(int index, nvml_use_t *use)
{
	programs_t programs = { index, use, true };

	return emuv_segment_each(use_of_segment, &programs) && programs.enough;
}

bool nvml_sim_use(int index, nvml_use_t *use)
{
	bool enough = true;

	*use = (nvml_use_t){ 0 };
	if (!use_of_process(index, use, &enough))
		enough = use_of_programs(index, use);
	if (!enough)
		nvml_sim_use_drop(use);
	return enough;
}
