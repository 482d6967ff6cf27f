/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The environment of the simulated GPU, read once, at the first call of any function.
 *
 *   EMUV_SIM_VRAM     bytes of each card (default 8 GiB)
 *   EMUV_SIM_DEVICES  how many cards (1 to 16; default 1)
 *   EMUV_SIM_CONTEXT  bytes that a context takes (default 0)
 *   EMUV_SIM_MODULE   bytes that a module's code takes in a context (default 0)
 *   EMUV_SIM_POOL     bytes that a pool reserves at a time (default 512)
 *   EMUV_SIM_FAIL     NAME:N:CODE,…: the N-th call of NAME fails with CODE
 *   EMUV_SIM_REPORT   a file for the report at exit; %p in it is the process id
 *   EMUV_SIM_UNKNOWN_KERNELS  touch: kernels without PTX touch their memory; refuse
 *   EMUV_SIM_STATS    a file for statistics of paging (stats.c); %p likewise
 *   EMUV_SIM_STATS_LAUNCHES  how many launches it lists (default 1000), or all
 *   EMUV_SIM_TRACK    0: what kernels touch is never followed, 1: always
 *   EMUV_SIM_CLOCK    real (default), virtual: what event times are of
 *   EMUV_SIM_ORDER    streams (default); submission: one piece of work at a time
 *   EMUV_SIM_PROFILE  the model card: pcie3, pcie4 (default), pcie5, or a path
 *   EMUV_SIM_VERBOSE  1: a line on stderr for each failure that has a reason
 *   EMUV_SIM_WAIT_MS  how long a wait for a held stream may last (default 60000)
 *   EMUV_SIM_END_MS   how long work may take when its context or the process ends
 *                     (default 2000); then it is stopped
 *   EMUV_SIM_WORKERS  threads that run one kernel (default: the CPUs there are)
 *   EMUV_SIM_KERNEL_MS  how long a kernel may run (default: no limit)
 *   EMUV_SIM_CACHE    the folder of compiled kernels, or off
 *   EMUV_SIM_CC       the C compiler that compiles them
 *
 * A value that makes no sense is kept as words in sim_config.error and fails cuInit.
 */
#define _GNU_SOURCE /* secure_getenv */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "identity.h"
#include "internal.h"
#include "profile.h"
#include "stats.h"

sim_config_t sim_config;

static void complain(const char *name, const char *value, const char *want)
{
	if (!sim_config.error[0])
		snprintf(sim_config.error, sizeof(sim_config.error), "error: %s=\"%.80s\" is not %s",
			 name, value, want);
}

/* Decimal digits only, all of `text`. */
static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return !errno && !*end && *value >= least && *value <= most;
}

static uint64_t setting(const char *name, uint64_t fallback, uint64_t least, uint64_t most,
			const char *want)
{
	const char *text = secure_getenv(name);
	uint64_t value;

	if (!text)
		return fallback;
	if (number(text, least, most, &value))
		return value;
	complain(name, text, want);
	return fallback;
}

static void words(const char *name, char *to, size_t bytes)
{
	const char *text = secure_getenv(name);

	if (text && strlen(text) >= bytes)
		complain(name, text, "shorter");
	else if (text)
		memcpy(to, text, strlen(text) + 1);
}

static void arm_faults(const char *list)
{
	static const char want[] =
		"a list of NAME:N:CODE, as in cuMemAlloc_v2:3:2 (the third call fails with code 2)";
	char *copy = strdup(list), *save = NULL;

	for (char *item = copy ? strtok_r(copy, ",", &save) : NULL; item;
	     item = strtok_r(NULL, ",", &save)) {
		char *n = strchr(item, ':'), *code = n ? strchr(n + 1, ':') : NULL;
		uint64_t nth, result;

		if (!code) {
			complain("EMUV_SIM_FAIL", list, want);
			break;
		}
		*n++ = *code++ = '\0';
		if (!number(n, 1, UINT64_MAX, &nth) || !number(code, 1, 999, &result)) {
			complain("EMUV_SIM_FAIL", list, want);
			break;
		}
		if (sim_fault_arm(item, nth, false, (CUresult)result) == CUDA_ERROR_NOT_FOUND) {
			complain("EMUV_SIM_FAIL", item, "a function of this driver");
			break;
		}
	}
	free(copy);
}

/* A path in which %p stands for the process id. */
static void expand(const char *name, char path[1024])
{
	const char *text = secure_getenv(name);
	size_t used = 0;

	for (; text && *text && used < 1024 - 12; text++) {
		if (text[0] == '%' && text[1] == 'p') {
			used += (size_t)snprintf(path + used, 12, "%d", (int)getpid());
			text++;
		} else {
			path[used++] = *text;
		}
	}
	if (text && *text)
		complain(name, text, "a path of less than 1000 bytes");
	path[text && *text ? 0 : used] = '\0';
}

/* One of `words`, by its place; -1: not set. */
static int choice(const char *name, const char *const *words, int count, const char *want)
{
	const char *text = secure_getenv(name);

	for (int i = 0; text && i < count; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	if (text)
		complain(name, text, want);
	return -1;
}

/* Statistics and the model of time. */
static void configure_paging(void)
{
	static const char *const clocks[] = { "real", "virtual" }, *const tracks[] = { "0", "1" };
	static const char *const orders[] = { "streams", "submission" };
	const char *profile = secure_getenv("EMUV_SIM_PROFILE");
	const char *launches = secure_getenv("EMUV_SIM_STATS_LAUNCHES");
	char why[sizeof(sim_config.error)];

	expand("EMUV_SIM_STATS", sim_config.stats);
	sim_config.stats_launches = UINT64_MAX;
	if (!launches || strcmp(launches, "all") != 0)
		sim_config.stats_launches = setting("EMUV_SIM_STATS_LAUNCHES", 1000, 0, 1ULL << 32,
						    "a number of launches, or \"all\"");
	sim_config.track = choice("EMUV_SIM_TRACK", tracks, 2, "0 (never) or 1 (always)");
	sim_config.in_order = choice("EMUV_SIM_ORDER", orders, 2, "streams or submission") == 1;
	sim_clock_events = choice("EMUV_SIM_CLOCK", clocks, 2, "real or virtual") == 1;
	if (!sim_profile_load(profile ? profile : "pcie4", why, sizeof(why)) && !sim_config.error[0])
		memcpy(sim_config.error, why, sizeof(why));
	sim_stats_wanted = sim_config.stats[0];
}

void sim_configure(void)
{
	const char *verbose = secure_getenv("EMUV_SIM_VERBOSE");
	const char *faults = secure_getenv("EMUV_SIM_FAIL");
	const char *unknown = secure_getenv("EMUV_SIM_UNKNOWN_KERNELS");

	sim_config.verbose = verbose && *verbose && strcmp(verbose, "0") != 0;
	sim_config.card_bytes = setting("EMUV_SIM_VRAM", SIM_CARD_BYTES, SIM_CARD_BYTES_LEAST,
					SIM_CARD_BYTES_MOST,
					"a number of bytes from 1048576 (1 MiB) to 17592186044416 "
					"(16 TiB), in digits only");
	sim_config.devices = (int)setting("EMUV_SIM_DEVICES", 1, 1, SIM_MAX_DEVICES,
					  "a number of devices from 1 to 16");
	sim_config.context_bytes = setting("EMUV_SIM_CONTEXT", 0, 0, 1ULL << 44,
					   "a number of bytes, in digits only");
	sim_config.module_bytes = setting("EMUV_SIM_MODULE", 0, 0, 1ULL << 40,
					  "a number of bytes, in digits only");
	sim_config.pool_bytes = setting("EMUV_SIM_POOL", 512, 512, 1ULL << 40,
					"a number of bytes from 512, in digits only");
	sim_config.wait_ms = (unsigned int)setting("EMUV_SIM_WAIT_MS", 60000, 1, 3600000,
						   "a number of milliseconds from 1 to 3600000");
	sim_config.end_ms = (unsigned int)setting("EMUV_SIM_END_MS", 2000, 1, 3600000,
						  "a number of milliseconds from 1 to 3600000");
	sim_config.workers = (int)setting("EMUV_SIM_WORKERS", 0, 1, 256,
					  "a number of threads from 1 to 256");
	sim_config.kernel_ms = (unsigned int)setting("EMUV_SIM_KERNEL_MS", 0, 0, 86400000,
						     "a number of milliseconds, 0 for no limit");
	words("EMUV_SIM_CACHE", sim_config.cache, sizeof(sim_config.cache));
	words("EMUV_SIM_CC", sim_config.compiler, sizeof(sim_config.compiler));
	if (sim_config.cache[0] && sim_config.cache[0] != '/' && strcmp(sim_config.cache, "off") != 0)
		complain("EMUV_SIM_CACHE", sim_config.cache, "the full path of a folder, or off");
	sim_config.touch_unknown = unknown && strcmp(unknown, "touch") == 0;
	if (unknown && *unknown && !sim_config.touch_unknown && strcmp(unknown, "refuse") != 0)
		complain("EMUV_SIM_UNKNOWN_KERNELS", unknown, "touch or refuse");
	if (faults)
		arm_faults(faults);
	expand("EMUV_SIM_REPORT", sim_config.report);
	configure_paging();
}
