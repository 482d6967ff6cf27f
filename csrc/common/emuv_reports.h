/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What libemuv.so tells the other libraries of emuV in its process: one exported object,
 * `emuv_reports`, found by dlsym on whatever is libcuda.so.1 there.  No driver exports the
 * name.  Nothing is loaded or started by a question.
 */
#ifndef EMUV_REPORTS_H
#define EMUV_REPORTS_H

#include <stdint.h>

#define EMUV_REPORTS_NAME "emuv_reports"

/* Of one device, as cuMemGetInfo has it. */
typedef struct {
	uint64_t total;    /* EMUV_UNLIMITED: no budget, the driver's own answer stands */
	uint64_t free;     /* what the budget has left */
	uint64_t physical; /* charged as being on the device */
	uint32_t policy;   /* enum emuv_policy; under `cap` the card's own free is a limit too */
} emuv_card_report_t;

typedef struct {
	uint64_t size; /* sizeof of the struct that libemuv.so was built with */
	/*
	 * Of the device with this UUID (a GPU's or a MIG instance's).  0; -EAGAIN: the process
	 * has not initialised CUDA; -EBUSY: the thread is inside a call of emuV's to the driver,
	 * which asks for itself; -ENODEV: the device is none of those that the process sees.
	 */
	int (*card)(const unsigned char uuid[16], emuv_card_report_t *report);
} emuv_reports_t;

#endif
