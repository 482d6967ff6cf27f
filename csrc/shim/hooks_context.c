/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Contexts: what one takes of the card by itself is measured when it is made and
 * charged as overhead; when it goes, what it held is released.
 */
#include "contexts.h"
#include "deferred.h"
#include "hooks.h"
#include "message.h"
#include "overhead.h"

/* No error of the driver's: a detached context lives on. */
#define STILL_THERE ((CUresult)-1)

#define MOST_LOOKS 100

static emuv_use_t measure(CUdevice device, bool has_context)
{
	return emuv_use_measure(device, has_context, MOST_LOOKS);
}

static bool in_range(CUdevice device)
{
	return device >= 0 && device < EMUV_MAX_DEVICES;
}

static void say_too_small(CUdevice device, uint64_t overhead)
{
	emuv_report_t report;
	char vram[32], takes[32], left[32];
	bool held;

	emuv_account_report(device, &report);
	held = report.room < report.vram;
	emuv_error("device %d: vram %s%s%s cannot hold the CUDA context, which takes %s", device,
		   emuv_size_text(report.vram, vram), held ? ", of which is left " : "",
		   held ? emuv_size_text(report.room, left) : "", emuv_size_text(overhead, takes));
	emuv_hint("give --vram at least %llu MiB more than the data needs",
		  (unsigned long long)((overhead + (1u << 20) - 1) >> 20));
}

/* A context has come into being.  False: the budget cannot hold it, and that has been said. */
static bool charge(CUcontext context, CUdevice device, bool primary, emuv_use_t before)
{
	uint64_t flags;
	uint64_t overhead = emuv_use_grown(device, before, measure(device, true), &flags);
	emuv_context_t entry = {
		.context = context, .device = device, .primary = primary, .overhead = overhead,
		.id = emuv_contexts_id(context),
	};

	switch (emuv_contexts_add(&entry)) {
	case EMUV_CONTEXT_ADDED:
		break;
	case EMUV_CONTEXT_OWES:
		/* Another thread holds it already: too late to refuse it. */
		emuv_account_overhead(device, overhead, flags, true);
		return true;
	case EMUV_CONTEXT_KNOWN:
		return true;
	case EMUV_CONTEXTS_FULL:
		emuv_account_uncounted(device);
		return true;
	}
	if (emuv_account_overhead(device, overhead, flags, false))
		return true;
	say_too_small(device, overhead);
	emuv_contexts_remove(context, &entry);
	return false;
}

static CUresult primary_retain(CUcontext *context, CUdevice device)
{
	uint64_t mark = emuv_account_mark();
	unsigned int flags;
	int active = 0;
	CUcontext made = NULL;
	emuv_use_t before = { 0 };
	CUresult result;

	if (emuv_contexts_primary(device)) {
		result = g_real.cuDevicePrimaryCtxRetain(context, device);
		/* Nobody has used the new one before its first holder came by here. */
		if (!result && emuv_contexts_anew(*context, emuv_contexts_id(*context)))
			emuv_account_context_gone(*context, mark);
		return result;
	}
	if (!g_real.cuDevicePrimaryCtxGetState(device, &flags, &active) && !active)
		before = measure(device, false);
	result = g_real.cuDevicePrimaryCtxRetain(&made, device);
	if (result)
		return result;
	if (!charge(made, device, true, before)) {
		g_real.cuDevicePrimaryCtxRelease_v2(device);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*context = made;
	return CUDA_SUCCESS;
}

CUresult hook_cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	if (!in_range(device) || !context)
		return g_real.cuDevicePrimaryCtxRetain(context, device);
	emuv_account_call(device, EMUV_FN_cuDevicePrimaryCtxRetain);
	return primary_retain(context, device);
}

/*
 * Whether a release destroys the primary context is known only afterwards, and by
 * then another thread may have made it anew, with the same handle: so what it held
 * is told from what the new one holds by when it was entered, and a new one behind
 * an old handle by its id.
 */
typedef struct {
	CUcontext context;
	uint64_t mark;
	unsigned long long id; /* 0: the driver does not say (before CUDA 12.0) */
	uint64_t waiting; /* emuv_deferred_take */
	CUstream side;
} leaving_t;

static leaving_t primary_leaving(CUdevice device)
{
	CUcontext context = emuv_contexts_primary(device);

	return (leaving_t){
		.context = context,
		.mark = emuv_account_mark(),
		.id = emuv_contexts_id(context),
		.waiting = emuv_deferred_take(context),
		.side = emuv_contexts_take_side(context),
	};
}

/* A side stream that was replaced meanwhile may be in use still: it goes with its context. */
static void primary_stayed(const leaving_t *leaving)
{
	emuv_contexts_give_side(leaving->context, leaving->side);
	emuv_deferred_put_back(leaving->waiting);
}

static bool primary_active(CUdevice device)
{
	unsigned int flags;
	int active = 1;

	return g_real.cuDevicePrimaryCtxGetState(device, &flags, &active) || active;
}

/* Whether the table has the context's overhead on its books again. */
static bool takes_over(const emuv_context_t *context)
{
	enum emuv_contexts_added added = emuv_contexts_add(context);

	return added == EMUV_CONTEXT_ADDED || added == EMUV_CONTEXT_OWES;
}

/*
 * The context is gone, unless it has been made anew: then it costs what the old one
 * did, and what the old one held is dropped by who retained the new one.
 */
static void primary_gone(CUdevice device, CUcontext context)
{
	emuv_context_t gone;

	for (;;) {
		uint64_t mark = emuv_account_mark();

		if (primary_active(device))
			return;
		emuv_account_context_gone(context, mark);
		if (!emuv_contexts_remove(context, &gone))
			return;
		/*
		 * A thread may have retained it, knowing it, before it was removed: then
		 * the charge stays with it, unless it has one of its own.
		 */
		if (!primary_active(device) || !takes_over(&gone)) {
			emuv_account_overhead_gone(device, gone.overhead);
			if (!emuv_contexts_any(device))
				emuv_overhead_ends(device);
			return;
		}
	}
}

static void primary_left(CUdevice device, const leaving_t *leaving)
{
	if (primary_active(device) &&
	    (!leaving->id || emuv_contexts_id(leaving->context) == leaving->id)) {
		primary_stayed(leaving);
		return;
	}
	emuv_deferred_gone(leaving->waiting);
	emuv_account_context_gone(leaving->context, leaving->mark);
	primary_gone(device, leaving->context);
}

static CUresult primary_goes(CUdevice device, CUresult (*real)(CUdevice))
{
	leaving_t leaving = primary_leaving(device);
	CUresult result = real(device);

	if (!result && leaving.context)
		primary_left(device, &leaving);
	else
		primary_stayed(&leaving);
	return result;
}

#define PRIMARY_GOES(export)                                 \
	CUresult hook_##export(CUdevice device)              \
	{                                                    \
		if (!in_range(device))                       \
			return g_real.export(device);        \
		emuv_account_call(device, EMUV_FN_##export); \
		return primary_goes(device, g_real.export);  \
	}
PRIMARY_GOES(cuDevicePrimaryCtxRelease)
PRIMARY_GOES(cuDevicePrimaryCtxRelease_v2)
PRIMARY_GOES(cuDevicePrimaryCtxReset)
PRIMARY_GOES(cuDevicePrimaryCtxReset_v2)

/*
 * A green context retains its device's primary one, and may be what brings it into being
 * or ends it.  So emuV holds that one around the call, and gives it back as the program
 * would: whatever the call did to it is seen then.
 */
CUresult hook_cuGreenCtxCreate(CUgreenCtx *context, CUdevResourceDesc resources, CUdevice device,
			       unsigned int flags)
{
	CUcontext primary;
	CUresult result;

	if (!in_range(device) || !context || !resources)
		return g_real.cuGreenCtxCreate(context, resources, device, flags);
	emuv_account_call(device, EMUV_FN_cuGreenCtxCreate);
	result = primary_retain(&primary, device);
	if (result)
		return result;
	result = g_real.cuGreenCtxCreate(context, resources, device, flags);
	primary_goes(device, g_real.cuDevicePrimaryCtxRelease_v2);
	if (!result)
		emuv_overhead_expect(device); /* its own resources are found when room gets short */
	return result;
}

CUresult hook_cuGreenCtxDestroy(CUgreenCtx context)
{
	bool held[EMUV_MAX_DEVICES] = { false }; /* its device is not told */
	CUcontext primary;
	CUresult result;

	for (CUdevice i = 0; i < EMUV_MAX_DEVICES; i++)
		held[i] = emuv_contexts_primary(i) && primary_active(i) &&
			  !g_real.cuDevicePrimaryCtxRetain(&primary, i);
	result = g_real.cuGreenCtxDestroy(context);
	for (CUdevice i = 0; i < EMUV_MAX_DEVICES; i++)
		if (held[i])
			primary_goes(i, g_real.cuDevicePrimaryCtxRelease_v2);
	return result;
}

/* A created context; `real` is the driver's call, with `out` to fill. */
#define CREATE(export, real)                                                       \
	do {                                                                       \
		CUcontext made = NULL;                                             \
		CUcontext *out = &made;                                             \
		emuv_use_t before;                                                      \
		CUresult result;                                                   \
		if (!in_range(device) || !context) {                               \
			/* Refused by the driver, in its own words. */             \
			out = context;                                             \
			return real;                                               \
		}                                                                  \
		emuv_account_call(device, EMUV_FN_##export);                       \
		before = measure(device, false);                                   \
		result = real;                                                     \
		if (result)                                                        \
			return result;                                             \
		if (!charge(made, device, false, before)) {                        \
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

/* For OpenGL and VDPAU: contexts like any other. */
CUresult hook_cuGLCtxCreate(CUcontext *context, unsigned int flags, CUdevice device)
{
	CREATE(cuGLCtxCreate, g_real.cuGLCtxCreate(out, flags, device));
}

CUresult hook_cuGLCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
	CREATE(cuGLCtxCreate_v2, g_real.cuGLCtxCreate_v2(out, flags, device));
}

CUresult hook_cuVDPAUCtxCreate(CUcontext *context, unsigned int flags, CUdevice device,
			       VdpDevice vdpau, VdpGetProcAddress *vdpau_calls)
{
	CREATE(cuVDPAUCtxCreate, g_real.cuVDPAUCtxCreate(out, flags, device, vdpau, vdpau_calls));
}

CUresult hook_cuVDPAUCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device,
				  VdpDevice vdpau, VdpGetProcAddress *vdpau_calls)
{
	CREATE(cuVDPAUCtxCreate_v2,
	       g_real.cuVDPAUCtxCreate_v2(out, flags, device, vdpau, vdpau_calls));
}

/*
 * A created context.  It leaves emuV's table before it is destroyed, because its
 * handle may be another's the moment it is gone; a refused one comes back.
 */
static CUresult destroy(CUcontext context, enum emuv_function function,
			CUresult (*real)(CUcontext))
{
	uint64_t mark = emuv_account_mark();
	uint64_t waiting = emuv_deferred_take(context);
	emuv_context_t gone;
	bool known = emuv_contexts_remove(context, &gone);
	CUresult result;

	if (known)
		emuv_account_call(gone.device, (int)function);
	result = real(context);
	if (result) {
		if (known)
			emuv_contexts_add(&gone);
		emuv_deferred_put_back(waiting);
		return result;
	}
	emuv_deferred_gone(waiting);
	emuv_account_context_gone(context, mark);
	if (known) {
		emuv_account_overhead_gone(gone.device, gone.overhead);
		if (!emuv_contexts_any(gone.device))
			emuv_overhead_ends(gone.device);
	}
	return CUDA_SUCCESS;
}

CUresult hook_cuCtxDestroy(CUcontext context)
{
	return destroy(context, EMUV_FN_cuCtxDestroy, g_real.cuCtxDestroy);
}

CUresult hook_cuCtxDestroy_v2(CUcontext context)
{
	return destroy(context, EMUV_FN_cuCtxDestroy_v2, g_real.cuCtxDestroy_v2);
}

/*
 * One attachment less; the last destroys the context, and the driver then no longer
 * knows it.
 */
static CUresult detach(CUcontext context)
{
	CUcontext popped;
	CUresult result = g_real.cuCtxDetach(context);

	if (result || g_real.cuCtxPushCurrent_v2(context))
		return result;
	g_real.cuCtxPopCurrent_v2(&popped);
	return STILL_THERE;
}

CUresult hook_cuCtxDetach(CUcontext context)
{
	CUresult result = destroy(context, EMUV_FN_cuCtxDetach, detach);

	return result == STILL_THERE ? CUDA_SUCCESS : result;
}
