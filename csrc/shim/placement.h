/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device or managed?  Reserving with everything that may still make room, and
 * bringing about a spill.
 */
#ifndef EMUV_PLACEMENT_H
#define EMUV_PLACEMENT_H

#include "account.h"

/*
 * Reserves; where the budget says no, first finishes stream-ordered frees that
 * are under way.  False: denied and counted as such.
 */
bool emuv_placement_reserve(const emuv_where_t *where, uint64_t bytes, unsigned int how,
			    emuv_grant_t *grant);

/*
 * Makes the managed allocation of a managed grant.  On error the grant is still
 * held: the caller rolls back.
 */
CUresult emuv_placement_spill(const emuv_where_t *where, const emuv_grant_t *grant,
			      unsigned int flags, CUdeviceptr *address);

/*
 * Can the host back that many more bytes?  Its pages behind spilled memory are not
 * swappable: none are promised that are not there.  Says so where it cannot.
 */
bool emuv_placement_host_backs(uint64_t bytes);

/*
 * The driver was out of memory below the budget: turns a device grant into a
 * managed one if the policy lets it.  False: the grant has been rolled back.
 */
bool emuv_placement_card_full(const emuv_where_t *where, emuv_grant_t *grant);

#endif
