/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver as the stand-ins call it: one slot a function, filled by driver.c.  A
 * slot is never NULL: what the driver does not have answers CUDA_ERROR_NOT_SUPPORTED.
 */
#ifndef EMUV_CUDART_DRIVER_H
#define EMUV_CUDART_DRIVER_H

#include "sim/memory_abi.h"

typedef struct CUuserObject_st *CUuserObject;
typedef void (*CUhostFn)(void *data);
typedef void (*CUstreamCallback)(CUstream stream, CUresult status, void *data);
typedef struct {
	CUfunction func;
	unsigned int gridDimX, gridDimY, gridDimZ;
	unsigned int blockDimX, blockDimY, blockDimZ;
	unsigned int sharedMemBytes;
	void **kernelParams, **extra;
	CUkernel kern;
	CUcontext ctx;
} CUDA_KERNEL_NODE_PARAMS;
typedef struct {
	CUdeviceptr dst;
	size_t pitch;
	unsigned int value, elementSize;
	size_t width, height;
} CUDA_MEMSET_NODE_PARAMS;

/* Passed on as they are. */
typedef struct rt_host_node_params CUDA_HOST_NODE_PARAMS;
typedef struct rt_mem_alloc_node_params CUDA_MEM_ALLOC_NODE_PARAMS;
typedef struct rt_exec_update_result CUgraphExecUpdateResultInfo;
typedef union rt_launch_attribute_value CUlaunchAttributeValue;
typedef cuuint64_t CUgraphConditionalHandle;

typedef struct {
#define EMUV_USE(name, parameters) CUresult (*name) parameters;
#include "driver_uses.def"
#undef EMUV_USE
} rt_driver_t;
extern rt_driver_t rt_driver;

/* Opens libcuda.so.1 and fills the slots.  False: there is none. */
_Bool rt_driver_load(void);

#endif
