/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Graphs: the driver's, under other names.  Nodes whose parameters look different in
 * the runtime are in graph_nodes.c.
 */
#include "cudart.h"

typedef const cudaGraphNode_t *nodes_t;

RT_FORWARD(cudaGraphCreate, cuGraphCreate, (cudaGraph_t *graph, unsigned int flags), (graph, flags))
RT_FORWARD(cudaGraphDestroy, cuGraphDestroy, (cudaGraph_t graph), (graph))
RT_FORWARD(cudaGraphClone, cuGraphClone, (cudaGraph_t *clone, cudaGraph_t graph), (clone, graph))
RT_FORWARD(cudaGraphDebugDotPrint, cuGraphDebugDotPrint,
	   (cudaGraph_t graph, const char *path, unsigned int flags), (graph, path, flags))
RT_FORWARD(cudaGraphInstantiate, cuGraphInstantiateWithFlags,
	   (cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags),
	   (exec, graph, flags))
RT_FORWARD(cudaGraphInstantiateWithFlags, cuGraphInstantiateWithFlags,
	   (cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags),
	   (exec, graph, flags))
RT_FORWARD(cudaGraphExecDestroy, cuGraphExecDestroy, (cudaGraphExec_t exec), (exec))
RT_FORWARD(cudaGraphExecGetFlags, cuGraphExecGetFlags,
	   (cudaGraphExec_t exec, unsigned long long *flags), (exec, flags))
RT_BOTH(cudaGraphLaunch, _ptsz, (cudaGraphExec_t exec, cudaStream_t stream),
	return rt_end(rt_driver.cuGraphLaunch(exec, RT_STREAM(stream)));)
RT_BOTH(cudaGraphUpload, _ptsz, (cudaGraphExec_t exec, cudaStream_t stream),
	return rt_end(rt_driver.cuGraphUpload(exec, RT_STREAM(stream)));)

/* ---- nodes and edges ---- */

RT_FORWARD(cudaGraphGetNodes, cuGraphGetNodes,
	   (cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count), (graph, nodes, count))
RT_FORWARD(cudaGraphGetRootNodes, cuGraphGetRootNodes,
	   (cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count), (graph, nodes, count))
RT_FORWARD(cudaGraphDestroyNode, cuGraphDestroyNode, (cudaGraphNode_t node), (node))
RT_FORWARD(cudaGraphNodeFindInClone, cuGraphNodeFindInClone,
	   (cudaGraphNode_t *node, cudaGraphNode_t original, cudaGraph_t clone),
	   (node, original, clone))
RT_FORWARD(cudaGraphNodeGetEnabled, cuGraphNodeGetEnabled,
	   (cudaGraphExec_t exec, cudaGraphNode_t node, unsigned int *enabled),
	   (exec, node, enabled))
RT_FORWARD(cudaGraphNodeSetEnabled, cuGraphNodeSetEnabled,
	   (cudaGraphExec_t exec, cudaGraphNode_t node, unsigned int enabled),
	   (exec, node, enabled))
/* Types of nodes have the driver's numbers. */
RT_FORWARD(cudaGraphNodeGetType, cuGraphNodeGetType, (cudaGraphNode_t node, int *type),
	   (node, type))

#define WITH_EDGES(add, remove, get, before, after)                                              \
	RT_FORWARD(add, cuGraphAddDependencies_v2,                                               \
		   (cudaGraph_t graph, nodes_t from, nodes_t to, const cudaGraphEdgeData *edges, \
		    size_t count),                                                               \
		   (graph, from, to, edges, count))                                              \
	RT_FORWARD(remove, cuGraphRemoveDependencies_v2,                                         \
		   (cudaGraph_t graph, nodes_t from, nodes_t to, const cudaGraphEdgeData *edges, \
		    size_t count),                                                               \
		   (graph, from, to, edges, count))                                              \
	RT_FORWARD(get, cuGraphGetEdges_v2,                                                      \
		   (cudaGraph_t graph, cudaGraphNode_t *from, cudaGraphNode_t *to,               \
		    cudaGraphEdgeData *edges, size_t *count),                                    \
		   (graph, from, to, edges, count))                                              \
	RT_FORWARD(before, cuGraphNodeGetDependencies_v2,                                        \
		   (cudaGraphNode_t node, cudaGraphNode_t *nodes, cudaGraphEdgeData *edges,      \
		    size_t *count),                                                              \
		   (node, nodes, edges, count))                                                  \
	RT_FORWARD(after, cuGraphNodeGetDependentNodes_v2,                                       \
		   (cudaGraphNode_t node, cudaGraphNode_t *nodes, cudaGraphEdgeData *edges,      \
		    size_t *count),                                                              \
		   (node, nodes, edges, count))
#if RT_MAJOR == 12
WITH_EDGES(cudaGraphAddDependencies_v2, cudaGraphRemoveDependencies_v2, cudaGraphGetEdges_v2,
	   cudaGraphNodeGetDependencies_v2, cudaGraphNodeGetDependentNodes_v2)
RT_FORWARD(cudaGraphAddDependencies, cuGraphAddDependencies,
	   (cudaGraph_t graph, nodes_t from, nodes_t to, size_t count), (graph, from, to, count))
RT_FORWARD(cudaGraphRemoveDependencies, cuGraphRemoveDependencies,
	   (cudaGraph_t graph, nodes_t from, nodes_t to, size_t count), (graph, from, to, count))
RT_FORWARD(cudaGraphGetEdges, cuGraphGetEdges,
	   (cudaGraph_t graph, cudaGraphNode_t *from, cudaGraphNode_t *to, size_t *count),
	   (graph, from, to, count))
RT_FORWARD(cudaGraphNodeGetDependencies, cuGraphNodeGetDependencies,
	   (cudaGraphNode_t node, cudaGraphNode_t *nodes, size_t *count), (node, nodes, count))
RT_FORWARD(cudaGraphNodeGetDependentNodes, cuGraphNodeGetDependentNodes,
	   (cudaGraphNode_t node, cudaGraphNode_t *nodes, size_t *count), (node, nodes, count))
#else
WITH_EDGES(cudaGraphAddDependencies, cudaGraphRemoveDependencies, cudaGraphGetEdges,
	   cudaGraphNodeGetDependencies, cudaGraphNodeGetDependentNodes)
#endif

/* ---- nodes whose parameters are handles ---- */

RT_FORWARD(cudaGraphAddEmptyNode, cuGraphAddEmptyNode,
	   (cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies, size_t count),
	   (node, graph, dependencies, count))
RT_FORWARD(cudaGraphAddChildGraphNode, cuGraphAddChildGraphNode,
	   (cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies, size_t count,
	    cudaGraph_t child),
	   (node, graph, dependencies, count, child))
RT_FORWARD(cudaGraphChildGraphNodeGetGraph, cuGraphChildGraphNodeGetGraph,
	   (cudaGraphNode_t node, cudaGraph_t *graph), (node, graph))
RT_FORWARD(cudaGraphExecChildGraphNodeSetParams, cuGraphExecChildGraphNodeSetParams,
	   (cudaGraphExec_t exec, cudaGraphNode_t node, cudaGraph_t child), (exec, node, child))
RT_FORWARD(cudaGraphAddEventRecordNode, cuGraphAddEventRecordNode,
	   (cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies, size_t count,
	    cudaEvent_t event),
	   (node, graph, dependencies, count, event))
RT_FORWARD(cudaGraphAddEventWaitNode, cuGraphAddEventWaitNode,
	   (cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies, size_t count,
	    cudaEvent_t event),
	   (node, graph, dependencies, count, event))
RT_FORWARD(cudaGraphEventRecordNodeGetEvent, cuGraphEventRecordNodeGetEvent,
	   (cudaGraphNode_t node, cudaEvent_t *event), (node, event))
RT_FORWARD(cudaGraphEventRecordNodeSetEvent, cuGraphEventRecordNodeSetEvent,
	   (cudaGraphNode_t node, cudaEvent_t event), (node, event))
RT_FORWARD(cudaGraphEventWaitNodeGetEvent, cuGraphEventWaitNodeGetEvent,
	   (cudaGraphNode_t node, cudaEvent_t *event), (node, event))
RT_FORWARD(cudaGraphEventWaitNodeSetEvent, cuGraphEventWaitNodeSetEvent,
	   (cudaGraphNode_t node, cudaEvent_t event), (node, event))
RT_FORWARD(cudaGraphExecEventRecordNodeSetEvent, cuGraphExecEventRecordNodeSetEvent,
	   (cudaGraphExec_t exec, cudaGraphNode_t node, cudaEvent_t event), (exec, node, event))
RT_FORWARD(cudaGraphExecEventWaitNodeSetEvent, cuGraphExecEventWaitNodeSetEvent,
	   (cudaGraphExec_t exec, cudaGraphNode_t node, cudaEvent_t event), (exec, node, event))

/* ---- objects of the program ---- */

RT_FORWARD(cudaUserObjectCreate, cuUserObjectCreate,
	   (cudaUserObject_t *object, void *pointer, cudaHostFn_t destroy, unsigned int references,
	    unsigned int flags),
	   (object, pointer, destroy, references, flags))
RT_FORWARD(cudaUserObjectRetain, cuUserObjectRetain, (cudaUserObject_t object, unsigned int count),
	   (object, count))
RT_FORWARD(cudaUserObjectRelease, cuUserObjectRelease,
	   (cudaUserObject_t object, unsigned int count), (object, count))
RT_FORWARD(cudaGraphRetainUserObject, cuGraphRetainUserObject,
	   (cudaGraph_t graph, cudaUserObject_t object, unsigned int count, unsigned int flags),
	   (graph, object, count, flags))
RT_FORWARD(cudaGraphReleaseUserObject, cuGraphReleaseUserObject,
	   (cudaGraph_t graph, cudaUserObject_t object, unsigned int count),
	   (graph, object, count))
