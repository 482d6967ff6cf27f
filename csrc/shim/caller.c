/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "caller.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>
#include <unwind.h>

#include "lifecycle.h"
#include "resolve.h"

#define MOST_FRAMES 32

/* The name of the file that holds the code; NULL: not known. */
static const char *file_of(const void *code)
{
	const char *slash;
	Dl_info info;

	if (!dladdr(code, &info) || !info.dli_fname)
		return NULL;
	slash = strrchr(info.dli_fname, '/');
	return slash ? slash + 1 : info.dli_fname;
}

static bool is_runtime(const char *name)
{
	return strncmp(name, "libcudart", 9) == 0;
}

typedef struct {
	const char *name; /* the first file beyond the runtime's */
	bool beyond;      /* the runtime's code has been met */
	int frames;
	_Unwind_Ptr (*ip)(struct _Unwind_Context *);
} walk_t;

/* From emuV's own frames outward: to the runtime, through it, to who called it. */
static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *argument)
{
	walk_t *walk = argument;
	const char *name = file_of((const void *)walk->ip(context));
	bool runtime = name && is_runtime(name);

	if (walk->beyond && !runtime) {
		walk->name = name;
		return _URC_NORMAL_STOP;
	}
	walk->beyond |= runtime;
	return ++walk->frames < MOST_FRAMES ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

static const char *beyond_runtime(void)
{
	_Unwind_Reason_Code (*trace)(_Unwind_Trace_Fn, void *);
	void *library = emuv_resolve_loaded("libgcc_s.so.1");
	walk_t walk = { 0 };

	if (!library)
		return NULL;
	trace = (_Unwind_Reason_Code(*)(_Unwind_Trace_Fn, void *))dlsym(library, "_Unwind_Backtrace");
	walk.ip = (_Unwind_Ptr(*)(struct _Unwind_Context *))dlsym(library, "_Unwind_GetIP");
	if (!trace || !walk.ip)
		return NULL;
	trace(step, &walk);
	return walk.name;
}

const char *emuv_caller_name(void)
{
	const char *name = file_of((const void *)emuv_inside);

	return name && is_runtime(name) ? beyond_runtime() : name;
}
