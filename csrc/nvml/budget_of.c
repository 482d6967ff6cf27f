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
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "budget.h"
#include "emuv_reports.h"
#include "emuv_segment_list.h"
#include "emuv_shared.h"
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
	now = library ? dlsym(library, EMUV_REPORTS_NAME) : NULL;
	if (!now)
		dlerror(); /* no words for the program */
	if (!library)
		return NULL;
	if (now && now->size < sizeof *now)
		now = NULL; /* another version of emuV */
	/* What is remembered must stay, whatever the program closes. */
	if (now)
		dlmopen(LM_ID_BASE, "libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
	dlclose(library);
	__atomic_store_n(&found, now, __ATOMIC_RELEASE);
	return now;
}

/* As emuv_reports_t.card, of a handle; -ENOENT: nobody to ask, or not to be asked. */
static int books(nvmlDevice_t device, emuv_card_report_t *report)
{
	const emuv_reports_t *table = shown_inside ? NULL : reports();
	char text[EMUV_UUID_TEXT_BYTES];
	unsigned char uuid[16];

	if (!table)
		return -ENOENT;
	if (!shown_uuid_text(device, text, sizeof text) || !emuv_uuid_bytes(text, uuid))
		return -ENODEV;
	return table->card(uuid, report);
}

/* ---- the run ---- */

#define MOST (UINT64_C(1) << 56) /* of any figure in a segment: no sum of them wraps */

static uint64_t bounded(uint64_t bytes)
{
	return bytes < MOST ? bytes : MOST;
}

/* A stranger's figures of a device. */
static emuv_budget_device_t bounded_budget(const emuv_device_counters_t *c)
{
	return (emuv_budget_device_t){
		.counters = {
			.device_bytes = bounded(c->device_bytes),
			.managed_bytes = bounded(c->managed_bytes),
			.resident_bytes = bounded(c->resident_bytes),
			.overhead_bytes = bounded(c->overhead_bytes),
			.graph_bytes = bounded(c->graph_bytes),
			.kept_bytes = bounded(c->kept_bytes),
		},
	};
}

/* What a process holds on the card at `pci`, by its segment; false: it is not of this run. */
static bool holds(const emuv_segment_t *segment, uint64_t pci, uint64_t *used, uint64_t *physical)
{
	bool found = false;

	*used = *physical = 0;
	if (!segment->run_id[0] || strcmp(segment->run_id, shown_config()->run_id) != 0)
		return false;
	for (uint32_t i = 0; i < segment->n_devices; i++) {
		const emuv_budget_device_t its = bounded_budget(&segment->device[i]);

		if (segment->device[i].pci != pci)
			continue;
		found = true;
		*used += emuv_budget_used(&its);
		*physical += emuv_budget_physical(&its);
	}
	return found;
}

typedef struct {
	uint64_t pci, used;
} sum_t;

static bool add_use(const emuv_segment_t *segment, void *state)
{
	sum_t *sum = state;
	uint64_t used, physical;

	if (holds(segment, sum->pci, &used, &physical))
		sum->used += used < MOST ? used : MOST;
	return true;
}

/* What the run's processes use of a card. */
static uint64_t used_by_run(nvmlDevice_t device)
{
	sum_t sum = { shown_pci(device), 0 };

	if (sum.pci && shown_config()->run_id[0])
		emuv_segment_each(add_use, &sum);
	return sum.used;
}

/*
 * What a budget of the whole run is now, where it is shared and its file can be read: a
 * controller may have changed it since the environment was made.
 */
static void read_shared(emuv_control_t *control)
{
	char directory[PATH_MAX], path[PATH_MAX + EMUV_TEXT_BYTES + 8];
	emuv_shared_t *copy = malloc(sizeof *copy);
	emuv_segment_view_t *view = NULL;

	if (copy && !emuv_segment_directory(directory, sizeof directory, 0, NULL)) {
		snprintf(path, sizeof path, "%s/%s.run", directory, shown_config()->run_id);
		if (!emuv_shared_open(path, 0, &view, NULL)) {
			if (!emuv_shared_snapshot(view, copy, NULL) &&
			    copy->control.policy <= EMUV_POLICY_SPILL)
				*control = copy->control;
			emuv_segment_close(view);
		}
	}
	free(copy);
}

/* The budget of a process without books; false: the card has none. */
static bool budget_of(nvmlDevice_t device, uint64_t card_bytes, emuv_budget_device_t *budget)
{
	const emuv_config_t *config = shown_config();
	int ordinal = config->valid ? shown_ordinal(device) : -1;
	emuv_control_t control = config->control;

	if (ordinal < 0)
		return false;
	if (config->shared)
		read_shared(&control);
	*budget = (emuv_budget_device_t){
		.vram = control.budget[ordinal].vram_bytes,
		.virtual_bytes = control.budget[ordinal].virtual_bytes,
		.policy = control.policy,
		.can_spill = 1, /* of a card that cannot, CUDA tells once it is there */
		.counters = { .card_bytes = card_bytes },
	};
	return emuv_budget_visible(budget) != EMUV_UNLIMITED;
}

static bool planned(nvmlDevice_t device, uint64_t card_bytes, emuv_card_report_t *report)
{
	emuv_budget_device_t budget;

	if (!budget_of(device, card_bytes, &budget))
		return false;
	budget.counters.device_bytes = used_by_run(device);
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

typedef struct {
	uint64_t pci;
	shown_users_t *users;
	int32_t but; /* the pid that the books have answered for */
} listing_t;

static bool enter(shown_users_t *users, int32_t pid, uint64_t bytes)
{
	shown_user_t *more = realloc(users->user, (users->count + 1) * sizeof *more);

	if (!more)
		return false;
	users->user = more;
	more[users->count++] = (shown_user_t){ pid, bytes };
	return true;
}

static bool enter_segment(const emuv_segment_t *segment, void *state)
{
	listing_t *listing = state;
	uint64_t used, physical;

	if (segment->pid == listing->but || !holds(segment, listing->pci, &used, &physical))
		return true;
	return enter(listing->users, segment->pid, physical);
}

void shown_users(nvmlDevice_t device, shown_users_t *users)
{
	listing_t listing = { shown_pci(device), users, 0 };
	emuv_budget_device_t budget;
	emuv_card_report_t report;
	int result;

	*users = (shown_users_t){ NULL, 0 };
	/* Of pids that are the host's, none can be told to be ours. */
	if (!emuv_pid_is_global() && !shown_is_sim())
		return;
	result = books(device, &report);
	if (result == -EAGAIN ? !budget_of(device, 0, &budget) : result != 0)
		return;
	if (!result) {
		if (report.total == EMUV_UNLIMITED)
			return;
		listing.but = getpid();
		enter(users, listing.but, report.physical);
	}
	if (listing.pci && shown_config()->run_id[0])
		emuv_segment_each(enter_segment, &listing);
}
