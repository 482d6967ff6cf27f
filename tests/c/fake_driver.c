// SPDX-License-Identifier: GPL-2.0-only
/* The fake driver's state, and what the tests do with it.  See fake_driver.h. */
#include "contexts.h"
#include "deferred.h"
#include "fake_internal.h"
#include "resolve.h"

/* ---- what is not faked ---- */

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#define EMUV_HOOK(export, params, args)        \
	static CUresult absent_##export params \
	{                                      \
		return CUDA_ERROR_NOT_SUPPORTED; \
	}
#define EMUV_USE(export, params, args) EMUV_HOOK(export, params, args)
#include "hooks.def"
#pragma GCC diagnostic pop

emuv_real_t g_real = {
#define EMUV_HOOK(export, params, args) .export = absent_##export,
#define EMUV_USE(export, params, args) .export = absent_##export,
#include "hooks.def"
};

/* device_use.c looks for NVML where the export table does not answer. */
void *emuv_resolve_library(const char *name)
{
	(void)name;
	return NULL;
}

void *emuv_resolve_loaded(const char *name)
{
	(void)name;
	return NULL;
}

/* ---- state ---- */

fake_t fake = { .lock = PTHREAD_MUTEX_INITIALIZER };
_Thread_local CUcontext fake_stack[8];
_Thread_local int fake_depth;
static uint64_t n_calls, fail_at;
static CUresult fail_code;
static const char *struck;
static _Thread_local bool probing;

/* Handles carry their slot; a managed range has room for addresses inside it. */
uint64_t fake_handle(size_t slot)
{
	return (uint64_t)(slot + 1) << 40;
}

fake_object_t *fake_object(uint64_t handle, enum fake_kind kind)
{
	size_t slot = (size_t)((handle >> 40 ? handle >> 40 : handle >> 16) - 1);

	return slot < FAKE_OBJECTS && fake.objects[slot].kind == kind ? &fake.objects[slot] : NULL;
}

void fake_add_physical(CUdevice device, uint64_t bytes)
{
	fake.physical[device] += bytes;
	CHECK(fake.physical[device] <= fake.card_bytes);
	CHECK(fake.physical[device] <= fake.limits[device]); /* the budget, at every instant */
}

uint64_t fake_make(enum fake_kind kind, CUdevice device, uint64_t bytes, CUcontext context)
{
	for (size_t i = 0; i < FAKE_OBJECTS; i++)
		if (!fake.objects[i].kind) {
			fake.objects[i] = (fake_object_t){
				.kind = kind, .device = device, .bytes = bytes, .context = context,
			};
			return fake_handle(i);
		}
	CHECK(!"the fake driver is out of handles");
	return 0;
}

static bool on_card(enum fake_kind kind)
{
	return kind == FAKE_DEVICE || kind == FAKE_POOLED || kind == FAKE_ARRAY ||
	       kind == FAKE_MIPMAP || kind == FAKE_VMM || kind == FAKE_CONTEXT;
}

void fake_drop(fake_object_t *o)
{
	fake.physical[o->device] -= on_card(o->kind) && !o->on_host ? o->bytes : o->resident;
	o->kind = FAKE_NOTHING;
}

CUresult fake_place(enum fake_kind kind, CUdevice device, uint64_t bytes, CUcontext context,
		    uint64_t *handle)
{
	if (bytes > fake.card_bytes - fake.physical[device])
		return CUDA_ERROR_OUT_OF_MEMORY;
	fake_add_physical(device, bytes);
	*handle = fake_make(kind, device, bytes, context);
	return CUDA_SUCCESS;
}

CUcontext fake_current(void)
{
	return fake_depth ? fake_stack[fake_depth - 1] : NULL;
}

CUresult fake_begin(const char *name)
{
	uint64_t n;

	if (!probing) {
		emuv_report_t report;

		/* Takes each lock of the shim: were it held, nobody would come back. */
		probing = true;
		emuv_account_report(0, &report);
		emuv_contexts_primary(0);
		emuv_deferred_gone(emuv_deferred_take((CUcontext)1));
		probing = false;
	}
	n = __atomic_add_fetch(&n_calls, 1, __ATOMIC_RELAXED);
	if (n == __atomic_load_n(&fail_at, __ATOMIC_RELAXED)) {
		struck = name;
		return fail_code;
	}
	return CUDA_SUCCESS;
}

bool fake_here(CUdevice *device)
{
	const fake_object_t *context = fake_current() ? OBJECT(fake_current(), FAKE_CONTEXT) : NULL;

	if (context)
		*device = context->device;
	return context != NULL;
}

CUresult fake_destroy(uint64_t handle, enum fake_kind kind)
{
	fake_object_t *o;

	LOCK();
	o = fake_object(handle, kind);
	if (o)
		fake_drop(o);
	UNLOCK();
	return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* ---- for the tests ---- */

void fake_reset(uint64_t card, uint64_t context)
{
	fake_install_memory();
	fake_install_vmm();
	fake_install_contexts();
	LOCK();
	memset(fake.objects, 0, sizeof fake.objects);
	memset(fake.physical, 0, sizeof fake.physical);
	memset(fake.primary, 0, sizeof fake.primary);
	memset(fake.primary_references, 0, sizeof fake.primary_references);
	for (int i = 0; i < FAKE_DEVICES; i++)
		fake.limits[i] = UINT64_MAX;
	fake.card_bytes = card;
	fake.context_bytes = context;
	UNLOCK();
	fake_depth = 0;
	fake_capture(false);
	fake.pitch_alignment = 512;
	fake.host = (fake_host_t){ .node = true, .node_id = 1, .granularity = MIB(2) };
	fake_hold(false);
	fake_fail(0, CUDA_SUCCESS);
}

void fake_limit(CUdevice device, uint64_t bytes)
{
	LOCK();
	fake.limits[device] = bytes;
	UNLOCK();
}

void fake_state(fake_state_t *state)
{
	memset(state, 0, sizeof *state);
	LOCK();
	for (size_t i = 0; i < FAKE_OBJECTS; i++) {
		state->objects[fake.objects[i].kind] += fake.objects[i].kind != FAKE_NOTHING;
		if (fake.objects[i].kind == FAKE_MANAGED ||
		    (fake.objects[i].kind == FAKE_VMM && fake.objects[i].on_host))
			state->managed[fake.objects[i].device] += fake.objects[i].bytes;
	}
	memcpy(state->physical, fake.physical, sizeof fake.physical);
	UNLOCK();
}

void fake_fail(uint64_t n, CUresult code)
{
	fail_code = code;
	struck = NULL;
	__atomic_store_n(&fail_at, n ? fake_calls() + n : 0, __ATOMIC_RELAXED);
}

const char *fake_struck(void)
{
	return struck;
}

void fake_hold(bool held)
{
	__atomic_store_n(&fake.held, held, __ATOMIC_RELAXED);
}

void fake_capture(bool capturing)
{
	__atomic_store_n(&fake.capturing, capturing, __ATOMIC_RELAXED);
}

void fake_host(const fake_host_t *host)
{
	fake.host = *host;
}

void fake_pitch(uint64_t alignment)
{
	fake.pitch_alignment = alignment;
}

uint64_t fake_resident(CUdeviceptr address)
{
	const fake_object_t *o;
	uint64_t resident = 0;

	LOCK();
	o = fake_object(address, FAKE_MANAGED);
	if (o)
		resident = o->resident;
	UNLOCK();
	return resident;
}

uint64_t fake_calls(void)
{
	return __atomic_load_n(&n_calls, __ATOMIC_RELAXED);
}

void fake_set_current(CUcontext context)
{
	fake_depth = context ? 1 : 0;
	fake_stack[0] = context;
}
