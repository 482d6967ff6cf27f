/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Streams, events, host functions and capture: the driver's, under other names.
 */
#include "cudart.h"

RT_API(cudaStreamCreate, cudaStream_t *stream)
{
	RT_NEED(cudaStreamCreate);
	return rt_end(rt_driver.cuStreamCreate(stream, CU_STREAM_DEFAULT));
}

RT_FORWARD(cudaStreamCreateWithFlags, cuStreamCreate, (cudaStream_t *stream, unsigned int flags),
	   (stream, flags))
RT_FORWARD(cudaStreamCreateWithPriority, cuStreamCreateWithPriority,
	   (cudaStream_t *stream, unsigned int flags, int priority), (stream, flags, priority))
RT_FORWARD(cudaStreamDestroy, cuStreamDestroy_v2, (cudaStream_t stream), (stream))

RT_BOTH(cudaStreamQuery, _ptsz, (cudaStream_t stream),
	return rt_end(rt_driver.cuStreamQuery(RT_STREAM(stream)));)
RT_BOTH(cudaStreamSynchronize, _ptsz, (cudaStream_t stream),
	return rt_end(rt_driver.cuStreamSynchronize(RT_STREAM(stream)));)
RT_BOTH(cudaStreamWaitEvent, _ptsz, (cudaStream_t stream, cudaEvent_t event, unsigned int flags),
	return rt_end(rt_driver.cuStreamWaitEvent(RT_STREAM(stream), event, flags));)
RT_BOTH(cudaStreamGetPriority, _ptsz, (cudaStream_t stream, int *priority),
	return rt_end(rt_driver.cuStreamGetPriority(RT_STREAM(stream), priority));)
RT_BOTH(cudaStreamGetFlags, _ptsz, (cudaStream_t stream, unsigned int *flags),
	return rt_end(rt_driver.cuStreamGetFlags(RT_STREAM(stream), flags));)
RT_BOTH(cudaStreamGetId, _ptsz, (cudaStream_t stream, unsigned long long *id),
	return rt_end(rt_driver.cuStreamGetId(RT_STREAM(stream), id));)
RT_BOTH(cudaStreamGetDevice, _ptsz, (cudaStream_t stream, int *device),
	return rt_end(rt_driver.cuStreamGetDevice(RT_STREAM(stream), device));)
RT_BOTH(cudaStreamGetAttribute, _ptsz,
	(cudaStream_t stream, cudaLaunchAttributeID attribute, cudaLaunchAttributeValue *value),
	return rt_end(rt_driver.cuStreamGetAttribute(RT_STREAM(stream), attribute,
						     (CUstreamAttrValue *)value));)
RT_BOTH(cudaStreamSetAttribute, _ptsz,
	(cudaStream_t stream, cudaLaunchAttributeID attribute,
	 const cudaLaunchAttributeValue *value),
	return rt_end(rt_driver.cuStreamSetAttribute(RT_STREAM(stream), attribute,
						     (const CUstreamAttrValue *)value));)
RT_BOTH(cudaStreamCopyAttributes, _ptsz, (cudaStream_t to, cudaStream_t from),
	return rt_end(rt_driver.cuStreamCopyAttributes(RT_STREAM(to), RT_STREAM(from)));)

/* ---- functions of the program ---- */

/* The driver hands its own code to the callback; those are the same numbers. */
RT_BOTH(cudaStreamAddCallback, _ptsz,
	(cudaStream_t stream, cudaStreamCallback_t callback, void *data, unsigned int flags),
	return rt_end(rt_driver.cuStreamAddCallback(
		RT_STREAM(stream), (CUstreamCallback)callback, data, flags));)
RT_BOTH(cudaLaunchHostFunc, _ptsz, (cudaStream_t stream, cudaHostFn_t function, void *data),
	return rt_end(rt_driver.cuLaunchHostFunc(RT_STREAM(stream), function, data));)

/* ---- events ---- */

RT_API(cudaEventCreate, cudaEvent_t *event)
{
	RT_NEED(cudaEventCreate);
	return rt_end(rt_driver.cuEventCreate(event, CU_EVENT_DEFAULT));
}

RT_FORWARD(cudaEventCreateWithFlags, cuEventCreate, (cudaEvent_t *event, unsigned int flags),
	   (event, flags))
RT_FORWARD(cudaEventDestroy, cuEventDestroy_v2, (cudaEvent_t event), (event))
RT_FORWARD(cudaEventQuery, cuEventQuery, (cudaEvent_t event), (event))
RT_FORWARD(cudaEventSynchronize, cuEventSynchronize, (cudaEvent_t event), (event))
RT_FORWARD(cudaEventElapsedTime, cuEventElapsedTime,
	   (float *milliseconds, cudaEvent_t start, cudaEvent_t end), (milliseconds, start, end))
#if RT_MAJOR == 12
RT_FORWARD(cudaEventElapsedTime_v2, cuEventElapsedTime,
	   (float *milliseconds, cudaEvent_t start, cudaEvent_t end), (milliseconds, start, end))
#endif
RT_BOTH(cudaEventRecord, _ptsz, (cudaEvent_t event, cudaStream_t stream),
	return rt_end(rt_driver.cuEventRecord(event, RT_STREAM(stream)));)
RT_BOTH(cudaEventRecordWithFlags, _ptsz,
	(cudaEvent_t event, cudaStream_t stream, unsigned int flags),
	return rt_end(rt_driver.cuEventRecordWithFlags(event, RT_STREAM(stream), flags));)

/* ---- capture ---- */

RT_FORWARD(cudaThreadExchangeStreamCaptureMode, cuThreadExchangeStreamCaptureMode, (int *mode),
	   ((CUstreamCaptureMode *)mode))
RT_BOTH(cudaStreamBeginCapture, _ptsz, (cudaStream_t stream, int mode),
	return rt_end(rt_driver.cuStreamBeginCapture_v2(RT_STREAM(stream), mode));)
RT_BOTH(cudaStreamBeginCaptureToGraph, _ptsz,
	(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
	 const cudaGraphEdgeData *edges, size_t count, int mode),
	return rt_end(rt_driver.cuStreamBeginCaptureToGraph(RT_STREAM(stream), graph, dependencies,
							    edges, count, mode));)
RT_BOTH(cudaStreamEndCapture, _ptsz, (cudaStream_t stream, cudaGraph_t *graph),
	return rt_end(rt_driver.cuStreamEndCapture(RT_STREAM(stream), graph));)
RT_BOTH(cudaStreamIsCapturing, _ptsz, (cudaStream_t stream, int *status),
	return rt_end(rt_driver.cuStreamIsCapturing(RT_STREAM(stream),
						    (CUstreamCaptureStatus *)status));)

#if RT_MAJOR == 12
#define CAPTURE_INFO_2(name)                                                                    \
	RT_BOTH(name, _ptsz,                                                                    \
		(cudaStream_t stream, int *status, unsigned long long *id, cudaGraph_t *graph,  \
		 const cudaGraphNode_t **dependencies, size_t *count),                          \
		return rt_end(rt_driver.cuStreamGetCaptureInfo_v2(                              \
			RT_STREAM(stream), (CUstreamCaptureStatus *)status, id, graph,          \
			dependencies, count));)
#endif
#define CAPTURE_INFO_3(name)                                                                    \
	RT_BOTH(name, _ptsz,                                                                    \
		(cudaStream_t stream, int *status, unsigned long long *id, cudaGraph_t *graph,  \
		 const cudaGraphNode_t **dependencies, const cudaGraphEdgeData **edges,         \
		 size_t *count),                                                                \
		return rt_end(rt_driver.cuStreamGetCaptureInfo_v3(                              \
			RT_STREAM(stream), (CUstreamCaptureStatus *)status, id, graph,          \
			dependencies, edges, count));)
#define UPDATE_DEPENDENCIES_2(name)                                                             \
	RT_BOTH(name, _ptsz,                                                                    \
		(cudaStream_t stream, cudaGraphNode_t *dependencies,                            \
		 const cudaGraphEdgeData *edges, size_t count, unsigned int flags),             \
		return rt_end(rt_driver.cuStreamUpdateCaptureDependencies_v2(                   \
			RT_STREAM(stream), dependencies, edges, count, flags));)
#if RT_MAJOR == 12
RT_BOTH(cudaStreamGetCaptureInfo, _ptsz,
	(cudaStream_t stream, int *status, unsigned long long *id),
	return rt_end(rt_driver.cuStreamGetCaptureInfo_v2(RT_STREAM(stream),
							  (CUstreamCaptureStatus *)status, id,
							  NULL, NULL, NULL));)
CAPTURE_INFO_2(cudaStreamGetCaptureInfo_v2)
CAPTURE_INFO_3(cudaStreamGetCaptureInfo_v3)
RT_BOTH(cudaStreamUpdateCaptureDependencies, _ptsz,
	(cudaStream_t stream, cudaGraphNode_t *dependencies, size_t count, unsigned int flags),
	return rt_end(rt_driver.cuStreamUpdateCaptureDependencies(RT_STREAM(stream), dependencies,
								  count, flags));)
UPDATE_DEPENDENCIES_2(cudaStreamUpdateCaptureDependencies_v2)
#else
CAPTURE_INFO_3(cudaStreamGetCaptureInfo)
UPDATE_DEPENDENCIES_2(cudaStreamUpdateCaptureDependencies)
#endif
