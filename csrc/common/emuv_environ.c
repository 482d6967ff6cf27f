/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "emuv_environ.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ANCESTORS 64
#define PREFIX "EMUV_"

/* NAME=VALUE, each ended by a NUL, the last by two; empty: the environment is used. */
static char adopted[16384];

static const char *find(const char *block, const char *name)
{
	const size_t n = strlen(name);

	for (; *block; block += strlen(block) + 1)
		if (strncmp(block, name, n) == 0 && block[n] == '=')
			return block + n + 1;
	return NULL;
}

const char *emuv_environ(const char *name)
{
	return adopted[0] ? find(adopted, name) : secure_getenv(name);
}

static bool is_set(const char *value)
{
	return value && value[0];
}

/*
 * Reads what of /proc/PID/environ begins with EMUV_: the bytes, 0 where it cannot be read
 * or is another user's, -E2BIG where it does not fit.
 */
static ssize_t read_block(const char *pid, char *block, size_t block_bytes)
{
	char path[64], bytes[4096];
	size_t n = 0, start = 0; /* of the block; where in it the current variable begins */
	bool other = false, fits = true;
	struct stat st;
	ssize_t got = 0;
	int fd;

	snprintf(path, sizeof path, "/proc/%s/environ", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (fstat(fd, &st) || st.st_uid != geteuid()) {
		close(fd);
		return 0;
	}
	while (fits && (got = read(fd, bytes, sizeof bytes)) > 0) {
		for (ssize_t i = 0; i < got && fits; i++) {
			if (!other) {
				block[n++] = bytes[i];
				other = n - start < sizeof PREFIX && bytes[i] != PREFIX[n - start - 1];
				fits = n + 1 < block_bytes;
			}
			if (other)
				n = start;
			if (!bytes[i]) {
				start = n;
				other = false;
			}
		}
	}
	close(fd);
	block[n] = '\0';
	if (!fits)
		return -E2BIG;
	return got == 0 ? (ssize_t)n : 0;
}

/* The parent, as /proc numbers it, whose own numbering need not be this namespace's. */
static pid_t parent_of(const char *pid)
{
	char path[64], text[512];
	const char *after;
	int parent = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = '\0';
	after = strrchr(text, ')'); /* the name may hold anything */
	return after && sscanf(after, ") %*c %d", &parent) == 1 ? parent : 0;
}

pid_t emuv_environ_adopt(void)
{
	static char block[sizeof adopted];
	char who[32] = "self";
	int saved = errno;
	pid_t pid = 0;
	ssize_t n;

	if (getauxval(AT_SECURE) ||
	    (is_set(secure_getenv("EMUV_VRAM")) && is_set(secure_getenv("EMUV_DRIVER"))))
		return 0;
	for (int i = 0; i < MAX_ANCESTORS; i++) {
		n = read_block(who, block, sizeof block);
		/* What cannot be kept whole is no reason to take a farther run's. */
		if (n < 0)
			break;
		if (n > 0 && is_set(find(block, "EMUV_RUN")) &&
		    is_set(find(block, "EMUV_VRAM")) && is_set(find(block, "EMUV_DRIVER"))) {
			memcpy(adopted, block, sizeof adopted);
			break;
		}
		pid = parent_of(who);
		if (pid <= 0)
			break;
		snprintf(who, sizeof who, "%d", (int)pid);
	}
	errno = saved;
	if (!adopted[0])
		return 0;
	return pid ? pid : getpid();
}
