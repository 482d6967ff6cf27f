/* SPDX-License-Identifier: GPL-2.0-only */
#include "books.h"

#include <string.h>

#include "emuv_segment_file.h"

emuv_books_t g_books = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.segment = &g_books.private_segment,
	.control = &g_books.private_segment.control,
};

/* ---- the lock ---- */

/* Of about a cycle each: one to ten microseconds, before the thread sleeps. */
#define FIRST_TURNS 4096u
#define MOST_TURNS 16384u

/*
 * A thread that allocates and frees in a loop takes the lock every 30 ns or so: to try
 * again at once takes its cache line from the one who works, and a sleep costs two system
 * calls.  So whoever meets another stays out of the way for as long as some dozens of
 * sections take.  Without the pause instruction, by many of which a hypervisor may
 * conclude that the lock's holder does not run, and take the processor away.
 */
void emuv_books_wait(void)
{
	for (unsigned int turns = FIRST_TURNS; turns <= MOST_TURNS; turns *= 2) {
		for (unsigned int i = 0; i < turns; i++)
			__asm__ volatile("");
		if (!pthread_mutex_trylock(&g_books.lock))
			return;
	}
	pthread_mutex_lock(&g_books.lock);
}

/* ---- publishing ---- */

void emuv_books_publish(CUdevice device)
{
	emuv_segment_t *segment = g_books.segment;
	const uint64_t *from = (const uint64_t *)&g_books.devices[device].counters;
	uint64_t *to = (uint64_t *)&segment->device[device];
	uint64_t seq = segment->counters_seq;

	__atomic_store_n(&segment->counters_seq, seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (size_t i = 0; i < offsetof(emuv_device_counters_t, reserved) / sizeof *from; i++)
		__atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
	__atomic_store_n(&segment->applied_generation, g_books.applied_generation,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&segment->counters_seq, seq + 2, __ATOMIC_RELEASE);
	if (__builtin_expect(g_books.share != NULL, 0))
		emuv_share_publish(g_books.share, device, &g_books.devices[device],
				   g_books.leaving[device]);
}

uint64_t emuv_books_staying(CUdevice device)
{
	return emuv_budget_physical(&g_books.devices[device]) - g_books.leaving[device];
}

uint64_t emuv_books_excess(CUdevice device, uint64_t want)
{
	const emuv_budget_device_t *d = &g_books.devices[device];
	uint64_t others = d->counters.others_physical_bytes;
	uint64_t stays = emuv_books_staying(device);

	others -= others < g_books.others_leaving[device] ? others : g_books.others_leaving[device];
	if (d->vram == EMUV_UNLIMITED)
		return 0;
	if (__builtin_add_overflow(stays, others, &stays) ||
	    __builtin_add_overflow(stays, want, &stays))
		return UINT64_MAX;
	return stays > d->vram ? stays - d->vram : 0;
}

void emuv_books_weigh(CUdevice device)
{
	const emuv_budget_device_t *d = &g_books.devices[device];

	if ((d->counters.resident_bytes > g_books.leaving[device] || d->counters.movable_bytes) &&
	    emuv_books_excess(device, 0))
		__atomic_fetch_or(&g_books.over, 1u << device, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&g_books.over, ~(1u << device), __ATOMIC_RELAXED);
}

static void look_at_others(CUdevice device)
{
	emuv_share_look(g_books.share, device, &g_books.devices[device], NULL,
			&g_books.others_leaving[device]);
}

static void apply(const emuv_control_t *control)
{
	for (int i = 0; i < EMUV_MAX_DEVICES; i++) {
		emuv_budget_device_t *d = &g_books.devices[i];

		d->vram = control->budget[i].vram_bytes;
		d->virtual_bytes = control->budget[i].virtual_bytes;
		d->policy = control->policy;
		if (g_books.share)
			look_at_others(i);
		emuv_books_weigh(i);
	}
	__atomic_store_n(&g_books.allocation, control->allocation, __ATOMIC_RELAXED);
}

/* Of a shared run controllers write the run's block; the segment shows what came of it. */
static void mirror(const emuv_control_t *control)
{
	emuv_control_t *shown = &g_books.segment->control;

	__atomic_store_n(&shown->generation, control->generation | 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&shown->policy, control->policy, __ATOMIC_RELAXED);
	__atomic_store_n(&shown->allocation, control->allocation, __ATOMIC_RELAXED);
	for (int i = 0; i < EMUV_MAX_DEVICES; i++) {
		__atomic_store_n(&shown->budget[i].vram_bytes, control->budget[i].vram_bytes,
				 __ATOMIC_RELAXED);
		__atomic_store_n(&shown->budget[i].virtual_bytes,
				 control->budget[i].virtual_bytes, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&shown->generation, control->generation, __ATOMIC_RELEASE);
}

static bool makes_sense(const emuv_control_t *control)
{
	return control->policy <= EMUV_POLICY_SPILL && control->allocation <= EMUV_ALLOCATION_EAGER;
}

void emuv_books_refresh(CUdevice device)
{
	uint64_t generation = __atomic_load_n(&g_books.control->generation, __ATOMIC_ACQUIRE);
	emuv_control_t control;

	if (__builtin_expect(g_books.share != NULL, 0))
		look_at_others(device);
	if (generation == g_books.applied_generation)
		return;
	/* A controller in the middle of writing is looked at again at the next call. */
	if (emuv_control_read(g_books.control, &control))
		return;
	/* Bytes from outside: what makes no sense is not taken up. */
	if (!makes_sense(&control))
		return;
	apply(&control);
	if (g_books.share)
		mirror(&control);
	__atomic_store_n(&g_books.applied_generation, control.generation, __ATOMIC_RELAXED);
	emuv_books_publish(device);
}

/* ---- entries ---- */

static emuv_grant_t grant_of(const emuv_entry_t *entry)
{
	return (emuv_grant_t){ .placement = entry->placement, .bytes = entry->bytes,
			       .resident = entry->resident };
}

/* What else there is of an entry that is gone. */
static void forget(const emuv_entry_t *entry)
{
	if (entry->flags & EMUV_ENTRY_POOL)
		emuv_books_pool_freed(entry);
	if (entry->kind == EMUV_KIND_CODE)
		g_books.devices[entry->device].counters.overhead_bytes -= entry->bytes;
	emuv_books_retire(emuv_books_map(entry));
	if (emuv_books_movable(entry))
		g_books.devices[entry->device].counters.movable_bytes -= entry->bytes;
}

void emuv_books_tally(const emuv_entry_t *entry, bool add)
{
	emuv_device_counters_t *c = &g_books.devices[entry->device].counters;
	uint64_t bytes = add ? entry->bytes : 0 - entry->bytes;

	if (entry->flags & EMUV_ENTRY_IMPORTED)
		c->imported_bytes += bytes;
	else if (entry->flags & EMUV_ENTRY_PINNED)
		c->pinned_bytes += bytes;
}

void emuv_books_enter(emuv_entry_t *entry)
{
	emuv_entry_t old;

	/* What is restored keeps its age: it is as old as its context's other memory. */
	if (!entry->serial) {
		entry->serial = ++g_books.last_serial;
		if (emuv_books_movable(entry))
			g_books.devices[entry->device].counters.movable_bytes += entry->bytes;
	} else {
		emuv_books_calm(entry);
	}
	if (emuv_ledger_insert(&g_books.ledger, entry, &old)) {
		emuv_grant_t gone = grant_of(&old);

		emuv_budget_release(&g_books.devices[old.device], &gone);
		forget(&old);
		if (old.placement != EMUV_PLACED_NOWHERE)
			g_books.devices[old.device].counters.live_allocations--;
		emuv_books_tally(&old, false);
		if (old.device != entry->device)
			emuv_books_publish(old.device);
	}
	/* vram may have been lowered while this head was not on the books. */
	if (entry->resident)
		emuv_books_weigh(entry->device);
}

void emuv_books_uncharge(const emuv_entry_t *entry)
{
	emuv_budget_device_t *d = &g_books.devices[entry->device];
	emuv_grant_t grant = grant_of(entry);

	emuv_budget_release(d, &grant);
	forget(entry);
	if (entry->placement != EMUV_PLACED_NOWHERE)
		d->counters.live_allocations--;
	emuv_books_tally(entry, false);
	emuv_books_publish(entry->device);
}

/* ---- start and fork ---- */

void emuv_account_start(const emuv_config_t *config, emuv_segment_t *segment, int n_devices,
			emuv_share_t *share)
{
	emuv_control_t control = config->control;

	emuv_books_lock();
	g_books.segment = segment ? segment : &g_books.private_segment;
	g_books.control = &g_books.segment->control;
	if (!segment)
		g_books.segment->control = control;
	g_books.share = share;
	if (share) {
		emuv_control_t run;

		/*
		 * The run's budget may have been changed since it began.  Of one that is
		 * being changed each field is somebody's, and news of the rest will come.
		 */
		g_books.control = &share->file->control;
		if (emuv_control_read(g_books.control, &run))
			run.generation |= 1;
		if (makes_sense(&run))
			control = run;
		mirror(&control);
	}
	/* What a controller has written since the file got its name counts as news. */
	g_books.applied_generation = control.generation;
	apply(&control);
	for (int i = 0; i < n_devices; i++) {
		if (share)
			g_books.devices[i].counters.flags |= EMUV_DEVICE_SHARED;
		emuv_books_publish(i);
	}
	emuv_books_unlock();
}

void emuv_account_card(CUdevice device, uint64_t card_bytes, uint64_t pci, bool can_spill)
{
	emuv_books_lock();
	g_books.devices[device].counters.card_bytes = card_bytes;
	g_books.devices[device].counters.pci = pci;
	g_books.devices[device].counters.flags |= EMUV_DEVICE_SEEN;
	g_books.devices[device].can_spill = can_spill;
	emuv_books_publish(device);
	emuv_books_unlock();
}

/*
 * The child holds nothing: CUDA does not survive fork.  What the parent's table
 * occupies is leaked (copy-on-write, never touched), and the parent's segment
 * must not be written again; lifecycle.c unmaps it.
 */
void emuv_account_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	memset(&g_books, 0, sizeof g_books);
	memcpy(&g_books.lock, &fresh, sizeof fresh);
	g_books.segment = &g_books.private_segment;
	g_books.control = &g_books.private_segment.control;
}

emuv_segment_t *emuv_account_segment(void)
{
	return g_books.segment;
}
