/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Modules and functions: an image in a context.
 *
 * A function's handle is made when it is first asked for and is the same ever after.
 * A variable's memory is taken at the first question for its address, holds what the
 * image says it starts with, and is given back with the module.  Its code takes
 * EMUV_SIM_MODULE bytes of the card.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "internal.h"
#include "kernel/code.h"
#include "memory.h"
#include "ptx/ptx.h"
#include "work.h"

enum {
	ATTRIBUTE_MAX_THREADS = 0, ATTRIBUTE_SHARED_BYTES = 1, ATTRIBUTE_CONST_BYTES = 2,
	ATTRIBUTE_LOCAL_BYTES = 3,
	ATTRIBUTE_REGISTERS = 4,
	ATTRIBUTE_PTX_VERSION = 5, ATTRIBUTE_BINARY_VERSION = 6, ATTRIBUTE_MAX_DYNAMIC_SHARED = 8,
	ATTRIBUTE_CARVEOUT = 9, ATTRIBUTES = 16,
};
#define SHARED_BYTES 49152
#define SHARED_BYTES_OPT_IN 166912
#define REGISTERS_MOST 255 /* of a thread */
#define REGISTERS_OF_BLOCK 65536

/* What the constant variables of the image come to: each of its functions sees all. */
static int const_bytes(const sim_image_t *image)
{
	size_t bytes = 0;

	for (unsigned int i = 0; i < image->variable_count; i++) {
		const sim_variable_t *one = &image->variables[i];
		size_t align = one->align ? one->align : 1;

		if (one->constant)
			bytes = (bytes + align - 1) / align * align + one->bytes;
	}
	return bytes > INT_MAX ? INT_MAX : (int)bytes;
}

/* A compiler that runs out of them spills to local memory: there is always a limit. */
static int registers_of(const sim_image_t *image, const int attributes[16], unsigned int wanted)
{
	unsigned int most = REGISTERS_OF_BLOCK / (unsigned int)attributes[ATTRIBUTE_MAX_THREADS];

	if (most > REGISTERS_MOST)
		most = REGISTERS_MOST;
	if (image->max_registers && image->max_registers < most)
		most = image->max_registers;
	return (int)(wanted < most ? wanted : most);
}

void sim_attributes_init(int attributes[16], const sim_image_t *image, const sim_entry_t *entry)
{
	int target = image->target ? image->target : 80;

	memset(attributes, 0, ATTRIBUTES * sizeof(*attributes));
	attributes[ATTRIBUTE_MAX_THREADS] = 1024;
	attributes[ATTRIBUTE_REGISTERS] = 32;
	attributes[ATTRIBUTE_CONST_BYTES] = const_bytes(image);
	attributes[ATTRIBUTE_PTX_VERSION] = target;
	attributes[ATTRIBUTE_BINARY_VERSION] = 80;
	attributes[ATTRIBUTE_MAX_DYNAMIC_SHARED] = SHARED_BYTES;
	attributes[ATTRIBUTE_CARVEOUT] = -1;
	if (!entry)
		return;
	if (entry->max_threads)
		attributes[ATTRIBUTE_MAX_THREADS] = (int)entry->max_threads;
	if (entry->registers)
		attributes[ATTRIBUTE_REGISTERS] = (int)entry->registers;
	if (entry->shared_bytes <= SHARED_BYTES) {
		attributes[ATTRIBUTE_SHARED_BYTES] = (int)entry->shared_bytes;
		attributes[ATTRIBUTE_MAX_DYNAMIC_SHARED] -= (int)entry->shared_bytes;
	}
}

CUresult sim_attributes_settle(int attributes[16], bool *settled, const sim_image_t *image,
			       const sim_entry_t *entry)
{
	const sim_code_t *code;
	CUresult result;
	int room;

	if (*settled || !entry || !entry->code)
		return CUDA_SUCCESS;
	result = sim_code_of(image, entry, &code);
	if (result != CUDA_SUCCESS)
		return result;
	*settled = true;
	attributes[ATTRIBUTE_SHARED_BYTES] = (int)code->shared_bytes;
	attributes[ATTRIBUTE_LOCAL_BYTES] = (int)code->local_bytes;
	attributes[ATTRIBUTE_REGISTERS] = registers_of(image, attributes, code->registers);
	/* Unless it has been set. */
	room = code->shared_bytes < SHARED_BYTES ? SHARED_BYTES - (int)code->shared_bytes : 0;
	if (attributes[ATTRIBUTE_MAX_DYNAMIC_SHARED] == SHARED_BYTES)
		attributes[ATTRIBUTE_MAX_DYNAMIC_SHARED] = room;
	return CUDA_SUCCESS;
}

CUresult sim_attribute_set(int attributes[16], int number, int value)
{
	switch (number) {
	case ATTRIBUTE_MAX_DYNAMIC_SHARED:
		if (value < 0 || value > SHARED_BYTES_OPT_IN - attributes[ATTRIBUTE_SHARED_BYTES])
			return CUDA_ERROR_INVALID_VALUE;
		break;
	case ATTRIBUTE_CARVEOUT:
		if (value < -1 || value > 100)
			return CUDA_ERROR_INVALID_VALUE;
		break;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
	attributes[number] = value;
	return CUDA_SUCCESS;
}

/* ---- modules, sim_lock held ---- */

sim_module_t *sim_module_make(sim_image_t *image, sim_context_t *context)
{
	sim_module_t *module = sim_object_new(SIM_MODULE, sizeof(*module), context);

	if (!module)
		return NULL;
	module->variables = calloc(image->variable_count + 1, sizeof(*module->variables));
	if (!module->variables || !sim_card_take(context->device, sim_config.module_bytes)) {
		free(module->variables);
		sim_object_delete(module);
		return NULL;
	}
	module->code_bytes = sim_config.module_bytes;
	module->image = sim_image_share(image);
	return module;
}

void sim_module_delete(sim_module_t *module)
{
	for (unsigned int i = 0; i < module->image->variable_count; i++) {
		CUdeviceptr address = module->variables[i].address;
		sim_range_t *range = address ? sim_range_find(address) : NULL;

		/* Unmapped with the lock held: this is rare. */
		if (range && range->start == address && range->id == module->variables[i].id)
			sim_leftover_drop(sim_memory_free(range));
	}
	while (module->functions) {
		sim_function_t *function = module->functions;

		module->functions = function->next;
		free(function->name);
		free(function->legacy);
		sim_object_delete(function);
	}
	sim_card_give(module->object.context->device, module->code_bytes);
	sim_image_drop(module->image);
	free(module->variables);
	free(module->addresses);
	sim_object_delete(module);
}

CUresult sim_module_function(sim_module_t *module, const char *name, sim_function_t **answer)
{
	const sim_entry_t *entry = sim_image_entry(module->image, name);
	sim_function_t *function;

	if (!entry && !module->image->open)
		return sim_fail(CUDA_ERROR_NOT_FOUND, "the module has no kernel \"%s\"", name);
	for (function = module->functions; function; function = function->next)
		if (strcmp(function->name, name) == 0) {
			*answer = function;
			return CUDA_SUCCESS;
		}
	function = sim_object_new(SIM_FUNCTION, sizeof(*function), module->object.context);
	if (!function)
		return CUDA_ERROR_OUT_OF_MEMORY;
	function->name = strdup(name);
	if (!function->name) {
		sim_object_delete(function);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	function->module = module;
	function->entry = entry;
	sim_attributes_init(function->attributes, module->image, entry);
	function->next = module->functions;
	module->functions = function;
	*answer = function;
	return CUDA_SUCCESS;
}

/* Memory for a variable that has none. */
static CUresult take_variable(sim_module_t *module, unsigned int index)
{
	const sim_variable_t *variable = &module->image->variables[index];
	size_t size = variable->bytes ? variable->bytes : 1;
	sim_context_t *context = module->object.context;
	sim_range_t *range;
	CUresult result;

	if (module->variables[index].address)
		return CUDA_SUCCESS;
	if (size > SIM_MAX_BYTES || (!variable->managed && !sim_card_room(context->device, size)))
		return CUDA_ERROR_OUT_OF_MEMORY;
	result = sim_memory_new(variable->managed ? SIM_RANGE_MANAGED : SIM_RANGE_DEVICE, size,
				context->device, &range);
	if (result != CUDA_SUCCESS)
		return result;
	range->context = context;
	if (!variable->managed)
		sim_card_take(context->device, size);
	/* New memory may be a reused piece: what has no initial value is zero. */
	if (variable->initial)
		memcpy((void *)range->start, variable->initial, variable->bytes);
	else if (size < (1 << 20))
		memset((void *)range->start, 0, size);
	module->variables[index].address = range->start;
	module->variables[index].id = range->id;
	return CUDA_SUCCESS;
}

/* The addresses among a variable's initial values. */
static void place_addresses(sim_module_t *module, unsigned int index)
{
	const ptx_variable_t *variable = module->image->variables[index].ptx;
	char *bytes = (char *)module->variables[index].address;

	for (const ptx_relocation_t *one = variable->relocations; one; one = one->next) {
		uint64_t address = one->function ? PTX_FUNCTION_ADDRESS(one->function->index)
						 : module->variables[one->variable->index].address;

		address = (address + (uint64_t)one->addend) >> one->shift;
		memcpy(bytes + one->offset, &address, one->bytes < 8 ? one->bytes : 8);
	}
	module->variables[index].placed = true;
}

/* One that holds the address of another needs memory for it; that may go on: all, then. */
static CUresult take_all_variables(sim_module_t *module)
{
	unsigned int count = module->image->variable_count;
	uint64_t *addresses = calloc(count + 1, sizeof(*addresses));
	CUresult result = addresses ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

	for (unsigned int i = 0; i < count && result == CUDA_SUCCESS; i++) {
		result = take_variable(module, i);
		addresses[i] = module->variables[i].address;
	}
	/* Nobody was told where they are before this: nothing that was written is lost. */
	for (unsigned int i = 0; i < count && result == CUDA_SUCCESS; i++)
		if (module->image->variables[i].ptx && !module->variables[i].placed)
			place_addresses(module, i);
	if (result == CUDA_SUCCESS)
		module->addresses = addresses;
	else
		free(addresses);
	return result;
}

CUresult sim_module_addresses(sim_module_t *module, const uint64_t **addresses)
{
	CUresult result = module->addresses ? CUDA_SUCCESS : take_all_variables(module);

	*addresses = module->addresses;
	return result;
}

CUresult sim_module_variable(sim_module_t *module, const char *name, bool managed,
			     CUdeviceptr *address, size_t *bytes)
{
	const sim_variable_t *variable = sim_image_variable(module->image, name);
	unsigned int index;
	CUresult result;

	if (!variable || (managed && !variable->managed))
		return sim_fail(CUDA_ERROR_NOT_FOUND, "the module has no %svariable \"%s\"",
				managed ? "managed " : "", name);
	index = (unsigned int)(variable - module->image->variables);
	if (!module->addresses && variable->ptx && variable->ptx->relocations)
		result = take_all_variables(module);
	else
		result = take_variable(module, index);
	if (result != CUDA_SUCCESS)
		return result;
	if (address)
		*address = module->variables[index].address;
	if (bytes)
		*bytes = variable->bytes;
	return CUDA_SUCCESS;
}

static void drop_of_context(void *object, void *argument)
{
	sim_module_t *module = object;

	if (module->object.context == argument && !module->of_library)
		sim_module_delete(module);
}

void sim_modules_drop_context(sim_context_t *context)
{
	sim_libraries_drop_context(context);
	sim_object_each(SIM_MODULE, drop_of_context, context);
}

/* ---- loading ---- */

/* Ends a load: takes the image over, whatever becomes of it. */
static CUresult loaded(CUmodule *handle, sim_image_t *image)
{
	sim_context_t *context = sim_current();
	sim_module_t *module;

	if (!context) {
		sim_image_drop(image);
		return sim_no_context();
	}
	sim_lock_take();
	module = sim_module_make(image, context);
	sim_lock_drop();
	sim_image_drop(image);
	if (!module)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*handle = (CUmodule)module;
	return CUDA_SUCCESS;
}

static CUresult load(CUmodule *handle, const void *data, unsigned int count, const int *options,
		     void **values)
{
	char why[SIM_WHY_BYTES];
	sim_image_t *image;
	CUresult result;

	if (!handle || !data || sim_jit_check(count, options, values) != CUDA_SUCCESS)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sim_current())
		return sim_no_context();
	result = sim_image_read(data, 0, false, &image, why);
	sim_jit_answer(count, options, values, why);
	if (result != CUDA_SUCCESS)
		return sim_fail(result, "cuModuleLoadData: %s", why);
	if (!image->max_registers)
		image->max_registers = sim_jit_registers(count, options, values);
	return loaded(handle, image);
}

SIM_API(cuModuleLoad, CUmodule *handle, const char *path)
{
	char why[SIM_WHY_BYTES];
	sim_image_t *image;
	CUresult result;

	SIM_ENTER(cuModuleLoad);
	if (!handle || !path)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sim_current())
		return sim_no_context();
	result = sim_image_read_file(path, false, &image, why);
	if (result != CUDA_SUCCESS)
		return sim_fail(result, "cuModuleLoad: %s", why);
	return loaded(handle, image);
}

SIM_API(cuModuleLoadData, CUmodule *handle, const void *data)
{
	SIM_ENTER(cuModuleLoadData);
	return load(handle, data, 0, NULL, NULL);
}

SIM_API(cuModuleLoadDataEx, CUmodule *handle, const void *data, unsigned int count, int *options,
	void **values)
{
	SIM_ENTER(cuModuleLoadDataEx);
	return load(handle, data, count, options, values);
}

SIM_API(cuModuleLoadFatBinary, CUmodule *handle, const void *data)
{
	SIM_ENTER(cuModuleLoadFatBinary);
	return load(handle, data, 0, NULL, NULL);
}

static sim_module_t *get(CUmodule handle, CUresult *why)
{
	sim_module_t *module = sim_object_get(handle, SIM_MODULE);

	if (!module)
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no module", (void *)handle);
	return module;
}

SIM_API(cuModuleUnload, CUmodule handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_module_t *module;

	SIM_ENTER(cuModuleUnload);
	sim_lock_take();
	module = get(handle, &result);
	if (module) { /* dropped while waiting */
		result = sim_context_finish(module->object.context);
		module = result == CUDA_SUCCESS ? get(handle, &result) : NULL;
	}
	if (module && module->of_library)
		result = sim_fail(CUDA_ERROR_NOT_PERMITTED,
				  "cuModuleUnload: the module belongs to a library");
	else if (module)
		sim_module_delete(module);
	sim_lock_drop();
	return result;
}

SIM_API(cuModuleGetFunction, CUfunction *handle, CUmodule module_handle, const char *name)
{
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function = NULL;
	sim_module_t *module;

	SIM_ENTER(cuModuleGetFunction);
	if (!handle || !name || !*name)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	module = get(module_handle, &result);
	if (module)
		result = sim_module_function(module, name, &function);
	if (result == CUDA_SUCCESS)
		*handle = (CUfunction)function;
	sim_lock_drop();
	return result;
}

static CUresult get_global(CUdeviceptr *address, size_t *bytes, CUmodule handle, const char *name)
{
	CUresult result = CUDA_SUCCESS;
	sim_module_t *module;

	if (!name || !*name || (!address && !bytes))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	module = get(handle, &result);
	if (module)
		result = sim_module_variable(module, name, false, address, bytes);
	sim_lock_drop();
	return result;
}

SIM_API(cuModuleGetGlobal_v2, CUdeviceptr *address, size_t *bytes, CUmodule handle,
	const char *name)
{
	SIM_ENTER(cuModuleGetGlobal_v2);
	return get_global(address, bytes, handle, name);
}

SIM_API(cuModuleGetFunctionCount, unsigned int *count, CUmodule handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_module_t *module;

	SIM_ENTER(cuModuleGetFunctionCount);
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	module = get(handle, &result);
	if (module)
		*count = module->image->entry_count;
	sim_lock_drop();
	return result;
}

SIM_API(cuModuleEnumerateFunctions, CUfunction *functions, unsigned int count, CUmodule handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_module_t *module;

	SIM_ENTER(cuModuleEnumerateFunctions);
	if (!functions || !count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	module = get(handle, &result);
	for (unsigned int i = 0;
	     result == CUDA_SUCCESS && i < count && i < module->image->entry_count; i++) {
		sim_function_t *function = NULL;

		result = sim_module_function(module, module->image->entries[i].name, &function);
		if (result == CUDA_SUCCESS)
			functions[i] = (CUfunction)function;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuModuleGetLoadingMode, int *mode)
{
	const char *wish = getenv("CUDA_MODULE_LOADING");

	SIM_ENTER(cuModuleGetLoadingMode);
	if (!mode)
		return CUDA_ERROR_INVALID_VALUE;
	*mode = wish && strcmp(wish, "EAGER") == 0 ? 1 : 2; /* eager, lazy */
	return CUDA_SUCCESS;
}
