/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The libcudart stand-ins: CUDA's public runtime API over the driver.  Internal header.
 *
 * The same sources are built twice, RT_MAJOR 12 and 13, as libcudart.so.12 and .so.13.
 * Nothing here knows the simulated driver's insides: every call goes to the libcuda.so.1
 * that the process has, so that emuV's interposer, where it is there, sits in between.
 * NVIDIA's libcudart checks that a driver is NVIDIA's before it works; this one has no
 * such check, imitates none, and hands out no export table.
 *
 * Rules
 *   - Every function is RT_API(name, params) { ... } and starts with RT_COUNT(name),
 *     RT_READY(name) (the driver is loaded and initialised) or RT_NEED(name) (and the
 *     thread has a context).  All three count the call.
 *   - Every function ends in `return rt_end(code)`, which records an error for the
 *     thread.  Codes of the driver and of the runtime are the same numbers, but for a
 *     few that only the runtime has (RT_ERROR_*).
 *   - Where the last argument is a stream, RT_BOTH makes the legacy and the _ptsz export.
 *   - A row of runtime_api.def with no definition here counts the call and answers
 *     cudaErrorNotSupported (stubs.c).
 */
#ifndef EMUV_CUDART_H
#define EMUV_CUDART_H

#include <stdbool.h>

#include "driver.h"
#include "runtime_abi.h"

/* Codes that the driver has not. */
enum {
	RT_ERROR_INVALID_CONFIGURATION = 9,
	RT_ERROR_INVALID_PITCH = 12,
	RT_ERROR_INVALID_SYMBOL = 13,
	RT_ERROR_INVALID_CHANNEL = 20,
	RT_ERROR_INVALID_DIRECTION = 21,
	RT_ERROR_INSUFFICIENT_DRIVER = 35,
	RT_ERROR_MISSING_CONFIGURATION = 52,
	RT_ERROR_INVALID_FUNCTION = 98,
};

#define RT_EXPORT __attribute__((visibility("default")))
#define RT_API(name, ...)                        \
	RT_EXPORT cudaError_t name(__VA_ARGS__); \
	RT_EXPORT cudaError_t name(__VA_ARGS__)

/* ---- stubs.c: a counter for each function ---- */
enum {
#define EMUV_RUNTIME(name, in_12, in_13) RT_CALL_##name,
#include "runtime_api.def"
#undef EMUV_RUNTIME
	RT_CALLS,
};
void rt_count(int call);
/* One line on stderr where EMUV_SIM_VERBOSE is set; returns the code. */
cudaError_t rt_fail(cudaError_t code, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- state.c: the driver, the thread's device and error ---- */
/* The driver is loaded and initialised, or why not. */
cudaError_t rt_ready(void);
/* And the thread has a current context: its own, or its device's primary one. */
cudaError_t rt_context(void);
/* Retains the device's primary context at the first call. */
cudaError_t rt_primary(int device, CUcontext *context);
/* The device of the calling thread: of its context, where it has one. */
cudaError_t rt_device(CUdevice *device);
/* Records an error of the calling thread; success records nothing. */
cudaError_t rt_end(int code);

#define RT_COUNT(name) rt_count(RT_CALL_##name)
#define RT_FIRST_(name, first)                     \
	do {                                       \
		cudaError_t first_;                \
		rt_count(RT_CALL_##name);          \
		first_ = (first);                  \
		if (first_ != 0)                   \
			return rt_end(first_);     \
	} while (0)
#define RT_READY(name) RT_FIRST_(name, rt_ready())
#define RT_NEED(name) RT_FIRST_(name, rt_context())

#define RT_LIST(...) __VA_ARGS__
/*
 * `name` and `name<suffix>`; the body sees `per_thread`, and calls RT_STREAM(stream)
 * where 0 means the thread's own stream in the second.
 */
#define RT_BOTH(name, suffix, parameters, ...)        \
	RT_API(name, RT_LIST parameters)              \
	{                                             \
		const bool per_thread = false;        \
		(void)per_thread;                     \
		RT_NEED(name);                        \
		__VA_ARGS__                           \
	}                                             \
	RT_API(name##suffix, RT_LIST parameters)      \
	{                                             \
		const bool per_thread = true;         \
		(void)per_thread;                     \
		RT_NEED(name##suffix);                \
		__VA_ARGS__                           \
	}
static inline CUstream rt_stream(CUstream stream, bool per_thread)
{
	return per_thread && !stream ? CU_STREAM_PER_THREAD : stream;
}
#define RT_STREAM(stream) rt_stream(stream, per_thread)
/* What a synchronous call on the default stream ends with. */
#define RT_DEFAULT (per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY)

/* A function that the driver has with the same parameters. */
#define RT_FORWARD(name, driver_name, parameters, arguments)     \
	RT_API(name, RT_LIST parameters)                         \
	{                                                        \
		RT_NEED(name);                                   \
		return rt_end(rt_driver.driver_name arguments);  \
	}

static inline CUdeviceptr rt_address(const void *pointer)
{
	return (CUdeviceptr)(uintptr_t)pointer;
}

/* ---- registration.c: what nvcc's host code registers ---- */
/*
 * The kernel behind a host function's address, or behind a handle that this library
 * gave out; its module is loaded at the first call.
 */
cudaError_t rt_kernel(const void *function, CUkernel *kernel);
/* The same in the calling thread's context. */
cudaError_t rt_function(const void *function, CUfunction *answer);
/* Where a registered variable lies on the calling thread's device. */
cudaError_t rt_symbol(const void *symbol, CUdeviceptr *address, size_t *bytes);
/* `kernel` or `function` may come back as a function's address from now on. */
cudaError_t rt_remember_kernel(CUkernel kernel);
cudaError_t rt_remember_function(CUfunction function);

/* ---- copy3d.c: in the driver's words ---- */
cudaError_t rt_copy_kinds(int kind, CUmemorytype *to, CUmemorytype *from);
cudaError_t rt_copy_3d(const struct cudaMemcpy3DParms *parameters, CUDA_MEMCPY3D *copy);

/* ---- array.c ---- */
/* Bytes of an element of the array, 0 where it is none. */
size_t rt_element_bytes(cudaArray_const_t array);
static inline CUarray rt_array(cudaArray_const_t array)
{
	return (CUarray)(uintptr_t)array;
}

#endif
