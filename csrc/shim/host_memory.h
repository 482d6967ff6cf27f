/* SPDX-License-Identifier: GPL-2.0-only */
/* How much host memory may still be promised: MemAvailable and the cgroup's limit. */
#ifndef EMUV_HOST_MEMORY_H
#define EMUV_HOST_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* False where neither can be read; *bytes is then untouched. */
bool emuv_host_available(uint64_t *bytes);

#endif
