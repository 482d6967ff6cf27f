/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Libraries and kernels: an image that no context owns.
 *
 * A library gets a module in each context that asks for one of its functions or
 * variables; the module goes with the context or with the library, whichever ends
 * first.  A kernel's handle is made when it is first asked for.
 */
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "internal.h"
#include "work.h"

typedef struct instance {
	struct instance *next;
	sim_module_t *module;
} instance_t;

typedef struct sim_library {
	sim_object_t object;
	sim_image_t *image;
	sim_kernel_t *kernels;
	instance_t *instances;
} sim_library_t;

/* CU_LIBRARY_HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE, CU_LIBRARY_BINARY_IS_PRESERVED */
#define LIBRARY_OPTIONS 2

static sim_library_t *get(CUlibrary handle, CUresult *why)
{
	sim_library_t *library = sim_object_get(handle, SIM_LIBRARY);

	if (!library)
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no library", (void *)handle);
	return library;
}

static sim_kernel_t *get_kernel(CUkernel handle, CUresult *why)
{
	sim_kernel_t *kernel = sim_object_get(handle, SIM_KERNEL);

	if (!kernel)
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no kernel", (void *)handle);
	return kernel;
}

/* The library's module in the calling thread's context. */
static sim_module_t *instance(sim_library_t *library, CUresult *why)
{
	sim_context_t *context = sim_current();
	instance_t *made;

	if (!context) {
		*why = sim_no_context();
		return NULL;
	}
	for (made = library->instances; made; made = made->next)
		if (made->module->object.context == context)
			return made->module;
	*why = CUDA_ERROR_OUT_OF_MEMORY;
	made = malloc(sizeof(*made));
	if (!made)
		return NULL;
	made->module = sim_module_make(library->image, context);
	if (!made->module) {
		free(made);
		return NULL;
	}
	made->module->of_library = true;
	made->next = library->instances;
	library->instances = made;
	return made->module;
}

static void drop_of_context(void *object, void *argument)
{
	sim_library_t *library = object;

	for (instance_t **at = &library->instances; *at;) {
		instance_t *one = *at;

		if (one->module->object.context != argument) {
			at = &one->next;
			continue;
		}
		*at = one->next;
		sim_module_delete(one->module);
		free(one);
	}
}

void sim_libraries_drop_context(sim_context_t *context)
{
	sim_object_each(SIM_LIBRARY, drop_of_context, context);
}

static void delete(sim_library_t *library)
{
	while (library->instances)
		drop_of_context(library, library->instances->module->object.context);
	while (library->kernels) {
		sim_kernel_t *kernel = library->kernels;

		library->kernels = kernel->next;
		free(kernel->name);
		sim_object_delete(kernel);
	}
	sim_image_drop(library->image);
	sim_object_delete(library);
}

static CUresult kernel_of(sim_library_t *library, const char *name, sim_kernel_t **answer)
{
	const sim_entry_t *entry = sim_image_entry(library->image, name);
	sim_kernel_t *kernel;

	if (!entry && !library->image->open)
		return sim_fail(CUDA_ERROR_NOT_FOUND, "the library has no kernel \"%s\"", name);
	for (kernel = library->kernels; kernel; kernel = kernel->next)
		if (strcmp(kernel->name, name) == 0) {
			*answer = kernel;
			return CUDA_SUCCESS;
		}
	kernel = sim_object_new(SIM_KERNEL, sizeof(*kernel), NULL);
	if (!kernel)
		return CUDA_ERROR_OUT_OF_MEMORY;
	kernel->name = strdup(name);
	if (!kernel->name) {
		sim_object_delete(kernel);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	kernel->library = library;
	kernel->entry = entry;
	for (int i = 0; i < SIM_MAX_DEVICES; i++)
		sim_attributes_init(kernel->attributes[i], library->image, entry);
	kernel->next = library->kernels;
	library->kernels = kernel;
	*answer = kernel;
	return CUDA_SUCCESS;
}

/* Takes the image over. */
static CUresult loaded(CUlibrary *handle, sim_image_t *image)
{
	sim_library_t *library;

	sim_lock_take();
	library = sim_object_new(SIM_LIBRARY, sizeof(*library), NULL);
	if (library)
		library->image = image;
	sim_lock_drop();
	if (!library) {
		sim_image_drop(image);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*handle = (CUlibrary)library;
	return CUDA_SUCCESS;
}

static bool options_valid(const int *options, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		if (!options || options[i] < 0 || options[i] >= LIBRARY_OPTIONS)
			return false;
	return true;
}

SIM_API(cuLibraryLoadData, CUlibrary *handle, const void *code, int *options, void **values,
	unsigned int count, int *library_options, void **library_values, unsigned int library_count)
{
	char why[SIM_WHY_BYTES];
	sim_image_t *image;
	CUresult result;

	SIM_ENTER(cuLibraryLoadData);
	(void)library_values;
	if (!handle || !code || sim_jit_check(count, options, values) != CUDA_SUCCESS ||
	    !options_valid(library_options, library_count))
		return CUDA_ERROR_INVALID_VALUE;
	result = sim_image_read(code, 0, false, &image, why);
	sim_jit_answer(count, options, values, why);
	if (result != CUDA_SUCCESS)
		return sim_fail(result, "cuLibraryLoadData: %s", why);
	if (!image->max_registers)
		image->max_registers = sim_jit_registers(count, options, values);
	return loaded(handle, image);
}

SIM_API(cuLibraryLoadFromFile, CUlibrary *handle, const char *path, int *options, void **values,
	unsigned int count, int *library_options, void **library_values, unsigned int library_count)
{
	char why[SIM_WHY_BYTES];
	sim_image_t *image;
	CUresult result;

	SIM_ENTER(cuLibraryLoadFromFile);
	(void)library_values;
	if (!handle || !path || sim_jit_check(count, options, values) != CUDA_SUCCESS ||
	    !options_valid(library_options, library_count))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < library_count; i++)
		if (library_options[i] == 1) /* of a file there is no binary to preserve */
			return CUDA_ERROR_INVALID_VALUE;
	result = sim_image_read_file(path, false, &image, why);
	sim_jit_answer(count, options, values, why);
	if (result != CUDA_SUCCESS)
		return sim_fail(result, "cuLibraryLoadFromFile: %s", why);
	if (!image->max_registers)
		image->max_registers = sim_jit_registers(count, options, values);
	return loaded(handle, image);
}

SIM_API(cuLibraryUnload, CUlibrary handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_library_t *library;

	SIM_ENTER(cuLibraryUnload);
	sim_lock_take();
	result = sim_current_finish();
	library = result == CUDA_SUCCESS ? get(handle, &result) : NULL;
	if (library)
		delete(library);
	sim_lock_drop();
	return result;
}

SIM_API(cuLibraryGetKernel, CUkernel *handle, CUlibrary library_handle, const char *name)
{
	CUresult result = CUDA_SUCCESS;
	sim_library_t *library;
	sim_kernel_t *kernel = NULL;

	SIM_ENTER(cuLibraryGetKernel);
	if (!handle || !name || !*name)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	library = get(library_handle, &result);
	if (library)
		result = kernel_of(library, name, &kernel);
	if (result == CUDA_SUCCESS)
		*handle = (CUkernel)kernel;
	sim_lock_drop();
	return result;
}

SIM_API(cuLibraryGetKernelCount, unsigned int *count, CUlibrary handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_library_t *library;

	SIM_ENTER(cuLibraryGetKernelCount);
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	library = get(handle, &result);
	if (library)
		*count = library->image->entry_count;
	sim_lock_drop();
	return result;
}

SIM_API(cuLibraryEnumerateKernels, CUkernel *kernels, unsigned int count, CUlibrary handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_library_t *library;

	SIM_ENTER(cuLibraryEnumerateKernels);
	if (!kernels || !count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	library = get(handle, &result);
	for (unsigned int i = 0;
	     result == CUDA_SUCCESS && i < count && i < library->image->entry_count; i++) {
		sim_kernel_t *kernel = NULL;

		result = kernel_of(library, library->image->entries[i].name, &kernel);
		if (result == CUDA_SUCCESS)
			kernels[i] = (CUkernel)kernel;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuLibraryGetModule, CUmodule *handle, CUlibrary library_handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_library_t *library;
	sim_module_t *module;

	SIM_ENTER(cuLibraryGetModule);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	library = get(library_handle, &result);
	module = library ? instance(library, &result) : NULL;
	if (module)
		*handle = (CUmodule)module;
	sim_lock_drop();
	return module ? CUDA_SUCCESS : result;
}

static CUresult get_variable(CUdeviceptr *address, size_t *bytes, CUlibrary handle,
			     const char *name, bool managed)
{
	CUresult result = CUDA_SUCCESS;
	sim_library_t *library;
	sim_module_t *module;

	if (!name || !*name || (!address && !bytes))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	library = get(handle, &result);
	module = library ? instance(library, &result) : NULL;
	if (module)
		result = sim_module_variable(module, name, managed, address, bytes);
	sim_lock_drop();
	return result;
}

SIM_API(cuLibraryGetGlobal, CUdeviceptr *address, size_t *bytes, CUlibrary handle, const char *name)
{
	SIM_ENTER(cuLibraryGetGlobal);
	return get_variable(address, bytes, handle, name, false);
}

SIM_API(cuLibraryGetManaged, CUdeviceptr *address, size_t *bytes, CUlibrary handle,
	const char *name)
{
	SIM_ENTER(cuLibraryGetManaged);
	return get_variable(address, bytes, handle, name, true);
}

/* ---- kernels ---- */

/* sim_lock held. */
sim_function_t *sim_function_get(CUfunction handle, CUresult *why)
{
	sim_function_t *function = sim_object_get(handle, SIM_FUNCTION);
	sim_kernel_t *kernel;
	sim_module_t *module;

	if (function)
		return function;
	kernel = sim_object_get(handle, SIM_KERNEL);
	if (!kernel) {
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no function", (void *)handle);
		return NULL;
	}
	module = instance(kernel->library, why);
	if (!module)
		return NULL;
	*why = sim_module_function(module, kernel->name, &function);
	if (*why != CUDA_SUCCESS)
		return NULL;
	if (!function->of_kernel) {
		CUdevice device = module->object.context->device;

		memcpy(function->attributes, kernel->attributes[device],
		       sizeof(function->attributes));
		function->settled = kernel->settled[device];
	}
	function->of_kernel = true;
	return function;
}

SIM_API(cuKernelGetFunction, CUfunction *handle, CUkernel kernel_handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function;

	SIM_ENTER(cuKernelGetFunction);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	function = get_kernel(kernel_handle, &result)
			   ? sim_function_get((CUfunction)kernel_handle, &result)
			   : NULL;
	if (function)
		*handle = (CUfunction)function;
	sim_lock_drop();
	return function ? CUDA_SUCCESS : result;
}

SIM_API(cuKernelGetLibrary, CUlibrary *handle, CUkernel kernel_handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_kernel_t *kernel;

	SIM_ENTER(cuKernelGetLibrary);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	kernel = get_kernel(kernel_handle, &result);
	if (kernel)
		*handle = (CUlibrary)kernel->library;
	sim_lock_drop();
	return result;
}

SIM_API(cuKernelGetName, const char **name, CUkernel handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_kernel_t *kernel;

	SIM_ENTER(cuKernelGetName);
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	kernel = get_kernel(handle, &result);
	if (kernel)
		*name = kernel->name;
	sim_lock_drop();
	return result;
}

SIM_API(cuKernelGetAttribute, int *value, int number, CUkernel handle, CUdevice device)
{
	CUresult result = CUDA_SUCCESS;
	sim_kernel_t *kernel;

	SIM_ENTER(cuKernelGetAttribute);
	if (!value || number < 0 || number >= 16)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuKernelGetAttribute, device);
	sim_lock_take();
	kernel = get_kernel(handle, &result);
	if (kernel) {
		sim_attributes_settle(kernel->attributes[device], &kernel->settled[device],
				      kernel->library->image, kernel->entry);
		*value = kernel->attributes[device][number];
	}
	sim_lock_drop();
	return result;
}

/* The kernel's functions on that device follow; those of contexts to come start from it. */
static void follow(const sim_kernel_t *kernel, CUdevice device, int number, int value)
{
	for (instance_t *one = kernel->library->instances; one; one = one->next) {
		if (one->module->object.context->device != device)
			continue;
		for (sim_function_t *function = one->module->functions; function;
		     function = function->next)
			if (strcmp(function->name, kernel->name) == 0)
				function->attributes[number] = value;
	}
}

SIM_API(cuKernelSetAttribute, int number, int value, CUkernel handle, CUdevice device)
{
	CUresult result = CUDA_SUCCESS;
	sim_kernel_t *kernel;

	SIM_ENTER(cuKernelSetAttribute);
	SIM_DEVICE_CHECK(cuKernelSetAttribute, device);
	sim_lock_take();
	kernel = get_kernel(handle, &result);
	if (kernel)
		sim_attributes_settle(kernel->attributes[device], &kernel->settled[device],
				      kernel->library->image, kernel->entry);
	if (kernel)
		result = sim_attribute_set(kernel->attributes[device], number, value);
	if (result == CUDA_SUCCESS)
		follow(kernel, device, number, value);
	sim_lock_drop();
	return result;
}

SIM_API(cuKernelSetCacheConfig, CUkernel handle, int config, CUdevice device)
{
	CUresult result = CUDA_SUCCESS;

	SIM_ENTER(cuKernelSetCacheConfig);
	if (config < 0 || config > 3)
		return CUDA_ERROR_INVALID_VALUE;
	SIM_DEVICE_CHECK(cuKernelSetCacheConfig, device);
	sim_lock_take();
	get_kernel(handle, &result);
	sim_lock_drop();
	return result;
}

SIM_API(cuKernelGetParamInfo, CUkernel handle, size_t index, size_t *offset, size_t *bytes)
{
	CUresult result = CUDA_SUCCESS;
	sim_kernel_t *kernel;

	SIM_ENTER(cuKernelGetParamInfo);
	if (!offset)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	kernel = get_kernel(handle, &result);
	if (kernel)
		result = sim_parameter(kernel->entry, index, offset, bytes);
	sim_lock_drop();
	return result;
}
