// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/sim/ptx/*.c
// sanitize: address
/*
 * PTX texts that are large in one way each: the time that they take grows with them,
 * and no faster.  (Texts that are wrong in any way: tests/fuzz/fuzz_ptx.c.)
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "ptx/ptx.h"

#define SLOWEST_S 10.0

/* What this process took: the machine may be busy with something else. */
static double taken(void)
{
	struct timespec at;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* Whether it is PTX at all, and whether a kernel of it could be translated. */
static bool try_text(const char *text, bool *translated)
{
	ptx_module_t *module = NULL, *linked = NULL;
	char why[PTX_WHY_BYTES];

	*translated = false;
	if (ptx_parse(text, &module, why) != PTX_OK || ptx_link(&module, 1, &linked, why) != PTX_OK) {
		CHECK(*why && !strchr(why, '\n'));
		return module != NULL;
	}
	for (ptx_function_t *one = linked->functions; one; one = one->next) {
		ptx_code_t code;

		if (one->entry && ptx_translate(linked, one, &code, why) == PTX_OK) {
			*translated = true;
			ptx_code_drop(&code);
		}
	}
	ptx_module_drop(linked);
	return true;
}

#define HEAD ".version 8.0\n.target sm_80\n.address_size 64\n"
#define KERNEL                                                                        \
	".entry k(.param .u64 a) { .reg .b32 %%r<9999999>; .reg .b64 %%d<9>;"          \
	" .reg .pred %%p<9>;\n"

static char *large;
static size_t large_used;

static void add(const char *format, unsigned int number)
{
	large_used += (size_t)snprintf(large + large_used, 200, format, number, number + 1,
				       (number * 7919) % 5000, number / 2);
}

static void try_large(const char *what, const char *first, const char *each, unsigned int times,
		      const char *last)
{
	double start = taken();
	bool parsed, translated;

	large = malloc((size_t)times * 200 + 10000);
	large_used = 0;
	add(HEAD, 0);
	add(first, 0);
	for (unsigned int i = 0; i < times; i++)
		add(each, i);
	add(last, times);
	parsed = try_text(large, &translated);
	printf("%s: %.1f s%s\n", what, taken() - start, translated ? "" : ", refused");
	fflush(stdout);
	CHECK(taken() - start < SLOWEST_S);
	CHECK(parsed);
	free(large);
}

int main(void)
{
	try_large("a maze of branches", KERNEL,
		  "L%1$u: setp.eq.u32 %%p0, %%r0, %1$u; @%%p0 bra L%3$u;\n", 5000, "} ");
	try_large("a maze with atomics and barriers", KERNEL,
		  "L%1$u: atom.global.add.u32 %%r%1$u, [%%d0], 1; setp.eq.u32 %%p0, %%r%4$u, %1$u;"
		  "@%%p0 bra L%3$u; bar.sync 0;\n", 5000, "} ");
	try_large("loops within loops", KERNEL,
		  "L%1$u: ld.volatile.global.u32 %%r%1$u, [%%d0]; setp.eq.u32 %%p0, %%r%1$u, 5; "
		  "@%%p0 bra L0;\n", 4000, "} ");
	try_large("many registers over barriers", KERNEL,
		  "add.u32 %%r%1$u, %%r%4$u, 1; bar.sync 0;\n", 5000, "} ");
	try_large("a chain of functions", ".func f0() { ret; }\n", ".func f%2$u() { call f%1$u; ret; }\n",
		  5000, KERNEL "call f%1$u; } ");
	try_large("functions through pointers", ".global .u64 t;\n",
		  ".func f%1$u(); .global .u64 t%1$u = f%1$u;"
		  ".func f%1$u() { .reg .u64 %%a; p: .callprototype _ (); ld.global.u64 %%a, [t];"
		  "call %%a, p; call %%a, p; call %%a, p; }\n", 1000, KERNEL
		  "call f0; } ");
	try_large("a table of branches", KERNEL "t: .branchtargets A", ", A", 5000,
		  "; brx.idx %%r0, t; A: } ");
	try_large("a wide initial value", ".global .u32 t[] = {0", ", 1", 50000, "};\n" KERNEL "} ");
	return 0;
}
