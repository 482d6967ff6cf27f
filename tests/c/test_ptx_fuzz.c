// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/sim/ptx/*.c
// sanitize: address
/*
 * PTX that nobody wrote: texts of tests/ptx, mutated, parsed, linked and translated.
 * The answer is a module or a message of one line, soon, whatever comes.
 *
 * FUZZ_SECONDS (4) is how long; FUZZ_SEED (1) repeats a run.  A text that breaks
 * something is written to fuzz-last.ptx of the working directory beforehand.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "ptx/ptx.h"

#define TEXTS 32
#define LONGEST ((size_t)1 << 20)
#define SLOWEST_S 10.0

static char *texts[TEXTS];
static unsigned int text_count;
static uint64_t state;

static uint64_t chance(uint64_t limit)
{
	return limit ? random_below(&state, limit) : 0;
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void read_texts(void)
{
	char folder[4096], path[8192], *slash;
	struct dirent *entry;
	DIR *all;

	snprintf(folder, sizeof(folder), "%s", __FILE__);
	slash = strrchr(folder, '/');
	snprintf(slash, sizeof(folder) - (size_t)(slash - folder), "/../ptx");
	all = opendir(folder);
	CHECK(all != NULL);
	while ((entry = readdir(all)) && text_count < TEXTS) {
		size_t length;
		FILE *file;

		if (!strstr(entry->d_name, ".ptx"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		file = fopen(path, "r");
		CHECK(file != NULL);
		texts[text_count] = calloc(1, LONGEST + 1);
		length = fread(texts[text_count], 1, LONGEST, file);
		CHECK(length > 100 && length < LONGEST);
		text_count++;
		fclose(file);
	}
	closedir(all);
	CHECK(text_count >= 5);
}

/* Parsed, linked and translated; counts how far it came. */
static void try_texts(char *const *tried, unsigned int count, unsigned int reached[4])
{
	ptx_module_t *modules[3] = { NULL }, *linked = NULL;
	char why[PTX_WHY_BYTES];
	ptx_status_t status = PTX_OK;
	unsigned int parsed = 0;

	reached[0]++;
	while (parsed < count && status == PTX_OK) {
		status = ptx_parse(tried[parsed], &modules[parsed], why);
		parsed += status == PTX_OK;
	}
	if (status == PTX_OK) {
		reached[1]++;
		status = ptx_link(modules, count, &linked, why);
	} else {
		for (unsigned int i = 0; i < parsed; i++)
			ptx_module_drop(modules[i]);
	}
	if (status != PTX_OK) {
		CHECK(*why && !strchr(why, '\n'));
		return;
	}
	reached[2]++;
	for (ptx_function_t *one = linked->functions; one; one = one->next) {
		ptx_code_t code;

		if (!one->entry)
			continue;
		status = ptx_translate(linked, one, &code, why);
		CHECK((status == PTX_OK) == (code.c_text != NULL));
		CHECK(status == PTX_OK || *why);
		reached[3] += status == PTX_OK;
		if (status == PTX_OK)
			ptx_code_drop(&code);
	}
	ptx_module_drop(linked);
}

static bool word(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '_' || c == '%' || c == '$';
}

/* A token of a text: where it starts, how long it is. */
static size_t pick_token(const char *text, size_t length, size_t *bytes)
{
	size_t at = chance(length), end;

	while (at > 0 && word(text[at - 1]))
		at--;
	for (end = at + 1; end < length && word(text[at]) && word(text[end]);)
		end++;
	*bytes = end - at;
	return at;
}

static void replace(char *text, size_t *length, size_t at, size_t bytes, const char *with,
		    size_t with_bytes)
{
	if (*length - bytes + with_bytes >= LONGEST || at + bytes > *length)
		return;
	memmove(text + at + with_bytes, text + at + bytes, *length - at - bytes + 1);
	memcpy(text + at, with, with_bytes);
	*length += with_bytes - bytes;
}

static void mutate(char *text, size_t *length)
{
	static const char *const words[] = {
		"0", "-1", "1", "0xffffffffffffffff", "18446744073709551616", "99999999", "{", "}",
		"(", ")", "[", "]", ";", ",", ":", ".", "%", "@", "!", "|", "\"", "/*", "//", "<", ">",
		"_", ".b8", ".v4", ".reg", ".param", ".local", ".shared", ".global", ".align 1048576",
		"[]", "<4000000000>", "ret;", "exit;", "bra A;", "{ .reg .b32 %r<9>;", "mov.u64", "call",
		"%tid", "%tid.x", ".extern", ".visible .func", "= {", ".entry e() {}", "0f7fc00000",
		"[1073741824]", "\\", "\x80", "0d", ".f32", ".pred", "@%p0", "1e999999",
	};
	const char *other = texts[chance(text_count)];
	size_t bytes, from_bytes, at, from;

	at = pick_token(text, *length, &bytes);
	switch (chance(8)) {
	case 0: /* gone */
		replace(text, length, at, bytes, "", 0);
		break;
	case 1: /* something else */
		other = words[chance(sizeof(words) / sizeof(*words))];
		replace(text, length, at, chance(2) ? bytes : 0, other, strlen(other));
		break;
	case 2: /* what stands elsewhere */
		from = pick_token(other, strlen(other), &from_bytes);
		replace(text, length, at, bytes, other + from, from_bytes);
		break;
	case 3: /* a piece of another text */
		from = chance(strlen(other));
		from_bytes = chance(400);
		if (from + from_bytes > strlen(other))
			from_bytes = strlen(other) - from;
		replace(text, length, at, chance(2) ? 0 : bytes, other + from, from_bytes);
		break;
	case 4: /* a piece less */
		bytes = chance(300);
		if (at + bytes < *length)
			replace(text, length, at, bytes, "", 0);
		break;
	case 5: /* a piece again, some times */
		bytes = chance(60);
		for (uint64_t i = chance(40); i && at + bytes < *length; i--) {
			char copy[64];

			memcpy(copy, text + at, bytes);
			replace(text, length, at, 0, copy, bytes);
		}
		break;
	case 6: /* one byte */
		text[at] = (char)(1 + chance(255));
		break;
	default: /* the end */
		if (chance(20) == 0) {
			*length = at + 1;
			text[*length] = '\0';
		}
		break;
	}
}

int main(void)
{
	const char *seconds = getenv("FUZZ_SECONDS"), *seed = getenv("FUZZ_SEED");
	double limit = now() + (seconds ? atof(seconds) : 4), slowest = 0;
	unsigned int reached[4] = { 0 };
	char *tried[3];

	state = (seed ? strtoull(seed, NULL, 0) : 1) * 0x9e3779b97f4a7c15u + 1;
	read_texts();
	for (int i = 0; i < 3; i++)
		tried[i] = calloc(1, LONGEST + 1);
	for (unsigned int i = 0; i < text_count; i++)
		try_texts(&texts[i], 1, reached);
	CHECK(reached[2] == text_count && reached[3] >= text_count);
	while (now() < limit) {
		unsigned int count = chance(4) ? 1 : 1 + (unsigned int)chance(3);
		double start;

		for (unsigned int i = 0; i < count; i++) {
			size_t length;

			strcpy(tried[i], texts[chance(text_count)]);
			length = strlen(tried[i]);
			for (uint64_t j = 1 + chance(chance(2) ? 2 : 6); j && length > 10; j--)
				mutate(tried[i], &length);
		}
		if (seed || seconds) { /* a long run: what breaks is wanted */
			FILE *file = fopen("fuzz-last.ptx", "w");

			for (unsigned int i = 0; file && i < count; i++)
				fprintf(file, "%s\n", tried[i]);
			if (file)
				fclose(file);
		}
		start = now();
		try_texts(tried, count, reached);
		if (now() - start > slowest)
			slowest = now() - start;
		CHECK(slowest < SLOWEST_S);
	}
	printf("%u texts: %u parsed, %u linked, %u kernels translated; slowest %.2f s\n", reached[0],
	       reached[1], reached[2], reached[3], slowest);
	CHECK(reached[0] > 50);
	for (int i = 0; i < 3; i++)
		free(tried[i]);
	for (unsigned int i = 0; i < text_count; i++)
		free(texts[i]);
	return 0;
}
