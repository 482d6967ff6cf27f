/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nodes of graphs whose parameters the runtime writes differently: kernels (by their
 * host function), copies (in elements of arrays, by kinds), sets (by pointer).
 */
#include "cudart.h"

typedef const cudaGraphNode_t *nodes_t;

static cudaError_t current(CUcontext *context)
{
	return rt_driver.cuCtxGetCurrent(context);
}

/* ---- kernels ---- */

static cudaError_t kernel_params(const struct cudaKernelNodeParams *p,
				 CUDA_KERNEL_NODE_PARAMS *answer)
{
	CUfunction function;
	cudaError_t result;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	result = rt_function(p->func, &function);
	*answer = (CUDA_KERNEL_NODE_PARAMS){
		.func = function,
		.gridDimX = p->gridDim.x,
		.gridDimY = p->gridDim.y,
		.gridDimZ = p->gridDim.z,
		.blockDimX = p->blockDim.x,
		.blockDimY = p->blockDim.y,
		.blockDimZ = p->blockDim.z,
		.sharedMemBytes = p->sharedMemBytes,
		.kernelParams = p->kernelParams,
		.extra = p->extra,
	};
	return result;
}

/* A node's parameters, as the driver wants them. */
#define SET_PARAMS(name, given_t, converted, params_t, call)             \
	RT_API(name, cudaGraphNode_t node, const given_t *p)             \
	{                                                                \
		params_t params;                                         \
		cudaError_t result;                                      \
									 \
		RT_NEED(name);                                           \
		result = converted(p, &params);                          \
		if (result == 0)                                         \
			result = rt_driver.call(node, &params);          \
		return rt_end(result);                                   \
	}

RT_API(cudaGraphAddKernelNode, cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies,
       size_t count, const struct cudaKernelNodeParams *p)
{
	CUDA_KERNEL_NODE_PARAMS params;
	cudaError_t result;

	RT_NEED(cudaGraphAddKernelNode);
	result = kernel_params(p, &params);
	if (result == 0)
		result = rt_driver.cuGraphAddKernelNode_v2(node, graph, dependencies, count,
							   &params);
	return rt_end(result);
}

SET_PARAMS(cudaGraphKernelNodeSetParams, struct cudaKernelNodeParams, kernel_params,
	   CUDA_KERNEL_NODE_PARAMS, cuGraphKernelNodeSetParams_v2)

RT_API(cudaGraphExecKernelNodeSetParams, cudaGraphExec_t exec, cudaGraphNode_t node,
       const struct cudaKernelNodeParams *p)
{
	CUDA_KERNEL_NODE_PARAMS params;
	cudaError_t result;

	RT_NEED(cudaGraphExecKernelNodeSetParams);
	result = kernel_params(p, &params);
	if (result == 0)
		result = rt_driver.cuGraphExecKernelNodeSetParams_v2(exec, node, &params);
	return rt_end(result);
}

/* The function comes back as a handle, which every call takes that takes a host function. */
RT_API(cudaGraphKernelNodeGetParams, cudaGraphNode_t node, struct cudaKernelNodeParams *p)
{
	CUDA_KERNEL_NODE_PARAMS params = { 0 };
	cudaError_t result;

	RT_NEED(cudaGraphKernelNodeGetParams);
	if (!p)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_driver.cuGraphKernelNodeGetParams_v2(node, &params);
	if (result == 0)
		result = rt_remember_function(params.func);
	if (result != 0)
		return rt_end(result);
	*p = (struct cudaKernelNodeParams){
		params.func,
		{ params.gridDimX, params.gridDimY, params.gridDimZ },
		{ params.blockDimX, params.blockDimY, params.blockDimZ },
		params.sharedMemBytes,
		params.kernelParams,
		params.extra,
	};
	return 0;
}

RT_FORWARD(cudaGraphKernelNodeGetAttribute, cuGraphKernelNodeGetAttribute,
	   (cudaGraphNode_t node, cudaLaunchAttributeID attribute, cudaLaunchAttributeValue *value),
	   (node, attribute, (CUlaunchAttributeValue *)value))
RT_FORWARD(cudaGraphKernelNodeSetAttribute, cuGraphKernelNodeSetAttribute,
	   (cudaGraphNode_t node, cudaLaunchAttributeID attribute,
	    const cudaLaunchAttributeValue *value),
	   (node, attribute, (const CUlaunchAttributeValue *)value))
/* The documentation of 12 names the source first, that of 13 the destination. */
#if RT_MAJOR == 12
RT_FORWARD(cudaGraphKernelNodeCopyAttributes, cuGraphKernelNodeCopyAttributes,
	   (cudaGraphNode_t from, cudaGraphNode_t to), (to, from))
#else
RT_FORWARD(cudaGraphKernelNodeCopyAttributes, cuGraphKernelNodeCopyAttributes,
	   (cudaGraphNode_t to, cudaGraphNode_t from), (to, from))
#endif

/* ---- copies ---- */

static cudaError_t add_copy(cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies,
			    size_t count, const struct cudaMemcpy3DParms *p)
{
	CUDA_MEMCPY3D copy;
	CUcontext context;
	cudaError_t result = rt_copy_3d(p, &copy);

	if (result == 0)
		result = current(&context);
	return result == 0 ? (cudaError_t)rt_driver.cuGraphAddMemcpyNode(
				     node, graph, dependencies, count, &copy, context)
			   : result;
}

static cudaError_t set_copy(cudaGraphNode_t node, const struct cudaMemcpy3DParms *p)
{
	CUDA_MEMCPY3D copy;
	cudaError_t result = rt_copy_3d(p, &copy);

	return result == 0 ? (cudaError_t)rt_driver.cuGraphMemcpyNodeSetParams(node, &copy) : result;
}

static cudaError_t set_exec_copy(cudaGraphExec_t exec, cudaGraphNode_t node,
				 const struct cudaMemcpy3DParms *p)
{
	CUDA_MEMCPY3D copy;
	CUcontext context;
	cudaError_t result = rt_copy_3d(p, &copy);

	if (result == 0)
		result = current(&context);
	return result == 0 ? (cudaError_t)rt_driver.cuGraphExecMemcpyNodeSetParams(exec, node, &copy,
										   context)
			   : result;
}

RT_API(cudaGraphAddMemcpyNode, cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies,
       size_t count, const struct cudaMemcpy3DParms *p)
{
	RT_NEED(cudaGraphAddMemcpyNode);
	return rt_end(add_copy(node, graph, dependencies, count, p));
}

RT_API(cudaGraphMemcpyNodeSetParams, cudaGraphNode_t node, const struct cudaMemcpy3DParms *p)
{
	RT_NEED(cudaGraphMemcpyNodeSetParams);
	return rt_end(set_copy(node, p));
}

RT_API(cudaGraphExecMemcpyNodeSetParams, cudaGraphExec_t exec, cudaGraphNode_t node,
       const struct cudaMemcpy3DParms *p)
{
	RT_NEED(cudaGraphExecMemcpyNodeSetParams);
	return rt_end(set_exec_copy(exec, node, p));
}

static struct cudaMemcpy3DParms line(void *to, const void *from, size_t bytes, int kind)
{
	return (struct cudaMemcpy3DParms){
		.srcPtr = { (void *)(uintptr_t)from, bytes, bytes, 1 },
		.dstPtr = { to, bytes, bytes, 1 },
		.extent = { bytes, 1, 1 },
		.kind = kind,
	};
}

RT_API(cudaGraphAddMemcpyNode1D, cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies,
       size_t count, void *to, const void *from, size_t bytes, int kind)
{
	struct cudaMemcpy3DParms p = line(to, from, bytes, kind);

	RT_NEED(cudaGraphAddMemcpyNode1D);
	return rt_end(add_copy(node, graph, dependencies, count, &p));
}

RT_API(cudaGraphMemcpyNodeSetParams1D, cudaGraphNode_t node, void *to, const void *from,
       size_t bytes, int kind)
{
	struct cudaMemcpy3DParms p = line(to, from, bytes, kind);

	RT_NEED(cudaGraphMemcpyNodeSetParams1D);
	return rt_end(set_copy(node, &p));
}

RT_API(cudaGraphExecMemcpyNodeSetParams1D, cudaGraphExec_t exec, cudaGraphNode_t node, void *to,
       const void *from, size_t bytes, int kind)
{
	struct cudaMemcpy3DParms p = line(to, from, bytes, kind);

	RT_NEED(cudaGraphExecMemcpyNodeSetParams1D);
	return rt_end(set_exec_copy(exec, node, &p));
}

/* ---- sets ---- */

static cudaError_t memset_params(const struct cudaMemsetParams *p, CUDA_MEMSET_NODE_PARAMS *answer)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	*answer = (CUDA_MEMSET_NODE_PARAMS){ rt_address(p->dst), p->pitch, p->value,
					     p->elementSize,     p->width, p->height };
	return 0;
}

RT_API(cudaGraphAddMemsetNode, cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies,
       size_t count, const struct cudaMemsetParams *p)
{
	CUDA_MEMSET_NODE_PARAMS params;
	CUcontext context;
	cudaError_t result;

	RT_NEED(cudaGraphAddMemsetNode);
	result = memset_params(p, &params);
	if (result == 0)
		result = current(&context);
	if (result == 0)
		result = rt_driver.cuGraphAddMemsetNode(node, graph, dependencies, count, &params,
							context);
	return rt_end(result);
}

RT_API(cudaGraphMemsetNodeGetParams, cudaGraphNode_t node, struct cudaMemsetParams *p)
{
	CUDA_MEMSET_NODE_PARAMS params;
	cudaError_t result;

	RT_NEED(cudaGraphMemsetNodeGetParams);
	if (!p)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_driver.cuGraphMemsetNodeGetParams(node, &params);
	if (result == 0)
		*p = (struct cudaMemsetParams){ (void *)(uintptr_t)params.dst, params.pitch,
						params.value, params.elementSize, params.width,
						params.height };
	return rt_end(result);
}

SET_PARAMS(cudaGraphMemsetNodeSetParams, struct cudaMemsetParams, memset_params,
	   CUDA_MEMSET_NODE_PARAMS, cuGraphMemsetNodeSetParams)

RT_API(cudaGraphExecMemsetNodeSetParams, cudaGraphExec_t exec, cudaGraphNode_t node,
       const struct cudaMemsetParams *p)
{
	CUDA_MEMSET_NODE_PARAMS params;
	CUcontext context;
	cudaError_t result;

	RT_NEED(cudaGraphExecMemsetNodeSetParams);
	result = memset_params(p, &params);
	if (result == 0)
		result = current(&context);
	if (result == 0)
		result = rt_driver.cuGraphExecMemsetNodeSetParams(exec, node, &params, context);
	return rt_end(result);
}

/* ---- host functions and memory: the same layouts ---- */

RT_FORWARD(cudaGraphAddHostNode, cuGraphAddHostNode,
	   (cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies, size_t count,
	    const struct cudaHostNodeParams *p),
	   (node, graph, dependencies, count, (const CUDA_HOST_NODE_PARAMS *)p))
RT_FORWARD(cudaGraphHostNodeGetParams, cuGraphHostNodeGetParams,
	   (cudaGraphNode_t node, struct cudaHostNodeParams *p), (node, (CUDA_HOST_NODE_PARAMS *)p))
RT_FORWARD(cudaGraphHostNodeSetParams, cuGraphHostNodeSetParams,
	   (cudaGraphNode_t node, const struct cudaHostNodeParams *p),
	   (node, (const CUDA_HOST_NODE_PARAMS *)p))
RT_FORWARD(cudaGraphExecHostNodeSetParams, cuGraphExecHostNodeSetParams,
	   (cudaGraphExec_t exec, cudaGraphNode_t node, const struct cudaHostNodeParams *p),
	   (exec, node, (const CUDA_HOST_NODE_PARAMS *)p))
RT_FORWARD(cudaGraphAddMemAllocNode, cuGraphAddMemAllocNode,
	   (cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies, size_t count,
	    struct cudaMemAllocNodeParams *p),
	   (node, graph, dependencies, count, (CUDA_MEM_ALLOC_NODE_PARAMS *)p))
RT_FORWARD(cudaGraphMemAllocNodeGetParams, cuGraphMemAllocNodeGetParams,
	   (cudaGraphNode_t node, struct cudaMemAllocNodeParams *p),
	   (node, (CUDA_MEM_ALLOC_NODE_PARAMS *)p))
RT_FORWARD(cudaGraphAddMemFreeNode, cuGraphAddMemFreeNode,
	   (cudaGraphNode_t *node, cudaGraph_t graph, nodes_t dependencies, size_t count,
	    void *pointer),
	   (node, graph, dependencies, count, rt_address(pointer)))
RT_FORWARD(cudaGraphMemFreeNodeGetParams, cuGraphMemFreeNodeGetParams,
	   (cudaGraphNode_t node, void *pointer), (node, pointer))

/* ---- instantiation and update: the same layouts ---- */

RT_BOTH(cudaGraphInstantiateWithParams, _ptsz,
	(cudaGraphExec_t *exec, cudaGraph_t graph, cudaGraphInstantiateParams *p),
	return rt_end(rt_driver.cuGraphInstantiateWithParams(exec, graph,
							     (CUDA_GRAPH_INSTANTIATE_PARAMS *)p));)
RT_FORWARD(cudaGraphExecUpdate, cuGraphExecUpdate_v2,
	   (cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *answer),
	   (exec, graph, (CUgraphExecUpdateResultInfo *)answer))

RT_API(cudaGraphConditionalHandleCreate, cudaGraphConditionalHandle *handle, cudaGraph_t graph,
       unsigned int value, unsigned int flags)
{
	CUcontext context;
	cudaError_t result;

	RT_NEED(cudaGraphConditionalHandleCreate);
	result = current(&context);
	if (result == 0)
		result = rt_driver.cuGraphConditionalHandleCreate(
			(CUgraphConditionalHandle *)handle, graph, context, value, flags);
	return rt_end(result);
}
