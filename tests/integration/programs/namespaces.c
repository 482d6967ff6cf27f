/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Takes device memory from several namespaces.  namespaces STEP…, each step one of
 *
 *   base:FILE:N     opens FILE here and takes up to N MiB through it
 *   new:FILE:N      the same in a namespace of its own
 *   plugin:FILE:N   FILE is a library with plugin_take, opened in a namespace of its own
 *   cycle:FILE:N    opens and closes FILE in a new namespace, N times
 *   fill:FILE:N     opens FILE in as many new namespaces as there can be, at most N
 *
 * Prints what each step came to: MiB taken, or times.  `total` is cuDeviceTotalMem of the last.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "take.h"

static size_t total;
static int code;

static void *need(void *found, const char *what)
{
	if (found)
		return found;
	fprintf(stderr, "namespaces: %s: %s\n", what, dlerror());
	exit(4);
}

static int take_some(void *library, int most)
{
	CUresult (*init)(unsigned int) = need(dlsym(library, "cuInit"), "cuInit");
	CUresult (*retain)(CUcontext *, CUdevice) =
		need(dlsym(library, "cuDevicePrimaryCtxRetain"), "retain");
	CUresult (*set)(CUcontext) = need(dlsym(library, "cuCtxSetCurrent"), "set");
	CUresult (*alloc)(CUdeviceptr *, size_t) = need(dlsym(library, "cuMemAlloc_v2"), "alloc");
	CUresult (*size)(size_t *, CUdevice) = need(dlsym(library, "cuDeviceTotalMem_v2"), "size");
	CUdeviceptr address;
	CUcontext context;
	int taken = 0;

	if (init(0) || retain(&context, 0) || set(context) || size(&total, 0)) {
		fprintf(stderr, "namespaces: CUDA does not start\n");
		exit(3);
	}
	while (taken < most && !(code = (int)alloc(&address, 1 << 20)))
		taken++;
	return taken;
}

static void *open_new(const char *file)
{
	return dlmopen(LM_ID_NEWLM, file, RTLD_NOW | RTLD_LOCAL);
}

static int step(const char *kind, const char *file, int n)
{
	void *library = NULL;
	int times = 0;

	if (strcmp(kind, "base") == 0)
		return take_some(need(dlopen(file, RTLD_NOW), file), n);
	if (strcmp(kind, "new") == 0)
		return take_some(need(open_new(file), file), n);
	if (strcmp(kind, "plugin") == 0) {
		int (*plugin_take)(void);

		library = need(open_new(file), file);
		*(void **)&plugin_take = need(dlsym(library, "plugin_take"), "plugin_take");
		return plugin_take();
	}
	if (strcmp(kind, "cycle") == 0)
		for (; times < n; times++)
			dlclose(need(open_new(file), file));
	if (strcmp(kind, "fill") == 0)
		for (; times < n && open_new(file); times++)
			;
	return times;
}

int main(int argc, char **argv)
{
	int came_to[32];

	for (int i = 1; i < argc; i++) {
		char *kind = argv[i], *file = strchr(kind, ':'), *n = strrchr(kind, ':');

		*file++ = *n++ = '\0';
		came_to[i] = step(kind, file, atoi(n));
	}
	printf("{\"came_to\": [");
	for (int i = 1; i < argc; i++)
		printf("%s%d", i > 1 ? ", " : "", came_to[i]);
	printf("], \"code\": %d, \"total\": %zu}\n", code, total);
	return 0;
}
