/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ways in which programs find the driver at run time.  lookup WAY [FILE]:
 *
 *   dlsym FILE      opens FILE, looks up the newest export by its own name
 *   noload FILE     the same, of a library that must be there already
 *   v2-first FILE   tries NAME_v2, then NAME, for every function
 *   main            dlopen(NULL)
 *   default         RTLD_DEFAULT
 *   dlvsym FILE     with a dlsym that came from dlvsym
 *   address1 FILE   cuGetProcAddress, the four-argument form
 *   address2 FILE   cuGetProcAddress_v2
 *   per-thread FILE the same, per-thread default streams, stream-ordered memory
 *   runtime FILE    as a runtime library with its own loader does: see below
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "take.h"

typedef CUresult (*address1_t)(const char *, void **, int, cuuint64_t);
typedef CUresult (*address2_t)(const char *, void **, int, cuuint64_t,
			       CUdriverProcAddressQueryResult *);

static void *handle;
static void *(*find_symbol)(void *, const char *) = dlsym;
static address1_t address1;
static address2_t address2;
static cuuint64_t flags;

static void *give_up(const char *what)
{
	fprintf(stderr, "lookup: %s: %s\n", what, dlerror());
	exit(4);
}

static void *symbol(const char *name)
{
	void *found = find_symbol(handle, name);

	return found ? found : give_up(name);
}

/* Each function: its name, the ABI suffix of its newest export, the version that introduced it. */
static void *by_symbol(const char *name, const char *suffix, int version)
{
	char export[64];

	(void)version;
	snprintf(export, sizeof export, "%s%s", name, suffix);
	return symbol(export);
}

static void *by_v2_first(const char *name, const char *suffix, int version)
{
	char export[64];
	void *found;

	(void)suffix, (void)version;
	snprintf(export, sizeof export, "%s_v2", name);
	found = find_symbol(handle, export);
	return found ? found : symbol(name);
}

static void *by_address(const char *name, const char *suffix, int version)
{
	CUdriverProcAddressQueryResult status;
	void *found = NULL;
	CUresult result;

	(void)suffix;
	result = address2 ? address2(name, &found, version, flags, &status) :
			    address1(name, &found, version, flags);
	return !result && found ? found : give_up(name);
}

/*
 * What the CUDA runtime does: asks the driver's version, probes with an empty name,
 * gets cuGetProcAddress through itself in both forms, and goes on with those.
 */
static void as_a_runtime(void)
{
	CUresult (*get_version)(int *) = symbol("cuDriverGetVersion");
	address2_t first = symbol("cuGetProcAddress_v2");
	CUdriverProcAddressQueryResult status = 0;
	void *old = NULL, *new = NULL, *nothing = &handle;
	int version = 0;

	if (get_version(&version) || version < 12000)
		exit(5);
	first("", &nothing, 0, 0, &status);
	if (first("cuGetProcAddress", &old, 11030, 0, &status) || !old ||
	    first("cuGetProcAddress", &new, 12000, 0, &status) || !new || old == new)
		exit(6);
	address1 = (address1_t)old;
	/* The old form leads on too. */
	if (address1("cuGetProcAddress", &new, 12000, 0) || !new)
		exit(7);
	address2 = (address2_t)new;
}

#ifdef TAKE_SHARED
#ifndef NAME
#define NAME "libcuda.so.1"
#endif
int plugin_take(void);
int plugin_take(void)
{
	char *argv[] = { (char *)"plugin", (char *)"dlsym", (char *)NAME, NULL };
	const int argc = 3;
#else
int main(int argc, char **argv)
{
#endif
	void *(*find)(const char *, const char *, int) = by_symbol;
	const char *way = argc > 1 ? argv[1] : "";
	take_api_t api = { 0 };

	if (strcmp(way, "default") == 0)
		handle = RTLD_DEFAULT;
	else if (strcmp(way, "main") == 0)
		handle = dlopen(NULL, RTLD_NOW);
	else if (argc > 2)
		handle = dlopen(argv[2], strcmp(way, "noload") ? RTLD_NOW : RTLD_NOW | RTLD_NOLOAD);
	if (!handle && strcmp(way, "default"))
		give_up(argc > 2 ? argv[2] : way);
	if (strcmp(way, "v2-first") == 0)
		find = by_v2_first;
	if (strcmp(way, "dlvsym") == 0) {
		*(void **)&find_symbol = dlvsym(RTLD_DEFAULT, "dlsym", "GLIBC_2.2.5");
		if (!find_symbol)
			give_up("dlsym");
	}
	if (strcmp(way, "address1") == 0)
		address1 = symbol("cuGetProcAddress");
	if (strcmp(way, "address2") == 0 || strcmp(way, "per-thread") == 0)
		address2 = symbol("cuGetProcAddress_v2");
	if (strcmp(way, "runtime") == 0)
		as_a_runtime();
	if (strcmp(way, "per-thread") == 0)
		flags = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
	if (address1 || address2)
		find = by_address;

	*(void **)&api.init = find("cuInit", "", 2000);
	*(void **)&api.retain = find("cuDevicePrimaryCtxRetain", "", 7000);
	*(void **)&api.set_current = find("cuCtxSetCurrent", "", 4000);
	*(void **)&api.total = find("cuDeviceTotalMem", "_v2", 3020);
	if (flags)
		*(void **)&api.alloc_async = find("cuMemAllocAsync", "_ptsz", 11020);
	else
		*(void **)&api.alloc = find("cuMemAlloc", "_v2", 3020);
	return take(&api);
}
