// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/extents.c csrc/shim/budget.c csrc/shim/ledger.c
// link: csrc/shim/message.c csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
// sanitize: address
/*
 * The books of what moves, rule by rule and with no driver: whose a block is between a
 * prefetch and its event, what a later call may take away, what is undone.
 */
#include "account.h"
#include "books.h"
#include "check.h"
#include "message.h"

#define KEY UINT64_C(0x40000000)
#define BLOCK EMUV_BLOCK_BYTES
#define SIZE (4 * BLOCK)

enum { ONE = 1, OTHER }; /* streams */

static void set_vram(uint64_t bytes)
{
	emuv_control_t *control = &emuv_account_segment()->control;

	control->budget[0].vram_bytes = bytes;
	control->generation += 2;
	emuv_account_over(0);
}

/* A spilled range of four blocks, of which the first `head` bytes are on the device. */
static emuv_entry_t begin(uint64_t head)
{
	emuv_config_t config = { .valid = 1 };
	emuv_entry_t entry = { .kind = EMUV_KIND_MEMORY, .key = KEY };
	emuv_grant_t grant;

	emuv_account_fork_child();
	emuv_message_quiet(1);
	config.control.policy = EMUV_POLICY_SPILL;
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		config.control.budget[i] = (emuv_budget_t){ head, MIB(64) };
	emuv_account_start(&config, NULL, 1, NULL);
	emuv_account_card(0, MIB(64), 0, true);
	CHECK(emuv_account_reserve(0, SIZE, EMUV_MAY_SPILL, &grant));
	CHECK_EQ(grant.placement, EMUV_PLACED_MANAGED);
	emuv_account_commit(0, &grant, &entry, false);
	set_vram(2 * SIZE);
	CHECK(emuv_account_look(EMUV_KIND_MEMORY, KEY, &entry));
	return entry;
}

static uint64_t resident(void)
{
	return emuv_account_segment()->device[0].resident_bytes;
}

/* A prefetch of the blocks to the device that the driver takes. */
static emuv_move_t bring(const emuv_entry_t *range, unsigned int first, unsigned int n, uint64_t owner)
{
	emuv_move_t move;

	CHECK(emuv_account_arrive(range, KEY + first * BLOCK, n * BLOCK, owner, &move));
	emuv_account_arrived(&move, move.n_runs);
	return move;
}

/* What of the blocks leaves when the stream takes all of it to the host. */
static uint64_t leaves(const emuv_entry_t *range, uint64_t owner)
{
	emuv_move_t move;

	emuv_account_leave(range, KEY, SIZE, owner, emuv_account_version(range), &move);
	emuv_account_settled(&move, EMUV_MOVE_ENDED); /* and is there still */
	return move.leaving;
}

static void end(const emuv_entry_t *range)
{
	emuv_entry_t entry;

	CHECK(emuv_account_take(EMUV_KIND_MEMORY, range->key, &entry));
	emuv_account_freed(&entry);
	emuv_books_sweep();
	CHECK_EQ(resident(), 0);
	emuv_ledger_free(&g_books.ledger);
}

static void what_arrives_is_its_streams(void)
{
	emuv_entry_t range = begin(0);
	emuv_move_t first = bring(&range, 0, 4, ONE), again, other;

	CHECK_EQ(first.n_runs, 1);
	CHECK_EQ(resident(), SIZE);
	/* Nobody else's stream brings it too, or takes it away. */
	other = bring(&range, 0, 4, OTHER);
	CHECK_EQ(other.n_runs, 0);
	CHECK_EQ(other.clipped, 0);
	CHECK_EQ(leaves(&range, OTHER), 0);
	/* Its own may, and it is not charged twice; refused, it is there all the same. */
	CHECK(emuv_account_arrive(&range, KEY, SIZE, ONE, &again));
	CHECK_EQ(again.n_runs, 1);
	CHECK_EQ(resident(), SIZE);
	emuv_account_arrived(&again, 0);
	CHECK_EQ(leaves(&range, OTHER), SIZE);
	CHECK_EQ(resident(), SIZE);
	emuv_account_settled(&first, EMUV_MOVE_DONE);
	end(&range);
}

static void what_the_driver_refused_is_not_there(void)
{
	emuv_entry_t range = begin(BLOCK);
	emuv_move_t move;

	CHECK(emuv_account_arrive(&range, KEY, SIZE, ONE, &move));
	CHECK_EQ(move.n_runs, 1);
	CHECK_EQ(resident(), SIZE);
	emuv_account_arrived(&move, 0);
	CHECK_EQ(resident(), BLOCK);
	CHECK_EQ(leaves(&range, OTHER), BLOCK);
	end(&range);
}

static void how_a_move_ends(void)
{
	for (enum emuv_move_end how = EMUV_MOVE_DONE; how <= EMUV_MOVE_LOST; how++) {
		emuv_entry_t range = begin(0);
		emuv_move_t move = bring(&range, 0, 4, ONE);

		emuv_account_settled(&move, how);
		/* What has no event may arrive at any time: it is its stream's for good. */
		CHECK_EQ(leaves(&range, OTHER), how == EMUV_MOVE_LOST ? 0 : SIZE);
		CHECK_EQ(leaves(&range, ONE), SIZE);
		CHECK(emuv_account_leave(&range, KEY, SIZE, ONE, emuv_account_version(&range), &move));
		emuv_account_settled(&move, how);
		CHECK_EQ(resident(), how == EMUV_MOVE_DONE ? 0 : SIZE);
		end(&range);
	}
}

/* Between a call to the host and its entry here another thread may have brought it again. */
static void a_prefetch_meanwhile(void)
{
	emuv_entry_t range = begin(0);
	emuv_move_t move = bring(&range, 0, 2, ONE), late, home;
	uint64_t before, between;

	emuv_account_settled(&move, EMUV_MOVE_DONE);
	before = emuv_account_version(&range);
	CHECK(emuv_account_arrive(&range, KEY + 2 * BLOCK, BLOCK, ONE, &late));
	CHECK(!emuv_account_leave(&range, KEY, 2 * BLOCK, OTHER, before, &home));
	between = emuv_account_version(&range);
	emuv_account_arrived(&late, 1);
	CHECK(!emuv_account_leave(&range, KEY, 2 * BLOCK, OTHER, between, &home));
	CHECK(emuv_account_leave(&range, KEY, 2 * BLOCK, OTHER, emuv_account_version(&range), &home));
	emuv_account_settled(&home, EMUV_MOVE_DONE);
	emuv_account_settled(&late, EMUV_MOVE_DONE);
	CHECK_EQ(resident(), BLOCK);
	end(&range);
}

/* Only blocks that are taken home whole are known to have left. */
static void parts_of_blocks(void)
{
	emuv_entry_t range = begin(SIZE - BLOCK);
	emuv_move_t move = bring(&range, 0, 4, ONE);

	emuv_account_settled(&move, EMUV_MOVE_DONE);
	emuv_account_leave(&range, KEY + 4096, SIZE - BLOCK, ONE, emuv_account_version(&range), &move);
	CHECK_EQ(move.leaving, 2 * BLOCK);
	emuv_account_settled(&move, EMUV_MOVE_DONE);
	CHECK_EQ(resident(), 2 * BLOCK);
	end(&range);
}

static void as_far_as_there_is_room(void)
{
	emuv_entry_t range = begin(0);
	emuv_move_t move;

	set_vram(BLOCK + BLOCK / 2);
	move = bring(&range, 0, 4, ONE);
	CHECK_EQ(move.n_runs, 1);
	CHECK_EQ(move.runs[0].bytes, BLOCK);
	CHECK_EQ(move.clipped, SIZE - BLOCK);
	CHECK_EQ(resident(), BLOCK);
	end(&range);
}

/* vram was lowered while it came: nobody takes it away until it is there, and then it goes. */
static void over_once_it_is_there(void)
{
	emuv_entry_t range = begin(0);
	emuv_move_t move = bring(&range, 0, 4, ONE);
	emuv_piece_t pieces[4];

	set_vram(BLOCK);
	CHECK(emuv_account_over(0));
	CHECK_EQ(emuv_account_demote(0, 0, pieces, 4), 0);
	CHECK(!emuv_account_over(0));
	emuv_account_settled(&move, EMUV_MOVE_DONE);
	CHECK(emuv_account_over(0));
	CHECK_EQ(emuv_account_demote(0, 0, pieces, 4), 1);
	CHECK_EQ(pieces[0].charged, SIZE - BLOCK);
	emuv_account_demoted(&pieces[0], true);
	CHECK_EQ(resident(), BLOCK);
	end(&range);
}

/* Graphs' memory that nobody foresaw: heads make room for it. */
static void over_by_a_graph(void)
{
	emuv_entry_t range = begin(2 * BLOCK);
	uint64_t reserved = BLOCK;
	emuv_piece_t pieces[4];

	set_vram(2 * BLOCK);
	CHECK(!emuv_account_over(0));
	emuv_account_graph_seen(0, 0, emuv_account_graph_answers(0), &reserved);
	CHECK(emuv_account_over(0));
	CHECK_EQ(emuv_account_demote(0, 0, pieces, 4), 1);
	CHECK_EQ(pieces[0].charged, BLOCK);
	emuv_account_demoted(&pieces[0], true);
	CHECK(!emuv_account_over(0));
	end(&range);
}

/* A piece that did not leave, and was brought again before that was known. */
static void brought_while_it_was_leaving(void)
{
	emuv_entry_t range = begin(SIZE - BLOCK);
	emuv_move_t move;
	emuv_piece_t piece;

	set_vram(0);
	CHECK_EQ(emuv_account_demote(0, 0, &piece, 1), 1);
	set_vram(4 * SIZE);
	move = bring(&range, 0, 1, ONE);
	CHECK_EQ(resident(), SIZE);
	emuv_account_demoted(&piece, false);
	CHECK_EQ(resident(), SIZE - BLOCK);
	emuv_account_settled(&move, EMUV_MOVE_DONE);
	CHECK_EQ(leaves(&range, ONE), SIZE - BLOCK);
	end(&range);
}

/* A free that the driver refused: what was on its way is taken for there. */
static void a_range_that_comes_back(void)
{
	emuv_entry_t range = begin(0), taken;
	emuv_move_t move = bring(&range, 0, 4, ONE);

	CHECK(emuv_account_take(EMUV_KIND_MEMORY, KEY, &taken));
	emuv_account_restore(&taken);
	emuv_account_settled(&move, EMUV_MOVE_LOST);
	CHECK_EQ(leaves(&range, OTHER), SIZE);
	end(&range);
}

/* The program's own managed memory: not spilled memory's to move until it is pinned. */
static void own_memory_being_pinned(void)
{
	emuv_entry_t spilled = begin(0), range;
	emuv_entry_t own = { .kind = EMUV_KIND_MEMORY, .key = 2 * KEY, .flags = EMUV_ENTRY_OWN_MANAGED };
	const emuv_device_counters_t *c = &emuv_account_segment()->device[0];
	emuv_piece_t pieces[4];
	emuv_grant_t grant;

	CHECK(emuv_account_reserve(0, SIZE, 0, &grant));
	emuv_account_commit(0, &grant, &own, false);
	CHECK_EQ(c->movable_bytes, SIZE);
	set_vram(0);
	for (int pinned = 0; pinned < 2; pinned++) {
		CHECK_EQ(emuv_account_unfree(0, &range, 1), 1);
		CHECK_EQ(c->movable_bytes, 0);
		CHECK_EQ(c->resident_bytes, SIZE);
		CHECK_EQ(emuv_account_demote(0, 0, pieces, 4), 0);
		emuv_account_pinned(&range, pinned);
		CHECK_EQ(c->device_bytes, pinned ? 0 : SIZE);
		CHECK_EQ(c->movable_bytes, pinned ? 0 : SIZE);
		CHECK_EQ(c->resident_bytes, pinned ? SIZE : 0);
	}
	CHECK_EQ(emuv_account_demote(0, 0, pieces, 4), 1);
	emuv_account_demoted(&pieces[0], true);
	CHECK_EQ(c->resident_bytes, 0);
	CHECK(emuv_account_take(EMUV_KIND_MEMORY, own.key, &range));
	emuv_account_freed(&range);
	set_vram(2 * SIZE);
	CHECK(emuv_account_reserve(0, SIZE, 0, &grant));
	own.serial = 0;
	emuv_account_commit(0, &grant, &own, false);
	CHECK_EQ(c->movable_bytes, SIZE);
	CHECK(emuv_account_take(EMUV_KIND_MEMORY, own.key, &range));
	emuv_account_freed(&range);
	CHECK_EQ(c->movable_bytes, 0);
	end(&spilled);
}

int main(void)
{
	alarm(50);
	what_arrives_is_its_streams();
	what_the_driver_refused_is_not_there();
	how_a_move_ends();
	a_prefetch_meanwhile();
	parts_of_blocks();
	as_far_as_there_is_room();
	over_once_it_is_there();
	over_by_a_graph();
	brought_while_it_was_leaving();
	a_range_that_comes_back();
	own_memory_being_pinned();
	return 0;
}
