/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The calls that make nodes, and read and change what they do, one set for each type
 * and one for all types (cuGraphAddNode).
 *
 * All of them come down to add(), get() and set() with the structure that
 * CUgraphNodeParams has for the type.
 */
#include <stdlib.h>
#include <string.h>

#include "graph_exec.h"
#include "graph_nodes.h"

/* Child graphs: a clone, or the graph itself from then on. */
static CUresult child_of(const CUDA_CHILD_GRAPH_NODE_PARAMS *p, sim_graph_t *parent,
			 sim_graph_t **child)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph = sim_graph_get(p->graph, &result);

	if (!graph)
		return result;
	if (p->ownership < 0 || p->ownership > 1 || graph == parent ||
	    (p->ownership && graph->owned))
		return CUDA_ERROR_INVALID_VALUE;
	if (graph->has_memory && !p->ownership)
		return CUDA_ERROR_NOT_SUPPORTED;
	*child = p->ownership ? graph : sim_graph_clone(graph, true);
	if (!*child)
		return CUDA_ERROR_OUT_OF_MEMORY;
	(*child)->owned = true;
	parent->has_memory |= graph->has_memory;
	return CUDA_SUCCESS;
}

static CUresult links_of(const sim_graph_t *graph, const CUgraphNode *nodes,
			 const CUgraphEdgeData *data, size_t count, sim_link_t **links)
{
	CUresult result = CUDA_SUCCESS;

	*links = NULL;
	if (!count)
		return CUDA_SUCCESS;
	if (!nodes)
		return CUDA_ERROR_INVALID_VALUE;
	*links = calloc(count, sizeof(**links));
	if (!*links)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) {
		sim_node_t *node = sim_node_get(nodes[i], &result);

		if (node && node->graph != graph)
			result = CUDA_ERROR_INVALID_VALUE;
		(*links)[i].node = node;
		if (data)
			(*links)[i].data = data[i];
	}
	return result;
}

static CUresult add(CUgraphNode *answer, CUgraph handle, const CUgraphNode *nodes,
		    const CUgraphEdgeData *data, size_t count, CUgraphNodeType type, void *parameters)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph, *child = NULL;
	sim_link_t *links = NULL;
	sim_work_t *work = NULL;
	sim_node_t *node = NULL;

	if (!answer || !parameters)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	/* First, since it may drop the lock. */
	if (type != CU_GRAPH_NODE_TYPE_GRAPH)
		result = sim_node_work(type, parameters, &work);
	graph = result == CUDA_SUCCESS ? sim_graph_get(handle, &result) : NULL;
	if (graph)
		result = links_of(graph, nodes, data, count, &links);
	if (graph && result == CUDA_SUCCESS && type == CU_GRAPH_NODE_TYPE_GRAPH)
		result = child_of(parameters, graph, &child);
	if (result == CUDA_SUCCESS) {
		node = sim_graph_add(graph, type, work, child, links, count, &result);
		work = NULL;
	}
	if (node)
		*answer = (CUgraphNode)node;
	if (work)
		sim_work_drop(work);
	free(links);
	sim_lock_drop();
	return result;
}

static CUresult get(CUgraphNode handle, CUgraphNodeType type, void *parameters)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;

	if (!parameters)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	node = sim_node_get(handle, &result);
	if (node)
		result = node->type == type ? sim_node_parameters(node, parameters)
					    : CUDA_ERROR_INVALID_VALUE;
	sim_lock_drop();
	return result;
}

/* Of a node itself, or of what it is in an instantiated graph. */
static CUresult set(CUgraphExec exec, bool of_exec, CUgraphNode handle, CUgraphNodeType type,
		    void *parameters)
{
	CUresult result;
	sim_node_t *node;
	sim_work_t *work;

	if (!parameters)
		return CUDA_ERROR_INVALID_VALUE;
	if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || type == CU_GRAPH_NODE_TYPE_MEM_FREE ||
	    type == CU_GRAPH_NODE_TYPE_GRAPH || type == CU_GRAPH_NODE_TYPE_EMPTY)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	result = sim_node_work(type, parameters, &work);
	node = result == CUDA_SUCCESS ? sim_node_get(handle, &result) : NULL;
	if (node && of_exec)
		node = sim_exec_node(exec, node, &result);
	if (node && node->type != type) {
		result = CUDA_ERROR_INVALID_VALUE;
		node = NULL;
	}
	if (node && node->work->context && work->context &&
	    node->work->context->device != work->context->device) {
		result = sim_fail(CUDA_ERROR_INVALID_VALUE, "a node stays on its device");
		node = NULL;
	}
	if (node) {
		sim_work_drop(node->work);
		node->work = work;
	} else if (work) {
		sim_work_drop(work);
	}
	sim_lock_drop();
	return result;
}

/* ---- all types ---- */

SIM_API(cuGraphAddNode, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes, size_t count,
	CUgraphNodeParams *p)
{
	SIM_ENTER(cuGraphAddNode);
	return p ? add(node, graph, nodes, NULL, count, p->type, p->reserved1)
		 : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuGraphAddNode_v2, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes,
	const CUgraphEdgeData *data, size_t count, CUgraphNodeParams *p)
{
	SIM_ENTER(cuGraphAddNode_v2);
	return p ? add(node, graph, nodes, data, count, p->type, p->reserved1)
		 : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuGraphNodeSetParams, CUgraphNode node, CUgraphNodeParams *p)
{
	SIM_ENTER(cuGraphNodeSetParams);
	return p ? set(NULL, false, node, p->type, p->reserved1) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuGraphExecNodeSetParams, CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *p)
{
	SIM_ENTER(cuGraphExecNodeSetParams);
	if (p && p->type == CU_GRAPH_NODE_TYPE_GRAPH)
		return sim_exec_set_child(exec, node, *(CUgraph *)p->reserved1);
	return p ? set(exec, true, node, p->type, p->reserved1) : CUDA_ERROR_INVALID_VALUE;
}

/* ---- kernels ---- */

static CUDA_KERNEL_NODE_PARAMS_v2 kernel_v2(const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	CUDA_KERNEL_NODE_PARAMS_v2 full = { 0 };

	memcpy(&full, p, sizeof(*p)); /* the second version adds to the end */
	return full;
}

#define KERNEL_CALLS(suffix, params_t, full)                                                     \
	SIM_API(cuGraphAddKernelNode##suffix, CUgraphNode *node, CUgraph graph,                  \
		const CUgraphNode *nodes, size_t count, const params_t *p)                       \
	{                                                                                        \
		SIM_ENTER(cuGraphAddKernelNode##suffix);                                         \
		if (!p)                                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                         \
		CUDA_KERNEL_NODE_PARAMS_v2 all = full(p);                                        \
		return add(node, graph, nodes, NULL, count, CU_GRAPH_NODE_TYPE_KERNEL, &all);    \
	}                                                                                        \
	SIM_API(cuGraphKernelNodeGetParams##suffix, CUgraphNode node, params_t *p)               \
	{                                                                                        \
		SIM_ENTER(cuGraphKernelNodeGetParams##suffix);                                   \
		CUDA_KERNEL_NODE_PARAMS_v2 all;                                                  \
		CUresult result = get(node, CU_GRAPH_NODE_TYPE_KERNEL, p ? &all : NULL);         \
		if (result == CUDA_SUCCESS)                                                      \
			memcpy(p, &all, sizeof(*p));                                             \
		return result;                                                                   \
	}                                                                                        \
	SIM_API(cuGraphKernelNodeSetParams##suffix, CUgraphNode node, const params_t *p)         \
	{                                                                                        \
		SIM_ENTER(cuGraphKernelNodeSetParams##suffix);                                   \
		if (!p)                                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                         \
		CUDA_KERNEL_NODE_PARAMS_v2 all = full(p);                                        \
		return set(NULL, false, node, CU_GRAPH_NODE_TYPE_KERNEL, &all);                  \
	}                                                                                        \
	SIM_API(cuGraphExecKernelNodeSetParams##suffix, CUgraphExec exec, CUgraphNode node,      \
		const params_t *p)                                                               \
	{                                                                                        \
		SIM_ENTER(cuGraphExecKernelNodeSetParams##suffix);                               \
		if (!p)                                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                         \
		CUDA_KERNEL_NODE_PARAMS_v2 all = full(p);                                        \
		return set(exec, true, node, CU_GRAPH_NODE_TYPE_KERNEL, &all);                   \
	}
#define AS_IT_IS(p) *(p)
KERNEL_CALLS(, CUDA_KERNEL_NODE_PARAMS_v1, kernel_v2)
KERNEL_CALLS(_v2, CUDA_KERNEL_NODE_PARAMS_v2, AS_IT_IS)

static CUresult attribute(CUgraphNode handle, int number, CUstreamAttrValue *out,
			  const CUstreamAttrValue *in)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;

	if (!out && !in)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	node = sim_node_get(handle, &result);
	if (node)
		result = out ? sim_node_get_attribute(node, number, out)
			     : sim_node_set_attribute(node, number, in);
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphKernelNodeGetAttribute, CUgraphNode node, int number, CUstreamAttrValue *value)
{
	SIM_ENTER(cuGraphKernelNodeGetAttribute);
	return attribute(node, number, value, NULL);
}

SIM_API(cuGraphKernelNodeSetAttribute, CUgraphNode node, int number, const CUstreamAttrValue *value)
{
	SIM_ENTER(cuGraphKernelNodeSetAttribute);
	return attribute(node, number, NULL, value);
}

SIM_API(cuGraphKernelNodeCopyAttributes, CUgraphNode to, CUgraphNode from)
{
	enum { COOPERATIVE = 2 };
	CUstreamAttrValue value;
	CUresult result;

	SIM_ENTER(cuGraphKernelNodeCopyAttributes);
	result = attribute(from, COOPERATIVE, &value, NULL);
	return result == CUDA_SUCCESS ? attribute(to, COOPERATIVE, NULL, &value) : result;
}

/* ---- copies and sets: with the context beside the structure ---- */

static CUDA_MEMCPY_NODE_PARAMS copy_in(const CUDA_MEMCPY3D *p, CUcontext context)
{
	CUDA_MEMCPY_NODE_PARAMS all;

	memset(&all, 0, sizeof(all));
	all.copyCtx = context;
	all.copyParams = *p;
	return all;
}

static CUDA_MEMSET_NODE_PARAMS_v2 set_in(const CUDA_MEMSET_NODE_PARAMS_v1 *p, CUcontext context)
{
	CUDA_MEMSET_NODE_PARAMS_v2 all = { 0 };

	memcpy(&all, p, sizeof(*p));
	all.ctx = context;
	return all;
}

static const CUDA_MEMCPY3D *copy_out(const CUDA_MEMCPY_NODE_PARAMS *all)
{
	return &all->copyParams;
}

/* Its first members. */
static const void *set_out(const CUDA_MEMSET_NODE_PARAMS_v2 *all)
{
	return all;
}

/* The context stands beside what the program gives; `whole` puts it in, `part` leaves it out. */
#define CONTEXT_CALLS(Kind, what, params_t, all_t, whole, part)                                  \
	SIM_API(cuGraphAdd##Kind##Node, CUgraphNode *node, CUgraph graph,                        \
		const CUgraphNode *nodes, size_t count, const params_t *p, CUcontext context)    \
	{                                                                                        \
		SIM_ENTER(cuGraphAdd##Kind##Node);                                               \
		if (!p)                                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                         \
		all_t all = whole(p, context);                                                   \
		return add(node, graph, nodes, NULL, count, what, &all);                         \
	}                                                                                        \
	SIM_API(cuGraph##Kind##NodeGetParams, CUgraphNode node, params_t *p)                     \
	{                                                                                        \
		SIM_ENTER(cuGraph##Kind##NodeGetParams);                                         \
		all_t all;                                                                       \
		CUresult result = get(node, what, p ? &all : NULL);                              \
		if (result == CUDA_SUCCESS)                                                      \
			memcpy(p, part(&all), sizeof(*p));                                       \
		return result;                                                                   \
	}                                                                                        \
	SIM_API(cuGraph##Kind##NodeSetParams, CUgraphNode node, const params_t *p)               \
	{                                                                                        \
		SIM_ENTER(cuGraph##Kind##NodeSetParams);                                         \
		if (!p)                                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                         \
		all_t all = whole(p, NULL);                                                      \
		return set(NULL, false, node, what, &all);                                       \
	}                                                                                        \
	SIM_API(cuGraphExec##Kind##NodeSetParams, CUgraphExec exec, CUgraphNode node,            \
		const params_t *p, CUcontext context)                                            \
	{                                                                                        \
		SIM_ENTER(cuGraphExec##Kind##NodeSetParams);                                     \
		if (!p)                                                                          \
			return CUDA_ERROR_INVALID_VALUE;                                         \
		all_t all = whole(p, context);                                                   \
		return set(exec, true, node, what, &all);                                        \
	}

CONTEXT_CALLS(Memcpy, CU_GRAPH_NODE_TYPE_MEMCPY, CUDA_MEMCPY3D, CUDA_MEMCPY_NODE_PARAMS, copy_in, copy_out)
CONTEXT_CALLS(Memset, CU_GRAPH_NODE_TYPE_MEMSET, CUDA_MEMSET_NODE_PARAMS_v1, CUDA_MEMSET_NODE_PARAMS_v2,
	      set_in, set_out)

/* ---- host functions, memory operations: one structure ---- */

#define PLAIN_CALLS(Kind, what, params_t)                                                        \
	SIM_API(cuGraphAdd##Kind##Node, CUgraphNode *node, CUgraph graph,                        \
		const CUgraphNode *nodes, size_t count, const params_t *p)                       \
	{                                                                                        \
		SIM_ENTER(cuGraphAdd##Kind##Node);                                               \
		return add(node, graph, nodes, NULL, count, what, (void *)(uintptr_t)p);         \
	}                                                                                        \
	SIM_API(cuGraph##Kind##NodeGetParams, CUgraphNode node, params_t *p)                     \
	{                                                                                        \
		SIM_ENTER(cuGraph##Kind##NodeGetParams);                                         \
		return get(node, what, p);                                                       \
	}                                                                                        \
	SIM_API(cuGraph##Kind##NodeSetParams, CUgraphNode node, const params_t *p)               \
	{                                                                                        \
		SIM_ENTER(cuGraph##Kind##NodeSetParams);                                         \
		return set(NULL, false, node, what, (void *)(uintptr_t)p);                       \
	}                                                                                        \
	SIM_API(cuGraphExec##Kind##NodeSetParams, CUgraphExec exec, CUgraphNode node,            \
		const params_t *p)                                                               \
	{                                                                                        \
		SIM_ENTER(cuGraphExec##Kind##NodeSetParams);                                     \
		return set(exec, true, node, what, (void *)(uintptr_t)p);                        \
	}
PLAIN_CALLS(Host, CU_GRAPH_NODE_TYPE_HOST, CUDA_HOST_NODE_PARAMS_v1)
PLAIN_CALLS(BatchMemOp, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, CUDA_BATCH_MEM_OP_NODE_PARAMS_v1)

/* ---- events ---- */

#define EVENT_CALLS(Kind, what)                                                                  \
	SIM_API(cuGraphAdd##Kind##Node, CUgraphNode *node, CUgraph graph,                        \
		const CUgraphNode *nodes, size_t count, CUevent event)                           \
	{                                                                                        \
		SIM_ENTER(cuGraphAdd##Kind##Node);                                               \
		return add(node, graph, nodes, NULL, count, what, &event);                       \
	}                                                                                        \
	SIM_API(cuGraph##Kind##NodeGetEvent, CUgraphNode node, CUevent *event)                   \
	{                                                                                        \
		SIM_ENTER(cuGraph##Kind##NodeGetEvent);                                          \
		return get(node, what, event);                                                   \
	}                                                                                        \
	SIM_API(cuGraph##Kind##NodeSetEvent, CUgraphNode node, CUevent event)                    \
	{                                                                                        \
		SIM_ENTER(cuGraph##Kind##NodeSetEvent);                                          \
		return set(NULL, false, node, what, &event);                                     \
	}                                                                                        \
	SIM_API(cuGraphExec##Kind##NodeSetEvent, CUgraphExec exec, CUgraphNode node, CUevent event) \
	{                                                                                        \
		SIM_ENTER(cuGraphExec##Kind##NodeSetEvent);                                      \
		return set(exec, true, node, what, &event);                                      \
	}
EVENT_CALLS(EventRecord, CU_GRAPH_NODE_TYPE_EVENT_RECORD)
EVENT_CALLS(EventWait, CU_GRAPH_NODE_TYPE_WAIT_EVENT)

/* ---- nothing, child graphs, memory ---- */

SIM_API(cuGraphAddEmptyNode, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes,
	size_t count)
{
	char none;

	SIM_ENTER(cuGraphAddEmptyNode);
	return add(node, graph, nodes, NULL, count, CU_GRAPH_NODE_TYPE_EMPTY, &none);
}

SIM_API(cuGraphAddChildGraphNode, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes,
	size_t count, CUgraph child)
{
	CUDA_CHILD_GRAPH_NODE_PARAMS p = { child, 0 };

	SIM_ENTER(cuGraphAddChildGraphNode);
	return add(node, graph, nodes, NULL, count, CU_GRAPH_NODE_TYPE_GRAPH, &p);
}

SIM_API(cuGraphChildGraphNodeGetGraph, CUgraphNode handle, CUgraph *graph)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;

	SIM_ENTER(cuGraphChildGraphNodeGetGraph);
	if (!graph)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	node = sim_node_get(handle, &result);
	if (node && node->child)
		*graph = (CUgraph)node->child;
	else
		result = CUDA_ERROR_INVALID_VALUE;
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphAddMemAllocNode, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes,
	size_t count, CUDA_MEM_ALLOC_NODE_PARAMS_v1 *p)
{
	SIM_ENTER(cuGraphAddMemAllocNode);
	return add(node, graph, nodes, NULL, count, CU_GRAPH_NODE_TYPE_MEM_ALLOC, p);
}

SIM_API(cuGraphMemAllocNodeGetParams, CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS_v1 *p)
{
	SIM_ENTER(cuGraphMemAllocNodeGetParams);
	return get(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC, p);
}

SIM_API(cuGraphAddMemFreeNode, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes,
	size_t count, CUdeviceptr address)
{
	SIM_ENTER(cuGraphAddMemFreeNode);
	return add(node, graph, nodes, NULL, count, CU_GRAPH_NODE_TYPE_MEM_FREE, &address);
}

SIM_API(cuGraphMemFreeNodeGetParams, CUgraphNode node, CUdeviceptr *address)
{
	SIM_ENTER(cuGraphMemFreeNodeGetParams);
	return get(node, CU_GRAPH_NODE_TYPE_MEM_FREE, address);
}
