// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c
// link: csrc/shim/extents.c csrc/shim/message.c
/*
 * A shared budget: who counts and who does not, whose slot is whose after fork, exec and
 * reuse of a pid, and that many processes at once, killed at random, never hold more than
 * there is.
 *
 * KILL_SECONDS (2): how long processes are killed.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "message.h"
#include "shared_run.h"

static unsigned int kill_seconds(void)
{
	const char *seconds = getenv("KILL_SECONDS");

	return seconds ? (unsigned int)strtoul(seconds, NULL, 10) : 2;
}

/* ---- who counts ---- */

static void others_count(void)
{
	emuv_shared_t *shared;
	emuv_report_t report;
	emuv_grant_t grant;
	uint64_t parent;

	configure("others", MIB(64));
	join_run();
	shared = map_run("others");
	parent = owner_of((uint64_t)getppid(), emuv_start_ticks(getppid()));
	put(shared, 5, parent, MIB(40));
	emuv_account_report(0, &report);
	CHECK_EQ(report.room, MIB(24));
	CHECK_EQ(report.free, MIB(88));
	CHECK_EQ(report.visible, MIB(128));
	CHECK(emuv_account_segment()->device[0].flags & EMUV_DEVICE_SHARED);
	CHECK(!take(MIB(25)));
	CHECK(take(MIB(24)));
	CHECK_EQ(emuv_account_segment()->device[0].others_physical_bytes, MIB(40));
	CHECK(!take(1));
	/* One that is joining holds nothing yet; what its slot held before is not its own. */
	shared->owner[5] |= EMUV_OWNER_JOINING;
	CHECK(take(MIB(40)));
	shared->owner[5] = 0;
	give(next_key - 4096);
	/* On another card nobody is in its way. */
	put(shared, 5, parent, 0);
	shared->row[5][1].held_physical = shared->row[5][1].held_used = MIB(64);
	CHECK(take(MIB(40)));
	give(next_key -= 4096);
	/* What is asked for of a device that is none is in nobody's way, nor out of it. */
	CHECK(emuv_account_reserve(9, MIB(1), 0, &grant));
	CHECK_EQ(shared->row[share->slot][0].held_physical, MIB(24));
	emuv_account_roll_back(9, &grant);
	CHECK_EQ(shared->row[share->slot][0].held_physical, MIB(24));
	CHECK_EQ(shared->row[share->slot][0].held_used, MIB(24));
	/* What does not add up is never room, and what lies beyond the slots is not looked at. */
	put(shared, 5, parent, UINT64_MAX);
	CHECK(!take(1));
	shared->high = UINT64_MAX;
	CHECK(!take(1));
}

/* A spill takes no more of the device than the others leave. */
static void heads_fit(void)
{
	emuv_shared_t *shared;
	emuv_grant_t grant;

	configure("heads", MIB(64));
	join_run();
	shared = map_run("heads");
	put(shared, 5, owner_of((uint64_t)getppid(), emuv_start_ticks(getppid())), MIB(41));
	CHECK(emuv_account_reserve(0, MIB(50), EMUV_MAY_SPILL, &grant));
	CHECK_EQ(grant.placement, EMUV_PLACED_MANAGED);
	CHECK_EQ(grant.resident, MIB(22));
	CHECK_EQ(held(shared), MIB(63));
	emuv_account_roll_back(0, &grant);
	CHECK_EQ(held(shared), MIB(41));
	/* A dead owner's room is had before anything is spilled. */
	put(shared, 5, owner_of((uint64_t)dead_pid(), 7), MIB(41));
	CHECK(emuv_account_reserve(0, MIB(50), EMUV_MAY_SPILL, &grant));
	CHECK_EQ(grant.placement, EMUV_PLACED_DEVICE);
}

/* ---- the dead, and those that only look so ---- */

static void who_is_dead(void)
{
	uint64_t parent = (uint64_t)getppid(), ticks = emuv_start_ticks(getppid());
	emuv_shared_t *shared;
	pid_t zombie;

	configure("dead", 0);
	join_run();
	shared = map_run("dead");
	put(shared, 5, owner_of(parent, ticks), MIB(64));
	CHECK(!take(1)); /* alive */
	put(shared, 5, owner_of(parent, ticks - 1), MIB(64));
	share->looked_ms = 0; /* which is looked for from time to time */
	CHECK(take(MIB(64))); /* the pid is another's by now */
	CHECK_EQ(shared->owner[5], 0);
	give(next_key -= 4096);
	/* Of another numbering of processes nobody here can tell. */
	put(shared, 5, owner_of((uint64_t)dead_pid(), 7) + (UINT64_C(1) << 53), MIB(64));
	CHECK(!take(1));
	/* Dead, and nobody has waited for it. */
	zombie = fork();
	CHECK(zombie >= 0);
	if (zombie == 0)
		pause();
	put(shared, 5, owner_of((uint64_t)zombie, emuv_start_ticks(zombie)), MIB(64));
	CHECK(!take(1));
	kill(zombie, SIGKILL);
	CHECK_EQ(waitid(P_PID, (id_t)zombie, NULL, WEXITED | WNOWAIT), 0);
	CHECK(take(MIB(64)));
	waitpid(zombie, NULL, 0);
}

/* /proc may hide a process that kill(2) knows: here 0, which is our own group. */
static void hidden_in_proc(void)
{
	emuv_shared_t *shared;
	bool own;

	configure("hidden", 0);
	join_run();
	shared = map_run("hidden");
	own = (uint32_t)shared->place[1] > 0x0fffffff; /* kill's numbers are /proc's */
	put(shared, 5, owner_of(0, 7), MIB(64));
	CHECK_EQ(take(1), !own);
}

/* What is not settled again is not tried again: there may be no memory to come that far. */
static void once_more_is_once(void)
{
	emuv_attempt_t attempt = { .again = true };

	configure("once", 0);
	join_run();
	CHECK(emuv_share_again(share, &attempt));
	CHECK(!emuv_share_again(share, &attempt));
}

/* Reports, too, know what the dead held. */
static void free_after_death(void)
{
	emuv_report_t report;

	configure("report", 0);
	join_run();
	put(map_run("report"), 5, owner_of((uint64_t)dead_pid(), 7), MIB(64));
	emuv_account_report(0, &report);
	CHECK_EQ(report.free, MIB(64));
}

/* A cancelled thread looks for the dead, whose files are where it could end, and comes back. */
static void *cancelled(void *argument)
{
	emuv_grant_t grant;

	(void)argument;
	CHECK(emuv_account_reserve(0, MIB(20), 0, &grant));
	pthread_cancel(pthread_self());
	CHECK(!emuv_account_extend(0, &grant, MIB(30)));
	emuv_account_roll_back(0, &grant);
	return &next_key;
}

static void cancelled_while_it_looks(void)
{
	uint64_t parent = (uint64_t)getppid(), ticks = emuv_start_ticks(getppid());
	emuv_shared_t *shared;
	pthread_t thread;
	void *result;

	configure("cancel", 0);
	join_run();
	shared = map_run("cancel");
	put(shared, 5, owner_of(parent, ticks), MIB(30)); /* alive, and looked at for that */
	share->looked_ms = 0;
	CHECK_EQ(pthread_create(&thread, NULL, cancelled, NULL), 0);
	CHECK_EQ(pthread_join(thread, &result), 0);
	CHECK(result == &next_key);
	CHECK_EQ(held(shared), MIB(30));
}

/* ---- slots ---- */

static void no_slot_is_left(void)
{
	emuv_shared_t *shared;
	uint64_t owner = owner_of((uint64_t)getppid(), emuv_start_ticks(getppid()));

	configure("full", 0);
	join_run();
	CHECK_EQ(share->slot, 0);
	shared = map_run("full");
	for (unsigned int i = 1; i < EMUV_SHARED_SLOTS; i++)
		put(shared, i, owner, 0);
	CHECK(!emuv_share_join(&config));
	/* The dead make room; the lowest slot is taken. */
	put(shared, 200, owner_of((uint64_t)dead_pid(), 7), MIB(64));
	put(shared, 100, owner_of((uint64_t)dead_pid(), 7), MIB(64));
	emuv_account_fork_child();
	join_run();
	CHECK_EQ(share->slot, 100);
	CHECK_EQ(shared->owner[200], 0);
	CHECK(take(MIB(64)));
}

/* After exec, pid and start time are the same and what was held is not. */
static void exec_starts_anew(void)
{
	emuv_shared_t *shared;

	configure("exec", 0);
	join_run();
	CHECK(take(MIB(64)));
	shared = map_run("exec");
	shared->image[share->slot] ^= 1; /* as if another image had done that */
	emuv_account_fork_child();
	join_run();
	CHECK_EQ(held(shared), 0);
	CHECK(take(MIB(64)));
	/* Two copies of emuV in one image are two holders. */
	emuv_account_fork_child();
	join_run();
	CHECK_EQ(share->slot, 1);
	CHECK(!take(1));
}

/* A forked child, however it came about, has no part in its parent's slot. */
static void forked(void)
{
	emuv_shared_t *shared;
	int status;
	pid_t child;

	configure("fork", 0);
	join_run();
	CHECK(take(MIB(40)));
	shared = map_run("fork");
	/* By fork: with lifecycle.c's handler ... */
	child = fork();
	if (child == 0) {
		emuv_share_fork_child(share);
		emuv_account_fork_child();
		join_run();
		_exit(share->slot != 1 || take(MIB(25)) || !take(MIB(24)) || held(shared) != VRAM);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	/* ... and by a clone that runs no handler. */
	child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	CHECK(child >= 0);
	if (child == 0) {
		emuv_grant_t grant;

		emuv_account_reserve(0, MIB(8), 0, &grant);
		syscall(SYS_exit_group, 0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(shared->row[share->slot][0].held_used, MIB(40));
	/* Both are gone. */
	CHECK(take(MIB(24)));
	CHECK_EQ(held(shared), VRAM);
}

/* ---- many at once ---- */

static uint64_t *truth; /* what is really held, by all; in shared memory */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Takes and gives; with `count` what it holds is added up before and after. */
static void churn(uint64_t seed, uint64_t until_ms, bool count)
{
	uint64_t random = seed * 7919 + 1, sizes[8], keys[8];
	unsigned int n = 0;

	while (now_ms() < until_ms) {
		if (n && (n == 8 || random_below(&random, 2))) {
			if (count)
				__atomic_fetch_sub(truth, sizes[n - 1], __ATOMIC_SEQ_CST);
			give(keys[--n]);
		} else {
			sizes[n] = 1 + random_below(&random, MIB(24));
			keys[n] = next_key;
			if (!take(sizes[n]))
				continue;
			if (count)
				CHECK(__atomic_add_fetch(truth, sizes[n], __ATOMIC_SEQ_CST) <= VRAM);
			n++;
		}
	}
	while (n) {
		if (count)
			__atomic_fetch_sub(truth, sizes[n - 1], __ATOMIC_SEQ_CST);
		give(keys[--n]);
	}
}

static void never_too_much(void)
{
	uint64_t until = now_ms() + 1500;
	emuv_shared_t *shared;
	pid_t all[6];
	int status;

	configure("many", 0);
	for (int i = 0; i < 6; i++) {
		all[i] = fork();
		CHECK(all[i] >= 0);
		if (all[i] == 0) {
			alarm(40);
			join_run();
			churn((uint64_t)i + 1, until, true);
			_exit(0);
		}
	}
	for (int i = 0; i < 6; i++) {
		CHECK_EQ(waitpid(all[i], &status, 0), all[i]);
		CHECK_EQ(status, 0);
	}
	CHECK_EQ(*truth, 0);
	shared = map_run("many");
	CHECK_EQ(held(shared), 0);
}

/* Two claims that see each other: when one of them fits, one is granted. */
static uint64_t *meeting; /* [0] rounds begun, [1] granted, [2] ended, [3] given back */

static void meet(int rounds)
{
	for (int i = 1; i <= rounds; i++) {
		bool got;

		__atomic_fetch_add(&meeting[0], 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&meeting[0], __ATOMIC_SEQ_CST) < 2 * (uint64_t)i)
			sched_yield();
		got = take(MIB(40));
		__atomic_fetch_add(&meeting[1], got, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&meeting[2], 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&meeting[2], __ATOMIC_SEQ_CST) < 2 * (uint64_t)i)
			sched_yield();
		CHECK_EQ(__atomic_load_n(&meeting[1], __ATOMIC_SEQ_CST), i);
		if (got)
			give(next_key -= 4096);
		__atomic_fetch_add(&meeting[3], 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&meeting[3], __ATOMIC_SEQ_CST) < 2 * (uint64_t)i)
			sched_yield();
	}
}

static void one_of_two(void)
{
	pid_t child;
	int status;

	configure("two", 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		alarm(40);
		join_run();
		meet(3000);
		_exit(0);
	}
	join_run();
	meet(3000);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

/*
 * The sum of one moment, or false: every word was the same before and after (sizes are
 * random to the byte, so that no word comes back by chance).
 */
static bool sum_of_a_moment(const emuv_shared_t *shared, uint64_t *sum)
{
	uint64_t owners[2][16], bytes[2][16];

	for (int look = 0; look < 2; look++)
		for (int i = 0; i < 16; i++) {
			owners[look][i] = __atomic_load_n(&shared->owner[i], __ATOMIC_SEQ_CST);
			bytes[look][i] = __atomic_load_n(&shared->row[i][0].held_physical,
							 __ATOMIC_SEQ_CST);
		}
	*sum = 0;
	for (int i = 0; i < 16; i++)
		if (owners[0][i] && !(owners[0][i] & EMUV_OWNER_JOINING))
			*sum += bytes[0][i];
	return !memcmp(owners[0], owners[1], sizeof owners[0]) &&
	       !memcmp(bytes[0], bytes[1], sizeof bytes[0]);
}

static pid_t start_churn(uint64_t seed)
{
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		alarm(200);
		join_run();
		churn(seed, UINT64_MAX, false);
	}
	return child;
}

static void killed_at_random(void)
{
	uint64_t until = now_ms() + kill_seconds() * 1000;
	uint64_t random = 42, seed = 1, most = 0;
	unsigned int kills = 0, moments = 0;
	emuv_shared_t *shared;
	pid_t all[5];

	alarm(40 + kill_seconds());
	configure("kills", 0);
	for (int i = 0; i < 5; i++)
		all[i] = start_churn(seed++);
	while (access(path_of("kills"), F_OK))
		sched_yield();
	shared = map_run("kills");
	while (now_ms() < until) {
		uint64_t wait_ns = random_below(&random, 400000), sum;
		struct timespec pause = { 0, (long)wait_ns };
		int victim = (int)random_below(&random, 5);

		nanosleep(&pause, NULL);
		for (int i = 0; i < 50; i++)
			if (sum_of_a_moment(shared, &sum)) {
				CHECK(sum <= VRAM);
				most = sum > most ? sum : most;
				moments++;
			}
		kill(all[victim], SIGKILL);
		CHECK_EQ(waitpid(all[victim], NULL, 0), all[victim]);
		all[victim] = start_churn(seed++);
		kills++;
	}
	for (int i = 0; i < 5; i++) {
		kill(all[i], SIGKILL);
		waitpid(all[i], NULL, 0);
	}
	CHECK(moments > 0);
	/* All of it is to be had, at once. */
	join_run();
	CHECK(take(VRAM));
	CHECK(shared->high < 16);
	fprintf(stderr, "%u kills, %u moments, at most %llu of %llu bytes held\n", kills, moments,
		(unsigned long long)most, (unsigned long long)VRAM);
}

int main(void)
{
	alarm(55 + kill_seconds());
	emuv_message_quiet(1);
	truth = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(truth != MAP_FAILED);
	meeting = truth + 8;
	in_child(others_count);
	in_child(heads_fit);
	in_child(who_is_dead);
	in_child(hidden_in_proc);
	in_child(once_more_is_once);
	in_child(free_after_death);
	in_child(cancelled_while_it_looks);
	in_child(no_slot_is_left);
	in_child(exec_starts_anew);
	in_child(forked);
	in_child(never_too_much);
	in_child(one_of_two);
	in_child(killed_at_random);
	return 0;
}
