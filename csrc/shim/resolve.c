/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "resolve.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "emuv_library_name.h"
#include "real.h"

/* ---- g_real: never NULL ---- */

#define EMUV_HOOK(export, params, args)                       \
	__attribute__((unused)) static CUresult missing_##export params;
#define EMUV_USE(export, params, args) static CUresult missing_##export params;
#include "hooks.def"

/* What a call gets that the driver does not have, or that comes before the driver is open. */
#define MISSING CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define EMUV_HOOK(export, params, args)        \
	static CUresult missing_##export params \
	{                                       \
		return MISSING;                 \
	}
#define EMUV_USE(export, params, args) EMUV_HOOK(export, params, args)
#include "hooks.def"
#pragma GCC diagnostic pop

emuv_real_t g_real = {
#define EMUV_HOOK(export, params, args) .export = missing_##export,
#define EMUV_USE(export, params, args) .export = missing_##export,
#include "hooks.def"
};

/* ---- hooked exports by name ---- */

typedef struct {
	const char *export;
	void *hook;
	void *real; /* the driver's own address, NULL until open */
} hooked_t;

static hooked_t hooked[] = {
#define EMUV_HOOK(export, params, args) { #export, (void *)export, NULL },
#include "hooks.def"
};
#define N_HOOKED (sizeof hooked / sizeof *hooked)

typedef struct {
	const char *export;
	const char *name;
	int version;
	int flag;
} api_t;

static const api_t api[] = {
#define EMUV_API(export, name, version, flag) { #export, #name, version, flag },
#include "driver_api.def"
#undef EMUV_API
};

static hooked_t *hooked_export(const char *export)
{
	for (size_t i = 0; i < N_HOOKED; i++)
		if (strcmp(hooked[i].export, export) == 0)
			return &hooked[i];
	return NULL;
}

/*
 * Rows of api[] whose name has a hooked variant: all that the look-up by name needs
 * to go through, and libcudart alone does some 480 of them at start.
 */
static const api_t *hooked_rows[4 * N_HOOKED];
static size_t n_hooked_rows;
static int api_newest; /* the newest version that driver_api.def knows */

static void collect_hooked_rows(void)
{
	const size_t n_api = sizeof api / sizeof *api;

	for (size_t i = 0; i < n_api; i++) {
		bool wanted = false;

		if (api[i].version > api_newest)
			api_newest = api[i].version;
		/* Rows of one name do not lie side by side; a name's exports start with it. */
		for (size_t j = 0; j < N_HOOKED && !wanted; j++)
			wanted = strncmp(hooked[j].export, api[i].name, strlen(api[i].name)) == 0;
		if (wanted && n_hooked_rows < sizeof hooked_rows / sizeof *hooked_rows)
			hooked_rows[n_hooked_rows++] = &api[i];
	}
}

/* ---- pointer -> hook ---- */

#define MAP_SLOTS 1024 /* a power of two, several times N_HOOKED */
_Static_assert(N_HOOKED * 3 < MAP_SLOTS, "the pointer map is too full");
static hooked_t *map[MAP_SLOTS];

static size_t map_slot(const void *pointer)
{
	size_t at = (size_t)(((uintptr_t)pointer * UINT64_C(0x9e3779b97f4a7c15)) >> 32);

	for (at &= MAP_SLOTS - 1; map[at] && map[at]->real != pointer; at = (at + 1) % MAP_SLOTS)
		;
	return at;
}

/* ---- the driver ---- */

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static void *driver;
static void *driver_base; /* atomic: where it is mapped */
static int open_result = 1; /* 1: not tried */
static __thread int opening;
static char open_error[256];

static void *(*real_dlopen)(const char *, int);
static void *(*real_dlmopen)(Lmid_t, const char *, int);

static struct link_map *own_map(void)
{
	struct link_map *own = NULL;
	Dl_info info;

	return dladdr1((void *)&own_map, &info, (void **)&own, RTLD_DL_LINKMAP) ? own : NULL;
}

static bool is_own(const void *function)
{
	Dl_info own, its;

	return dladdr((void *)&own_map, &own) && dladdr(function, &its) &&
	       own.dli_fbase == its.dli_fbase;
}

/*
 * libc's own of a function that is hooked here.  Where this library is preloaded, libc
 * comes after it.  Where it came in by a library that needs it, libc may come before:
 * then whoever brought both in finds libc's first.
 */
static void *libc_own(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);
	struct link_map *at = found ? NULL : own_map();

	while (at && at->l_prev)
		at = at->l_prev;
	for (; at && (!found || is_own(found)); at = at->l_next)
		found = dlsym(at, name);
	dlerror(); /* no words for the program */
	return found && is_own(found) ? NULL : found;
}

static void find_real_dlopen(void)
{
	/* ISO C has no conversion from object to function pointer; POSIX does. */
	*(void **)&real_dlopen = libc_own("dlopen");
	*(void **)&real_dlmopen = libc_own("dlmopen");
}

/* Where the loader has no driver, its words about the path that was given are in *why. */
static void *open_driver(const char *path, const char **why)
{
	void *library = emuv_resolve_library(path);
	char spelling[PATH_MAX];
	const char *own;
	size_t n;

	*why = library ? NULL : dlerror();
	own = emuv_own_spelling(path, spelling, sizeof spelling);
	n = strlen(own);
	if (*why && strncmp(*why, own, n) == 0 && strncmp(*why + n, ": ", 2) == 0)
		*why += n + 2;
	return library;
}

/* ---- one copy of this library keeps the books ---- */

const char *emuv_resolve_self(void)
{
	Dl_info info;

	/* The loader's own string, there as long as the library. */
	return dladdr((void *)&emuv_resolve_self, &info) ? info.dli_fname : NULL;
}

bool emuv_resolve_is_home(void)
{
	struct link_map *own = own_map();
	Lmid_t where = LM_ID_BASE;

	return !own || dlinfo(own, RTLD_DI_LMID, &where) || where == LM_ID_BASE;
}

/*
 * The copy in the base namespace, which is loaded there if it is not yet: for a copy
 * elsewhere it is the driver.
 */
static void *open_home(const char **why)
{
	const char *self = emuv_resolve_self();
	void *home = NULL;

	if (!real_dlmopen)
		find_real_dlopen();
	if (self && real_dlmopen)
		home = real_dlmopen(LM_ID_BASE, self, RTLD_NOW | RTLD_LOCAL);
	*why = home ? NULL : dlerror();
	return home;
}

static void pin(void)
{
	const char *self = emuv_resolve_self();

	if (self && real_dlopen)
		real_dlopen(self, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

/* What a driver answers for the rows of hooks.def. */
typedef struct {
	emuv_real_t real;
	void *hooked[N_HOOKED];
	void *base; /* where it is mapped */
} found_t;

static void look_up(void *library, found_t *found)
{
	void *symbol;
	Dl_info info;

	found->real = g_real;
	found->base = dladdr(dlsym(library, "cuInit"), &info) ? info.dli_fbase : NULL;
#define EMUV_HOOK(export, params, args)                  \
	symbol = dlsym(library, #export);                \
	if (symbol)                                      \
		*(void **)&found->real.export = symbol;  \
	found->hooked[EMUV_FN_##export] = symbol;
#define EMUV_USE(export, params, args)                   \
	symbol = dlsym(library, #export);                \
	if (symbol)                                      \
		*(void **)&found->real.export = symbol;
#include "hooks.def"
}

static void put_in_place(const found_t *found)
{
	g_real = found->real;
	__atomic_store_n(&driver_base, found->base, __ATOMIC_RELEASE);
	collect_hooked_rows();
	for (size_t i = 0; i < N_HOOKED; i++) {
		hooked[i].real = found->hooked[i];
		if (hooked[i].real)
			map[map_slot(hooked[i].real)] = &hooked[i];
	}
}

int emuv_resolve_open(const char *path, char *error, size_t error_bytes)
{
	found_t found;
	void *library;
	const char *why;
	int result;

	/* A recursive call comes from the driver's own start: it finds nothing yet. */
	if (opening)
		return -EBUSY;
	opening = 1;
	/*
	 * No lock over the loader's calls: a thread inside dlopen, in a constructor
	 * that calls the driver, holds the loader's lock and would wait for ours.
	 * Two threads may both look; what they find is the same.
	 */
	library = path ? open_driver(path, &why) : open_home(&why);
	if (library && dlsym(library, "cuInit") == (void *)cuInit) {
		/* Every call would go round for ever. */
		dlclose(library);
		library = NULL;
		why = "this is emuV itself, not a driver";
	}
	if (library)
		look_up(library, &found);
	pthread_mutex_lock(&open_lock);
	if (open_result == 1) {
		driver = library;
		open_result = library ? 0 : -ENOENT;
		if (library)
			put_in_place(&found);
		else
			snprintf(open_error, sizeof open_error, "%s",
				 why ? why : "no reason given");
	}
	result = open_result;
	pthread_mutex_unlock(&open_lock);
	/* From here on there are books, which a dlclose by the program must not take. */
	if (path && !result)
		pin();
	opening = 0;
	if (result && error)
		snprintf(error, error_bytes, "%s", open_error);
	return result;
}

void emuv_resolve_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	memcpy(&open_lock, &fresh, sizeof open_lock);
	opening = 0;
}

void *emuv_resolve_symbol(const char *name)
{
	return driver ? dlsym(driver, name) : NULL;
}

void *emuv_resolve_library(const char *name)
{
	char spelling[PATH_MAX];

	name = emuv_own_spelling(name, spelling, sizeof spelling);
	if (!real_dlopen)
		find_real_dlopen();
	return real_dlopen ? real_dlopen(name, RTLD_NOW | RTLD_LOCAL) : NULL;
}

void *emuv_resolve_loaded(const char *name)
{
	if (!real_dlopen)
		find_real_dlopen();
	return real_dlopen ? real_dlopen(name, RTLD_LAZY | RTLD_NOLOAD) : NULL;
}

/* ---- cuGetProcAddress ---- */

/* The export that (name, version, flags) means: the newest row not newer than asked. */
static const char *export_of(const char *name, int version, unsigned long long flags)
{
	int want = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM ? 1 : 0;
	const api_t *best = NULL;

	for (size_t i = 0; i < n_hooked_rows; i++) {
		const api_t *row = hooked_rows[i];

		if (row->version > version || row->flag > want || strcmp(row->name, name) != 0)
			continue;
		/* A per-thread row, where there is one, is what the flag asks for. */
		if (!best || row->flag > best->flag ||
		    (row->flag == best->flag && row->version > best->version))
			best = row;
	}
	return best ? best->export : NULL;
}

void *emuv_resolve_replace(void *pointer, const char *name, int version, unsigned long long flags)
{
	const hooked_t *found = map[map_slot(pointer)];
	const char *export;

	if (found)
		return found->hook;
	export = export_of(name, version, flags);
	found = export ? hooked_export(export) : NULL;
	if (!found)
		return pointer;
	/* Past what the table knows, it holds only if the driver has nothing newer. */
	if (version > api_newest) {
		void *known = NULL;

		if (g_real.cuGetProcAddress(name, &known, api_newest, flags) || known != pointer)
			return NULL;
	}
	return found->hook;
}

/* ---- dlopen and dlmopen (the hooks themselves are in stubs.S) ---- */

/*
 * The driver itself, or a part of it that it has just been opened for: what it opens
 * by the driver's name is another part of it (WSL's libcuda.so.1 is a loader of the
 * libcuda.so.1.1 that Windows brings), not emuV.
 */
static bool is_driver(const void *caller)
{
	const void *base = __atomic_load_n(&driver_base, __ATOMIC_ACQUIRE);
	Dl_info info;

	return opening || (base && dladdr(caller, &info) && info.dli_fbase == base);
}

/* libemuv-nvml.so's, where it is in the process. */
__attribute__((weak)) extern const char emuv_nvml_library;

/* What NVML opens by its own name is another part of it (WSL). */
static const char *instead_of_nvml(const void *caller)
{
	Dl_info ours, callers;

	if (!&emuv_nvml_library || !dladdr(&emuv_nvml_library, &ours))
		return NULL;
	if (dladdr(caller, &callers) && callers.dli_fname &&
	    emuv_is_named(emuv_file_of(callers.dli_fname), "libnvidia-ml.so"))
		return NULL;
	return ours.dli_fname;
}

/*
 * What the hooks open instead of `file`: this library for any spelling of
 * the driver (libcuda.so, libcuda.so.1, libcuda.so.580.65.06, with any path),
 * libemuv-nvml.so for any of NVML's, `file` itself for everything else.  `caller`: where
 * the hook returns to.
 */
const char *emuv_dlopen_file(const char *file, const void *caller);
const char *emuv_dlopen_file(const char *file, const void *caller)
{
	const char *instead = NULL;
	int saved = errno;

	if (!file)
		return NULL;
	switch (emuv_library_meant(file)) {
	case EMUV_DRIVER_LIBRARY:
		instead = is_driver(caller) ? NULL : emuv_resolve_self();
		break;
	case EMUV_NVML_LIBRARY:
		instead = instead_of_nvml(caller);
		break;
	case EMUV_OTHER_LIBRARY:
		break;
	}
	errno = saved;
	return instead ? instead : file;
}

/* The real functions, found on first use: other constructors may come before ours. */
void *emuv_dlopen_real(void);
void *emuv_dlopen_real(void)
{
	if (!real_dlopen)
		find_real_dlopen();
	return *(void **)&real_dlopen;
}

void *emuv_dlmopen_real(void);
void *emuv_dlmopen_real(void)
{
	if (!real_dlmopen)
		find_real_dlopen();
	return *(void **)&real_dlmopen;
}
