/* SPDX-License-Identifier: GPL-2.0-only */
/* For the tests of a shared budget: joining a run, taking and giving, looking at its file. */
#ifndef EMUV_TEST_SHARED_RUN_H
#define EMUV_TEST_SHARED_RUN_H

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"
#include "shared.h"

#define VRAM MIB(64)

static emuv_share_t *share;
static emuv_config_t config;
static uint64_t next_key = 4096;

static inline void configure(const char *run_id, uint64_t extra)
{
	memset(&config, 0, sizeof config);
	snprintf(config.run_id, sizeof config.run_id, "%s", run_id);
	config.control.policy = extra ? EMUV_POLICY_SPILL : EMUV_POLICY_CAP;
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		config.control.budget[i] = (emuv_budget_t){ VRAM, extra };
}

static inline void join_run(void)
{
	share = emuv_share_join(&config);
	CHECK(share);
	emuv_share_card(share, 0, 4711);
	emuv_account_start(&config, NULL, 1, share);
	emuv_account_card(0, MIB(256), 0, true);
}

/* Whether so much could be had. */
static inline bool take(uint64_t bytes)
{
	emuv_entry_t entry = { .kind = EMUV_KIND_MEMORY, .key = next_key, .context = 7 };
	emuv_grant_t grant;

	if (!emuv_account_reserve(0, bytes, 0, &grant))
		return false;
	emuv_account_commit(0, &grant, &entry, false);
	next_key += 4096;
	return true;
}

static inline void give(uint64_t key)
{
	emuv_entry_t entry;

	CHECK(emuv_account_take(EMUV_KIND_MEMORY, key, &entry));
	emuv_account_freed(&entry);
}

static inline char *path_of(const char *run_id)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s.run", getenv("EMUV_RUNTIME_DIR"), run_id);
	return path;
}

static inline emuv_shared_t *map_run(const char *run_id)
{
	int fd = open(path_of(run_id), O_RDWR | O_CLOEXEC);
	emuv_shared_t *shared;

	CHECK(fd >= 0);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	CHECK(shared != MAP_FAILED);
	return shared;
}

/* Exact only while nobody changes anything. */
static inline uint64_t held(const emuv_shared_t *shared)
{
	emuv_shared_sum_t sum;

	emuv_shared_sum(shared, EMUV_SHARED_SLOTS, 0, &sum);
	return sum.physical;
}

/* The owner word of process `pid` as it numbers itself. */
static inline uint64_t owner_of(uint64_t pid, uint64_t ticks)
{
	return UINT64_C(1) << 53 | (ticks & 0x7fffffff) << 22 | pid;
}

/* Runs `work` in a child and checks that it ends well. */
static inline void in_child(void (*work)(void))
{
	pid_t child = fork();
	int status;

	CHECK(child >= 0);
	if (child == 0) {
		alarm(40);
		work();
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

static inline pid_t dead_pid(void)
{
	pid_t gone = fork();

	CHECK(gone >= 0);
	if (gone == 0)
		_exit(0);
	CHECK_EQ(waitpid(gone, NULL, 0), gone);
	return gone;
}

static inline void put(emuv_shared_t *shared, unsigned int slot, uint64_t owner, uint64_t bytes)
{
	shared->row[slot][0].held_physical = shared->row[slot][0].held_used = bytes;
	if (shared->high < slot + 1)
		shared->high = slot + 1;
	__atomic_store_n(&shared->owner[slot], owner, __ATOMIC_SEQ_CST);
}

#endif
