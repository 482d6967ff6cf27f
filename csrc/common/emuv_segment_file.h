/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Finding, creating, opening and reading segment files (emuv_segment.h), used
 * by the shim and, compiled into emuv_shim._native, by the controllers.
 *
 * Functions return 0 or -errno and, where `error` is given, leave a sentence in
 * it that quotes the path and says what to do.  None of them blocks: the
 * control lock is tried for at most EMUV_CONTROL_WAIT_MS.
 */
#ifndef EMUV_SEGMENT_FILE_H
#define EMUV_SEGMENT_FILE_H

#include "emuv_segment.h"

#define EMUV_ERROR_BYTES 512
#define EMUV_CONTROL_WAIT_MS 1000

typedef struct {
	char text[EMUV_ERROR_BYTES];
} emuv_error_t;

/*
 * The directory of the calling user's segments: $EMUV_RUNTIME_DIR, else
 * $XDG_RUNTIME_DIR/emuv where that is the caller's own directory (su leaves
 * another user's), else /run/emuv/UID where /run/emuv exists, else
 * /tmp/emuv-UID.  `path` is filled even where the answer is -ENOENT.  With `create` it is made (0700).  Whoever made it, it is
 * refused unless it is a directory, no link, owned by the caller, and closed to
 * group and others.
 */
int emuv_segment_directory(char *path, size_t path_bytes, int create, emuv_error_t *error);

/*
 * Whether a directory may be searched for segments: the same checks, but root
 * may look into another user's.
 */
int emuv_segment_directory_check(const char *path, emuv_error_t *error);

/*
 * Creates `<directory>/<pid>-<start>.seg` (O_EXCL, O_NOFOLLOW, 0600) as a copy
 * of *initial and maps it for writing.  The file appears under its name only
 * when it is complete.  One that is there already was left by the image that
 * this process ran before exec (same pid, same start time); it is replaced.
 */
int emuv_segment_create(const char *directory, const emuv_segment_t *initial,
			emuv_segment_t **mapped, char *path, size_t path_bytes,
			emuv_error_t *error);

/*
 * Opens a segment read-only (`writable` 0) or for its control block.  Refused:
 * links, files of another user, files open to group or others, a wrong magic,
 * version or size, and sizes that do not fit the file.  Truncation afterwards
 * cannot fault the reader: emuv_segment_snapshot re-reads by pread.
 */
typedef struct emuv_segment_view emuv_segment_view_t;
int emuv_segment_open(const char *path, int writable, emuv_segment_view_t **view,
		      emuv_error_t *error);
void emuv_segment_close(emuv_segment_view_t *view);

/*
 * A consistent copy.  Only the devices that the header counts are filled; texts
 * are NUL-terminated.
 *
 * What does not settle within some 50 ms is handed out with its number odd, as
 * a mixture of moments: a control block whose controller was killed in the
 * middle (0), the counters of a process that was (0), and those of one that
 * lives and never stands still, or is stopped in the middle (-EAGAIN).
 */
int emuv_segment_snapshot(emuv_segment_view_t *view, emuv_segment_t *copy, emuv_error_t *error);

/*
 * 1 while the process that wrote the header lives: pid and start time agree and
 * it is no zombie.  The pid is looked up in the caller's pid namespace.
 */
int emuv_segment_alive(const emuv_segment_t *copy);

/* Field 22 of /proc/PID/stat, or 0 where there is no such process. */
uint64_t emuv_start_ticks(int32_t pid);

/*
 * 1 and its start time where the process lives; 0: it is dead, but not yet waited for;
 * -ENOENT: /proc has no such process; another -errno: it could not be looked at.
 */
int emuv_process_look(int32_t pid, uint64_t *start_ticks);

/*
 * The process's number as /proc has it, which is where readers look: under
 * `unshare --pid` with the outer /proc it is not what getpid() says.
 */
int32_t emuv_own_pid(void);

/*
 * Writes a new control block.  Writers exclude one another by an OFD lock on
 * the file; `generation` goes odd, then even and larger.
 */
int emuv_segment_set_control(emuv_segment_view_t *view, const emuv_control_t *control,
			     emuv_error_t *error);

/*
 * The same for a change that builds on what was read: -ESTALE, and nothing is
 * written, unless the file's generation is still control->generation.
 */
int emuv_segment_replace_control(emuv_segment_view_t *view, const emuv_control_t *control,
				 emuv_error_t *error);

/*
 * For the process itself, without blocking or allocating: a consistent control block.
 * -EAGAIN: one is being written, or was by a controller that was killed; the copy is then
 * a mixture of it and the former, its generation odd or out of date.
 */
int emuv_control_read(const emuv_control_t *shared, emuv_control_t *copy);

#endif
