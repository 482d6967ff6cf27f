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

static double clock_s(clockid_t which)
{
	struct timespec at;

	clock_gettime(which, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static double now(void)
{
	return clock_s(CLOCK_MONOTONIC);
}

/* What this process took: the machine may be busy with something else. */
static double taken(void)
{
	return clock_s(CLOCK_PROCESS_CPUTIME_ID);
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

/* ---- large ones ---- */

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
	unsigned int reached[4] = { 0 };
	double start = taken();

	if (getenv("FUZZ_SECONDS")) /* somebody has time */
		times *= 4;
	large = malloc((size_t)times * 200 + 10000);
	large_used = 0;
	add(HEAD, 0);
	add(first, 0);
	for (unsigned int i = 0; i < times; i++)
		add(each, i);
	add(last, times);
	try_texts(&large, 1, reached);
	printf("%s: %.1f s%s\n", what, taken() - start, reached[3] ? "" : reached[1] ? ", refused"
									       : ", not parsed");
	fflush(stdout);
	CHECK(taken() - start < SLOWEST_S);
	CHECK(reached[1]);
	free(large);
}

static void try_large_texts(void)
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
}

int main(void)
{
	const char *seconds = getenv("FUZZ_SECONDS"), *seed = getenv("FUZZ_SEED");
	double began = now(), limit = began + (seconds ? atof(seconds) : 4), slowest = 0;
	unsigned int reached[4] = { 0 };
	char *tried[3];

	state = (seed ? strtoull(seed, NULL, 0) : 1) * 0x9e3779b97f4a7c15u + 1;
	read_texts();
	for (int i = 0; i < 3; i++)
		tried[i] = calloc(1, LONGEST + 1);
	for (unsigned int i = 0; i < text_count; i++)
		try_texts(&texts[i], 1, reached);
	CHECK(reached[2] == text_count && reached[3] >= text_count);
	try_large_texts();
	limit += now() - began;
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
		start = taken();
		try_texts(tried, count, reached);
		if (taken() - start > slowest)
			slowest = taken() - start;
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
