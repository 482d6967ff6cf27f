/* SPDX-License-Identifier: GPL-2.0-only */
#include "host_memory.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A small file into text, NUL-terminated; false where it cannot be read. */
static bool slurp(const char *path, char *text, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, bytes - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static bool slurp_number(const char *directory, const char *file, uint64_t *value)
{
	char path[PATH_MAX + 32], text[64], *end;

	snprintf(path, sizeof path, "%s/%s", directory, file);
	if (!slurp(path, text, sizeof text))
		return false;
	*value = strtoull(text, &end, 10);
	return end != text; /* "max" is no number: no limit */
}

/* Page cache that the kernel drops under pressure: counted as used, but free to have. */
static uint64_t reclaimable(const char *directory, const char *key)
{
	char path[PATH_MAX + 32], text[8192];
	const char *at;

	snprintf(path, sizeof path, "%s/memory.stat", directory);
	if (!slurp(path, text, sizeof text))
		return 0;
	at = strstr(text, key);
	return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void lower(uint64_t *least, bool *known, uint64_t limit, uint64_t used)
{
	uint64_t left = limit > used ? limit - used : 0;

	if (!*known || left < *least)
		*least = left;
	*known = true;
}

/* Walks from the group up to the mount: every ancestor's limit counts. */
static void ask_cgroup(const char *mount, const char *group, const char *limit_file,
		       const char *used_file, uint64_t *least, bool *known)
{
	char path[PATH_MAX];
	uint64_t limit, used;
	size_t root = strlen(mount);

	snprintf(path, sizeof path, "%s%s", mount, group);
	for (;;) {
		char *slash;

		if (slurp_number(path, limit_file, &limit) && slurp_number(path, used_file, &used)) {
			uint64_t cache = reclaimable(path, "inactive_file ");

			lower(least, known, limit, used > cache ? used - cache : 0);
		}
		slash = strrchr(path, '/');
		if (!slash || (size_t)(slash - path) < root)
			return;
		*slash = '\0';
	}
}

bool emuv_host_available(uint64_t *bytes)
{
	char text[8192], *line, *save = NULL;
	uint64_t least = 0;
	bool known = false;
	const char *at;

	if (slurp("/proc/meminfo", text, sizeof text)) {
		at = strstr(text, "MemAvailable:");
		if (at)
			lower(&least, &known, strtoull(at + 13, NULL, 10) * 1024, 0);
	}
	/* Lines "ID:CONTROLLERS:PATH"; version 2 has no controllers. */
	if (slurp("/proc/self/cgroup", text, sizeof text))
		for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
			char *controllers = strchr(line, ':');
			char *group = controllers ? strchr(controllers + 1, ':') : NULL;

			if (!group)
				continue;
			*group++ = '\0';
			if (controllers[1] == '\0')
				ask_cgroup("/sys/fs/cgroup", group, "memory.max", "memory.current",
					   &least, &known);
			else if (strcmp(controllers + 1, "memory") == 0)
				ask_cgroup("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
					   "memory.usage_in_bytes", &least, &known);
		}
	if (known)
		*bytes = least;
	return known;
}
