/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A driver in two parts, as on WSL: this one is opened by emuV, and opens the other,
 * whose name (EMUV_TEST_INNER) begins as the driver's does, when EMUV_TEST_WHEN says:
 * "load" in its constructor, "first" in the first function that is called.  It looks
 * itself up as the other would: cuInit asks dlsym for cuInit.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_abi.h"

static void *inner;

static void open_inner(void)
{
	const char *path = getenv("EMUV_TEST_INNER");

	if (!inner && path)
		inner = dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

__attribute__((constructor)) static void start(void)
{
	const char *when = getenv("EMUV_TEST_WHEN");

	if (when && strcmp(when, "load") == 0)
		open_inner();
}

static void *find(const char *name)
{
	open_inner();
	/* What WSL's driver does on the way; an answer that led back here would not end. */
	dlsym(RTLD_DEFAULT, name);
	return inner ? dlsym(inner, name) : NULL;
}

#define FORWARD(export, params, args)                                        \
	CUresult export params;                                              \
	CUresult export params                                               \
	{                                                                    \
		static CUresult(*real) params;                               \
		if (!real)                                                   \
			*(void **)&real = find(#export);                     \
		return real ? real args : CUDA_ERROR_NOT_INITIALIZED;        \
	}
#define EMUV_HOOK(export, params, args) FORWARD(export, params, args)
#define EMUV_USE(export, params, args) FORWARD(export, params, args)
#include "hooks.def"
FORWARD(cuCtxSetCurrent, (CUcontext context), (context))
