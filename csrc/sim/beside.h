/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files that are written beside their place and renamed to it when they are whole.  What
 * is there and is no regular file (/dev/stderr, a pipe) is written to as it is: a rename
 * would put a file in the place of the device.
 */
#ifndef EMUV_SIM_BESIDE_H
#define EMUV_SIM_BESIDE_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens for writing; *where: what was opened, of at least strlen(path) + 16 bytes. */
static inline FILE *beside_open(const char *path, char *where, size_t bytes)
{
	struct stat there;

	if (stat(path, &there) == 0 && !S_ISREG(there.st_mode))
		snprintf(where, bytes, "%s", path);
	else
		snprintf(where, bytes, "%s.%d", path, (int)getpid());
	return fopen(where, "we");
}

static inline bool beside_close(FILE *file, const char *path, const char *where)
{
	bool whole = fclose(file) == 0;
	bool same = true;

	for (size_t i = 0; same && (path[i] || where[i]); i++)
		same = path[i] == where[i];
	if (same || (whole && rename(where, path) == 0))
		return whole;
	unlink(where);
	return false;
}

#endif
