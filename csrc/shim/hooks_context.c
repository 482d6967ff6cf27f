/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Contexts: what one takes of the card by itself is measured when it is made and
 * charged as overhead; when it goes, what it held is released.
 */
#include "contexts.h"
#include "deferred.h"
#include "device_use.h"
#include "hooks.h"
#include "message.h"

typedef struct {
	bool known;
	int whole_card;
	uint64_t bytes;
} use_t;

static use_t measure(CUdevice device)
{
	use_t use = { 0 };

	use.known = emuv_device_used(device, &use.bytes, &use.whole_card);
	return use;
}

static bool in_range(CUdevice device)
{
	return device >= 0 && device < EMUV_MAX_DEVICES;
}

/*
 * A context has come into being: charges what the card has less now than before.
 * False: the budget cannot hold it, and both figures have been said.
 *
 * The whole card's figure also moves with other processes; it is used only where
 * the driver cannot tell processes apart, and never below zero.
 */
static bool charge(CUcontext context, CUdevice device, bool primary, use_t before)
{
	use_t after = measure(device);
	uint64_t overhead = 0, flags = 0;
	emuv_report_t report;
	char vram[32], takes[32], left[32];
	bool held;

	if (before.known && after.known && before.whole_card == after.whole_card) {
		overhead = after.bytes > before.bytes ? after.bytes - before.bytes : 0;
		flags = EMUV_DEVICE_OVERHEAD_KNOWN;
		if (after.whole_card)
			flags |= EMUV_DEVICE_OVERHEAD_UPPER;
	}
	/* Another thread has entered it already. */
	if (!emuv_contexts_add(context, device, primary, overhead))
		return true;
	if (emuv_account_overhead(device, overhead, flags))
		return true;
	emuv_account_report(device, &report);
	held = report.free < report.vram;
	emuv_error("device %d: vram %s%s%s cannot hold the CUDA context, which takes %s", device,
		   emuv_size_text(report.vram, vram), held ? ", of which is left " : "",
		   held ? emuv_size_text(report.free, left) : "", emuv_size_text(overhead, takes));
	emuv_hint("give --vram at least %llu MiB more than the data needs",
		  (unsigned long long)((overhead + (1u << 20) - 1) >> 20));
	return false;
}

/* The context is gone (or could not stay): everything it held is released. */
static void forget(CUcontext context, bool uncharge_overhead)
{
	emuv_context_t gone;

	emuv_deferred_context_gone(context);
	emuv_account_context_gone(context);
	if (emuv_contexts_remove(context, &gone) && uncharge_overhead)
		emuv_account_overhead_gone(gone.device, gone.overhead);
}

CUresult hook_cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	unsigned int flags;
	int active = 0;
	CUcontext made = NULL;
	use_t before = { 0 };
	CUresult result;

	if (!in_range(device) || !context)
		return g_real.cuDevicePrimaryCtxRetain(context, device);
	emuv_account_call(device, EMUV_FN_cuDevicePrimaryCtxRetain);
	if (emuv_contexts_primary(device))
		return g_real.cuDevicePrimaryCtxRetain(context, device);
	if (!g_real.cuDevicePrimaryCtxGetState(device, &flags, &active) && !active)
		before = measure(device);
	result = g_real.cuDevicePrimaryCtxRetain(&made, device);
	if (result)
		return result;
	if (!charge(made, device, true, before)) {
		forget(made, false);
		g_real.cuDevicePrimaryCtxRelease_v2(device);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*context = made;
	return CUDA_SUCCESS;
}

/* After a release or reset: the primary context may be gone. */
static void primary_released(CUdevice device, CUcontext context)
{
	unsigned int flags;
	int active = 1;

	if (context && !g_real.cuDevicePrimaryCtxGetState(device, &flags, &active) && !active)
		forget(context, true);
}

#define PRIMARY_GOES(export)                                                       \
	CUresult hook_##export(CUdevice device)                                    \
	{                                                                          \
		CUcontext context;                                                 \
		CUresult result;                                                   \
		if (!in_range(device))                                             \
			return g_real.export(device);                              \
		emuv_account_call(device, EMUV_FN_##export);                       \
		context = emuv_contexts_primary(device);                           \
		result = g_real.export(device);                                    \
		if (!result)                                                       \
			primary_released(device, context);                         \
		return result;                                                     \
	}
PRIMARY_GOES(cuDevicePrimaryCtxRelease)
PRIMARY_GOES(cuDevicePrimaryCtxRelease_v2)
PRIMARY_GOES(cuDevicePrimaryCtxReset)
PRIMARY_GOES(cuDevicePrimaryCtxReset_v2)

/* A created context; `real` is the driver's call, with `out` to fill. */
#define CREATE(export, real)                                                       \
	do {                                                                       \
		CUcontext made = NULL;                                             \
		CUcontext *out = &made;                                             \
		use_t before;                                                      \
		CUresult result;                                                   \
		if (!in_range(device) || !context) {                               \
			/* Refused by the driver, in its own words. */             \
			out = context;                                             \
			return real;                                               \
		}                                                                  \
		emuv_account_call(device, EMUV_FN_##export);                       \
		before = measure(device);                                          \
		result = real;                                                     \
		if (result)                                                        \
			return result;                                             \
		if (!charge(made, device, false, before)) {                        \
			forget(made, false);                                       \
			g_real.cuCtxDestroy_v2(made);                              \
			return CUDA_ERROR_OUT_OF_MEMORY;                           \
		}                                                                  \
		*context = made;                                                   \
		return CUDA_SUCCESS;                                               \
	} while (0)

CUresult hook_cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device)
{
	CREATE(cuCtxCreate, g_real.cuCtxCreate(out, flags, device));
}

CUresult hook_cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
	CREATE(cuCtxCreate_v2, g_real.cuCtxCreate_v2(out, flags, device));
}

CUresult hook_cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *params, int n_params,
			     unsigned int flags, CUdevice device)
{
	CREATE(cuCtxCreate_v3, g_real.cuCtxCreate_v3(out, params, n_params, flags, device));
}

CUresult hook_cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *params, unsigned int flags,
			     CUdevice device)
{
	CREATE(cuCtxCreate_v4, g_real.cuCtxCreate_v4(out, params, flags, device));
}

#define CONTEXT_GOES(export)                                                       \
	CUresult hook_##export(CUcontext context)                                  \
	{                                                                          \
		CUresult result = g_real.export(context);                          \
		if (!result)                                                       \
			forget(context, true);                                     \
		return result;                                                     \
	}
CONTEXT_GOES(cuCtxDestroy)
CONTEXT_GOES(cuCtxDestroy_v2)

/* Destroys only when the last attachment goes; the driver then no longer knows it. */
CUresult hook_cuCtxDetach(CUcontext context)
{
	CUcontext popped;
	CUresult result = g_real.cuCtxDetach(context);

	if (result)
		return result;
	if (g_real.cuCtxPushCurrent_v2(context))
		forget(context, true);
	else
		g_real.cuCtxPopCurrent_v2(&popped);
	return CUDA_SUCCESS;
}
