/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every call goes through: counters, injected faults, cuInit, fork.
 *
 * Invariants
 *   - The common path is sim_enter() in sim.h: one relaxed increment, one relaxed
 *     load.  sim_slow counts the reasons to look closer: not initialised (1 until
 *     cuInit succeeds), each armed fault, each host callback that is running, and
 *     FORKED in a child of an initialised process.
 *   - Every function has its counter in sim_calls[], simulated or not: nothing
 *     registers at run time.
 *   - A child of a process that called cuInit gets CUDA_ERROR_NOT_INITIALIZED from
 *     everything, cuInit included, as from NVIDIA's driver; before cuInit a fork
 *     changes nothing.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "kernel/kernel.h"
#include "one_line.h"
#include "stats.h"

#define FORKED (1 << 20)

pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
_Atomic int sim_slow = 1;
_Thread_local bool sim_in_callback;

static bool initialised, forked;
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault {
	struct fault *next;
	sim_call_t *call;
	uint64_t number;
	CUresult code;
} *faults;

void sim_lock_take(void)
{
	pthread_mutex_lock(&sim_lock);
}

void sim_lock_drop(void)
{
	pthread_mutex_unlock(&sim_lock);
	if (sim_print_due)
		sim_print_flush();
}

/* One write(2), so that lines of several threads stay whole.  No stdio: it may be closed. */
static void say(const char *format, va_list arguments)
{
	char line[512] = "emuv-sim: ";
	size_t used = strlen(line);
	int more = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);

	if (more > 0)
		used += (size_t)more < sizeof(line) - used - 1 ? (size_t)more
							       : sizeof(line) - used - 2;
	emuv_one_line(line, used);
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}

void sim_say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
}

CUresult sim_fail(CUresult code, const char *format, ...)
{
	va_list arguments;

	if (!sim_config.verbose)
		return code;
	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
	return code;
}

sim_call_t *sim_call_find(const char *name)
{
	for (int i = 0; i < SIM_CALLS; i++)
		if (sim_calls[i].name && strcmp(sim_calls[i].name, name) == 0)
			return &sim_calls[i];
	return NULL;
}

/* Takes back what was armed for a call and has not struck. */
static void fault_disarm(sim_call_t *call)
{
	struct fault **at = &faults;

	pthread_mutex_lock(&fault_lock);
	while (*at) {
		struct fault *fault = *at;

		if (fault->call != call) {
			at = &fault->next;
			continue;
		}
		*at = fault->next;
		free(fault);
		call->faults--;
		sim_slow--;
	}
	pthread_mutex_unlock(&fault_lock);
}

CUresult sim_fault_arm(const char *name, uint64_t n, bool from_now, CUresult code)
{
	sim_call_t *call = sim_call_find(name);
	uint64_t so_far;
	struct fault *fault;

	if (!call)
		return CUDA_ERROR_NOT_FOUND;
	if (n == 0 && from_now) {
		fault_disarm(call);
		return CUDA_SUCCESS;
	}
	if (n == 0 || code == CUDA_SUCCESS)
		return CUDA_ERROR_INVALID_VALUE;
	fault = malloc(sizeof(*fault));
	if (!fault)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&fault_lock);
	so_far = from_now ? atomic_load_explicit(&call->count, memory_order_relaxed) : 0;
	*fault = (struct fault){ faults, call, so_far + n, code };
	faults = fault;
	call->faults++;
	sim_slow++;
	pthread_mutex_unlock(&fault_lock);
	return CUDA_SUCCESS;
}

static CUresult fault_strike(sim_call_t *call, uint64_t number)
{
	CUresult code = CUDA_SUCCESS;

	pthread_mutex_lock(&fault_lock);
	for (struct fault **at = &faults; *at; at = &(*at)->next) {
		struct fault *fault = *at;

		if (fault->call != call || fault->number != number)
			continue;
		code = fault->code;
		*at = fault->next;
		free(fault);
		call->faults--;
		sim_slow--;
		break;
	}
	pthread_mutex_unlock(&fault_lock);
	return code;
}

static void before_fork(void)
{
	pthread_mutex_lock(&sim_lock);
	pthread_mutex_lock(&fault_lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&fault_lock);
	pthread_mutex_unlock(&sim_lock);
}

static void after_fork_child(void)
{
	if (initialised && !forked) {
		forked = true;
		sim_slow += FORKED;
	}
	after_fork_parent();
}

static void configure(void)
{
	sim_configure();
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

CUresult sim_enter_slow(sim_call_t *call, uint64_t number, bool need_init)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, configure);
	if (atomic_load_explicit(&call->faults, memory_order_relaxed)) {
		CUresult code = fault_strike(call, number);

		if (code != CUDA_SUCCESS)
			return sim_fail(code, "%s: call %llu fails with %d, as asked for",
					call->name, (unsigned long long)number, code);
	}
	if (!need_init)
		return CUDA_SUCCESS;
	if (sim_in_callback)
		return sim_fail(CUDA_ERROR_NOT_PERMITTED,
				"%s: a host function must not call CUDA", call->name);
	if (forked)
		return sim_fail(CUDA_ERROR_NOT_INITIALIZED,
				"%s: this process was forked after cuInit", call->name);
	if (!__atomic_load_n(&initialised, __ATOMIC_ACQUIRE))
		return sim_fail(CUDA_ERROR_NOT_INITIALIZED, "%s: before cuInit", call->name);
	return CUDA_SUCCESS;
}

/* The process ends, or the library is closed. */
__attribute__((destructor)) static void leave(void)
{
	sim_executor_end();
	if (!sim_forked()) /* the parent's text, and perhaps its lock */
		sim_print_flush();
	sim_report_write();
	sim_stats_write();
	sim_threads_forget();
}

bool sim_forked(void)
{
	return forked;
}

SIM_API(cuInit, unsigned int flags)
{
	CUresult result = CUDA_SUCCESS;

	SIM_ENTER_EARLY(cuInit);
	if (flags)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuInit: flags are %u, not 0", flags);
	if (forked)
		return sim_fail(CUDA_ERROR_NOT_INITIALIZED,
				"cuInit: this process was forked after cuInit");
	if (__atomic_load_n(&initialised, __ATOMIC_ACQUIRE))
		return CUDA_SUCCESS;
	sim_lock_take();
	if (!initialised) {
		sim_executor_init();
		result = sim_devices_init();
		if (result == CUDA_SUCCESS) {
			__atomic_store_n(&initialised, true, __ATOMIC_RELEASE);
			sim_slow--;
		}
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuDriverGetVersion, int *version)
{
	SIM_ENTER_EARLY(cuDriverGetVersion);
	if (!version)
		return CUDA_ERROR_INVALID_VALUE;
	*version = SIM_DRIVER_VERSION;
	return CUDA_SUCCESS;
}
