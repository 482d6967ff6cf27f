// SPDX-License-Identifier: GPL-2.0-only
/* The fake driver: contexts, streams, events, reports. */
#include "emuv_sim_table.h"
#include "fake_internal.h"

/* ---- contexts, streams, events ---- */

static CUresult context_create(CUcontext *context, unsigned int flags, CUdevice device)
{
	uint64_t handle = 0;
	CUresult result;

	(void)flags;
	BEGIN();
	LOCK();
	result = fake_place(FAKE_CONTEXT, device, fake.context_bytes, NULL, &handle);
	UNLOCK();
	if (!result) {
		*context = (CUcontext)(uintptr_t)handle;
		fake_stack[fake_depth++] = *context;
	}
	return result;
}

static CUresult vdpau_context(CUcontext *context, unsigned int flags, CUdevice device,
			      VdpDevice vdpau, VdpGetProcAddress *vdpau_calls)
{
	(void)vdpau;
	(void)vdpau_calls;
	return context_create(context, flags, device);
}

static void destroy_context(CUcontext context)
{
	for (size_t i = 0; i < FAKE_OBJECTS; i++)
		if (fake.objects[i].kind && fake.objects[i].kind != FAKE_POOLED &&
		    fake.objects[i].context == context)
			fake_drop(&fake.objects[i]);
	fake_drop(OBJECT(context, FAKE_CONTEXT));
}

static void (*after_destroy)(void);

void fake_after_destroy(void (*callback)(void))
{
	after_destroy = callback;
}

static CUresult context_destroy(CUcontext context)
{
	fake_object_t *o;

	BEGIN();
	LOCK();
	o = OBJECT(context, FAKE_CONTEXT);
	if (o)
		destroy_context(context);
	UNLOCK();
	if (o && fake_current() == context)
		fake_depth--;
	if (o && after_destroy)
		after_destroy();
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult primary_retain(CUcontext *context, CUdevice device)
{
	uint64_t handle = 0;
	CUresult result = CUDA_SUCCESS;

	BEGIN();
	LOCK();
	if (!fake.primary[device]) {
		result = fake_place(FAKE_CONTEXT, device, fake.context_bytes, NULL, &handle);
		fake.primary[device] = (CUcontext)(uintptr_t)handle;
	}
	if (!result) {
		fake.primary_references[device]++;
		*context = fake.primary[device];
	}
	UNLOCK();
	return result;
}

static CUresult primary_gone(CUdevice device, bool reset)
{
	CUresult result = CUDA_ERROR_INVALID_CONTEXT;

	LOCK();
	if (fake.primary[device]) {
		fake.primary_references[device] -= !reset;
		if (reset || !fake.primary_references[device]) {
			destroy_context(fake.primary[device]);
			fake.primary[device] = NULL;
			fake.primary_references[device] = 0;
		}
		result = CUDA_SUCCESS;
	}
	UNLOCK();
	return result;
}

static CUresult primary_release(CUdevice device)
{
	BEGIN();
	return primary_gone(device, false);
}

static CUresult primary_reset(CUdevice device)
{
	BEGIN();
	return primary_gone(device, true);
}

static CUresult primary_state(CUdevice device, unsigned int *flags, int *active)
{
	BEGIN();
	LOCK();
	*flags = 0;
	*active = fake.primary[device] != NULL;
	UNLOCK();
	return CUDA_SUCCESS;
}

static CUresult green_create(CUgreenCtx *green, CUdevResourceDesc resources, CUdevice device,
			     unsigned int flags)
{
	CUcontext primary;
	CUresult result;

	(void)resources, (void)flags;
	BEGIN();
	result = primary_retain(&primary, device);
	LOCK();
	if (!result)
		*green = (CUgreenCtx)(uintptr_t)fake_make(FAKE_GREEN, device, 0, NULL);
	UNLOCK();
	return result;
}

static CUresult green_destroy(CUgreenCtx green)
{
	fake_object_t *o;
	CUdevice device = 0;

	BEGIN();
	LOCK();
	o = OBJECT(green, FAKE_GREEN);
	if (o) {
		device = o->device;
		fake_drop(o);
	}
	UNLOCK();
	return o ? primary_gone(device, false) : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult get_current(CUcontext *context)
{
	BEGIN();
	*context = fake_current();
	return CUDA_SUCCESS;
}

static CUresult get_device(CUdevice *device)
{
	bool known;

	BEGIN();
	LOCK();
	known = fake_here(device);
	UNLOCK();
	return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult push(CUcontext context)
{
	bool known;

	BEGIN();
	LOCK();
	known = OBJECT(context, FAKE_CONTEXT) != NULL;
	UNLOCK();
	if (!known || fake_depth == 8)
		return CUDA_ERROR_INVALID_CONTEXT;
	fake_stack[fake_depth++] = context;
	return CUDA_SUCCESS;
}

static CUresult pop(CUcontext *context)
{
	BEGIN();
	if (!fake_depth)
		return CUDA_ERROR_INVALID_CONTEXT;
	*context = fake_stack[--fake_depth];
	return CUDA_SUCCESS;
}

static CUresult stream_create(CUstream *stream, unsigned int flags)
{
	CUdevice device;
	bool known;

	(void)flags;
	BEGIN();
	LOCK();
	known = fake_here(&device);
	if (known)
		*stream = (CUstream)(uintptr_t)fake_make(FAKE_STREAM, device, 0, fake_current());
	UNLOCK();
	return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult stream_context(CUstream stream, CUcontext *context)
{
	const fake_object_t *o;

	BEGIN();
	LOCK();
	o = OBJECT(stream, FAKE_STREAM);
	if (o)
		*context = o->context;
	UNLOCK();
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult stream_synchronize(CUstream stream)
{
	(void)stream;
	BEGIN();
	return CUDA_SUCCESS;
}

static CUresult stream_query(CUstream stream)
{
	const fake_object_t *o;

	BEGIN();
	LOCK();
	o = OBJECT(stream, FAKE_STREAM);
	UNLOCK();
	/* Only emuV's own stream is asked, and what is in it is never held. */
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult stream_destroy(CUstream stream)
{
	BEGIN();
	return fake_destroy((uint64_t)(uintptr_t)stream, FAKE_STREAM);
}

static CUresult stream_capturing(CUstream stream, CUstreamCaptureStatus *status)
{
	(void)stream;
	BEGIN();
	*status = __atomic_load_n(&fake.capturing, __ATOMIC_RELAXED) ?
			  CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
	return CUDA_SUCCESS;
}

static CUresult event_create(CUevent *event, unsigned int flags)
{
	CUdevice device;
	bool known;

	(void)flags;
	BEGIN();
	LOCK();
	known = fake_here(&device);
	if (known)
		*event = (CUevent)(uintptr_t)fake_make(FAKE_EVENT, device, 0, fake_current());
	UNLOCK();
	return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult event_record(CUevent event, CUstream stream)
{
	const fake_object_t *o;

	(void)stream;
	BEGIN();
	LOCK();
	o = OBJECT(event, FAKE_EVENT);
	UNLOCK();
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult event_query(CUevent event)
{
	const fake_object_t *o;

	BEGIN();
	LOCK();
	o = OBJECT(event, FAKE_EVENT);
	UNLOCK();
	if (!o)
		return CUDA_ERROR_INVALID_HANDLE;
	return __atomic_load_n(&fake.held, __ATOMIC_RELAXED) ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

static CUresult event_destroy(CUevent event)
{
	BEGIN();
	return fake_destroy((uint64_t)(uintptr_t)event, FAKE_EVENT);
}
/* ---- reports ---- */

static CUresult mem_info(size_t *free_bytes, size_t *total)
{
	CUdevice device;
	bool known;

	BEGIN();
	LOCK();
	known = fake_here(&device);
	if (known) {
		*free_bytes = fake.card_bytes - fake.physical[device];
		*total = fake.card_bytes;
	}
	UNLOCK();
	return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult total_mem(size_t *bytes, CUdevice device)
{
	BEGIN();
	if (device < 0 || device >= FAKE_DEVICES)
		return CUDA_ERROR_INVALID_DEVICE;
	*bytes = fake.card_bytes;
	return CUDA_SUCCESS;
}

static CUresult device_used(CUdevice device, uint64_t *bytes)
{
	LOCK();
	*bytes = fake.physical[device];
	UNLOCK();
	return CUDA_SUCCESS;
}

static CUresult export_table(const void **table, const CUuuid *id)
{
	static const emuv_sim_table_t sim = { .size = sizeof sim, .device_used = device_used };

	(void)id;
	BEGIN();
	*table = &sim;
	return CUDA_SUCCESS;
}

static CUresult device_count(int *count)
{
	BEGIN();
	*count = FAKE_DEVICES;
	return CUDA_SUCCESS;
}

void fake_install_contexts(void)
{
	g_real.cuCtxCreate_v2 = context_create;
	g_real.cuGLCtxCreate = g_real.cuGLCtxCreate_v2 = context_create;
	g_real.cuVDPAUCtxCreate = g_real.cuVDPAUCtxCreate_v2 = vdpau_context;
	g_real.cuCtxDestroy_v2 = context_destroy;
	g_real.cuDevicePrimaryCtxRetain = primary_retain;
	g_real.cuDevicePrimaryCtxRelease_v2 = primary_release;
	g_real.cuDevicePrimaryCtxReset_v2 = primary_reset;
	g_real.cuDevicePrimaryCtxGetState = primary_state;
	g_real.cuGreenCtxCreate = green_create;
	g_real.cuGreenCtxDestroy = green_destroy;
	g_real.cuCtxGetCurrent = get_current;
	g_real.cuCtxGetDevice = get_device;
	g_real.cuCtxPushCurrent_v2 = push;
	g_real.cuCtxPopCurrent_v2 = pop;
	g_real.cuStreamCreate = stream_create;
	g_real.cuStreamGetCtx = stream_context;
	g_real.cuStreamSynchronize = stream_synchronize;
	g_real.cuStreamQuery = stream_query;
	g_real.cuStreamDestroy_v2 = stream_destroy;
	g_real.cuStreamIsCapturing = g_real.cuStreamIsCapturing_ptsz = stream_capturing;
	g_real.cuEventCreate = event_create;
	g_real.cuEventRecord = g_real.cuEventRecord_ptsz = event_record;
	g_real.cuEventQuery = event_query;
	g_real.cuEventDestroy_v2 = event_destroy;
	g_real.cuMemGetInfo_v2 = mem_info;
	g_real.cuDeviceTotalMem_v2 = total_mem;
	g_real.cuDeviceGetCount = device_count;
	g_real.cuGetExportTable = export_table;
}
