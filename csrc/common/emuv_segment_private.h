/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of the segment's file access share among themselves:
 *
 *   emuv_segment_create.c   the directory, and one's own new file
 *   emuv_segment_file.c     opening and reading, of strangers' files too
 *   emuv_segment_control.c  writing and reading the control block
 *   emuv_shared_file.c      the file of a shared run, by the same rules
 *
 * Invariants of all: every check of owner and mode is made on a
 * descriptor, not on a path; nothing waits without a limit; nothing is printed.
 *
 * Readers and writers meet in the page cache: pread and pwrite see and change
 * the bytes that the process has mapped with MAP_SHARED.
 */
#ifndef EMUV_SEGMENT_PRIVATE_H
#define EMUV_SEGMENT_PRIVATE_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "emuv_segment_file.h"

#define EMUV_CONTROL_AT ((off_t)offsetof(emuv_segment_t, control))
#define EMUV_GENERATION_AT EMUV_CONTROL_AT
#define EMUV_COUNTERS_SEQ_AT ((off_t)offsetof(emuv_segment_t, counters_seq))

struct emuv_segment_view {
	int fd;
	int writable;
	uint32_t n_devices;
	off_t control_at; /* where the control block is, and ... */
	off_t bytes;      /* ... the size of a sound file: a run's has others */
	char path[PATH_MAX];
};

/* Puts the sentence into `error`, where there is one; returns `rc`. */
__attribute__((format(printf, 3, 4)))
int emuv_segment_fail(emuv_error_t *error, int rc, const char *format, ...);
#define fail emuv_segment_fail

/* All of `bytes`, or -errno; a file that ends before is -ENODATA. */
int emuv_segment_pread(int fd, void *buffer, size_t bytes, off_t at);
int emuv_segment_pwrite(int fd, const void *buffer, size_t bytes, off_t at);

void emuv_segment_pause(long ns);

/* A directory that only its owner can enter, opened; root may look into anyone's. */
int emuv_segment_open_directory(const char *path, int any_owner, emuv_error_t *error);
/* A new file's mode, size and first `bytes`; the pages of all of it exist afterwards. */
int emuv_segment_fill(int fd, size_t size, const void *initial, size_t bytes);
/* Opens a file that must be its owner's alone and of view->bytes, into view->fd. */
int emuv_segment_open_file(const char *path, emuv_segment_view_t *view, emuv_error_t *error);

#endif
