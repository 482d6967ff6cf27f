/* SPDX-License-Identifier: GPL-2.0-only */
/* The machine's NVML: opened on the first call, by the path that the launcher found. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "emuv_environ.h"
#include "emuv_library_name.h"
#include "shown.h"

/* By this name libemuv.so finds where this library is. */
__attribute__((visibility("default"))) extern const char emuv_nvml_library;
const char emuv_nvml_library = 1;

__thread unsigned int shown_inside;

static const char *const names[] = {
#define NVML_NAME(name) #name,
#define NVML_MORE(name) #name,
#include "nvml_names.def"
};

/* stubs.S: slot i at first leads to emuv_forward_lookup(i). */
extern void *emuv_forward_slots[sizeof names / sizeof *names];

static void *library; /* atomic */

static nvmlReturn_t no_library(void)
{
	return NVML_ERROR_LIBRARY_NOT_FOUND;
}

/* What nvidia-ml-py answers where a library lacks a function. */
static nvmlReturn_t no_function(void)
{
	return NVML_ERROR_FUNCTION_NOT_FOUND;
}

/* What is not there leaves no words for the program's next dlerror(). */
static void *symbol_of(void *opened, const char *name)
{
	void *found = dlsym(opened, name);

	if (!found)
		dlerror();
	return found;
}

/* By emuV's own spelling, because any other leads back here. */
static void *open_at(const char *path)
{
	char spelling[PATH_MAX];
	void *opened = dlmopen(LM_ID_BASE, emuv_own_spelling(path, spelling, sizeof spelling),
			       RTLD_NOW | RTLD_LOCAL);

	if (!opened)
		dlerror();
	/* This library under another name would call itself for ever. */
	if (opened && symbol_of(opened, "emuv_nvml_library")) {
		dlclose(opened);
		opened = NULL;
	}
	return opened;
}

/* Two threads may both look, and find the same: no lock is held over the loader's calls. */
static void *open_library(void)
{
	/* For a child that was given the preload and nothing else of the run. */
	static const char *const usual[] = {
		"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
		"/usr/lib64/libnvidia-ml.so.1",
		"/usr/lib/libnvidia-ml.so.1",
		"/usr/lib/wsl/lib/libnvidia-ml.so.1",
		"/run/opengl-driver/lib/libnvidia-ml.so.1",
	};
	void *opened = __atomic_load_n(&library, __ATOMIC_ACQUIRE);
	const char *path;

	if (opened)
		return opened;
	shown_config(); /* which finds out whose environment is the run's */
	path = emuv_environ("EMUV_NVML");
	if (path)
		opened = path[0] == '/' ? open_at(path) : NULL;
	for (size_t i = 0; !path && !opened && i < sizeof usual / sizeof *usual; i++)
		opened = open_at(usual[i]);
	if (opened)
		__atomic_store_n(&library, opened, __ATOMIC_RELEASE);
	return opened;
}

void *shown_real(const char *name)
{
	int saved = errno;
	void *opened = open_library();
	void *function = opened ? symbol_of(opened, name) : (void *)&no_library;

	errno = saved;
	return function ? function : (void *)&no_function;
}

bool shown_is_sim(void)
{
	void *opened = open_library();

	return opened && symbol_of(opened, "emuv_sim_nvml");
}

/* Called from the stubs with the index of the function; its answer is jumped to. */
void *emuv_forward_lookup(uint64_t index);
void *emuv_forward_lookup(uint64_t index)
{
	void *function = shown_real(names[index]);

	/* A library that is not there now is looked for again. */
	if (function != (void *)&no_library)
		__atomic_store_n(&emuv_forward_slots[index], function, __ATOMIC_RELEASE);
	return function;
}

/* The one function whose answer is no code. */
__attribute__((visibility("default"))) const char *nvmlErrorString(nvmlReturn_t code);
const char *nvmlErrorString(nvmlReturn_t code)
{
	void *function = shown_real("nvmlErrorString");

	if (function == (void *)&no_library || function == (void *)&no_function)
		return "no NVML library was found";
	return ((__typeof__(&nvmlErrorString))function)(code);
}
