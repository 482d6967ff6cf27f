/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a node does: work made of the parameters of its type, and read back.
 *
 * Each type has one structure here, the one that CUgraphNodeParams has for it; the
 * older calls' structures are turned into it (graph_calls.c).
 */
#include <stdlib.h>
#include <string.h>

#include "box.h"
#include "callback.h"
#include "event.h"
#include "graph_nodes.h"
#include "launch.h"
#include "memop.h"
#include "set.h"

/* The context of a handle, the calling thread's for NULL. */
static sim_context_t *context_of(CUcontext handle, CUresult *why)
{
	sim_context_t *context = handle ? sim_context_get(handle) : sim_current();

	if (!context)
		*why = handle ? CUDA_ERROR_INVALID_CONTEXT : sim_no_context();
	return context;
}

/* ---- work of parameters ---- */

static CUresult kernel_work(const CUDA_KERNEL_NODE_PARAMS_v2 *p, sim_work_t **work)
{
	sim_launch_t launch = {
		.function = p->func ? p->func : (CUfunction)p->kern,
		.grid = { p->gridDimX, p->gridDimY, p->gridDimZ },
		.block = { p->blockDimX, p->blockDimY, p->blockDimZ },
		.shared = p->sharedMemBytes,
		.parameters = p->kernelParams,
		.extra = p->extra,
	};
	sim_launch_work_t *made;
	CUresult result = sim_launch_make(&launch, &made);

	if (result == CUDA_SUCCESS)
		*work = &made->work;
	return result;
}

static CUresult copy_work(const CUDA_MEMCPY_NODE_PARAMS *p, sim_work_t **work)
{
	CUresult result = CUDA_SUCCESS;
	sim_context_t *context = context_of(p->copyCtx, &result);
	sim_box_t box = sim_box_of(&p->copyParams);

	if (!context)
		return result;
	if (p->flags || p->copyParams.srcLOD || p->copyParams.dstLOD || !box.width ||
	    !box.height || !box.depth)
		return CUDA_ERROR_INVALID_VALUE;
	result = sim_box_check(context, &box);
	if (result != CUDA_SUCCESS)
		return result;
	*work = sim_work_new(&sim_copy_kind, context);
	if (!*work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((sim_copy_work_t *)*work)->box = box;
	return CUDA_SUCCESS;
}

static CUresult set_work(const CUDA_MEMSET_NODE_PARAMS_v2 *p, sim_work_t **work)
{
	CUresult result = CUDA_SUCCESS;
	sim_context_t *context = context_of(p->ctx, &result);
	sim_set_t set = { p->dst, p->pitch, p->elementSize, p->width, p->height, p->value };

	if (!context)
		return result;
	if (!p->width || !p->height)
		return CUDA_ERROR_INVALID_VALUE;
	result = sim_set_check(context, &set);
	if (result != CUDA_SUCCESS)
		return result;
	*work = sim_work_new(&sim_set_kind, context);
	if (!*work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((sim_set_work_t *)*work)->set = set;
	return CUDA_SUCCESS;
}

/* A host function belongs to no context: it has that of the stream it runs in. */
static CUresult host_work(const CUDA_HOST_NODE_PARAMS_v1 *p, sim_work_t **work)
{
	if (!p->fn)
		return CUDA_ERROR_INVALID_VALUE;
	*work = sim_work_new(&sim_host_kind, NULL);
	if (!*work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((sim_host_work_t *)*work)->function = p->fn;
	((sim_host_work_t *)*work)->data = p->userData;
	return CUDA_SUCCESS;
}

static CUresult event_work(const sim_work_kind_t *kind, CUevent event, sim_work_t **work)
{
	if (!sim_object_get(event, SIM_EVENT))
		return CUDA_ERROR_INVALID_HANDLE;
	*work = sim_work_new(kind, NULL);
	if (!*work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((sim_event_work_t *)*work)->event = event;
	return CUDA_SUCCESS;
}

static CUresult memop_work(const CUDA_BATCH_MEM_OP_NODE_PARAMS_v1 *p, sim_work_t **work)
{
	CUresult result = CUDA_SUCCESS;
	sim_context_t *context = context_of(p->ctx, &result);

	if (!context)
		return result;
	if (!p->count || p->flags)
		return CUDA_ERROR_INVALID_VALUE;
	result = sim_memop_check(context, p->paramArray, p->count);
	if (result == CUDA_SUCCESS && !(*work = sim_memop_new(context, p->paramArray, p->count)))
		result = CUDA_ERROR_OUT_OF_MEMORY;
	return result;
}

static CUresult alloc_work(CUDA_MEM_ALLOC_NODE_PARAMS_v1 *p, sim_work_t **work)
{
	const CUmemPoolProps *props = &p->poolProps;

	if (props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
	    props->location.type != CU_MEM_LOCATION_TYPE_DEVICE || props->handleTypes ||
	    !p->bytesize || (p->accessDescCount && !p->accessDescs))
		return CUDA_ERROR_INVALID_VALUE;
	if (props->location.id < 0 || props->location.id >= sim_device_count)
		return CUDA_ERROR_INVALID_DEVICE;
	return sim_graph_alloc_work(NULL, props->location.id, p->bytesize, work, &p->dptr);
}

CUresult sim_node_work(CUgraphNodeType type, void *p, sim_work_t **work)
{
	*work = NULL;
	switch (type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return kernel_work(p, work);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		return copy_work(p, work);
	case CU_GRAPH_NODE_TYPE_MEMSET:
		return set_work(p, work);
	case CU_GRAPH_NODE_TYPE_HOST:
		return host_work(p, work);
	case CU_GRAPH_NODE_TYPE_EMPTY:
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
		return event_work(&sim_wait_kind, *(CUevent *)p, work);
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
		return event_work(&sim_record_kind, *(CUevent *)p, work);
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
		return alloc_work(p, work);
	case CU_GRAPH_NODE_TYPE_MEM_FREE:
		return sim_graph_free_work(NULL, ((CUDA_MEM_FREE_NODE_PARAMS *)p)->dptr, work);
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
		return memop_work(p, work);
	case CU_GRAPH_NODE_TYPE_EXT_SEMAS_SIGNAL:
	case CU_GRAPH_NODE_TYPE_EXT_SEMAS_WAIT:
	case CU_GRAPH_NODE_TYPE_CONDITIONAL:
		return CUDA_ERROR_NOT_SUPPORTED;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

/* ---- parameters of work ---- */

static CUresult kernel_parameters(sim_node_t *node, CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	sim_launch_work_t *launch = (sim_launch_work_t *)node->work;
	unsigned int count = launch->entry->parameter_count;
	bool kernel = sim_object_get(launch->asked.function, SIM_KERNEL);
	void **pointers = realloc(node->pointers, (count + 1) * sizeof(void *));

	if (!pointers)
		return CUDA_ERROR_OUT_OF_MEMORY;
	node->pointers = pointers;
	for (unsigned int i = 0; i < count; i++)
		pointers[i] = launch->buffer + launch->entry->parameters[i].offset;
	*p = (CUDA_KERNEL_NODE_PARAMS_v2){
		.func = kernel ? NULL : launch->asked.function,
		.kern = kernel ? (CUkernel)launch->asked.function : NULL,
		.gridDimX = launch->asked.grid[0],
		.gridDimY = launch->asked.grid[1],
		.gridDimZ = launch->asked.grid[2],
		.blockDimX = launch->asked.block[0],
		.blockDimY = launch->asked.block[1],
		.blockDimZ = launch->asked.block[2],
		.sharedMemBytes = launch->asked.shared,
		.kernelParams = count ? pointers : NULL,
		.ctx = (CUcontext)node->work->context,
	};
	return CUDA_SUCCESS;
}

#define SIDE(side, d)                                                                 \
	do {                                                                          \
		(d)->side##MemoryType = (from)->type;                                 \
		(d)->side##Array = (from)->array;                                     \
		if ((from)->type == CU_MEMORYTYPE_HOST)                               \
			(d)->side##Host = (void *)(uintptr_t)(from)->address;         \
		else                                                                  \
			(d)->side##Device = (from)->address;                          \
		(d)->side##XInBytes = (from)->x;                                      \
		(d)->side##Y = (from)->y;                                             \
		(d)->side##Z = (from)->z;                                             \
		(d)->side##Pitch = (from)->pitch;                                     \
		(d)->side##Height = (from)->height;                                   \
	} while (0)

static void copy_parameters(const sim_work_t *work, CUDA_MEMCPY_NODE_PARAMS *p)
{
	const sim_box_t *box = &((const sim_copy_work_t *)work)->box;
	CUDA_MEMCPY3D *d = &p->copyParams;
	const sim_side_t *from;

	memset(p, 0, sizeof(*p));
	p->copyCtx = (CUcontext)work->context;
	from = &box->from;
	SIDE(src, d);
	from = &box->to;
	SIDE(dst, d);
	d->WidthInBytes = box->width;
	d->Height = box->height;
	d->Depth = box->depth;
}

static void set_parameters(const sim_work_t *work, CUDA_MEMSET_NODE_PARAMS_v2 *p)
{
	const sim_set_t *set = &((const sim_set_work_t *)work)->set;

	*p = (CUDA_MEMSET_NODE_PARAMS_v2){
		.dst = set->address, .pitch = set->pitch, .value = set->value,
		.elementSize = (unsigned int)set->width, .width = set->count,
		.height = set->rows, .ctx = (CUcontext)work->context,
	};
}

CUresult sim_node_parameters(sim_node_t *node, void *p)
{
	switch (node->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return kernel_parameters(node, p);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		copy_parameters(node->work, p);
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_MEMSET:
		set_parameters(node->work, p);
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_HOST:
		*(CUDA_HOST_NODE_PARAMS_v1 *)p = (CUDA_HOST_NODE_PARAMS_v1){
			((sim_host_work_t *)node->work)->function,
			((sim_host_work_t *)node->work)->data,
		};
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
		*(CUevent *)p = ((sim_event_work_t *)node->work)->event;
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
		sim_graph_alloc_parameters(node->work, p);
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_MEM_FREE:
		((CUDA_MEM_FREE_NODE_PARAMS *)p)->dptr = sim_graph_free_address(node->work);
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP: {
		const sim_memop_work_t *batch = (const sim_memop_work_t *)node->work;

		*(CUDA_BATCH_MEM_OP_NODE_PARAMS_v1 *)p = (CUDA_BATCH_MEM_OP_NODE_PARAMS_v1){
			(CUcontext)node->work->context, batch->count, batch->ops, 0,
		};
		return CUDA_SUCCESS;
	}
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

/* ---- attributes of kernel nodes: hints, but for being cooperative ---- */

enum { ATTRIBUTE_WINDOW = 1, ATTRIBUTE_COOPERATIVE = 2, ATTRIBUTES = 16 };

CUresult sim_node_get_attribute(sim_node_t *node, int number, CUstreamAttrValue *value)
{
	if (node->type != CU_GRAPH_NODE_TYPE_KERNEL || number < ATTRIBUTE_WINDOW ||
	    number >= ATTRIBUTES)
		return CUDA_ERROR_INVALID_VALUE;
	memset(value, 0, sizeof(*value));
	if (number == ATTRIBUTE_COOPERATIVE)
		value->syncPolicy = ((sim_launch_work_t *)node->work)->asked.cooperative;
	return CUDA_SUCCESS;
}

CUresult sim_node_set_attribute(sim_node_t *node, int number, const CUstreamAttrValue *value)
{
	if (node->type != CU_GRAPH_NODE_TYPE_KERNEL || number < ATTRIBUTE_WINDOW ||
	    number >= ATTRIBUTES)
		return CUDA_ERROR_INVALID_VALUE;
	if (number == ATTRIBUTE_COOPERATIVE) {
		sim_launch_work_t *launch = (sim_launch_work_t *)node->work;

		launch->asked.cooperative = launch->what.cooperative = value->syncPolicy;
	}
	return CUDA_SUCCESS;
}
