/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * EMUV_* as the launcher set them.
 *
 * A program may start another with an environment of its own making, in which the
 * preload is there and the budget is not, or wipe its own.  What the kernel gave a
 * process stays to be read in /proc: its own, or its nearest ancestor's that belongs to
 * a run, says what the run's budget is.
 *
 * Invariants
 *   - Either all EMUV_* are the environment's or all are the adopted ones, never a mix.
 *   - Nothing is adopted from another user's process, or by one that has gained
 *     privileges (secure_getenv then answers nothing, and there is no budget to hold).
 *   - The program's environment is read, never changed.
 */
#ifndef EMUV_ENVIRON_H
#define EMUV_ENVIRON_H

#include <sys/types.h>

/* The value of an EMUV_* variable; NULL where it is not set. */
const char *emuv_environ(const char *name);

/*
 * Where EMUV_VRAM or EMUV_DRIVER is not set, or empty: looks for them as above.  The
 * process (as /proc numbers it) whose environment is used from now on; 0: this one's as
 * it is, whether complete or not.  Not for two threads at once.
 */
pid_t emuv_environ_adopt(void);

#endif
