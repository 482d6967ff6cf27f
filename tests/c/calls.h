/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Driver calls by name, in a library that is opened: every argument is a word, as in
 * registers.  CALL ends the program where the driver refuses; ATTEMPT answers the code.
 */
#ifndef EMUV_TEST_CALLS_H
#define EMUV_TEST_CALLS_H

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef uint64_t word_t;

static void *library;

static int attempt(const char *name, word_t a, word_t b, word_t c, word_t d, word_t e, word_t f)
{
	int (*entry)(word_t, word_t, word_t, word_t, word_t, word_t) =
		(int (*)(word_t, word_t, word_t, word_t, word_t, word_t))dlsym(library, name);

	return entry ? entry(a, b, c, d, e, f) : -1;
}

static inline void call(const char *name, word_t a, word_t b, word_t c, word_t d, word_t e, word_t f)
{
	int code = attempt(name, a, b, c, d, e, f);

	if (!code)
		return;
	fprintf(stderr, "%s: %d\n", name, code);
	exit(1);
}

#define WORDS_(to, name, a, b, c, d, e, f, ...) \
	to(name, (word_t)(a), (word_t)(b), (word_t)(c), (word_t)(d), (word_t)(e), (word_t)(f))
#define CALL(...) WORDS_(call, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define ATTEMPT(...) WORDS_(attempt, __VA_ARGS__, 0, 0, 0, 0, 0, 0)

static inline void expect(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "wrong: %s\n", what);
	exit(1);
}

#endif
