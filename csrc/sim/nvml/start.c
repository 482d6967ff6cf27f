/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Init and shutdown, which are counted; what is said of the machine; words for errors.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nvml_sim.h"

#define DRIVER_VERSION "580.00"
#define VERSION "13." DRIVER_VERSION

/* By this name emuV knows the stand-in from NVIDIA's library. */
__attribute__((visibility("default"))) extern const int emuv_sim_nvml;
const int emuv_sim_nvml = 1;

static _Atomic unsigned int starts;

bool nvml_sim_started(void)
{
	return atomic_load_explicit(&starts, memory_order_relaxed) != 0;
}

nvmlReturn_t nvml_sim_text(char *buffer, unsigned int length, const char *text)
{
	if (!buffer)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (strlen(text) >= length)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	strcpy(buffer, text);
	return NVML_SUCCESS;
}

static nvmlReturn_t start(void)
{
	if (!nvml_sim_configure())
		return NVML_ERROR_UNKNOWN;
	atomic_fetch_add(&starts, 1);
	return NVML_SUCCESS;
}

NVML_API(nvmlInitWithFlags, unsigned int flags)
{
	return flags & ~(unsigned int)(NVML_INIT_FLAG_NO_GPUS | NVML_INIT_FLAG_NO_ATTACH)
		       ? NVML_ERROR_INVALID_ARGUMENT
		       : start();
}

NVML_API(nvmlInit_v2, void)
{
	return start();
}

NVML_API(nvmlInit, void)
{
	return start();
}

NVML_API(nvmlShutdown, void)
{
	unsigned int now = atomic_load(&starts);

	do {
		if (!now)
			return NVML_ERROR_UNINITIALIZED;
	} while (!atomic_compare_exchange_weak(&starts, &now, now - 1));
	return NVML_SUCCESS;
}

NVML_API(nvmlSystemGetDriverVersion, char *version, unsigned int length)
{
	NVML_ENTER();
	return nvml_sim_text(version, length, DRIVER_VERSION);
}

NVML_API(nvmlSystemGetNVMLVersion, char *version, unsigned int length)
{
	/* The one question that is answered before nvmlInit. */
	return nvml_sim_text(version, length, VERSION);
}

static nvmlReturn_t cuda_version(int *version)
{
	NVML_ENTER();
	if (!version)
		return NVML_ERROR_INVALID_ARGUMENT;
	*version = SIM_DRIVER_VERSION;
	return NVML_SUCCESS;
}

NVML_API(nvmlSystemGetCudaDriverVersion, int *version)
{
	return cuda_version(version);
}

NVML_API(nvmlSystemGetCudaDriverVersion_v2, int *version)
{
	return cuda_version(version);
}

/* The first word of its command line, cut to the buffer as NVML cuts it. */
NVML_API(nvmlSystemGetProcessName, unsigned int pid, char *name, unsigned int length)
{
	char path[40], text[1024];
	ssize_t got;
	int fd;

	NVML_ENTER();
	if (!name || !length)
		return NVML_ERROR_INVALID_ARGUMENT;
	snprintf(path, sizeof(path), "/proc/%u/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NVML_ERROR_NOT_FOUND;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return NVML_ERROR_NOT_FOUND;
	text[got] = '\0';
	snprintf(name, length, "%s", text);
	return NVML_SUCCESS;
}

static nvmlReturn_t none(unsigned int *count)
{
	NVML_ENTER();
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*count = 0;
	return NVML_SUCCESS;
}

/* Chassis of S-class servers. */
NVML_API(nvmlUnitGetCount, unsigned int *count)
{
	return none(count);
}

NVML_API(nvmlGetExcludedDeviceCount, unsigned int *count)
{
	return none(count);
}

__attribute__((visibility("default"))) const char *nvmlErrorString(nvmlReturn_t code);
const char *nvmlErrorString(nvmlReturn_t code)
{
	switch (code) {
	case NVML_SUCCESS: return "it worked";
	case NVML_ERROR_UNINITIALIZED: return "nvmlInit comes first";
	case NVML_ERROR_INVALID_ARGUMENT: return "an argument is not valid";
	case NVML_ERROR_NOT_SUPPORTED: return "not supported by this device";
	case NVML_ERROR_NO_PERMISSION: return "this user may not do that";
	case NVML_ERROR_ALREADY_INITIALIZED: return "initialised already";
	case NVML_ERROR_NOT_FOUND: return "there is no such thing";
	case NVML_ERROR_INSUFFICIENT_SIZE: return "the buffer given is too small";
	case NVML_ERROR_INSUFFICIENT_POWER: return "the device lacks external power";
	case NVML_ERROR_DRIVER_NOT_LOADED: return "the driver is not loaded";
	case NVML_ERROR_TIMEOUT: return "the time given is over";
	case NVML_ERROR_IRQ_ISSUE: return "the kernel sees trouble with the device's interrupts";
	case NVML_ERROR_LIBRARY_NOT_FOUND: return "the library was not found";
	case NVML_ERROR_FUNCTION_NOT_FOUND: return "the library has no such function";
	case NVML_ERROR_CORRUPTED_INFOROM: return "the device's info ROM is damaged";
	case NVML_ERROR_GPU_IS_LOST: return "the device does not answer any more";
	case NVML_ERROR_RESET_REQUIRED: return "the device needs a reset";
	case NVML_ERROR_OPERATING_SYSTEM: return "the operating system does not let the device be used";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "library and driver are of different versions";
	case NVML_ERROR_IN_USE: return "the device is in use";
	case NVML_ERROR_MEMORY: return "not enough memory";
	case NVML_ERROR_NO_DATA: return "no data";
	case NVML_ERROR_VGPU_ECC_NOT_SUPPORTED: return "not with ECC switched on";
	case NVML_ERROR_INSUFFICIENT_RESOURCES: return "a resource other than memory is used up";
	case NVML_ERROR_FREQ_NOT_SUPPORTED: return "the device has no such frequency";
	case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "a structure's version is not known";
	case NVML_ERROR_DEPRECATED: return "this is no longer done";
	case NVML_ERROR_NOT_READY: return "not ready for that";
	case NVML_ERROR_GPU_NOT_FOUND: return "no GPU was found";
	case NVML_ERROR_INVALID_STATE: return "not in the state for that";
	case NVML_ERROR_RESET_TYPE_NOT_SUPPORTED: return "no such reset for this device";
	case NVML_ERROR_UNKNOWN: break;
	}
	return "an unknown error";
}
