/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * When things happen: one constructor that does next to nothing, everything else
 * once, on first use; a forked child begins again.
 */
#ifndef EMUV_LIFECYCLE_H
#define EMUV_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "cuda_abi.h"

/*
 * Opens the driver on first use (the constructor does not: `emuv-run ls` must not
 * load it).  0, or negative where there is none; the reason has then been said.
 */
int emuv_lifecycle_driver(void);
/*
 * True where, the driver being open, another copy of this library stands in its place
 * (resolve.h): every call goes on to it as it is.
 */
bool emuv_lifecycle_forwards(void);
/* The environment's word, read on first use. */
const emuv_config_t *emuv_lifecycle_config(void);

/*
 * Around the driver's cuInit: `join` takes part in the run's budget where that is
 * shared; false: it cannot, which has been said, and the driver must not be initialised.
 * Then `start` (books, cards, segment), or `unjoin` where the driver refused.
 */
bool emuv_lifecycle_join(void);
void emuv_lifecycle_start(void);
void emuv_lifecycle_unjoin(void);

/*
 * Guard of every hook: true where emuV acts on this call.  False before cuInit and
 * where the driver, inside a call of emuV's, calls back into a hook.  Every true is
 * followed by emuv_leave().  Meanwhile emuv_inside is where the call came from.
 */
extern __thread uintptr_t emuv_inside;
extern int emuv_active;
static inline bool emuv_enter(const void *caller)
{
	if (__builtin_expect(emuv_inside || !__atomic_load_n(&emuv_active, __ATOMIC_ACQUIRE), 0))
		return false;
	emuv_inside = (uintptr_t)caller;
	return true;
}
static inline void emuv_leave(void)
{
	emuv_inside = 0;
}

#endif
