/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What emuV has to say of a card.
 *
 * In a process that has initialised CUDA it is the books' word (emuv_reports.h).  In one
 * that has not (nvidia-smi, a monitor, a launcher of workers) it is the budget in the
 * environment, less what the processes of the same run hold by their segments.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "budget.h"
#include "emuv_reports.h"
#include "emuv_segment_list.h"
#include "pid_namespace.h"
#include "shown.h"
#include "visible_devices.h"

/* ---- the books ---- */

/* NULL where libemuv.so is not in the process.  Nothing gets loaded by this. */
static const emuv_reports_t *reports(void)
{
	static const emuv_reports_t *found; /* atomic */
	const emuv_reports_t *now = __atomic_load_n(&found, __ATOMIC_ACQUIRE);
	void *library;

	if (now)
		return now;
	/* A copy of this library in a namespace of its own has the books of the base one. */
	library = dlmopen(LM_ID_BASE, "libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
	if (!library)
		return NULL;
	now = dlsym(library, EMUV_REPORTS_NAME);
	if (now && now->size < sizeof *now)
		now = NULL; /* another version of emuV */
	dlclose(library);
	__atomic_store_n(&found, now, __ATOMIC_RELEASE);
	return now;
}

/* As emuv_reports_t.card, of a handle. */
static int books(nvmlDevice_t device, emuv_card_report_t *report)
{
	const emuv_reports_t *table = reports();
	char text[EMUV_UUID_TEXT_BYTES];
	unsigned char uuid[16];

	if (!table)
		return -ENOENT;
	if (!shown_uuid_text(device, text, sizeof text) || !emuv_uuid_bytes(text, uuid))
		return -ENODEV;
	return table->card(uuid, report);
}

/* ---- the run ---- */

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > EMUV_UNLIMITED - b ? EMUV_UNLIMITED : a + b;
}

typedef struct {
	uint64_t pci;
	int32_t pid; /* 0: of all */
	uint64_t used, physical;
	bool found;
} held_t;

static bool add_segment(const emuv_segment_t *segment, void *state)
{
	held_t *held = state;

	if (strcmp(segment->run_id, shown_config()->run_id) != 0 ||
	    (held->pid && held->pid != segment->pid))
		return true;
	for (uint32_t i = 0; i < segment->n_devices; i++) {
		const emuv_device_counters_t *c = &segment->device[i];
		uint64_t plain = add(c->device_bytes, c->overhead_bytes);

		if (c->pci != held->pci)
			continue;
		held->found = true;
		held->used = add(held->used, add(plain, c->managed_bytes));
		held->physical = add(held->physical, add(plain, c->resident_bytes));
	}
	return true;
}

/* What the run's processes, or one of them, hold on a card. */
static held_t held_on(nvmlDevice_t device, int32_t pid)
{
	held_t held = { .pci = shown_pci(device), .pid = pid };

	if (held.pci && shown_config()->run_id[0])
		emuv_segment_each(add_segment, &held);
	return held;
}

/* The report of a process without books; false: the card has no budget. */
static bool planned(nvmlDevice_t device, uint64_t card_bytes, emuv_card_report_t *report)
{
	const emuv_config_t *config = shown_config();
	emuv_budget_device_t budget = { 0 };
	int ordinal = config->valid ? shown_ordinal(device) : -1;

	if (ordinal < 0)
		return false;
	budget.vram = config->control.budget[ordinal].vram_bytes;
	budget.virtual_bytes = config->control.budget[ordinal].virtual_bytes;
	budget.policy = config->control.policy;
	budget.can_spill = 1; /* of a card that cannot, CUDA tells once it is there */
	budget.counters.card_bytes = card_bytes;
	if (emuv_budget_visible(&budget) == EMUV_UNLIMITED)
		return false;
	budget.counters.device_bytes = held_on(device, 0).used;
	*report = (emuv_card_report_t){
		.total = emuv_budget_visible(&budget),
		.free = emuv_budget_free(&budget),
		.policy = budget.policy,
	};
	return true;
}

/* ---- both ---- */

bool shown_memory(nvmlDevice_t device, nvmlMemory_t *memory)
{
	emuv_card_report_t report;
	int result = books(device, &report);

	if (result == -EAGAIN ? !planned(device, memory->total, &report) : result != 0)
		return false;
	if (report.total == EMUV_UNLIMITED)
		return false;
	/* Under `cap` nothing can be had that the card does not have: hooks_query.c. */
	if (report.policy == EMUV_POLICY_SPILL || report.free < memory->free)
		memory->free = report.free;
	memory->total = report.total;
	memory->used = report.total - memory->free;
	return true;
}

bool shown_charge(nvmlDevice_t device, unsigned int pid, unsigned long long *bytes)
{
	emuv_card_report_t report;
	held_t held;
	int result;

	/* Of pids that are the host's, none can be told to be ours. */
	if (!pid || (int32_t)pid < 0 || (!emuv_pid_is_global() && !shown_is_sim()))
		return false;
	result = books(device, &report);
	if (result && result != -EAGAIN)
		return false;
	if (!result && pid == (unsigned int)getpid()) {
		if (report.total == EMUV_UNLIMITED)
			return false;
		*bytes = report.physical;
		return true;
	}
	if (!shown_config()->valid)
		return false;
	held = held_on(device, (int32_t)pid);
	if (held.found)
		*bytes = held.physical;
	return held.found;
}
