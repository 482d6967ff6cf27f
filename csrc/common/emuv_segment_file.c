/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Opening and reading segments; emuv_segment_file.h states the contract.
 *
 * Invariant: a stranger's file is read with pread into a buffer, never mapped,
 * so that cutting it off cannot fault its reader.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "emuv_segment_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SNAPSHOT_TRIES 300
#define SNAPSHOT_FREE_TRIES 100 /* the first ones, without a pause */
#define SNAPSHOT_PAUSE_NS 100000L

int emuv_segment_fail(emuv_error_t *error, int rc, const char *format, ...)
{
	va_list args;

	if (error) {
		va_start(args, format);
		vsnprintf(error->text, sizeof(error->text), format, args);
		va_end(args);
	}
	return rc;
}

void emuv_segment_pause(long ns)
{
	struct timespec span = { .tv_sec = 0, .tv_nsec = ns };

	nanosleep(&span, NULL);
}

int emuv_segment_pread(int fd, void *buffer, size_t bytes, off_t at)
{
	char *to = buffer;

	while (bytes) {
		ssize_t got = pread(fd, to, bytes, at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ENODATA;
		to += got;
		at += got;
		bytes -= (size_t)got;
	}
	return 0;
}

int emuv_segment_pwrite(int fd, const void *buffer, size_t bytes, off_t at)
{
	const char *from = buffer;

	while (bytes) {
		ssize_t put = pwrite(fd, from, bytes, at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		from += put;
		at += put;
		bytes -= (size_t)put;
	}
	return 0;
}

static int other_version(const char *path, uint32_t version, emuv_error_t *error)
{
	return fail(error, -EPROTO, "segment '%s' has version %u, and this emuV reads %u; use the "
		    "emuV that the process runs under", path, (unsigned int)version,
		    EMUV_SEGMENT_VERSION);
}

/* The part of the header that says whether the rest can be read. */
static int check_header(const emuv_segment_t *header, const char *path, emuv_error_t *error)
{
	if (header->magic != EMUV_SEGMENT_MAGIC)
		return fail(error, -EBADMSG, "'%s' is no segment of emuV (wrong magic); remove it",
			    path);
	if (header->version != EMUV_SEGMENT_VERSION)
		return other_version(path, header->version, error);
	if (header->size != sizeof(emuv_segment_t))
		return fail(error, -EBADMSG, "segment '%s' says that it has %u bytes, and version "
			    "%u has %zu; remove it", path, (unsigned int)header->size,
			    EMUV_SEGMENT_VERSION, sizeof(emuv_segment_t));
	if (header->pid <= 0 || header->n_devices > EMUV_MAX_DEVICES ||
	    header->n_functions > EMUV_MAX_FUNCTIONS)
		return fail(error, -EBADMSG, "segment '%s' is damaged (process %d, %u devices, %u "
			    "functions); remove it", path, (int)header->pid,
			    (unsigned int)header->n_devices, (unsigned int)header->n_functions);
	return 0;
}

/* Not of the size that it should have: of another version, or nothing of emuV's. */
static int wrong_size(int fd, const char *path, off_t is, off_t should_be, emuv_error_t *error)
{
	struct {
		uint64_t magic;
		uint32_t version;
	} start;

	if (emuv_segment_pread(fd, &start, sizeof(start), 0) == 0 &&
	    start.magic == EMUV_SEGMENT_MAGIC && start.version != EMUV_SEGMENT_VERSION)
		return other_version(path, start.version, error);
	return fail(error, -EBADMSG, "'%s' has %lld bytes, and a segment has %lld; remove it", path,
		    (long long)is, (long long)should_be);
}

static int check_file(int fd, const char *path, off_t bytes, emuv_error_t *error)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(error, -errno, "segment '%s' cannot be examined: %s", path,
			    strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(error, -EINVAL, "'%s' is no regular file, so no segment; remove it",
			    path);
	if (st.st_uid != geteuid() && geteuid() != 0)
		return fail(error, -EPERM, "segment '%s' belongs to user %u, not to user %u", path,
			    (unsigned int)st.st_uid, (unsigned int)geteuid());
	if (st.st_mode & 077)
		return fail(error, -EPERM, "segment '%s' is open to others (mode %03o); remove it",
			    path, (unsigned int)(st.st_mode & 0777));
	if (st.st_nlink == 0)
		return fail(error, -ENOENT, "segment '%s' is gone", path);
	if (st.st_size != bytes)
		return wrong_size(fd, path, st.st_size, bytes, error);
	return 0;
}

int emuv_segment_open_file(const char *path, emuv_segment_view_t *view, emuv_error_t *error)
{
	/* O_NONBLOCK: a FIFO put here must not hold us. */
	const int flags = O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	size_t length = strlen(path);
	int rc;

	view->fd = -1;
	if (length >= sizeof(view->path))
		return fail(error, -ENAMETOOLONG, "the path of a segment is %zu bytes long",
			    length);
	memcpy(view->path, path, length + 1);
	view->fd = open(path, (view->writable ? O_RDWR : O_RDONLY) | flags);
	if (view->fd < 0) {
		rc = -errno;
		if (rc == -ELOOP)
			return fail(error, rc, "'%s' is a link, so no segment; remove it", path);
		return fail(error, rc, "segment '%s' cannot be opened: %s", path, strerror(-rc));
	}
	return check_file(view->fd, path, view->bytes, error);
}

int emuv_segment_open(const char *path, int writable, emuv_segment_view_t **view,
		      emuv_error_t *error)
{
	emuv_segment_view_t *made = malloc(sizeof(*made));
	int rc;

	*view = NULL;
	if (!made)
		return fail(error, -ENOMEM, "no memory to open segment '%s'", path);
	made->writable = writable;
	made->control_at = EMUV_CONTROL_AT;
	made->bytes = (off_t)sizeof(emuv_segment_t);
	rc = emuv_segment_open_file(path, made, error);
	if (rc == 0) {
		emuv_segment_t *header = malloc(sizeof(*header));

		rc = -ENOMEM;
		if (header)
			rc = emuv_segment_pread(made->fd, header, (size_t)EMUV_CONTROL_AT, 0);
		if (rc)
			fail(error, rc, "segment '%s' cannot be read: %s", path, strerror(-rc));
		else
			rc = check_header(header, path, error);
		if (rc == 0)
			made->n_devices = header->n_devices;
		free(header);
	}
	if (rc) {
		emuv_segment_close(made);
		return rc;
	}
	*view = made;
	return 0;
}

void emuv_segment_close(emuv_segment_view_t *view)
{
	if (!view)
		return;
	if (view->fd >= 0)
		close(view->fd);
	free(view);
}

/*
 * One try.  Sequence numbers are read by calls of their own, before and after,
 * because nothing says in which order one pread copies its bytes.  Only the
 * devices that exist are read: the shorter the window, the likelier a
 * consistent copy of a process that allocates without pause.
 */
static int read_once(const emuv_segment_view_t *view, emuv_segment_t *copy, int *counters_ok,
		     int *control_ok)
{
	const size_t bytes = offsetof(emuv_segment_t, device) +
			     view->n_devices * sizeof(emuv_device_counters_t);
	uint64_t sequence, generation, sequence_after, generation_after;
	int rc;

	rc = emuv_segment_pread(view->fd, &generation, sizeof(generation), EMUV_GENERATION_AT);
	if (rc == 0)
		rc = emuv_segment_pread(view->fd, &sequence, sizeof(sequence),
					EMUV_COUNTERS_SEQ_AT);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (rc == 0)
		rc = emuv_segment_pread(view->fd, copy, bytes, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (rc == 0)
		rc = emuv_segment_pread(view->fd, &sequence_after, sizeof(sequence_after),
					EMUV_COUNTERS_SEQ_AT);
	if (rc == 0)
		rc = emuv_segment_pread(view->fd, &generation_after, sizeof(generation_after),
			       EMUV_GENERATION_AT);
	if (rc)
		return rc;
	*counters_ok = sequence == sequence_after && !(sequence & 1);
	*control_ok = generation == generation_after && !(generation & 1);
	copy->counters_seq = sequence_after;
	copy->control.generation = generation_after;
	return 0;
}

int emuv_segment_snapshot(emuv_segment_view_t *view, emuv_segment_t *copy, emuv_error_t *error)
{
	const char *path = view->path;
	int counters_ok = 0, control_ok = 0;
	int i, rc;

	memset(copy, 0, sizeof(*copy));
	for (i = 0; i < SNAPSHOT_TRIES; i++) {
		if (i >= SNAPSHOT_FREE_TRIES)
			emuv_segment_pause(SNAPSHOT_PAUSE_NS);
		rc = read_once(view, copy, &counters_ok, &control_ok);
		if (rc == -ENODATA)
			return fail(error, -EBADMSG, "segment '%s' was cut off under its reader; "
				    "remove it", path);
		if (rc)
			return fail(error, rc, "segment '%s' cannot be read: %s", path,
				    strerror(-rc));
		if (counters_ok && control_ok)
			break;
	}
	rc = check_header(copy, path, error);
	if (rc)
		return rc;
	if (copy->n_devices != view->n_devices)
		return fail(error, -EBADMSG, "segment '%s' changed its header; remove it", path);
	copy->emuv_version[sizeof(copy->emuv_version) - 1] = '\0';
	copy->name[sizeof(copy->name) - 1] = '\0';
	copy->run_id[sizeof(copy->run_id) - 1] = '\0';
	copy->command[sizeof(copy->command) - 1] = '\0';

	/*
	 * What did not settle is handed out as it is, its number odd: each field
	 * is of some moment, but not all of the same one.
	 */
	if (!counters_ok)
		copy->counters_seq |= 1;
	if (!control_ok)
		copy->control.generation |= 1;
	if (!counters_ok && emuv_segment_alive(copy))
		return fail(error, -EAGAIN, "segment '%s' is changing too fast, or process %d is "
			    "stopped in the middle of a change; try again", path, (int)copy->pid);
	return 0;
}

/* Reads /proc/PID/stat: 0, or -errno where the process is gone. */
static int read_stat(int32_t pid, char *state, long *threads, uint64_t *start)
{
	char path[32], text[1024];
	const char *at;
	ssize_t got;
	int fd, field;

	*state = 0;
	*threads = 0;
	*start = 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do {
		got = read(fd, text, sizeof(text) - 1);
	} while (got < 0 && errno == EINTR);
	field = errno;
	close(fd);
	if (got <= 0)
		return got < 0 ? -field : -ESRCH;
	text[got] = '\0';
	at = strrchr(text, ')'); /* field 2, the name, may hold anything */
	if (!at || at[1] != ' ')
		return -EBADMSG;
	at += 2;
	*state = *at;
	for (field = 3; field < 20; field++) {
		at = strchr(at, ' ');
		if (!at)
			return -EBADMSG;
		at++;
	}
	*threads = strtol(at, NULL, 10);
	for (; field < 22; field++) {
		at = strchr(at, ' ');
		if (!at)
			return -EBADMSG;
		at++;
	}
	*start = strtoull(at, NULL, 10);
	return 0;
}

uint64_t emuv_start_ticks(int32_t pid)
{
	uint64_t start;
	long threads;
	char state;

	if (pid <= 0 || read_stat(pid, &state, &threads, &start))
		return 0;
	return start;
}

int emuv_process_look(int32_t pid, uint64_t *start_ticks)
{
	long threads;
	char state;
	int rc = read_stat(pid, &state, &threads, start_ticks);

	if (rc)
		return rc == -ESRCH ? -ENOENT : rc;
	/* A first thread that has ended looks like a zombie while others run. */
	return !((state == 'Z' && threads <= 1) || state == 'X');
}

int emuv_segment_alive(const emuv_segment_t *copy)
{
	uint64_t start;

	return copy->pid > 0 && emuv_process_look(copy->pid, &start) == 1 &&
	       start == copy->start_ticks;
}

int32_t emuv_own_pid(void)
{
	char text[32] = "";
	ssize_t n = readlink("/proc/self", text, sizeof(text) - 1);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	return pid > 0 ? (int32_t)pid : getpid();
}
