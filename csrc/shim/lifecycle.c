/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "lifecycle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "account.h"
#include "caller.h"
#include "contexts.h"
#include "deferred.h"
#include "device_use.h"
#include "emuv_segment_file.h"
#include "graphs.h"
#include "keep.h"
#include "message.h"
#include "overhead.h"
#include "pools.h"
#include "real.h"
#include "resolve.h"
#include "shared.h"

/* CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS */
#define CONCURRENT_MANAGED_ACCESS 89

__thread uintptr_t emuv_inside;
int emuv_active; /* atomic: cuInit has succeeded in this process */

#define START_WAIT_S 30

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;
static bool starting; /* under start_lock: a thread is in start_books() */
static emuv_config_t config;
static int config_read;              /* atomic */
static bool forwards;                /* atomic: another copy keeps the books */
static int driver_state = 1;         /* atomic: 0 open, 1 not tried, negative failed */
static emuv_segment_t *segment_file; /* mapped, or NULL */
static char segment_path[PATH_MAX];
static pid_t segment_owner; /* getpid() of the process that made it */
static emuv_share_t *share; /* under start_lock: our part in a shared budget, or NULL */
static int joiners;         /* under start_lock: threads between join and start or unjoin */

const emuv_config_t *emuv_lifecycle_config(void)
{
	if (!__atomic_load_n(&config_read, __ATOMIC_ACQUIRE)) {
		pthread_mutex_lock(&start_lock);
		if (!config_read) {
			emuv_config_read(&config);
			emuv_message_quiet(config.quiet);
			emuv_keep_use(&config.keep_device, emuv_caller_name);
			if (config.adopted_from && config.adopted_from != getpid())
				emuv_say("this environment has lost emuV's variables: the budget is "
					 "that of process %d, which led here", config.adopted_from);
			__atomic_store_n(&config_read, 1, __ATOMIC_RELEASE);
		}
		pthread_mutex_unlock(&start_lock);
	}
	return &config;
}

int emuv_lifecycle_driver(void)
{
	int expected = 1;
	char why[256];
	int state = __atomic_load_n(&driver_state, __ATOMIC_ACQUIRE);

	if (state <= 0)
		return state;
	if (!emuv_resolve_is_home()) {
		state = emuv_resolve_open(NULL, why, sizeof why);
		if (!state)
			__atomic_store_n(&forwards, true, __ATOMIC_RELEASE);
	} else if (emuv_lifecycle_config()->driver[0] == '/')
		state = emuv_resolve_open(config.driver, why, sizeof why);
	else
		state = -EINVAL;
	/* The first to know says so; -EBUSY is a call from within the opening. */
	if (state == -EBUSY ||
	    !__atomic_compare_exchange_n(&driver_state, &expected, state, 0, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return state;
	if (state == -EINVAL) {
		emuv_error("%s", config.problem);
		emuv_hint("%s", config.hint);
	} else if (state && !emuv_resolve_is_home()) {
		emuv_error("this namespace finds no way to the process's emuV: %s", why);
	} else if (state) {
		emuv_error("cannot open the CUDA driver '%s': %s", config.driver, why);
		emuv_hint("EMUV_DRIVER names the driver; emuv doctor tells what is there");
	}
	return state;
}

bool emuv_lifecycle_forwards(void)
{
	return __atomic_load_n(&forwards, __ATOMIC_ACQUIRE);
}

static void read_command(char *command, size_t bytes)
{
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, command, bytes - 1);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		n = 0;
	command[n] = '\0';
	/* Arguments are separated by NUL; the last one ends in one. */
	for (ssize_t i = 0; i + 1 < n; i++)
		if (command[i] == '\0')
			command[i] = ' ';
}

/* Makes the segment file; NULL where none can be made: the budget holds all the same. */
static emuv_segment_t *make_segment(int n_devices)
{
	static emuv_segment_t initial;
	emuv_segment_t *mapped = NULL;
	char directory[PATH_MAX];
	struct timespec now;
	emuv_error_t error = { "" };
	int version = 0;

	memset(&initial, 0, sizeof initial);
	clock_gettime(CLOCK_REALTIME, &now);
	g_real.cuDriverGetVersion(&version);
	initial.magic = EMUV_SEGMENT_MAGIC;
	initial.version = EMUV_SEGMENT_VERSION;
	initial.size = sizeof initial;
	initial.pid = emuv_own_pid();
	initial.uid = geteuid();
	initial.start_ticks = emuv_start_ticks(initial.pid);
	initial.created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	initial.state = EMUV_STATE_RUNNING;
	initial.is_sim = emuv_device_is_sim();
	initial.n_devices = (uint32_t)n_devices;
	initial.driver_version = (uint32_t)version;
	initial.n_functions = EMUV_N_HOOKS;
	initial.keep = (uint32_t)config.keep;
	snprintf(initial.emuv_version, sizeof initial.emuv_version, "%s", EMUV_VERSION);
	memcpy(initial.name, config.name, sizeof initial.name);
	memcpy(initial.run_id, config.run_id, sizeof initial.run_id);
	read_command(initial.command, sizeof initial.command);
	initial.control = config.control;
	if (emuv_segment_directory(directory, sizeof directory, 1, &error) ||
	    emuv_segment_create(directory, &initial, &mapped, segment_path, sizeof segment_path,
				&error)) {
		emuv_error("no statistics and no live budget for this process: %s", error.text);
		return NULL;
	}
	segment_owner = getpid();
	return mapped;
}

/* The segment goes with the process, unless the launcher wants to read it. */
static void retire_segment(void)
{
	/* A raw clone of the process, which no fork handler has seen, may end here too. */
	if (!segment_file || segment_owner != getpid())
		return;
	__atomic_store_n(&segment_file->state, EMUV_STATE_EXITED, __ATOMIC_RELEASE);
	if (!segment_file->keep)
		unlink(segment_path);
}

/* Where the card sits, as emuv_device_counters_t keeps it. */
static uint64_t pci_of(CUdevice device)
{
	unsigned int domain, bus, slot;
	char text[32] = "";

	if (g_real.cuDeviceGetPCIBusId(text, sizeof text, device) ||
	    sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3)
		return 0;
	return 1 + ((uint64_t)domain << 16 | (bus & 0xff) << 8 | (slot & 0x1f) << 3);
}

/* Which card it is, whatever number it has in this process: parts of a MIG card differ. */
static uint64_t card_of(CUdevice device)
{
	uint64_t words[2] = { 0 };
	CUuuid uuid;

	_Static_assert(sizeof uuid == sizeof words, "a UUID has 16 bytes");
	if (g_real.cuDeviceGetUuid_v2(&uuid, device))
		return pci_of(device) ? pci_of(device) : 1 + (uint64_t)device;
	memcpy(words, &uuid, sizeof words);
	words[0] ^= (words[1] << 29 | words[1] >> 35) * UINT64_C(0x9e3779b97f4a7c15);
	return words[0] ? words[0] : 1;
}

/* By one thread, with no lock: it asks the driver. */
static void start_books(void)
{
	int n_devices = 0;

	g_real.cuDeviceGetCount(&n_devices);
	if (n_devices > EMUV_MAX_DEVICES) {
		emuv_error("%d devices, of which emuV holds budgets for the first %d", n_devices,
			   EMUV_MAX_DEVICES);
		n_devices = EMUV_MAX_DEVICES;
	}
	segment_file = make_segment(n_devices);
	for (int i = 0; share && i < n_devices; i++)
		emuv_share_card(share, i, card_of(i));
	emuv_account_start(&config, segment_file, n_devices, share);
	for (int i = 0; i < n_devices; i++) {
		size_t card = 0;
		int concurrent = 0;
		char vram[32], card_text[32];

		g_real.cuDeviceTotalMem_v2(&card, i);
		g_real.cuDeviceGetAttribute(&concurrent, CONCURRENT_MANAGED_ACCESS, i);
		emuv_account_card(i, card, pci_of(i), concurrent);
		if (config.control.budget[i].vram_bytes != EMUV_UNLIMITED &&
		    config.control.budget[i].vram_bytes > card)
			emuv_say("device %d: vram %s is more than the card's %s: the card is the limit",
				 i, emuv_size_text(config.control.budget[i].vram_bytes, vram),
				 emuv_size_text(card, card_text));
		if (!concurrent && config.control.policy == EMUV_POLICY_SPILL)
			emuv_say("device %d cannot page managed memory on demand: nothing will be "
				 "spilled there, past vram the program is out of memory", i);
	}
}

bool emuv_lifecycle_join(void)
{
	bool joined;
	int cancel;

	if (!config.shared)
		return true;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&start_lock);
	if (!share)
		share = emuv_share_join(&config);
	joined = share != NULL;
	joiners += joined;
	pthread_mutex_unlock(&start_lock);
	pthread_setcancelstate(cancel, NULL);
	return joined;
}

void emuv_lifecycle_unjoin(void)
{
	if (!config.shared)
		return;
	pthread_mutex_lock(&start_lock);
	if (--joiners == 0 && share && !emuv_active && !starting) {
		emuv_share_leave(share);
		share = NULL;
	}
	pthread_mutex_unlock(&start_lock);
}

void emuv_lifecycle_start(void)
{
	struct timespec limit;
	int cancel;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += START_WAIT_S;
	/* The wait and the files of the books are places where a cancelled thread would end. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&start_lock);
	/* A second thread's cuInit returns when the books are open, not before. */
	while (starting && !pthread_cond_timedwait(&started, &start_lock, &limit))
		;
	if (!emuv_active && !starting) {
		starting = true;
		pthread_mutex_unlock(&start_lock);
		start_books();
		pthread_mutex_lock(&start_lock);
		starting = false;
		__atomic_store_n(&emuv_active, 1, __ATOMIC_RELEASE);
		pthread_cond_broadcast(&started);
	}
	if (config.shared)
		joiners--;
	pthread_mutex_unlock(&start_lock);
	pthread_setcancelstate(cancel, NULL);
}

/* ---- fork ---- */

/*
 * No lock is taken around a fork: a signal handler that forks may have interrupted
 * the thread that holds it, and the child, which begins again, reads nothing that a
 * lock protects.
 */
static void fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	pthread_cond_t fresh_condition = PTHREAD_COND_INITIALIZER;

	memcpy(&start_lock, &fresh, sizeof start_lock);
	memcpy(&started, &fresh_condition, sizeof started);
	starting = false;
	joiners = 0;
	if (share)
		emuv_share_fork_child(share);
	share = NULL;
	emuv_account_fork_child();
	emuv_contexts_fork_child();
	emuv_deferred_fork_child();
	emuv_pools_fork_child();
	emuv_graphs_fork_child();
	emuv_overhead_fork_child();
	emuv_resolve_fork_child();
	/* The parent's page is not the child's to write. */
	if (segment_file)
		munmap(segment_file, sizeof *segment_file);
	segment_file = NULL;
	emuv_active = 0;
	emuv_inside = 0;
}

/* The only constructor.  Nothing of CUDA, no file, no allocation of its own. */
__attribute__((constructor)) static void start(void)
{
	pthread_atfork(NULL, NULL, fork_child);
}

__attribute__((destructor)) static void stop(void)
{
	retire_segment();
}
