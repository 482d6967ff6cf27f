/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Going through the segments of the calling user's living processes.  Strangers' bytes,
 * checked as emuv_segment_file.h says; what cannot be read is passed over.
 */
#ifndef EMUV_SEGMENT_LIST_H
#define EMUV_SEGMENT_LIST_H

#include <stdbool.h>

#include "emuv_segment.h"

/* False ends it. */
typedef bool (*emuv_segment_see_t)(const emuv_segment_t *copy, void *state);
/* False: no memory.  No directory is no segment. */
bool emuv_segment_each(emuv_segment_see_t see, void *state);

#endif
