/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Graphs with memory nodes.  A node takes an address; memory is behind it when the
 * graph is first uploaded or launched, and the driver keeps it for graphs until it is
 * trimmed (cuDeviceGraphMemTrim), whoever ends.
 *
 * When a graph is instantiated, what its nodes allocate is added up.  Before a launch
 * that may need memory, all of that is reserved, which is more than the driver takes
 * where allocations or graphs share memory; after it the books have the driver's own
 * figure.  A graph that allocates nothing is not entered here, and its launch costs the
 * look into an empty bucket, mostly.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "deferred.h"
#include "graphs.h"
#include "hooks.h"
#include "pools.h"

/* Devices that one graph allocates on; more are counted as the last one's. */
#define PARTS 4

typedef struct {
	CUdevice device;
	uint64_t bytes;
	uint64_t backed; /* trims of the device when it was last launched, and one; 0: never */
} part_t;
typedef struct {
	part_t parts[PARTS];
	int count;
} needs_t;

typedef struct exec {
	struct exec *next;
	CUgraphExec handle;
	needs_t needs;
} exec_t;

#define BUCKETS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static exec_t *execs[BUCKETS]; /* heads: atomic, for who only asks whether there is any */
static uint64_t trims[EMUV_MAX_DEVICES]; /* atomic */

/* ---- what a graph needs ---- */

static void add_part(needs_t *needs, CUdevice device, uint64_t bytes)
{
	part_t *part = needs->parts;

	if (device < 0 || device >= EMUV_MAX_DEVICES)
		return;
	while (part < needs->parts + needs->count && part->device != device)
		part++;
	if (part == needs->parts + PARTS)
		part--;
	else if (part == needs->parts + needs->count)
		*part = (part_t){ .device = device }, needs->count++;
	if (__builtin_add_overflow(part->bytes, bytes, &part->bytes))
		part->bytes = EMUV_UNLIMITED;
}

#define DEEPEST 16

/* False: not all of the graph could be read. */
static bool add_up(CUgraph graph, needs_t *needs, int depth)
{
	CUgraphNode *nodes;
	size_t count = 0;
	bool read = true;

	if (!graph || depth == DEEPEST || g_real.cuGraphGetNodes(graph, NULL, &count))
		return false;
	nodes = count ? calloc(count, sizeof(CUgraphNode)) : NULL;
	if (!nodes || g_real.cuGraphGetNodes(graph, nodes, &count)) {
		free(nodes);
		return !count;
	}
	for (size_t i = 0; i < count; i++) {
		CUDA_MEM_ALLOC_NODE_PARAMS_v1 params;
		CUgraphNodeType type;
		CUgraph child;

		if (g_real.cuGraphNodeGetType(nodes[i], &type)) {
			read = false;
		} else if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
			if (g_real.cuGraphMemAllocNodeGetParams(nodes[i], &params))
				read = false;
			else
				add_part(needs, params.poolProps.location.id, params.bytesize);
		} else if (type == CU_GRAPH_NODE_TYPE_GRAPH) {
			read &= !g_real.cuGraphChildGraphNodeGetGraph(nodes[i], &child) &&
				add_up(child, needs, depth + 1);
		}
	}
	free(nodes);
	return read;
}

/* ---- the table ---- */

static exec_t **bucket(CUgraphExec handle)
{
	return &execs[(uintptr_t)handle * UINT64_C(0x9e3779b97f4a7c15) >> 58];
}

/* Without the lock: certainly not, or perhaps. */
static inline bool perhaps_known(CUgraphExec handle)
{
	return __builtin_expect(__atomic_load_n(bucket(handle), __ATOMIC_ACQUIRE) != NULL, 0);
}

static exec_t **find(CUgraphExec handle)
{
	exec_t **at = bucket(handle);

	while (*at && (*at)->handle != handle)
		at = &(*at)->next;
	return at;
}

static void forget(CUgraphExec handle)
{
	exec_t *gone, **at;

	if (!perhaps_known(handle))
		return;
	pthread_mutex_lock(&lock);
	at = find(handle);
	gone = *at;
	if (gone)
		__atomic_store_n(at, gone->next, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	free(gone);
}

/* An instantiated graph that needs memory. */
static void enter(CUgraphExec handle, const needs_t *needs)
{
	exec_t *exec;

	/* The handle may have been that of one which went with its context. */
	forget(handle);
	if (!needs->count)
		return;
	exec = calloc(1, sizeof *exec);
	if (!exec) {
		emuv_account_uncounted(needs->parts[0].device);
		return;
	}
	exec->handle = handle;
	exec->needs = *needs;
	pthread_mutex_lock(&lock);
	exec->next = *bucket(handle);
	__atomic_store_n(bucket(handle), exec, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
}

static bool look_up(CUgraphExec handle, needs_t *needs)
{
	const exec_t *exec;

	pthread_mutex_lock(&lock);
	exec = *find(handle);
	if (exec)
		*needs = exec->needs;
	pthread_mutex_unlock(&lock);
	return exec != NULL;
}

static void backed(CUgraphExec handle, const needs_t *needs)
{
	exec_t *exec;

	pthread_mutex_lock(&lock);
	exec = *find(handle);
	for (int i = 0; exec && i < exec->needs.count; i++)
		exec->needs.parts[i].backed = needs->parts[i].backed;
	pthread_mutex_unlock(&lock);
}

void emuv_graphs_trimmed(CUdevice device)
{
	__atomic_fetch_add(&trims[device], 1, __ATOMIC_ACQ_REL);
}

void emuv_graphs_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	memcpy(&lock, &fresh, sizeof lock);
	/* The parent's are leaked: the allocator may be in any state here. */
	memset(execs, 0, sizeof execs);
}

/* ---- launches ---- */

static void correct(const part_t *part, uint64_t ended)
{
	uint32_t answers = emuv_account_graph_answers(part->device);
	uint64_t reserved = 0;
	bool known = emuv_pools_graph_reserved(part->device, &reserved);

	/* A driver that does not say: the sum stands. */
	emuv_account_graph_seen(part->device, ended, answers, known ? &reserved : NULL);
}

static uint64_t trims_of(CUdevice device)
{
	return __atomic_load_n(&trims[device], __ATOMIC_ACQUIRE) + 1;
}

/*
 * Memory of an earlier launch, which a trim has left where it is because that launch goes
 * on: nobody tells, but as much is still there after one more trim.
 */
static bool untrimmed(const part_t *part)
{
	uint64_t reserved;

	return part->backed && emuv_pools_graph_reserved(part->device, &reserved) &&
	       reserved >= part->bytes;
}

/*
 * Reserves what a launch may take, `held` of it by device.  Memory that is there since
 * an earlier launch is in the books already.  False: refused, and nothing is reserved.
 */
static bool reserve(needs_t *needs, uint64_t held[PARTS])
{
	for (int i = 0; i < needs->count; i++) {
		part_t *part = &needs->parts[i];
		bool there = part->backed == trims_of(part->device);
		bool room = there || emuv_pools_make_graph_room(part->device, part->bytes);

		held[i] = !there && room ? part->bytes : 0;
		room = room || untrimmed(part);
		/* Making room may have trimmed. */
		part->backed = trims_of(part->device);
		if (room)
			continue;
		emuv_account_denied(part->device, part->bytes);
		while (i--)
			correct(&needs->parts[i], held[i]);
		return false;
	}
	return true;
}

static CUresult with_memory(CUgraphExec handle, needs_t *needs, CUstream stream,
			    CUresult (*real)(CUgraphExec, CUstream))
{
	uint64_t held[PARTS];
	CUresult result;

	emuv_deferred_reap();
	if (!reserve(needs, held))
		return CUDA_ERROR_OUT_OF_MEMORY;
	result = real(handle, stream);
	for (int i = 0; i < needs->count; i++)
		correct(&needs->parts[i], held[i]);
	if (!result)
		backed(handle, needs);
	return result;
}

static inline CUresult launch(enum emuv_function function, CUgraphExec handle, CUstream stream,
			      CUresult (*real)(CUgraphExec, CUstream))
{
	needs_t needs;

	if (!perhaps_known(handle) || !look_up(handle, &needs))
		return real(handle, stream);
	emuv_account_call(needs.parts[0].device, (int)function);
	return with_memory(handle, &needs, stream, real);
}

CUresult hook_cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
	return launch(EMUV_FN_cuGraphLaunch, exec, stream, g_real.cuGraphLaunch);
}

CUresult hook_cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
	return launch(EMUV_FN_cuGraphLaunch_ptsz, exec, stream, g_real.cuGraphLaunch_ptsz);
}

CUresult hook_cuGraphUpload(CUgraphExec exec, CUstream stream)
{
	return launch(EMUV_FN_cuGraphUpload, exec, stream, g_real.cuGraphUpload);
}

CUresult hook_cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream)
{
	return launch(EMUV_FN_cuGraphUpload_ptsz, exec, stream, g_real.cuGraphUpload_ptsz);
}

/* ---- instantiating and destroying ---- */

/* `call` is the driver's; an `upload` takes the memory at once. */
#define INSTANTIATE(call, upload)                                                       \
	do {                                                                            \
		needs_t needs = { .count = 0 };                                         \
		uint64_t held[PARTS] = { 0 };                                           \
		bool read = add_up(graph, &needs, 0);                                   \
		CUresult result;                                                        \
		if ((upload) && !reserve(&needs, held))                                 \
			return CUDA_ERROR_OUT_OF_MEMORY;                                \
		result = call;                                                          \
		for (int i = 0; (upload) && i < needs.count; i++)                       \
			correct(&needs.parts[i], held[i]);                              \
		if (!result && exec)                                                    \
			enter(*exec, &needs);                                           \
		if (!result && !read)                                                   \
			emuv_account_uncounted(0);                                      \
		return result;                                                          \
	} while (0)

CUresult hook_cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node,
				 char *log, size_t bytes)
{
	INSTANTIATE(g_real.cuGraphInstantiate(exec, graph, error_node, log, bytes), false);
}

CUresult hook_cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node,
				    char *log, size_t bytes)
{
	INSTANTIATE(g_real.cuGraphInstantiate_v2(exec, graph, error_node, log, bytes), false);
}

CUresult hook_cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph,
					  unsigned long long flags)
{
	INSTANTIATE(g_real.cuGraphInstantiateWithFlags(exec, graph, flags), false);
}

static bool uploads(const CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
	return params && params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
}

CUresult hook_cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph,
					   CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
	INSTANTIATE(g_real.cuGraphInstantiateWithParams(exec, graph, params), uploads(params));
}

CUresult hook_cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph,
						CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
	INSTANTIATE(g_real.cuGraphInstantiateWithParams_ptsz(exec, graph, params),
		    uploads(params));
}

CUresult hook_cuGraphExecDestroy(CUgraphExec exec)
{
	needs_t needs = { .count = 0 };
	bool known = perhaps_known(exec) && look_up(exec, &needs);
	CUresult result;

	if (known)
		/* Its handle may be another's the moment it is gone. */
		forget(exec);
	result = g_real.cuGraphExecDestroy(exec);
	if (known && result)
		enter(exec, &needs);
	for (int i = 0; i < needs.count; i++)
		correct(&needs.parts[i], 0);
	return result;
}

CUresult hook_cuDeviceGraphMemTrim(CUdevice device)
{
	CUresult result = g_real.cuDeviceGraphMemTrim(device);

	if (device >= 0 && device < EMUV_MAX_DEVICES) {
		emuv_account_call(device, EMUV_FN_cuDeviceGraphMemTrim);
		emuv_graphs_trimmed(device);
		emuv_pools_look(device);
	}
	return result;
}
