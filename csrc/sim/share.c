/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that processes share (share.h). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define FIRST_FD 200

static const char *word(sim_share_kind_t kind)
{
	switch (kind) {
	case SIM_SHARE_MEMORY: return "memory";
	case SIM_SHARE_EVENT: return "event";
	case SIM_SHARE_VMM: return "handle";
	case SIM_SHARE_POOL: return "pool";
	}
	return "nothing";
}

static int text_of(char *text, size_t bytes, sim_share_kind_t kind, uint64_t key)
{
	return snprintf(text, bytes, "emuv-sim-%s-%016llx", word(kind), (unsigned long long)key);
}

int sim_share_high(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD);

	if (high < 0)
		return fd;
	close(fd);
	return high;
}

int sim_share_new(sim_share_kind_t kind, size_t bytes, uint64_t *key)
{
	char name[64];
	int fd;

	if (getrandom(key, sizeof(*key), GRND_NONBLOCK) != sizeof(*key))
		*key = sim_now() * 0x9e3779b97f4a7c15u ^ (uint64_t)getpid();
	text_of(name, sizeof(name), kind, *key);
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, SEALS)) {
		close(fd);
		return -1;
	}
	return sim_share_high(fd);
}

/* The key in what a link of /proc/PID/fd says, if it is of that kind. */
static bool parse(const char *link, sim_share_kind_t kind, uint64_t *key)
{
	char wanted[96], name[64];
	unsigned long long found;
	const char *dash = strrchr(link, '-');

	if (!dash || sscanf(dash + 1, "%16llx", &found) != 1)
		return false;
	text_of(name, sizeof(name), kind, found);
	snprintf(wanted, sizeof(wanted), "/memfd:%s (deleted)", name);
	*key = found;
	return strcmp(link, wanted) == 0;
}

static bool read_link(const char *path, sim_share_kind_t kind, uint64_t *key)
{
	char link[128];
	ssize_t n = readlink(path, link, sizeof(link) - 1);

	if (n <= 0)
		return false;
	link[n] = '\0';
	return parse(link, kind, key);
}

static bool measure(int fd, size_t *bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat file;

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &file) || file.st_size <= 0)
		return false;
	*bytes = (size_t)file.st_size;
	return true;
}

bool sim_share_is(int fd, sim_share_kind_t kind, uint64_t *key, size_t *bytes)
{
	char path[64];

	if (fd < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return read_link(path, kind, key) && measure(fd, bytes);
}

int sim_share_open(int pid, int fd, sim_share_kind_t kind, uint64_t key, size_t *bytes)
{
	char path[64];
	uint64_t found;
	int opened;

	if (pid <= 0 || fd < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	if (!read_link(path, kind, &found) || found != key)
		return -1;
	opened = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	/* The number may have become another file's since it was looked at. */
	if (opened >= 0 && (!sim_share_is(opened, kind, &found, bytes) || found != key)) {
		close(opened);
		return -1;
	}
	return opened;
}

int sim_share_self(void)
{
	char text[32] = "";
	ssize_t n = readlink("/proc/self", text, sizeof(text) - 1);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	return pid > 0 ? (int)pid : getpid();
}

CUdevice sim_share_device(unsigned int physical)
{
	for (CUdevice device = 0; device < sim_device_count; device++)
		if ((unsigned int)sim_devices[device].physical == physical)
			return device;
	return -1;
}
