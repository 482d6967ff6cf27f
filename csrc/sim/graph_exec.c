/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Instantiated graphs: made, launched, destroyed.
 *
 * A launch puts copies of all nodes' work into the stream, one after another in an order
 * that the edges allow: branches of a graph do not overlap in real time.  Launches of
 * one instantiated graph come after one another, whatever streams they are in.  What is
 * queued knows nothing of the instantiated graph any more: it may be updated or
 * destroyed meanwhile.
 */
#include <stdlib.h>
#include <string.h>

#include "graph_exec.h"
#include "order.h"

sim_exec_t *sim_exec_get(CUgraphExec handle, CUresult *why)
{
	sim_exec_t *exec = sim_object_get(handle, SIM_EXEC);

	if (!exec)
		*why = sim_fail(CUDA_ERROR_INVALID_VALUE, "%p is no instantiated graph",
				(void *)handle);
	return exec;
}

sim_node_t *sim_exec_node(CUgraphExec handle, const sim_node_t *node, CUresult *why)
{
	sim_exec_t *exec = sim_exec_get(handle, why);
	sim_node_t *found = exec ? sim_graph_find(exec->graph, node) : NULL;

	if (exec && !found)
		*why = sim_fail(CUDA_ERROR_INVALID_VALUE,
				"the graph was not instantiated with that node");
	return found;
}

/* ---- making and destroying ---- */

static CUresult sort_all(sim_graph_t *graph)
{
	CUresult result = sim_graph_sort(graph);

	for (size_t i = 0; i < graph->count && result == CUDA_SUCCESS; i++)
		if (graph->nodes[i]->child)
			result = sort_all(graph->nodes[i]->child);
	return result;
}

/* sim_lock held. */
static CUresult make(CUgraph handle, uint64_t flags, sim_exec_t **answer)
{
	CUresult result = CUDA_SUCCESS;
	sim_graph_t *graph = sim_graph_get(handle, &result), *clone;
	sim_exec_t *exec;

	if (!graph)
		return result;
	if (graph->has_memory && graph->execs)
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED, "cuGraphInstantiate: a graph that "
				"allocates memory is instantiated only once at a time");
	clone = sim_graph_clone(graph, false);
	if (!clone)
		return CUDA_ERROR_OUT_OF_MEMORY;
	clone->has_memory = graph->has_memory;
	result = sort_all(clone);
	exec = result == CUDA_SUCCESS ? sim_object_new(SIM_EXEC, sizeof(*exec), NULL) : NULL;
	if (!exec) {
		sim_graph_delete(clone);
		return result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result;
	}
	exec->graph = clone;
	exec->made_of = handle;
	exec->made_of_id = graph->id;
	exec->flags = flags;
	graph->execs++;
	*answer = exec;
	return CUDA_SUCCESS;
}

static void drop(sim_exec_t *exec)
{
	sim_graph_t *graph = sim_object_get(exec->made_of, SIM_GRAPH);

	if (graph && graph->id == exec->made_of_id)
		graph->execs--;
	sim_graph_delete(exec->graph);
	sim_object_delete(exec);
}

static CUresult instantiate(CUgraphExec *handle, CUgraph graph, uint64_t flags)
{
	sim_exec_t *exec = NULL;
	CUresult result;

	if (!handle || flags & ~15ull ||
	    (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH &&
	     flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH))
		return CUDA_ERROR_INVALID_VALUE;
	if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED,
				"the simulated GPU does not launch graphs from kernels");
	sim_lock_take();
	result = make(graph, flags, &exec);
	if (exec && result == CUDA_SUCCESS && flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD)
		result = sim_graph_memory_book(exec->graph);
	if (result == CUDA_SUCCESS)
		*handle = (CUgraphExec)exec;
	else if (exec)
		drop(exec);
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphInstantiate, CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log,
	size_t bytes)
{
	SIM_ENTER(cuGraphInstantiate);
	if (error_node)
		*error_node = NULL;
	if (log && bytes)
		*log = '\0';
	return instantiate(exec, graph, 0);
}

SIM_API(cuGraphInstantiate_v2, CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log,
	size_t bytes)
{
	SIM_ENTER(cuGraphInstantiate_v2);
	if (error_node)
		*error_node = NULL;
	if (log && bytes)
		*log = '\0';
	return instantiate(exec, graph, 0);
}

SIM_API(cuGraphInstantiateWithFlags, CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
	SIM_ENTER(cuGraphInstantiateWithFlags);
	return instantiate(exec, graph, flags);
}

static CUresult with_params(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *p)
{
	CUresult result;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	p->hErrNode_out = NULL;
	result = instantiate(exec, graph, p->flags);
	p->result_out = result == CUDA_SUCCESS		   ? CUDA_GRAPH_INSTANTIATE_SUCCESS
			: result == CUDA_ERROR_INVALID_VALUE ? CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE
							     : CUDA_GRAPH_INSTANTIATE_ERROR;
	return result;
}

SIM_API(cuGraphInstantiateWithParams, CUgraphExec *exec, CUgraph graph,
	CUDA_GRAPH_INSTANTIATE_PARAMS *p)
{
	SIM_ENTER(cuGraphInstantiateWithParams);
	return with_params(exec, graph, p);
}

SIM_API(cuGraphInstantiateWithParams_ptsz, CUgraphExec *exec, CUgraph graph,
	CUDA_GRAPH_INSTANTIATE_PARAMS *p)
{
	SIM_ENTER(cuGraphInstantiateWithParams_ptsz);
	return with_params(exec, graph, p);
}

SIM_API(cuGraphExecDestroy, CUgraphExec handle)
{
	CUresult result = CUDA_SUCCESS;
	sim_exec_t *exec;

	SIM_ENTER(cuGraphExecDestroy);
	sim_lock_take();
	exec = sim_exec_get(handle, &result);
	if (exec)
		drop(exec);
	sim_lock_drop();
	sim_user_objects_end();
	return result;
}

SIM_API(cuGraphExecGetFlags, CUgraphExec handle, cuuint64_t *flags)
{
	CUresult result = CUDA_SUCCESS;
	sim_exec_t *exec;

	SIM_ENTER(cuGraphExecGetFlags);
	if (!flags)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	exec = sim_exec_get(handle, &result);
	if (exec)
		*flags = exec->flags;
	sim_lock_drop();
	return result;
}

/* ---- launching ---- */

/* The two ends of a launch, as places in the stream. */
typedef struct {
	sim_work_t work;
	CUgraphExec exec;
	uint64_t launch;
	sim_graph_t *holds; /* the user objects, until the launch is done; or NULL */
} end_work_t;

static void begin_enter(sim_work_t *work)
{
	sim_exec_t *exec = sim_object_get(((end_work_t *)work)->exec, SIM_EXEC);

	if (exec && exec->last)
		sim_work_after(work, exec->last);
}

static void end_enter(sim_work_t *work)
{
	end_work_t *end = (end_work_t *)work;
	sim_exec_t *exec = sim_object_get(end->exec, SIM_EXEC);

	if (exec) {
		exec->last = work;
		end->launch = ++exec->launches;
	}
}

static void end_done(sim_work_t *work)
{
	end_work_t *end = (end_work_t *)work;
	sim_exec_t *exec = sim_object_get(end->exec, SIM_EXEC);

	if (exec && exec->last == work)
		exec->last = NULL;
}

static void end_drop(sim_work_t *work)
{
	if (((end_work_t *)work)->holds)
		sim_graph_delete(((end_work_t *)work)->holds);
}

static const sim_work_kind_t begin_kind = {
	.name = "graph begins", .bytes = sizeof(end_work_t), .enter = begin_enter,
};
static const sim_work_kind_t end_kind = {
	.name = "graph ends", .bytes = sizeof(end_work_t),
	.enter = end_enter, .done = end_done, .drop = end_drop,
};

static CUresult append_end(const sim_work_kind_t *kind, sim_exec_t *exec, sim_stream_t *stream)
{
	sim_work_t *work = sim_work_new(kind, stream->object.context);

	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((end_work_t *)work)->exec = (CUgraphExec)exec;
	if (kind == &end_kind && exec->graph->held) {
		((end_work_t *)work)->holds = sim_graph_new(false);
		if (((end_work_t *)work)->holds)
			sim_user_objects_share(((end_work_t *)work)->holds, exec->graph);
	}
	return sim_stream_append(stream, work);
}

static CUresult append_all(const sim_graph_t *graph, sim_stream_t *stream)
{
	CUresult result = CUDA_SUCCESS;

	for (size_t i = 0; i < graph->count && result == CUDA_SUCCESS; i++) {
		const sim_node_t *node = graph->order[i];
		sim_work_t *work;

		if (node->child)
			result = append_all(node->child, stream);
		if (!node->work || node->disabled)
			continue;
		work = sim_work_copy(node->work);
		result = work ? sim_stream_append(stream, work) : CUDA_ERROR_OUT_OF_MEMORY;
	}
	return result;
}

/* sim_lock held. */
static CUresult launch_on(sim_exec_t *exec, sim_stream_t *stream)
{
	bool automatic = exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
	CUresult result = CUDA_SUCCESS;

	if (stream->capture) {
		sim_graph_t *child = exec->graph->has_memory ? NULL
							     : sim_graph_clone(exec->graph, true);

		return child ? sim_capture_add(stream, CU_GRAPH_NODE_TYPE_GRAPH, NULL, child)
			     : CUDA_ERROR_NOT_SUPPORTED;
	}
	result = sim_executor_start();
	if (result == CUDA_SUCCESS && exec->graph->has_memory)
		result = sim_graph_memory_take(exec->graph, automatic);
	if (result == CUDA_SUCCESS && exec->last && exec->last->stream != stream)
		result = append_end(&begin_kind, exec, stream);
	if (result == CUDA_SUCCESS)
		result = append_all(exec->graph, stream);
	if (result == CUDA_SUCCESS)
		result = append_end(&end_kind, exec, stream);
	sim_order_go(NULL);
	return result;
}

static CUresult launch(CUgraphExec handle, CUstream stream_handle, bool per_thread, bool only_upload)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *stream;
	sim_exec_t *exec;

	sim_lock_take();
	stream = sim_stream_get(stream_handle, per_thread, &result);
	if (stream && !only_upload && !stream->capture) {
		/* May drop the lock: nothing is kept from before. */
		sim_stream_room(stream);
		stream = sim_stream_get(stream_handle, per_thread, &result);
	}
	exec = stream ? sim_exec_get(handle, &result) : NULL;
	if (exec && only_upload)
		result = exec->graph->has_memory ? sim_graph_memory_book(exec->graph)
						 : CUDA_SUCCESS;
	else if (exec)
		result = launch_on(exec, stream);
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphLaunch, CUgraphExec exec, CUstream stream)
{
	SIM_ENTER(cuGraphLaunch);
	return launch(exec, stream, false, false);
}

SIM_API(cuGraphLaunch_ptsz, CUgraphExec exec, CUstream stream)
{
	SIM_ENTER(cuGraphLaunch_ptsz);
	return launch(exec, stream, true, false);
}

/* There is nothing to upload but the memory that its nodes allocate. */
SIM_API(cuGraphUpload, CUgraphExec exec, CUstream stream)
{
	SIM_ENTER(cuGraphUpload);
	return launch(exec, stream, false, true);
}

SIM_API(cuGraphUpload_ptsz, CUgraphExec exec, CUstream stream)
{
	SIM_ENTER(cuGraphUpload_ptsz);
	return launch(exec, stream, true, true);
}
