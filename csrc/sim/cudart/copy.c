/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies in one dimension, to and from symbols, between devices, and sets.
 *
 * A kind chooses the driver's function of that direction, which checks the addresses;
 * cudaMemcpyDefault lets the addresses decide.  From host to host nothing touches the
 * device: what was submitted before comes first, as for every other direction.
 */
#include <string.h>

#include "cudart.h"

static cudaError_t copy_sync(void *to, const void *from, size_t bytes, int kind)
{
	switch (kind) {
	case cudaMemcpyHostToHost:
		return rt_driver.cuStreamSynchronize(CU_STREAM_LEGACY);
	case cudaMemcpyHostToDevice:
		return rt_driver.cuMemcpyHtoD_v2(rt_address(to), from, bytes);
	case cudaMemcpyDeviceToHost:
		return rt_driver.cuMemcpyDtoH_v2(to, rt_address(from), bytes);
	case cudaMemcpyDeviceToDevice:
		return rt_driver.cuMemcpyDtoD_v2(rt_address(to), rt_address(from), bytes);
	case cudaMemcpyDefault:
		return rt_driver.cuMemcpy(rt_address(to), rt_address(from), bytes);
	}
	return RT_ERROR_INVALID_DIRECTION;
}

static cudaError_t copy_async(void *to, const void *from, size_t bytes, int kind, CUstream stream)
{
	switch (kind) {
	case cudaMemcpyHostToDevice:
		return rt_driver.cuMemcpyHtoDAsync_v2(rt_address(to), from, bytes, stream);
	case cudaMemcpyDeviceToHost:
		return rt_driver.cuMemcpyDtoHAsync_v2(to, rt_address(from), bytes, stream);
	case cudaMemcpyDeviceToDevice:
		return rt_driver.cuMemcpyDtoDAsync_v2(rt_address(to), rt_address(from), bytes,
						      stream);
	case cudaMemcpyHostToHost:
	case cudaMemcpyDefault:
		return rt_driver.cuMemcpyAsync(rt_address(to), rt_address(from), bytes, stream);
	}
	return RT_ERROR_INVALID_DIRECTION;
}

static cudaError_t copy(void *to, const void *from, size_t bytes, int kind, bool per_thread)
{
	cudaError_t result;

	if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
		return RT_ERROR_INVALID_DIRECTION;
	if (!bytes)
		return 0;
	if (!to || !from)
		return CUDA_ERROR_INVALID_VALUE;
	if (!per_thread || kind == cudaMemcpyHostToHost) {
		result = copy_sync(to, from, bytes, kind);
		if (result == 0 && kind == cudaMemcpyHostToHost)
			memmove(to, from, bytes);
		return result;
	}
	result = copy_async(to, from, bytes, kind, CU_STREAM_PER_THREAD);
	return result == 0 ? (cudaError_t)rt_driver.cuStreamSynchronize(CU_STREAM_PER_THREAD)
			   : result;
}

RT_BOTH(cudaMemcpy, _ptds, (void *to, const void *from, size_t bytes, int kind),
	return rt_end(copy(to, from, bytes, kind, per_thread));)

static cudaError_t copy_on(void *to, const void *from, size_t bytes, int kind, CUstream stream)
{
	if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
		return RT_ERROR_INVALID_DIRECTION;
	if (bytes && (!to || !from))
		return CUDA_ERROR_INVALID_VALUE;
	return bytes ? copy_async(to, from, bytes, kind, stream) : 0;
}

RT_BOTH(cudaMemcpyAsync, _ptsz,
	(void *to, const void *from, size_t bytes, int kind, cudaStream_t stream),
	return rt_end(copy_on(to, from, bytes, kind, RT_STREAM(stream)));)

/* ---- symbols ---- */

/* Where `bytes` at `offset` of the symbol lie. */
static cudaError_t inside(const void *symbol, size_t bytes, size_t offset, void **address)
{
	CUdeviceptr start;
	size_t whole;
	cudaError_t result = rt_symbol(symbol, &start, &whole);

	if (result != 0)
		return result;
	if (offset > whole || bytes > whole - offset)
		return CUDA_ERROR_INVALID_VALUE;
	*address = (void *)(uintptr_t)(start + offset);
	return 0;
}

/* The symbol is on the device: a kind that says otherwise makes no sense. */
static cudaError_t to_symbol(const void *symbol, const void *from, size_t bytes, size_t offset,
			     int kind, bool per_thread, bool async, CUstream stream)
{
	void *to = NULL;
	cudaError_t result = inside(symbol, bytes, offset, &to);

	if (result != 0)
		return result;
	if (kind == cudaMemcpyHostToHost || kind == cudaMemcpyDeviceToHost)
		return RT_ERROR_INVALID_DIRECTION;
	return async ? copy_on(to, from, bytes, kind, stream)
		     : copy(to, from, bytes, kind, per_thread);
}

static cudaError_t from_symbol(void *to, const void *symbol, size_t bytes, size_t offset, int kind,
			       bool per_thread, bool async, CUstream stream)
{
	void *from = NULL;
	cudaError_t result = inside(symbol, bytes, offset, &from);

	if (result != 0)
		return result;
	if (kind == cudaMemcpyHostToHost || kind == cudaMemcpyHostToDevice)
		return RT_ERROR_INVALID_DIRECTION;
	return async ? copy_on(to, from, bytes, kind, stream)
		     : copy(to, from, bytes, kind, per_thread);
}

RT_BOTH(cudaMemcpyToSymbol, _ptds,
	(const void *symbol, const void *from, size_t bytes, size_t offset, int kind),
	return rt_end(to_symbol(symbol, from, bytes, offset, kind, per_thread, false, NULL));)
RT_BOTH(cudaMemcpyFromSymbol, _ptds,
	(void *to, const void *symbol, size_t bytes, size_t offset, int kind),
	return rt_end(from_symbol(to, symbol, bytes, offset, kind, per_thread, false, NULL));)
RT_BOTH(cudaMemcpyToSymbolAsync, _ptsz,
	(const void *symbol, const void *from, size_t bytes, size_t offset, int kind,
	 cudaStream_t stream),
	return rt_end(to_symbol(symbol, from, bytes, offset, kind, per_thread, true,
				RT_STREAM(stream)));)
RT_BOTH(cudaMemcpyFromSymbolAsync, _ptsz,
	(void *to, const void *symbol, size_t bytes, size_t offset, int kind, cudaStream_t stream),
	return rt_end(from_symbol(to, symbol, bytes, offset, kind, per_thread, true,
				  RT_STREAM(stream)));)

RT_API(cudaGetSymbolAddress, void **pointer, const void *symbol)
{
	CUdeviceptr address = 0;
	cudaError_t result;

	RT_NEED(cudaGetSymbolAddress);
	if (!pointer)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_symbol(symbol, &address, NULL);
	if (result == 0)
		*pointer = (void *)(uintptr_t)address;
	return rt_end(result);
}

RT_API(cudaGetSymbolSize, size_t *bytes, const void *symbol)
{
	RT_NEED(cudaGetSymbolSize);
	if (!bytes)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	return rt_end(rt_symbol(symbol, NULL, bytes));
}

/* ---- between devices ---- */

static cudaError_t contexts(int to, int from, CUcontext *to_context, CUcontext *from_context)
{
	cudaError_t result = rt_primary(to, to_context);

	return result == 0 ? rt_primary(from, from_context) : result;
}

RT_API(cudaMemcpyPeer, void *to, int to_device, const void *from, int from_device, size_t bytes)
{
	CUcontext to_context, from_context;
	cudaError_t result;

	RT_NEED(cudaMemcpyPeer);
	result = contexts(to_device, from_device, &to_context, &from_context);
	if (result == 0 && bytes)
		result = rt_driver.cuMemcpyPeer(rt_address(to), to_context, rt_address(from),
						from_context, bytes);
	return rt_end(result);
}

static cudaError_t peer_async(void *to, int to_device, const void *from, int from_device,
			      size_t bytes, CUstream stream)
{
	CUcontext to_context, from_context;
	cudaError_t result = contexts(to_device, from_device, &to_context, &from_context);

	if (result != 0 || !bytes)
		return result;
	return rt_driver.cuMemcpyPeerAsync(rt_address(to), to_context, rt_address(from),
					   from_context, bytes, stream);
}

RT_API(cudaMemcpyPeerAsync, void *to, int to_device, const void *from, int from_device,
       size_t bytes, cudaStream_t stream)
{
	RT_NEED(cudaMemcpyPeerAsync);
	return rt_end(peer_async(to, to_device, from, from_device, bytes, stream));
}

/* ---- batches: the driver's, under other names ---- */

#if RT_MAJOR == 12
RT_BOTH(cudaMemcpyBatchAsync, _ptsz,
	(void **to, void **from, size_t *sizes, size_t count, struct cudaMemcpyAttributes *attributes,
	 size_t *first, size_t attribute_count, size_t *fail_index, cudaStream_t stream),
	return rt_end(rt_driver.cuMemcpyBatchAsync((CUdeviceptr *)to, (CUdeviceptr *)from, sizes,
						   count, (CUmemcpyAttributes *)attributes, first,
						   attribute_count, fail_index,
						   RT_STREAM(stream)));)
RT_BOTH(cudaMemcpy3DBatchAsync, _ptsz,
	(size_t count, struct cudaMemcpy3DBatchOp *list, size_t *fail_index,
	 unsigned long long flags, cudaStream_t stream),
	return rt_end(rt_driver.cuMemcpy3DBatchAsync(count, (CUDA_MEMCPY3D_BATCH_OP *)list,
						     fail_index, flags, RT_STREAM(stream)));)
#else
RT_BOTH(cudaMemcpyBatchAsync, _ptsz,
	(void *const *to, const void *const *from, const size_t *sizes, size_t count,
	 struct cudaMemcpyAttributes *attributes, size_t *first, size_t attribute_count,
	 cudaStream_t stream),
	return rt_end(rt_driver.cuMemcpyBatchAsync_v2(
		(CUdeviceptr *)(uintptr_t)to, (CUdeviceptr *)(uintptr_t)from,
		(size_t *)(uintptr_t)sizes, count, (CUmemcpyAttributes *)attributes, first,
		attribute_count, RT_STREAM(stream)));)
RT_BOTH(cudaMemcpy3DBatchAsync, _ptsz,
	(size_t count, struct cudaMemcpy3DBatchOp *list, unsigned long long flags,
	 cudaStream_t stream),
	return rt_end(rt_driver.cuMemcpy3DBatchAsync_v2(count, (CUDA_MEMCPY3D_BATCH_OP *)list,
							flags, RT_STREAM(stream)));)
#endif
