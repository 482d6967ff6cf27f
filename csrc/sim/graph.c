/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Graphs, nodes and dependencies (graph.h).
 *
 * Invariants
 *   - An edge is in `before` of its later node and in `after` of its earlier one, once
 *     for each pair of nodes; both are of one graph.
 *   - node->index is its place in graph->nodes.
 */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

static uint64_t ids;

/* ---- making and dropping ---- */

sim_graph_t *sim_graph_new(bool listed)
{
	sim_graph_t *graph = listed ? sim_object_new(SIM_GRAPH, sizeof(*graph), NULL)
				    : calloc(1, sizeof(*graph));

	if (graph) {
		graph->listed = listed;
		graph->id = ++ids;
	}
	return graph;
}

static void node_delete(sim_node_t *node)
{
	if (node->work)
		sim_work_drop(node->work);
	if (node->child)
		sim_graph_delete(node->child);
	free(node->before.link);
	free(node->after.link);
	free(node->pointers);
	if (node->graph->listed)
		sim_object_delete(node);
	else
		free(node);
}

void sim_graph_delete(sim_graph_t *graph)
{
	for (size_t i = 0; i < graph->count; i++)
		node_delete(graph->nodes[i]);
	free(graph->nodes);
	free(graph->order);
	sim_user_objects_drop(graph);
	if (graph->listed)
		sim_object_delete(graph);
	else
		free(graph);
}

sim_graph_t *sim_graph_get(CUgraph handle, CUresult *why)
{
	sim_graph_t *graph = sim_object_get(handle, SIM_GRAPH);

	if (!graph)
		*why = sim_fail(CUDA_ERROR_INVALID_VALUE, "%p is no graph", (void *)handle);
	return graph;
}

sim_node_t *sim_node_get(CUgraphNode handle, CUresult *why)
{
	sim_node_t *node = sim_object_get(handle, SIM_NODE);

	if (!node)
		*why = sim_fail(CUDA_ERROR_INVALID_VALUE, "%p is no node of a graph", (void *)handle);
	return node;
}

bool sim_links_add(sim_links_t *links, sim_node_t *node, CUgraphEdgeData data)
{
	if (links->count == links->room) {
		size_t room = links->room ? links->room * 2 : 2;
		sim_link_t *more = realloc(links->link, room * sizeof(*more));

		if (!more)
			return false;
		links->link = more;
		links->room = room;
	}
	links->link[links->count++] = (sim_link_t){ node, data };
	return true;
}

sim_link_t *sim_links_find(const sim_links_t *links, const sim_node_t *node)
{
	for (size_t i = 0; i < links->count; i++)
		if (links->link[i].node == node)
			return &links->link[i];
	return NULL;
}

void sim_links_remove(sim_links_t *links, const sim_node_t *node)
{
	sim_link_t *link = sim_links_find(links, node);

	if (link) {
		memmove(link, link + 1,
			(size_t)(links->link + links->count - link - 1) * sizeof(*link));
		links->count--;
	}
}

bool sim_edge_add(sim_node_t *from, sim_node_t *to, CUgraphEdgeData data)
{
	if (!sim_links_add(&to->before, from, data))
		return false;
	if (sim_links_add(&from->after, to, data))
		return true;
	to->before.count--;
	return false;
}

static sim_node_t *node_new(sim_graph_t *graph, CUgraphNodeType type)
{
	sim_node_t *node;

	if (graph->count == graph->room) {
		size_t room = graph->room ? graph->room * 2 : 16;
		sim_node_t **more = realloc(graph->nodes, room * sizeof(sim_node_t *));

		if (!more)
			return NULL;
		graph->nodes = more;
		graph->room = room;
	}
	node = graph->listed ? sim_object_new(SIM_NODE, sizeof(*node), NULL)
			     : calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	node->graph = graph;
	node->type = type;
	node->id = ++ids;
	node->index = graph->count;
	graph->nodes[graph->count++] = node;
	if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || type == CU_GRAPH_NODE_TYPE_MEM_FREE)
		graph->has_memory = true;
	return node;
}

void sim_node_remove(sim_node_t *node)
{
	sim_graph_t *graph = node->graph;

	for (size_t i = 0; i < node->before.count; i++)
		sim_links_remove(&node->before.link[i].node->after, node);
	for (size_t i = 0; i < node->after.count; i++)
		sim_links_remove(&node->after.link[i].node->before, node);
	memmove(&graph->nodes[node->index], &graph->nodes[node->index + 1],
		(graph->count - node->index - 1) * sizeof(sim_node_t *));
	graph->count--;
	for (size_t i = node->index; i < graph->count; i++)
		graph->nodes[i]->index = i;
	node_delete(node);
}

sim_node_t *sim_graph_add(sim_graph_t *graph, CUgraphNodeType type, sim_work_t *work,
			  sim_graph_t *child, const sim_link_t *links, size_t count, CUresult *why)
{
	sim_node_t *node = node_new(graph, type);

	if (!node) {
		if (work)
			sim_work_drop(work);
		if (child)
			sim_graph_delete(child);
		*why = CUDA_ERROR_OUT_OF_MEMORY;
		return NULL;
	}
	node->work = work;
	node->child = child;
	for (size_t i = 0; i < count; i++)
		if (!sim_links_find(&node->before, links[i].node) &&
		    !sim_edge_add(links[i].node, node, links[i].data)) {
			sim_node_remove(node);
			*why = CUDA_ERROR_OUT_OF_MEMORY;
			return NULL;
		}
	return node;
}

/* ---- clones and order ---- */

sim_graph_t *sim_graph_clone(const sim_graph_t *graph, bool listed)
{
	sim_graph_t *clone = sim_graph_new(listed);
	bool good = clone;

	for (size_t i = 0; i < graph->count && good; i++) {
		const sim_node_t *from = graph->nodes[i];
		sim_node_t *to = node_new(clone, from->type);

		good = to;
		if (!to)
			break;
		to->origin = from->id;
		to->disabled = from->disabled;
		if (from->work)
			good = (to->work = sim_work_copy(from->work));
		if (from->child)
			good = (to->child = sim_graph_clone(from->child, listed));
		if (to->child)
			to->child->owned = true;
	}
	for (size_t i = 0; i < graph->count && good; i++)
		for (size_t k = 0; k < graph->nodes[i]->before.count && good; k++) {
			const sim_link_t *link = &graph->nodes[i]->before.link[k];

			good = sim_edge_add(clone->nodes[link->node->index], clone->nodes[i], link->data);
		}
	if (good) {
		sim_user_objects_share(clone, graph);
		return clone;
	}
	if (clone)
		sim_graph_delete(clone);
	return NULL;
}

sim_node_t *sim_graph_find(const sim_graph_t *clone, const sim_node_t *node)
{
	for (size_t i = 0; i < clone->count; i++) {
		sim_node_t *found = clone->nodes[i]->child
					    ? sim_graph_find(clone->nodes[i]->child, node)
					    : NULL;

		if (clone->nodes[i]->origin == node->id)
			return clone->nodes[i];
		if (found)
			return found;
	}
	return NULL;
}

/* Rounds over the nodes: those made in a sensible order need one. */
CUresult sim_graph_sort(sim_graph_t *graph)
{
	size_t done = 0, before;

	free(graph->order);
	graph->order = calloc(graph->count + 1, sizeof(sim_node_t *));
	if (!graph->order)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < graph->count; i++)
		graph->nodes[i]->visited = false;
	do {
		before = done;
		for (size_t i = 0; i < graph->count; i++) {
			sim_node_t *node = graph->nodes[i];
			bool ready = !node->visited;

			for (size_t k = 0; k < node->before.count && ready; k++)
				ready = node->before.link[k].node->visited;
			if (ready) {
				node->visited = true;
				graph->order[done++] = node;
			}
		}
	} while (done < graph->count && done > before);
	return done == graph->count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- entry points: graphs ---- */

SIM_API(cuGraphCreate, CUgraph *handle, unsigned int flags)
{
	sim_graph_t *graph;

	SIM_ENTER(cuGraphCreate);
	if (!handle || flags)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	graph = sim_graph_new(true);
	sim_lock_drop();
	if (!graph)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*handle = (CUgraph)graph;
	return CUDA_SUCCESS;
}

SIM_API(cuGraphDestroy, CUgraph handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph;

	SIM_ENTER(cuGraphDestroy);
	sim_lock_take();
	graph = sim_graph_get(handle, &result);
	if (graph && graph->owned)
		result = sim_fail(CUDA_ERROR_INVALID_VALUE,
				  "cuGraphDestroy: the graph is another's child, or being captured");
	else if (graph)
		sim_graph_delete(graph);
	sim_lock_drop();
	sim_user_objects_end();
	return result;
}

SIM_API(cuGraphClone, CUgraph *handle, CUgraph original)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph;

	SIM_ENTER(cuGraphClone);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	graph = sim_graph_get(original, &result);
	if (graph && graph->has_memory) {
		result = CUDA_ERROR_NOT_SUPPORTED; /* as documented */
	} else if (graph) {
		sim_graph_t *clone = sim_graph_clone(graph, true);

		if (clone)
			*handle = (CUgraph)clone;
		else
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphNodeFindInClone, CUgraphNode *answer, CUgraphNode original, CUgraph handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *clone;
	sim_node_t *node, *found;

	SIM_ENTER(cuGraphNodeFindInClone);
	if (!answer)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	clone = sim_graph_get(handle, &result);
	node = sim_node_get(original, &result);
	found = clone && node ? sim_graph_find(clone, node) : NULL;
	if (found)
		*answer = (CUgraphNode)found;
	else
		result = CUDA_ERROR_INVALID_VALUE;
	sim_lock_drop();
	return result;
}
