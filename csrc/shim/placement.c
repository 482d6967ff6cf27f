/* SPDX-License-Identifier: GPL-2.0-only */
#include "placement.h"

#include <pthread.h>
#include <time.h>

#include "deferred.h"
#include "host_memory.h"
#include "keep.h"
#include "message.h"
#include "overhead.h"
#include "pools.h"
#include "real.h"
#include "relaxed.h"
#include "residency.h"

#define WAIT_MS 10000

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Stream-ordered frees are under way that would make room. */
static bool room_is_coming(CUdevice device, uint64_t bytes, unsigned int how)
{
	uint64_t coming, resident;
	emuv_report_t report;

	if (!emuv_deferred_coming(device, &coming, &resident))
		return false;
	emuv_account_report(device, &report);
	/* What cannot be spilled needs room on the device itself. */
	if (!(how & EMUV_MAY_SPILL) && report.room < bytes && resident < bytes - report.room)
		return false;
	return report.free >= bytes || coming >= bytes - report.free;
}

/* Waits for that, as the driver does when its pools are full, but not for ever. */
static bool wait_for_frees(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	const struct timespec pause = { 0, 50000 };
	uint64_t deadline = now_ms() + WAIT_MS;
	bool granted = false;
	int cancel;

	/* A sleep may be where a cancelled thread ends; here it holds what it must give back. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	while (!granted && room_is_coming(device, bytes, how) && now_ms() < deadline) {
		nanosleep(&pause, NULL);
		emuv_deferred_reap();
		granted = emuv_account_reserve(device, bytes, how, grant);
	}
	pthread_setcancelstate(cancel, NULL);
	/* The last of them may have gone between the first attempt and the first look. */
	return granted || emuv_account_reserve(device, bytes, how, grant);
}

/* What must not spill takes the room of what others have promoted, or none. */
static bool reserve_kept(const emuv_where_t *where, uint64_t bytes, unsigned int how,
			 emuv_grant_t *grant)
{
	how &= ~(EMUV_MAY_SPILL | EMUV_WHOLE);
	emuv_residency_make_room(where, bytes);
	return emuv_account_reserve(where->device, bytes, how, grant) ||
	       emuv_pools_make_room(where->device, bytes, how, grant) ||
	       wait_for_frees(where->device, bytes, how, grant);
}

/* Before the device gets full, what the driver has taken by itself is looked for. */
static bool reserve(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	how |= EMUV_BEFORE_SPILL;
	if (!emuv_account_reserve(device, bytes, how, grant))
		return false;
	if (!grant->nearly || !emuv_overhead_due(device))
		return true;
	/* What is charged and not in use yet would hide it. */
	emuv_account_roll_back(device, grant);
	emuv_overhead_settle(device);
	return emuv_account_reserve(device, bytes, how, grant);
}

/* With what pools and graphs keep, there may be room after all. */
static bool after_all(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	emuv_overhead_settle(device);
	return emuv_pools_make_room(device, bytes, how, grant);
}

bool emuv_placement_reserve(const emuv_where_t *where, uint64_t bytes, unsigned int how,
			    emuv_grant_t *grant)
{
	bool granted;

	emuv_deferred_reap();
	emuv_residency_shrink(where);
	emuv_pools_settle();
	granted = reserve(where->device, bytes, how, grant) ||
		  after_all(where->device, bytes, how, grant) ||
		  emuv_account_reserve(where->device, bytes, how, grant) ||
		  wait_for_frees(where->device, bytes, how, grant);
	if (granted && grant->placement == EMUV_PLACED_MANAGED && !(how & EMUV_IS_THERE) &&
	    emuv_keep_wants(bytes)) {
		emuv_account_roll_back(where->device, grant);
		granted = reserve_kept(where, bytes, how, grant);
	}
	if (!granted)
		emuv_account_denied(where->device, bytes);
	return granted;
}

bool emuv_placement_host_backs(uint64_t bytes)
{
	uint64_t available;
	char wanted[32], there[32];

	if (!emuv_host_available(&available) || bytes <= available)
		return true;
	emuv_say("a spill of %s is refused: the host has %s left for it",
		 emuv_size_text(bytes, wanted), emuv_size_text(available, there));
	return false;
}

static CUresult spill_here(const emuv_where_t *where, const emuv_grant_t *grant,
			   unsigned int flags, CUdeviceptr *address)
{
	CUdeviceptr made = 0;
	CUresult result = g_real.cuMemAllocManaged(&made, grant->bytes, flags);

	if (result)
		return result;
	result = emuv_residency_place(where, made, grant->bytes, grant->resident,
				      emuv_account_eager());
	if (result) {
		/* Without the hints its pages would migrate past the budget. */
		g_real.cuMemFree_v2(made);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*address = made;
	return CUDA_SUCCESS;
}

CUresult emuv_placement_spill(const emuv_where_t *where, const emuv_grant_t *grant,
			      unsigned int flags, CUdeviceptr *address)
{
	CUcontext popped;
	CUresult result;
	int mode;

	if (!emuv_placement_host_backs(grant->bytes - grant->resident)) {
		emuv_account_denied(where->device, grant->bytes);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	/* A stream's context need not be the current one, and the range must live with it. */
	result = g_real.cuCtxPushCurrent_v2(where->context);
	if (result)
		return result;
	mode = emuv_relaxed_enter();
	result = spill_here(where, grant, flags, address);
	emuv_relaxed_leave(mode);
	g_real.cuCtxPopCurrent_v2(&popped);
	return result;
}

bool emuv_placement_card_full(const emuv_where_t *where, emuv_grant_t *grant)
{
	uint64_t bytes = grant->bytes;

	emuv_account_roll_back(where->device, grant);
	if (grant->pool)
		emuv_pools_look(where->device);
	if (emuv_keep_wants(bytes)) {
		emuv_account_denied(where->device, bytes);
		return false;
	}
	return emuv_account_reserve(where->device, bytes, EMUV_MAY_SPILL | EMUV_MUST_SPILL, grant);
}
