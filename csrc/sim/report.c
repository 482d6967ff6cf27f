/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The report at exit (EMUV_SIM_REPORT): what was called, what was left behind.
 *
 * One JSON object, written to a file beside the target and renamed over it.  What the
 * driver itself keeps (default streams and pools, primary contexts) is no leak.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "beside.h"
#include "internal.h"
#include "kernel/unknown.h"

static const char *const kinds[] = {
	[SIM_CONTEXT] = "contexts",   [SIM_STREAM] = "streams",	    [SIM_EVENT] = "events",
	[SIM_POOL] = "pools",	      [SIM_ARRAY] = "arrays",	    [SIM_MIPMAP] = "mipmapped_arrays",
	[SIM_MODULE] = "modules",     [SIM_LIBRARY] = "libraries",  [SIM_LINK] = "links",
	[SIM_VMM] = "vmm_handles",    [SIM_GRAPH] = "graphs",	    [SIM_EXEC] = "graph_execs",
};

static const char *const range_kinds[] = {
	[SIM_RANGE_DEVICE] = "device",
	[SIM_RANGE_MANAGED] = "managed",
	[SIM_RANGE_HOST] = "host",
	[SIM_RANGE_RESERVED] = "reserved",
};
#define RANGE_KINDS (sizeof(range_kinds) / sizeof(*range_kinds))

/* Of simulated functions, or of the others. */
static void list_calls(FILE *file, const char *title, bool simulated)
{
	const char *separator = "";

	fprintf(file, "  \"%s\": {", title);
	for (int i = 0; i < sim_export_count; i++) {
		const sim_export_t *export = &sim_exports[i];
		sim_call_t *call = &sim_calls[export->call];
		uint64_t count = atomic_load_explicit(&call->count, memory_order_relaxed);

		if (!count || simulated != (export->address != export->stub))
			continue;
		fprintf(file, "%s\n    \"%s\": %llu", separator, call->name,
			(unsigned long long)count);
		separator = ",";
	}
	fprintf(file, "%s},\n", *separator ? "\n  " : "");
}

typedef struct {
	uint64_t count, bytes;
} tally_t;

static void count_object(void *object, void *argument)
{
	sim_object_t *base = object;
	tally_t *tally = argument;

	if (base->kind == SIM_STREAM &&
	    (((sim_stream_t *)object)->legacy || ((sim_stream_t *)object)->per_thread))
		return;
	if (base->kind == SIM_CONTEXT && ((sim_context_t *)object)->primary)
		return;
	for (int i = 0; i < sim_device_count; i++)
		if (object == (void *)sim_devices[i].default_pool)
			return;
	tally->count++;
}

static void count_range(sim_range_t *range, void *argument)
{
	tally_t *tally = argument;

	tally[range->kind].count++;
	tally[range->kind].bytes += range->bytes;
}

static void list_leaks(FILE *file)
{
	tally_t ranges[RANGE_KINDS] = { 0 };
	const char *separator = "";

	fprintf(file, "  \"leaks\": {");
	for (size_t kind = 1; kind < sizeof(kinds) / sizeof(*kinds); kind++) {
		tally_t tally = { 0 };

		if (!kinds[kind])
			continue;
		sim_object_each((sim_kind_t)kind, count_object, &tally);
		if (!tally.count)
			continue;
		fprintf(file, "%s\n    \"%s\": {\"count\": %llu}", separator, kinds[kind],
			(unsigned long long)tally.count);
		separator = ",";
	}
	sim_range_each(count_range, ranges);
	for (size_t kind = 1; kind < RANGE_KINDS; kind++) {
		if (!ranges[kind].count)
			continue;
		fprintf(file, "%s\n    \"%s_memory\": {\"count\": %llu, \"bytes\": %llu}",
			separator, range_kinds[kind], (unsigned long long)ranges[kind].count,
			(unsigned long long)ranges[kind].bytes);
		separator = ",";
	}
	fprintf(file, "%s},\n", *separator ? "\n  " : "");
}

static void list_devices(FILE *file)
{
	fprintf(file, "  \"devices\": [");
	for (int i = 0; i < sim_device_count; i++)
		fprintf(file,
			"%s\n    {\"card_bytes\": %llu, \"peak_bytes\": %llu, \"used_bytes\": %llu}",
			i ? "," : "", (unsigned long long)sim_devices[i].card_bytes,
			(unsigned long long)sim_devices[i].peak_bytes,
			(unsigned long long)sim_card_used(i));
	fprintf(file, "%s]\n", sim_device_count ? "\n  " : "");
}

bool sim_report_open(sim_report_file_t *report, const char *variable, const char *path)
{
	struct timespec limit;

	*report = (sim_report_file_t){ .variable = variable, .path = path, .pid = (int)getpid() };
	if (!path[0] || sim_forked())
		return false;
	/* exit() from a signal handler may have interrupted a call that holds the lock. */
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 2;
	if (pthread_mutex_timedlock(&sim_lock, &limit) != 0) {
		sim_say("error: %s: the process ends inside of a call; no report", variable);
		return false;
	}
	report->file = beside_open(path, report->beside, sizeof(report->beside));
	if (report->file)
		return true;
	sim_say("error: %s=\"%s\": cannot write there: %m", variable, path);
	sim_lock_drop();
	return false;
}

void sim_report_close(sim_report_file_t *report)
{
	sim_lock_drop();
	if (!beside_close(report->file, report->path, report->beside))
		sim_say("error: %s=\"%s\": cannot write there: %m", report->variable, report->path);
}

void sim_report_write(void)
{
	sim_report_file_t report;

	if (!sim_report_open(&report, "EMUV_SIM_REPORT", sim_config.report))
		return;
	fprintf(report.file, "{\n  \"version\": 1,\n  \"pid\": %d,\n  \"driver_version\": %d,\n",
		report.pid, SIM_DRIVER_VERSION);
	list_calls(report.file, "calls", true);
	list_calls(report.file, "unimplemented", false);
	sim_unknown_list(report.file);
	list_leaks(report.file);
	list_devices(report.file);
	fprintf(report.file, "}\n");
	sim_report_close(&report);
}
