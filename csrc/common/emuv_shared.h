/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The shared ledger of a run (`emuv-run --shared`): one file, `<run id>.run`, that
 * all processes of the run map, so that one budget holds for their sum.
 *
 *   header    constant once the file has its name.
 *   control   the run's live budget, written by controllers as in a segment.
 *   slots     one a process: who it is (`owner`) and a row of bytes for each card.
 *
 * There is no lock.  A row is written by its slot's owner alone; everybody reads all.
 * A claim is published as `claimed` first, then the sums over all owned slots are
 * read, then it becomes `held` or is withdrawn (csrc/shim/shared.c).  Of claims that
 * were granted and are still held, the one published last has seen all the others:
 * so they fit together.  A process that dies at any instruction leaves nothing but a
 * slot whose owner is dead, and whoever finds that clears it with one compare-and-swap.
 *
 * `owner` is one word, 0 where the slot is free:
 *   bit 63       joining: the slot is taken, its rows are not yet zeroed and count nothing
 *   bits 53..62  which numbering of processes `pid` is of: index into place[], from 1
 *   bits 22..52  start time of the process, /proc/PID/stat field 22, modulo 2^31
 *   bits 0..21   pid
 * A start time that agrees by the modulo makes a dead owner look alive, never the
 * other way round.
 *
 * Liveness goes by pid and start time, not by a lock that a descriptor holds: a lock
 * would be inherited by forked children, and lost by programs that close what they did
 * not open, who would then be counted no more.  Nobody is judged by somebody who
 * numbers processes differently (pid or time namespaces): in doubt a slot is held.
 *
 * Who opens the file holds a shared flock(2) until its slot is taken; who removes the
 * file holds the exclusive one and has found nobody alive.  An opener that then finds
 * its file without a name starts anew: there are never two ledgers.
 */
#ifndef EMUV_SHARED_H
#define EMUV_SHARED_H

#include <string.h>

#include "emuv_segment_file.h"

#define EMUV_SHARED_MAGIC UINT64_C(0x314e555256556d65) /* "emUVRUN1" */
#define EMUV_SHARED_VERSION 1u
#define EMUV_SHARED_SLOTS 256u
#define EMUV_SHARED_PLACES 64u

#define EMUV_OWNER_JOINING (UINT64_C(1) << 63)

/* One process on one card.  A cache line. */
typedef struct {
	/* What `held` would be with a claim that is not yet granted; 0: there is none. */
	uint64_t claimed_physical;
	uint64_t claimed_used;
	uint64_t held_physical;
	uint64_t held_used;
	uint64_t leaving; /* of held_physical: on its way to the host */
	uint64_t reserved[3];
} emuv_shared_row_t;

typedef struct {
	uint64_t magic;
	uint32_t version;
	uint32_t size; /* sizeof(emuv_shared_t) */
	uint32_t uid;
	uint32_t reserved0;
	uint64_t created_ns; /* CLOCK_REALTIME */
	uint64_t leader;     /* an owner word: while it lives the file stays */
	char run_id[EMUV_TEXT_BYTES];
	char name[EMUV_TEXT_BYTES];
	uint64_t reserved1[11];
	emuv_control_t control;
	uint64_t reserved2[6];
	uint64_t card[EMUV_MAX_DEVICES];   /* key of the card that a column is of; 0: none */
	uint64_t place[EMUV_SHARED_PLACES]; /* [0] unused */
	uint64_t high; /* no slot from here on was ever owned */
	uint64_t reserved3[7];
	uint64_t owner[EMUV_SHARED_SLOTS];
	uint64_t image[EMUV_SHARED_SLOTS]; /* which program image of the owner it is */
	emuv_shared_row_t row[EMUV_SHARED_SLOTS][EMUV_MAX_DEVICES];
} emuv_shared_t;

EMUV_AT(emuv_shared_t, version, 8);
EMUV_AT(emuv_shared_t, size, 12);
EMUV_AT(emuv_shared_t, uid, 16);
EMUV_AT(emuv_shared_t, created_ns, 24);
EMUV_AT(emuv_shared_t, leader, 32);
EMUV_AT(emuv_shared_t, run_id, 40);
EMUV_AT(emuv_shared_t, name, 104);
EMUV_AT(emuv_shared_t, control, 256);
EMUV_AT(emuv_shared_t, card, 832);
EMUV_AT(emuv_shared_t, place, 1088);
EMUV_AT(emuv_shared_t, high, 1600);
EMUV_AT(emuv_shared_t, owner, 1664);
EMUV_AT(emuv_shared_t, image, 3712);
EMUV_AT(emuv_shared_t, row, 5760);
EMUV_AT(emuv_shared_row_t, claimed_used, 8);
EMUV_AT(emuv_shared_row_t, held_physical, 16);
EMUV_AT(emuv_shared_row_t, held_used, 24);
EMUV_AT(emuv_shared_row_t, leaving, 32);
_Static_assert(sizeof(emuv_shared_row_t) == 64, "emuv_shared_row_t grew");
_Static_assert(sizeof(emuv_shared_t) == 530048, "emuv_shared_t grew");

/* What a run begins with, where its file is not there yet. */
typedef struct {
	char run_id[EMUV_TEXT_BYTES]; /* letters, digits, '-' and '_' */
	char name[EMUV_TEXT_BYTES];
	emuv_control_t control;
} emuv_shared_start_t;

/* ---- the file: emuv_shared_file.c ---- */

static inline int emuv_shared_run_id_valid(const char *run_id)
{
	size_t length = strspn(run_id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				       "0123456789-_");

	return length > 0 && length < EMUV_TEXT_BYTES && !run_id[length];
}

/*
 * Makes the run's file, with the caller as leader, where it is not there yet.  The
 * launcher calls this, so that what cannot be shared does not start.
 */
int emuv_shared_make(const char *directory, const emuv_shared_start_t *start, emuv_error_t *error);
/*
 * Opens (or makes) and maps the file and takes a slot.  -EUSERS: none is free.
 * What the calling process's image before an exec held is given up.
 */
int emuv_shared_join(const char *directory, const emuv_shared_start_t *start,
		     emuv_shared_t **mapped, unsigned int *slot, emuv_error_t *error);
/*
 * Removes a run's file that nobody uses.  1: removed; 0: in use, or another's to
 * judge; -errno.
 */
int emuv_shared_sweep(const char *path, emuv_error_t *error);
/*
 * Opens it for its control block (emuv_segment_replace_control, emuv_segment_close)
 * and for emuv_shared_snapshot.  The same refusals as emuv_segment_open.
 */
int emuv_shared_open(const char *path, int writable, emuv_segment_view_t **view,
		     emuv_error_t *error);
/*
 * A copy: header and control consistent (control.generation odd where a controller was
 * killed in the middle), every row's words of some moment each.
 */
int emuv_shared_snapshot(emuv_segment_view_t *view, emuv_shared_t *copy, emuv_error_t *error);

/* ---- slots: emuv_shared.c ---- */

/*
 * The calling process as an owner word for this file.  0: there is no /proc, or the
 * caller's numbering is not in the file and `enter` is 0 or all places are taken.
 */
uint64_t emuv_shared_self(emuv_shared_t *shared, int enter);
/* 0 and the slot, or -EUSERS. */
int emuv_shared_take_slot(emuv_shared_t *shared, uint64_t self, unsigned int *slot);
/* Gives up a slot that holds nothing. */
void emuv_shared_leave(emuv_shared_t *shared, unsigned int slot);
/*
 * Frees the slots of dead owners; how many.  `self`: who judges.  Unless `thorough`, one
 * whose pid is another process's by now may be taken for alive.
 */
unsigned int emuv_shared_reap(emuv_shared_t *shared, uint64_t self, int thorough);
/* 1 where the leader and every owner is surely dead. */
int emuv_shared_all_dead(emuv_shared_t *shared);
/* The column of a card, entered if need be; -1: all are taken. */
int emuv_shared_column(emuv_shared_t *shared, uint64_t card);
/* A number that differs between the images that a process runs one after the other. */
uint64_t emuv_shared_image(void);

typedef struct {
	uint64_t physical, used; /* held */
	uint64_t leaving;
	uint64_t before_physical, before_used; /* claimed beyond that, of lower slots */
	uint64_t after_physical, after_used;   /* ... of higher slots */
} emuv_shared_sum_t;

/* Over all slots but one, as they are now. */
void emuv_shared_sum(const emuv_shared_t *shared, unsigned int but, unsigned int column,
		     emuv_shared_sum_t *sum);

/*
 * Places at which a process may be stopped or killed: every step that others can see.
 * Nothing, but in tests.
 */
#define EMUV_STEPS(X)                                                            \
	X(JOIN_HIGH) X(JOIN_TAKEN) X(JOIN_ZEROED) X(JOIN_OWNED)                  \
	X(CLAIM_HALF) X(CLAIM_PUBLISHED) X(CLAIM_SUMMED)                         \
	X(GRANT_HALF) X(GRANT_HELD) X(GRANT_HALF_CLEARED) X(GRANT_DONE)          \
	X(WITHDRAW_HALF) X(WITHDRAWN)                                            \
	X(PUBLISH_HALF) X(PUBLISHED)                                             \
	X(REAP_JUDGED) X(REAPED) X(RESTED)
#ifndef EMUV_STEP
#define EMUV_STEP(name) ((void)0)
#endif

#endif
