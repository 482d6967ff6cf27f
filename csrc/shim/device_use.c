/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "device_use.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emuv_environ.h"
#include "emuv_sim_table.h"
#include "pid_namespace.h"
#include "real.h"
#include "resolve.h"

/* ---- the simulated GPU ---- */

static const emuv_sim_table_t *sim_table(void)
{
	static const CUuuid id = { EMUV_SIM_TABLE_UUID_BYTES };
	const void *table = NULL;

	if (g_real.cuGetExportTable(&table, &id))
		return NULL;
	return table;
}

bool emuv_device_is_sim(void)
{
	return sim_table() != NULL;
}

/* ---- NVML, by its public API ---- */

typedef void *nvml_device_t;
typedef struct {
	unsigned long long total, free, used;
} nvml_memory_t;
typedef struct {
	unsigned int pid;
	unsigned long long used;
	unsigned int gpu_instance, compute_instance;
} nvml_process_t;

typedef struct {
	int (*by_bus_id)(const char *, nvml_device_t *);
	int (*memory)(nvml_device_t, nvml_memory_t *);
	int (*processes)(nvml_device_t, unsigned int *, nvml_process_t *);
} nvml_t;

/*
 * Looked up anew for each context, of which a program makes few: nothing is kept, so
 * no lock is held over the loader's calls (see resolve.c).  NVML counts its inits.
 */
static bool nvml_open(nvml_t *nvml)
{
	const char *path = emuv_environ("EMUV_NVML");
	/* By that path even where emuV's own bears the name: here the card is asked, not the budget. */
	void *library = emuv_resolve_library(path && path[0] == '/' ? path : "libnvidia-ml.so.1");
	int (*init)(void);

	/* emuV's own stand-in tells of simulated cards, and this driver's are not. */
	if (!library || dlsym(library, "emuv_sim_nvml"))
		return false;
	*(void **)&init = dlsym(library, "nvmlInit_v2");
	*(void **)&nvml->by_bus_id = dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
	*(void **)&nvml->memory = dlsym(library, "nvmlDeviceGetMemoryInfo");
	*(void **)&nvml->processes = dlsym(library, "nvmlDeviceGetComputeRunningProcesses_v3");
	return init && nvml->by_bus_id && nvml->memory && init() == 0;
}

/* False: NVML does not tell processes apart here, or does not list this one. */
static bool nvml_process(const nvml_t *nvml, nvml_device_t handle, bool must_be_listed,
			 uint64_t *bytes)
{
	nvml_process_t list[64];
	unsigned int n = sizeof list / sizeof *list;
	bool listed = false;

	if (!nvml->processes || !emuv_pid_is_global() || nvml->processes(handle, &n, list))
		return false;
	*bytes = 0;
	for (unsigned int i = 0; i < n; i++)
		/* All ones: the driver cannot say. */
		if (list[i].pid == (unsigned int)getpid()) {
			if (list[i].used == ~0ULL)
				return false;
			*bytes += list[i].used;
			listed = true;
		}
	return listed || !must_be_listed;
}

bool emuv_device_used(CUdevice device, bool has_context, uint64_t *bytes, int *whole_card)
{
	const emuv_sim_table_t *sim = sim_table();
	nvml_device_t handle;
	nvml_memory_t memory;
	nvml_t nvml;
	char bus_id[32];

	*whole_card = 0;
	if (sim)
		return sim->device_used(device, bytes) == CUDA_SUCCESS;
	if (!nvml_open(&nvml) || g_real.cuDeviceGetPCIBusId(bus_id, sizeof bus_id, device) ||
	    nvml.by_bus_id(bus_id, &handle))
		return false;
	if (nvml_process(&nvml, handle, has_context, bytes))
		return true;
	*whole_card = 1;
	if (nvml.memory(handle, &memory))
		return false;
	*bytes = memory.used;
	return true;
}
