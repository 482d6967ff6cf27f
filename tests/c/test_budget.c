// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/budget.c
/*
 * The arithmetic of a budget: a table of cases worked by hand, then random
 * reserves and releases, after each of which the two sums that emuV promises hold.
 */
#include "budget.h"
#include "check.h"

static uint64_t physical(const emuv_budget_device_t *d)
{
	return d->counters.device_bytes + d->counters.resident_bytes + d->counters.overhead_bytes;
}

static uint64_t used(const emuv_budget_device_t *d)
{
	return d->counters.device_bytes + d->counters.managed_bytes + d->counters.overhead_bytes;
}

/* ---- cases, in MiB ---- */

#define NONE UINT64_MAX /* no limit */
enum { NO, DEVICE, MANAGED };

static const struct {
	const char *what;
	uint64_t vram, extra;
	int policy, can_spill;
	uint64_t card, device, managed, resident, overhead; /* before */
	uint64_t bytes;
	unsigned int how;
	int granted;
	uint64_t head;
} cases[] = {
	{ "fits exactly", 128, 0, EMUV_POLICY_CAP, 1, 256, 100, 0, 0, 0, 28, EMUV_MAY_SPILL, DEVICE, 0 },
	{ "one over", 128, 0, EMUV_POLICY_CAP, 1, 256, 101, 0, 0, 0, 28, EMUV_MAY_SPILL, NO, 0 },
	{ "overhead counts", 128, 0, EMUV_POLICY_CAP, 1, 256, 100, 0, 0, 1, 28, EMUV_MAY_SPILL, NO, 0 },
	{ "cap ignores virtual", 128, 64, EMUV_POLICY_CAP, 1, 256, 128, 0, 0, 0, 1, EMUV_MAY_SPILL, NO, 0 },
	{ "spills whole, no room", 128, 64, EMUV_POLICY_SPILL, 1, 256, 128, 0, 0, 0, 64, EMUV_MAY_SPILL, MANAGED, 0 },
	{ "past visible", 128, 64, EMUV_POLICY_SPILL, 1, 256, 128, 0, 0, 0, 65, EMUV_MAY_SPILL, NO, 0 },
	{ "cannot spill", 128, 64, EMUV_POLICY_SPILL, 1, 256, 128, 0, 0, 0, 1, 0, NO, 0 },
	{ "card cannot page", 128, 64, EMUV_POLICY_SPILL, 0, 256, 128, 0, 0, 0, 1, EMUV_MAY_SPILL, NO, 0 },
	{ "head fills the room", 128, 64, EMUV_POLICY_SPILL, 1, 256, 100, 0, 0, 0, 64, EMUV_MAY_SPILL, MANAGED, 28 },
	{ "head in whole blocks", 128, 64, EMUV_POLICY_SPILL, 1, 256, 99, 0, 0, 0, 64, EMUV_MAY_SPILL, MANAGED, 28 },
	{ "room under a block", 128, 64, EMUV_POLICY_SPILL, 1, 256, 127, 0, 0, 0, 64, EMUV_MAY_SPILL, MANAGED, 0 },
	{ "larger than vram at once", 128, 64, EMUV_POLICY_SPILL, 1, 256, 0, 0, 0, 0, 192, EMUV_MAY_SPILL, MANAGED, 128 },
	{ "larger than visible at once", 128, 64, EMUV_POLICY_SPILL, 1, 256, 0, 0, 0, 0, 193, EMUV_MAY_SPILL, NO, 0 },
	{ "heads take room", 128, 64, EMUV_POLICY_SPILL, 1, 256, 100, 40, 28, 0, 1, EMUV_MAY_SPILL, MANAGED, 0 },
	{ "and so refuse arrays", 128, 64, EMUV_POLICY_SPILL, 1, 256, 100, 40, 28, 0, 1, 0, NO, 0 },
	{ "spilled bytes count as used", 128, 64, EMUV_POLICY_SPILL, 1, 256, 128, 60, 0, 0, 5, EMUV_MAY_SPILL, NO, 0 },
	{ "device room, but visible full", 128, 64, EMUV_POLICY_SPILL, 1, 256, 64, 128, 0, 0, 1, EMUV_MAY_SPILL, NO, 0 },
	{ "card full: no head", 128, 64, EMUV_POLICY_SPILL, 1, 64, 0, 0, 0, 0, 32, EMUV_MAY_SPILL | EMUV_MUST_SPILL, MANAGED, 0 },
	{ "card full under cap", 128, 64, EMUV_POLICY_CAP, 1, 64, 0, 0, 0, 0, 32, EMUV_MAY_SPILL | EMUV_MUST_SPILL, NO, 0 },
	{ "lowered vram: nothing more", 64, 0, EMUV_POLICY_CAP, 1, 256, 100, 0, 0, 0, 1, EMUV_MAY_SPILL, NO, 0 },
	{ "lowered vram spills", 64, 64, EMUV_POLICY_SPILL, 1, 256, 100, 0, 0, 0, 28, EMUV_MAY_SPILL, MANAGED, 0 },
	{ "no limit", NONE, 0, EMUV_POLICY_CAP, 1, 256, 200, 0, 0, 0, 300, EMUV_MAY_SPILL, DEVICE, 0 },
	{ "no limit, card full", NONE, 64, EMUV_POLICY_SPILL, 1, 256, 250, 0, 0, 0, 64, EMUV_MAY_SPILL | EMUV_MUST_SPILL, MANAGED, 0 },
	{ "no limit, past card and virtual", NONE, 64, EMUV_POLICY_SPILL, 1, 256, 250, 0, 0, 0, 71, EMUV_MAY_SPILL | EMUV_MUST_SPILL, NO, 0 },
	{ "vram above the card", 512, 64, EMUV_POLICY_SPILL, 1, 256, 250, 0, 0, 0, 71, EMUV_MAY_SPILL, NO, 0 },
	{ "nothing at all", 0, 0, EMUV_POLICY_CAP, 1, 256, 0, 0, 0, 0, 1, EMUV_MAY_SPILL, NO, 0 },
};

static void table(void)
{
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		emuv_budget_device_t d = {
			.vram = cases[i].vram == NONE ? EMUV_UNLIMITED : MIB(cases[i].vram),
			.virtual_bytes = MIB(cases[i].extra),
			.policy = (uint32_t)cases[i].policy,
			.can_spill = (uint32_t)cases[i].can_spill,
		};
		emuv_device_counters_t before;
		emuv_grant_t grant = { 0 };
		bool granted;

		d.counters.card_bytes = MIB(cases[i].card);
		d.counters.device_bytes = MIB(cases[i].device);
		d.counters.managed_bytes = MIB(cases[i].managed);
		d.counters.resident_bytes = MIB(cases[i].resident);
		d.counters.overhead_bytes = MIB(cases[i].overhead);
		before = d.counters;
		granted = emuv_budget_reserve(&d, MIB(cases[i].bytes), cases[i].how, &grant);
		if (granted != (cases[i].granted != NO))
			fprintf(stderr, "case: %s\n", cases[i].what);
		CHECK_EQ(granted, cases[i].granted != NO);
		if (granted) {
			CHECK_EQ(grant.placement, cases[i].granted == DEVICE ? EMUV_PLACED_DEVICE :
									       EMUV_PLACED_MANAGED);
			CHECK_EQ(grant.bytes, MIB(cases[i].bytes));
			CHECK_EQ(grant.resident, MIB(cases[i].head));
			emuv_budget_release(&d, &grant);
		}
		CHECK_EQ(d.counters.device_bytes, before.device_bytes);
		CHECK_EQ(d.counters.managed_bytes, before.managed_bytes);
		CHECK_EQ(d.counters.resident_bytes, before.resident_bytes);
	}
}

/* To the byte: 2^64 - 1 bytes asked for is refused, whatever is held. */
static void extremes(void)
{
	emuv_budget_device_t d = { .vram = MIB(128), .virtual_bytes = MIB(64), .can_spill = 1,
				   .policy = EMUV_POLICY_SPILL };
	emuv_grant_t grant, first;

	CHECK(!emuv_budget_reserve(&d, UINT64_MAX, EMUV_MAY_SPILL, &grant));
	CHECK(emuv_budget_reserve(&d, MIB(128) - 1, EMUV_MAY_SPILL, &first));
	CHECK_EQ(emuv_budget_room(&d), 1);
	CHECK_EQ(emuv_budget_free(&d), MIB(64) + 1);
	CHECK(emuv_budget_reserve(&d, 1, EMUV_MAY_SPILL, &grant));
	CHECK_EQ(grant.placement, EMUV_PLACED_DEVICE);
	CHECK(!emuv_budget_reserve(&d, UINT64_MAX - MIB(1), EMUV_MAY_SPILL, &grant));
	CHECK_EQ(d.counters.denials, 0); /* counted by those who give up, not here */
	emuv_budget_denied(&d, 5);
	CHECK_EQ(d.counters.denials, 1);
	CHECK_EQ(d.counters.denied_bytes, 5);

	/* Without a limit the sum of what is reserved does not wrap either. */
	d = (emuv_budget_device_t){ .vram = EMUV_UNLIMITED };
	CHECK(emuv_budget_reserve(&d, MIB(1), 0, &first));
	CHECK(!emuv_budget_reserve(&d, UINT64_MAX, 0, &grant));
	CHECK_EQ(physical(&d), MIB(1));

	/* What the driver refused never was: no peak. */
	CHECK(emuv_budget_reserve(&d, MIB(1) << 20, 0, &grant));
	emuv_budget_release(&d, &grant);
	emuv_budget_held(&d);
	CHECK_EQ(d.counters.peak_physical_bytes, MIB(1));
}

/* What is visible and free: never negative, never more than there can be. */
static void reports(void)
{
	emuv_budget_device_t d = { .vram = MIB(128), .virtual_bytes = MIB(64),
				   .policy = EMUV_POLICY_SPILL, .can_spill = 1 };

	CHECK_EQ(emuv_budget_visible(&d), MIB(192));
	d.can_spill = 0; /* what cannot be had is not promised */
	CHECK_EQ(emuv_budget_visible(&d), MIB(128));
	d.can_spill = 1;
	d.policy = EMUV_POLICY_CAP;
	CHECK_EQ(emuv_budget_visible(&d), MIB(128));
	d.counters.card_bytes = MIB(100); /* a card smaller than the budget */
	CHECK_EQ(emuv_budget_visible(&d), MIB(100));
	d.counters.device_bytes = MIB(150);
	CHECK_EQ(emuv_budget_free(&d), 0);
	CHECK_EQ(emuv_budget_room(&d), 0);
	d = (emuv_budget_device_t){ .vram = EMUV_UNLIMITED, .policy = EMUV_POLICY_SPILL,
				      .can_spill = 1 };
	d.counters.card_bytes = MIB(100);
	CHECK_EQ(emuv_budget_visible(&d), EMUV_UNLIMITED); /* the card's own answer stands */
	d.virtual_bytes = MIB(50);
	CHECK_EQ(emuv_budget_visible(&d), MIB(150));
	d.virtual_bytes = UINT64_MAX - 1;
	CHECK_EQ(emuv_budget_visible(&d), EMUV_UNLIMITED);
}

static void overhead(void)
{
	emuv_budget_device_t d = { .vram = MIB(128) };

	CHECK(!emuv_budget_overhead(&d, MIB(128) + 1));
	CHECK_EQ(d.counters.overhead_bytes, 0);
	CHECK(emuv_budget_overhead(&d, MIB(128)));
	emuv_budget_held(&d);
	CHECK_EQ(emuv_budget_room(&d), 0);
	CHECK_EQ(d.counters.peak_physical_bytes, MIB(128));
}

/* ---- random: sums, and grants given back exactly ---- */

static void model(uint64_t seed, uint32_t policy)
{
	enum { N = 64 };
	emuv_budget_device_t d = { .vram = MIB(96) + 12345, .virtual_bytes = MIB(40) + 1,
				   .policy = policy, .can_spill = 1 };
	emuv_grant_t grants[N] = { 0 };
	uint64_t device = 0, managed = 0, resident = 0, peak = 0;

	for (int step = 0; step < 40000; step++) {
		emuv_grant_t *grant = &grants[random_below(&seed, N)];

		if (grant->placement) {
			emuv_budget_release(&d, grant);
			if (grant->placement == EMUV_PLACED_DEVICE)
				device -= grant->bytes;
			else
				managed -= grant->bytes;
			resident -= grant->resident;
			grant->placement = 0;
		} else {
			uint64_t bytes = 1 + random_below(&seed, MIB(random_below(&seed, 10) ? 4 : 60));
			unsigned int how = (unsigned int)random_below(&seed, 4);
			uint64_t room = emuv_budget_room(&d), left = emuv_budget_free(&d);
			bool granted = emuv_budget_reserve(&d, bytes, how, grant);
			bool can = (bytes <= room && bytes <= left && !(how & EMUV_MUST_SPILL)) ||
				   (how && policy == EMUV_POLICY_SPILL && bytes <= left);

			CHECK_EQ(granted, can); /* nothing is refused that there is room for */
			if (!granted) {
				grant->placement = 0;
			} else {
				CHECK_EQ(grant->bytes, bytes);
				if (grant->placement == EMUV_PLACED_DEVICE)
					device += bytes;
				else
					managed += bytes;
				CHECK_EQ(grant->resident % EMUV_BLOCK_BYTES, 0);
				resident += grant->resident;
				emuv_budget_held(&d);
			}
		}
		CHECK_EQ(d.counters.device_bytes, device);
		CHECK_EQ(d.counters.managed_bytes, managed);
		CHECK_EQ(d.counters.resident_bytes, resident);
		CHECK(physical(&d) <= d.vram);
		CHECK(used(&d) <= d.vram + d.virtual_bytes);
		if (used(&d) > peak)
			peak = used(&d);
	}
	CHECK(peak > MIB(64)); /* it did come to the limit */
	for (int i = 0; i < N; i++)
		if (grants[i].placement)
			emuv_budget_release(&d, &grants[i]);
	CHECK_EQ(physical(&d) + used(&d), 0);
	CHECK(d.counters.peak_physical_bytes <= d.vram);
	CHECK_EQ(d.counters.peak_used_bytes, peak);
}

int main(void)
{
	alarm(50);
	table();
	extremes();
	reports();
	overhead();
	for (uint64_t seed = 1; seed <= 5; seed++) {
		model(seed, EMUV_POLICY_CAP);
		model(seed, EMUV_POLICY_SPILL);
	}
	return 0;
}
