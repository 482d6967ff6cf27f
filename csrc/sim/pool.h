/* SPDX-License-Identifier: GPL-2.0-only */
/* Pools (pool.c), as allocation from them (ordered.c) and graphs see them.  sim_lock held. */
#ifndef EMUV_SIM_POOL_H
#define EMUV_SIM_POOL_H

#include "memory.h"

struct sim_pool {
	CUmemPoolProps props;
	struct pool_object *handle; /* NULL once destroyed */
	bool is_default;
	bool imported;         /* another process's: allocates nothing, takes nothing of a card */
	int file;              /* that exports are made of, 0: none yet; its key */
	uint64_t key;
	uint64_t reserved, used, reserved_high, used_high, threshold;
	uint64_t live; /* allocations */
	int reuse[3];
	CUmemAccess_flags access[SIM_MAX_DEVICES];
};
struct pool_object {
	sim_object_t object;
	struct sim_pool *pool;
};

/* A pool, its handle alive; NULL: no memory.  The end of its account. */
struct sim_pool *sim_pool_new(const CUmemPoolProps *props);
void sim_pool_free(struct sim_pool *pool);
/* NULL: no such pool. */
struct sim_pool *sim_pool_get(CUmemoryPool handle);
/* Does its memory take bytes of a card? */
bool sim_pool_on_card(const struct sim_pool *pool);
CUdevice sim_pool_device(const struct sim_pool *pool);
/* The account: false where the pool, or its card, has no room. */
bool sim_pool_take(struct sim_pool *pool, size_t bytes);
void sim_pool_put(struct sim_pool *pool, size_t bytes);
/* The default or current pool of a location, made when first asked for. */
enum { SIM_POOL_DEFAULT, SIM_POOL_CURRENT };
CUresult sim_pool_at(CUmemLocation location, CUmemAllocationType type, int which,
		     CUmemoryPool *pool);

#endif
