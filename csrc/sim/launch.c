/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Launches: checked as the driver would, compiled where they have not been, and put into
 * a stream as work.
 *
 * A launch is answered by what is known when it is submitted: its shape, its parameters'
 * layout, instructions that are not simulated.  What the kernel does wrong is found when
 * it runs, and sticks to the context.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "kernel/code.h"
#include "kernel/unknown.h"
#include "launch.h"
#include "memory.h"
#include "ptx/ptx.h"

#define MAX_BLOCK_THREADS 1024u
#define MAX_PARAMETER_BYTES 32764u
#define STACK_LIMIT 0 /* CU_LIMIT_STACK_SIZE */
/* What a thread of a kernel that calls itself gets, at least. */
#define RECURSIVE_BYTES ((size_t)64 << 10)
enum { ATTRIBUTE_MAX_THREADS = 0, ATTRIBUTE_MAX_DYNAMIC_SHARED = 8 };

/* ---- as work ---- */

static CUresult run(sim_work_t *work, sim_cost_t *cost)
{
	const sim_kernel_launch_t *what = &((sim_launch_work_t *)work)->what;

	return what->kernel ? sim_kernel_run(what, cost) : sim_unknown_run(what, cost);
}

/* A buffer of the launch's own, zeroed or with what is in `from`. */
static bool make_buffer(sim_launch_work_t *launch, const uint8_t *from)
{
	size_t parameters = sim_round_up(launch->what.parameter_bytes, 16);

	launch->buffer = aligned_alloc(16, launch->buffer_bytes);
	if (!launch->buffer)
		return false;
	if (from)
		memcpy(launch->buffer, from, launch->buffer_bytes);
	else
		memset(launch->buffer, 0, launch->buffer_bytes);
	launch->what.parameters = launch->buffer;
	launch->what.variables = (const uint64_t *)(launch->buffer + parameters);
	return true;
}

static bool copied(sim_work_t *work)
{
	sim_launch_work_t *launch = (sim_launch_work_t *)work;

	sim_image_share(launch->image);
	return make_buffer(launch, launch->buffer);
}

static void drop(sim_work_t *work)
{
	sim_launch_work_t *launch = (sim_launch_work_t *)work;

	free(launch->buffer);
	sim_image_drop(launch->image);
}

static const sim_work_kind_t kernel_kind = {
	.name = "kernel",
	.bytes = sizeof(sim_launch_work_t),
	.node_type = 0, /* CU_GRAPH_NODE_TYPE_KERNEL */
	.run = run,
	.copied = copied,
	.drop = drop,
};

/* ---- checks ---- */

static CUresult check_shape(const sim_launch_t *launch, const sim_function_t *function)
{
	const unsigned int *block = launch->block, *grid = launch->grid;
	uint64_t threads = (uint64_t)block[0] * block[1] * block[2];

	if (!threads || block[0] > 1024 || block[1] > 1024 || block[2] > 64 ||
	    threads > MAX_BLOCK_THREADS || !grid[0] || !grid[1] || !grid[2] ||
	    grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535)
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"launch of \"%s\": %u x %u x %u blocks of %u x %u x %u threads",
				function->name, grid[0], grid[1], grid[2], block[0], block[1],
				block[2]);
	if (threads > (unsigned int)function->attributes[ATTRIBUTE_MAX_THREADS])
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"launch of \"%s\": %u threads a block, it takes %d", function->name,
				(unsigned int)threads, function->attributes[ATTRIBUTE_MAX_THREADS]);
	return CUDA_SUCCESS;
}

/* When the code is known: what of the card it takes. */
static CUresult check_resources(const sim_launch_t *launch, const sim_function_t *function)
{
	unsigned int threads = launch->block[0] * launch->block[1] * launch->block[2];
	uint64_t blocks = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2], most;

	if (launch->shared > (unsigned int)function->attributes[ATTRIBUTE_MAX_DYNAMIC_SHARED])
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"launch of \"%s\": %u bytes of shared memory, it may take %d",
				function->name, launch->shared,
				function->attributes[ATTRIBUTE_MAX_DYNAMIC_SHARED]);
	most = (uint64_t)sim_occupancy(function, (int)threads, launch->shared) * SIM_MULTIPROCESSORS;
	if (launch->cooperative && blocks > most)
		return sim_fail(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
				"cooperative launch of \"%s\": %llu blocks of %u threads, %llu fit the "
				"card at once", function->name, (unsigned long long)blocks, threads,
				(unsigned long long)most);
	return CUDA_SUCCESS;
}

static uint32_t parameter_bytes(const sim_entry_t *entry)
{
	uint32_t bytes = 0;

	for (unsigned int i = 0; i < entry->parameter_count; i++)
		if (entry->parameters[i].offset + entry->parameters[i].bytes > bytes)
			bytes = entry->parameters[i].offset + entry->parameters[i].bytes;
	return bytes;
}

/* `extra`: pairs of a key and a value, up to CU_LAUNCH_PARAM_END. */
static CUresult read_extra(void **extra, const void **buffer, size_t *bytes)
{
	enum { END = 0, BUFFER_POINTER = 1, BUFFER_SIZE = 2 };

	*buffer = NULL;
	*bytes = 0;
	for (; (uintptr_t)*extra != END; extra += 2) {
		if ((uintptr_t)*extra == BUFFER_POINTER)
			*buffer = extra[1];
		else if ((uintptr_t)*extra == BUFFER_SIZE && extra[1])
			*bytes = *(const size_t *)extra[1];
		else
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

static CUresult copy_parameters(const sim_launch_t *launch, sim_launch_work_t *work)
{
	const sim_entry_t *entry = work->entry;
	const void *buffer = NULL;
	size_t bytes = 0;
	CUresult result;

	if (launch->extra) {
		result = read_extra(launch->extra, &buffer, &bytes);
		if (result != CUDA_SUCCESS)
			return result;
		if (bytes < work->what.parameter_bytes || (bytes && !buffer))
			return sim_fail(CUDA_ERROR_INVALID_VALUE,
					"launch of \"%s\": %zu bytes of parameters, it takes %u",
					entry->name, bytes, work->what.parameter_bytes);
		if (work->what.parameter_bytes)
			memcpy(work->buffer, buffer, work->what.parameter_bytes);
		return CUDA_SUCCESS;
	}
	if (!entry->parameter_count)
		return CUDA_SUCCESS;
	if (!launch->parameters)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "launch of \"%s\": its %u parameters are missing",
				entry->name, entry->parameter_count);
	for (unsigned int i = 0; i < entry->parameter_count; i++) {
		const sim_parameter_t *one = &entry->parameters[i];

		if (!launch->parameters[i])
			return sim_fail(CUDA_ERROR_INVALID_VALUE, "launch of \"%s\": parameter %u is NULL",
					entry->name, i);
		memcpy(work->buffer + one->offset, launch->parameters[i], one->bytes);
	}
	return CUDA_SUCCESS;
}

/* ---- making one ---- */

/* The kernel, compiled without the lock if need be; the function is looked up again then. */
static CUresult compiled(const sim_launch_t *launch, sim_function_t **function,
			 const emuv_kernel_t **kernel)
{
	bool track = sim_paging_tracks((*function)->object.context->device);
	const sim_entry_t *entry = (*function)->entry;
	sim_image_t *image;
	CUresult result;

	*kernel = sim_code_ready(entry, track);
	if (*kernel)
		return CUDA_SUCCESS;
	image = sim_image_share((*function)->module->image);
	sim_lock_drop();
	result = sim_code_kernel(image, entry, track, kernel);
	sim_lock_take();
	if (result == CUDA_SUCCESS) {
		*function = sim_function_get(launch->function, &result);
		if (*function && (*function)->entry != entry)
			result = CUDA_ERROR_INVALID_HANDLE;
	}
	sim_image_drop(image);
	return result;
}

/* False: no memory. */
static bool fill(sim_launch_work_t *work, const sim_code_t *code, const uint64_t *addresses)
{
	size_t variables = work->image->variable_count * sizeof(*addresses);
	const sim_launch_t *asked = &work->asked;
	size_t limit = work->function->object.context->limits[STACK_LIMIT];
	sim_kernel_launch_t *what = &work->what;

	what->name = work->entry->name;
	what->static_shared = (uint32_t)sim_round_up(code->shared_bytes, PTX_DYNAMIC_ALIGN);
	what->dynamic_shared = asked->shared;
	what->recursive = code->recursive;
	what->local_bytes = code->local_bytes;
	if (what->recursive)
		what->local_bytes = limit > RECURSIVE_BYTES ? limit : RECURSIVE_BYTES;
	what->local_bytes = sim_round_up(what->local_bytes, 16);
	what->cooperative = asked->cooperative;
	what->parameter_bytes = parameter_bytes(work->entry);
	/* A copy: a graph may outlive the module. */
	work->buffer_bytes = sim_round_up(what->parameter_bytes, 16) + sim_round_up(variables + 1, 16);
	if (!make_buffer(work, NULL))
		return false;
	memcpy(work->buffer + sim_round_up(what->parameter_bytes, 16), addresses, variables);
	return true;
}

/* NULL: no memory. */
static sim_launch_work_t *work_for(const sim_launch_t *launch, sim_function_t *function)
{
	sim_launch_work_t *work =
		(sim_launch_work_t *)sim_work_new(&kernel_kind, function->object.context);

	if (!work)
		return NULL;
	work->asked = *launch;
	work->asked.parameters = work->asked.extra = NULL;
	work->function = function;
	work->entry = function->entry;
	work->image = sim_image_share(function->module->image);
	work->what.context = function->object.context;
	for (int i = 0; i < 3; i++) {
		work->what.grid[i] = launch->grid[i];
		work->what.block[i] = launch->block[i];
	}
	return work;
}

/* Of a cubin, or of a fat binary that cannot be read: what.kernel stays NULL. */
static CUresult make_unknown(const sim_launch_t *launch, sim_function_t *function,
			     sim_launch_work_t **answer)
{
	const void *buffer = NULL;
	sim_launch_work_t *work;
	size_t bytes = 0;
	const char *name;
	CUresult result;

	result = sim_unknown_allow(function, function->entry || launch->extra, &name);
	if (result == CUDA_SUCCESS && launch->extra)
		result = read_extra(launch->extra, &buffer, &bytes);
	if (result == CUDA_SUCCESS && bytes > MAX_PARAMETER_BYTES)
		result = CUDA_ERROR_INVALID_VALUE;
	if (result != CUDA_SUCCESS)
		return result;
	work = work_for(launch, function);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->what.name = name;
	work->what.parameter_bytes =
		function->entry ? parameter_bytes(function->entry) : (uint32_t)bytes;
	work->buffer_bytes = sim_round_up(work->what.parameter_bytes + 1, 16);
	result = make_buffer(work, NULL) ? copy_parameters(launch, work)
					 : CUDA_ERROR_OUT_OF_MEMORY;
	if (result == CUDA_SUCCESS)
		*answer = work;
	else
		sim_work_drop(&work->work);
	return result;
}

CUresult sim_launch_make(const sim_launch_t *launch, sim_launch_work_t **answer)
{
	const emuv_kernel_t *kernel;
	const sim_code_t *code;
	const uint64_t *addresses;
	sim_launch_work_t *work;
	CUresult result = CUDA_SUCCESS;
	sim_function_t *function = sim_function_get(launch->function, &result);

	if (!function)
		return result;
	if (launch->parameters && launch->extra)
		return CUDA_ERROR_INVALID_VALUE;
	result = check_shape(launch, function);
	if (result != CUDA_SUCCESS)
		return result;
	if (!function->entry || !function->entry->code)
		return make_unknown(launch, function, answer);
	result = sim_attributes_settle(function->attributes, &function->settled,
				       function->module->image, function->entry);
	if (result == CUDA_SUCCESS)
		result = check_resources(launch, function);
	if (result == CUDA_SUCCESS)
		result = compiled(launch, &function, &kernel);
	if (result == CUDA_SUCCESS)
		result = sim_code_of(function->module->image, function->entry, &code);
	if (result == CUDA_SUCCESS)
		result = sim_module_addresses(function->module, &addresses);
	if (result != CUDA_SUCCESS)
		return result;
	work = work_for(launch, function);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->what.kernel = kernel;
	result = fill(work, code, addresses) ? copy_parameters(launch, work)
					     : CUDA_ERROR_OUT_OF_MEMORY;
	if (result != CUDA_SUCCESS) {
		sim_work_drop(&work->work);
		return result;
	}
	*answer = work;
	return CUDA_SUCCESS;
}

CUresult sim_launch(const sim_launch_t *launch, CUstream handle, bool per_thread)
{
	sim_launch_work_t *work = NULL;
	sim_stream_t *stream;
	CUresult result;

	if (!sim_current())
		return sim_no_context();
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream)
		result = sim_launch_make(launch, &work);
	if (work && result == CUDA_SUCCESS) {
		/* The lock was dropped, perhaps. */
		stream = sim_stream_get(handle, per_thread, &result);
		if (stream && stream->object.context != work->what.context)
			result = sim_fail(CUDA_ERROR_INVALID_HANDLE,
					  "launch of \"%s\": it is of another context than the stream",
					  work->what.name);
		if (stream && result == CUDA_SUCCESS)
			result = sim_stream_submit(stream, &work->work);
		else
			sim_work_drop(&work->work);
	}
	sim_lock_drop();
	return result;
}

/* ---- the calls ---- */

#define LAUNCH(name, per_thread)                                                            \
	SIM_API(name, CUfunction handle, unsigned int grid_x, unsigned int grid_y,          \
		unsigned int grid_z, unsigned int block_x, unsigned int block_y,            \
		unsigned int block_z, unsigned int shared, CUstream stream, void **parameters, \
		void **extra)                                                               \
	{                                                                                   \
		const sim_launch_t launch = {                                               \
			handle, { grid_x, grid_y, grid_z }, { block_x, block_y, block_z },  \
			shared, parameters, extra, false                                    \
		};                                                                          \
		SIM_ENTER(name);                                                            \
		return sim_launch(&launch, stream, per_thread);                             \
	}
LAUNCH(cuLaunchKernel, false)
LAUNCH(cuLaunchKernel_ptsz, true)

#define LAUNCH_COOPERATIVE(name, per_thread)                                                \
	SIM_API(name, CUfunction handle, unsigned int grid_x, unsigned int grid_y,          \
		unsigned int grid_z, unsigned int block_x, unsigned int block_y,            \
		unsigned int block_z, unsigned int shared, CUstream stream, void **parameters) \
	{                                                                                   \
		const sim_launch_t launch = {                                               \
			handle, { grid_x, grid_y, grid_z }, { block_x, block_y, block_z },  \
			shared, parameters, NULL, true                                      \
		};                                                                          \
		SIM_ENTER(name);                                                            \
		return sim_launch(&launch, stream, per_thread);                             \
	}
LAUNCH_COOPERATIVE(cuLaunchCooperativeKernel, false)
LAUNCH_COOPERATIVE(cuLaunchCooperativeKernel_ptsz, true)

static CUresult launch_config(const CUlaunchConfig *config, CUfunction handle, void **parameters,
			      void **extra, bool per_thread)
{
	sim_launch_t launch;
	CUresult result;

	if (!config || (config->numAttrs && !config->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	launch = (sim_launch_t){
		handle,
		{ config->gridDimX, config->gridDimY, config->gridDimZ },
		{ config->blockDimX, config->blockDimY, config->blockDimZ },
		config->sharedMemBytes, parameters, extra, false
	};
	result = sim_launch_attributes(config, &launch);
	return result == CUDA_SUCCESS ? sim_launch(&launch, config->hStream, per_thread) : result;
}

SIM_API(cuLaunchKernelEx, const CUlaunchConfig *config, CUfunction handle, void **parameters,
	void **extra)
{
	SIM_ENTER(cuLaunchKernelEx);
	return launch_config(config, handle, parameters, extra, false);
}

SIM_API(cuLaunchKernelEx_ptsz, const CUlaunchConfig *config, CUfunction handle, void **parameters,
	void **extra)
{
	SIM_ENTER(cuLaunchKernelEx_ptsz);
	return launch_config(config, handle, parameters, extra, true);
}
