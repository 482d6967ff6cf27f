/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream memory operations: a stream writes a value, or waits until memory has one.
 *
 * A batch is one piece of work; where a wait in it is not fulfilled it asks to be run
 * again, so that any number of streams may wait without a thread each.  As on a card,
 * managed memory is not for these.  The first ABI of these calls answers
 * CUDA_ERROR_NOT_SUPPORTED, as a real driver does unless it is told otherwise.
 */
#include <stdlib.h>
#include <string.h>

#include "graph_abi.h"
#include "memop.h"

#define MOST 256 /* operations of a batch, as documented */

static bool wide(const CUstreamBatchMemOpParams *op)
{
	return op->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
	       op->operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
}

static CUresult check(const sim_context_t *context, const CUstreamBatchMemOpParams *op)
{
	size_t bytes = wide(op) ? 8 : 4;
	bool wait = false;

	switch (op->operation) {
	case CU_STREAM_MEM_OP_WAIT_VALUE_32:
	case CU_STREAM_MEM_OP_WAIT_VALUE_64:
		wait = true;
		if (op->waitValue.flags & ~(3u | CU_STREAM_WAIT_VALUE_FLUSH))
			return CUDA_ERROR_INVALID_VALUE;
		if (op->waitValue.flags & CU_STREAM_WAIT_VALUE_FLUSH)
			return CUDA_ERROR_NOT_SUPPORTED; /* as its device attribute says */
		break;
	case CU_STREAM_MEM_OP_WRITE_VALUE_32:
	case CU_STREAM_MEM_OP_WRITE_VALUE_64:
		if (op->writeValue.flags & ~1u)
			return CUDA_ERROR_INVALID_VALUE;
		break;
	case CU_STREAM_MEM_OP_BARRIER:
		return op->memoryBarrier.flags & ~1u ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
		return CUDA_ERROR_NOT_SUPPORTED;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
	if (op->waitValue.address % bytes ||
	    sim_memory_at(op->waitValue.address) == SIM_MEMORY_MANAGED)
		return sim_fail(CUDA_ERROR_INVALID_VALUE,
				"stream memory operation: 0x%llx is not aligned, or managed memory",
				op->waitValue.address);
	return sim_check(context, op->waitValue.address, bytes, wait ? SIM_USE_READ : SIM_USE_WRITE,
			 SIM_ADDRESS_DEVICE, "stream memory operation");
}

CUresult sim_memop_check(const sim_context_t *context, const CUstreamBatchMemOpParams *ops,
			 unsigned int count)
{
	CUresult result = CUDA_SUCCESS;

	if (count > MOST || (count && !ops))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < count && result == CUDA_SUCCESS; i++)
		result = check(context, &ops[i]);
	return result;
}

static bool fulfilled(const CUstreamBatchMemOpParams *op)
{
	uint64_t want = op->waitValue.value64, have;

	if (wide(op)) {
		have = __atomic_load_n((uint64_t *)(uintptr_t)op->waitValue.address, __ATOMIC_ACQUIRE);
	} else {
		want = (uint32_t)want;
		have = __atomic_load_n((uint32_t *)(uintptr_t)op->waitValue.address, __ATOMIC_ACQUIRE);
	}
	switch (op->waitValue.flags & 3) {
	case CU_STREAM_WAIT_VALUE_GEQ: /* on a circle */
		return wide(op) ? (int64_t)(have - want) >= 0 : (int32_t)(have - want) >= 0;
	case CU_STREAM_WAIT_VALUE_EQ:
		return have == want;
	case CU_STREAM_WAIT_VALUE_AND:
		return (have & want) != 0;
	default:
		return (~(have | want) & (wide(op) ? UINT64_MAX : UINT32_MAX)) != 0;
	}
}

static void write_value(const CUstreamBatchMemOpParams *op)
{
	if (wide(op))
		__atomic_store_n((uint64_t *)(uintptr_t)op->writeValue.address,
				 op->writeValue.value64, __ATOMIC_RELEASE);
	else
		__atomic_store_n((uint32_t *)(uintptr_t)op->writeValue.address,
				 (uint32_t)op->writeValue.value64, __ATOMIC_RELEASE);
}

/* One operation; its memory is held by sim_lock meanwhile. */
static CUresult step(const sim_context_t *context, const CUstreamBatchMemOpParams *op)
{
	CUresult result;

	sim_lock_take();
	result = check(context, op);
	if (result != CUDA_SUCCESS)
		result = sim_fail(CUDA_ERROR_ILLEGAL_ADDRESS,
				  "a stream memory operation's memory was freed before it was done");
	else if (op->operation == CU_STREAM_MEM_OP_WAIT_VALUE_32 ||
		 op->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64)
		result = fulfilled(op) ? CUDA_SUCCESS : SIM_AGAIN;
	else if (op->operation == CU_STREAM_MEM_OP_BARRIER)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		write_value(op);
	sim_lock_drop();
	return result;
}

static CUresult run(sim_work_t *work, sim_cost_t *cost)
{
	sim_memop_work_t *batch = (sim_memop_work_t *)work;

	(void)cost;
	for (; batch->next < batch->count; batch->next++) {
		CUresult result;

		if (work->context->error || work->context->stop)
			return CUDA_SUCCESS;
		result = step(work->context, &batch->ops[batch->next]);
		if (result != CUDA_SUCCESS)
			return result;
	}
	return CUDA_SUCCESS;
}

static bool copied(sim_work_t *work)
{
	sim_memop_work_t *batch = (sim_memop_work_t *)work;
	size_t bytes = batch->count * sizeof(*batch->ops);
	CUstreamBatchMemOpParams *ops = malloc(bytes);

	batch->next = 0;
	batch->ops = ops ? memcpy(ops, batch->ops, bytes) : NULL;
	return ops;
}

static void drop(sim_work_t *work)
{
	free(((sim_memop_work_t *)work)->ops);
}

const sim_work_kind_t sim_memop_kind = {
	.name = "memory operations",
	.bytes = sizeof(sim_memop_work_t),
	.node_type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
	.apart = true,
	.run = run,
	.copied = copied,
	.drop = drop,
};

sim_work_t *sim_memop_new(sim_context_t *context, const CUstreamBatchMemOpParams *ops,
			  unsigned int count)
{
	CUstreamBatchMemOpParams *kept = malloc(count * sizeof(*ops));
	sim_work_t *work = kept ? sim_work_new(&sim_memop_kind, context) : NULL;

	if (!work) {
		free(kept);
		return NULL;
	}
	((sim_memop_work_t *)work)->ops = memcpy(kept, ops, count * sizeof(*ops));
	((sim_memop_work_t *)work)->count = count;
	return work;
}

static CUresult submit(CUstream handle, bool per_thread, const CUstreamBatchMemOpParams *ops,
		       unsigned int count, unsigned int flags)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *stream;

	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (stream)
		result = sim_memop_check(stream->object.context, ops, count);
	if (stream && result == CUDA_SUCCESS && count) {
		sim_work_t *work = sim_memop_new(stream->object.context, ops, count);

		result = work ? sim_stream_submit(stream, work) : CUDA_ERROR_OUT_OF_MEMORY;
	}
	sim_lock_drop();
	return result;
}

#define BATCH(name, per_thread)                                                            \
	SIM_API(name, CUstream stream, unsigned int count, CUstreamBatchMemOpParams *ops,  \
		unsigned int flags)                                                        \
	{                                                                                  \
		SIM_ENTER(name);                                                           \
		return submit(stream, per_thread, ops, count, flags);                      \
	}
BATCH(cuStreamBatchMemOp_v2, false)
BATCH(cuStreamBatchMemOp_v2_ptsz, true)

#define ONE(name, member, what, value_t, per_thread)                                       \
	SIM_API(name, CUstream stream, CUdeviceptr address, value_t value, unsigned int flags) \
	{                                                                                  \
		CUstreamBatchMemOpParams op = { 0 };                                       \
		SIM_ENTER(name);                                                           \
		op.operation = what;                                                       \
		op.member.address = address;                                               \
		op.member.value64 = value;                                                 \
		op.member.flags = flags;                                                   \
		return submit(stream, per_thread, &op, 1, 0);                              \
	}
#define ONE_OF(name, member, what, value_t)                      \
	ONE(name##_v2, member, what, value_t, false)             \
	ONE(name##_v2_ptsz, member, what, value_t, true)
ONE_OF(cuStreamWaitValue32, waitValue, CU_STREAM_MEM_OP_WAIT_VALUE_32, uint32_t)
ONE_OF(cuStreamWaitValue64, waitValue, CU_STREAM_MEM_OP_WAIT_VALUE_64, cuuint64_t)
ONE_OF(cuStreamWriteValue32, writeValue, CU_STREAM_MEM_OP_WRITE_VALUE_32, uint32_t)
ONE_OF(cuStreamWriteValue64, writeValue, CU_STREAM_MEM_OP_WRITE_VALUE_64, cuuint64_t)
