/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cudaGetErrorName and cudaGetErrorString.  One row a code of cudaError_t; the
 * descriptions are the stand-in's own words.
 */
#include "cudart.h"

/* clang-format off */
#define ERRORS(row) \
	row(cudaSuccess, 0, "no error") \
	row(cudaErrorInvalidValue, 1, "an argument is not valid") \
	row(cudaErrorMemoryAllocation, 2, "not enough memory") \
	row(cudaErrorInitializationError, 3, "the driver could not be initialised") \
	row(cudaErrorCudartUnloading, 4, "the driver is shutting down") \
	row(cudaErrorProfilerDisabled, 5, "profiling is not in use") \
	row(cudaErrorProfilerNotInitialized, 6, "the profiler has not been initialised") \
	row(cudaErrorProfilerAlreadyStarted, 7, "the profiler is already running") \
	row(cudaErrorProfilerAlreadyStopped, 8, "the profiler is already stopped") \
	row(cudaErrorInvalidConfiguration, 9, "the launch configuration is not valid") \
	row(cudaErrorInvalidPitchValue, 12, "the pitch is not valid") \
	row(cudaErrorInvalidSymbol, 13, "the symbol is no device variable") \
	row(cudaErrorInvalidHostPointer, 16, "the host pointer is not valid") \
	row(cudaErrorInvalidDevicePointer, 17, "the device pointer is not valid") \
	row(cudaErrorInvalidTexture, 18, "the texture is not valid") \
	row(cudaErrorInvalidTextureBinding, 19, "the texture binding is not valid") \
	row(cudaErrorInvalidChannelDescriptor, 20, "the channel description is not valid") \
	row(cudaErrorInvalidMemcpyDirection, 21, "the direction of the copy is not valid") \
	row(cudaErrorAddressOfConstant, 22, "the address of a constant was taken") \
	row(cudaErrorTextureFetchFailed, 23, "the texture could not be read") \
	row(cudaErrorTextureNotBound, 24, "the texture is not bound") \
	row(cudaErrorSynchronizationError, 25, "a synchronisation failed") \
	row(cudaErrorInvalidFilterSetting, 26, "the filter mode is not valid") \
	row(cudaErrorInvalidNormSetting, 27, "the normalisation mode is not valid") \
	row(cudaErrorMixedDeviceExecution, 28, "device code and emulated code do not mix") \
	row(cudaErrorNotYetImplemented, 31, "this is not implemented yet") \
	row(cudaErrorMemoryValueTooLarge, 32, "the memory value is too large") \
	row(cudaErrorStubLibrary, 34, "a stub library was loaded instead of the driver") \
	row(cudaErrorInsufficientDriver, 35, "there is no driver, or it is too old for this runtime") \
	row(cudaErrorCallRequiresNewerDriver, 36, "the call needs a newer driver") \
	row(cudaErrorInvalidSurface, 37, "the surface is not valid") \
	row(cudaErrorDuplicateVariableName, 43, "two variables have the same name") \
	row(cudaErrorDuplicateTextureName, 44, "two textures have the same name") \
	row(cudaErrorDuplicateSurfaceName, 45, "two surfaces have the same name") \
	row(cudaErrorDevicesUnavailable, 46, "the device is busy or unavailable") \
	row(cudaErrorIncompatibleDriverContext, 49, "the current context does not fit this runtime") \
	row(cudaErrorMissingConfiguration, 52, "a kernel was launched without a configuration") \
	row(cudaErrorPriorLaunchFailure, 53, "an earlier launch failed") \
	row(cudaErrorLaunchMaxDepthExceeded, 65, "launches are nested too deeply") \
	row(cudaErrorLaunchFileScopedTex, 66, "a nested launch uses a texture of file scope") \
	row(cudaErrorLaunchFileScopedSurf, 67, "a nested launch uses a surface of file scope") \
	row(cudaErrorSyncDepthExceeded, 68, "nested synchronisation is too deep") \
	row(cudaErrorLaunchPendingCountExceeded, 69, "too many nested launches are pending") \
	row(cudaErrorInvalidDeviceFunction, 98, "the function is no kernel, or not for this device") \
	row(cudaErrorNoDevice, 100, "there is no CUDA device") \
	row(cudaErrorInvalidDevice, 101, "there is no such device") \
	row(cudaErrorDeviceNotLicensed, 102, "the device lacks a licence") \
	row(cudaErrorSoftwareValidityNotEstablished, 103, "the software's validity is not established") \
	row(cudaErrorStartupFailure, 127, "the runtime could not start") \
	row(cudaErrorInvalidKernelImage, 200, "the module image is not valid") \
	row(cudaErrorDeviceUninitialized, 201, "there is no current context, or the handle is no context") \
	row(cudaErrorMapBufferObjectFailed, 205, "mapping failed") \
	row(cudaErrorUnmapBufferObjectFailed, 206, "unmapping failed") \
	row(cudaErrorArrayIsMapped, 207, "the array is mapped") \
	row(cudaErrorAlreadyMapped, 208, "the resource is already mapped") \
	row(cudaErrorNoKernelImageForDevice, 209, "the image has no code for this device") \
	row(cudaErrorAlreadyAcquired, 210, "the resource is already acquired") \
	row(cudaErrorNotMapped, 211, "the resource is not mapped") \
	row(cudaErrorNotMappedAsArray, 212, "the resource is not mapped as an array") \
	row(cudaErrorNotMappedAsPointer, 213, "the resource is not mapped as a pointer") \
	row(cudaErrorECCUncorrectable, 214, "an uncorrectable ECC error occurred") \
	row(cudaErrorUnsupportedLimit, 215, "the device does not have this limit") \
	row(cudaErrorDeviceAlreadyInUse, 216, "the context is in use by another thread") \
	row(cudaErrorPeerAccessUnsupported, 217, "the devices cannot access each other") \
	row(cudaErrorInvalidPtx, 218, "the PTX text is not valid") \
	row(cudaErrorInvalidGraphicsContext, 219, "the graphics context is not valid") \
	row(cudaErrorNvlinkUncorrectable, 220, "an uncorrectable NVLink error occurred") \
	row(cudaErrorJitCompilerNotFound, 221, "the PTX compiler library was not found") \
	row(cudaErrorUnsupportedPtxVersion, 222, "the PTX is of a version that the driver does not know") \
	row(cudaErrorJitCompilationDisabled, 223, "PTX compilation is disabled") \
	row(cudaErrorUnsupportedExecAffinity, 224, "the execution affinity is not supported") \
	row(cudaErrorUnsupportedDevSideSync, 225, "synchronising from device code is not supported") \
	row(cudaErrorContained, 226, "an error was contained by the device") \
	row(cudaErrorInvalidSource, 300, "the device code source is not valid") \
	row(cudaErrorFileNotFound, 301, "the file was not found") \
	row(cudaErrorSharedObjectSymbolNotFound, 302, "a symbol of a shared object was not found") \
	row(cudaErrorSharedObjectInitFailed, 303, "a shared object could not be initialised") \
	row(cudaErrorOperatingSystem, 304, "a call of the operating system failed") \
	row(cudaErrorInvalidResourceHandle, 400, "the handle is not valid") \
	row(cudaErrorIllegalState, 401, "the object is in a state that does not allow this") \
	row(cudaErrorLossyQuery, 402, "the query would lose information") \
	row(cudaErrorSymbolNotFound, 500, "the name was not found") \
	row(cudaErrorNotReady, 600, "the work is not finished yet") \
	row(cudaErrorIllegalAddress, 700, "device code touched memory that it may not touch") \
	row(cudaErrorLaunchOutOfResources, 701, "the launch asks for more resources than there are") \
	row(cudaErrorLaunchTimeout, 702, "the work took longer than its limit") \
	row(cudaErrorLaunchIncompatibleTexturing, 703, "the launch mixes texturing modes that do not go together") \
	row(cudaErrorPeerAccessAlreadyEnabled, 704, "peer access is already enabled") \
	row(cudaErrorPeerAccessNotEnabled, 705, "peer access is not enabled") \
	row(cudaErrorSetOnActiveProcess, 708, "the primary context is already active") \
	row(cudaErrorContextIsDestroyed, 709, "the context has been destroyed") \
	row(cudaErrorAssert, 710, "an assertion in device code failed") \
	row(cudaErrorTooManyPeers, 711, "there is no room for another peer mapping") \
	row(cudaErrorHostMemoryAlreadyRegistered, 712, "the host memory is already registered") \
	row(cudaErrorHostMemoryNotRegistered, 713, "the host memory is not registered") \
	row(cudaErrorHardwareStackError, 714, "the device stack is corrupt or overflowed") \
	row(cudaErrorIllegalInstruction, 715, "device code held an illegal instruction") \
	row(cudaErrorMisalignedAddress, 716, "device code used a misaligned address") \
	row(cudaErrorInvalidAddressSpace, 717, "device code used an address of the wrong state space") \
	row(cudaErrorInvalidPc, 718, "the program counter left the code") \
	row(cudaErrorLaunchFailure, 719, "device code failed") \
	row(cudaErrorCooperativeLaunchTooLarge, 720, "the cooperative launch is larger than the device") \
	row(cudaErrorTensorMemoryLeak, 721, "tensor memory was not given back by a kernel") \
	row(cudaErrorNotPermitted, 800, "the operation is not permitted") \
	row(cudaErrorNotSupported, 801, "the operation is not supported") \
	row(cudaErrorSystemNotReady, 802, "the system is not ready for CUDA") \
	row(cudaErrorSystemDriverMismatch, 803, "driver and kernel module do not match") \
	row(cudaErrorCompatNotSupportedOnDevice, 804, "compatibility mode is not supported on the device") \
	row(cudaErrorMpsConnectionFailed, 805, "the MPS client could not connect") \
	row(cudaErrorMpsRpcFailure, 806, "an MPS call failed") \
	row(cudaErrorMpsServerNotReady, 807, "the MPS server is not ready") \
	row(cudaErrorMpsMaxClientsReached, 808, "the MPS server has no room for another client") \
	row(cudaErrorMpsMaxConnectionsReached, 809, "the MPS server has no room for another connection") \
	row(cudaErrorMpsClientTerminated, 810, "the MPS client was ended") \
	row(cudaErrorCdpNotSupported, 811, "launching from device code is not supported") \
	row(cudaErrorCdpVersionMismatch, 812, "device code was built for another launch interface") \
	row(cudaErrorStreamCaptureUnsupported, 900, "the operation is not allowed while the stream captures") \
	row(cudaErrorStreamCaptureInvalidated, 901, "the capture was invalidated by an earlier error") \
	row(cudaErrorStreamCaptureMerge, 902, "the operation would merge two captures") \
	row(cudaErrorStreamCaptureUnmatched, 903, "the stream did not begin the capture") \
	row(cudaErrorStreamCaptureUnjoined, 904, "the capture holds a fork that was never joined") \
	row(cudaErrorStreamCaptureIsolation, 905, "the operation would cross out of the capture") \
	row(cudaErrorStreamCaptureImplicit, 906, "the operation would depend on the legacy stream while it captures") \
	row(cudaErrorCapturedEvent, 907, "the event was last recorded in a capture") \
	row(cudaErrorStreamCaptureWrongThread, 908, "the capture belongs to another thread") \
	row(cudaErrorTimeout, 909, "the wait took longer than its limit") \
	row(cudaErrorGraphExecUpdateFailure, 910, "the graph update does not fit the graph") \
	row(cudaErrorExternalDevice, 911, "an external device failed") \
	row(cudaErrorInvalidClusterSize, 912, "the cluster size is not valid") \
	row(cudaErrorFunctionNotLoaded, 913, "the function has not been loaded") \
	row(cudaErrorInvalidResourceType, 914, "the resource type is not valid here") \
	row(cudaErrorInvalidResourceConfiguration, 915, "the resource configuration is not valid") \
	row(cudaErrorUnknown, 999, "an unknown error") \
	row(cudaErrorApiFailureBase, 10000, "an error of a runtime before 4.1")
/* clang-format on */

static const char *describe(cudaError_t code, bool name)
{
#define ROW(name_, code_, words) \
	case code_:              \
		return name ? #name_ : words;
	switch (code) {
		ERRORS(ROW)
	}
	return name ? "cudaErrorUnrecognized" : "an unrecognised error code";
}

RT_EXPORT const char *cudaGetErrorName(cudaError_t code);
RT_EXPORT const char *cudaGetErrorName(cudaError_t code)
{
	RT_COUNT(cudaGetErrorName);
	return describe(code, true);
}

RT_EXPORT const char *cudaGetErrorString(cudaError_t code);
RT_EXPORT const char *cudaGetErrorString(cudaError_t code)
{
	RT_COUNT(cudaGetErrorString);
	return describe(code, false);
}
