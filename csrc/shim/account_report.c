/* SPDX-License-Identifier: GPL-2.0-only */
/* What the books say to the hooks that report, and the counting of calls. */
#include "account.h"
#include "books.h"

void emuv_account_report(CUdevice device, emuv_report_t *report)
{
	emuv_budget_device_t *d = &g_books.devices[device];

	/* What the dead held is free. */
	if (__builtin_expect(g_books.share != NULL, 0))
		emuv_share_tidy(g_books.share);
	emuv_books_lock();
	emuv_books_refresh(device);
	*report = (emuv_report_t){
		.visible = emuv_budget_visible(d),
		.free = emuv_budget_free(d),
		.vram = d->vram,
		.room = emuv_budget_room(d),
		.there = d->counters.flags & EMUV_DEVICE_SEEN,
		.policy = d->policy,
	};
	emuv_books_unlock();
}

bool emuv_account_physical(CUdevice device, uint64_t *bytes, uint64_t *version)
{
	bool quiet;

	emuv_books_lock();
	*bytes = emuv_budget_physical(&g_books.devices[device]);
	*version = g_books.segment->counters_seq; /* every change is published */
	quiet = g_books.ledger.promised == 0;
	emuv_books_unlock();
	return quiet;
}

void emuv_account_call(CUdevice device, int function)
{
	__atomic_fetch_add(&g_books.segment->device[device].calls[function], 1, __ATOMIC_RELAXED);
}

void emuv_account_uncounted(CUdevice device)
{
	emuv_books_lock();
	g_books.devices[device].counters.uncounted_calls++;
	emuv_books_publish(device);
	emuv_books_unlock();
}

bool emuv_account_eager(void)
{
	return __atomic_load_n(&g_books.allocation, __ATOMIC_RELAXED) == EMUV_ALLOCATION_EAGER;
}
