/* SPDX-License-Identifier: GPL-2.0-only */
/* Nodes and the parameters of their types: graph_nodes.c.  sim_lock held. */
#ifndef EMUV_SIM_GRAPH_NODES_H
#define EMUV_SIM_GRAPH_NODES_H

#include "graph.h"

/*
 * Work of a type, of the structure that CUgraphNodeParams has for it (of kernels, up to
 * its second version).  An alloc writes its address there.  May drop sim_lock.
 */
CUresult sim_node_work(CUgraphNodeType type, void *parameters, sim_work_t **work);
/* The same structure, filled from the node. */
CUresult sim_node_parameters(sim_node_t *node, void *parameters);
CUresult sim_node_get_attribute(sim_node_t *node, int number, CUstreamAttrValue *value);
CUresult sim_node_set_attribute(sim_node_t *node, int number, const CUstreamAttrValue *value);

#endif
