// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/hooks_memory.c csrc/shim/hooks_pool.c csrc/shim/hooks_graph.c csrc/shim/hooks_stream.c csrc/shim/hooks_array.c
// link: csrc/shim/hooks_vmm*.c csrc/shim/hooks_context.c csrc/shim/device_use.c
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/contexts.c
// link: csrc/shim/deferred.c csrc/shim/placement.c csrc/shim/pools.c csrc/shim/overhead.c csrc/shim/hooks_module.c csrc/shim/keep.c csrc/shim/residency.c
// link: csrc/shim/hooks_query.c csrc/shim/extents.c csrc/shim/host_memory.c csrc/shim/message.c csrc/shim/array_size.c
// link: csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
// link: tests/c/fake_driver.c tests/c/fake_memory.c tests/c/fake_vmm.c tests/c/fake_contexts.c
/*
 * The hooks over pools that grow by pieces and keep what is freed, as current drivers'
 * do: what a refused free and other threads' calls at the worst moment leave in the books.
 * And graphs with memory nodes.
 */
#include "message.h"
#include "pools.h"
#include "races.h"
#include "resolve.h"

enum { N_POOLS = 4, N_PIECES = 64 };
#define PIECE MIB(32)

typedef struct {
	bool there;
	uint64_t reserved, used;
} pool_t;
static struct {
	pool_t pools[N_POOLS]; /* the first is the device's default one */
	int current;
	bool behind; /* streams do not come to the frees in them */
	bool scattered; /* no hole is large enough: a pool grows, whatever it keeps */
	struct {
		int pool;
		uint64_t bytes; /* 0: not there */
	} pieces[N_PIECES];
} driver;

static CUmemoryPool handle_of(int pool)
{
	return (CUmemoryPool)(uintptr_t)(0x100 + pool);
}

static int index_of(CUmemoryPool pool)
{
	return (int)((uintptr_t)pool - 0x100);
}

static CUresult take(int pool, CUdeviceptr *address, uint64_t bytes)
{
	pool_t *p = &driver.pools[pool];
	int i = 0;

	while (driver.pieces[i].bytes)
		i++;
	CHECK(i < N_PIECES);
	driver.pieces[i].pool = pool;
	driver.pieces[i].bytes = bytes;
	p->used += bytes;
	while (driver.scattered || p->reserved < p->used) {
		p->reserved += PIECE;
		driver.scattered = false;
	}
	*address = 0x7000000000 + (uint64_t)i * MIB(64);
	return CUDA_SUCCESS;
}

static CUresult alloc_async(CUdeviceptr *address, size_t bytes, CUstream stream)
{
	(void)stream;
	return take(driver.current, address, bytes);
}

static CUresult free_async(CUdeviceptr address, CUstream stream)
{
	uint64_t i = (address - 0x7000000000) / MIB(64);

	(void)stream;
	if (i >= N_PIECES || !driver.pieces[i].bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (driver.behind)
		return CUDA_SUCCESS;
	driver.pools[driver.pieces[i].pool].used -= driver.pieces[i].bytes;
	driver.pieces[i].bytes = 0;
	return CUDA_SUCCESS;
}

static CUresult get_default(CUmemoryPool *pool, CUdevice device)
{
	*pool = device ? NULL : handle_of(0);
	return CUDA_SUCCESS;
}

static CUresult get_current(CUmemoryPool *pool, CUdevice device)
{
	(void)device;
	*pool = handle_of(driver.current);
	return CUDA_SUCCESS;
}

static CUresult set_current(CUdevice device, CUmemoryPool pool)
{
	(void)device;
	driver.current = index_of(pool);
	return CUDA_SUCCESS;
}

static CUresult pool_create(CUmemoryPool *pool, const CUmemPoolProps *props)
{
	int i = 1;

	(void)props;
	while (driver.pools[i].there)
		i++;
	CHECK(i < N_POOLS);
	driver.pools[i] = (pool_t){ .there = true };
	*pool = handle_of(i);
	return CUDA_SUCCESS;
}

static CUresult pool_destroy(CUmemoryPool pool)
{
	driver.pools[index_of(pool)].there = false;
	if (driver.current == index_of(pool))
		driver.current = 0;
	return CUDA_SUCCESS;
}

static CUresult get_attribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
	const pool_t *p = &driver.pools[index_of(pool)];

	CHECK(p->there);
	*(cuuint64_t *)value = attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT ||
					       attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH ?
				       p->reserved : p->used;
	return CUDA_SUCCESS;
}

static CUresult trim(CUmemoryPool pool, size_t keep)
{
	pool_t *p = &driver.pools[index_of(pool)];

	CHECK(p->there);
	while (p->reserved >= p->used + PIECE && p->reserved > keep)
		p->reserved -= PIECE;
	return CUDA_SUCCESS;
}

static CUcontext context;
static CUstream stream;

/* Books of so much, one context, one stream. */
static void begin(uint64_t vram, uint64_t extra)
{
	start((setup_t){ .vram = vram, .extra = extra, .policy = EMUV_POLICY_SPILL,
			 .card = MIB(4096) });
	emuv_pools_fork_child();
	memset(&driver, 0, sizeof driver);
	driver.pools[0].there = true;
	g_real.cuMemAllocAsync = alloc_async;
	g_real.cuMemFreeAsync = free_async;
	g_real.cuDeviceGetDefaultMemPool = get_default;
	g_real.cuDeviceGetMemPool = get_current;
	g_real.cuDeviceSetMemPool = set_current;
	g_real.cuMemPoolCreate = pool_create;
	g_real.cuMemPoolDestroy = pool_destroy;
	g_real.cuMemPoolGetAttribute = get_attribute;
	g_real.cuMemPoolTrimTo = trim;
	CHECK_EQ(hook_cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
	stream = new_stream();
}

static CUdeviceptr taken(uint64_t bytes)
{
	CUdeviceptr address;

	CHECK_EQ(hook_cuMemAllocAsync(&address, bytes, stream), CUDA_SUCCESS);
	return address;
}

static const emuv_device_counters_t *counters(void)
{
	return &emuv_account_segment()->device[0];
}

static CUmemoryPool made(void)
{
	static const CUmemPoolProps props = {
		.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
	};
	CUmemoryPool pool;

	CHECK_EQ(hook_cuMemPoolCreate(&pool, &props), CUDA_SUCCESS);
	return pool;
}

static uint64_t attribute(CUmemoryPool pool, CUmemPool_attribute which)
{
	cuuint64_t value = 0;

	CHECK_EQ(hook_cuMemPoolGetAttribute(pool, which, &value), CUDA_SUCCESS);
	return value;
}

/* ---- */

static CUdeviceptr others;

/* Another thread's first allocation, while this one's asks which pool is the device's. */
static CUresult met_by_another(CUmemoryPool *pool, CUdevice device)
{
	g_real.cuDeviceGetDefaultMemPool = get_default;
	others = taken(MIB(8));
	return get_default(pool, device);
}

static void a_pool_met_by_two_threads_is_one(void)
{
	CUdeviceptr ours;

	begin(MIB(256), 0);
	g_real.cuDeviceGetDefaultMemPool = met_by_another;
	ours = taken(MIB(8));
	CHECK_EQ(hook_cuMemFreeAsync(ours, stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeAsync(others, stream), CUDA_SUCCESS);
	emuv_pools_look(0);
	CHECK_EQ(driver.pools[0].reserved, PIECE);
	CHECK_EQ(counters()->kept_bytes, PIECE);
}

static CUresult (*real_query)(CUevent);
static CUmemoryPool going;

static CUresult destroyed_meanwhile(CUevent event)
{
	g_real.cuEventQuery = real_query;
	CHECK_EQ(hook_cuMemPoolDestroy(going), CUDA_SUCCESS);
	return real_query(event);
}

/*
 * Between the question which pool is the current one and the reservation another thread
 * destroys that pool, and makes a new one before the allocation is freed.
 */
static void a_current_pool_that_is_destroyed(uint64_t bytes)
{
	CUdeviceptr plain, waits, ours;
	CUmemoryPool next;

	begin(MIB(64), MIB(512));
	going = made();
	CHECK_EQ(hook_cuDeviceSetMemPool(0, going), CUDA_SUCCESS);
	fake_hold(true);
	CHECK_EQ(hook_cuMemAlloc_v2(&plain, MIB(62)), CUDA_SUCCESS);
	waits = spilled(MIB(128));
	CHECK_EQ(hook_cuMemFree_v2(plain), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeAsync(waits, stream), CUDA_SUCCESS);
	real_query = g_real.cuEventQuery;
	g_real.cuEventQuery = destroyed_meanwhile;
	ours = taken(bytes);
	CHECK(g_real.cuEventQuery == real_query);
	CHECK_EQ(counters()->device_bytes, bytes <= MIB(62) ? bytes : 0);
	next = made();
	fake_hold(false);
	CHECK_EQ(hook_cuMemFreeAsync(ours, stream), CUDA_SUCCESS);
	emuv_deferred_reap();
	emuv_pools_look(0);
	CHECK_EQ(attribute(next, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
	CHECK_EQ(counters()->device_bytes + counters()->managed_bytes, 0);
	/* The memory came from the default pool, if from any, which nobody has asked about. */
	CHECK_EQ(counters()->kept_bytes, 0);
	/* The new one is counted right. */
	CHECK_EQ(hook_cuDeviceSetMemPool(0, next), CUDA_SUCCESS);
	taken(MIB(8));
	emuv_pools_look(0);
	CHECK_EQ(counters()->device_bytes + counters()->kept_bytes,
		 driver.pools[index_of(next)].reserved);
}

static void a_current_pool_that_is_destroyed_small(void)
{
	a_current_pool_that_is_destroyed(MIB(8));
}

static void a_current_pool_that_is_destroyed_spills(void)
{
	a_current_pool_that_is_destroyed(MIB(96));
}

static CUresult no_free(CUdeviceptr address, CUstream in)
{
	(void)address, (void)in;
	return CUDA_ERROR_LAUNCH_FAILED;
}

/* Something is in every piece. */
static CUresult trims_nothing(CUmemoryPool pool, size_t keep)
{
	(void)pool, (void)keep;
	return CUDA_SUCCESS;
}

/*
 * The pool grew past the budget, and the driver does not take the allocation back: then it
 * is there, and whoever asked for it has it, charged.
 */
static void what_the_driver_does_not_take_back_is_charged(void)
{
	CUdeviceptr first, second;

	begin(MIB(48), MIB(512));
	first = taken(MIB(8));
	driver.scattered = true;
	g_real.cuMemPoolTrimTo = trims_nothing;
	g_real.cuMemFreeAsync = no_free;
	second = taken(MIB(8));
	g_real.cuMemFreeAsync = free_async;
	CHECK(!driver.scattered);
	CHECK_EQ(driver.pools[0].used, MIB(16));
	CHECK_EQ(counters()->device_bytes, MIB(16));
	CHECK_EQ(counters()->device_bytes + counters()->kept_bytes, driver.pools[0].reserved);
	CHECK_EQ(hook_cuMemFreeAsync(second, stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeAsync(first, stream), CUDA_SUCCESS);
	CHECK_EQ(counters()->live_allocations, 0);
	CHECK_EQ(driver.pools[0].used, 0);
}

/*
 * The pool grew past the budget, and the free of that waits for other work of the stream,
 * longer than an allocation does: the program's next call finds it gone.
 */
static void what_streams_come_to_later_is_had_back(void)
{
	size_t free_bytes, total;
	CUdeviceptr first, second;

	begin(MIB(48), MIB(512));
	first = taken(MIB(8));
	driver.scattered = driver.behind = true;
	g_real.cuMemPoolTrimTo = trims_nothing;
	second = taken(MIB(8));
	CHECK_EQ(counters()->managed_bytes, MIB(8));
	CHECK_EQ(driver.pools[0].reserved, MIB(64));
	CHECK_EQ(counters()->device_bytes + counters()->kept_bytes, MIB(64));
	/* Not yet. */
	CHECK_EQ(hook_cuMemGetInfo_v2(&free_bytes, &total), CUDA_SUCCESS);
	CHECK_EQ(driver.pools[0].reserved, MIB(64));
	driver.behind = false;
	g_real.cuMemPoolTrimTo = trim;
	CHECK_EQ(free_async(0x7000000000 + MIB(64), stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeAsync(second, stream), CUDA_SUCCESS);
	CHECK_EQ(driver.pools[0].reserved, MIB(32));
	CHECK_EQ(counters()->device_bytes + counters()->kept_bytes, MIB(32));
	CHECK_EQ(hook_cuMemFreeAsync(first, stream), CUDA_SUCCESS);
	emuv_deferred_reap();
}

/* Streams and contexts that nobody takes for others. */
static CUresult stream_id(CUstream of, unsigned long long *id)
{
	*id = (uintptr_t)of;
	return CUDA_SUCCESS;
}

static CUresult context_id(CUcontext of, unsigned long long *id)
{
	*id = (uintptr_t)of;
	return CUDA_SUCCESS;
}

/* What one pool's spilled range was is no other's, though both are managed memory alike. */
static void a_spill_is_reused_in_its_own_pool(void)
{
	CUdeviceptr first, second;
	CUmemoryPool other;

	begin(MIB(64), MIB(512));
	g_real.cuStreamGetId = stream_id;
	g_real.cuCtxGetId = context_id;
	other = made();
	first = taken(MIB(96));
	fake_hold(true);
	CHECK_EQ(hook_cuMemFreeAsync(first, stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuDeviceSetMemPool(0, other), CUDA_SUCCESS);
	second = taken(MIB(96));
	CHECK(second != first);
	CHECK_EQ(attribute(other, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), MIB(96));
	CHECK_EQ(hook_cuDeviceSetMemPool(0, handle_of(0)), CUDA_SUCCESS);
	CHECK_EQ(taken(MIB(96)), first);
	CHECK_EQ(hook_cuMemFreeAsync(first, stream), CUDA_SUCCESS);
	CHECK_EQ(hook_cuMemFreeAsync(second, stream), CUDA_SUCCESS);
	fake_hold(false);
	emuv_deferred_reap();
	CHECK_EQ(counters()->managed_bytes, 0);
}

/* ---- graphs ---- */

/* Nodes one after another, the last of no type; a graph is its first. */
typedef struct {
	CUgraphNodeType type;
	CUdevice device;
	uint64_t bytes;
	void *child;
} node_t;
#define ALLOC(device, bytes) { CU_GRAPH_NODE_TYPE_MEM_ALLOC, device, bytes, NULL }
#define LAST { .type = (CUgraphNodeType)-1 }

static CUresult graph_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
	node_t *first = (node_t *)graph;

	for (*count = 0; first[*count].type != (CUgraphNodeType)-1; ++*count)
		if (nodes)
			nodes[*count] = (CUgraphNode)&first[*count];
	return CUDA_SUCCESS;
}

static CUresult node_type(CUgraphNode node, CUgraphNodeType *type)
{
	*type = ((const node_t *)node)->type;
	return CUDA_SUCCESS;
}

static CUresult node_params(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS_v1 *params)
{
	params->poolProps.location.id = ((const node_t *)node)->device;
	params->bytesize = ((const node_t *)node)->bytes;
	return CUDA_SUCCESS;
}

static CUresult node_child(CUgraphNode node, CUgraph *graph)
{
	*graph = ((const node_t *)node)->child;
	return CUDA_SUCCESS;
}

/* Always the same handle: the one before went with its context. */
static CUresult instantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
	(void)graph, (void)flags;
	*exec = (CUgraphExec)0x1230;
	return CUDA_SUCCESS;
}

static CUresult launch(CUgraphExec exec, CUstream in)
{
	(void)exec, (void)in;
	return CUDA_SUCCESS;
}

/* Over a driver that does not say what it has reserved for graphs: the sum stands. */
static CUresult launched(node_t *graph)
{
	CUgraphExec exec;

	g_real.cuGraphGetNodes = graph_nodes;
	g_real.cuGraphNodeGetType = node_type;
	g_real.cuGraphMemAllocNodeGetParams = node_params;
	g_real.cuGraphChildGraphNodeGetGraph = node_child;
	g_real.cuGraphInstantiateWithFlags = instantiate;
	g_real.cuGraphLaunch = launch;
	CHECK_EQ(hook_cuGraphInstantiateWithFlags(&exec, (CUgraph)graph, 0), CUDA_SUCCESS);
	return hook_cuGraphLaunch(exec, stream);
}

static void a_graphs_handle_that_comes_again(void)
{
	node_t large[] = { ALLOC(0, MIB(100)), LAST }, none[] = { LAST };

	begin(MIB(64), 0);
	CHECK_EQ(launched(large), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(launched(none), CUDA_SUCCESS);
	CHECK_EQ(counters()->graph_bytes, 0);
}

static void a_childs_memory_is_the_graphs(void)
{
	node_t child[] = { ALLOC(0, MIB(40)), LAST };
	node_t graph[] = { ALLOC(0, MIB(20)), { CU_GRAPH_NODE_TYPE_GRAPH, 0, 0, child }, LAST };

	begin(MIB(64), 0);
	CHECK_EQ(launched(graph), CUDA_SUCCESS);
	CHECK_EQ(counters()->graph_bytes, MIB(60));
}

/* More devices than one graph has places for: what is beyond is the last one's. */
static void a_graph_of_five_devices(void)
{
	node_t graph[] = { ALLOC(0, MIB(1)), ALLOC(1, MIB(2)), ALLOC(2, MIB(3)), ALLOC(3, MIB(4)),
			   ALLOC(4, MIB(5)), LAST };

	begin(MIB(64), 0);
	CHECK_EQ(launched(graph), CUDA_SUCCESS);
	CHECK_EQ(emuv_account_graph(2), MIB(3));
	CHECK_EQ(emuv_account_graph(3), MIB(9));
}

int main(int n, char **names)
{
	static const race_t tests[] = {
		TEST(a_pool_met_by_two_threads_is_one),
		TEST(a_current_pool_that_is_destroyed_small),
		TEST(a_current_pool_that_is_destroyed_spills),
		TEST(what_the_driver_does_not_take_back_is_charged),
		TEST(what_streams_come_to_later_is_had_back),
		TEST(a_spill_is_reused_in_its_own_pool),
		TEST(a_graphs_handle_that_comes_again), TEST(a_childs_memory_is_the_graphs),
		TEST(a_graph_of_five_devices),
	};

	alarm(55);
	emuv_message_quiet(1);
	run_races(tests, sizeof tests / sizeof *tests, n, names);
	return 0;
}
