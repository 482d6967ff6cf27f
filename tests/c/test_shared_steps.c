// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/extents.c csrc/shim/message.c
/*
 * A shared budget, and a process that is killed or stopped at each step that others can
 * see (EMUV_STEPS).  After a kill another process has the whole budget at its next
 * reservation, without a pause; beside a stopped one others go on within a bound; and
 * never is more held than there is.
 */
#include "shared_steps.h"

/* With the steps in them. */
#include "../../csrc/common/emuv_shared.c"
#include "../../csrc/shim/shared.c"

#include "shared_processes.h"

/* ---- what brings a process to the rarer steps ---- */

static emuv_shared_row_t *ghost; /* of a slot that nobody lives in */

/* Between decision and claim others are granted what was left: the claim is overtaken. */
static void overtake(enum step which)
{
	if (which == STEP_CLAIM_HALF && share)
		share->file->row[9][0].held_physical = share->file->row[9][0].held_used = MIB(60);
	if (which == STEP_WITHDRAWN)
		share->file->row[9][0].held_physical = share->file->row[9][0].held_used = 0;
}

/* A slot whose owner, a process that has been waited for, is dead. */
static void haunt(emuv_shared_t *shared, uint64_t bytes, unsigned int slot)
{
	pid_t gone = fork();

	CHECK(gone >= 0);
	if (gone == 0)
		_exit(0);
	waitpid(gone, NULL, 0);
	ghost = &shared->row[slot][0];
	ghost->held_physical = ghost->held_used = bytes;
	ghost->claimed_physical = ghost->claimed_used = 0;
	shared->owner[slot] = owner_of((uint64_t)gone, 5);
	if (shared->high < slot + 1)
		shared->high = slot + 1;
}

/* A living owner's slot, whose rows the test writes: ours. */
static void dummy(emuv_shared_t *shared, unsigned int slot)
{
	shared->owner[slot] = emuv_shared_self(shared, 1);
	if (shared->high < slot + 1)
		shared->high = slot + 1;
}

/* ---- kill and stop ---- */

/*
 * Brings a victim to `at`, holding or claiming 40 MiB; the other is first in the ledger
 * or last.
 */
static process_t strike(emuv_shared_t **shared, process_t *other, enum step at, int with,
			bool other_first)
{
	static int n;
	char run_id[32];
	bool withdraws = at == STEP_WITHDRAW_HALF || at == STEP_WITHDRAWN;
	bool reaps = at == STEP_REAP_JUDGED || at == STEP_REAPED;
	process_t victim;

	snprintf(run_id, sizeof run_id, "strike%d", n++);
	configure(run_id, 0);
	*other = spawn(STEP_NONE, 0, NULL);
	victim = spawn(at, with, withdraws ? overtake : NULL);
	if (other_first) {
		ask(other, 'j', 0);
		*shared = map_run(run_id);
	} else if (!is_join(at)) {
		ask(&victim, 'j', 0);
		ask(other, 'j', 0);
		*shared = map_run(run_id);
		if (withdraws)
			dummy(*shared, 9);
		if (reaps)
			haunt(*shared, MIB(60), 7);
		order(&victim, 't', MIB(40));
		return victim;
	}
	order(&victim, 'j', 0);
	if (!is_join(at)) {
		answer_t answer;

		CHECK(answered(&victim, &answer));
		if (withdraws)
			dummy(*shared, 9);
		if (reaps)
			haunt(*shared, MIB(60), 7);
		order(&victim, 't', MIB(40));
	}
	return victim;
}

static void killed_at(enum step at, bool other_first)
{
	emuv_shared_t *shared = NULL;
	process_t other, victim = strike(&shared, &other, at, SIGKILL, other_first);
	answer_t answer;
	int status;

	CHECK_EQ(waitpid(victim.pid, &status, 0), victim.pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		fprintf(stderr, "step %s was not met\n", step_names[at]);
		_exit(1);
	}
	if (!shared) {
		ask(&other, 'j', 0);
		shared = map_run(config.run_id);
	}
	shared->owner[9] = 0; /* the dummy */
	answer = ask(&other, 't', VRAM);
	if (!answer.result || answer.rests) {
		fprintf(stderr, "killed at %s: the rest %s, %u pauses\n", step_names[at],
			answer.result ? "was granted" : "was refused", answer.rests);
		_exit(1);
	}
	CHECK_EQ(held(shared), VRAM);
	CHECK(!ask(&other, 't', 1).result);
	close(victim.to);
	close(victim.from);
	end(&other);
	CHECK_EQ(munmap(shared, sizeof *shared), 0);
}

static void stopped_at(enum step at, bool other_first)
{
	emuv_shared_t *shared = NULL;
	process_t other, victim = strike(&shared, &other, at, SIGSTOP, other_first);
	answer_t first, second, answer;
	int status;

	CHECK_EQ(waitpid(victim.pid, &status, WUNTRACED), victim.pid);
	CHECK(WIFSTOPPED(status));
	if (!shared) {
		ask(&other, 'j', 0);
		shared = map_run(config.run_id);
	}
	/* What the stopped one may hold is counted, and waited for only so long. */
	first = ask(&other, 't', MIB(30));
	second = ask(&other, 't', MIB(20));
	CHECK(first.ns < UINT64_C(1000000000) && second.ns < UINT64_C(1000000000));
	/* (In the midst of a withdrawal the dummy holds 60 MiB.) */
	if (!first.result && !second.result && at != STEP_WITHDRAW_HALF) {
		fprintf(stderr, "stopped at %s: nothing is to be had\n", step_names[at]);
		_exit(1);
	}
	CHECK_EQ(kill(victim.pid, SIGCONT), 0);
	CHECK(answered(&victim, &answer));
	if (is_join(at))
		answer = ask(&victim, 't', MIB(40));
	shared->owner[9] = 0;
	CHECK_EQ(held(shared), (first.result ? MIB(30) : 0) + (second.result ? MIB(20) : 0) +
			       (answer.result ? MIB(40) : 0));
	CHECK(held(shared) <= VRAM);
	/* And once it is gone, what it had is to be had. */
	end(&victim);
	CHECK(ask(&other, 't', VRAM - (first.result ? MIB(30) : 0) -
			       (second.result ? MIB(20) : 0)).result);
	CHECK_EQ(held(shared), VRAM);
	end(&other);
	CHECK_EQ(munmap(shared, sizeof *shared), 0);
}

int main(void)
{
	alarm(55);
	emuv_message_quiet(1);
	for (enum step at = STEP_JOIN_HIGH; at < STEP_RESTED; at++)
		for (int other_first = 0; other_first < 2; other_first++) {
			killed_at(at, other_first);
			stopped_at(at, other_first);
		}
	return 0;
}
