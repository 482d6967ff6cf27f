/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The control block: written by controllers, read by the process.
 *
 * Invariants:
 *   - One controller writes at a time: it holds an OFD lock, which ends with it.
 *   - `generation` is odd while the block is written, and larger and even
 *     afterwards.  One that stays odd is a controller's that was killed; the
 *     process goes on with its former budget until the next one writes.
 *   - A controller writes with pwrite, never through a mapping.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "emuv_segment_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define LOCK_POLL_NS 2000000L /* between two tries for the lock */
#define CONTROL_READ_TRIES 16

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* An OFD lock ends with its descriptor: a killed controller leaves none. */
static int set_lock(const emuv_segment_view_t *view, short type)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = view->control_at,
		.l_len = (off_t)sizeof(emuv_control_t),
	};

	return fcntl(view->fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

static int lock_control(const emuv_segment_view_t *view, emuv_error_t *error)
{
	int64_t limit = now_ms() + EMUV_CONTROL_WAIT_MS;
	int rc;

	for (;;) {
		rc = set_lock(view, F_WRLCK);
		if (rc != -EAGAIN && rc != -EACCES && rc != -EINTR)
			break;
		if (now_ms() >= limit)
			return fail(error, -ETIMEDOUT, "segment '%s': another controller has held "
				    "it for %d ms; end that one, or try again", view->path,
				    EMUV_CONTROL_WAIT_MS);
		emuv_segment_pause(LOCK_POLL_NS);
	}
	if (rc)
		return fail(error, rc, "segment '%s' cannot be locked: %s", view->path,
			    strerror(-rc));
	return 0;
}

static int check_control(const emuv_control_t *control, const char *path, emuv_error_t *error)
{
	int i;

	if (control->policy > EMUV_POLICY_SPILL || control->allocation > EMUV_ALLOCATION_EAGER)
		return fail(error, -EINVAL, "segment '%s': policy %u or allocation %u is unknown",
			    path, (unsigned int)control->policy,
			    (unsigned int)control->allocation);
	for (i = 0; i < EMUV_MAX_DEVICES; i++) {
		const emuv_budget_t *budget = &control->budget[i];

		if (budget->vram_bytes != EMUV_UNLIMITED &&
		    budget->virtual_bytes >= EMUV_UNLIMITED - budget->vram_bytes)
			return fail(error, -EINVAL, "segment '%s': vram and virtual of device %d "
				    "are too large together", path, i);
	}
	return 0;
}

/* Under the lock: `expected` is checked, then the block replaced. */
static int write_control(const emuv_segment_view_t *view, const uint64_t *expected,
			 const emuv_control_t *control, emuv_error_t *error)
{
	const off_t fields_at = view->control_at + (off_t)offsetof(emuv_control_t, policy);
	const size_t fields = sizeof(*control) - offsetof(emuv_control_t, policy);
	uint64_t generation, writing, written;
	struct stat st;
	int rc;

	if (fstat(view->fd, &st) < 0)
		return -errno;
	if (st.st_size != view->bytes)
		return -ENODATA; /* a pwrite would grow a file that was cut off */
	rc = emuv_segment_pread(view->fd, &generation, sizeof(generation), view->control_at);
	if (rc)
		return rc;
	if (expected && generation != *expected)
		return fail(error, -ESTALE, "segment '%s': another controller changed the budget "
			    "meanwhile", view->path);
	if (generation >= UINT64_MAX - 2)
		return -EBADMSG;
	/* Odd already where a controller was killed in here; no other is now. */
	writing = generation | 1;
	written = writing + 1;
	rc = emuv_segment_pwrite(view->fd, &writing, sizeof(writing), view->control_at);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (rc == 0)
		rc = emuv_segment_pwrite(view->fd, &control->policy, fields, fields_at);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (rc == 0)
		rc = emuv_segment_pwrite(view->fd, &written, sizeof(written), view->control_at);
	return rc;
}

static int change_control(emuv_segment_view_t *view, const uint64_t *expected,
			  const emuv_control_t *control, emuv_error_t *error)
{
	int rc = check_control(control, view->path, error);

	if (rc)
		return rc;
	if (!view->writable)
		return fail(error, -EBADF, "segment '%s' was opened for reading only", view->path);
	rc = lock_control(view, error);
	if (rc)
		return rc;
	rc = write_control(view, expected, control, error);
	set_lock(view, F_UNLCK);
	if (rc && rc != -ESTALE)
		fail(error, rc, "the budget in segment '%s' cannot be changed: %s", view->path,
		     strerror(-rc));
	return rc;
}

int emuv_segment_set_control(emuv_segment_view_t *view, const emuv_control_t *control,
			     emuv_error_t *error)
{
	return change_control(view, NULL, control, error);
}

int emuv_segment_replace_control(emuv_segment_view_t *view, const emuv_control_t *control,
				 emuv_error_t *error)
{
	return change_control(view, &control->generation, control, error);
}

int emuv_control_read(const emuv_control_t *shared, emuv_control_t *copy)
{
	int try, i;

	for (try = 0; try < CONTROL_READ_TRIES; try++) {
		uint64_t before = __atomic_load_n(&shared->generation, __ATOMIC_ACQUIRE);

		copy->generation = before;
		copy->policy = __atomic_load_n(&shared->policy, __ATOMIC_RELAXED);
		copy->allocation = __atomic_load_n(&shared->allocation, __ATOMIC_RELAXED);
		for (i = 0; i < EMUV_MAX_DEVICES; i++) {
			const emuv_budget_t *from = &shared->budget[i];

			copy->budget[i].vram_bytes =
				__atomic_load_n(&from->vram_bytes, __ATOMIC_RELAXED);
			copy->budget[i].virtual_bytes =
				__atomic_load_n(&from->virtual_bytes, __ATOMIC_RELAXED);
		}
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (!(before & 1) &&
		    __atomic_load_n(&shared->generation, __ATOMIC_RELAXED) == before)
			return 0;
	}
	return -EAGAIN;
}
