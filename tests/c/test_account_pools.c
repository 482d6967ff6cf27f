// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/extents.c csrc/shim/budget.c csrc/shim/ledger.c
// link: csrc/shim/message.c csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
/*
 * The books' arithmetic of pools: whatever the order of allocations, frees and looks, what
 * a pool may have reserved is never more than what is charged and set aside for it.
 */
#include "account.h"
#include "books.h"
#include "check.h"
#include "message.h"

#define POOL_HANDLE 0x1000

static void start(uint64_t vram, uint64_t extra)
{
	emuv_config_t config = { .valid = 1 };

	emuv_account_fork_child();
	emuv_message_quiet(1);
	config.control.policy = EMUV_POLICY_SPILL;
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		config.control.budget[i] = (emuv_budget_t){ vram, extra };
	emuv_account_start(&config, NULL, 1, NULL);
	emuv_account_card(0, UINT64_C(1) << 40, 0, true);
}

static const emuv_device_counters_t *counters(void)
{
	return &emuv_account_segment()->device[0];
}

/* What is charged, and what is set aside. */
static uint64_t bound(void)
{
	return emuv_budget_physical(&g_books.devices[0]) + g_books.devices[0].unsure;
}

static bool reserve(unsigned int slot, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	return emuv_account_reserve(0, bytes, how | slot << EMUV_POOL_SHIFT, grant);
}

static void commit(emuv_grant_t *grant, unsigned int slot, uint64_t key)
{
	emuv_entry_t entry = {
		.kind = EMUV_KIND_MEMORY, .key = key, .references = slot,
		.flags = EMUV_ENTRY_POOL |
			 (grant->placement == EMUV_PLACED_DEVICE ? EMUV_ENTRY_STREAM_ORDER : 0),
	};

	emuv_account_commit(0, grant, &entry, false);
}

static void release(uint64_t key)
{
	emuv_entry_t entry;

	CHECK(emuv_account_take(EMUV_KIND_MEMORY, key, &entry));
	emuv_account_freed(&entry);
}

/* Asks the driver, which answers `reserved`. */
static void look(uint64_t reserved)
{
	emuv_pool_look_t looks[4];
	unsigned int next = 0;
	size_t n = emuv_account_pools(0, &next, looks, 4);

	for (size_t i = 0; i < n; i++)
		emuv_account_pool_seen(&looks[i], &reserved);
}

static void what_is_freed_is_kept(void)
{
	unsigned int slot;
	emuv_grant_t grant;

	start(MIB(256), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(slot != 0);
	CHECK(reserve(slot, MIB(10), 0, &grant));
	/* Nothing is known of the pool: it may grow by a usual piece. */
	CHECK_EQ(bound(), MIB(32));
	commit(&grant, slot, 1);
	CHECK_EQ(counters()->device_bytes, MIB(10));
	CHECK_EQ(counters()->kept_bytes, 0);
	look(MIB(12));
	CHECK_EQ(counters()->kept_bytes, MIB(2));
	CHECK_EQ(bound(), MIB(12));
	release(1);
	CHECK_EQ(counters()->device_bytes, 0);
	CHECK_EQ(counters()->kept_bytes, MIB(12));
	/* What it reuses it does not take again; but it may not reuse it, and grow by 4. */
	CHECK(reserve(slot, MIB(4), 0, &grant));
	CHECK_EQ(counters()->kept_bytes, MIB(8));
	CHECK_EQ(bound(), MIB(16));
	commit(&grant, slot, 2);
	look(0); /* trimmed to what lives, as far as a driver that rounds down can say */
	CHECK_EQ(counters()->kept_bytes, 0);
	CHECK_EQ(bound(), MIB(4));
	release(2);
	CHECK_EQ(bound(), MIB(4));
	look(0);
	CHECK_EQ(bound(), 0);
}

/* The driver gives out whole 512 bytes; what that is more than was asked for is not kept. */
static void small_pieces(void)
{
	unsigned int slot;
	emuv_grant_t grant;

	start(MIB(256), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(reserve(slot, 1, 0, &grant));
	commit(&grant, slot, 1);
	look(1024);
	CHECK_EQ(counters()->device_bytes, 1);
	CHECK_EQ(counters()->kept_bytes, 512);
	release(1);
	CHECK_EQ(counters()->kept_bytes, 1024);
}

/* A pool that is gone has its place until all of it has come back. */
static void a_gone_pool_that_has_spilled(void)
{
	unsigned int slot, other;
	emuv_grant_t grant;

	start(MIB(64), MIB(64));
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(reserve(slot, MIB(10), EMUV_MAY_SPILL | EMUV_MUST_SPILL, &grant));
	CHECK_EQ(grant.placement, EMUV_PLACED_MANAGED);
	commit(&grant, slot, 1);
	emuv_account_pool_gone(slot);
	other = emuv_account_pool_new(2 * POOL_HANDLE, 0);
	CHECK(other && other != slot);
	release(1);
	CHECK_EQ(emuv_account_pool_new(3 * POOL_HANDLE, 0), slot);
}

/* An estimate that proved too low is not made again before there is more room. */
static void an_estimate_that_was_too_low(void)
{
	unsigned int slot;
	emuv_grant_t grant;

	start(MIB(20), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(!reserve(slot, MIB(10), 0, &grant));
	CHECK(reserve(slot, MIB(10), EMUV_ESTIMATE, &grant));
	emuv_account_pool_grown(&grant);
	emuv_account_roll_back(0, &grant);
	look(MIB(12));
	emuv_account_pool_refused(slot);
	CHECK(!reserve(slot, MIB(16), EMUV_ESTIMATE, &grant));
	look(MIB(8)); /* it has given something back */
	CHECK(reserve(slot, MIB(16), EMUV_ESTIMATE, &grant));
}

/* The driver may come to an allocation after it was asked what the pool has. */
static void a_look_at_what_is_under_way(void)
{
	unsigned int slot;
	emuv_grant_t grant;

	start(MIB(256), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(reserve(slot, MIB(10), 0, &grant));
	look(0);
	CHECK(bound() >= MIB(32));
	emuv_account_pool_grown(&grant);
	look(MIB(32));
	CHECK_EQ(bound(), MIB(32));
}

static void looks_and_allocations_overtake_each_other(void)
{
	emuv_grant_t early, late;
	emuv_pool_look_t one;
	unsigned int slot, next = 0;
	uint64_t reserved = MIB(64);

	start(MIB(512), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	look(MIB(32));
	/* One is under way, the driver is asked, another begins before its answer is in. */
	CHECK(reserve(slot, MIB(40), 0, &early));
	CHECK_EQ(emuv_account_pools(0, &next, &one, 1), 1);
	CHECK(reserve(slot, MIB(40), 0, &late));
	emuv_account_pool_seen(&one, &reserved);
	/* The answer may be from before both, each of which may take two pieces. */
	CHECK(bound() >= MIB(64) + MIB(64) + MIB(64));
	commit(&early, slot, 1);
	commit(&late, slot, 2);
	look(MIB(192));
	CHECK_EQ(bound(), MIB(192));
	CHECK_EQ(counters()->kept_bytes, MIB(112));
	/* A free between question and answer: what it frees is still the pool's. */
	next = 0;
	CHECK_EQ(emuv_account_pools(0, &next, &one, 1), 1);
	release(1);
	reserved = MIB(192);
	emuv_account_pool_seen(&one, &reserved);
	CHECK_EQ(bound(), MIB(192));
	/* A driver that does not answer changes nothing. */
	next = 0;
	CHECK_EQ(emuv_account_pools(0, &next, &one, 1), 1);
	emuv_account_pool_seen(&one, NULL);
	CHECK_EQ(bound(), MIB(192));
	release(2);
}

/* An answer from before another thread's trim, and one from before it that is as good. */
static void answers_overtake_each_other(void)
{
	emuv_pool_look_t before[2];
	emuv_grant_t grant;
	unsigned int slot, next = 0;
	uint64_t reserved = MIB(96);

	start(MIB(512), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	look(MIB(96));
	CHECK(reserve(slot, MIB(40), 0, &grant));
	CHECK_EQ(emuv_account_pools(0, &next, &before[0], 1), 1); /* while that is under way */
	next = 0;
	CHECK_EQ(emuv_account_pools(0, &next, &before[1], 1), 1);
	commit(&grant, slot, 1);
	look(MIB(96));
	release(1);
	look(MIB(32)); /* trimmed */
	emuv_account_pool_seen(&before[0], &reserved);
	CHECK_EQ(counters()->kept_bytes, MIB(32));
	CHECK_EQ(bound(), MIB(32));
	/* One that is lower than what is known, with all that may have come since. */
	look(MIB(256));
	reserved = 0;
	emuv_account_pool_seen(&before[1], &reserved);
	CHECK_EQ(counters()->kept_bytes, 0);
	CHECK_EQ(bound(), MIB(64));
}

static void a_failed_allocation_leaves_nothing(void)
{
	emuv_grant_t grant;
	unsigned int slot;

	start(MIB(256), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(reserve(slot, MIB(10), 0, &grant));
	emuv_account_roll_back(0, &grant);
	CHECK_EQ(counters()->device_bytes, 0);
	look(MIB(32)); /* what it grew by is all kept */
	CHECK_EQ(counters()->kept_bytes, MIB(32));
	look(0);
	CHECK_EQ(bound(), 0);
	CHECK_EQ(g_books.ledger.promised, 0);
}

static void estimates(void)
{
	emuv_grant_t grant;
	unsigned int slot;

	start(MIB(64), MIB(64));
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	look(MIB(48));
	/* It keeps 48 and could grow by as much: only an estimate grants that. */
	CHECK(!reserve(slot, MIB(40), 0, &grant));
	CHECK(reserve(slot, MIB(40), EMUV_ESTIMATE, &grant));
	CHECK(grant.verify);
	emuv_account_pool_grown(&grant);
	look(MIB(48));
	CHECK_EQ(emuv_account_excess(0), 0);
	commit(&grant, slot, 1);
	/* It grew by a piece where it was to grow by less: that is not tried again. */
	look(MIB(64));
	CHECK(!reserve(slot, MIB(32), EMUV_ESTIMATE, &grant));
	/* Past it, with no head where there is no room. */
	CHECK(reserve(slot, MIB(32), EMUV_ESTIMATE | EMUV_MAY_SPILL, &grant));
	CHECK_EQ(grant.placement, EMUV_PLACED_MANAGED);
	CHECK_EQ(grant.resident, 0);
	commit(&grant, slot, 2);
	release(2);
	/* And not while something is kept that could be had back. */
	CHECK(!reserve(slot, MIB(32), EMUV_MAY_SPILL | EMUV_BEFORE_SPILL, &grant));
	release(1);
}

static void pools_come_and_go(void)
{
	emuv_grant_t grant;
	emuv_pool_look_t one;
	unsigned int slot, other, next = 0, slots[EMUV_MAX_POOLS];
	uint64_t now, high, reserved = MIB(64);

	start(MIB(256), MIB(256));
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(reserve(slot, MIB(8), 0, &grant));
	commit(&grant, slot, 1);
	look(MIB(32));
	CHECK_EQ(emuv_account_pools(0, &next, &one, 1), 1);
	CHECK(!emuv_account_pool_leaves(slot)); /* somebody asks the driver about it */
	emuv_account_pool_seen(&one, NULL);
	CHECK(emuv_account_pool_leaves(slot));
	next = 0;
	CHECK_EQ(emuv_account_pools(0, &next, &one, 1), 0); /* and nobody any more */
	emuv_account_pool_gone(slot);
	CHECK_EQ(bound(), MIB(32)); /* nobody knows how much of it is still there */
	release(1);
	CHECK_EQ(bound(), 0);
	/* The last of it is freed while it is being destroyed, and somebody asks about it. */
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(reserve(slot, MIB(8), 0, &grant));
	commit(&grant, slot, 1);
	next = 0;
	CHECK_EQ(emuv_account_pools(0, &next, &one, 1), 1);
	CHECK(!emuv_account_pool_leaves(slot));
	release(1);
	other = emuv_account_pool_new(POOL_HANDLE + 1, 0);
	CHECK(other != slot); /* the place is taken */
	emuv_account_pool_seen(&one, &reserved);
	CHECK(emuv_account_pool_leaves(slot) && emuv_account_pool_leaves(other));
	emuv_account_pool_stays(slot); /* the driver refused */
	next = 0;
	CHECK_EQ(emuv_account_pools(0, &next, &one, 1), 1);
	CHECK_EQ(one.handle, POOL_HANDLE);
	/* ... and gone before the answer is in. */
	CHECK(!emuv_account_pool_leaves(slot));
	emuv_account_pool_gone(slot);
	emuv_account_pool_gone(other);
	other = emuv_account_pool_new(POOL_HANDLE, 0);
	CHECK(other != slot);
	/* Whoever else meets a pool at the same time finds it where it is. */
	CHECK_EQ(emuv_account_pool_new(POOL_HANDLE, 0), other);
	emuv_account_pool_seen(&one, &reserved);
	CHECK_EQ(emuv_account_pool_new(POOL_HANDLE + 1, 0), slot);
	CHECK_EQ(bound(), 0);
	start(MIB(256), MIB(256));
	/* As many as there is place for, and not one more. */
	for (int i = 0; i < EMUV_MAX_POOLS; i++) {
		slots[i] = emuv_account_pool_new(POOL_HANDLE + (uint64_t)i, 0);
		CHECK(slots[i] != 0);
	}
	CHECK_EQ(emuv_account_pool_new(1, 0), 0);
	for (int i = 0; i < EMUV_MAX_POOLS; i++) {
		CHECK(emuv_account_pool_leaves(slots[i]));
		emuv_account_pool_gone(slots[i]);
	}
	slot = emuv_account_pool_new(1, 0);
	CHECK(slot != 0);
	/* What of it is spilled, and the most that was. */
	CHECK(reserve(slot, MIB(300), EMUV_MAY_SPILL, &grant));
	commit(&grant, slot, 1);
	emuv_account_pool_spilled(slot, &now, &high, false);
	CHECK_EQ(now, MIB(300));
	release(1);
	emuv_account_pool_spilled(slot, &now, &high, false);
	CHECK_EQ(now, 0);
	CHECK_EQ(high, MIB(300));
	emuv_account_pool_spilled(slot, &now, &high, true);
	CHECK_EQ(high, 0);
}

static void graphs_seen(uint64_t ended, const uint64_t *reserved)
{
	emuv_account_graph_seen(0, ended, emuv_account_graph_answers(0), reserved);
}

static void graphs(void)
{
	const uint64_t less = MIB(20), none = 0;
	emuv_grant_t grant;

	start(MIB(64), MIB(64));
	CHECK(emuv_account_graph_reserve(0, MIB(40)));
	CHECK(!emuv_account_graph_reserve(0, MIB(40)));
	CHECK(emuv_account_graph_reserve(0, MIB(20)));
	/* The first has ended and shares what it needs; the second is under way. */
	graphs_seen(MIB(40), &less);
	CHECK_EQ(counters()->graph_bytes, MIB(40));
	graphs_seen(MIB(20), &less);
	CHECK_EQ(counters()->graph_bytes, MIB(20));
	CHECK_EQ(counters()->peak_physical_bytes, MIB(40));
	/* A driver that does not say: the sum stands until it does. */
	CHECK(emuv_account_graph_reserve(0, MIB(10)));
	graphs_seen(MIB(10), NULL);
	CHECK_EQ(counters()->graph_bytes, MIB(30));
	CHECK(!reserve(0, MIB(64), EMUV_MAY_SPILL | EMUV_BEFORE_SPILL, &grant));
	graphs_seen(0, &none);
	CHECK_EQ(counters()->graph_bytes, 0);
}

/* Launches of two threads: the first asks, the second runs and asks, then the first's answer. */
static void answers_about_graphs_overtake_each_other(void)
{
	const uint64_t first = MIB(10), both = MIB(30), none = 0;
	uint32_t answers;

	start(MIB(64), MIB(64));
	CHECK(emuv_account_graph_reserve(0, MIB(10)));
	CHECK(emuv_account_graph_reserve(0, MIB(20)));
	answers = emuv_account_graph_answers(0);
	graphs_seen(MIB(20), &both);
	emuv_account_graph_seen(0, MIB(10), answers, &first);
	CHECK_EQ(counters()->graph_bytes, MIB(30));
	/* From before a trim: too much, until somebody asks again. */
	answers = emuv_account_graph_answers(0);
	graphs_seen(0, &none);
	emuv_account_graph_seen(0, 0, answers, &both);
	CHECK_EQ(counters()->graph_bytes, MIB(30));
	graphs_seen(0, &none);
	CHECK_EQ(counters()->graph_bytes, 0);
}

/* Any order: the bound holds, against a pool that grows by pieces and reuses as it likes. */
static void at_random(void)
{
	struct {
		uint64_t bytes;
	} live[64] = { { 0 } };
	uint64_t real = 0, used = 0, seed = 7, piece = MIB(2);
	unsigned int slot;

	start(MIB(4096), 0);
	slot = emuv_account_pool_new(POOL_HANDLE, 0);
	for (int step = 0; step < 20000; step++) {
		size_t at;
		emuv_grant_t grant;

		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		at = seed >> 58;
		if (live[at].bytes) {
			release(at + 1);
			used -= (live[at].bytes + 511) / 512 * 512;
			live[at].bytes = 0;
			/* Now and then it releases all that it can. */
			if ((seed >> 40) % 16 == 0)
				real = (used + piece - 1) / piece * piece;
		} else {
			uint64_t bytes = 512 + (seed >> 20) % MIB(9);

			if (!reserve(slot, bytes, 0, &grant)) {
				look(real);
				CHECK(reserve(slot, bytes, 0, &grant));
			}
			commit(&grant, slot, at + 1);
			live[at].bytes = bytes;
			/* Whether it reuses anything is its own business. */
			if (used + bytes > real || (seed >> 30) % 4 == 0)
				real += (bytes + piece - 1) / piece * piece;
			used += (bytes + 511) / 512 * 512;
		}
		CHECK(real <= bound() + 64 * 511); /* what is rounded up is not charged */
		if ((seed >> 45) % 64 == 0) {
			look(real);
			CHECK(bound() <= real && bound() + 64 * 511 >= real);
		}
	}
}

int main(void)
{
	what_is_freed_is_kept();
	small_pieces();
	a_gone_pool_that_has_spilled();
	an_estimate_that_was_too_low();
	a_look_at_what_is_under_way();
	looks_and_allocations_overtake_each_other();
	answers_overtake_each_other();
	a_failed_allocation_leaves_nothing();
	estimates();
	pools_come_and_go();
	graphs();
	answers_about_graphs_overtake_each_other();
	at_random();
	return 0;
}
