/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The file of a shared run: making, opening, removing.  emuv_shared.h states what is
 * in it and the rule of its two flocks.
 *
 * Invariants:
 *   - The file has its name only when it is complete, and its pages exist.
 *   - Who maps it has looked, under the shared flock, that it still has its name.
 *   - Nothing waits without a limit.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "emuv_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "emuv_segment_private.h"

#define OPEN_TRIES 1000 /* of a millisecond each, where somebody removes the file */
#define PAUSE_NS 1000000L
#define SNAPSHOT_TRIES 300
#define SNAPSHOT_PAUSE_NS 100000L

#define ROWS_AT ((size_t)offsetof(emuv_shared_t, row))

static int check_header(const emuv_shared_t *header, const char *path, emuv_error_t *error)
{
	if (header->magic != EMUV_SHARED_MAGIC)
		return fail(error, -EBADMSG, "'%s' is no shared budget of emuV (wrong magic); "
			    "remove it", path);
	if (header->version != EMUV_SHARED_VERSION || header->size != sizeof(*header))
		return fail(error, -EPROTO, "the shared budget '%s' has version %u, and this emuV "
			    "reads %u; use the emuV that the run was started with", path,
			    (unsigned int)header->version, EMUV_SHARED_VERSION);
	return 0;
}

/* ---- making it ---- */

/* The first bytes of a new file; `leader` is set where the caller can be named. */
static int fill(int fd, const emuv_shared_start_t *start)
{
	emuv_shared_t *initial = calloc(1, sizeof(*initial));
	struct timespec now;
	int rc;

	if (!initial)
		return -ENOMEM;
	clock_gettime(CLOCK_REALTIME, &now);
	initial->magic = EMUV_SHARED_MAGIC;
	initial->version = EMUV_SHARED_VERSION;
	initial->size = sizeof(*initial);
	initial->uid = geteuid();
	initial->created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	memcpy(initial->run_id, start->run_id, sizeof(initial->run_id));
	memcpy(initial->name, start->name, sizeof(initial->name));
	initial->control = start->control;
	initial->leader = emuv_shared_self(initial, 1);
	rc = initial->leader ? emuv_segment_fill(fd, sizeof(*initial), initial, ROWS_AT) : -ENOSYS;
	free(initial);
	return rc;
}

/* Makes the file under its name: 0, or -EEXIST where another was first, or -errno. */
static int make_file(int directory, const emuv_shared_start_t *start, const char *name)
{
	char temporary[EMUV_TEXT_BYTES + 64], self[64];
	int fd, rc;

	fd = openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		rc = fill(fd, start);
		if (rc == 0 && linkat(AT_FDCWD, self, directory, name, AT_SYMLINK_FOLLOW) < 0)
			rc = -errno;
		close(fd);
		if (rc != -ENOENT && rc != -EOPNOTSUPP && rc != -EXDEV)
			return rc; /* the others: no /proc, or no linkat of such a file */
	}
	snprintf(temporary, sizeof(temporary), ".new-%d-%llu-%s", (int)emuv_own_pid(),
		 (unsigned long long)emuv_start_ticks(emuv_own_pid()), name);
	unlinkat(directory, temporary, 0); /* left by an image that died here */
	fd = openat(directory, temporary, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		return -errno;
	rc = fill(fd, start);
	if (rc == 0 && linkat(directory, temporary, directory, name, 0) < 0)
		rc = -errno;
	unlinkat(directory, temporary, 0);
	close(fd);
	return rc;
}

/* ---- opening it ---- */

/*
 * The file, open for writing under a shared flock, with its name still there; made if
 * need be.  A descriptor, or -errno and a sentence.
 */
static int open_locked(const char *directory, const emuv_shared_start_t *start,
		       emuv_error_t *error)
{
	emuv_segment_view_t view = { .writable = 1, .bytes = (off_t)sizeof(emuv_shared_t) };
	char name[EMUV_TEXT_BYTES + 8], path[PATH_MAX];
	int at, rc = 0;

	if (!emuv_shared_run_id_valid(start->run_id))
		return fail(error, -EINVAL, "the run is called '%s', and a shared one needs "
			    "letters and digits", start->run_id);
	snprintf(name, sizeof(name), "%s.run", start->run_id);
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) >= sizeof(path))
		return fail(error, -ENAMETOOLONG, "the path of '%s' is too long; set "
			    "EMUV_RUNTIME_DIR to a shorter one", name);
	at = emuv_segment_open_directory(directory, 0, error);
	if (at < 0)
		return at;
	for (int i = 0; i < OPEN_TRIES; i++) {
		struct stat st;

		rc = emuv_segment_open_file(path, &view, error);
		if (rc == 0 && flock(view.fd, LOCK_SH | LOCK_NB) == 0 &&
		    fstat(view.fd, &st) == 0 && st.st_nlink > 0)
			break;
		if (view.fd >= 0)
			close(view.fd);
		/* Removed between the two, or just being looked at for that. */
		if (rc && rc != -ENOENT)
			break;
		if (rc == -ENOENT) {
			rc = make_file(at, start, name);
			if (rc && rc != -EEXIST) {
				fail(error, rc, "the shared budget '%s' cannot be made: %s; set "
				     "EMUV_RUNTIME_DIR to a directory where it can", path,
				     rc == -ENOSYS ? "/proc is not there" : strerror(-rc));
				break;
			}
		} else {
			emuv_segment_pause(PAUSE_NS);
		}
		rc = fail(error, -ETIMEDOUT, "the shared budget '%s' is held by somebody who "
			  "would remove it (a stopped emuv ps?)", path);
	}
	close(at);
	return rc ? rc : view.fd;
}

int emuv_shared_make(const char *directory, const emuv_shared_start_t *start, emuv_error_t *error)
{
	int fd = open_locked(directory, start, error);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int take_slot(emuv_shared_t *shared, unsigned int *slot, const char *run_id,
		     emuv_error_t *error)
{
	uint64_t self;
	int rc = check_header(shared, run_id, error);

	if (rc)
		return rc;
	self = emuv_shared_self(shared, 1);
	if (!self)
		return fail(error, -ENOSYS, "this process cannot be told from others in the shared "
			    "budget of run '%s': /proc is not there, or over %u namespaces share "
			    "it", run_id, EMUV_SHARED_PLACES - 1);
	rc = emuv_shared_take_slot(shared, self, slot);
	if (rc)
		return fail(error, rc, "%u processes share the budget of run '%s' already, and "
			    "that is the most; end some, or start this one without --shared",
			    EMUV_SHARED_SLOTS, run_id);
	return 0;
}

int emuv_shared_join(const char *directory, const emuv_shared_start_t *start,
		     emuv_shared_t **mapped, unsigned int *slot, emuv_error_t *error)
{
	int fd = open_locked(directory, start, error), rc;
	emuv_shared_t *shared;

	if (fd < 0)
		return fd;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED) {
		rc = fail(error, -errno, "the shared budget of run '%s' cannot be mapped: %s",
			  start->run_id, strerror(errno));
	} else {
		rc = take_slot(shared, slot, start->run_id, error);
		if (rc)
			munmap(shared, sizeof(*shared));
		else
			*mapped = shared;
	}
	/* From here on the slot says that the file is in use. */
	close(fd);
	return rc;
}

/* ---- looking at it, and removing it ---- */

int emuv_shared_open(const char *path, int writable, emuv_segment_view_t **view,
		     emuv_error_t *error)
{
	emuv_segment_view_t *made = calloc(1, sizeof(*made));
	emuv_shared_t *header = malloc(sizeof(*header));
	int rc = -ENOMEM;

	*view = NULL;
	if (made)
		made->fd = -1;
	if (made && header) {
		made->writable = writable;
		made->control_at = (off_t)offsetof(emuv_shared_t, control);
		made->bytes = (off_t)sizeof(emuv_shared_t);
		made->n_devices = EMUV_MAX_DEVICES;
		rc = emuv_segment_open_file(path, made, error);
		if (rc == 0) {
			rc = emuv_segment_pread(made->fd, header, ROWS_AT, 0);
			if (rc)
				fail(error, rc, "'%s' cannot be read: %s", path, strerror(-rc));
			else
				rc = check_header(header, path, error);
		}
	} else {
		fail(error, rc, "no memory to open '%s'", path);
	}
	free(header);
	if (rc == 0)
		*view = made;
	else if (made)
		emuv_segment_close(made);
	return rc;
}

int emuv_shared_snapshot(emuv_segment_view_t *view, emuv_shared_t *copy, emuv_error_t *error)
{
	int settled = 0, rc = 0;

	for (int i = 0; i < SNAPSHOT_TRIES && !settled && rc == 0; i++) {
		uint64_t before, after = 0;

		if (i)
			emuv_segment_pause(SNAPSHOT_PAUSE_NS);
		rc = emuv_segment_pread(view->fd, &before, sizeof(before), view->control_at);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (rc == 0)
			rc = emuv_segment_pread(view->fd, copy, sizeof(*copy), 0);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (rc == 0)
			rc = emuv_segment_pread(view->fd, &after, sizeof(after), view->control_at);
		settled = rc == 0 && before == after && !(before & 1);
		copy->control.generation = after;
	}
	if (rc)
		return fail(error, rc == -ENODATA ? -EBADMSG : rc, "'%s' cannot be read: %s",
			    view->path, rc == -ENODATA ? "it was cut off" : strerror(-rc));
	if (!settled)
		copy->control.generation |= 1;
	copy->run_id[sizeof(copy->run_id) - 1] = '\0';
	copy->name[sizeof(copy->name) - 1] = '\0';
	return check_header(copy, view->path, error);
}

int emuv_shared_sweep(const char *path, emuv_error_t *error)
{
	emuv_segment_view_t *view;
	emuv_shared_t *copy;
	struct stat opened, named;
	int rc = emuv_shared_open(path, 0, &view, error);

	if (rc)
		return rc;
	copy = malloc(sizeof(*copy));
	rc = 0;
	/* An opener that is about to take a slot keeps us out. */
	if (copy && flock(view->fd, LOCK_EX | LOCK_NB) == 0 &&
	    emuv_segment_pread(view->fd, copy, ROWS_AT, 0) == 0 && emuv_shared_all_dead(copy) &&
	    fstat(view->fd, &opened) == 0 && lstat(path, &named) == 0 &&
	    opened.st_ino == named.st_ino && opened.st_dev == named.st_dev)
		rc = unlink(path) == 0 ? 1 : -errno;
	if (rc < 0)
		fail(error, rc, "'%s' cannot be removed: %s", path, strerror(-rc));
	free(copy);
	emuv_segment_close(view);
	return rc;
}
