/* SPDX-License-Identifier: GPL-2.0-only */
#include "overhead.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "device_use.h"
#include "pause.h"
#include "pools.h"

/*
 * Other threads allocate and free meanwhile.  A look counts if no charge changed
 * during it.  Bytes are charged before they are in use and released after, so what
 * is under way then makes the figure smaller, never larger: the largest of the looks
 * is the best, and one that met nothing under way is exact.
 */
emuv_use_t emuv_use_measure(CUdevice device, bool has_context, int looks)
{
	emuv_use_t use = { 0 };
	bool exact = false;

	for (int i = 0; i < looks && !exact; i++) {
		uint64_t before, after, used, charged, ignored;
		int64_t bytes;

		if (i)
			emuv_pause_us(20);
		exact = emuv_account_physical(device, &charged, &before);
		if (!emuv_device_used(device, has_context, &used, &use.whole_card))
			break;
		exact = emuv_account_physical(device, &ignored, &after) && exact && before == after;
		bytes = (int64_t)(used - charged);
		if (before == after && (!use.known || bytes > use.bytes)) {
			use.bytes = bytes;
			use.known = true;
		}
	}
	return use;
}

uint64_t emuv_use_grown(CUdevice device, emuv_use_t before, emuv_use_t after, uint64_t *flags)
{
	uint64_t grown = after.bytes > before.bytes ? (uint64_t)(after.bytes - before.bytes) : 0;
	emuv_report_t report;

	*flags = 0;
	if (!before.known || !after.known || before.whole_card != after.whole_card)
		return 0;
	*flags = EMUV_DEVICE_OVERHEAD_KNOWN;
	if (after.whole_card) {
		*flags |= EMUV_DEVICE_OVERHEAD_UPPER;
		emuv_account_report(device, &report);
		if (grown > report.room)
			grown = report.room;
	}
	return grown;
}

/* ---- code ---- */

#define LOOKS 3
#define SHARE 20               /* measuring takes one part in so many of the time */
#define CHEAP_NS 100000        /* what is cheaper than this is never left out */
#define AGAIN_NS 1000000000ull /* after which code may have been loaded that nobody told of */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	uint64_t late;     /* charged by emuv_overhead_settle */
	uint64_t next_ns;  /* when it may be measured again */
	uint64_t last_ns;  /* when it was */
} devices[EMUV_MAX_DEVICES]; /* lock */
static uint32_t has_code; /* atomic; a bit a device */
static uint32_t expected; /* atomic; the same: something may have been taken */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A simulated card answers at once; how long that took is the machine's business. */
static bool is_sim(void)
{
	static int known; /* atomic; 1 no, 2 yes */
	int sim = __atomic_load_n(&known, __ATOMIC_RELAXED);

	if (!sim) {
		sim = emuv_device_is_sim() ? 2 : 1;
		__atomic_store_n(&known, sim, __ATOMIC_RELAXED);
	}
	return sim == 2;
}

static emuv_use_t measure(CUdevice device)
{
	uint64_t begin = now_ns(), cost;
	emuv_use_t use;

	emuv_pools_look(device);
	use = emuv_use_measure(device, true, LOOKS);
	cost = now_ns() - begin;
	pthread_mutex_lock(&lock);
	devices[device].last_ns = begin + cost;
	devices[device].next_ns = begin + cost + (cost > CHEAP_NS ? SHARE * cost : 0);
	pthread_mutex_unlock(&lock);
	return use;
}

static bool may_measure(CUdevice device, uint64_t *last)
{
	uint64_t next;

	pthread_mutex_lock(&lock);
	next = devices[device].next_ns;
	*last = devices[device].last_ns;
	pthread_mutex_unlock(&lock);
	return is_sim() || now_ns() >= next;
}

void emuv_overhead_expect(CUdevice device)
{
	__atomic_fetch_or(&has_code, 1u << device, __ATOMIC_RELAXED);
	__atomic_fetch_or(&expected, 1u << device, __ATOMIC_RELAXED);
}

bool emuv_overhead_begin(CUdevice device, emuv_use_t *before)
{
	uint64_t last;

	if (!may_measure(device, &last))
		return false;
	*before = measure(device);
	return before->known;
}

uint64_t emuv_overhead_loaded(CUdevice device, const emuv_use_t *before)
{
	uint64_t flags;
	uint64_t grown = emuv_use_grown(device, *before, measure(device), &flags);

	if (grown)
		emuv_account_overhead(device, grown, 0, true);
	return grown;
}

/* Uncharges up to `bytes` of what came late. */
static void give_late(CUdevice device, uint64_t bytes)
{
	pthread_mutex_lock(&lock);
	if (bytes > devices[device].late)
		bytes = devices[device].late;
	devices[device].late -= bytes;
	pthread_mutex_unlock(&lock);
	if (bytes)
		emuv_account_overhead_gone(device, bytes);
}

void emuv_overhead_unloaded(CUdevice device, const emuv_use_t *before, uint64_t given)
{
	emuv_use_t after = measure(device);

	/* What was uncharged meanwhile raises the figure by as much. */
	if (after.known && !after.whole_card && !before->whole_card &&
	    before->bytes + (int64_t)given > after.bytes)
		give_late(device, (uint64_t)(before->bytes + (int64_t)given - after.bytes));
}

bool emuv_overhead_due(CUdevice device)
{
	uint32_t bit = 1u << device;
	uint64_t last;

	return __atomic_load_n(&has_code, __ATOMIC_RELAXED) & bit && may_measure(device, &last) &&
	       (__atomic_load_n(&expected, __ATOMIC_RELAXED) & bit || is_sim() ||
		now_ns() - last >= AGAIN_NS);
}

void emuv_overhead_settle(CUdevice device)
{
	const uint64_t *movable = &emuv_account_segment()->device[device].movable_bytes;
	emuv_use_t use;

	if (!emuv_overhead_due(device))
		return;
	__atomic_fetch_and(&expected, ~(1u << device), __ATOMIC_RELAXED);
	use = measure(device);
	if (!use.known || use.whole_card)
		return;
	/*
	 * More in use than is charged is the driver's doing, of whatever kind.  Less says
	 * nothing where managed memory of the program's own is charged, which need not be
	 * there; else what came late has gone.
	 */
	if (use.bytes <= 0) {
		if (use.bytes && !__atomic_load_n(movable, __ATOMIC_RELAXED))
			give_late(device, (uint64_t)-use.bytes);
		return;
	}
	/* Charged first: another thread may give back what it finds noted. */
	emuv_account_overhead(device, (uint64_t)use.bytes, 0, true);
	pthread_mutex_lock(&lock);
	devices[device].late += (uint64_t)use.bytes;
	pthread_mutex_unlock(&lock);
}

void emuv_overhead_ends(CUdevice device)
{
	give_late(device, UINT64_MAX);
}

void emuv_overhead_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	memcpy(&lock, &fresh, sizeof lock);
	memset(devices, 0, sizeof devices);
	has_code = expected = 0;
}
