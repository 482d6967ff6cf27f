/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The steps of a shared budget that others can see (EMUV_STEPS), for tests that stop or
 * kill a process there: include this, the sources that have the steps in them, and then
 * shared_processes.h.
 */
#ifndef EMUV_TEST_SHARED_STEPS_H
#define EMUV_TEST_SHARED_STEPS_H

enum step {
	STEP_NONE,
#define X(name) STEP_##name,
	/* EMUV_STEPS is not there yet: the list is held against it below. */
	X(JOIN_HIGH) X(JOIN_TAKEN) X(JOIN_ZEROED) X(JOIN_OWNED)
	X(CLAIM_HALF) X(CLAIM_PUBLISHED) X(CLAIM_SUMMED)
	X(GRANT_HALF) X(GRANT_HELD) X(GRANT_HALF_CLEARED) X(GRANT_DONE)
	X(WITHDRAW_HALF) X(WITHDRAWN)
	X(PUBLISH_HALF) X(PUBLISHED)
	X(REAP_JUDGED) X(REAPED) X(RESTED)
#undef X
	N_STEPS,
};
static void step(enum step which);
#define EMUV_STEP(name) step(STEP_##name)

#endif
