/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a reader of strangers' bytes is fuzzed through: one function, which clang's
 * libFuzzer drives as well as our own driver.c.  It takes any bytes, checks what must
 * hold of the answer (CHECK ends the run), keeps nothing, and is soon done.
 */
#ifndef EMUV_FUZZ_H
#define EMUV_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Words that driver.c puts into inputs; the last is NULL. */
extern const char *const fuzz_words[];

/* abort: both drivers then keep the input. */
#define CHECK(condition)                                                             \
	do {                                                                         \
		if (!(condition)) {                                                  \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__,   \
				#condition);                                         \
			abort();                                                     \
		}                                                                    \
	} while (0)

#endif
