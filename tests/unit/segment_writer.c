/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stands in for a process under emuV: makes its segment with the real code and
 * then does what standard input says, one line at a time, answering each line
 * with one line, so that tests hand over without sleeping.
 *
 *	segment_writer DIRECTORY N_DEVICES RUN_ID KEEP
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "emuv_segment_file.h"

static emuv_segment_t *g_segment;

static long elapsed_ms(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static void begin(void)
{
	__atomic_store_n(&g_segment->counters_seq, g_segment->counters_seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void end(void)
{
	__atomic_store_n(&g_segment->counters_seq, g_segment->counters_seq + 1, __ATOMIC_RELEASE);
}

/* Changes all counters together for `ms`; a reader must see them equal. */
static unsigned long hammer(long ms, unsigned long pause)
{
	struct timespec start;
	unsigned long k = 0, spin;
	uint32_t d;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (k % 256 || elapsed_ms(&start) < ms) {
		begin();
		k++;
		for (d = 0; d < g_segment->n_devices; d++) {
			volatile emuv_device_counters_t *row = &g_segment->device[d];

			row->device_bytes = k;
			row->managed_bytes = k;
			row->peak_used_bytes = k;
			row->calls[0] = k;
			row->calls[EMUV_MAX_FUNCTIONS - 1] = k;
		}
		end();
		for (spin = 0; spin < pause; spin++)
			__asm__ volatile("" ::: "memory");
	}
	return k;
}

/* There is another order, or nobody to give one. */
static bool told(void)
{
	struct pollfd order = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&order, 1, 0) != 0;
}

/* Reads the control block as hooks do; counts those that are not of one writer. */
static void watch(void)
{
	unsigned long reads = 0, busy = 0, torn = 0, changes = 0;
	emuv_control_t control;
	uint64_t last = 0;
	int i;

	while (reads % 256 || !told()) {
		reads++;
		if (emuv_control_read(&g_segment->control, &control)) {
			busy++;
			continue;
		}
		for (i = 0; i < EMUV_MAX_DEVICES; i++)
			torn += control.budget[i].vram_bytes != control.budget[0].vram_bytes ||
				control.budget[i].virtual_bytes != control.budget[0].vram_bytes;
		torn += control.generation < last;
		changes += control.generation != last;
		last = control.generation;
	}
	printf("reads %lu busy %lu torn %lu changes %lu\n", reads, busy, torn, changes);
}

static int obey(const char *line)
{
	unsigned long long v[6];
	emuv_control_t control;
	unsigned long pause;
	long ms;

	if (sscanf(line, "charge %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4,
		   v + 5) == 6) {
		emuv_device_counters_t *row = &g_segment->device[v[0]];

		begin();
		row->flags = v[5];
		row->card_bytes = 1ull << 30;
		row->device_bytes = v[1];
		row->managed_bytes = v[2];
		row->resident_bytes = v[3];
		row->overhead_bytes = v[4];
		row->calls[1] = 7;
		end();
		puts("ok");
	} else if (sscanf(line, "hammer %ld %lu", &ms, &pause) == 2) {
		puts("started");
		fflush(stdout);
		printf("done %lu\n", hammer(ms, pause));
	} else if (!strcmp(line, "watch")) { /* until the next order, which may be empty */
		puts("started");
		fflush(stdout);
		watch();
	} else if (!line[0]) {
		return 1;
	} else if (!strcmp(line, "control")) {
		int rc = emuv_control_read(&g_segment->control, &control);

		if (rc)
			printf("rc %d\n", rc);
		else
			printf("%llu %u %u %llu %llu\n", (unsigned long long)control.generation,
			       control.policy, control.allocation,
			       (unsigned long long)control.budget[0].vram_bytes,
			       (unsigned long long)control.budget[0].virtual_bytes);
	} else if (!strcmp(line, "apply")) {
		begin();
		g_segment->applied_generation = g_segment->control.generation;
		end();
		puts("ok");
	} else if (!strcmp(line, "odd")) {
		begin();
		puts("ok");
	} else if (!strcmp(line, "even")) {
		end();
		puts("ok");
	} else if (!strcmp(line, "stop")) { /* in the middle of a change */
		begin();
		puts("stopping");
		fflush(stdout);
		raise(SIGSTOP);
		end();
		puts("continued");
	} else {
		return 0;
	}
	fflush(stdout);
	return 1;
}

int main(int argc, char **argv)
{
	static emuv_segment_t initial;
	static char line[256], path[4096];
	emuv_error_t error = { "" };
	int i, rc;

	if (argc != 5)
		return 2;
	initial.magic = EMUV_SEGMENT_MAGIC;
	initial.version = EMUV_SEGMENT_VERSION;
	initial.size = sizeof(initial);
	initial.pid = getpid();
	initial.uid = getuid();
	initial.start_ticks = emuv_start_ticks(getpid());
	initial.created_ns = (uint64_t)time(NULL) * 1000000000u;
	initial.state = EMUV_STATE_RUNNING;
	initial.n_devices = (uint32_t)atoi(argv[2]);
	initial.n_functions = EMUV_MAX_FUNCTIONS;
	initial.keep = (uint32_t)atoi(argv[4]);
	initial.driver_version = 13000;
	snprintf(initial.run_id, sizeof(initial.run_id), "%s", argv[3]);
	snprintf(initial.command, sizeof(initial.command), "writer \033[31m\n%s", argv[1]);
	for (i = 0; i < EMUV_MAX_DEVICES; i++)
		initial.control.budget[i].vram_bytes = EMUV_UNLIMITED;
	rc = emuv_segment_create(argv[1], &initial, &g_segment, path, sizeof(path), &error);
	if (rc) {
		printf("error %d %s\n", rc, error.text);
		return 1;
	}
	printf("%s\n", path);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (!obey(line))
			break;
	}
	return 0;
}
