// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c
// link: csrc/shim/extents.c csrc/shim/message.c
// sanitize: address
/*
 * What a process of a shared budget does where another one's word changes the answer: a
 * claim in the way undoes all of a reservation, whatever it is for; what is leaving
 * elsewhere need not leave here; a changed budget is shown where readers look.
 */
#include "books.h"
#include "message.h"
#include "shared_run.h"

#define OTHER 5 /* a slot */
#define KEY UINT64_C(0x40000000)

static emuv_shared_t *shared;

/* Another process, which lives, holds so much and claims more. */
static void other(uint64_t bytes, uint64_t more)
{
	emuv_shared_row_t *row = &shared->row[OTHER][0];

	row->held_physical = row->held_used = bytes;
	row->claimed_physical = row->claimed_used = more ? bytes + more : 0;
	shared->high = OTHER + 1;
	shared->owner[OTHER] = owner_of((uint64_t)getppid(), emuv_start_ticks(getppid()));
}

static const emuv_device_counters_t *counters(void)
{
	return &emuv_account_segment()->device[0];
}

static uint64_t charged(void)
{
	return emuv_budget_taken(&g_books.devices[0]);
}

/* Nothing is left of what was refused, here or where the others look. */
static void nothing_but(uint64_t bytes)
{
	const emuv_shared_row_t *row = &shared->row[share->slot][0];

	CHECK_EQ(charged(), bytes);
	CHECK_EQ(row->held_physical, bytes);
	CHECK_EQ(row->claimed_physical | row->claimed_used, 0);
}

static void a_claim_in_the_way(void)
{
	const uint64_t wanted = MIB(20), small = MIB(1);
	unsigned int slot = emuv_account_pool_new(0x1000, 0);
	emuv_pool_t before = *emuv_books_pool(slot);
	emuv_grant_t grant, pooled;

	other(MIB(10), MIB(40));
	CHECK(!emuv_account_reserve(0, wanted, 0, &grant));
	nothing_but(0);
	CHECK(!emuv_account_reserve(0, wanted, slot << EMUV_POOL_SHIFT, &pooled));
	nothing_but(0);
	CHECK(!memcmp(&before, emuv_books_pool(slot), sizeof before));
	CHECK(!emuv_account_graph_reserve(0, wanted));
	nothing_but(0);
	CHECK(!emuv_account_overhead(0, wanted, 0, false));
	nothing_but(0);
	CHECK(emuv_account_reserve(0, small, 0, &grant));
	CHECK(!emuv_account_extend(0, &grant, wanted));
	CHECK_EQ(grant.bytes, small);
	nothing_but(small);
	emuv_account_roll_back(0, &grant);
	nothing_but(0);
	CHECK_EQ(g_books.ledger.promised, 0);
	/* What is there whatever anybody says is charged. */
	CHECK(emuv_account_overhead(0, wanted, 0, true));
	nothing_but(wanted);
	emuv_account_overhead_gone(0, wanted);
	/* AND once it has been withdrawn */
	other(MIB(10), 0);
	CHECK(emuv_account_graph_reserve(0, wanted));
	CHECK(emuv_account_overhead(0, wanted, 0, false));
	CHECK(emuv_account_reserve(0, small, 0, &grant));
	CHECK(emuv_account_extend(0, &grant, small));
	nothing_but(2 * wanted + 2 * small);
}

static void spill(uint64_t bytes, emuv_entry_t *entry)
{
	emuv_grant_t grant;

	*entry = (emuv_entry_t){ .kind = EMUV_KIND_MEMORY, .key = KEY };
	CHECK(emuv_account_reserve(0, bytes, EMUV_MAY_SPILL, &grant));
	CHECK_EQ(grant.placement, EMUV_PLACED_MANAGED);
	emuv_account_commit(0, &grant, entry, false);
	CHECK(emuv_account_look(EMUV_KIND_MEMORY, KEY, entry));
}

/* Others' spills that are under way take of what all may use, and no room of the device. */
static void a_claim_of_what_is_used(void)
{
	emuv_shared_row_t *row = &shared->row[OTHER][0];
	emuv_grant_t grant;

	other(MIB(10), 0);
	row->held_used = MIB(60);
	row->claimed_used = MIB(110);
	CHECK(!emuv_account_reserve(0, MIB(20), EMUV_MAY_SPILL, &grant));
	nothing_but(0);
	CHECK(emuv_account_reserve(0, MIB(18), EMUV_MAY_SPILL, &grant));
	nothing_but(MIB(18));
}

/* More cards than the file has columns: all of them in the last one. */
static void more_cards_than_columns(void)
{
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		shared->card[i] = shared->card[i] ? shared->card[i] : 1000 + (uint64_t)i;
	emuv_share_card(share, 0, 99);
	CHECK_EQ(share->column[0], EMUV_MAX_DEVICES); /* counted from 1 */
	emuv_share_card(share, 0, 4711);
	CHECK_EQ(share->column[0], 1);
}

/* What the last owner of a slot left in it, killed in the middle of a claim, is nobody's. */
static void a_slot_that_was_anothers(void)
{
	const unsigned int next = share->slot + 1;
	emuv_shared_row_t *row = &shared->row[next][0];
	unsigned int slot;

	*row = (emuv_shared_row_t){ .held_physical = MIB(8), .held_used = MIB(8),
				    .claimed_physical = MIB(64), .claimed_used = MIB(64),
				    .leaving = MIB(8) };
	CHECK_EQ(emuv_shared_take_slot(shared, share->self, &slot), 0);
	CHECK_EQ(slot, next);
	CHECK_EQ(row->held_physical | row->held_used | row->leaving, 0);
	CHECK_EQ(row->claimed_physical | row->claimed_used, 0);
}

/* A prefetch brings nothing where somebody else claims the room. */
static void a_claim_before_a_prefetch(void)
{
	emuv_entry_t range;
	emuv_move_t move;

	other(MIB(64), 0);
	spill(MIB(8), &range);
	other(MIB(40), MIB(20));
	CHECK(emuv_account_arrive(&range, KEY, MIB(8), 1, &move));
	CHECK_EQ(move.n_runs, 0);
	CHECK_EQ(move.clipped, MIB(8));
	emuv_account_arrived(&move, 0);
	nothing_but(0);
	other(MIB(40), 0);
	CHECK(emuv_account_arrive(&range, KEY, MIB(8), 1, &move));
	CHECK_EQ(move.n_runs, 1);
	emuv_account_arrived(&move, 1);
	nothing_but(MIB(8));
}

static void what_is_leaving_elsewhere(void)
{
	emuv_piece_t pieces[4];
	emuv_entry_t range;

	other(MIB(44), 0);
	spill(MIB(40), &range);
	CHECK_EQ(range.resident, MIB(20));
	other(MIB(60), 0);
	shared->row[OTHER][0].leaving = MIB(16);
	CHECK_EQ(emuv_account_demote(0, 0, pieces, 4), 0);
	shared->row[OTHER][0].leaving = MIB(10);
	CHECK_EQ(emuv_account_demote(0, 0, pieces, 4), 1);
	CHECK_EQ(pieces[0].charged, MIB(6));
	CHECK_EQ(shared->row[share->slot][0].leaving, MIB(6));
	emuv_account_demoted(&pieces[0], true);
	CHECK_EQ(shared->row[share->slot][0].leaving, 0);
	nothing_but(MIB(14));
}

static void a_changed_budget_is_shown(void)
{
	const emuv_control_t *shown = &emuv_account_segment()->control;
	emuv_report_t report;

	shared->control.budget[0] = (emuv_budget_t){ MIB(32), MIB(16) };
	shared->control.allocation = EMUV_ALLOCATION_EAGER;
	shared->control.generation += 2;
	emuv_account_report(0, &report);
	CHECK_EQ(report.visible, MIB(48));
	CHECK_EQ(shown->budget[0].vram_bytes, MIB(32));
	CHECK_EQ(shown->budget[0].virtual_bytes, MIB(16));
	CHECK_EQ(shown->allocation, EMUV_ALLOCATION_EAGER);
	CHECK_EQ(shown->generation, shared->control.generation);
	CHECK_EQ(emuv_account_segment()->applied_generation, shared->control.generation);
}

/* What one process is not sure of is missed by all. */
static void pools_are_looked_at(void)
{
	unsigned int slot = emuv_account_pool_new(0x1000, 0), next = 0;
	uint64_t reserved = MIB(2);
	emuv_pool_look_t look;
	emuv_grant_t grant;

	CHECK(!emuv_account_pools_unsure(0));
	CHECK(emuv_account_reserve(0, MIB(1), slot << EMUV_POOL_SHIFT, &grant));
	CHECK(emuv_account_pools_unsure(0));
	emuv_account_pool_grown(&grant);
	CHECK_EQ(emuv_account_pools(0, &next, &look, 1), 1);
	emuv_account_pool_seen(&look, &reserved);
	CHECK(!emuv_account_pools_unsure(0));
	CHECK_EQ(counters()->kept_bytes, MIB(1));
	nothing_but(MIB(2));
	/* By an estimate, what it is not sure of need not fit. */
	other(MIB(40), 0);
	CHECK(!emuv_account_reserve(0, MIB(50), slot << EMUV_POOL_SHIFT | EMUV_ESTIMATE, &grant));
	slot = emuv_account_pool_new(0x2000, 0);
	CHECK(!emuv_account_reserve(0, MIB(10), slot << EMUV_POOL_SHIFT, &grant));
	CHECK(emuv_account_reserve(0, MIB(10), slot << EMUV_POOL_SHIFT | EMUV_ESTIMATE, &grant));
	CHECK_EQ(counters()->device_bytes, MIB(11));
}

/* Each in a process and a run of its own. */
static void in_run(const char *run, void (*work)(void))
{
	pid_t child = fork();
	int status;

	CHECK(child >= 0);
	if (child == 0) {
		configure(run, MIB(64));
		join_run();
		shared = map_run(run);
		work();
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

int main(void)
{
	alarm(50);
	emuv_message_quiet(1);
	in_run("claims", a_claim_in_the_way);
	in_run("used", a_claim_of_what_is_used);
	in_run("columns", more_cards_than_columns);
	in_run("slot", a_slot_that_was_anothers);
	in_run("prefetch", a_claim_before_a_prefetch);
	in_run("leaving", what_is_leaving_elsewhere);
	in_run("changed", a_changed_budget_is_shown);
	in_run("pools", pools_are_looked_at);
	return 0;
}
