/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory that graphs allocate and free.
 *
 * The address of an allocation is fixed when its node is made; bytes of the card are
 * taken when a graph with it is first launched or uploaded, and kept for the next launch.
 * cuDeviceGraphMemTrim gives back what no launch that is queued uses and the program has
 * not allocated.  What a graph held when it and its clones went stays reserved for other
 * graphs until then, too (`spare`); no two graphs that live share any.
 *
 * Whether the memory is `allocated` is the program's view, in the order of its calls:
 * launching sets it, a free (a node of the same or of another graph, cuMemFreeAsync,
 * cuMemFree) ends it.  The nodes themselves have nothing to do when they run.  Memory that
 * is still allocated when its graph goes lives on until it is freed.
 *
 * `used` is what is associated with graphs (booked for one that lives, or allocated),
 * `reserved` that and what is spare.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "graph.h"
#include "memory.h"

struct sim_graph_memory {
	struct sim_graph_memory *next; /* of all */
	unsigned int references; /* pieces of work */
	unsigned int queued;     /* of them: in streams, not done yet */
	uint64_t address, id;
	CUdevice device;
	size_t bytes;
	bool allocated;
	bool booked; /* takes bytes of the card */
};
typedef struct {
	sim_work_t work;
	sim_graph_memory_t *memory;
} memory_work_t;

static sim_graph_memory_t *all;
static struct {
	uint64_t used, used_high, reserved, reserved_high, spare;
} accounts[SIM_MAX_DEVICES];

/* Takes bytes for it, those first that are spare.  False: the card has none. */
static bool book(sim_graph_memory_t *memory)
{
	uint64_t spare = accounts[memory->device].spare;
	uint64_t reuse = spare < memory->bytes ? spare : memory->bytes;

	if (reuse < memory->bytes && !sim_card_take(memory->device, memory->bytes - reuse))
		return false;
	memory->booked = true;
	accounts[memory->device].spare -= reuse;
	accounts[memory->device].reserved += memory->bytes - reuse;
	accounts[memory->device].used += memory->bytes;
	if (accounts[memory->device].reserved > accounts[memory->device].reserved_high)
		accounts[memory->device].reserved_high = accounts[memory->device].reserved;
	if (accounts[memory->device].used > accounts[memory->device].used_high)
		accounts[memory->device].used_high = accounts[memory->device].used;
	return true;
}

/* Its bytes are spare from now on. */
static void unbook(sim_graph_memory_t *memory)
{
	memory->booked = false;
	accounts[memory->device].spare += memory->bytes;
	accounts[memory->device].used -= memory->bytes;
}

static void give_spare(CUdevice device)
{
	sim_card_give(device, accounts[device].spare);
	accounts[device].reserved -= accounts[device].spare;
	accounts[device].spare = 0;
}

static sim_range_t *range_of(const sim_graph_memory_t *memory)
{
	sim_range_t *range = sim_range_find((uintptr_t)memory->address);

	return range && range->id == memory->id ? range : NULL;
}

/* No piece knows it any more, and it is not allocated. */
static void end(sim_graph_memory_t *memory)
{
	sim_range_t *range = range_of(memory);

	for (sim_graph_memory_t **at = &all; *at; at = &(*at)->next)
		if (*at == memory) {
			*at = memory->next;
			break;
		}
	if (range) {
		range->graph = NULL;
		range->settled = true; /* sim_memory_free gives nothing back to the card */
		sim_leftover_drop(sim_memory_free(range));
	}
	if (memory->booked)
		unbook(memory);
	free(memory);
}

static bool copied(sim_work_t *work)
{
	((memory_work_t *)work)->memory->references++;
	return true;
}

static void drop(sim_work_t *work)
{
	sim_graph_memory_t *memory = ((memory_work_t *)work)->memory;

	if (--memory->references == 0 && !memory->allocated)
		end(memory);
}

static void enter(sim_work_t *work)
{
	((memory_work_t *)work)->memory->queued++;
}

static void done(sim_work_t *work)
{
	((memory_work_t *)work)->memory->queued--;
}

const sim_work_kind_t sim_graph_alloc_kind = {
	.name = "alloc",
	.bytes = sizeof(memory_work_t),
	.node_type = CU_GRAPH_NODE_TYPE_MEM_ALLOC,
	.copied = copied,
	.drop = drop,
	.enter = enter,
	.done = done,
};
const sim_work_kind_t sim_graph_free_kind = {
	.name = "free",
	.bytes = sizeof(memory_work_t),
	.node_type = CU_GRAPH_NODE_TYPE_MEM_FREE,
	.copied = copied,
	.drop = drop,
	.enter = enter,
	.done = done,
};

static CUresult work_of(const sim_work_kind_t *kind, sim_context_t *context,
			sim_graph_memory_t *memory, sim_work_t **work)
{
	*work = sim_work_new(kind, context);
	if (!*work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	((memory_work_t *)*work)->memory = memory;
	memory->references++;
	return CUDA_SUCCESS;
}

CUresult sim_graph_alloc_work(sim_context_t *context, CUdevice device, size_t bytes,
			      sim_work_t **work, CUdeviceptr *address)
{
	sim_graph_memory_t *memory = calloc(1, sizeof(*memory));
	sim_range_t *range = NULL;
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;

	if (memory)
		result = sim_memory_new(SIM_RANGE_DEVICE, bytes, device, &range);
	if (result == CUDA_SUCCESS) {
		result = work_of(&sim_graph_alloc_kind, context, memory, work);
		if (result != CUDA_SUCCESS)
			sim_leftover_drop(sim_memory_delete(range));
	}
	if (result != CUDA_SUCCESS) {
		free(memory);
		return result;
	}
	range->graph = memory;
	memory->address = *address = range->start;
	memory->id = range->id;
	memory->device = device;
	memory->bytes = sim_round_up(bytes, SIM_GRANULE_BYTES);
	memory->next = all;
	all = memory;
	return CUDA_SUCCESS;
}

CUresult sim_graph_free_work(sim_context_t *context, CUdeviceptr address, sim_work_t **work)
{
	sim_range_t *range = sim_range_find((uintptr_t)address);

	if (!range || range->start != address || !range->graph)
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"0x%llx is not what a graph's node allocates", address);
	return work_of(&sim_graph_free_kind, context, range->graph, work);
}

void sim_graph_alloc_parameters(const sim_work_t *work, CUDA_MEM_ALLOC_NODE_PARAMS_v1 *parameters)
{
	const sim_graph_memory_t *memory = ((const memory_work_t *)work)->memory;

	memset(parameters, 0, sizeof(*parameters));
	parameters->poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
	parameters->poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	parameters->poolProps.location.id = memory->device;
	parameters->bytesize = range_of(memory) ? range_of(memory)->bytes : memory->bytes;
	parameters->dptr = memory->address;
}

CUdeviceptr sim_graph_free_address(const sim_work_t *work)
{
	return ((const memory_work_t *)work)->memory->address;
}

/* ---- launches ---- */

static sim_graph_memory_t *memory_of(const sim_node_t *node, CUgraphNodeType type)
{
	return node->type == type ? ((memory_work_t *)node->work)->memory : NULL;
}

static CUresult check(const sim_graph_t *graph)
{
	CUresult result = CUDA_SUCCESS;

	for (size_t i = 0; i < graph->count && result == CUDA_SUCCESS; i++) {
		const sim_node_t *node = graph->nodes[i];
		sim_graph_memory_t *memory = memory_of(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC);

		if (node->child)
			result = check(node->child);
		else if (memory && memory->allocated)
			result = sim_fail(CUDA_ERROR_INVALID_VALUE,
					  "cuGraphLaunch: what the last launch allocated was not "
					  "freed (0x%llx)", (unsigned long long)memory->address);
	}
	return result;
}

CUresult sim_graph_memory_book(const sim_graph_t *graph)
{
	CUresult result = CUDA_SUCCESS;

	for (size_t i = 0; i < graph->count && result == CUDA_SUCCESS; i++) {
		const sim_node_t *node = graph->nodes[i];
		sim_graph_memory_t *memory = memory_of(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC);

		if (node->child)
			result = sim_graph_memory_book(node->child);
		else if (memory && !memory->booked && !book(memory))
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	return result;
}

static void settle(const sim_graph_t *graph)
{
	for (size_t i = 0; i < graph->count; i++) {
		sim_node_t *node = graph->nodes[i];

		if (node->child)
			settle(node->child);
		if (memory_of(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC))
			memory_of(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC)->allocated = true;
	}
	for (size_t i = 0; i < graph->count; i++)
		if (memory_of(graph->nodes[i], CU_GRAPH_NODE_TYPE_MEM_FREE))
			memory_of(graph->nodes[i], CU_GRAPH_NODE_TYPE_MEM_FREE)->allocated = false;
}

CUresult sim_graph_memory_take(const sim_graph_t *graph, bool automatic)
{
	CUresult result = automatic ? CUDA_SUCCESS : check(graph);

	/* What was booked stays with the graph even where the rest fails. */
	if (result == CUDA_SUCCESS)
		result = sim_graph_memory_book(graph);
	if (result == CUDA_SUCCESS)
		settle(graph);
	return result;
}

bool sim_graph_memory_release(sim_range_t *range)
{
	if (!range->graph->allocated)
		return false;
	range->graph->allocated = false;
	if (range->graph->references == 0)
		end(range->graph);
	return true;
}

/* ---- entry points ---- */

SIM_API(cuDeviceGraphMemTrim, CUdevice device)
{
	SIM_ENTER(cuDeviceGraphMemTrim);
	SIM_DEVICE_CHECK(cuDeviceGraphMemTrim, device);
	sim_lock_take();
	for (sim_graph_memory_t *memory = all; memory; memory = memory->next) {
		sim_range_t *range = range_of(memory);

		if (memory->device != device || !memory->booked || memory->allocated ||
		    memory->queued)
			continue;
		unbook(memory);
		if (range && !range->space)
			madvise((void *)range->start, range->bytes, MADV_DONTNEED);
	}
	give_spare(device);
	sim_lock_drop();
	return CUDA_SUCCESS;
}

static uint64_t *account(CUdevice device, int attribute)
{
	switch (attribute) {
	case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT: return &accounts[device].used;
	case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH: return &accounts[device].used_high;
	case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT: return &accounts[device].reserved;
	case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH: return &accounts[device].reserved_high;
	default: return NULL;
	}
}

SIM_API(cuDeviceGetGraphMemAttribute, CUdevice device, CUgraphMem_attribute attribute, void *value)
{
	SIM_ENTER(cuDeviceGetGraphMemAttribute);
	SIM_DEVICE_CHECK(cuDeviceGetGraphMemAttribute, device);
	if (!value || !account(device, attribute))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	memcpy(value, account(device, attribute), sizeof(uint64_t));
	sim_lock_drop();
	return CUDA_SUCCESS;
}

/* High-water marks, which can only be reset. */
SIM_API(cuDeviceSetGraphMemAttribute, CUdevice device, CUgraphMem_attribute attribute, void *value)
{
	uint64_t zero = 0;

	SIM_ENTER(cuDeviceSetGraphMemAttribute);
	SIM_DEVICE_CHECK(cuDeviceSetGraphMemAttribute, device);
	if (!value || memcmp(value, &zero, sizeof(zero)) != 0)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	if (attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
		accounts[device].used_high = accounts[device].used;
	else if (attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
		accounts[device].reserved_high = accounts[device].reserved;
	sim_lock_drop();
	return attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH ||
			       attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH
		       ? CUDA_SUCCESS
		       : CUDA_ERROR_INVALID_VALUE;
}
