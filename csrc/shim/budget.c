/* SPDX-License-Identifier: GPL-2.0-only */
#include "budget.h"

uint64_t emuv_budget_physical(const emuv_budget_device_t *d)
{
	const emuv_device_counters_t *c = &d->counters;

	return c->device_bytes + c->resident_bytes + c->overhead_bytes + c->graph_bytes +
	       c->kept_bytes;
}

uint64_t emuv_budget_taken(const emuv_budget_device_t *d)
{
	return emuv_budget_physical(d) + d->unsure;
}

uint64_t emuv_budget_used(const emuv_budget_device_t *d)
{
	const emuv_device_counters_t *c = &d->counters;

	return c->device_bytes + c->managed_bytes + c->overhead_bytes + c->graph_bytes;
}

void emuv_budget_held(emuv_budget_device_t *d)
{
	if (emuv_budget_physical(d) > d->counters.peak_physical_bytes)
		d->counters.peak_physical_bytes = emuv_budget_physical(d);
	if (emuv_budget_used(d) > d->counters.peak_used_bytes)
		d->counters.peak_used_bytes = emuv_budget_used(d);
}

/* What others write is not ours to trust: it must not wrap. */
static uint64_t with_others(uint64_t own, uint64_t others)
{
	return own > UINT64_MAX - others ? UINT64_MAX : own + others;
}

uint64_t emuv_budget_room(const emuv_budget_device_t *d)
{
	uint64_t held = with_others(emuv_budget_taken(d), d->counters.others_physical_bytes);

	if (d->vram == EMUV_UNLIMITED)
		return EMUV_UNLIMITED;
	return d->vram > held ? d->vram - held : 0;
}

bool emuv_budget_nearly_full(const emuv_budget_device_t *d)
{
	return d->vram != EMUV_UNLIMITED && emuv_budget_room(d) <= d->vram / 8;
}

bool emuv_budget_over(const emuv_budget_device_t *d)
{
	return with_others(emuv_budget_taken(d), d->counters.others_physical_bytes) > d->vram;
}

uint64_t emuv_budget_visible(const emuv_budget_device_t *d)
{
	uint64_t vram = d->vram;
	uint64_t extra = d->policy == EMUV_POLICY_SPILL && d->can_spill ? d->virtual_bytes : 0;

	if (d->counters.card_bytes && vram > d->counters.card_bytes) {
		/* No limit and nothing extra: the card's own answer stands. */
		if (vram == EMUV_UNLIMITED && !extra)
			return EMUV_UNLIMITED;
		vram = d->counters.card_bytes;
	}
	return vram > EMUV_UNLIMITED - extra ? EMUV_UNLIMITED : vram + extra;
}

bool emuv_budget_used_over(const emuv_budget_device_t *d)
{
	return with_others(emuv_budget_used(d), d->counters.others_used_bytes) >
	       emuv_budget_visible(d);
}

uint64_t emuv_budget_free(const emuv_budget_device_t *d)
{
	uint64_t visible = emuv_budget_visible(d);
	uint64_t held = with_others(emuv_budget_used(d), d->counters.others_used_bytes);

	if (visible == EMUV_UNLIMITED)
		return EMUV_UNLIMITED;
	return visible > held ? visible - held : 0;
}

bool emuv_budget_reserve(emuv_budget_device_t *d, uint64_t bytes, unsigned int how,
			 emuv_grant_t *grant)
{
	emuv_device_counters_t *c = &d->counters;
	uint64_t room = emuv_budget_room(d);

	/*
	 * Memory past the card can only be managed, and managed memory the program
	 * asked for itself may exceed an unlimited device: so an unlimited vram asks
	 * the card, not the budget.
	 */
	bool fits_device = bytes <= room && (d->vram == EMUV_UNLIMITED ||
					     bytes <= emuv_budget_free(d)) &&
			   !(how & EMUV_NOT_DEVICE);

	/* With no limit nothing else keeps the sums from wrapping. */
	if (bytes > EMUV_UNLIMITED - emuv_budget_used(d))
		return false;
	if (fits_device && !(how & EMUV_MUST_SPILL)) {
		*grant = (emuv_grant_t){ .placement = EMUV_PLACED_DEVICE, .bytes = bytes };
		c->device_bytes += bytes;
		return true;
	}
	if (how & EMUV_BEFORE_SPILL && (c->kept_bytes || d->unsure || c->graph_bytes))
		return false;
	if ((how & (EMUV_MAY_SPILL | EMUV_MUST_SPILL)) && d->policy == EMUV_POLICY_SPILL &&
	    d->can_spill && bytes <= emuv_budget_free(d)) {
		/* A card that is full has no room for a head either. */
		bool whole = how & (EMUV_MUST_SPILL | EMUV_WHOLE);
		uint64_t head = whole ? 0 : room < bytes ? room : bytes;

		head -= head % EMUV_BLOCK_BYTES;
		*grant = (emuv_grant_t){ .placement = EMUV_PLACED_MANAGED, .bytes = bytes,
					 .resident = head };
		c->managed_bytes += bytes;
		c->resident_bytes += head;
		return true;
	}
	return false;
}

void emuv_budget_denied(emuv_budget_device_t *d, uint64_t bytes)
{
	d->counters.denials++;
	if (__builtin_add_overflow(d->counters.denied_bytes, bytes, &d->counters.denied_bytes))
		d->counters.denied_bytes = UINT64_MAX;
}

void emuv_budget_release(emuv_budget_device_t *d, const emuv_grant_t *grant)
{
	if (grant->placement == EMUV_PLACED_DEVICE) {
		d->counters.device_bytes -= grant->bytes;
	} else if (grant->placement == EMUV_PLACED_MANAGED) {
		d->counters.managed_bytes -= grant->bytes;
		d->counters.resident_bytes -= grant->resident;
	}
}

void emuv_budget_spilled(emuv_budget_device_t *d, const emuv_grant_t *grant, bool card_full)
{
	d->counters.spills++;
	d->counters.spilled_bytes += grant->bytes;
	d->counters.driver_oom_spills += card_full;
}

bool emuv_budget_overhead(emuv_budget_device_t *d, uint64_t bytes)
{
	if (bytes > emuv_budget_room(d))
		return false;
	d->counters.overhead_bytes += bytes;
	return true;
}
