/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the C tests share: checks that say where and what, random numbers that are
 * the same in every run, and a limit on the whole program.
 */
#ifndef EMUV_TEST_CHECK_H
#define EMUV_TEST_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* _exit: a failed check must not be hidden behind a report of leaks. */
#define CHECK(condition)                                                             \
	do {                                                                         \
		if (!(condition)) {                                                  \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__,   \
				#condition);                                         \
			_exit(1);                                                    \
		}                                                                    \
	} while (0)

#define CHECK_EQ(got, wanted)                                                        \
	do {                                                                         \
		uint64_t got_ = (uint64_t)(got), wanted_ = (uint64_t)(wanted);       \
		if (got_ != wanted_) {                                               \
			fprintf(stderr, "%s:%d: %s is %llu, not %llu (%s)\n",        \
				__FILE__, __LINE__, #got, (unsigned long long)got_,  \
				(unsigned long long)wanted_, #wanted);               \
			_exit(1);                                                    \
		}                                                                    \
	} while (0)

#define MIB(n) ((uint64_t)(n) << 20)

/* xorshift64*: `state` is never 0. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return (random_next(state) >> 16) % limit;
}

#endif
