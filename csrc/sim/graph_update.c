/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Changes of an instantiated graph as a whole: cuGraphExecUpdate, child graphs, nodes
 * that are switched off.
 *
 * Two graphs are the same in shape when their nodes, in the order they were made, have
 * the same types and the same dependencies.
 */
#include "graph_exec.h"

typedef struct {
	CUgraphExecUpdateResult result;
	const sim_node_t *node, *from; /* of the graph that is given */
} verdict_t;

static bool same_links(const sim_node_t *old, const sim_node_t *new, verdict_t *verdict)
{
	if (old->before.count != new->before.count)
		return false;
	for (size_t i = 0; i < new->before.count; i++) {
		bool found = false;

		for (size_t k = 0; k < old->before.count && !found; k++)
			found = old->before.link[k].node->index == new->before.link[i].node->index;
		if (!found) {
			verdict->from = new->before.link[i].node;
			return false;
		}
	}
	return true;
}

static bool same_work(const sim_node_t *old, const sim_node_t *new, verdict_t *verdict)
{
	const sim_context_t *was = old->work ? old->work->context : NULL;
	const sim_context_t *is = new->work ? new->work->context : NULL;

	if (new->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || new->type == CU_GRAPH_NODE_TYPE_MEM_FREE)
		verdict->result = CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED;
	else if (was && is && was->device != is->device)
		verdict->result = new->type == CU_GRAPH_NODE_TYPE_KERNEL
					  ? CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED
					  : CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
	else
		return true;
	return false;
}

static bool same_shape(const sim_graph_t *old, const sim_graph_t *new, verdict_t *verdict)
{
	size_t least = old->count < new->count ? old->count : new->count;

	for (size_t i = 0; i < least; i++) {
		const sim_node_t *was = old->nodes[i], *is = new->nodes[i];

		verdict->node = is;
		verdict->from = NULL;
		verdict->result = CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
		if (was->type != is->type)
			return false;
		verdict->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
		if (!same_links(was, is, verdict))
			return false;
		if (was->child && !same_shape(was->child, is->child, verdict))
			return false;
		if (!same_work(was, is, verdict))
			return false;
	}
	if (old->count != new->count) {
		verdict->node = NULL;
		verdict->from = NULL;
		verdict->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
		return false;
	}
	verdict->result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
	verdict->node = NULL;
	return true;
}

/* Copies of all of the new work. */
static bool take_work(sim_graph_t *old, const sim_graph_t *new)
{
	for (size_t i = 0; i < old->count; i++) {
		sim_node_t *node = old->nodes[i];
		sim_work_t *work;

		if (node->child && !take_work(node->child, new->nodes[i]->child))
			return false;
		if (!node->work)
			continue;
		work = sim_work_copy(new->nodes[i]->work);
		if (!work)
			return false;
		sim_work_drop(node->work);
		node->work = work;
	}
	return true;
}

static CUresult update(CUgraphExec handle, CUgraph graph_handle, verdict_t *verdict)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph;
	sim_exec_t *exec;

	*verdict = (verdict_t){ CU_GRAPH_EXEC_UPDATE_ERROR, NULL, NULL };
	sim_lock_take();
	exec = sim_exec_get(handle, &result);
	graph = sim_graph_get(graph_handle, &result);
	if (exec && graph) {
		if (!same_shape(exec->graph, graph, verdict))
			result = CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
		else if (!take_work(exec->graph, graph))
			result = CUDA_ERROR_OUT_OF_MEMORY;
		if (result == CUDA_SUCCESS) {
			sim_user_objects_drop(exec->graph);
			sim_user_objects_share(exec->graph, graph);
		}
	}
	sim_lock_drop();
	sim_user_objects_end();
	return result;
}

SIM_API(cuGraphExecUpdate, CUgraphExec exec, CUgraph graph, CUgraphNode *node,
	CUgraphExecUpdateResult *why)
{
	verdict_t verdict;
	CUresult result;

	SIM_ENTER(cuGraphExecUpdate);
	if (!why)
		return CUDA_ERROR_INVALID_VALUE;
	result = update(exec, graph, &verdict);
	*why = verdict.result;
	if (node)
		*node = (CUgraphNode)(uintptr_t)verdict.node;
	return result;
}

SIM_API(cuGraphExecUpdate_v2, CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *info)
{
	verdict_t verdict;
	CUresult result;

	SIM_ENTER(cuGraphExecUpdate_v2);
	if (!info)
		return CUDA_ERROR_INVALID_VALUE;
	result = update(exec, graph, &verdict);
	*info = (CUgraphExecUpdateResultInfo){
		verdict.result,
		(CUgraphNode)(uintptr_t)verdict.node,
		(CUgraphNode)(uintptr_t)verdict.from,
	};
	return result;
}

CUresult sim_exec_set_child(CUgraphExec exec, CUgraphNode handle, CUgraph child_handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;
	sim_graph_t *child;
	verdict_t verdict;

	sim_lock_take();
	node = sim_node_get(handle, &result);
	child = sim_graph_get(child_handle, &result);
	if (node)
		node = sim_exec_node(exec, node, &result);
	if (node && child) {
		if (!node->child || !same_shape(node->child, child, &verdict))
			result = CUDA_ERROR_INVALID_VALUE;
		else if (!take_work(node->child, child))
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphExecChildGraphNodeSetParams, CUgraphExec exec, CUgraphNode node, CUgraph child)
{
	SIM_ENTER(cuGraphExecChildGraphNodeSetParams);
	return sim_exec_set_child(exec, node, child);
}

/* ---- nodes that are switched off ---- */

static CUresult enabled(CUgraphExec exec, CUgraphNode handle, unsigned int *get, unsigned int set)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;

	sim_lock_take();
	node = sim_node_get(handle, &result);
	if (node)
		node = sim_exec_node(exec, node, &result);
	if (node && node->type > CU_GRAPH_NODE_TYPE_MEMSET)
		result = CUDA_ERROR_INVALID_VALUE; /* kernels, copies and sets only */
	else if (node && get)
		*get = !node->disabled;
	else if (node)
		node->disabled = !set;
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphNodeSetEnabled, CUgraphExec exec, CUgraphNode node, unsigned int on)
{
	SIM_ENTER(cuGraphNodeSetEnabled);
	return enabled(exec, node, NULL, on);
}

SIM_API(cuGraphNodeGetEnabled, CUgraphExec exec, CUgraphNode node, unsigned int *on)
{
	SIM_ENTER(cuGraphNodeGetEnabled);
	return on ? enabled(exec, node, on, 0) : CUDA_ERROR_INVALID_VALUE;
}
