// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/account*.c csrc/shim/books.c csrc/shim/budget.c csrc/shim/ledger.c csrc/shim/extents.c csrc/shim/message.c
// sanitize: address
/*
 * A shared budget, and what may come between the steps of a claim: another claimer that
 * is stopped as well, others' grants and frees, a controller, a fork, 255 claims that
 * stay up, and the file's removal.  Never is more granted than there is, a budget that
 * was lowered holds for every claim after it, and nobody waits longer than a bound.
 */
#include "shared_steps.h"

/* With the steps in them. */
#include "../../csrc/common/emuv_shared.c"
#include "../../csrc/shim/shared.c"

#include "shared_processes.h"

#define STOPPING 2 /* in place of an answer's result: it stops now and answers later */
#define BOUND_NS UINT64_C(1000000000)

static void tell_stop(enum step which)
{
	const answer_t answer = { .result = STOPPING };

	if (which == armed && write(own_string, &answer, sizeof answer) != sizeof answer)
		_exit(3);
}

/* The answer, or that it has stopped on the way to one. */
static answer_t answer_or_stop(const process_t *process)
{
	answer_t answer = { 0 };
	int status;

	CHECK(answered(process, &answer));
	if (answer.result == STOPPING) {
		CHECK_EQ(waitpid(process->pid, &status, WUNTRACED), process->pid);
		CHECK(WIFSTOPPED(status));
	}
	return answer;
}

static answer_t go_on(const process_t *process)
{
	answer_t answer = { 0 };

	CHECK_EQ(kill(process->pid, SIGCONT), 0);
	CHECK(answered(process, &answer));
	CHECK(answer.result != STOPPING);
	return answer;
}

/* With some virtual the physical sum alone decides; without, either would. */
static const char *begin(uint64_t extra)
{
	static int n;
	static char run_id[32];

	snprintf(run_id, sizeof run_id, "between%d", n++);
	configure(run_id, extra);
	return run_id;
}

/* Takes and gives, and never gets more than `most` less what the others were granted. */
static void come_and_go(const process_t *process, uint64_t *random, uint64_t most)
{
	uint64_t sizes[4], sum = 0;
	int n = 0;

	for (int i = 0; i < 6; i++) {
		uint64_t bytes = 1 + random_below(random, MIB(24));
		answer_t answer;

		if (n && random_below(random, 3) == 0) {
			ask(process, 'f', 0);
			sum -= sizes[--n];
			continue;
		}
		if (n == 4)
			break;
		answer = ask(process, 't', bytes);
		CHECK(answer.ns < BOUND_NS);
		if (!answer.result)
			continue;
		sizes[n++] = bytes;
		sum += bytes;
		CHECK(sum <= most);
	}
	while (n--)
		ask(process, 'f', 0);
}

/* ---- two that are stopped ---- */

/*
 * One is stopped with 40 MiB on the way, then another with 30, at any two steps of a
 * claim; a third comes and goes meanwhile.  Either is first in the ledger, and ends first.
 */
static void two_stopped(enum step at, enum step then, bool first_is_low, bool first_ends_first,
			uint64_t *random)
{
	process_t one, two, third;
	answer_t first, second;
	uint64_t granted = 0;
	emuv_shared_t *shared;
	const char *run_id = begin(VRAM);

	one = spawn(at, SIGSTOP, tell_stop);
	two = spawn(then, SIGSTOP, tell_stop);
	third = spawn(STEP_NONE, 0, NULL);
	ask(first_is_low ? &one : &two, 'j', 0);
	ask(first_is_low ? &two : &one, 'j', 0);
	ask(&third, 'j', 0);
	shared = map_run(run_id);
	order(&one, 't', MIB(40));
	first = answer_or_stop(&one);
	order(&two, 't', MIB(30));
	second = answer_or_stop(&two);
	CHECK(second.result == STOPPING || second.ns < BOUND_NS);
	granted += first.result == 1 ? MIB(40) : 0;
	granted += second.result == 1 ? MIB(30) : 0;
	come_and_go(&third, random, VRAM - granted);
	for (int i = 0; i < 2; i++) {
		bool is_first = first_ends_first == !i;

		if (is_first && first.result == STOPPING)
			first = go_on(&one);
		else if (!is_first && second.result == STOPPING)
			second = go_on(&two);
		come_and_go(&third, random, VRAM);
	}
	granted = (first.result ? MIB(40) : 0) + (second.result ? MIB(30) : 0);
	if (granted > VRAM || held(shared) != granted) {
		fprintf(stderr, "%s, then %s: granted %llu, held %llu\n", step_names[at],
			step_names[then], (unsigned long long)granted,
			(unsigned long long)held(shared));
		_exit(1);
	}
	/* What is left can be had, all of it. */
	CHECK(ask(&third, 't', VRAM - granted).result || granted == VRAM);
	CHECK(!ask(&third, 't', 1).result);
	end(&one);
	end(&two);
	end(&third);
	CHECK_EQ(munmap(shared, sizeof *shared), 0);
}

/* ---- a controller ---- */

static void set_vram(const char *run_id, uint64_t bytes)
{
	emuv_control_t control = config.control;
	emuv_segment_view_t *view;
	emuv_error_t error;

	control.budget[0].vram_bytes = bytes;
	CHECK_EQ(emuv_shared_open(path_of(run_id), 1, &view, &error), 0);
	CHECK_EQ(emuv_segment_set_control(view, &control, &error), 0);
	emuv_segment_close(view);
}

/*
 * The vram is halved while 40 MiB are on their way.  They may be had by what was the
 * budget when that was decided; nothing after that is, and it holds for the next of its own.
 */
static void lowered(enum step at)
{
	emuv_shared_t *shared;
	process_t one, two;
	answer_t first;
	uint64_t of_two;
	const char *run_id = begin(0);

	one = spawn(at, SIGSTOP, tell_stop);
	two = spawn(STEP_NONE, 0, NULL);
	ask(&one, 'j', 0);
	ask(&two, 'j', 0);
	shared = map_run(run_id);
	order(&one, 't', MIB(40));
	first = answer_or_stop(&one);
	CHECK_EQ(first.result, STOPPING);
	set_vram(run_id, VRAM / 2);
	CHECK(!ask(&two, 't', VRAM / 2 + 1).result);
	of_two = ask(&two, 't', MIB(20)).result ? MIB(20) : 0;
	CHECK(of_two + MIB(13) <= VRAM / 2 || !ask(&two, 't', MIB(13)).result);
	first = go_on(&one);
	CHECK_EQ(held(shared), of_two + (first.result ? MIB(40) : 0));
	/* Both know it now; over it or not, what exceeds it is nobody's. */
	CHECK(!ask(&one, 't', VRAM / 2 - of_two + 1).result);
	CHECK(!ask(&two, 't', VRAM / 2 - of_two + 1).result);
	if (first.result)
		ask(&one, 'f', 0);
	CHECK(ask(&one, 't', VRAM / 2 - of_two).result);
	CHECK_EQ(held(shared), VRAM / 2);
	/* And a larger one at once. */
	set_vram(run_id, 2 * VRAM);
	CHECK(ask(&two, 't', 2 * VRAM - VRAM / 2).result);
	CHECK_EQ(held(shared), 2 * VRAM);
	end(&one);
	end(&two);
	CHECK_EQ(munmap(shared, sizeof *shared), 0);
}

/* One was killed in the middle: who joins then goes by what there is, not by the run's start. */
static void half_written(void)
{
	emuv_shared_t *shared;
	process_t one, two;
	const char *run_id = begin(0);

	one = spawn(STEP_NONE, 0, NULL);
	two = spawn(STEP_NONE, 0, NULL);
	ask(&one, 'j', 0);
	shared = map_run(run_id);
	set_vram(run_id, VRAM / 2);
	shared->control.generation |= 1;
	ask(&two, 'j', 0);
	CHECK(!ask(&two, 't', VRAM / 2 + 1).result);
	CHECK(ask(&two, 't', VRAM / 2).result);
	/* The next one's is taken up by both. */
	set_vram(run_id, VRAM);
	CHECK(!ask(&one, 't', VRAM / 2 + 1).result);
	CHECK(ask(&two, 't', VRAM / 2).result);
	CHECK(!ask(&one, 't', 1).result);
	end(&one);
	end(&two);
	CHECK_EQ(munmap(shared, sizeof *shared), 0);
}

/* ---- a fork ---- */

static enum step fork_at;

/* The child has a part of its own, whatever its parent was about. */
static void fork_here(enum step which)
{
	pid_t child;
	int status;

	if (which != fork_at)
		return;
	fork_at = STEP_NONE;
	child = fork();
	if (child == 0) {
		alarm(20);
		emuv_share_fork_child(share);
		emuv_account_fork_child();
		join_run();
		/* The parent has 40 of 64 MiB, or is about to. */
		_exit(share->slot != 1 || take(MIB(65)) || !take(MIB(24)));
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		_exit(4);
}

static void forked_at(enum step at)
{
	emuv_shared_t *shared;
	process_t one;
	const char *run_id = begin(0);

	fork_at = at;
	one = spawn(STEP_NONE, 0, fork_here);
	fork_at = STEP_NONE;
	ask(&one, 'j', 0);
	shared = map_run(run_id);
	CHECK_EQ(ask(&one, 't', MIB(40)).result, 1);
	/* The child is dead, and what it held is to be had. */
	CHECK_EQ(ask(&one, 't', MIB(24)).result, 1);
	CHECK_EQ(held(shared), VRAM);
	end(&one);
	CHECK_EQ(munmap(shared, sizeof *shared), 0);
}

/* ---- all slots ---- */

/* 255 living owners whose claims, each of them in the way, stay up for ever. */
static void everybody_claims(void)
{
	uint64_t owner = owner_of((uint64_t)getppid(), emuv_start_ticks(getppid()));
	emuv_shared_t *shared;
	process_t one;
	answer_t answer;
	const char *run_id = begin(0);

	one = spawn(STEP_NONE, 0, NULL);
	ask(&one, 'j', 0);
	shared = map_run(run_id);
	shared->high = EMUV_SHARED_SLOTS;
	for (int i = 1; i < (int)EMUV_SHARED_SLOTS; i++) {
		shared->row[i][0].claimed_physical = shared->row[i][0].claimed_used = MIB(40);
		__atomic_store_n(&shared->owner[i], owner, __ATOMIC_SEQ_CST);
	}
	answer = ask(&one, 't', MIB(30));
	CHECK(!answer.result); /* they may be granted any moment */
	CHECK(answer.ns < BOUND_NS);
	CHECK_EQ(shared->row[0][0].held_physical, 0);
	CHECK_EQ(shared->row[0][0].claimed_physical | shared->row[0][0].claimed_used, 0);
	for (int i = 1; i < (int)EMUV_SHARED_SLOTS; i++)
		shared->row[i][0].claimed_physical = shared->row[i][0].claimed_used = 0;
	CHECK(ask(&one, 't', VRAM).result);
	end(&one);
	CHECK_EQ(munmap(shared, sizeof *shared), 0);
}

/* ---- the file ---- */

/* By somebody's hand: who has a part in it goes on as before; see docs/limits.md. */
static void removed(enum step at)
{
	process_t one, two;
	const char *run_id = begin(0);

	one = spawn(at, SIGSTOP, tell_stop);
	two = spawn(STEP_NONE, 0, NULL);
	ask(&one, 'j', 0);
	ask(&two, 'j', 0);
	order(&one, 't', MIB(40));
	CHECK_EQ(answer_or_stop(&one).result, STOPPING);
	CHECK_EQ(unlink(path_of(run_id)), 0);
	CHECK(!ask(&two, 't', VRAM + 1).result);
	CHECK(go_on(&one).result);
	CHECK(!ask(&two, 't', MIB(25)).result);
	CHECK(ask(&two, 't', MIB(24)).result);
	CHECK_EQ(access(path_of(run_id), F_OK), -1);
	end(&one);
	end(&two);
}

int main(void)
{
	uint64_t random = 7;

	alarm(55);
	emuv_message_quiet(1);
	for (enum step at = STEP_CLAIM_HALF; at <= STEP_GRANT_DONE; at++) {
		for (enum step then = STEP_CLAIM_HALF; then <= STEP_WITHDRAWN; then++)
			for (int low = 0; low < 2; low++)
				two_stopped(at, then, low, (at + then) & 1, &random);
		lowered(at);
		forked_at(at);
	}
	half_written();
	everybody_claims();
	removed(STEP_CLAIM_PUBLISHED);
	removed(STEP_GRANT_HALF);
	return 0;
}
