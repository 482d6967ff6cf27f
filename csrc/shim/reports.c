/* SPDX-License-Identifier: GPL-2.0-only */
/* emuv_reports.h: the books as seen by NVML's callers in this process. */
#include "emuv_reports.h"

#include <errno.h>
#include <string.h>

#include "account.h"
#include "deferred.h"
#include "lifecycle.h"
#include "real.h"

/* The ordinal of the device with this UUID, -1 where this process sees none. */
static CUdevice device_of(const unsigned char uuid[16])
{
	int count = 0;

	g_real.cuDeviceGetCount(&count);
	for (CUdevice device = 0; device < count && device < EMUV_MAX_DEVICES; device++) {
		CUuuid its;

		/* The second form names a MIG instance, not the card that it is a part of. */
		if (!g_real.cuDeviceGetUuid_v2(&its, device) && !memcmp(its.bytes, uuid, 16))
			return device;
	}
	return -1;
}

static int card(const unsigned char uuid[16], emuv_card_report_t *report)
{
	emuv_report_t now;
	uint64_t version;
	CUdevice device;
	int saved = errno;

	if (emuv_inside)
		return -EBUSY;
	if (!emuv_enter(__builtin_return_address(0)))
		return -EAGAIN;
	device = device_of(uuid);
	if (device >= 0) {
		/* What a stream has freed by now is free. */
		emuv_deferred_reap();
		emuv_account_report(device, &now);
		emuv_account_physical(device, &report->physical, &version);
		report->total = now.visible;
		report->free = now.free;
		report->policy = now.policy;
	}
	emuv_leave();
	errno = saved;
	return device >= 0 ? 0 : -ENODEV;
}

EMUV_EXPORT extern const emuv_reports_t emuv_reports;
const emuv_reports_t emuv_reports = { sizeof(emuv_reports_t), card };
