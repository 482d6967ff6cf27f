/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a thread's calls start from and end with: the driver, a context, an error.
 *
 * Invariants
 *   - The driver is loaded and initialised once; a failure is final.
 *   - A thread that has a current context (the program's own, of the driver API)
 *     works in that one.  A thread that has none gets the primary context of its
 *     device, which is retained once for the process.
 *   - The last error of a thread is the last code but success and "not ready" that
 *     rt_end saw.  An error that ruined the context stays until the device is reset.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "cudart.h"

#define MAX_DEVICES 64

static struct {
	pthread_once_t once;
	cudaError_t error;
	int device_count;
	_Atomic(CUcontext) primary[MAX_DEVICES]; /* NULL: not retained */
} g_state = { .once = PTHREAD_ONCE_INIT };

static _Thread_local struct {
	cudaError_t last;
	int device;
} t_thread;

static void start(void)
{
	if (!rt_driver_load()) {
		g_state.error = rt_fail(RT_ERROR_INSUFFICIENT_DRIVER, "there is no libcuda.so.1");
		return;
	}
	g_state.error = rt_driver.cuInit(0);
	if (g_state.error == 0)
		g_state.error = rt_driver.cuDeviceGetCount(&g_state.device_count);
	if (g_state.error == 0 && g_state.device_count == 0)
		g_state.error = CUDA_ERROR_NO_DEVICE;
}

cudaError_t rt_ready(void)
{
	pthread_once(&g_state.once, start);
	return g_state.error;
}

cudaError_t rt_primary(int device, CUcontext *context)
{
	CUcontext none = NULL;
	cudaError_t result;

	if (device < 0 || device >= g_state.device_count || device >= MAX_DEVICES)
		return CUDA_ERROR_INVALID_DEVICE;
	*context = atomic_load(&g_state.primary[device]);
	if (*context)
		return 0;
	result = rt_driver.cuDevicePrimaryCtxRetain(context, device);
	/* Of two threads that come here at once, one gives its reference back. */
	if (result == 0 && !atomic_compare_exchange_strong(&g_state.primary[device], &none, *context))
		rt_driver.cuDevicePrimaryCtxRelease_v2(device);
	return result;
}

cudaError_t rt_context(void)
{
	CUcontext context = NULL;
	cudaError_t result = rt_ready();

	if (result != 0)
		return result;
	if (rt_driver.cuCtxGetCurrent(&context) == CUDA_SUCCESS && context)
		return 0;
	result = rt_primary(t_thread.device, &context);
	return result == 0 ? (cudaError_t)rt_driver.cuCtxSetCurrent(context) : result;
}

/* Does the context take no more work after such an error? */
static bool ruins(cudaError_t code)
{
	switch (code) {
	case CUDA_ERROR_ECC_UNCORRECTABLE:
	case CUDA_ERROR_ILLEGAL_ADDRESS:
	case CUDA_ERROR_LAUNCH_TIMEOUT:
	case CUDA_ERROR_ASSERT:
	case CUDA_ERROR_HARDWARE_STACK_ERROR:
	case CUDA_ERROR_ILLEGAL_INSTRUCTION:
	case CUDA_ERROR_MISALIGNED_ADDRESS:
	case CUDA_ERROR_INVALID_ADDRESS_SPACE:
	case CUDA_ERROR_INVALID_PC:
	case CUDA_ERROR_LAUNCH_FAILED:
		return true;
	}
	return false;
}

cudaError_t rt_device(CUdevice *device)
{
	CUcontext context = NULL;
	CUresult result;

	*device = t_thread.device;
	if (rt_driver.cuCtxGetCurrent(&context) != CUDA_SUCCESS || !context)
		return 0;
	result = rt_driver.cuCtxGetDevice(device);
	if (ruins(result)) { /* a question is answered all the same, and a reset needs it */
		*device = t_thread.device;
		return 0;
	}
	return result;
}

cudaError_t rt_end(int code)
{
	if (__builtin_expect(code != 0, 0) && code != CUDA_ERROR_NOT_READY)
		t_thread.last = code;
	return code;
}

RT_API(cudaGetLastError, void)
{
	cudaError_t last = t_thread.last;

	RT_COUNT(cudaGetLastError);
	if (!ruins(last))
		t_thread.last = 0;
	return last;
}

RT_API(cudaPeekAtLastError, void)
{
	RT_COUNT(cudaPeekAtLastError);
	return t_thread.last;
}

/* ---- devices of threads ---- */

RT_API(cudaGetDeviceCount, int *count)
{
	cudaError_t result = rt_ready();

	RT_COUNT(cudaGetDeviceCount);
	if (!count)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	*count = result == 0 ? g_state.device_count : 0;
	return rt_end(result);
}

RT_API(cudaGetDevice, int *device)
{
	RT_READY(cudaGetDevice);
	if (!device)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	return rt_end(rt_device(device));
}

RT_API(cudaSetDevice, int device)
{
	CUcontext context;
	cudaError_t result;

	RT_READY(cudaSetDevice);
	result = rt_primary(device, &context);
	if (result == 0)
		result = rt_driver.cuCtxSetCurrent(context);
	if (result == 0)
		t_thread.device = device;
	return rt_end(result);
}

RT_API(cudaSetValidDevices, int *devices, int count)
{
	RT_READY(cudaSetValidDevices);
	if (count < 0 || (count && !devices))
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	for (int i = 0; i < count; i++)
		if (devices[i] < 0 || devices[i] >= g_state.device_count)
			return rt_end(CUDA_ERROR_INVALID_DEVICE);
	/* The first of them is what a thread starts with that never chose. */
	if (count)
		t_thread.device = devices[0];
	return 0;
}

RT_API(cudaInitDevice, int device, unsigned int device_flags, unsigned int flags)
{
	CUcontext context;
	cudaError_t result = 0;

	RT_READY(cudaInitDevice);
	if (device < 0 || device >= g_state.device_count)
		return rt_end(CUDA_ERROR_INVALID_DEVICE);
	if (flags & ~(unsigned int)cudaInitDeviceFlagsAreValid)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	if (flags & cudaInitDeviceFlagsAreValid)
		result = rt_driver.cuDevicePrimaryCtxSetFlags_v2(
			device, device_flags & ~(unsigned int)cudaDeviceMapHost);
	return rt_end(result == 0 ? rt_primary(device, &context) : result);
}

RT_API(cudaSetDeviceFlags, unsigned int flags)
{
	CUdevice device;
	cudaError_t result;

	RT_READY(cudaSetDeviceFlags);
	result = rt_device(&device);
	if (result == 0)
		result = rt_driver.cuDevicePrimaryCtxSetFlags_v2(
			device, flags & ~(unsigned int)cudaDeviceMapHost);
	return rt_end(result);
}

RT_API(cudaGetDeviceFlags, unsigned int *flags)
{
	CUdevice device;
	cudaError_t result;
	int active;

	RT_READY(cudaGetDeviceFlags);
	if (!flags)
		return rt_end(CUDA_ERROR_INVALID_VALUE);
	result = rt_device(&device);
	if (result == 0)
		result = rt_driver.cuDevicePrimaryCtxGetState(device, flags, &active);
	if (result == 0)
		*flags |= cudaDeviceMapHost; /* always, where addresses are unified */
	return rt_end(result);
}

static cudaError_t device_reset(void)
{
	CUdevice device;
	cudaError_t result = rt_device(&device);

	if (result != 0 || device < 0 || device >= MAX_DEVICES)
		return result ? result : CUDA_ERROR_INVALID_DEVICE;
	if (atomic_exchange(&g_state.primary[device], NULL)) {
		result = rt_driver.cuDevicePrimaryCtxReset_v2(device);
		rt_driver.cuDevicePrimaryCtxRelease_v2(device);
		rt_driver.cuCtxSetCurrent(NULL);
	}
	t_thread.device = device;
	t_thread.last = 0;
	return result;
}

RT_API(cudaDeviceReset, void)
{
	RT_READY(cudaDeviceReset);
	return rt_end(device_reset());
}

#if RT_MAJOR == 12
RT_API(cudaThreadExit, void)
{
	RT_READY(cudaThreadExit);
	return rt_end(device_reset());
}
#endif
