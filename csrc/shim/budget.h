/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The arithmetic of one device's budget.  Pure: no lock, no driver, no clock.
 *
 *   physical = device + resident + overhead + graph + kept   never above vram
 *   used     = device + managed + overhead + graph           never above visible
 *                                                            = vram + virtual
 *
 * by emuV's doing.  What pools keep is on the device but not used: it can be had
 * back.  Where several processes share a budget, the others' sums count too
 * (counters.others_*, 0 where nobody shares it).
 *
 * `overhead` is measured after the fact and `vram` may be lowered under what is
 * held, so both sums may exceed their limit for a while; nothing is granted then.
 */
#ifndef EMUV_BUDGET_H
#define EMUV_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "emuv_segment.h"
#include "ledger.h"

/* The unit in which managed memory is made resident: the GPU's large page. */
#define EMUV_BLOCK_BYTES (UINT64_C(2) << 20)

typedef struct {
	uint64_t vram;         /* EMUV_UNLIMITED: no limit */
	uint64_t virtual_bytes;
	uint32_t policy;       /* enum emuv_policy */
	uint32_t can_spill;    /* the device takes managed memory as spilling needs it */
	uint64_t unsure; /* what pools may keep beyond kept_bytes: account_pools.c */
	emuv_device_counters_t counters;
} emuv_budget_device_t;

/* What a reservation was granted: given back whole by emuv_budget_release. */
typedef struct {
	enum emuv_placement placement;
	uint64_t bytes;
	uint64_t resident; /* of a managed grant: the head that fits the budget */
	uint64_t growth;   /* of a pool's: what the pool may grow by */
	uint32_t pool;     /* 0: none */
	uint32_t verify;   /* granted by an estimate: see emuv_pools_fits */
	uint32_t nearly;   /* the device is nearly full with it */
} emuv_grant_t;

#define EMUV_MAY_SPILL 1u  /* the allocation can be put in managed memory */
#define EMUV_MUST_SPILL 2u /* the card is full although the budget is not */
#define EMUV_WHOLE 4u      /* spilled in one piece: no head of it can be resident */
#define EMUV_BEFORE_SPILL 8u /* no spill while pools or graphs keep what could be had back */
#define EMUV_NOT_DEVICE 16u  /* it was tried */
#define EMUV_ESTIMATE 32u    /* from a pool: it may turn out not to fit */
#define EMUV_IS_THERE 64u    /* it cannot be refused: no rule keeps it on the device */
#define EMUV_POOL_SHIFT 16   /* from there on: the number of the pool, 0: none */

/*
 * Reserves `bytes`, or returns false.  A managed grant's head is a whole number
 * of blocks.
 */
bool emuv_budget_reserve(emuv_budget_device_t *device, uint64_t bytes, unsigned int how,
			 emuv_grant_t *grant);
/*
 * What is reserved is held now: moves the peaks.  Not at the reservation, which the
 * driver may yet refuse: a peak is what really was.
 */
void emuv_budget_held(emuv_budget_device_t *device);
/* A request was refused for good: counts it. */
void emuv_budget_denied(emuv_budget_device_t *device, uint64_t bytes);
/* Undoes a reservation, or releases what an entry was charged. */
void emuv_budget_release(emuv_budget_device_t *device, const emuv_grant_t *grant);
/* A spill has come about: counts it. */
void emuv_budget_spilled(emuv_budget_device_t *device, const emuv_grant_t *grant, bool card_full);

/* What is charged as being on the device. */
uint64_t emuv_budget_physical(const emuv_budget_device_t *device);
/* ... and what pools may have taken besides: nobody else can have it. */
uint64_t emuv_budget_taken(const emuv_budget_device_t *device);
/* What is charged in all. */
uint64_t emuv_budget_used(const emuv_budget_device_t *device);
/* Room for plain device memory; 0 when over. */
uint64_t emuv_budget_room(const emuv_budget_device_t *device);
/* vram + virtual, no more than the card where vram is; EMUV_UNLIMITED when not limited. */
uint64_t emuv_budget_visible(const emuv_budget_device_t *device);
/* visible - used, never negative. */
uint64_t emuv_budget_free(const emuv_budget_device_t *device);
/* An eighth of vram or less is left. */
bool emuv_budget_nearly_full(const emuv_budget_device_t *device);
/* More is held than vram allows. */
bool emuv_budget_over(const emuv_budget_device_t *device);
/* More is charged in all than is visible. */
bool emuv_budget_used_over(const emuv_budget_device_t *device);
/*
 * Charges a context's own memory; false (nothing charged) when vram cannot hold it.
 * The peaks are the caller's to move.
 */
bool emuv_budget_overhead(emuv_budget_device_t *device, uint64_t bytes);

#endif
