// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/extents.c csrc/shim/ledger.c csrc/shim/message.c
// link: csrc/common/emuv_segment_control.c csrc/common/emuv_segment_file.c
/*
 * The books without a driver: what is published, what a controller writes, what a
 * forked child knows, and that reserve, commit, take, restore and freed add up in
 * any order and from any thread.
 */
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>

#include "account.h"
#include "books.h"
#include "check.h"
#include "emuv_segment_file.h"
#include "message.h"

static emuv_config_t config;

static void open_books(uint64_t vram, uint64_t extra, uint32_t policy, emuv_segment_t *segment)
{
	emuv_account_fork_child();
	memset(&config, 0, sizeof config);
	config.control.policy = policy;
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		config.control.budget[i] = (emuv_budget_t){ vram, extra };
	if (segment)
		segment->control = config.control;
	emuv_account_start(&config, segment, 2, NULL);
	emuv_account_card(0, MIB(256), 0, true);
	emuv_account_card(1, MIB(256), 0, true);
}

static emuv_entry_t memory(uint64_t key)
{
	return (emuv_entry_t){ .kind = EMUV_KIND_MEMORY, .key = key, .context = 77 };
}

/* What is published is what is held, in whole writes. */
static void published(void)
{
	static emuv_segment_t segment;
	emuv_entry_t entry = memory(4096);
	emuv_grant_t grant;

	open_books(MIB(10), MIB(10), EMUV_POLICY_SPILL, &segment);
	CHECK(emuv_account_segment() == &segment);
	CHECK(emuv_account_reserve(0, MIB(12), EMUV_MAY_SPILL, &grant));
	CHECK_EQ(segment.device[0].managed_bytes, MIB(12));
	CHECK_EQ(segment.device[0].resident_bytes, MIB(10));
	CHECK_EQ(segment.device[0].live_allocations, 0); /* not there yet */
	CHECK_EQ(segment.device[0].peak_used_bytes, 0);
	emuv_account_commit(0, &grant, &entry, true);
	CHECK_EQ(segment.device[0].live_allocations, 1);
	CHECK_EQ(segment.device[0].peak_used_bytes, MIB(12));
	CHECK_EQ(segment.device[0].spills, 1);
	CHECK_EQ(segment.device[0].driver_oom_spills, 1);
	CHECK_EQ(segment.device[0].card_bytes, MIB(256));
	CHECK(segment.device[0].flags & EMUV_DEVICE_SEEN);
	emuv_account_call(0, 3);
	emuv_account_call(0, 3);
	CHECK_EQ(segment.device[0].calls[3], 2);
	CHECK_EQ(segment.counters_seq % 2, 0);
	CHECK(emuv_account_take(EMUV_KIND_MEMORY, 4096, &entry));
	CHECK_EQ(segment.device[0].managed_bytes, MIB(12)); /* charged until it is freed */
	emuv_account_restore(&entry);
	CHECK(emuv_account_take(EMUV_KIND_MEMORY, 4096, &entry));
	CHECK(!emuv_account_take(EMUV_KIND_MEMORY, 4096, &entry));
	emuv_account_freed(&entry);
	CHECK_EQ(segment.device[0].managed_bytes + segment.device[0].resident_bytes, 0);
	CHECK_EQ(segment.device[0].live_allocations, 0);
	CHECK_EQ(segment.device[0].calls[3], 2); /* publishing leaves the calls alone */
	CHECK_EQ(segment.device[1].peak_used_bytes, 0);
}

/* An address that the driver gives out though it is on the books: the old charge goes. */
static void an_address_that_comes_again(void)
{
	emuv_entry_t entry = memory(4096);
	emuv_grant_t grant;

	open_books(MIB(10), 0, EMUV_POLICY_CAP, NULL);
	CHECK(emuv_account_reserve(0, MIB(6), 0, &grant));
	emuv_account_commit(0, &grant, &entry, false);
	CHECK(emuv_account_reserve(1, MIB(3), 0, &grant));
	entry = memory(4096);
	emuv_account_commit(1, &grant, &entry, false);
	CHECK_EQ(emuv_account_segment()->device[0].device_bytes, 0);
	CHECK_EQ(emuv_account_segment()->device[0].live_allocations, 0);
	CHECK_EQ(emuv_account_segment()->device[1].device_bytes, MIB(3));
	CHECK_EQ(emuv_account_segment()->device[1].live_allocations, 1);
}

/* What a controller writes is taken up whole, and only where it makes sense. */
static void controlled(void)
{
	static emuv_segment_t segment;
	emuv_report_t report;

	memset(&segment, 0, sizeof segment);
	open_books(MIB(10), 0, EMUV_POLICY_CAP, &segment);
	segment.control.generation = 3; /* somebody is in the middle of writing */
	segment.control.budget[0].vram_bytes = MIB(1);
	emuv_account_report(0, &report);
	CHECK_EQ(report.vram, MIB(10));
	segment.control.generation = 4;
	emuv_account_report(0, &report);
	CHECK_EQ(report.vram, MIB(1));
	CHECK_EQ(segment.applied_generation, 4);
	segment.control.policy = 9;
	segment.control.budget[0].vram_bytes = MIB(100);
	segment.control.generation = 6;
	emuv_account_report(0, &report);
	CHECK_EQ(report.vram, MIB(1));
	CHECK_EQ(segment.applied_generation, 4);
	segment.control.policy = EMUV_POLICY_SPILL;
	segment.control.allocation = EMUV_ALLOCATION_EAGER;
	segment.control.generation = 8;
	emuv_account_report(0, &report);
	CHECK_EQ(report.vram, MIB(100));
	CHECK(emuv_account_eager());
}

/* A child knows nothing, and does not write what the parent publishes. */
static void forked(void)
{
	static emuv_segment_t segment;
	emuv_entry_t entry = memory(4096);
	emuv_grant_t grant;
	int status;
	pid_t child;

	memset(&segment, 0, sizeof segment);
	open_books(MIB(10), 0, EMUV_POLICY_CAP, &segment);
	CHECK(emuv_account_reserve(0, MIB(6), 0, &grant));
	emuv_account_commit(0, &grant, &entry, false);
	child = fork();
	if (child == 0) {
		alarm(20);
		emuv_account_fork_child();
		if (emuv_account_segment() == &segment ||
		    emuv_account_take(EMUV_KIND_MEMORY, 4096, &entry))
			_exit(1);
		emuv_account_start(&config, NULL, 1, NULL);
		if (!emuv_account_reserve(0, MIB(10), 0, &grant) ||
		    emuv_account_segment()->device[0].device_bytes != MIB(10) ||
		    segment.device[0].device_bytes != MIB(6))
			_exit(2);
		_exit(0);
	}
	CHECK(child > 0);
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK(emuv_account_take(EMUV_KIND_MEMORY, 4096, &entry));
	emuv_account_freed(&entry);
	CHECK_EQ(segment.device[0].device_bytes, 0);
}

/* Room in the ledger is promised for what comes to something, and for no longer. */
static void promises(void)
{
	emuv_entry_t entry = { .kind = EMUV_KIND_HOST, .key = 4096, .bytes = 10,
			       .flags = EMUV_ENTRY_PINNED };
	emuv_grant_t grant;
	bool last;

	open_books(MIB(10), 0, EMUV_POLICY_CAP, NULL);
	CHECK(!emuv_account_reserve(0, MIB(11), 0, &grant));
	CHECK_EQ(g_books.ledger.promised, 0);
	emuv_account_tally(&entry);
	CHECK(emuv_account_untally(EMUV_KIND_HOST, 4096, &entry, &last) && last);
	CHECK_EQ(g_books.ledger.promised, 1); /* it may be restored */
	emuv_account_freed(&entry);
	CHECK_EQ(g_books.ledger.promised, 0);
}

/* A handle that the driver gives out anew, though its end was not seen, leads to the new memory. */
static void a_handle_that_comes_again(void)
{
	emuv_entry_t entry;
	bool last;

	open_books(MIB(10), 0, EMUV_POLICY_CAP, NULL);
	emuv_account_handle_more(4096, 1, 0);
	emuv_account_handle_more(4096, 2, 0);
	CHECK(emuv_account_handle_less(4096, &entry, &last) && last);
	CHECK_EQ(entry.link, 2);
	emuv_account_freed(&entry);
}

/* A module takes its own variables along, and no other's. */
static void variables_of_two_modules(void)
{
	emuv_entry_t entry;
	emuv_grant_t grant;

	open_books(MIB(10), 0, EMUV_POLICY_CAP, NULL);
	for (uint64_t module = 7; module < 9; module++) {
		const emuv_entry_t variable = { .kind = EMUV_KIND_VARIABLE, .key = module * 4096,
						.link = module };

		CHECK(emuv_account_reserve(0, MIB(module - 5), 0, &grant));
		entry = memory(module * 4096);
		emuv_account_commit(0, &grant, &entry, false);
		CHECK_EQ(emuv_account_note(&variable), 0);
	}
	emuv_account_variables_gone(7, emuv_account_mark());
	CHECK_EQ(emuv_account_segment()->device[0].device_bytes, MIB(3));
	emuv_account_variables_gone(8, emuv_account_mark());
	CHECK_EQ(emuv_account_segment()->device[0].device_bytes, 0);
}

/* ---- threads ---- */

#define VRAM (MIB(16) + 3)
#define EXTRA MIB(8)

static void *churn(void *argument)
{
	uint64_t random = (uint64_t)(uintptr_t)argument * 31 + 1, n = (uint64_t)(uintptr_t)argument << 32;
	emuv_entry_t held[16];
	size_t n_held = 0;

	for (int step = 0; step < 8000; step++) {
		emuv_grant_t grant;
		emuv_entry_t entry;

		if (n_held == 16 || (n_held && random_below(&random, 3) == 0)) {
			size_t i = random_below(&random, n_held);

			CHECK(emuv_account_take(EMUV_KIND_MEMORY, held[i].key, &entry));
			CHECK_EQ(entry.bytes, held[i].bytes);
			if (random_below(&random, 4) == 0) {
				emuv_account_restore(&entry);
				continue;
			}
			emuv_account_freed(&entry);
			held[i] = held[--n_held];
		} else if (emuv_account_reserve(0, 1 + random_below(&random, MIB(4)),
						EMUV_MAY_SPILL, &grant)) {
			if (random_below(&random, 4) == 0) {
				emuv_account_roll_back(0, &grant);
				continue;
			}
			entry = memory(++n);
			emuv_account_commit(0, &grant, &entry, false);
			held[n_held++] = entry;
		} else {
			emuv_account_denied(0, 1);
		}
	}
	while (n_held) {
		emuv_entry_t entry;

		CHECK(emuv_account_take(EMUV_KIND_MEMORY, held[--n_held].key, &entry));
		emuv_account_freed(&entry);
	}
	return NULL;
}

static void threads(void)
{
	const emuv_device_counters_t *c;
	pthread_t all[8];

	open_books(VRAM, EXTRA, EMUV_POLICY_SPILL, NULL);
	for (uintptr_t i = 0; i < 8; i++)
		CHECK_EQ(pthread_create(&all[i], NULL, churn, (void *)(i + 1)), 0);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(pthread_join(all[i], NULL), 0);
	c = &emuv_account_segment()->device[0];
	CHECK_EQ(c->device_bytes + c->managed_bytes + c->resident_bytes + c->live_allocations, 0);
	CHECK(c->peak_physical_bytes <= VRAM);
	CHECK(c->peak_used_bytes <= VRAM + EXTRA);
	CHECK(c->peak_used_bytes > VRAM);
	CHECK(c->denials > 0);
}

int main(void)
{
	alarm(50);
	emuv_message_quiet(1);
	published();
	an_address_that_comes_again();
	controlled();
	promises();
	a_handle_that_comes_again();
	variables_of_two_modules();
	forked();
	threads();
	return 0;
}
