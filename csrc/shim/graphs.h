/* SPDX-License-Identifier: GPL-2.0-only */
/* What others tell hooks_graph.c, which knows the instantiated graphs that need memory. */
#ifndef EMUV_GRAPHS_H
#define EMUV_GRAPHS_H

#include "cuda_abi.h"

/* Graphs' memory was trimmed: the next launch of each takes it again. */
void emuv_graphs_trimmed(CUdevice device);
void emuv_graphs_fork_child(void);

#endif
