/* SPDX-License-Identifier: GPL-2.0-only */
/* cuGraphDebugDotPrint: a graph as text for Graphviz. */
#include <stdio.h>

#include "graph.h"

static const char *const types[] = {
	"KERNEL", "MEMCPY", "MEMSET", "HOST", "GRAPH", "EMPTY", "WAIT_EVENT", "EVENT_RECORD",
	"EXT_SEMAS_SIGNAL", "EXT_SEMAS_WAIT", "MEM_ALLOC", "MEM_FREE", "BATCH_MEM_OP",
	"CONDITIONAL",
};

static void print(FILE *file, const sim_graph_t *graph)
{
	fprintf(file, "subgraph cluster_%llu {\nlabel=\"graph_%llu\"\n",
		(unsigned long long)graph->id, (unsigned long long)graph->id);
	for (size_t i = 0; i < graph->count; i++)
		fprintf(file, "\"node_%llu\" [shape=box label=\"%zu\\n%s\"]\n",
			(unsigned long long)graph->nodes[i]->id, i, types[graph->nodes[i]->type]);
	for (size_t i = 0; i < graph->count; i++)
		for (size_t k = 0; k < graph->nodes[i]->before.count; k++)
			fprintf(file, "\"node_%llu\" -> \"node_%llu\"\n",
				(unsigned long long)graph->nodes[i]->before.link[k].node->id,
				(unsigned long long)graph->nodes[i]->id);
	for (size_t i = 0; i < graph->count; i++)
		if (graph->nodes[i]->child)
			print(file, graph->nodes[i]->child);
	fprintf(file, "}\n");
}

/* Flags ask for more detail than there is here: they are taken, and change nothing. */
SIM_API(cuGraphDebugDotPrint, CUgraph handle, const char *path, unsigned int flags)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph;
	FILE *file;

	SIM_ENTER(cuGraphDebugDotPrint);
	(void)flags;
	if (!path)
		return CUDA_ERROR_INVALID_VALUE;
	file = fopen(path, "we");
	if (!file)
		return sim_fail(CUDA_ERROR_OPERATING_SYSTEM, "cuGraphDebugDotPrint: cannot write "
				"\"%s\"", path);
	fprintf(file, "digraph dot {\n");
	sim_lock_take();
	graph = sim_graph_get(handle, &result);
	if (graph)
		print(file, graph);
	sim_lock_drop();
	fprintf(file, "}\n");
	if (fclose(file) != 0)
		result = CUDA_ERROR_OPERATING_SYSTEM;
	return result;
}
