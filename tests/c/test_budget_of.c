// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/common/emuv_segment_*.c csrc/common/emuv_shared*.c csrc/common/emuv_environ.c
// link: csrc/common/visible_devices.c csrc/shim/budget.c
// sanitize: address
/*
 * What NVML is made to say of a card: by the books where CUDA is initialised, else by the
 * environment less what the run's segments say, whose figures are a stranger's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "emuv_reports.h"

/* libemuv.so in the process, or not. */
static const emuv_reports_t *preloaded;
static void *test_dlmopen(Lmid_t where, const char *name, int flags)
{
	(void)where, (void)name, (void)flags;
	return (void *)preloaded;
}
static void *test_dlsym(void *library, const char *name)
{
	return library && !strcmp(name, EMUV_REPORTS_NAME) ? library : NULL;
}
static int test_dlclose(void *library)
{
	return !library;
}
#define dlmopen test_dlmopen
#define dlsym test_dlsym
#define dlclose test_dlclose
#include "../../csrc/nvml/budget_of.c"

#include "segments.h"

#define GIB(n) ((uint64_t)(n) << 30)
#define CARD GIB(16)
#define PCI 0x101 /* bus 1 of domain 0 */

static emuv_config_t config;
static int ordinal;
static bool sim, named;

__thread unsigned int shown_inside;
__attribute__((noipa)) const emuv_config_t *shown_config(void)
{
	return &config;
}
int shown_ordinal(nvmlDevice_t device)
{
	(void)device;
	return ordinal;
}
bool shown_uuid_text(nvmlDevice_t device, char *text, unsigned int bytes)
{
	(void)device;
	snprintf(text, bytes, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
	return named;
}
uint64_t shown_pci(nvmlDevice_t device)
{
	(void)device;
	return PCI;
}
bool shown_is_sim(void)
{
	return sim;
}

static emuv_card_report_t told;
static int answer; /* of the books */

static int card(const unsigned char uuid[16], emuv_card_report_t *report)
{
	for (int i = 0; i < 16; i++)
		CHECK_EQ(uuid[i], i);
	*report = told;
	return answer;
}

static const emuv_reports_t older = { sizeof older - 1, card }, books_of = { sizeof books_of, card };

/* The machine's answer: 10 of 16 GiB are free. */
static bool shown(nvmlMemory_t *memory)
{
	*memory = (nvmlMemory_t){ .total = CARD, .free = GIB(10), .used = GIB(6) };
	return shown_memory(NULL, memory);
}

#define CHECK_SHOWN(total_gib, free_gib)                            \
	do {                                                        \
		nvmlMemory_t memory_;                               \
									    \
		CHECK(shown(&memory_));                             \
		CHECK_EQ(memory_.total, GIB(total_gib));            \
		CHECK_EQ(memory_.free, GIB(free_gib));              \
		CHECK_EQ(memory_.used, GIB((total_gib) - (free_gib))); \
	} while (0)

static void check_as_it_was(void)
{
	nvmlMemory_t memory;

	CHECK(!shown(&memory));
	CHECK_EQ(memory.total, CARD);
	CHECK_EQ(memory.free, GIB(10));
	CHECK_EQ(memory.used, GIB(6));
}

static void not_ours(void)
{
	preloaded = NULL; /* no libemuv.so */
	check_as_it_was();
	preloaded = &older;
	check_as_it_was();
	preloaded = &books_of;
	named = false; /* a card that the machine's NVML does not name */
	check_as_it_was();
	named = true;
	for (int i = 0; i < 2; i++) {
		answer = i ? -EBUSY : -ENODEV;
		check_as_it_was();
	}
	answer = 0;
	told = (emuv_card_report_t){ .total = EMUV_UNLIMITED, .free = EMUV_UNLIMITED };
	check_as_it_was();
	told.total = told.free = GIB(8);
	shown_inside = 1; /* the machine's NVML asks itself */
	check_as_it_was();
	shown_inside = 0;
}

static void by_the_books(void)
{
	told = (emuv_card_report_t){ .total = GIB(4), .free = GIB(3) };
	CHECK_SHOWN(4, 3);
	/* Under cap what others have of the card is not free; with a virtual it may be. */
	told = (emuv_card_report_t){ .total = GIB(14), .free = GIB(12) };
	CHECK_SHOWN(14, 10);
	told.policy = EMUV_POLICY_SPILL;
	CHECK_SHOWN(14, 12);
}

static void by_the_environment(void)
{
	answer = -EAGAIN;
	config.valid = 0;
	check_as_it_was();
	config.valid = 1;
	ordinal = -1; /* CUDA will not see the card */
	check_as_it_was();
	ordinal = 1;
	config.control.budget[1] = (emuv_budget_t){ EMUV_UNLIMITED, 0 };
	check_as_it_was();
	config.control.budget[1] = (emuv_budget_t){ GIB(4), GIB(20) };
	CHECK_SHOWN(4, 4); /* cap: the virtual is none */
	config.control.policy = EMUV_POLICY_SPILL;
	CHECK_SHOWN(24, 24);
}

/* Of the run's living processes, on this card. */
static void less_what_the_run_holds(void)
{
	const int32_t self = emuv_own_pid();
	emuv_segment_t *own = make_segment(self, emuv_start_ticks(self), "run", NULL);
	emuv_device_counters_t *c = own->device;

	c[0].device_bytes = GIB(1);
	c[0].pci = PCI + 8;
	c[1].device_bytes = c[1].managed_bytes = GIB(1);
	c[1].overhead_bytes = c[1].graph_bytes = GIB(1);
	c[1].kept_bytes = c[1].resident_bytes = GIB(1); /* on the device; not used */
	c[1].pci = PCI;
	CHECK_SHOWN(24, 24); /* this process is of no run */
	snprintf(config.run_id, sizeof config.run_id, "other");
	CHECK_SHOWN(24, 24);
	snprintf(config.run_id, sizeof config.run_id, "run");
	CHECK_SHOWN(24, 20);
	c[0].pci = PCI; /* parts of a card, as two devices */
	CHECK_SHOWN(24, 19);
	/* Whatever stands there, nothing wraps. */
	memset(&c[1], 0xff, sizeof c[1]);
	c[1].pci = PCI;
	CHECK_SHOWN(24, 0);
	memset(&c[1], 0, sizeof c[1]);
	c[1].pci = PCI;
	c[1].device_bytes = GIB(2);
	CHECK_SHOWN(24, 21);
	own->state = EMUV_STATE_EXITED;
	CHECK_SHOWN(24, 24);
	own->state = EMUV_STATE_RUNNING;
	CHECK_EQ(munmap(own, sizeof *own), 0);
}

/* A controller has changed the budget of the whole run since. */
static void of_a_shared_run(void)
{
	emuv_shared_start_t start = { .run_id = "run", .control = config.control };
	emuv_error_t error;

	start.control.budget[1] = (emuv_budget_t){ GIB(8), 0 };
	CHECK_SHOWN(24, 21);
	config.shared = 1;
	CHECK_SHOWN(24, 21); /* its file is not there */
	CHECK_EQ(emuv_shared_make(getenv("EMUV_RUNTIME_DIR"), &start, &error), 0);
	CHECK_SHOWN(8, 5);
}

static void who_uses_it(void)
{
	shown_users_t users;
	emuv_segment_t *child_s;
	pid_t child;

	child = fork();
	CHECK(child >= 0);
	if (child == 0)
		for (;;)
			pause();
	child_s = make_segment(child, emuv_start_ticks(child), "run", NULL);
	child_s->device[0].pci = PCI;
	child_s->device[0].device_bytes = child_s->device[0].kept_bytes = GIB(1);
	sim = true; /* whose pids are this namespace's */
	/* Ours by the books, and once. */
	answer = 0;
	told = (emuv_card_report_t){ .total = GIB(8), .physical = GIB(3) };
	shown_users(NULL, &users);
	CHECK_EQ(users.count, 2);
	CHECK_EQ(users.user[0].pid, getpid());
	CHECK_EQ(users.user[0].bytes, GIB(3));
	CHECK_EQ(users.user[1].pid, child);
	CHECK_EQ(users.user[1].bytes, GIB(2));
	free(users.user);
	/* By the segments alone. */
	answer = -EAGAIN;
	shown_users(NULL, &users);
	CHECK_EQ(users.count, 2);
	CHECK_EQ(users.user[0].bytes + users.user[1].bytes, GIB(2) + GIB(3));
	free(users.user);
	/* Where there is no budget, or pids are not to be told: the machine's own list. */
	ordinal = -1;
	shown_users(NULL, &users);
	CHECK_EQ(users.count, 0);
	answer = 0;
	told.total = EMUV_UNLIMITED;
	shown_users(NULL, &users);
	CHECK_EQ(users.count, 0);
	kill(child, SIGKILL);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	CHECK_EQ(munmap(child_s, sizeof *child_s), 0);
}

int main(void)
{
	alarm(55);
	not_ours();
	by_the_books();
	by_the_environment();
	less_what_the_run_holds();
	of_a_shared_run();
	who_uses_it();
	return 0;
}
