/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "host_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Small buffers throughout: a spill may happen on a thread with little stack. */
#define TEXT_BYTES 1024
#define PATH_BYTES 512

/* An answer is good for this long: a program that spills often must not live in /proc. */
#define FRESH_NS UINT64_C(100000000)

/* The start of a file into text, NUL-terminated; false where it cannot be read. */
static bool slurp(int directory, const char *path, char text[TEXT_BYTES])
{
	int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, TEXT_BYTES - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static bool slurp_number(int directory, const char *file, char text[TEXT_BYTES], uint64_t *value)
{
	char *end;

	if (!slurp(directory, file, text))
		return false;
	*value = strtoull(text, &end, 10);
	return end != text; /* "max" is no number: no limit */
}

static void lower(uint64_t *least, bool *known, uint64_t limit, uint64_t used)
{
	uint64_t left = limit > used ? limit - used : 0;

	if (!*known || left < *least)
		*least = left;
	*known = true;
}

/* One control group: its limit less its use.  Page cache is use that can be had. */
static void ask_group(int group, bool v2, char text[TEXT_BYTES], uint64_t *least, bool *known)
{
	const char *key = v2 ? "\ninactive_file " : "\ntotal_inactive_file ";
	uint64_t limit, used, cache = 0;
	const char *at;

	if (!slurp_number(group, v2 ? "memory.max" : "memory.limit_in_bytes", text, &limit) ||
	    !slurp_number(group, v2 ? "memory.current" : "memory.usage_in_bytes", text, &used))
		return;
	if (slurp(group, "memory.stat", text) && (at = strstr(text, key)))
		cache = strtoull(at + strlen(key), NULL, 10);
	lower(least, known, limit, used > cache ? used - cache : 0);
}

/* From the group up to the mount: every ancestor's limit counts. */
static void ask_groups(const char *group, bool v2, char text[TEXT_BYTES], uint64_t *least,
		       bool *known)
{
	const char *mount = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
	char path[PATH_BYTES + 32];

	snprintf(path, sizeof path, "%s%s", mount, group);
	for (;;) {
		char *slash = strrchr(path, '/');
		int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (fd >= 0) {
			ask_group(fd, v2, text, least, known);
			close(fd);
		}
		if (!slash || (size_t)(slash - path) < strlen(mount))
			return;
		*slash = '\0';
	}
}

/* Lines "ID:CONTROLLERS:PATH" of /proc/self/cgroup; version 2 has no controllers. */
static bool find_group(bool v2, char text[TEXT_BYTES], char group[PATH_BYTES])
{
	char *line, *save = NULL;

	if (!slurp(AT_FDCWD, "/proc/self/cgroup", text))
		return false;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		if (strcmp(controllers + 1, v2 ? "" : "memory") == 0) {
			snprintf(group, PATH_BYTES, "%s", path);
			return true;
		}
	}
	return false;
}

static bool ask(uint64_t *bytes)
{
	char text[TEXT_BYTES], group[PATH_BYTES];
	bool known = false;
	const char *at;

	if (slurp(AT_FDCWD, "/proc/meminfo", text) && (at = strstr(text, "MemAvailable:")))
		lower(bytes, &known, strtoull(at + 13, NULL, 10) * 1024, 0);
	for (int v2 = 0; v2 <= 1; v2++)
		if (find_group(v2, text, group))
			ask_groups(group, v2, text, bytes, &known);
	return known;
}

bool emuv_host_available(uint64_t *bytes)
{
	static uint64_t last_ns, last_bytes; /* atomic; a torn pair is a stale answer */
	struct timespec clock;
	uint64_t now, found = 0;
	int saved = errno, cancel;
	bool known;

	clock_gettime(CLOCK_MONOTONIC, &clock);
	now = (uint64_t)clock.tv_sec * 1000000000 + (uint64_t)clock.tv_nsec;
	if (now - __atomic_load_n(&last_ns, __ATOMIC_ACQUIRE) < FRESH_NS) {
		*bytes = __atomic_load_n(&last_bytes, __ATOMIC_RELAXED);
		return true;
	}
	/* Files are cancellation points, and the caller has something to give back. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	known = ask(&found);
	pthread_setcancelstate(cancel, NULL);
	errno = saved;
	if (!known)
		return false;
	__atomic_store_n(&last_bytes, found, __ATOMIC_RELAXED);
	__atomic_store_n(&last_ns, now, __ATOMIC_RELEASE);
	*bytes = found;
	return true;
}
