// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c
// link: csrc/shim/extents.c csrc/shim/message.c
/*
 * The file of a shared budget: its end, what is not ours to use, and what others may do
 * to it at the worst moment.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "message.h"
#include "shared_run.h"

/* Another process at its worst moment: between opening the file and having its lock. */
static void (*before_lock)(void);

int flock(int fd, int how)
{
	void (*meanwhile)(void) = before_lock;

	before_lock = NULL;
	if (meanwhile)
		meanwhile();
	return (int)syscall(SYS_flock, fd, how);
}

static void the_files_end(void)
{
	emuv_error_t error;
	emuv_shared_t *shared;
	pid_t child;
	int gate[2];
	char byte;

	configure("end", 0);
	CHECK_EQ(pipe(gate), 0);
	child = fork();
	if (child == 0) {
		close(gate[1]);
		join_run();
		(void)!read(gate[0], &byte, 1);
		_exit(0);
	}
	close(gate[0]);
	while (access(path_of("end"), F_OK))
		sched_yield();
	shared = map_run("end");
	while (!(shared->owner[0] && !(shared->owner[0] & EMUV_OWNER_JOINING)))
		sched_yield();
	CHECK_EQ(emuv_shared_sweep(path_of("end"), &error), 0); /* in use */
	close(gate[1]);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	shared->leader = owner_of((uint64_t)getppid(), emuv_start_ticks(getppid()));
	CHECK_EQ(emuv_shared_sweep(path_of("end"), &error), 0); /* its leader lives */
	shared->leader = owner_of((uint64_t)dead_pid(), 7);
	put(shared, 3, owner_of((uint64_t)dead_pid(), 7) + (UINT64_C(1) << 53), 0);
	CHECK_EQ(emuv_shared_sweep(path_of("end"), &error), 0); /* another's to judge */
	shared->owner[3] = 0;
	CHECK_EQ(emuv_shared_sweep(path_of("end"), &error), 1);
	CHECK_EQ(access(path_of("end"), F_OK), -1);
	CHECK_EQ(emuv_shared_sweep(path_of("end"), &error), -ENOENT);
}

static void remove_it(void)
{
	CHECK_EQ(unlink(path_of("gone")), 0);
}

/* Who joins a file that is just being removed joins the next one of that name. */
static void removed_while_it_is_joined(void)
{
	configure("gone", 0);
	join_run();
	before_lock = remove_it;
	join_run();
	CHECK_EQ(map_run("gone")->owner[share->slot], share->self);
}

static void replace_it(void)
{
	CHECK_EQ(unlink(path_of("new")), 0);
	join_run();
}

/* Who sweeps a file whose name is another's by now leaves that one alone. */
static void replaced_while_it_is_swept(void)
{
	emuv_error_t error;
	emuv_shared_t *shared;

	configure("new", 0);
	join_run();
	shared = map_run("new");
	emuv_share_leave(share);
	shared->leader = owner_of((uint64_t)dead_pid(), 7);
	before_lock = replace_it;
	CHECK_EQ(emuv_shared_sweep(path_of("new"), &error), 0);
	CHECK_EQ(map_run("new")->owner[share->slot], share->self);
}

static void not_ours_to_use(void)
{
	int fd;

	configure("link", 0);
	CHECK_EQ(symlink("/etc/passwd", path_of("link")), 0);
	CHECK(!emuv_share_join(&config));
	configure("garbage", 0);
	fd = open(path_of("garbage"), O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, sizeof(emuv_shared_t)), 0);
	close(fd);
	CHECK(!emuv_share_join(&config)); /* no magic */
	CHECK_EQ(chmod(path_of("garbage"), 0666), 0);
	CHECK(!emuv_share_join(&config));
	configure("../up", 0);
	CHECK(!emuv_share_join(&config));
}

/* Who has a slot has it in the file of that name: there are never two ledgers. */
static void join_and_sweep(void)
{
	pid_t sweeper;
	unsigned int removed = 0;

	configure("sweep", 0);
	sweeper = fork();
	CHECK(sweeper >= 0);
	if (sweeper == 0) {
		emuv_error_t error;

		alarm(40);
		for (;;)
			emuv_shared_sweep(path_of("sweep"), &error);
	}
	for (int i = 0; i < 300; i++) {
		emuv_shared_t *named;

		share = emuv_share_join(&config);
		CHECK(share);
		named = map_run("sweep");
		removed += share->file->created_ns != share->file->row[0][0].reserved[0];
		share->file->row[share->slot][0].held_used = (uint64_t)i + 1;
		CHECK_EQ(named->row[share->slot][0].held_used, i + 1);
		share->file->row[0][0].reserved[0] = share->file->created_ns;
		share->file->leader = 0;
		CHECK_EQ(munmap(named, sizeof *named), 0);
		emuv_share_leave(share);
	}
	kill(sweeper, SIGKILL);
	waitpid(sweeper, NULL, 0);
	fprintf(stderr, "300 joins, in %u files\n", removed);
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	in_child(the_files_end);
	in_child(removed_while_it_is_joined);
	in_child(replaced_while_it_is_swept);
	in_child(not_ours_to_use);
	in_child(join_and_sweep);
	return 0;
}
