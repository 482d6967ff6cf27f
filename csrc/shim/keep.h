/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What must not spill (--keep-device): allocations of certain sizes, or asked for by
 * certain libraries (caller.h).  Looked at only where there are rules and an allocation
 * would be spilled.
 */
#ifndef EMUV_KEEP_H
#define EMUV_KEEP_H

#include <stdbool.h>

#include "config.h"

/* From then on these hold, which live as long as the process; `who` names a hook's caller. */
void emuv_keep_use(const emuv_keep_rules_t *rules, const char *(*who)(void));

/* Must an allocation of that size, by who called the hook that runs, stay on the device? */
bool emuv_keep_wants_slow(uint64_t bytes);
extern const emuv_keep_rules_t *emuv_keep_rules; /* NULL: none */
static inline bool emuv_keep_wants(uint64_t bytes)
{
	return __builtin_expect(emuv_keep_rules != NULL, 0) && emuv_keep_wants_slow(bytes);
}

#endif
