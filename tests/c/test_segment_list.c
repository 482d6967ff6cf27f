// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/common/emuv_segment_list.c csrc/common/emuv_segment_file.c csrc/common/emuv_segment_create.c
// link: csrc/common/emuv_environ.c
/* Going through segments: the living are seen, what is none or has ended is passed over. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "emuv_segment_list.h"
#include "segments.h"

static int32_t seen[8];
static unsigned int n_seen, most = 8;

static bool see(const emuv_segment_t *copy, void *state)
{
	CHECK(state == seen);
	CHECK(n_seen < most);
	seen[n_seen++] = copy->pid;
	return n_seen < most;
}

static unsigned int look(void)
{
	n_seen = 0;
	CHECK(emuv_segment_each(see, seen));
	return n_seen;
}

static bool has_seen(int32_t pid)
{
	for (unsigned int i = 0; i < n_seen; i++)
		if (seen[i] == pid)
			return true;
	return false;
}

static char *at(const char *name)
{
	static char path[4096];

	snprintf(path, sizeof path, "%s/%s", getenv("EMUV_RUNTIME_DIR"), name);
	return path;
}

static void plant(const char *name, const void *bytes, size_t n)
{
	int fd = open(at(name), O_WRONLY | O_CREAT | O_EXCL, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, bytes, n), n);
	CHECK_EQ(close(fd), 0);
}

int main(void)
{
	const int32_t self = emuv_own_pid();
	emuv_segment_t *own, *other, *dead;
	char folder[2048], path[4096];
	pid_t child;

	alarm(55);
	snprintf(folder, sizeof folder, "%s/of-this-test", getenv("EMUV_RUNTIME_DIR"));
	setenv("EMUV_RUNTIME_DIR", folder, 1);
	CHECK_EQ(look(), 0); /* no directory */
	CHECK_EQ(mkdir(folder, 0700), 0);
	CHECK_EQ(look(), 0);

	own = make_segment(self, emuv_start_ticks(self), "run", path);
	child = fork();
	CHECK(child >= 0);
	if (child == 0)
		for (;;)
			pause();
	other = make_segment(child, emuv_start_ticks(child), "run", NULL);
	dead = make_segment(self, emuv_start_ticks(self) + 1, "run", NULL); /* a reused pid */
	plant("5-5.seg", own, sizeof *own);
	plant("6-6.seg", own, sizeof *own - 1);
	plant("7-7.seg", "", 0);
	plant("notes", own, sizeof *own);
	plant(".seg", "", 0);
	CHECK_EQ(symlink(path, at("8-8.seg")), 0);
	CHECK_EQ(mkfifo(at("9-9.seg"), 0600), 0);

	/* A segment by its own word, whatever it is called: names are the controllers' affair. */
	CHECK_EQ(look(), 3);
	CHECK(has_seen(self) && has_seen(child));
	CHECK_EQ(unlink(at("5-5.seg")), 0);
	CHECK_EQ(look(), 2);
	most = 1;
	CHECK_EQ(look(), 1);
	most = 8;

	/* Counters that are never whole are of several moments, and seen all the same. */
	own->counters_seq = 1;
	CHECK_EQ(look(), 2);
	own->state = EMUV_STATE_EXITED;
	CHECK_EQ(look(), 1);
	CHECK(has_seen(child));
	kill(child, SIGKILL);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	CHECK_EQ(look(), 0);

	/* One that others can enter is not searched. */
	own->state = EMUV_STATE_RUNNING;
	own->counters_seq = 2;
	CHECK_EQ(look(), 1);
	CHECK_EQ(chmod(folder, 0755), 0);
	CHECK_EQ(look(), 0);
	munmap(own, sizeof *own);
	munmap(other, sizeof *other);
	munmap(dead, sizeof *dead);
	return 0;
}
