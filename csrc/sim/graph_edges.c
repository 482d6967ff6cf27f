/* SPDX-License-Identifier: GPL-2.0-only */
/* What a graph is asked about its nodes and edges, and edges that come and go. */
#include "graph.h"

SIM_API(cuGraphDestroyNode, CUgraphNode handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;

	SIM_ENTER(cuGraphDestroyNode);
	sim_lock_take();
	node = sim_node_get(handle, &result);
	if (node && (node->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC ||
		     node->type == CU_GRAPH_NODE_TYPE_MEM_FREE))
		result = CUDA_ERROR_NOT_SUPPORTED; /* as documented */
	else if (node)
		sim_node_remove(node);
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphNodeGetType, CUgraphNode handle, CUgraphNodeType *type)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;

	SIM_ENTER(cuGraphNodeGetType);
	if (!type)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	node = sim_node_get(handle, &result);
	if (node)
		*type = node->type;
	sim_lock_drop();
	return result;
}

/* Nodes without dependencies, or all. */
static CUresult list_nodes(CUgraph handle, bool roots, CUgraphNode *nodes, size_t *count)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph;
	size_t found = 0;

	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	graph = sim_graph_get(handle, &result);
	for (size_t i = 0; graph && i < graph->count; i++) {
		if (roots && graph->nodes[i]->before.count)
			continue;
		if (nodes && found < *count)
			nodes[found] = (CUgraphNode)graph->nodes[i];
		found++;
	}
	/* What is more than asked for is filled with NULL. */
	for (size_t i = found; graph && nodes && i < *count; i++)
		nodes[i] = NULL;
	if (graph && (!nodes || found < *count))
		*count = found;
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphGetNodes, CUgraph graph, CUgraphNode *nodes, size_t *count)
{
	SIM_ENTER(cuGraphGetNodes);
	return list_nodes(graph, false, nodes, count);
}

SIM_API(cuGraphGetRootNodes, CUgraph graph, CUgraphNode *nodes, size_t *count)
{
	SIM_ENTER(cuGraphGetRootNodes);
	return list_nodes(graph, true, nodes, count);
}

static bool plain(CUgraphEdgeData data)
{
	return !data.from_port && !data.to_port && !data.type;
}

/* Without `data`, an edge that says more than the caller can be told is an error. */
static CUresult list_edges(CUgraph handle, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *data,
			   size_t *count)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph;
	size_t found = 0;

	if (!count || !from != !to)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	graph = sim_graph_get(handle, &result);
	for (size_t i = 0; graph && i < graph->count; i++)
		for (size_t k = 0; k < graph->nodes[i]->before.count; k++) {
			const sim_link_t *link = &graph->nodes[i]->before.link[k];

			if (from && found < *count) {
				from[found] = (CUgraphNode)link->node;
				to[found] = (CUgraphNode)graph->nodes[i];
				if (data)
					data[found] = link->data;
				else if (!plain(link->data))
					result = CUDA_ERROR_LOSSY_QUERY;
			}
			found++;
		}
	for (size_t i = found; graph && from && i < *count; i++)
		from[i] = to[i] = NULL;
	if (graph && (!from || found < *count))
		*count = found;
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphGetEdges, CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count)
{
	SIM_ENTER(cuGraphGetEdges);
	return list_edges(graph, from, to, NULL, count);
}

SIM_API(cuGraphGetEdges_v2, CUgraph graph, CUgraphNode *from, CUgraphNode *to,
	CUgraphEdgeData *data, size_t *count)
{
	SIM_ENTER(cuGraphGetEdges_v2);
	return list_edges(graph, from, to, data, count);
}

static CUresult list_links(CUgraphNode handle, bool after, CUgraphNode *nodes, CUgraphEdgeData *data,
			   size_t *count)
{
	CUresult result = CUDA_SUCCESS;
	sim_node_t *node;

	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	node = sim_node_get(handle, &result);
	if (node) {
		const sim_links_t *links = after ? &node->after : &node->before;

		for (size_t i = 0; nodes && i < *count; i++) {
			nodes[i] = i < links->count ? (CUgraphNode)links->link[i].node : NULL;
			if (i >= links->count)
				continue;
			if (data)
				data[i] = links->link[i].data;
			else if (!plain(links->link[i].data))
				result = CUDA_ERROR_LOSSY_QUERY;
		}
		if (!nodes || links->count < *count)
			*count = links->count;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphNodeGetDependencies, CUgraphNode node, CUgraphNode *nodes, size_t *count)
{
	SIM_ENTER(cuGraphNodeGetDependencies);
	return list_links(node, false, nodes, NULL, count);
}

SIM_API(cuGraphNodeGetDependencies_v2, CUgraphNode node, CUgraphNode *nodes, CUgraphEdgeData *data,
	size_t *count)
{
	SIM_ENTER(cuGraphNodeGetDependencies_v2);
	return list_links(node, false, nodes, data, count);
}

SIM_API(cuGraphNodeGetDependentNodes, CUgraphNode node, CUgraphNode *nodes, size_t *count)
{
	SIM_ENTER(cuGraphNodeGetDependentNodes);
	return list_links(node, true, nodes, NULL, count);
}

SIM_API(cuGraphNodeGetDependentNodes_v2, CUgraphNode node, CUgraphNode *nodes,
	CUgraphEdgeData *data, size_t *count)
{
	SIM_ENTER(cuGraphNodeGetDependentNodes_v2);
	return list_links(node, true, nodes, data, count);
}

/* All are checked before any is changed. */
static CUresult change_edges(CUgraph handle, const CUgraphNode *from, const CUgraphNode *to,
			     const CUgraphEdgeData *data, size_t count, bool add)
{
	static const CUgraphEdgeData none;
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph;

	if (count && (!from || !to))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	graph = sim_graph_get(handle, &result);
	for (size_t i = 0; graph && i < count && result == CUDA_SUCCESS; i++) {
		sim_node_t *earlier = sim_node_get(from[i], &result);
		sim_node_t *later = sim_node_get(to[i], &result);
		bool there = earlier && later && sim_links_find(&later->before, earlier);

		if (!earlier || !later)
			break;
		if (earlier->graph != graph || later->graph != graph || earlier == later ||
		    there == add)
			result = CUDA_ERROR_INVALID_VALUE;
		else if (!add && graph->has_memory)
			result = CUDA_ERROR_NOT_SUPPORTED; /* as documented */
	}
	for (size_t i = 0; graph && i < count && result == CUDA_SUCCESS; i++) {
		sim_node_t *earlier = (sim_node_t *)from[i], *later = (sim_node_t *)to[i];

		if (!add) {
			sim_links_remove(&later->before, earlier);
			sim_links_remove(&earlier->after, later);
		} else if (!sim_links_find(&later->before, earlier) &&
			   !sim_edge_add(earlier, later, data ? data[i] : none)) {
			result = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphAddDependencies, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
	size_t count)
{
	SIM_ENTER(cuGraphAddDependencies);
	return change_edges(graph, from, to, NULL, count, true);
}

SIM_API(cuGraphAddDependencies_v2, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
	const CUgraphEdgeData *data, size_t count)
{
	SIM_ENTER(cuGraphAddDependencies_v2);
	return change_edges(graph, from, to, data, count, true);
}

SIM_API(cuGraphRemoveDependencies, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
	size_t count)
{
	SIM_ENTER(cuGraphRemoveDependencies);
	return change_edges(graph, from, to, NULL, count, false);
}

SIM_API(cuGraphRemoveDependencies_v2, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
	const CUgraphEdgeData *data, size_t count)
{
	SIM_ENTER(cuGraphRemoveDependencies_v2);
	return change_edges(graph, from, to, data, count, false);
}
