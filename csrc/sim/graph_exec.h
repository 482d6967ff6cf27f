/* SPDX-License-Identifier: GPL-2.0-only */
/* Instantiated graphs: graph_exec.c and graph_update.c. */
#ifndef EMUV_SIM_GRAPH_EXEC_H
#define EMUV_SIM_GRAPH_EXEC_H

#include "graph.h"

/* sim_lock held. */
sim_exec_t *sim_exec_get(CUgraphExec handle, CUresult *why);
/* What a node of the graph that it was made of is in it. */
sim_node_t *sim_exec_node(CUgraphExec exec, const sim_node_t *node, CUresult *why);
/* Takes sim_lock. */
CUresult sim_exec_set_child(CUgraphExec exec, CUgraphNode node, CUgraph child);

#endif
