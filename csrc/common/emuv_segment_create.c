/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The directory of the segments, and making one's own segment in it.
 *
 * Invariants:
 *   - A file has its name only when it is complete, and its pages exist: a full
 *     tmpfs is an error here, never a SIGBUS in the program.
 *   - Of segments only this file maps one, and only the one that it has just made.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "emuv_environ.h"
#include "emuv_segment_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define CREATE_TRIES 4

/* ---- the directory ---------------------------------------------------- */

/*
 * Opens a directory that only its owner can enter.  Root may look into anyone's
 * (`any_owner`); nobody else may use one that is not theirs.
 */
int emuv_segment_open_directory(const char *path, int any_owner, emuv_error_t *error)
{
	struct stat st;
	int fd, rc;

	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		rc = -errno;
		if (rc == -ENOTDIR || rc == -ELOOP)
			return fail(error, rc, "segment directory '%s' is a link or no directory; "
				    "remove it, or set EMUV_RUNTIME_DIR to another one", path);
		return fail(error, rc, "segment directory '%s' cannot be opened: %s; set "
			    "EMUV_RUNTIME_DIR to a directory of your own", path, strerror(-rc));
	}
	if (fstat(fd, &st) < 0) {
		rc = -errno;
		close(fd);
		return fail(error, rc, "segment directory '%s' cannot be examined: %s",
			    path, strerror(-rc));
	}
	if (st.st_uid != geteuid() && !(any_owner && geteuid() == 0)) {
		close(fd);
		return fail(error, -EPERM, "segment directory '%s' belongs to user %u, not to "
			    "user %u; set EMUV_RUNTIME_DIR to a directory of your own", path,
			    (unsigned int)st.st_uid, (unsigned int)geteuid());
	}
	if (st.st_mode & 077) {
		close(fd);
		/* No advice to chmod: it may be /tmp, named by mistake. */
		return fail(error, -EPERM, "segment directory '%s' is open to others (mode %03o); "
			    "set EMUV_RUNTIME_DIR to a directory that is yours alone (0700)", path,
			    (unsigned int)(st.st_mode & 0777));
	}
	return fd;
}

int emuv_segment_directory_check(const char *path, emuv_error_t *error)
{
	int fd = emuv_segment_open_directory(path, 1, error);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/*
 * Whether $XDG_RUNTIME_DIR can be used: su and containers often leave one that
 * is another user's or is not there.
 */
static int own_directory(const char *path)
{
	struct stat st;

	return path && path[0] == '/' && stat(path, &st) == 0 && S_ISDIR(st.st_mode) &&
	       st.st_uid == geteuid();
}

static int choose_directory(char *path, size_t path_bytes, emuv_error_t *error)
{
	const char *named = emuv_environ("EMUV_RUNTIME_DIR");
	const char *xdg = secure_getenv("XDG_RUNTIME_DIR");
	unsigned int uid = (unsigned int)geteuid();
	struct stat st;
	int length;

	if (named && named[0]) {
		if (named[0] != '/')
			return fail(error, -EINVAL, "EMUV_RUNTIME_DIR is '%s'; give an absolute "
				    "path", named);
		length = snprintf(path, path_bytes, "%s", named);
	} else if (own_directory(xdg)) {
		length = snprintf(path, path_bytes, "%s/emuv", xdg);
	} else if (stat("/run/emuv", &st) == 0 && S_ISDIR(st.st_mode)) {
		length = snprintf(path, path_bytes, "/run/emuv/%u", uid);
	} else {
		length = snprintf(path, path_bytes, "/tmp/emuv-%u", uid);
	}
	if (length < 0 || (size_t)length >= path_bytes)
		return fail(error, -ENAMETOOLONG, "the path of the segment directory is longer "
			    "than %zu bytes; set EMUV_RUNTIME_DIR to a shorter one", path_bytes);
	return 0;
}

int emuv_segment_directory(char *path, size_t path_bytes, int create, emuv_error_t *error)
{
	int rc = choose_directory(path, path_bytes, error);
	int fd;

	if (rc)
		return rc;
	if (create && mkdir(path, 0700) < 0 && errno != EEXIST) {
		rc = -errno;
		return fail(error, rc, "segment directory '%s' cannot be made: %s; set "
			    "EMUV_RUNTIME_DIR to a directory of your own", path, strerror(-rc));
	}
	fd = emuv_segment_open_directory(path, 0, error);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* ---- creating --------------------------------------------------------- */

/*
 * Gives a nameless or temporarily named file its name.  A file that is there
 * already has our pid and start time: the image that this process ran before
 * it called exec.  Nothing reads it any more, so it makes way.
 */
static int give_name(int directory, int fd, const char *temporary, const char *name)
{
	char self[64];
	int rc = -EEXIST;
	int i;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	for (i = 0; i < CREATE_TRIES; i++) {
		if (temporary)
			rc = linkat(directory, temporary, directory, name, 0);
		else
			rc = linkat(AT_FDCWD, self, directory, name, AT_SYMLINK_FOLLOW);
		if (rc == 0)
			break;
		rc = -errno;
		if (rc != -EEXIST)
			break;
		if (unlinkat(directory, name, 0) < 0 && errno != ENOENT) {
			rc = -errno;
			break;
		}
	}
	if (temporary && unlinkat(directory, temporary, 0) < 0 && rc == 0)
		rc = -errno;
	return rc;
}

/* Makes room for the whole file and fills it; the pages exist afterwards. */
int emuv_segment_fill(int fd, size_t size, const void *initial, size_t bytes)
{
	struct rlimit limit;
	int rc;

	/* Beyond the limit the kernel would send SIGXFSZ, which ends programs. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < size)
		return -EFBIG;
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)size) < 0)
		return -errno;
	do {
		rc = posix_fallocate(fd, 0, (off_t)size);
	} while (rc == EINTR);
	if (rc)
		return -rc;
	return emuv_segment_pwrite(fd, initial, bytes, 0);
}

/*
 * Makes, fills and names the file and returns a descriptor open for writing.
 * O_TMPFILE leaves nothing behind if the process dies half-way; file systems
 * without it get a hidden temporary name.
 */
static int make_file(int directory, const emuv_segment_t *initial, const char *name)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
	char temporary[80];
	int fd, rc;

	fd = openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0) {
		rc = emuv_segment_fill(fd, sizeof(*initial), initial, sizeof(*initial));
		if (rc == 0)
			rc = give_name(directory, fd, NULL, name);
		if (rc == 0)
			return fd;
		close(fd);
		if (rc != -ENOENT && rc != -EOPNOTSUPP && rc != -EXDEV)
			return rc; /* the others: no /proc, or no linkat of such a file */
	}
	snprintf(temporary, sizeof(temporary), ".new-%s", name);
	unlinkat(directory, temporary, 0); /* left by an image that died here */
	fd = openat(directory, temporary, flags | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		return -errno;
	rc = emuv_segment_fill(fd, sizeof(*initial), initial, sizeof(*initial));
	if (rc)
		unlinkat(directory, temporary, 0);
	else
		rc = give_name(directory, fd, temporary, name);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

int emuv_segment_create(const char *directory, const emuv_segment_t *initial,
			emuv_segment_t **mapped, char *path, size_t path_bytes,
			emuv_error_t *error)
{
	char name[64];
	void *memory;
	int length, at, fd, rc;

	*mapped = NULL;
	if (initial->magic != EMUV_SEGMENT_MAGIC || initial->version != EMUV_SEGMENT_VERSION ||
	    initial->size != sizeof(*initial) || initial->pid <= 0 || !initial->start_ticks ||
	    initial->n_devices > EMUV_MAX_DEVICES || initial->n_functions > EMUV_MAX_FUNCTIONS)
		return fail(error, -EINVAL, "the segment of process %d in '%s' has an unsound "
			    "header (is /proc mounted?)", (int)initial->pid, directory);
	snprintf(name, sizeof(name), "%d-%llu.seg", (int)initial->pid,
		 (unsigned long long)initial->start_ticks);
	length = snprintf(path, path_bytes, "%s/%s", directory, name);
	if (length < 0 || (size_t)length >= path_bytes)
		return fail(error, -ENAMETOOLONG, "the path of a segment in '%s' is longer than "
			    "%zu bytes; set EMUV_RUNTIME_DIR to a shorter one", directory,
			    path_bytes);
	at = emuv_segment_open_directory(directory, 0, error);
	if (at < 0)
		return at;
	fd = make_file(at, initial, name);
	if (fd < 0) {
		close(at);
		if (fd == -ENOSPC || fd == -EDQUOT)
			return fail(error, fd, "no room for the segment '%s': %s; free some, or "
				    "set EMUV_RUNTIME_DIR to another file system", path,
				    strerror(-fd));
		return fail(error, fd, "segment '%s' cannot be made: %s; set EMUV_RUNTIME_DIR to "
			    "a directory where it can", path, strerror(-fd));
	}
	memory = mmap(NULL, sizeof(*initial), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rc = memory == MAP_FAILED ? -errno : 0;
	if (rc)
		unlinkat(at, name, 0);
	close(fd);
	close(at);
	if (rc)
		return fail(error, rc, "segment '%s' cannot be mapped: %s", path, strerror(-rc));
	*mapped = memory;
	return 0;
}
