/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What modules take: their code and globals, and `__managed__` variables.
 *
 * A load is never refused for what it takes.  That is measured around it, as of a context
 * (overhead.h), charged as overhead, and given back when the module or library is
 * unloaded or its context goes.  What the driver loads when it is first used is found
 * when room gets short.
 *
 * A managed variable is charged when the program first asks where it is: within the
 * budget it migrates as the program likes, beyond it emuV's hints keep it on the host,
 * like other managed memory of the program's own (hooks_memory.c).
 */
#include "contexts.h"
#include "hooks.h"
#include "overhead.h"
#include "placement.h"
#include "relaxed.h"
#include "residency.h"

/* ---- code ---- */

typedef struct {
	emuv_where_t where;
	emuv_use_t before;
	bool here, measured;
} load_t;

static load_t load_begins(enum emuv_function function)
{
	load_t load = { .here = false };

	load.here = emuv_where_current(&load.where);
	if (load.here) {
		emuv_account_call(load.where.device, (int)function);
		load.measured = emuv_overhead_begin(load.where.device, &load.before);
	}
	return load;
}

/* `owned`: it goes with the context.  (A library does not.) */
static void load_ends(const load_t *load, CUresult result, const void *handle, bool owned)
{
	emuv_entry_t entry = { .kind = EMUV_KIND_CODE, .key = (uint64_t)(uintptr_t)handle };

	if (result || !load->here)
		return;
	if (load->measured)
		entry.bytes = emuv_overhead_loaded(load->where.device, &load->before);
	entry.device = (int16_t)load->where.device;
	entry.context = owned ? (uint64_t)(uintptr_t)load->where.context : 0;
	/* With no memory for the note its charge stays: too much, never too little. */
	emuv_account_note(&entry);
	emuv_overhead_expect(load->where.device);
}

static CUresult unload(enum emuv_function function, const void *handle, CUresult (*real)(void *))
{
	uint64_t key = (uint64_t)(uintptr_t)handle, mark = emuv_account_mark();
	emuv_entry_t entry = { .device = 0 };
	emuv_use_t before;
	bool known, measured = false;
	CUresult result;

	known = emuv_account_take(EMUV_KIND_CODE, key, &entry);
	if (known) {
		emuv_account_call(entry.device, (int)function);
		measured = emuv_overhead_begin(entry.device, &before);
	}
	result = real((void *)handle);
	if (known && result)
		emuv_account_restore(&entry);
	if (result || !known)
		return result;
	emuv_account_freed(&entry);
	emuv_account_variables_gone(key, mark);
	if (measured)
		emuv_overhead_unloaded(entry.device, &before, entry.bytes);
	return CUDA_SUCCESS;
}

/* `call` is the driver's. */
#define LOAD(function, call, handle, owned)                                    \
	do {                                                                   \
		load_t load = load_begins(function);                           \
		CUresult result = call;                                        \
		load_ends(&load, result, (handle) ? *(handle) : NULL, owned);  \
		return result;                                                 \
	} while (0)

CUresult hook_cuModuleLoad(CUmodule *module, const char *path)
{
	LOAD(EMUV_FN_cuModuleLoad, g_real.cuModuleLoad(module, path), module, true);
}

CUresult hook_cuModuleLoadData(CUmodule *module, const void *image)
{
	LOAD(EMUV_FN_cuModuleLoadData, g_real.cuModuleLoadData(module, image), module, true);
}

CUresult hook_cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count,
				 int *options, void **values)
{
	LOAD(EMUV_FN_cuModuleLoadDataEx,
	     g_real.cuModuleLoadDataEx(module, image, count, options, values), module, true);
}

CUresult hook_cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
	LOAD(EMUV_FN_cuModuleLoadFatBinary, g_real.cuModuleLoadFatBinary(module, image), module,
	     true);
}

CUresult hook_cuLibraryLoadData(CUlibrary *library, const void *code, int *options,
				void **values, unsigned int count,
				int *library_options, void **library_values,
				unsigned int library_count)
{
	LOAD(EMUV_FN_cuLibraryLoadData,
	     g_real.cuLibraryLoadData(library, code, options, values, count, library_options,
				      library_values, library_count), library, false);
}

CUresult hook_cuLibraryLoadFromFile(CUlibrary *library, const char *path, int *options,
				    void **values, unsigned int count,
				    int *library_options, void **library_values,
				    unsigned int library_count)
{
	LOAD(EMUV_FN_cuLibraryLoadFromFile,
	     g_real.cuLibraryLoadFromFile(library, path, options, values, count, library_options,
					  library_values, library_count), library, false);
}

static CUresult module_unload(void *handle)
{
	return g_real.cuModuleUnload(handle);
}

CUresult hook_cuModuleUnload(CUmodule module)
{
	return unload(EMUV_FN_cuModuleUnload, module, module_unload);
}

static CUresult library_unload(void *handle)
{
	return g_real.cuLibraryUnload(handle);
}

CUresult hook_cuLibraryUnload(CUlibrary library)
{
	return unload(EMUV_FN_cuLibraryUnload, library, library_unload);
}

/* Heaps, printf buffers, local memory: taken at once, or when a kernel needs them. */
CUresult hook_cuCtxSetLimit(int limit, size_t value)
{
	CUresult result = g_real.cuCtxSetLimit(limit, value);
	emuv_where_t where;

	if (!result && emuv_where_current(&where)) {
		emuv_account_call(where.device, EMUV_FN_cuCtxSetLimit);
		emuv_overhead_expect(where.device);
		emuv_overhead_settle(where.device);
	}
	return result;
}

/* ---- managed variables ---- */

static bool is_managed(CUdeviceptr address)
{
	unsigned int managed = 0;

	return !g_real.cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address) &&
	       managed;
}

/* What does not fit stays on the host, also where even the host was not promised to it. */
static void charge_variable(const emuv_where_t *where, CUdeviceptr address, size_t bytes)
{
	emuv_entry_t entry = {
		.kind = EMUV_KIND_MEMORY, .key = address, .flags = EMUV_ENTRY_OWN_MANAGED,
		.context = (uint64_t)(uintptr_t)where->context,
	};
	emuv_grant_t grant;
	bool granted = emuv_placement_reserve(where, bytes, EMUV_MAY_SPILL | EMUV_IS_THERE, &grant);
	int mode;

	if (!granted || grant.placement == EMUV_PLACED_MANAGED) {
		mode = emuv_relaxed_enter();
		if (emuv_residency_place(where, address, bytes, granted ? grant.resident : 0,
					 emuv_account_eager()) || !granted)
			emuv_account_uncounted(where->device);
		emuv_relaxed_leave(mode);
	}
	if (granted)
		emuv_account_commit(where->device, &grant, &entry, false);
}

/* The program has been told where a variable of `owner` is. */
static void variable_told(const void *owner, CUdeviceptr address, size_t bytes)
{
	emuv_entry_t entry = {
		.kind = EMUV_KIND_VARIABLE, .key = address, .link = (uint64_t)(uintptr_t)owner,
	};
	emuv_where_t where;

	if (!bytes || !emuv_where_current(&where))
		return;
	/* Its module may have been loaded into the context by this question. */
	emuv_overhead_expect(where.device);
	if (emuv_account_look(EMUV_KIND_VARIABLE, address, &entry) || !is_managed(address))
		return;
	entry.device = (int16_t)where.device;
	entry.context = (uint64_t)(uintptr_t)where.context;
	/* Of two threads that ask at once, the second finds it noted. */
	if (emuv_account_note_once(&entry))
		charge_variable(&where, address, bytes);
}

/* `call` writes to `there` and `size`. */
#define TOLD(owner, call)                              \
	do {                                           \
		CUdeviceptr there = 0;                 \
		size_t size = 0;                       \
		CUresult result = call;                \
		if (result)                            \
			return result;                 \
		variable_told(owner, there, size);     \
		if (address)                           \
			*address = there;              \
		if (bytes)                             \
			*bytes = size;                 \
		return CUDA_SUCCESS;                   \
	} while (0)

/* The 32-bit ABI cannot name an address of managed memory. */
CUresult hook_cuModuleGetGlobal(CUdeviceptr_v1 *address, unsigned int *bytes, CUmodule module,
				const char *name)
{
	return g_real.cuModuleGetGlobal(address, bytes, module, name);
}

CUresult hook_cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module,
				   const char *name)
{
	if (!address && !bytes)
		return g_real.cuModuleGetGlobal_v2(address, bytes, module, name);
	TOLD(module, g_real.cuModuleGetGlobal_v2(&there, &size, module, name));
}

CUresult hook_cuLibraryGetGlobal(CUdeviceptr *address, size_t *bytes, CUlibrary library,
				 const char *name)
{
	if (!address && !bytes)
		return g_real.cuLibraryGetGlobal(address, bytes, library, name);
	TOLD(library, g_real.cuLibraryGetGlobal(&there, &size, library, name));
}

CUresult hook_cuLibraryGetManaged(CUdeviceptr *address, size_t *bytes, CUlibrary library,
				  const char *name)
{
	if (!address && !bytes)
		return g_real.cuLibraryGetManaged(address, bytes, library, name);
	TOLD(library, g_real.cuLibraryGetManaged(&there, &size, library, name));
}
