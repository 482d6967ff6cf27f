/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every symbol that libcudart exports, counters of their calls, and the report.
 *
 * Each row of runtime_api.def gets a weak function here that counts the call and
 * answers cudaErrorNotSupported; where the stand-in does the thing, the strong
 * definition of the same name replaces it at link time.
 *
 * EMUV_SIM_CUDART_REPORT=FILE: a JSON report at exit, of a process that called this
 * library at all (%p becomes the process id, %v 12 or 13).
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../beside.h"
#include "cudart.h"
#include "one_line.h"

#define IF_0(...)
#define IF_1(...) __VA_ARGS__
#define HAS(in, ...) IF_##in(__VA_ARGS__)
#if RT_MAJOR == 12
#define ROW(in_12, in_13, ...) HAS(in_12, __VA_ARGS__)
#else
#define ROW(in_12, in_13, ...) HAS(in_13, __VA_ARGS__)
#endif

typedef struct {
	const char *name; /* NULL: not of this version */
	_Atomic uint64_t count;
} call_t;
static call_t calls[RT_CALLS] = {
#define EMUV_RUNTIME(name, in_12, in_13) ROW(in_12, in_13, [RT_CALL_##name] = { #name, 0 }, )
#include "runtime_api.def"
#undef EMUV_RUNTIME
};

void rt_count(int call)
{
	atomic_fetch_add_explicit(&calls[call].count, 1, memory_order_relaxed);
}

cudaError_t rt_fail(cudaError_t code, const char *format, ...)
{
	const char *verbose = secure_getenv("EMUV_SIM_VERBOSE");
	char line[512] = "emuv-sim: cudart: ";
	size_t used = strlen(line);
	va_list arguments;
	int more;

	if (!verbose || strcmp(verbose, "1") != 0)
		return code;
	va_start(arguments, format);
	more = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
	va_end(arguments);
	if (more > 0)
		used += (size_t)more < sizeof(line) - used - 1 ? (size_t)more
							       : sizeof(line) - used - 2;
	emuv_one_line(line, used);
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0)
		return code;
	return code;
}

static cudaError_t stub(int call)
{
	rt_count(call);
	return rt_end(rt_fail(CUDA_ERROR_NOT_SUPPORTED, "%s is not simulated", calls[call].name));
}

/* Arguments are ignored, whatever they are: both calling conventions allow that. */
#define EMUV_RUNTIME(name, in_12, in_13)                                              \
	ROW(in_12, in_13, static cudaError_t stub_##name(void)                        \
	    {                                                                         \
		    return stub(RT_CALL_##name);                                      \
	    }                                                                         \
	    __attribute__((weak, visibility("default"), alias("stub_" #name)))        \
	    cudaError_t name(void);)
#include "runtime_api.def"
#undef EMUV_RUNTIME

typedef cudaError_t (*function_t)(void);
static const struct {
	function_t address, stub;
} exports[RT_CALLS] = {
#define EMUV_RUNTIME(name, in_12, in_13) \
	ROW(in_12, in_13, [RT_CALL_##name] = { name, stub_##name }, )
#include "runtime_api.def"
#undef EMUV_RUNTIME
};

static void list(FILE *file, const char *title, bool simulated)
{
	const char *separator = "";

	fprintf(file, "  \"%s\": {", title);
	for (int i = 0; i < RT_CALLS; i++) {
		if (!calls[i].count || simulated != (exports[i].address != exports[i].stub))
			continue;
		fprintf(file, "%s\n    \"%s\": %llu", separator, calls[i].name,
			(unsigned long long)calls[i].count);
		separator = ",";
	}
	fprintf(file, "%s}", *separator ? "\n  " : "");
}

/* `pattern` with %p and %v filled in; false: too long. */
static bool report_path(const char *pattern, char *path, size_t bytes)
{
	size_t used = 0;

	for (const char *at = pattern; *at; at++) {
		int more;

		if (at[0] == '%' && (at[1] == 'p' || at[1] == 'v')) {
			more = snprintf(path + used, bytes - used, "%d",
					*++at == 'p' ? (int)getpid() : RT_MAJOR);
		} else {
			more = snprintf(path + used, bytes - used, "%c", *at);
		}
		if (more < 0 || (size_t)more >= bytes - used)
			return false;
		used += (size_t)more;
	}
	return used > 0;
}

__attribute__((destructor)) static void report(void)
{
	const char *pattern = secure_getenv("EMUV_SIM_CUDART_REPORT");
	char path[1024], beside[1040];
	bool called = false;
	FILE *file;

	for (int i = 0; i < RT_CALLS; i++)
		called |= calls[i].count != 0;
	if (!pattern || !called || !report_path(pattern, path, sizeof(path)))
		return;
	file = beside_open(path, beside, sizeof(beside));
	if (!file)
		return;
	fprintf(file, "{\n  \"version\": 1,\n  \"pid\": %d,\n  \"runtime_version\": %d,\n",
		(int)getpid(), RT_VERSION);
	list(file, "calls", true);
	fprintf(file, ",\n");
	list(file, "unimplemented", false);
	fprintf(file, "\n}\n");
	beside_close(file, path, beside);
}
