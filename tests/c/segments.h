/* SPDX-License-Identifier: GPL-2.0-only */
/* For tests of what reads segments: making them, as processes of a run do. */
#ifndef EMUV_TEST_SEGMENTS_H
#define EMUV_TEST_SEGMENTS_H

#include <string.h>

#include "check.h"
#include "emuv_segment_file.h"

/* The segment of a process that has begun `ticks` after the boot: by its own, it lives. */
static inline emuv_segment_t *make_segment(int32_t pid, uint64_t ticks, const char *run_id,
					   char *path)
{
	static emuv_segment_t initial;
	emuv_segment_t *made;
	emuv_error_t error;
	char spare[4096];

	memset(&initial, 0, sizeof initial);
	initial.magic = EMUV_SEGMENT_MAGIC;
	initial.version = EMUV_SEGMENT_VERSION;
	initial.size = sizeof initial;
	initial.pid = pid;
	initial.start_ticks = ticks;
	initial.state = EMUV_STATE_RUNNING;
	initial.n_devices = 2;
	snprintf(initial.run_id, sizeof initial.run_id, "%s", run_id);
	CHECK_EQ(emuv_segment_create(getenv("EMUV_RUNTIME_DIR"), &initial, &made,
				     path ? path : spare, sizeof spare, &error), 0);
	return made;
}

#endif
