// SPDX-License-Identifier: GPL-2.0-only
// What a device's use is measured by, where libnvidia-ml.so.1 is emuV's own stand-in.
// link: csrc/shim/device_use.c
// link: csrc/common/emuv_environ.c
// sanitize: address
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "device_use.h"
#include "real.h"
#include "resolve.h"

static const char *nvml_path, *asked_for = "libnvidia-ml.so.1";
static int asked_for_bus;

static CUresult no_table(const void **table, const CUuuid *id)
{
	(void)table;
	(void)id;
	return CUDA_ERROR_NOT_FOUND;
}

static CUresult bus_id(char *text, int bytes, CUdevice device)
{
	asked_for_bus++;
	snprintf(text, (size_t)bytes, "0000:%02X:00.0", 1 + device);
	return CUDA_SUCCESS;
}

emuv_real_t g_real = { .cuGetExportTable = no_table, .cuDeviceGetPCIBusId = bus_id };

void *emuv_resolve_library(const char *name)
{
	CHECK(strcmp(name, asked_for) == 0);
	return dlopen(nvml_path, RTLD_NOW | RTLD_LOCAL);
}

int main(void)
{
	char path[4096] = __FILE__;
	int (*init)(void), (*by_bus)(const char *, void **);
	uint64_t bytes = 7;
	int whole = 7;
	void *library, *handle = NULL;

	strcpy(strstr(path, "/tests/c/"), "/emuv_shim/_lib/sim/libnvidia-ml.so.1");
	nvml_path = path;
	library = emuv_resolve_library("libnvidia-ml.so.1");
	CHECK(library != NULL);

	/* It answers for a card at that very place of the bus … */
	*(void **)&init = dlsym(library, "nvmlInit_v2");
	*(void **)&by_bus = dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
	CHECK(init() == 0 && by_bus("0000:01:00.0", &handle) == 0 && handle);

	/* … and is not believed about a card of another driver. */
	CHECK(!emuv_device_used(0, false, &bytes, &whole));
	CHECK(asked_for_bus == 0 && bytes == 7);
	CHECK(!emuv_device_is_sim());

	/* Under emuv-run it is asked for by its path: its name is emuV's own there. */
	asked_for = path;
	setenv("EMUV_NVML", path, 1);
	CHECK(!emuv_device_used(0, false, &bytes, &whole));
	return 0;
}
