/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the host code that nvcc writes says at start: here is a fat binary, this host
 * function is that kernel of it, this host variable that device variable.
 *
 * Nothing is loaded then (a program may register tens of thousands of kernels and run
 * three): a fat binary becomes a library of the driver when something of it is first
 * used, a kernel's handle is asked for when it is first launched.
 *
 * Invariants
 *   - The table holds one entry an address: of a host function, of a host variable, or
 *     of a handle that was given out.  Entries leave with their fat binary.
 *   - g_lock guards the table and the lists.  It is not held across a driver call: two
 *     threads may both load a fat binary, and one of them unloads its own again.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cudart.h"

#define WRAPPER_MAGIC 0x466243b1u

/* The section .nvFatBinSegment holds one a translation unit. */
typedef struct {
	unsigned int magic, version;
	const void *data;
	void *more; /* of version 2: relocatable parts; not used here */
} wrapper_t;

typedef struct binary {
	struct binary *next;
	const wrapper_t *wrapper;
	_Atomic(CUlibrary) library; /* NULL: not loaded yet */
	_Atomic int error;          /* loading failed so; final */
} binary_t;

typedef enum { ENTRY_FUNCTION = 1, ENTRY_VARIABLE, ENTRY_MANAGED, ENTRY_KERNEL, ENTRY_DRIVER } kind_t;
typedef struct {
	const void *address; /* NULL: free */
	kind_t kind;
	binary_t *binary;
	const char *name; /* nvcc's, lives as long as the program's image */
	size_t bytes;     /* of a variable */
	_Atomic(CUkernel) kernel;
} entry_t;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static binary_t *g_binaries;
/* Open addressing; entries are allocated apart, so that they never move. */
static entry_t **g_table;
static size_t g_room, g_used;
static entry_t g_gone; /* in the place of a removed entry */

static size_t slot_of(const void *address, size_t room)
{
	return (size_t)((uintptr_t)address * 0x9e3779b97f4a7c15ull >> 20) & (room - 1);
}

/* g_lock held. */
static entry_t *find(const void *address)
{
	if (!g_room)
		return NULL;
	for (size_t i = slot_of(address, g_room); g_table[i]; i = (i + 1) & (g_room - 1))
		if (g_table[i]->address == address)
			return g_table[i];
	return NULL;
}

/* g_lock held. */
static bool grow(void)
{
	size_t room = g_room ? g_room * 2 : 1024;
	entry_t **table = calloc(room, sizeof(*table));

	if (!table)
		return false;
	g_used = 0;
	for (size_t i = 0; i < g_room; i++) {
		size_t at;

		if (!g_table[i] || g_table[i] == &g_gone)
			continue;
		at = slot_of(g_table[i]->address, room);
		while (table[at])
			at = (at + 1) & (room - 1);
		table[at] = g_table[i];
		g_used++;
	}
	free(g_table);
	g_table = table;
	g_room = room;
	return true;
}

/* The entry of that address, new or as it was; NULL: no memory. */
static entry_t *enter(const void *address, kind_t kind, binary_t *binary, const char *name,
		      size_t bytes)
{
	entry_t *entry;
	size_t at;

	pthread_mutex_lock(&g_lock);
	entry = find(address);
	if (!entry && (g_used * 2 < g_room || grow())) {
		entry = calloc(1, sizeof(*entry));
		if (entry) {
			at = slot_of(address, g_room);
			while (g_table[at])
				at = (at + 1) & (g_room - 1);
			g_table[at] = entry;
			g_used++;
			entry->address = address;
		}
	}
	if (entry) {
		entry->kind = kind;
		entry->binary = binary;
		entry->name = name;
		entry->bytes = bytes;
		atomic_store(&entry->kernel, NULL);
	}
	pthread_mutex_unlock(&g_lock);
	return entry;
}

static entry_t *look_up(const void *address)
{
	entry_t *entry;

	pthread_mutex_lock(&g_lock);
	entry = find(address);
	pthread_mutex_unlock(&g_lock);
	return entry;
}

/* ---- loading ---- */

static cudaError_t load(binary_t *binary, CUlibrary *answer)
{
	CUlibrary made = NULL, none = NULL;
	CUresult result;

	*answer = atomic_load(&binary->library);
	if (*answer)
		return 0;
	if (binary->error)
		return binary->error;
	result = rt_driver.cuLibraryLoadData(&made, binary->wrapper, NULL, NULL, 0, NULL, NULL, 0);
	if (result != CUDA_SUCCESS) {
		binary->error = result;
		return rt_fail(result, "a fat binary could not be loaded");
	}
	if (atomic_compare_exchange_strong(&binary->library, &none, made)) {
		*answer = made;
	} else {
		rt_driver.cuLibraryUnload(made);
		*answer = none;
	}
	return 0;
}

cudaError_t rt_kernel(const void *function, CUkernel *kernel)
{
	entry_t *entry = look_up(function);
	CUlibrary library;
	cudaError_t result;

	if (!entry || (entry->kind != ENTRY_FUNCTION && entry->kind != ENTRY_KERNEL))
		return rt_fail(RT_ERROR_INVALID_FUNCTION, "%p is no kernel's host function",
			       function);
	*kernel = atomic_load_explicit(&entry->kernel, memory_order_acquire);
	if (*kernel)
		return 0;
	if (entry->kind == ENTRY_KERNEL) {
		*kernel = (CUkernel)(uintptr_t)function;
		return 0;
	}
	result = load(entry->binary, &library);
	if (result != 0)
		return result;
	result = rt_driver.cuLibraryGetKernel(kernel, library, entry->name);
	if (result == CUDA_ERROR_NOT_FOUND)
		return rt_fail(RT_ERROR_INVALID_FUNCTION, "the fat binary has no kernel \"%s\"",
			       entry->name);
	if (result == 0)
		atomic_store_explicit(&entry->kernel, *kernel, memory_order_release);
	return result;
}

cudaError_t rt_function(const void *function, CUfunction *answer)
{
	entry_t *entry = look_up(function);
	CUkernel kernel = NULL;
	cudaError_t result;

	if (entry && entry->kind == ENTRY_DRIVER) {
		*answer = (CUfunction)(uintptr_t)function;
		return 0;
	}
	result = rt_kernel(function, &kernel);
	return result == 0 ? (cudaError_t)rt_driver.cuKernelGetFunction(answer, kernel) : result;
}

cudaError_t rt_symbol(const void *symbol, CUdeviceptr *address, size_t *bytes)
{
	entry_t *entry = look_up(symbol);
	CUdeviceptr at;
	CUlibrary library;
	cudaError_t result;
	size_t size;

	if (!entry || (entry->kind != ENTRY_VARIABLE && entry->kind != ENTRY_MANAGED))
		return rt_fail(RT_ERROR_INVALID_SYMBOL, "%p is no device variable", symbol);
	result = load(entry->binary, &library);
	if (result != 0)
		return result;
	result = entry->kind == ENTRY_MANAGED
			 ? rt_driver.cuLibraryGetManaged(&at, &size, library, entry->name)
			 : rt_driver.cuLibraryGetGlobal(&at, &size, library, entry->name);
	if (result == CUDA_ERROR_NOT_FOUND)
		return rt_fail(RT_ERROR_INVALID_SYMBOL, "the fat binary has no variable \"%s\"",
			       entry->name);
	if (result == 0 && address)
		*address = at;
	if (result == 0 && bytes)
		*bytes = size;
	return result;
}

cudaError_t rt_remember_kernel(CUkernel kernel)
{
	return !kernel || enter(kernel, ENTRY_KERNEL, NULL, NULL, 0) ? 0 : CUDA_ERROR_OUT_OF_MEMORY;
}

cudaError_t rt_remember_function(CUfunction function)
{
	return !function || enter(function, ENTRY_DRIVER, NULL, NULL, 0) ? 0
									 : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- what nvcc's code calls ---- */

RT_EXPORT void **__cudaRegisterFatBinary(void *wrapper);
RT_EXPORT void **__cudaRegisterFatBinary(void *wrapper)
{
	binary_t *binary = calloc(1, sizeof(*binary));

	RT_COUNT(__cudaRegisterFatBinary);
	if (!binary)
		return NULL;
	binary->wrapper = wrapper;
	if (!wrapper || binary->wrapper->magic != WRAPPER_MAGIC)
		binary->error = rt_fail(CUDA_ERROR_INVALID_IMAGE, "%p is no fat binary", wrapper);
	pthread_mutex_lock(&g_lock);
	binary->next = g_binaries;
	g_binaries = binary;
	pthread_mutex_unlock(&g_lock);
	return (void **)binary;
}

RT_EXPORT void __cudaRegisterFatBinaryEnd(void **handle);
RT_EXPORT void __cudaRegisterFatBinaryEnd(void **handle)
{
	RT_COUNT(__cudaRegisterFatBinaryEnd);
	(void)handle;
}

/* The image that holds it goes (or the process ends): nothing of it may be used again. */
RT_EXPORT void __cudaUnregisterFatBinary(void **handle);
RT_EXPORT void __cudaUnregisterFatBinary(void **handle)
{
	binary_t *binary = (binary_t *)handle;
	bool known = false;

	RT_COUNT(__cudaUnregisterFatBinary);
	pthread_mutex_lock(&g_lock);
	for (binary_t **at = &g_binaries; *at; at = &(*at)->next) {
		if (*at != binary)
			continue;
		*at = binary->next;
		known = true;
		break;
	}
	for (size_t i = 0; known && i < g_room; i++) {
		if (!g_table[i] || g_table[i]->binary != binary)
			continue;
		free(g_table[i]);
		g_table[i] = &g_gone;
	}
	pthread_mutex_unlock(&g_lock);
	/*
	 * The library is left to the driver: this runs in exit handlers, when the driver
	 * may have ended already.
	 */
	if (known)
		free(binary);
}

RT_EXPORT void __cudaRegisterFunction(void **handle, const char *host, char *device,
				      const char *name, int thread_limit, uint3 *thread,
				      uint3 *block, dim3 *block_size, dim3 *grid_size, int *warp);
RT_EXPORT void __cudaRegisterFunction(void **handle, const char *host, char *device,
				      const char *name, int thread_limit, uint3 *thread,
				      uint3 *block, dim3 *block_size, dim3 *grid_size, int *warp)
{
	RT_COUNT(__cudaRegisterFunction);
	(void)device, (void)thread_limit, (void)thread, (void)block;
	(void)block_size, (void)grid_size, (void)warp;
	if (handle && host && name)
		enter(host, ENTRY_FUNCTION, (binary_t *)handle, name, 0);
}

RT_EXPORT void __cudaRegisterVar(void **handle, char *host, char *device, const char *name,
				 int external, size_t bytes, int constant, int global);
RT_EXPORT void __cudaRegisterVar(void **handle, char *host, char *device, const char *name,
				 int external, size_t bytes, int constant, int global)
{
	RT_COUNT(__cudaRegisterVar);
	(void)device, (void)external, (void)constant, (void)global;
	if (handle && host && name)
		enter(host, ENTRY_VARIABLE, (binary_t *)handle, name, bytes);
}

/* `host` points to the pointer that host code uses; __cudaInitModule sets it. */
RT_EXPORT void __cudaRegisterManagedVar(void **handle, void **host, char *device, const char *name,
					int external, size_t bytes, int constant, int global);
RT_EXPORT void __cudaRegisterManagedVar(void **handle, void **host, char *device, const char *name,
					int external, size_t bytes, int constant, int global)
{
	RT_COUNT(__cudaRegisterManagedVar);
	(void)device, (void)external, (void)constant, (void)global;
	if (handle && host && name)
		enter(host, ENTRY_MANAGED, (binary_t *)handle, name, bytes);
}

/* Host code is about to read a managed variable of the module. */
RT_EXPORT char __cudaInitModule(void **handle);
RT_EXPORT char __cudaInitModule(void **handle)
{
	binary_t *binary = (binary_t *)handle;
	size_t i = 0;

	RT_COUNT(__cudaInitModule);
	if (!binary || rt_context() != 0)
		return 0;
	for (;;) {
		entry_t *entry = NULL;
		CUdeviceptr address = 0;

		pthread_mutex_lock(&g_lock);
		for (; i < g_room && !entry; i++)
			if (g_table[i] && g_table[i]->kind == ENTRY_MANAGED &&
			    g_table[i]->binary == binary)
				entry = g_table[i];
		pthread_mutex_unlock(&g_lock);
		if (!entry)
			return 1;
		if (rt_symbol(entry->address, &address, NULL) != 0)
			return 0;
		*(void **)(uintptr_t)entry->address = (void *)(uintptr_t)address;
	}
}
