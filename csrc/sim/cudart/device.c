/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Devices: versions, attributes, limits, peers, synchronisation.
 */
#include <string.h>

#include "cudart.h"

RT_API(cudaDriverGetVersion, int *version)
{
	RT_COUNT(cudaDriverGetVersion);
	if (!version)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	/* 0: no driver; this call alone takes no driver for an answer. */
	*version = 0;
	if (rt_ready() == RT_ERROR_INSUFFICIENT_DRIVER)
		return 0;
	return rt_end(rt_driver.cuDriverGetVersion(version));
}

RT_API(cudaRuntimeGetVersion, int *version)
{
	RT_COUNT(cudaRuntimeGetVersion);
	if (!version)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	*version = RT_VERSION;
	return 0;
}

/* Attributes have the driver's numbers. */
RT_API(cudaDeviceGetAttribute, int *value, int attribute, int device)
{
	RT_READY(cudaDeviceGetAttribute);
	return rt_end(rt_driver.cuDeviceGetAttribute(value, attribute, device));
}

RT_API(cudaDeviceGetPCIBusId, char *text, int bytes, int device)
{
	RT_READY(cudaDeviceGetPCIBusId);
	return rt_end(rt_driver.cuDeviceGetPCIBusId(text, bytes, device));
}

RT_API(cudaDeviceGetByPCIBusId, int *device, const char *text)
{
	RT_READY(cudaDeviceGetByPCIBusId);
	return rt_end(rt_driver.cuDeviceGetByPCIBusId(device, text));
}

RT_API(cudaDeviceGetP2PAttribute, int *value, int attribute, int from, int to)
{
	RT_READY(cudaDeviceGetP2PAttribute);
	return rt_end(rt_driver.cuDeviceGetP2PAttribute(value, attribute, from, to));
}

RT_API(cudaDeviceCanAccessPeer, int *can, int device, int peer)
{
	RT_READY(cudaDeviceCanAccessPeer);
	return rt_end(rt_driver.cuDeviceCanAccessPeer(can, device, peer));
}

RT_API(cudaDeviceEnablePeerAccess, int peer, unsigned int flags)
{
	CUcontext context;
	cudaError_t result;

	RT_NEED(cudaDeviceEnablePeerAccess);
	result = rt_primary(peer, &context);
	return rt_end(result == 0 ? (cudaError_t)rt_driver.cuCtxEnablePeerAccess(context, flags)
				  : result);
}

RT_API(cudaDeviceDisablePeerAccess, int peer)
{
	CUcontext context;
	cudaError_t result;

	RT_NEED(cudaDeviceDisablePeerAccess);
	result = rt_primary(peer, &context);
	return rt_end(result == 0 ? (cudaError_t)rt_driver.cuCtxDisablePeerAccess(context)
				  : result);
}

RT_FORWARD(cudaDeviceSynchronize, cuCtxSynchronize, (void), ())
RT_FORWARD(cudaDeviceGetLimit, cuCtxGetLimit, (size_t *value, int limit), (value, limit))
RT_FORWARD(cudaDeviceSetLimit, cuCtxSetLimit, (int limit, size_t value), (limit, value))
RT_FORWARD(cudaDeviceGetCacheConfig, cuCtxGetCacheConfig, (int *config), (config))
RT_FORWARD(cudaDeviceSetCacheConfig, cuCtxSetCacheConfig, (int config), (config))
RT_FORWARD(cudaDeviceGetSharedMemConfig, cuCtxGetSharedMemConfig, (int *config), (config))
RT_FORWARD(cudaDeviceSetSharedMemConfig, cuCtxSetSharedMemConfig, (int config), (config))
RT_FORWARD(cudaDeviceGetStreamPriorityRange, cuCtxGetStreamPriorityRange,
	   (int *least, int *greatest), (least, greatest))
RT_FORWARD(cudaDeviceFlushGPUDirectRDMAWrites, cuFlushGPUDirectRDMAWrites, (int target, int scope),
	   (target, scope))
RT_FORWARD(cudaCtxResetPersistingL2Cache, cuCtxResetPersistingL2Cache, (void), ())
RT_FORWARD(cudaProfilerStart, cuProfilerStart, (void), ())
RT_FORWARD(cudaProfilerStop, cuProfilerStop, (void), ())
#if RT_MAJOR == 12
RT_FORWARD(cudaThreadSynchronize, cuCtxSynchronize, (void), ())
RT_FORWARD(cudaThreadGetLimit, cuCtxGetLimit, (size_t *value, int limit), (value, limit))
RT_FORWARD(cudaThreadSetLimit, cuCtxSetLimit, (int limit, size_t value), (limit, value))
RT_FORWARD(cudaThreadGetCacheConfig, cuCtxGetCacheConfig, (int *config), (config))
RT_FORWARD(cudaThreadSetCacheConfig, cuCtxSetCacheConfig, (int config), (config))

/* Doubles are doubles on every device since 1.3. */
RT_API(cudaSetDoubleForDevice, double *value)
{
	RT_COUNT(cudaSetDoubleForDevice);
	return rt_end(value ? 0 : CUDA_ERROR_INVALID_VALUE);
}

RT_API(cudaSetDoubleForHost, double *value)
{
	RT_COUNT(cudaSetDoubleForHost);
	return rt_end(value ? 0 : CUDA_ERROR_INVALID_VALUE);
}
#endif

/*
 * There is one table that the runtime is known to hand out, to NVIDIA's own tools; this
 * library has none.
 */
RT_API(cudaGetExportTable, const void **table, const cudaUUID_t *uuid)
{
	RT_COUNT(cudaGetExportTable);
	(void)uuid;
	if (table)
		*table = NULL;
	return rt_end(CUDA_ERROR_NOT_SUPPORTED);
}

/* ---- the driver's functions ---- */

/* The look-up succeeds where there is nothing to find, and says so in *status. */
static cudaError_t entry_point(const char *symbol, void **function, int version,
			       unsigned long long flags, int *status, bool per_thread)
{
	CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SUCCESS;
	CUresult result;

	if (!symbol || !function)
		return CUDA_ERROR_INVALID_VALUE;
	if (flags == CU_GET_PROC_ADDRESS_DEFAULT && per_thread)
		flags = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
	*function = NULL;
	result = rt_driver.cuGetProcAddress_v2(symbol, function, version, flags, &found);
	if (result == CUDA_ERROR_NOT_FOUND) {
		result = CUDA_SUCCESS;
		if (found == CU_GET_PROC_ADDRESS_SUCCESS)
			found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	}
	if (status)
		*status = found;
	return result;
}

#define ENTRY_POINT(name, per_thread)                                                          \
	RT_API(name, const char *symbol, void **function, unsigned long long flags, int *status) \
	{                                                                                      \
		RT_READY(name);                                                                \
		return rt_end(entry_point(symbol, function, RT_VERSION, flags, status,         \
					  per_thread));                                        \
	}
ENTRY_POINT(cudaGetDriverEntryPoint, false)
ENTRY_POINT(cudaGetDriverEntryPoint_ptsz, true)
#define ENTRY_POINT_BY_VERSION(name, per_thread)                                               \
	RT_API(name, const char *symbol, void **function, unsigned int version,                \
	       unsigned long long flags, int *status)                                          \
	{                                                                                      \
		RT_READY(name);                                                                \
		return rt_end(entry_point(symbol, function, (int)version, flags, status,       \
					  per_thread));                                        \
	}
ENTRY_POINT_BY_VERSION(cudaGetDriverEntryPointByVersion, false)
ENTRY_POINT_BY_VERSION(cudaGetDriverEntryPointByVersion_ptsz, true)
