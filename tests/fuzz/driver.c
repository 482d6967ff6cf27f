// SPDX-License-Identifier: GPL-2.0-only
/*
 * Drives a harness (fuzz.h) where there is no libFuzzer:
 *
 *     program CORPUS…      each file of the folders as it is, then changes of them
 *
 * FUZZ_SECONDS (2) is how long, FUZZ_SEED (1) repeats a run.  The input at work is
 * in the file fuzz-input of the working directory, whatever ends the program.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../c/check.h"
#undef CHECK
#include "fuzz.h"

#define INPUTS 256
#define LONGEST ((size_t)1 << 18)
#define SLOWEST_S 10.0

typedef struct {
	uint8_t *data;
	size_t size;
} input_t;

/* `room` of the file: the size, then the bytes. */
typedef struct {
	uint64_t size;
	uint8_t data[LONGEST];
} kept_t;

static input_t inputs[INPUTS];
static size_t input_count;
static uint64_t state;
static kept_t *kept;

static size_t chance(size_t limit)
{
	return limit ? (size_t)random_below(&state, limit) : 0;
}

static double seconds(clockid_t which)
{
	struct timespec at;

	clock_gettime(which, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void read_folder(const char *folder)
{
	struct dirent **names;
	int count = scandir(folder, &names, NULL, alphasort); /* the same order everywhere */

	CHECK(count >= 0);
	for (int i = 0; i < count; i++) {
		char path[8192];
		FILE *file;

		snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
		if (names[i]->d_name[0] != '.' && input_count < INPUTS) {
			input_t *input = &inputs[input_count++];

			file = fopen(path, "r");
			CHECK(file != NULL);
			input->data = malloc(LONGEST);
			input->size = fread(input->data, 1, LONGEST, file);
			fclose(file);
		}
		free(names[i]);
	}
	free(names);
}

static bool letter(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '_' || c == '%' || c == '$';
}

/* Where a word of the input begins, or some other byte; how long it is. */
static size_t pick(const uint8_t *data, size_t size, size_t *bytes)
{
	size_t at = chance(size), end;

	while (at > 0 && letter(data[at - 1]) && letter(data[at]))
		at--;
	for (end = at + 1; end < size && letter(data[at]) && letter(data[end]);)
		end++;
	*bytes = end - at;
	return at;
}

static void put(size_t at, size_t bytes, const void *with, size_t with_bytes)
{
	if (at + bytes > kept->size || kept->size - bytes + with_bytes > LONGEST)
		return;
	memmove(kept->data + at + with_bytes, kept->data + at + bytes, kept->size - at - bytes);
	if (with_bytes)
		memcpy(kept->data + at, with, with_bytes);
	kept->size += with_bytes - bytes;
}

/* A number over what stands there, as wide as the machine's: a size, an offset, a count. */
static void put_number(size_t at)
{
	static const uint64_t numbers[] = {
		0, 1, 2, 7, 16, 63, 64, 255, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
		0x100000000, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX, UINT64_MAX - 7,
	};
	uint64_t number = numbers[chance(sizeof(numbers) / sizeof(*numbers))] + chance(2) - chance(2);
	size_t bytes = (size_t)1 << chance(4);

	at -= at % bytes;
	if (at + bytes <= kept->size)
		memcpy(kept->data + at, &number, bytes);
}

static void mutate(void)
{
	const input_t *other = &inputs[chance(input_count)];
	size_t words = 0, bytes, from_bytes, at, from;
	uint8_t copy[64];

	while (fuzz_words[words])
		words++;
	at = kept->size ? pick(kept->data, kept->size, &bytes) : (bytes = 0);
	switch (chance(9)) {
	case 0: /* a word less */
		put(at, bytes, NULL, 0);
		break;
	case 1: /* another word */
		if (words) {
			const char *word = fuzz_words[chance(words)];

			put(at, chance(2) ? bytes : 0, word, strlen(word));
		}
		break;
	case 2: /* what stands elsewhere */
		if (other->size) {
			from = pick(other->data, other->size, &from_bytes);
			put(at, bytes, other->data + from, from_bytes);
		}
		break;
	case 3: /* a piece of another input */
		from = chance(other->size);
		from_bytes = chance(other->size - from < 400 ? other->size - from : 400);
		put(at, chance(2) ? 0 : bytes, other->data + from, from_bytes);
		break;
	case 4: /* a piece less */
		put(at, chance(300), NULL, 0);
		break;
	case 5: /* a piece again, some times */
		bytes = chance(kept->size - at < 60 ? kept->size - at : 60);
		memcpy(copy, kept->data + at, bytes);
		for (size_t i = chance(40); i; i--)
			put(at, 0, copy, bytes);
		break;
	case 6: /* one byte, one bit */
		if (at < kept->size && chance(2))
			kept->data[at] = (uint8_t)chance(256);
		else if (at < kept->size)
			kept->data[at] ^= (uint8_t)(1u << chance(8));
		break;
	case 7:
		put_number(chance(kept->size));
		break;
	default: /* the end */
		if (chance(20) == 0)
			kept->size = at;
		break;
	}
}

/* In memory of its own, so that a byte too far is seen. */
static void try(double *slowest)
{
	double start = seconds(CLOCK_PROCESS_CPUTIME_ID), taken;
	uint8_t *data = malloc(kept->size ? kept->size : 1);

	memcpy(data, kept->data, kept->size);
	LLVMFuzzerTestOneInput(data, kept->size);
	free(data);
	taken = seconds(CLOCK_PROCESS_CPUTIME_ID) - start;
	if (taken > *slowest)
		*slowest = taken;
	CHECK(taken < SLOWEST_S);
}

int main(int argc, char **argv)
{
	const char *wish = getenv("FUZZ_SECONDS"), *seed = getenv("FUZZ_SEED");
	double limit = seconds(CLOCK_MONOTONIC) + (wish ? atof(wish) : 2), slowest = 0;
	int fd = open("fuzz-input", O_RDWR | O_CREAT | O_TRUNC, 0600);
	unsigned long tried = 0;

	state = (seed ? strtoull(seed, NULL, 0) : 1) * 0x9e3779b97f4a7c15u + 1;
	CHECK(fd >= 0 && ftruncate(fd, sizeof(*kept)) == 0);
	kept = mmap(NULL, sizeof(*kept), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(kept != MAP_FAILED);
	for (int i = 1; i < argc; i++)
		read_folder(argv[i]);
	CHECK(input_count > 0);
	for (size_t i = 0; i < input_count; i++, tried++) {
		kept->size = inputs[i].size;
		memcpy(kept->data, inputs[i].data, inputs[i].size);
		try(&slowest);
	}
	for (; seconds(CLOCK_MONOTONIC) < limit; tried++) {
		const input_t *input = &inputs[chance(input_count)];

		kept->size = input->size;
		memcpy(kept->data, input->data, input->size);
		for (size_t j = 1 + chance(chance(2) ? 2 : 6); j; j--)
			mutate();
		try(&slowest);
	}
	printf("%zu files, %lu inputs, slowest %.2f s\n", input_count, tried, slowest);
	for (size_t i = 0; i < input_count; i++)
		free(inputs[i].data);
	return 0;
}
