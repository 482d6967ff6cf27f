/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "shared.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "message.h"
#include "pause.h"

/* Decisions that others' grants may overtake before this one is refused. */
#define MOST_TRIES 128
/* Withdrawals for a lower slot's claim, PAUSE_US apart, before it counts as held. */
#define MOST_RETREATS 40
#define PAUSE_US 50
/* How often a dead process is told from another that has its pid. */
#define THOROUGH_MS 100
/* Looks at a higher slot's claim, which withdraws when it sees ours. */
#define SHORT_LOOKS 200
#define MOST_LOOKS 60 /* further ones, PAUSE_US apart */

/* ---- joining ---- */

/* What to unmap in a forked child, where *share is wiped. */
static emuv_shared_t *mapped;

emuv_share_t *emuv_share_join(const emuv_config_t *config)
{
	emuv_shared_start_t start = { .control = config->control };
	char directory[PATH_MAX];
	emuv_error_t error = { "" };
	emuv_share_t *share;
	int rc;

	memcpy(start.run_id, config->run_id, sizeof start.run_id);
	memcpy(start.name, config->name, sizeof start.name);
	share = mmap(NULL, sizeof *share, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (share == MAP_FAILED) {
		emuv_error("no memory to join the shared budget");
		return NULL;
	}
	/* A raw clone of the process calls no fork handler; its copy must not be ours.
	 * Kernels before 4.14 cannot: there the driver's refusal in a child must do. */
	madvise(share, sizeof *share, MADV_WIPEONFORK);
	rc = emuv_segment_directory(directory, sizeof directory, 1, &error);
	if (!rc)
		rc = emuv_shared_join(directory, &start, &share->file, &share->slot, &error);
	if (rc) {
		munmap(share, sizeof *share);
		emuv_error("the budget is shared, and this process cannot join it: %s", error.text);
		return NULL;
	}
	share->self = share->file->owner[share->slot];
	mapped = share->file;
	return share;
}

void emuv_share_card(emuv_share_t *share, CUdevice device, uint64_t card)
{
	int column = emuv_shared_column(share->file, card);

	/* More cards than columns: some count for one, which is too much, not too little. */
	share->column[device] = column < 0 ? EMUV_MAX_DEVICES : (uint8_t)(column + 1);
}

void emuv_share_leave(emuv_share_t *share)
{
	if (share->file) {
		emuv_shared_leave(share->file, share->slot);
		munmap(share->file, sizeof *share->file);
	}
	munmap(share, sizeof *share);
}

void emuv_share_fork_child(emuv_share_t *share)
{
	munmap(share, sizeof *share);
	munmap(mapped, sizeof *mapped);
}

/* ---- sums ---- */

/* The process's row; NULL: it has no part in the file, or no such device. */
static emuv_shared_row_t *row_of(const emuv_share_t *share, CUdevice device)
{
	if (!share->file || !share->column[device])
		return NULL;
	return &share->file->row[share->slot][share->column[device] - 1];
}

/* What the others hold, of a device that has a row. */
static void sum_up(const emuv_share_t *share, CUdevice device, emuv_shared_sum_t *sum)
{
	emuv_shared_sum(share->file, share->slot, share->column[device] - 1u, sum);
}

static uint64_t plus(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

void emuv_share_look(const emuv_share_t *share, CUdevice device, emuv_budget_device_t *budget,
		     const emuv_attempt_t *attempt, uint64_t *others_leaving)
{
	emuv_shared_sum_t sum;

	if (!row_of(share, device))
		return;
	sum_up(share, device, &sum);
	if (attempt && attempt->count_pending) {
		sum.physical = plus(sum.physical, plus(sum.before_physical, sum.after_physical));
		sum.used = plus(sum.used, plus(sum.before_used, sum.after_used));
	}
	budget->counters.others_physical_bytes = sum.physical;
	budget->counters.others_used_bytes = sum.used;
	*others_leaving = sum.leaving;
}

void emuv_share_publish(const emuv_share_t *share, CUdevice device,
			const emuv_budget_device_t *budget, uint64_t leaving)
{
	emuv_shared_row_t *row = row_of(share, device);

	if (!row)
		return;
	__atomic_store_n(&row->held_physical, emuv_budget_taken(budget), __ATOMIC_RELEASE);
	EMUV_STEP(PUBLISH_HALF);
	__atomic_store_n(&row->held_used, emuv_budget_used(budget), __ATOMIC_RELEASE);
	__atomic_store_n(&row->leaving, leaving, __ATOMIC_RELAXED);
	EMUV_STEP(PUBLISHED);
}

/* ---- claims ---- */

typedef struct {
	uint64_t more_physical, more_used; /* what is claimed */
	uint64_t physical, used;           /* ours with it */
	uint64_t vram, visible;
} claim_t;

/* Whether the claim and so much of the others' are within the budget. */
static bool fits(const claim_t *claim, uint64_t physical, uint64_t used)
{
	if (claim->more_physical && claim->vram != EMUV_UNLIMITED &&
	    plus(claim->physical, physical) > claim->vram)
		return false;
	return !claim->more_used || claim->visible == EMUV_UNLIMITED ||
	       plus(claim->used, used) <= claim->visible;
}

enum verdict { FITS, OVERTAKEN, LOWER_FIRST, HIGHER_TOO };

static enum verdict judge(const emuv_share_t *share, CUdevice device, const claim_t *claim)
{
	emuv_shared_sum_t s;

	sum_up(share, device, &s);
	EMUV_STEP(CLAIM_SUMMED);
	if (fits(claim, plus(s.physical, plus(s.before_physical, s.after_physical)),
		 plus(s.used, plus(s.before_used, s.after_used))))
		return FITS;
	if (!fits(claim, s.physical, s.used))
		return OVERTAKEN;
	if (!fits(claim, plus(s.physical, s.before_physical), plus(s.used, s.before_used)))
		return LOWER_FIRST;
	return HIGHER_TOO;
}

static void publish_claim(emuv_shared_row_t *row, const claim_t *claim)
{
	__atomic_store_n(&row->claimed_physical, claim->more_physical ? claim->physical : 0,
			 __ATOMIC_RELAXED);
	EMUV_STEP(CLAIM_HALF);
	/* Before any of the reads that judge it, in the one order that all agree on. */
	__atomic_store_n(&row->claimed_used, claim->more_used ? claim->used : 0, __ATOMIC_SEQ_CST);
	EMUV_STEP(CLAIM_PUBLISHED);
}

static void withdraw(emuv_shared_row_t *row)
{
	__atomic_store_n(&row->claimed_used, 0, __ATOMIC_RELEASE);
	EMUV_STEP(WITHDRAW_HALF);
	__atomic_store_n(&row->claimed_physical, 0, __ATOMIC_RELEASE);
	EMUV_STEP(WITHDRAWN);
}

/* Held before it is no longer claimed; the larger of the two is what counts. */
static void hold(emuv_shared_row_t *row, const claim_t *claim)
{
	__atomic_store_n(&row->held_physical, claim->physical, __ATOMIC_RELAXED);
	EMUV_STEP(GRANT_HALF);
	__atomic_store_n(&row->held_used, claim->used, __ATOMIC_RELAXED);
	EMUV_STEP(GRANT_HELD);
	__atomic_store_n(&row->claimed_used, 0, __ATOMIC_RELEASE);
	EMUV_STEP(GRANT_HALF_CLEARED);
	__atomic_store_n(&row->claimed_physical, 0, __ATOMIC_RELEASE);
	EMUV_STEP(GRANT_DONE);
}

static void rest(void)
{
	EMUV_STEP(RESTED);
	emuv_pause_us(PAUSE_US);
}

/* The verdict once a higher slot's claim is gone, or has been waited for. */
static enum verdict judge_patiently(const emuv_share_t *share, CUdevice device,
				    const claim_t *claim, const emuv_attempt_t *attempt)
{
	enum verdict verdict = judge(share, device, claim);

	for (int i = 0; verdict == HIGHER_TOO && i < SHORT_LOOKS; i++) {
		__builtin_ia32_pause();
		verdict = judge(share, device, claim);
	}
	for (int i = 0; verdict == HIGHER_TOO && attempt->patient && i < MOST_LOOKS; i++) {
		rest();
		verdict = judge(share, device, claim);
	}
	return verdict;
}

/* What to do before the next decision; nothing is left to do after too many. */
static void come_again(emuv_attempt_t *attempt, enum verdict verdict)
{
	attempt->tries++;
	attempt->again = attempt->tries < MOST_TRIES;
	if (verdict == OVERTAKEN)
		return;
	/* First see whether the claim in the way is a dead process's. */
	if (!attempt->patient) {
		attempt->patient = attempt->reap = true;
	} else if (verdict == HIGHER_TOO || attempt->tries > MOST_RETREATS) {
		attempt->count_pending = attempt->reap = true;
	} else {
		attempt->pause = true;
	}
}

bool emuv_share_settle(const emuv_share_t *share, CUdevice device,
		       const emuv_budget_device_t *budget, emuv_attempt_t *attempt, bool full,
		       uint64_t guess)
{
	const emuv_device_counters_t *c = &budget->counters;
	emuv_shared_row_t *row = row_of(share, device);
	enum verdict verdict;
	claim_t claim;

	attempt->again = attempt->reap = attempt->pause = false;
	if (!row)
		return true;
	if (!full && !attempt->looked && (c->others_physical_bytes | c->others_used_bytes)) {
		attempt->looked = attempt->again = attempt->reap = true;
		return false;
	}
	claim.physical = emuv_budget_taken(budget) - guess;
	claim.used = emuv_budget_used(budget);
	claim.vram = budget->vram;
	claim.visible = emuv_budget_visible(budget);
	claim.more_physical = claim.physical > row->held_physical ?
			      claim.physical - row->held_physical : 0;
	claim.more_used = claim.used > row->held_used ? claim.used - row->held_used : 0;
	if (!(claim.more_physical | claim.more_used))
		return true;
	publish_claim(row, &claim);
	verdict = judge_patiently(share, device, &claim, attempt);
	if (verdict == FITS) {
		hold(row, &claim);
		return true;
	}
	withdraw(row);
	come_again(attempt, verdict);
	return false;
}

bool emuv_share_again(emuv_share_t *share, emuv_attempt_t *attempt)
{
	if (!attempt->again)
		return false;
	attempt->again = false; /* until the next settling says so */
	if (attempt->reap)
		emuv_share_tidy(share);
	if (attempt->pause)
		rest();
	return true;
}

void emuv_share_tidy(emuv_share_t *share)
{
	struct timespec now;
	uint64_t now_ms;
	bool thorough;
	int cancel;

	if (!share->file)
		return;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	thorough = now_ms - __atomic_load_n(&share->looked_ms, __ATOMIC_RELAXED) > THOROUGH_MS;
	if (thorough)
		__atomic_store_n(&share->looked_ms, now_ms, __ATOMIC_RELAXED);
	/* Files are cancellation points, and the caller may have something to give back. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	emuv_shared_reap(share->file, share->self, thorough);
	pthread_setcancelstate(cancel, NULL);
}
