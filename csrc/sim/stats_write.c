/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * EMUV_SIM_STATS: the account of paging as one JSON object, at exit
 * (emuv_shim/schemas/sim-stats.schema.json).
 */
#include <stdio.h>

#include "kernel/abi.h"
#include "managed.h"
#include "profile.h"
#include "stats_private.h"

static const char *const causes[SIM_CAUSES] = {
	[SIM_CAUSE_FAULT] = "fault",   [SIM_CAUSE_PREFETCH] = "prefetch",
	[SIM_CAUSE_EVICTION] = "eviction", [SIM_CAUSE_REMOTE] = "remote",
	[SIM_CAUSE_COPY] = "copy",
};

static const char *const kinds[] = {
	"small", [SIM_RANGE_DEVICE] = "device", [SIM_RANGE_MANAGED] = "managed",
	[SIM_RANGE_HOST] = "host", [SIM_RANGE_RESERVED] = "reserved",
};

static void number(FILE *file, const char *key, uint64_t value)
{
	fprintf(file, "\"%s\": %llu, ", key, (unsigned long long)value);
}

static void string(FILE *file, const char *text)
{
	putc('"', file);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', file);
		if ((unsigned char)*text < ' ')
			fprintf(file, "\\u%04x", *text);
		else
			putc(*text, file);
	}
	putc('"', file);
}

static void by_cause(FILE *file, const char *key, const uint64_t bytes[SIM_CAUSES], const char *more)
{
	fprintf(file, "\"%s\": {", key);
	for (int cause = 0; cause < SIM_CAUSES; cause++)
		fprintf(file, "%s\"%s\": %llu", cause ? ", " : "", causes[cause],
			(unsigned long long)bytes[cause]);
	fprintf(file, "}%s", more);
}

/* The members that all accounts share; the last has no comma behind it. */
static void account(FILE *file, const sim_cost_t *cost)
{
	number(file, "faults", cost->faults);
	number(file, "fault_batches", cost->fault_batches);
	number(file, "evictions", cost->evictions);
	number(file, "thrash", cost->thrash);
	by_cause(file, "to_device_bytes", cost->to_device, ", ");
	by_cause(file, "to_host_bytes", cost->to_host, "");
}

static void work(FILE *file, const sim_cost_t *cost)
{
	number(file, "instructions", cost->instructions);
	number(file, "vram_bytes", cost->vram_bytes);
	account(file, cost);
}

static void profile_member(const char *key, uint64_t value, void *argument)
{
	fprintf(argument, ", \"%s\": %llu", key, (unsigned long long)value);
}

static void list_devices(FILE *file)
{
	fprintf(file, "  \"devices\": [");
	for (CUdevice device = 0; device < sim_device_count; device++) {
		const sim_by_device_t *kept = &sim_stats.devices[device];
		const sim_device_t *card = &sim_devices[device];

		fprintf(file, "%s\n    {", device ? "," : "");
		number(file, "card_bytes", card->card_bytes);
		number(file, "used_bytes", sim_card_used(device));
		number(file, "peak_bytes", card->peak_bytes);
		number(file, "resident_bytes", card->resident_bytes);
		number(file, "launches", kept->launches);
		number(file, "launches_followed", kept->followed);
		number(file, "model_kernel_ns", kept->kernel_ns);
		number(file, "model_end_ns", kept->end_ns);
		work(file, &kept->sum);
		fprintf(file, "}");
	}
	fprintf(file, "%s],\n", sim_device_count ? "\n  " : "");
}

typedef struct {
	FILE *file;
	const char *separator;
} list_t;

static void one_allocation(list_t *list, uint64_t id, uint64_t bytes, CUdevice device, bool live,
			   const sim_cost_t *cost)
{
	fprintf(list->file, "%s\n    {", list->separator);
	number(list->file, "id", id);
	number(list->file, "bytes", bytes);
	number(list->file, "device", (uint64_t)device);
	fprintf(list->file, "\"live\": %s, ", live ? "true" : "false");
	account(list->file, cost);
	fprintf(list->file, "}");
	list->separator = ",";
}

static void live_allocation(sim_range_t *range, void *argument)
{
	if (range->managed)
		one_allocation(argument, range->id, range->bytes, range->device, true,
			       &range->managed->cost);
}

static void list_allocations(FILE *file)
{
	list_t list = { file, "" };

	fprintf(file, "  \"allocations\": [");
	for (size_t i = 0; i < sim_stats.ended_count; i++)
		one_allocation(&list, sim_stats.ended[i].id, sim_stats.ended[i].bytes,
			       sim_stats.ended[i].device, false, &sim_stats.ended[i].cost);
	sim_range_each(live_allocation, &list);
	fprintf(file, "%s],\n  \"allocations_summed\": {", *list.separator ? "\n  " : "");
	number(file, "count", sim_stats.others);
	account(file, &sim_stats.other);
	fprintf(file, "},\n");
}

static void list_kernels(FILE *file)
{
	fprintf(file, "  \"kernels\": [");
	for (size_t i = 0; i < sim_stats.kernel_count; i++) {
		const sim_by_kernel_t *kernel = &sim_stats.kernels[i];

		fprintf(file, "%s\n    {\"name\": ", i ? "," : "");
		string(file, kernel->name);
		fprintf(file, ", ");
		number(file, "launches", kernel->launches);
		number(file, "model_ns", kernel->ns);
		work(file, &kernel->sum);
		fprintf(file, "}");
	}
	fprintf(file, "%s],\n", sim_stats.kernel_count ? "\n  " : "");
}

/* Of the stretches [first, end), which are one allocation's, those with the use. */
static void list_blocks(FILE *file, const char *key, size_t first, size_t end, uint32_t use)
{
	const char *separator = "";

	fprintf(file, ", \"%s\": [", key);
	for (size_t i = first; i < end; i++) {
		uint32_t block = sim_stats.stretches[i].block, stop = sim_stats.stretches[i].end;

		if (!(sim_stats.stretches[i].uses & use))
			continue;
		while (i + 1 < end && sim_stats.stretches[i + 1].block == stop &&
		       sim_stats.stretches[i + 1].uses & use)
			stop = sim_stats.stretches[++i].end;
		fprintf(file, "%s[%u, %u]", separator, block, stop);
		separator = ", ";
	}
	fprintf(file, "]");
}

static void list_touched(FILE *file, const sim_launch_t *launch)
{
	const char *separator = "";

	fprintf(file, "\"touched\": [");
	for (size_t i = launch->first, next; i < launch->end; i = next) {
		const sim_stretch_t *stretch = &sim_stats.stretches[i];

		for (next = i + 1; next < launch->end &&
				   sim_stats.stretches[next].allocation == stretch->allocation;)
			next++;
		fprintf(file, "%s{", separator);
		number(file, "allocation", stretch->allocation);
		number(file, "bytes", stretch->bytes);
		fprintf(file, "\"kind\": \"%s\"", kinds[stretch->kind]);
		list_blocks(file, "read", i, next, EMUV_READ);
		list_blocks(file, "written", i, next, EMUV_WRITE);
		fprintf(file, "}");
		separator = ", ";
	}
	fprintf(file, "]");
}

static void three(FILE *file, const char *key, const uint32_t values[3])
{
	fprintf(file, "\"%s\": [%u, %u, %u], ", key, values[0], values[1], values[2]);
}

static void list_launches(FILE *file)
{
	fprintf(file, "  \"launches\": [");
	for (size_t i = 0; i < sim_stats.launch_count; i++) {
		const sim_launch_t *launch = &sim_stats.launches[i];

		fprintf(file, "%s\n    {\"kernel\": ", i ? "," : "");
		string(file, sim_stats.kernels[launch->kernel].name);
		fprintf(file, ", ");
		number(file, "device", (uint64_t)launch->device);
		three(file, "grid", launch->info.grid);
		three(file, "block", launch->info.block);
		fprintf(file, "\"computed\": %s, ", launch->info.computed ? "true" : "false");
		number(file, "model_start_ns", launch->start_ns);
		number(file, "model_end_ns", launch->end_ns);
		work(file, &launch->cost);
		fprintf(file, ", \"touched_complete\": %s, ", launch->complete ? "true" : "false");
		list_touched(file, launch);
		fprintf(file, "}");
	}
	fprintf(file, "%s]\n", sim_stats.launch_count ? "\n  " : "");
}

void sim_stats_write(void)
{
	sim_report_file_t report;

	if (!sim_report_open(&report, "EMUV_SIM_STATS", sim_config.stats))
		return;
	fprintf(report.file,
		"{\n  \"version\": 1,\n  \"pid\": %d,\n  \"driver_version\": %d,\n"
		"  \"note\": \"counts are exact; times (model_*) are a model of a card, "
		"not a measurement\",\n"
		"  \"block_bytes\": %zu,\n  \"fault_batch\": %d,\n  \"thrash_window\": %d,\n"
		"  \"profile\": {\"name\": ",
		report.pid, SIM_DRIVER_VERSION, SIM_BLOCK_BYTES, SIM_FAULT_BATCH, SIM_THRASH_WINDOW);
	string(report.file, sim_profile.name);
	sim_profile_each(profile_member, report.file);
	fprintf(report.file, "},\n");
	list_devices(report.file);
	list_allocations(report.file);
	list_kernels(report.file);
	list_launches(report.file);
	fprintf(report.file, "}\n");
	sim_report_close(&report);
}
