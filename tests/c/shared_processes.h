/* SPDX-License-Identifier: GPL-2.0-only */
/* Processes of a shared run that take orders, and stop or die at a step of theirs. */
#ifndef EMUV_TEST_SHARED_PROCESSES_H
#define EMUV_TEST_SHARED_PROCESSES_H

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared_run.h"
#include "shared_steps.h"

#define X(name) +1
_Static_assert(N_STEPS == 1 EMUV_STEPS(X), "the list of steps above is not EMUV_STEPS");
#undef X

static const char *const step_names[] = { "none",
#define X(name) #name,
	EMUV_STEPS(X)
#undef X
};

#define LIMIT_MS 20000

static enum step armed;
static int armed_signal;
static unsigned int rests;
static void (*aside)(enum step which); /* what else happens at a step */
static int own_string;                 /* where a process answers */

static void step(enum step which)
{
	if (which == STEP_RESTED)
		rests++;
	if (aside)
		aside(which);
	if (which == armed) {
		armed = STEP_NONE;
		kill(getpid(), armed_signal);
	}
}

/* ---- processes on strings ---- */

static bool is_join(enum step at)
{
	return at >= STEP_JOIN_HIGH && at <= STEP_JOIN_OWNED;
}

typedef struct {
	pid_t pid;
	int to, from;
} process_t;

typedef struct {
	uint64_t bytes;
	int result;
	unsigned int rests;
	uint64_t ns;
} answer_t;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Answers 't' (take), 'f' (free what was taken last), 'j' (join) till its string is cut. */
static void serve(enum step at, int in, int out)
{
	struct { char what; uint64_t bytes; } order;

	while (read(in, &order, sizeof order) == sizeof order) {
		uint64_t start = now_ns();
		answer_t answer = { .bytes = order.bytes, .result = 1 };

		if (is_join(at) == (order.what == 'j')) {
			armed = at;
			at = STEP_NONE; /* once */
		}
		if (order.what == 'j')
			join_run();
		else if (order.what == 't')
			rests = 0, answer.result = take(order.bytes);
		else
			give(next_key -= 4096);
		answer.rests = rests;
		answer.ns = now_ns() - start;
		if (write(out, &answer, sizeof answer) != sizeof answer)
			_exit(3);
	}
	_exit(0);
}

static process_t spawn(enum step at, int with, void (*also)(enum step))
{
	int down[2], up[2];
	process_t process;

	CHECK_EQ(pipe(down), 0);
	CHECK_EQ(pipe(up), 0);
	process = (process_t){ fork(), down[1], up[0] };
	CHECK(process.pid >= 0);
	if (process.pid == 0) {
		alarm(40);
		close(down[1]);
		close(up[0]);
		armed_signal = with;
		aside = also;
		own_string = up[1];
		serve(at, down[0], up[1]);
	}
	close(down[0]);
	close(up[1]);
	return process;
}

static void order(const process_t *process, char what, uint64_t bytes)
{
	struct { char what; uint64_t bytes; } order_ = { 0 };

	order_.what = what;
	order_.bytes = bytes;
	/* One that was killed takes no more orders. */
	signal(SIGPIPE, SIG_IGN);
	(void)!write(process->to, &order_, sizeof order_);
}

/* False: it has ended. */
static bool answered(const process_t *process, answer_t *answer)
{
	struct pollfd ready = { .fd = process->from, .events = POLLIN };

	CHECK_EQ(poll(&ready, 1, LIMIT_MS), 1);
	return read(process->from, answer, sizeof *answer) == sizeof *answer;
}

static answer_t ask(const process_t *process, char what, uint64_t bytes)
{
	answer_t answer = { 0 };

	order(process, what, bytes);
	CHECK(answered(process, &answer));
	return answer;
}

static void end(process_t *process)
{
	close(process->to);
	close(process->from);
	kill(process->pid, SIGKILL);
	waitpid(process->pid, NULL, 0);
}

#endif
