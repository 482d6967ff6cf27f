/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SIGSEGV and SIGBUS while a kernel runs: an address of the arena without memory behind
 * it, or a stack that is used up.
 *
 * The handler acts only on a thread that is executing generated code (sim_core_here, and
 * core->entered), there only on the first fault, and only on an address that a kernel
 * can get at; every other one goes to the handler that was there before, as if this one
 * were not.  It does nothing but note what it saw
 * and make the thread go on in `land`, on the stack that the kernel will not need again.
 *
 * A program may put its own handler in front at any time: it is looked for before each
 * launch, and takes the place of the one that was there before.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine.h"
#include "internal.h"

#define ALTERNATE_BYTES ((size_t)64 << 10)
#define SIGNALS 2

static const int signals[SIGNALS] = { SIGSEGV, SIGBUS };
static struct sigaction before[SIGNALS];
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- what happens to a fault ---- */

/* On the stack of the kernel that is over. */
static void land(sim_core_t *core)
{
	emuv_thread_t *thread = core->current ? &core->current->thread : &core->thread;

	sim_core_clear_stacks(core); /* the frames below are nobody's */
	if (core->fault_stack)
		sim_trap(thread, EMUV_TRAP_STACK, "its stack is used up: calls are too deep");
	sim_trap_access(thread, core->fault_address, 0, core->fault_write);
}

static void *landing_stack(const sim_core_t *core)
{
	return core->current ? core->current->top : core->plain_stack + PLAIN_STACK_BYTES;
}

static void redirect(sim_core_t *core, ucontext_t *context)
{
#if defined(__x86_64__)
	greg_t *registers = context->uc_mcontext.gregs;

	core->fault_write = registers[REG_ERR] >> 1 & 1;
	registers[REG_RIP] = (greg_t)(uintptr_t)land;
	registers[REG_RDI] = (greg_t)(uintptr_t)core;
	/* As behind a call. */
	registers[REG_RSP] = (greg_t)(uintptr_t)landing_stack(core) - 8;
	registers[REG_EFL] &= ~(greg_t)0x400; /* the direction flag */
#elif defined(__aarch64__)
	core->fault_write = -1;
	context->uc_mcontext.pc = (uintptr_t)land;
	context->uc_mcontext.regs[0] = (uintptr_t)core;
	context->uc_mcontext.sp = (uintptr_t)landing_stack(core);
#endif
}

static void on_fault(int number, siginfo_t *info, void *context);

static bool is_mine(const struct sigaction *action)
{
	return action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_fault;
}

/* As if this handler were not there: the one before is the signal's while it runs. */
static void chain(int number, siginfo_t *info, void *context)
{
	struct sigaction theirs = before[number == SIGBUS], mine, now;

	sigaction(number, &theirs, &mine);
	if (!(theirs.sa_flags & SA_SIGINFO) &&
	    (theirs.sa_handler == SIG_DFL || theirs.sa_handler == SIG_IGN)) {
		signal(number, SIG_DFL);
		if (info->si_code <= 0)
			raise(number);
		return; /* else the instruction faults again */
	}
	if (theirs.sa_flags & SA_SIGINFO)
		theirs.sa_sigaction(number, info, context);
	else
		theirs.sa_handler(number);
	/*
	 * It put back what was before it: it has given up.  If that is this one, nobody would
	 * ever take the signal, in a circle; if it is another one, it stays.
	 */
	if (sigaction(number, NULL, &now) != 0)
		return;
	if (is_mine(&now))
		signal(number, SIG_DFL);
	else if (now.sa_sigaction == theirs.sa_sigaction)
		sigaction(number, &mine, NULL);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	sim_core_t *core = sim_core_here;
	uint64_t address = (uint64_t)(uintptr_t)info->si_addr;
	bool stack;

	/* si_code <= 0: sent by somebody. */
	if (!core || !core->entered || info->si_code <= 0 ||
	    (!(stack = sim_core_guards(core, address)) && !sim_arena_holds((uintptr_t)address))) {
		chain(number, info, context);
		return;
	}
	core->entered = false; /* a second one, in `land`, is the simulator's own */
	core->fault_address = address;
	core->fault_stack = stack;
	redirect(core, context);
}

/* ---- being there ---- */

static void arm(void)
{
	struct sigaction mine = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&mine.sa_mask);
	for (int i = 0; i < SIGNALS; i++) {
		struct sigaction now;

		if (sigaction(signals[i], NULL, &now) != 0 || is_mine(&now))
			continue;
		pthread_mutex_lock(&fault_lock);
		before[i] = now;
		sigaction(signals[i], &mine, NULL);
		pthread_mutex_unlock(&fault_lock);
	}
}

static pthread_key_t alternate_key;
static _Thread_local bool alternate_there;

static void drop_alternate(void *stack)
{
	stack_t off = { .ss_flags = SS_DISABLE }, now;

	if (sigaltstack(NULL, &now) == 0 && now.ss_sp == stack)
		sigaltstack(&off, NULL);
	munmap(stack, ALTERNATE_BYTES);
}

static void make_key(void)
{
	pthread_key_create(&alternate_key, drop_alternate);
}

/* The thread gets a stack for signals, if it has none: the kernel's may be what is used up. */
static void alternate(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	stack_t now, mine = { .ss_size = ALTERNATE_BYTES };

	if (alternate_there)
		return;
	alternate_there = true;
	pthread_once(&once, make_key);
	if (sigaltstack(NULL, &now) != 0 || !(now.ss_flags & SS_DISABLE))
		return;
	mine.ss_sp = mmap(NULL, ALTERNATE_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mine.ss_sp == MAP_FAILED)
		return;
	if (sigaltstack(&mine, NULL) == 0)
		pthread_setspecific(alternate_key, mine.ss_sp);
	else
		munmap(mine.ss_sp, ALTERNATE_BYTES);
}

void sim_fault_enter(sim_core_t *core)
{
	sigset_t both;

	arm();
	alternate();
	/* A fault whose signal is blocked ends the process. */
	sigemptyset(&both);
	for (int i = 0; i < SIGNALS; i++)
		sigaddset(&both, signals[i]);
	pthread_sigmask(SIG_UNBLOCK, &both, &core->signals_before);
	sim_core_here = core;
	core->entered = true;
}

void sim_fault_leave(sim_core_t *core)
{
	core->entered = false;
	sim_core_here = NULL;
	pthread_sigmask(SIG_SETMASK, &core->signals_before, NULL);
}
