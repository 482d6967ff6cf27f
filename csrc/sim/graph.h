/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Graphs: nodes with pieces of work as templates, and what comes before what.
 *
 *   graph.c         graphs, nodes, dependencies; graph_edges.c: what is asked about them
 *   graph_nodes.c   what a node does: its work made of parameters, and read back;
 *                   graph_calls.c: the calls for each type
 *   graph_exec.c    instantiated graphs: launch, update
 *   graph_memory.c  memory that a graph allocates and frees
 *   graph_user.c    the program's objects that live as long as graphs do
 *   graph_dot.c     a graph as text
 *   capture.c       streams whose work becomes nodes
 *
 * sim_lock held for everything here.  An instantiated graph is a clone, so that nothing
 * that happens to the graph, or to the one or the other at the same time, matters.
 */
#ifndef EMUV_SIM_GRAPH_H
#define EMUV_SIM_GRAPH_H

#include "graph_abi.h"
#include "internal.h"
#include "work.h"

typedef struct sim_graph sim_graph_t;
typedef struct sim_node sim_node_t;
typedef struct sim_user_object sim_user_object_t;

/* One end of an edge. */
typedef struct {
	sim_node_t *node;
	CUgraphEdgeData data;
} sim_link_t;
typedef struct {
	sim_link_t *link;
	size_t count, room;
} sim_links_t;

struct sim_node {
	sim_object_t object;
	sim_graph_t *graph;
	CUgraphNodeType type;
	uint64_t id;       /* of all nodes there ever were */
	uint64_t origin;   /* id of the node that this is a clone of; 0: of none */
	size_t index;      /* in the graph, in the order they were made */
	sim_links_t before, after;
	sim_work_t *work;  /* NULL: an empty node, a child graph */
	sim_graph_t *child;
	void **pointers;   /* what kernelParams was last answered with */
	bool disabled;     /* of an instantiated graph */
	bool visited;
};

struct sim_graph {
	sim_object_t object;
	sim_node_t **nodes;
	size_t count, room;
	bool listed;        /* its nodes are handles that a program may have */
	bool owned;         /* a child graph, or what a stream is captured into */
	bool has_memory;    /* nodes that allocate or free */
	unsigned int execs; /* that were made of it and live */
	sim_node_t **order; /* of a clone that is launched: each after what it depends on */
	uint64_t id;
	struct sim_held {
		sim_user_object_t *object;
		unsigned int count;
		struct sim_held *next;
	} *held; /* user objects */
};

typedef struct {
	sim_object_t object;
	sim_graph_t *graph;   /* a clone */
	CUgraph made_of;
	uint64_t made_of_id;
	uint64_t flags;
	sim_work_t *last;     /* the end of its latest launch, while that is queued */
	uint64_t launches;
} sim_exec_t;

/* ---- graph.c ---- */
sim_graph_t *sim_graph_new(bool listed);
void sim_graph_delete(sim_graph_t *graph);
sim_graph_t *sim_graph_get(CUgraph handle, CUresult *why);
sim_node_t *sim_node_get(CUgraphNode handle, CUresult *why);
/*
 * A new node behind others.  Takes over `work` and `child`, whatever the result.
 * NULL: *why.  `links` may name a node twice.
 */
sim_node_t *sim_graph_add(sim_graph_t *graph, CUgraphNodeType type, sim_work_t *work,
			  sim_graph_t *child, const sim_link_t *links, size_t count, CUresult *why);
void sim_node_remove(sim_node_t *node);
/* False: no memory. */
bool sim_links_add(sim_links_t *links, sim_node_t *node, CUgraphEdgeData data);
sim_link_t *sim_links_find(const sim_links_t *links, const sim_node_t *node);
void sim_links_remove(sim_links_t *links, const sim_node_t *node);
bool sim_edge_add(sim_node_t *from, sim_node_t *to, CUgraphEdgeData data);
sim_graph_t *sim_graph_clone(const sim_graph_t *graph, bool listed);
/* The node that `node` became in a clone of its graph, or in a child of it; NULL: none. */
sim_node_t *sim_graph_find(const sim_graph_t *clone, const sim_node_t *node);
/* Fills graph->order.  CUDA_ERROR_INVALID_VALUE: there is a cycle. */
CUresult sim_graph_sort(sim_graph_t *graph);

/* ---- graph_memory.c ---- */
typedef struct sim_graph_memory sim_graph_memory_t;
/* Nodes of an alloc and of a free; `address` is what the alloc got. */
CUresult sim_graph_alloc_work(sim_context_t *context, CUdevice device, size_t bytes,
			      sim_work_t **work, CUdeviceptr *address);
CUresult sim_graph_free_work(sim_context_t *context, CUdeviceptr address, sim_work_t **work);
/* A launch begins: takes the memory that its nodes allocate.  `automatic`: what is left of
 * the launch before is freed. */
CUresult sim_graph_memory_take(const sim_graph_t *graph, bool automatic);
/* The same bytes, for a launch to come. */
CUresult sim_graph_memory_book(const sim_graph_t *graph);
/* cuMemFree and its kin of memory that a graph allocated; false: it is not allocated now. */
bool sim_graph_memory_release(sim_range_t *range);
/* The parameters of nodes. */
void sim_graph_alloc_parameters(const sim_work_t *work, CUDA_MEM_ALLOC_NODE_PARAMS_v1 *parameters);
CUdeviceptr sim_graph_free_address(const sim_work_t *work);
extern const sim_work_kind_t sim_graph_alloc_kind, sim_graph_free_kind;

/* ---- graph_user.c ---- */
void sim_user_objects_share(sim_graph_t *to, const sim_graph_t *from);
void sim_user_objects_drop(sim_graph_t *graph);
bool sim_user_objects_due(void);
/* Without sim_lock: calls the destructors of what nobody holds any more. */
void sim_user_objects_end(void);

/* ---- capture.c ---- */
extern unsigned int sim_captures; /* that go on */
/* Work that was submitted to a capturing stream becomes a node. */
CUresult sim_capture_add(sim_stream_t *stream, CUgraphNodeType type, sim_work_t *work,
			 sim_graph_t *child);

#endif
