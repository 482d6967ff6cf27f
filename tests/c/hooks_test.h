/* SPDX-License-Identifier: GPL-2.0-only */
/* What tests of the hooks over the fake driver share: starting afresh, and the books. */
#ifndef EMUV_TEST_HOOKS_TEST_H
#define EMUV_TEST_HOOKS_TEST_H

#include <string.h>

#include "check.h"
#include "contexts.h"
#include "deferred.h"
#include "fake_driver.h"
#include "hooks.h"

typedef struct {
	uint64_t vram, extra; /* bytes, of each device */
	uint32_t policy, allocation;
	uint64_t card, context;
} setup_t;

/* Empty books over an empty driver, as after cuInit. */
static inline void start(setup_t setup)
{
	emuv_config_t config = { .valid = 1 };

	emuv_account_fork_child();
	emuv_contexts_fork_child();
	emuv_deferred_fork_child();
	fake_reset(setup.card, setup.context);
	config.control.policy = setup.policy;
	config.control.allocation = setup.allocation;
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		config.control.budget[i] = (emuv_budget_t){ setup.vram, setup.extra };
	emuv_account_start(&config, NULL, FAKE_DEVICES, NULL);
	for (int i = 0; i < FAKE_DEVICES; i++) {
		emuv_account_card(i, setup.card, 0, true);
		fake_limit(i, setup.vram);
	}
}

/* What is charged and held: the part of the books that an undone call must not change. */
typedef struct {
	uint64_t device, managed, resident, overhead, live;
} books_t;

static inline books_t books(CUdevice device)
{
	const emuv_device_counters_t *c = &emuv_account_segment()->device[device];

	return (books_t){ c->device_bytes, c->managed_bytes, c->resident_bytes,
			  c->overhead_bytes, c->live_allocations };
}

#define CHECK_BOOKS(got, wanted)                                  \
	do {                                                      \
		books_t got__ = (got), wanted__ = (wanted);       \
		CHECK_EQ(got__.device, wanted__.device);          \
		CHECK_EQ(got__.managed, wanted__.managed);        \
		CHECK_EQ(got__.resident, wanted__.resident);      \
		CHECK_EQ(got__.overhead, wanted__.overhead);      \
		CHECK_EQ(got__.live, wanted__.live);              \
	} while (0)

/* The books say what the driver holds, and nothing is left of either. */
static inline void check_empty(void)
{
	fake_state_t state;

	fake_state(&state);
	for (int i = 0; i < FAKE_DEVICES; i++) {
		CHECK_BOOKS(books(i), ((books_t){ 0 }));
		CHECK_EQ(state.physical[i], 0);
		CHECK_EQ(state.managed[i], 0);
	}
	for (int kind = FAKE_DEVICE; kind < FAKE_KINDS; kind++)
		CHECK_EQ(state.objects[kind], 0);
}

#endif
