/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cuGetErrorName and cuGetErrorString.  One row a code of CUresult; the descriptions
 * are the simulator's own words.
 */
#include "internal.h"

#define ERRORS(row) \
	row(CUDA_SUCCESS, "no error") \
	row(CUDA_ERROR_INVALID_VALUE, "an argument is not valid") \
	row(CUDA_ERROR_OUT_OF_MEMORY, "not enough memory") \
	row(CUDA_ERROR_NOT_INITIALIZED, "cuInit has not been called, or not in this process") \
	row(CUDA_ERROR_DEINITIALIZED, "the driver is shutting down") \
	row(CUDA_ERROR_PROFILER_DISABLED, "profiling is not in use") \
	row(CUDA_ERROR_PROFILER_NOT_INITIALIZED, "the profiler has not been initialised") \
	row(CUDA_ERROR_PROFILER_ALREADY_STARTED, "the profiler is already running") \
	row(CUDA_ERROR_PROFILER_ALREADY_STOPPED, "the profiler is already stopped") \
	row(CUDA_ERROR_STUB_LIBRARY, "a stub library was loaded instead of the driver") \
	row(CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER, "the call needs a newer driver") \
	row(CUDA_ERROR_DEVICE_UNAVAILABLE, "the device is busy or unavailable") \
	row(CUDA_ERROR_NO_DEVICE, "there is no CUDA device") \
	row(CUDA_ERROR_INVALID_DEVICE, "there is no such device") \
	row(CUDA_ERROR_DEVICE_NOT_LICENSED, "the device lacks a licence") \
	row(CUDA_ERROR_INVALID_IMAGE, "the module image is not valid") \
	row(CUDA_ERROR_INVALID_CONTEXT, "there is no current context, or the handle is no context") \
	row(CUDA_ERROR_CONTEXT_ALREADY_CURRENT, "the context is already current") \
	row(CUDA_ERROR_MAP_FAILED, "mapping failed") \
	row(CUDA_ERROR_UNMAP_FAILED, "unmapping failed") \
	row(CUDA_ERROR_ARRAY_IS_MAPPED, "the array is mapped") \
	row(CUDA_ERROR_ALREADY_MAPPED, "the resource is already mapped") \
	row(CUDA_ERROR_NO_BINARY_FOR_GPU, "the image has no code for this device") \
	row(CUDA_ERROR_ALREADY_ACQUIRED, "the resource is already acquired") \
	row(CUDA_ERROR_NOT_MAPPED, "the resource is not mapped") \
	row(CUDA_ERROR_NOT_MAPPED_AS_ARRAY, "the resource is not mapped as an array") \
	row(CUDA_ERROR_NOT_MAPPED_AS_POINTER, "the resource is not mapped as a pointer") \
	row(CUDA_ERROR_ECC_UNCORRECTABLE, "an uncorrectable ECC error occurred") \
	row(CUDA_ERROR_UNSUPPORTED_LIMIT, "the device does not have this limit") \
	row(CUDA_ERROR_CONTEXT_ALREADY_IN_USE, "the context is in use by another thread") \
	row(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "the devices cannot access each other") \
	row(CUDA_ERROR_INVALID_PTX, "the PTX text is not valid") \
	row(CUDA_ERROR_INVALID_GRAPHICS_CONTEXT, "the graphics context is not valid") \
	row(CUDA_ERROR_NVLINK_UNCORRECTABLE, "an uncorrectable NVLink error occurred") \
	row(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, "the PTX compiler library was not found") \
	row(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "the PTX is of a version that the driver does not know") \
	row(CUDA_ERROR_JIT_COMPILATION_DISABLED, "PTX compilation is disabled") \
	row(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY, "the execution affinity is not supported") \
	row(CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC, "synchronising from device code is not supported") \
	row(CUDA_ERROR_CONTAINED, "an error was contained by the device") \
	row(CUDA_ERROR_INVALID_SOURCE, "the device code source is not valid") \
	row(CUDA_ERROR_FILE_NOT_FOUND, "the file was not found") \
	row(CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND, "a symbol of a shared object was not found") \
	row(CUDA_ERROR_SHARED_OBJECT_INIT_FAILED, "a shared object could not be initialised") \
	row(CUDA_ERROR_OPERATING_SYSTEM, "a call of the operating system failed") \
	row(CUDA_ERROR_INVALID_HANDLE, "the handle is not valid") \
	row(CUDA_ERROR_ILLEGAL_STATE, "the object is in a state that does not allow this") \
	row(CUDA_ERROR_LOSSY_QUERY, "the query would lose information") \
	row(CUDA_ERROR_NOT_FOUND, "the name was not found") \
	row(CUDA_ERROR_NOT_READY, "the work is not finished yet") \
	row(CUDA_ERROR_ILLEGAL_ADDRESS, "device code touched memory that it may not touch") \
	row(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "the launch asks for more resources than there are") \
	row(CUDA_ERROR_LAUNCH_TIMEOUT, "the work took longer than its limit") \
	row(CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING, "the launch mixes texturing modes that do not go together") \
	row(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled") \
	row(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "peer access is not enabled") \
	row(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, "the primary context is already active") \
	row(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the context has been destroyed") \
	row(CUDA_ERROR_ASSERT, "an assertion in device code failed") \
	row(CUDA_ERROR_TOO_MANY_PEERS, "there is no room for another peer mapping") \
	row(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "the host memory is already registered") \
	row(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "the host memory is not registered") \
	row(CUDA_ERROR_HARDWARE_STACK_ERROR, "the device stack is corrupt or overflowed") \
	row(CUDA_ERROR_ILLEGAL_INSTRUCTION, "device code held an illegal instruction") \
	row(CUDA_ERROR_MISALIGNED_ADDRESS, "device code used a misaligned address") \
	row(CUDA_ERROR_INVALID_ADDRESS_SPACE, "device code used an address of the wrong state space") \
	row(CUDA_ERROR_INVALID_PC, "the program counter left the code") \
	row(CUDA_ERROR_LAUNCH_FAILED, "device code failed") \
	row(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "the cooperative launch is larger than the device") \
	row(CUDA_ERROR_TENSOR_MEMORY_LEAK, "tensor memory was not given back by a kernel") \
	row(CUDA_ERROR_NOT_PERMITTED, "the operation is not permitted") \
	row(CUDA_ERROR_NOT_SUPPORTED, "the operation is not supported") \
	row(CUDA_ERROR_SYSTEM_NOT_READY, "the system is not ready for CUDA") \
	row(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "driver and kernel module do not match") \
	row(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, "compatibility mode is not supported on the device") \
	row(CUDA_ERROR_MPS_CONNECTION_FAILED, "the MPS client could not connect") \
	row(CUDA_ERROR_MPS_RPC_FAILURE, "an MPS call failed") \
	row(CUDA_ERROR_MPS_SERVER_NOT_READY, "the MPS server is not ready") \
	row(CUDA_ERROR_MPS_MAX_CLIENTS_REACHED, "the MPS server has no room for another client") \
	row(CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED, "the MPS server has no room for another connection") \
	row(CUDA_ERROR_MPS_CLIENT_TERMINATED, "the MPS client was ended") \
	row(CUDA_ERROR_CDP_NOT_SUPPORTED, "launching from device code is not supported") \
	row(CUDA_ERROR_CDP_VERSION_MISMATCH, "device code was built for another launch interface") \
	row(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the operation is not allowed while the stream captures") \
	row(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was invalidated by an earlier error") \
	row(CUDA_ERROR_STREAM_CAPTURE_MERGE, "the operation would merge two captures") \
	row(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the stream did not begin the capture") \
	row(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "the capture holds a fork that was never joined") \
	row(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "the operation would cross out of the capture") \
	row(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the operation would depend on the legacy stream while it captures") \
	row(CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a capture") \
	row(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture belongs to another thread") \
	row(CUDA_ERROR_TIMEOUT, "the wait took longer than its limit") \
	row(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph update does not fit the graph") \
	row(CUDA_ERROR_EXTERNAL_DEVICE, "an external device failed") \
	row(CUDA_ERROR_INVALID_CLUSTER_SIZE, "the cluster size is not valid") \
	row(CUDA_ERROR_FUNCTION_NOT_LOADED, "the function has not been loaded") \
	row(CUDA_ERROR_INVALID_RESOURCE_TYPE, "the resource type is not valid here") \
	row(CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION, "the resource configuration is not valid") \
	row(CUDA_ERROR_KEY_ROTATION, "the key was rotated") \
	row(CUDA_ERROR_UNKNOWN, "an unknown error")

static const char *describe(CUresult code, bool name)
{
#define ROW(code_, words)  \
	case code_:        \
		return name ? #code_ : words;
	switch (code) {
		ERRORS(ROW)
	}
	return NULL;
}

static CUresult answer(CUresult code, const char **text, bool name)
{
	if (!text)
		return CUDA_ERROR_INVALID_VALUE;
	*text = describe(code, name);
	return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API(cuGetErrorName, CUresult code, const char **text)
{
	SIM_ENTER_EARLY(cuGetErrorName);
	return answer(code, text, true);
}

SIM_API(cuGetErrorString, CUresult code, const char **text)
{
	SIM_ENTER_EARLY(cuGetErrorString);
	return answer(code, text, false);
}
