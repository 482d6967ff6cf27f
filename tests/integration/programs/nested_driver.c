/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A driver in two parts, as on WSL: this one is opened by emuV, and opens the other,
 * whose name (EMUV_TEST_INNER) begins as the driver's does, when EMUV_TEST_WHEN says:
 * "load" in its constructor, "first" in the first function that is called.  It looks
 * itself up as the other would: cuInit asks dlsym for cuInit.
 *
 * With EMUV_TEST_BACK each function calls its own name as a program would, and so emuV's
 * hook, which comes back here; only then is the other driver called.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_abi.h"

static void *inner;
static __thread int coming_back;

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

/* What a program that asks for the name is given, where it is not this driver's. */
static void *in_front(const char *name, void *own)
{
	void *found = getenv("EMUV_TEST_BACK") ? dlsym(RTLD_DEFAULT, name) : NULL;

	return found == own ? NULL : found;
}

#define FORWARD(export, params, args)                                        \
	CUresult export params;                                              \
	CUresult export params                                               \
	{                                                                    \
		static CUresult(*real) params, (*front) params;              \
		if (!real) {                                                 \
			*(void **)&front = in_front(#export, (void *)export); \
			*(void **)&real = find(#export);                     \
		}                                                            \
		if (front && !coming_back) {                                 \
			CUresult result;                                     \
			coming_back = 1;                                     \
			result = front args;                                 \
			coming_back = 0;                                     \
			return result;                                       \
		}                                                            \
		return real ? real args : CUDA_ERROR_NOT_INITIALIZED;        \
	}
#define EMUV_HOOK(export, params, args) FORWARD(export, params, args)
#define EMUV_USE(export, params, args) FORWARD(export, params, args)
#include "hooks.def"
FORWARD(cuCtxSetCurrent, (CUcontext context), (context))
