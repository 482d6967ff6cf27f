/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who called the hook that runs: the file that holds the code it returns to
 * (emuv_inside).  Where that is CUDA's own runtime as a library of its own
 * (libcudart.so), who called that is looked for up the stack, MOST_FRAMES at most, where
 * the process has libgcc_s to look with; code without unwind tables ends the look.
 */
#ifndef EMUV_CALLER_H
#define EMUV_CALLER_H

/* The file's basename; NULL: not known. */
const char *emuv_caller_name(void);

#endif
