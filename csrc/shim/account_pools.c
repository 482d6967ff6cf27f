/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The books' view of memory pools and of graphs' memory: what the driver reserves for
 * them beyond what the program has allocated.
 *
 * What a pool has reserved is known when the driver is asked, which no allocation waits
 * for.  In between it is estimated: `reserved` never falls below `live`, and a free
 * leaves it where it is.  That is exact for a pool that reuses all it keeps and
 * releases nothing.  How far off it may be at most is `unsure`: each allocation since
 * may have made the pool grow by whole pieces instead.  No room is granted that the
 * unsure bytes would need; emuv_account_pool_seen makes the estimate true again.
 *
 *   reserved by the driver <= reserved + unsure,   kept = reserved - live
 */
#include "account.h"
#include "books.h"

/* What pools are seen to grow by, until the driver has said something else. */
#define USUAL_PIECE (UINT64_C(32) << 20)

static emuv_pool_t *pool_of(unsigned int slot)
{
	return slot && slot <= EMUV_MAX_POOLS ? &g_books.pools[slot - 1] : NULL;
}

emuv_pool_t *emuv_books_pool(unsigned int slot)
{
	return pool_of(slot);
}

/* Changes a pool, and with it what its device keeps. */
static void put(emuv_pool_t *p, uint64_t live, uint64_t reserved, uint64_t unsure)
{
	emuv_budget_device_t *d = &g_books.devices[p->device];

	d->counters.kept_bytes -= p->reserved - p->live;
	d->unsure -= p->unsure;
	p->live = live;
	p->reserved = reserved > live ? reserved : live;
	p->unsure = unsure;
	d->counters.kept_bytes += p->reserved - p->live;
	d->unsure += p->unsure;
}

/*
 * Drivers give memory out in pieces of 512 bytes.  What that is more than was asked for is
 * not kept, and as little charged as with other allocations.
 */
static uint64_t given(uint64_t bytes)
{
	return (bytes + 511) / 512 * 512;
}

/* What the pool grows by at a time divides all that it was ever seen to have. */
static uint64_t in_pieces(const emuv_pool_t *p, uint64_t bytes)
{
	uint64_t piece = p->seen ? p->seen & -p->seen : USUAL_PIECE;
	uint64_t sum;

	if (__builtin_add_overflow(bytes, piece - 1, &sum))
		return EMUV_UNLIMITED / 2;
	return sum - sum % piece;
}

/* ---- pools that come and go ---- */

unsigned int emuv_account_pool_new(uint64_t handle, CUdevice device)
{
	unsigned int slot = 0, vacant = 0;

	emuv_books_lock();
	for (unsigned int i = 0; i < EMUV_MAX_POOLS && !slot; i++) {
		const emuv_pool_t *p = &g_books.pools[i];

		/* Two threads may meet a default pool at the same time: it has one place. */
		if (p->handle == handle && !p->leaving && !p->gone)
			slot = i + 1;
		else if (!vacant && !p->handle && !p->live && !p->spilled)
			vacant = i + 1;
	}
	if (!slot && vacant) {
		slot = vacant;
		*pool_of(slot) = (emuv_pool_t){ .handle = handle, .device = (int16_t)device };
	}
	emuv_books_unlock();
	return slot;
}

/*
 * Its place is another's only when nobody has yet to come back to it.  Who knew it as the
 * current pool a moment ago may still allocate by its number: hence `gone`.
 */
static void vacate_if_over(emuv_pool_t *p)
{
	if (!p->gone || p->live || p->spilled || p->lookers)
		return;
	put(p, 0, 0, 0);
	*p = (emuv_pool_t){ .device = p->device, .gone = true };
}

bool emuv_account_pool_leaves(unsigned int slot)
{
	emuv_pool_t *p = pool_of(slot);
	bool looked_at;

	if (!p)
		return true;
	emuv_books_lock();
	p->leaving = true;
	looked_at = p->lookers;
	emuv_books_unlock();
	return !looked_at;
}

void emuv_account_pool_stays(unsigned int slot)
{
	emuv_books_lock();
	if (pool_of(slot))
		pool_of(slot)->leaving = false;
	emuv_books_unlock();
}

void emuv_account_pool_gone(unsigned int slot)
{
	emuv_pool_t *p = pool_of(slot);

	if (!p)
		return;
	emuv_books_lock();
	p->gone = true;
	vacate_if_over(p);
	emuv_books_publish(p->device);
	emuv_books_unlock();
}

/* ---- allocations and frees, the lock held ---- */

bool emuv_books_pool_reserve(CUdevice device, uint64_t bytes, unsigned int how,
			     emuv_grant_t *grant)
{
	emuv_pool_t *p = pool_of(how >> EMUV_POOL_SHIFT);
	emuv_budget_device_t *d = &g_books.devices[device];
	uint64_t kept = p->reserved - p->live;
	uint64_t takes = bytes > EMUV_UNLIMITED / 4 ? bytes : given(bytes);
	uint64_t grows = takes > kept ? takes - kept : 0;
	uint64_t charged = grows > takes - bytes ? grows - (takes - bytes) : 0;
	uint64_t worst = in_pieces(p, takes);
	uint64_t likely = p->wider ? in_pieces(p, grows) : charged;
	uint64_t room = emuv_budget_room(d);
	bool fits;

	if (how & EMUV_ESTIMATE)
		fits = !emuv_budget_over(d) && likely <= room && (!grows || room > p->refused_room);
	else
		fits = worst <= room;
	if (!fits || how & EMUV_MUST_SPILL ||
	    (d->vram != EMUV_UNLIMITED && bytes > emuv_budget_free(d)) ||
	    bytes > EMUV_UNLIMITED / 4)
		return emuv_budget_reserve(d, bytes, how | EMUV_NOT_DEVICE, grant);
	*grant = (emuv_grant_t){
		.placement = EMUV_PLACED_DEVICE, .bytes = bytes, .pool = how >> EMUV_POOL_SHIFT,
		.growth = worst, .verify = how & EMUV_ESTIMATE ? 1 : 0,
	};
	d->counters.device_bytes += bytes;
	p->asked += worst;
	p->begun += worst;
	put(p, p->live + takes, p->reserved, p->unsure + worst - grows);
	return true;
}

void emuv_books_pool_undo(emuv_pool_t *pool, const emuv_pool_t *before)
{
	put(pool, before->live, before->reserved, before->unsure);
	*pool = *before;
}

void emuv_books_pool_ends(const emuv_grant_t *grant, bool undone)
{
	emuv_pool_t *p = pool_of(grant->pool);

	if (!p)
		return;
	p->begun -= grant->growth;
	if (undone)
		put(p, p->live - given(grant->bytes), p->reserved, p->unsure);
}

void emuv_books_pool_spilled(const emuv_entry_t *entry)
{
	emuv_pool_t *p = pool_of(entry->references);

	p->spilled += entry->bytes;
	if (p->spilled > p->spilled_high)
		p->spilled_high = p->spilled;
}

void emuv_books_pool_freed(const emuv_entry_t *entry)
{
	emuv_pool_t *p = pool_of(entry->references);

	if (entry->placement == EMUV_PLACED_DEVICE)
		put(p, p->live - given(entry->bytes), p->reserved, p->unsure);
	else
		p->spilled -= entry->bytes;
	vacate_if_over(p);
}

/* ---- looking ---- */

/* What is not sure takes room from everybody: not much of it where the budget is shared. */
bool emuv_account_pools_unsure(CUdevice device)
{
	const emuv_budget_device_t *d = &g_books.devices[device];
	bool much;

	if (__builtin_expect(!g_books.share, 1))
		return false;
	emuv_books_lock();
	much = d->vram != EMUV_UNLIMITED && d->unsure > d->vram / 32;
	emuv_books_unlock();
	return much;
}

size_t emuv_account_pools(CUdevice device, unsigned int *next, emuv_pool_look_t *looks, size_t max)
{
	size_t n = 0;

	emuv_books_lock();
	for (; *next < EMUV_MAX_POOLS && n < max; ++*next) {
		emuv_pool_t *p = &g_books.pools[*next];

		if (!p->handle || p->leaving || p->device != device)
			continue;
		p->lookers++;
		looks[n++] = (emuv_pool_look_t){
			.slot = *next + 1, .handle = p->handle, .asked = p->asked,
			.begun = p->begun, .reserved = p->reserved, .kept = p->reserved - p->live,
			.unsure = p->unsure, .answers = p->answers,
		};
	}
	emuv_books_unlock();
	return n;
}

void emuv_account_pool_seen(const emuv_pool_look_t *look, const uint64_t *reserved)
{
	emuv_pool_t *p = pool_of(look->slot);
	uint64_t unsure;
	bool stale;

	emuv_books_lock();
	p->lookers--;
	/* What was under way, and what has begun since, may have come after the look. */
	unsure = look->begun + p->asked - look->asked;
	/* It may also be from before another's trim, whose answer is in: the lower bound holds. */
	stale = look->answers != p->answers && reserved &&
		*reserved + unsure >= p->reserved + p->unsure;
	if (reserved && !p->leaving && !stale) {
		p->answers++;
		p->seen |= *reserved;
		p->wider |= *reserved > p->reserved;
		if (*reserved < p->reserved)
			p->refused_room = 0;
		put(p, p->live, *reserved, unsure);
		emuv_books_publish(p->device);
	}
	vacate_if_over(p);
	emuv_books_unlock();
}

void emuv_account_pool_grown(emuv_grant_t *grant)
{
	emuv_pool_t *p = pool_of(grant->pool);

	if (!p)
		return;
	emuv_books_lock();
	p->begun -= grant->growth;
	grant->growth = 0;
	emuv_books_unlock();
}

void emuv_account_pool_refused(unsigned int slot)
{
	emuv_pool_t *p = pool_of(slot);

	if (!p)
		return;
	emuv_books_lock();
	p->refused_room = emuv_budget_room(&g_books.devices[p->device]);
	emuv_books_unlock();
}

void emuv_account_pool_spilled(unsigned int slot, uint64_t *now, uint64_t *high, bool reset)
{
	emuv_pool_t *p = pool_of(slot);

	*now = *high = 0;
	if (!p)
		return;
	emuv_books_lock();
	if (reset)
		p->spilled_high = p->spilled;
	*now = p->spilled;
	*high = p->spilled_high;
	emuv_books_unlock();
}

uint64_t emuv_account_excess(CUdevice device)
{
	const emuv_budget_device_t *d = &g_books.devices[device];
	uint64_t held, excess = 0;

	emuv_books_lock();
	emuv_books_refresh(device);
	if (__builtin_add_overflow(emuv_budget_taken(d), d->counters.others_physical_bytes, &held))
		held = UINT64_MAX;
	if (d->vram != EMUV_UNLIMITED && held > d->vram)
		excess = held - d->vram;
	emuv_books_unlock();
	return excess;
}

/* ---- graphs' memory ---- */

bool emuv_account_graph_reserve(CUdevice device, uint64_t bytes)
{
	emuv_budget_device_t *d = &g_books.devices[device];
	emuv_attempt_t attempt = { 0 };
	bool fits, wanted;

	do {
		emuv_books_lock();
		emuv_books_look(device, &attempt);
		wanted = bytes <= emuv_budget_room(d) &&
			 (d->vram == EMUV_UNLIMITED || bytes <= emuv_budget_free(d));
		if (wanted)
			d->counters.graph_bytes += bytes;
		fits = emuv_books_settle(device, &attempt, wanted, 0) && wanted;
		if (fits)
			g_books.graph_pending[device] += bytes;
		else if (wanted)
			d->counters.graph_bytes -= bytes;
		emuv_books_publish(device);
		emuv_books_unlock();
	} while (!fits && emuv_books_again(&attempt));
	return fits;
}

uint64_t emuv_account_graph(CUdevice device)
{
	uint64_t bytes;

	emuv_books_lock();
	bytes = g_books.devices[device].counters.graph_bytes;
	emuv_books_unlock();
	return bytes;
}

uint32_t emuv_account_graph_answers(CUdevice device)
{
	uint32_t answers;

	emuv_books_lock();
	answers = g_books.graph_answers[device];
	emuv_books_unlock();
	return answers;
}

void emuv_account_graph_seen(CUdevice device, uint64_t ended, uint32_t answers,
			     const uint64_t *reserved)
{
	emuv_budget_device_t *d = &g_books.devices[device];
	uint64_t known;

	emuv_books_lock();
	known = d->counters.graph_bytes - g_books.graph_pending[device];
	if (!reserved)
		known += ended;
	/* An answer from before another launch came to its end does not have that one's memory. */
	else if (answers == g_books.graph_answers[device] || *reserved > known)
		known = *reserved;
	g_books.graph_answers[device]++;
	g_books.graph_pending[device] -= ended;
	/* Of others that are under way the driver's figure may have a part already. */
	d->counters.graph_bytes = known + g_books.graph_pending[device];
	emuv_budget_held(d);
	emuv_books_weigh(device); /* heads make room for what was not foreseen */
	emuv_books_publish(device);
	emuv_books_unlock();
}
