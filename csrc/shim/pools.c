/* SPDX-License-Identifier: GPL-2.0-only */
#include "pools.h"

#include <string.h>

#include "graphs.h"
#include "pause.h"
#include "real.h"
#include "relaxed.h"

/* What emuv_entry_t.link of a pool's entry says: where its memory comes from, and its number. */
enum source { FROM_HOST, FROM_DEVICE, MANAGED_ON_DEVICE, MANAGED_ANYWHERE };
#define SLOT_SHIFT 8

/* ---- which pool is which ---- */

static bool reserved_by(uint64_t pool, uint64_t *bytes)
{
	cuuint64_t value = 0;
	bool known = !g_real.cuMemPoolGetAttribute((CUmemoryPool)(uintptr_t)pool,
						   CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value);

	*bytes = value;
	return known;
}

/* A pool that emuV has not met: the default one of which device?  (Imported ones allocate nothing.) */
static bool default_of(CUmemoryPool pool, CUdevice *device)
{
	CUmemoryPool candidate;
	int n = 0;

	g_real.cuDeviceGetCount(&n);
	for (int i = 0; i < n && i < EMUV_MAX_DEVICES; i++)
		if (!g_real.cuDeviceGetDefaultMemPool(&candidate, i) && candidate == pool) {
			*device = i;
			return true;
		}
	return false;
}

static enum source source_of(const CUmemPoolProps *props)
{
	bool on_device = props->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
			 props->location.id >= 0 && props->location.id < EMUV_MAX_DEVICES;

	/* Managed memory goes where it is touched, whatever location is preferred. */
	if (props->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED)
		return on_device ? MANAGED_ON_DEVICE : MANAGED_ANYWHERE;
	return on_device ? FROM_DEVICE : FROM_HOST;
}

void emuv_pools_note(CUmemoryPool pool, const CUmemPoolProps *props)
{
	enum source source = source_of(props);
	CUdevice device = source == FROM_DEVICE || source == MANAGED_ON_DEVICE ?
				  props->location.id : 0;
	uint64_t handle = (uint64_t)(uintptr_t)pool;
	uint64_t reserved = 0;
	unsigned int slot = 0;
	emuv_entry_t entry = {
		.key = handle, .kind = EMUV_KIND_POOL, .device = (int16_t)device,
	};

	/* A driver that does not say what a pool has reserved keeps its pools to itself. */
	if (source == FROM_DEVICE && reserved_by(handle, &reserved)) {
		slot = emuv_account_pool_new(handle, device);
		if (!slot)
			emuv_account_uncounted(device);
	}
	entry.link = source | (uint64_t)slot << SLOT_SHIFT;
	emuv_account_note(&entry);
	if (reserved)
		emuv_pools_look(device);
}

void emuv_pools_met(CUmemoryPool pool, const CUmemPoolProps *props)
{
	emuv_entry_t entry;

	if (!emuv_account_look(EMUV_KIND_POOL, (uint64_t)(uintptr_t)pool, &entry))
		emuv_pools_note(pool, props);
}

unsigned int emuv_pools_slot(const emuv_entry_t *entry)
{
	return (unsigned int)(entry->link >> SLOT_SHIFT);
}

bool emuv_pools_of(CUmemoryPool pool, CUdevice *device, unsigned int *slot, bool *managed)
{
	emuv_entry_t entry;
	enum source source;

	*slot = 0;
	*managed = false;
	if (!emuv_account_look(EMUV_KIND_POOL, (uint64_t)(uintptr_t)pool, &entry)) {
		CUmemPoolProps props = {
			.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
			.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
		};

		if (!default_of(pool, &props.location.id))
			return true;
		emuv_pools_note(pool, &props);
		if (!emuv_account_look(EMUV_KIND_POOL, (uint64_t)(uintptr_t)pool, &entry))
			return true;
	}
	source = entry.link & ((1u << SLOT_SHIFT) - 1);
	*slot = emuv_pools_slot(&entry);
	*managed = source == MANAGED_ON_DEVICE || source == MANAGED_ANYWHERE;
	if (source == FROM_DEVICE || source == MANAGED_ON_DEVICE)
		*device = entry.device;
	return source != FROM_HOST;
}

/* One more than the number of each device's current pool; 0: not known. */
static unsigned int current[EMUV_MAX_DEVICES]; /* atomic */
static unsigned int changes;                   /* atomic */

unsigned int emuv_pools_current(CUdevice device)
{
	unsigned int known = __atomic_load_n(&current[device], __ATOMIC_ACQUIRE);
	unsigned int before, slot = 0;
	CUdevice ignored = device;
	CUmemoryPool pool;
	bool managed;

	if (known)
		return known - 1;
	before = __atomic_load_n(&changes, __ATOMIC_ACQUIRE);
	if (!g_real.cuDeviceGetMemPool(&pool, device))
		emuv_pools_of(pool, &ignored, &slot, &managed);
	/* What changed meanwhile is asked for again by the next allocation. */
	if (__atomic_load_n(&changes, __ATOMIC_ACQUIRE) == before)
		__atomic_store_n(&current[device], slot + 1, __ATOMIC_RELEASE);
	return slot;
}

void emuv_pools_current_changes(void)
{
	__atomic_fetch_add(&changes, 1, __ATOMIC_ACQ_REL);
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		__atomic_store_n(&current[i], 0, __ATOMIC_RELEASE);
}

/* Devices whose pools could not release at once what they grew too far by. */
static uint32_t owing; /* atomic; by bit */

void emuv_pools_fork_child(void)
{
	memset(current, 0, sizeof current);
	owing = 0;
}

/* ---- what they keep ---- */

bool emuv_pools_graph_reserved(CUdevice device, uint64_t *bytes)
{
	cuuint64_t value = 0;
	bool known = !g_real.cuDeviceGetGraphMemAttribute(
		device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &value);

	*bytes = value;
	return known;
}

/* Graphs have reserved more than those that live are associated with. */
static bool graphs_spare(CUdevice device)
{
	cuuint64_t used = 0;
	uint64_t reserved;

	return emuv_pools_graph_reserved(device, &reserved) &&
	       !g_real.cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT,
						    &used) &&
	       reserved > used;
}

static void look_at_graphs(CUdevice device)
{
	uint32_t answers = emuv_account_graph_answers(device);
	uint64_t reserved;

	if (emuv_account_graph(device) && emuv_pools_graph_reserved(device, &reserved))
		emuv_account_graph_seen(device, 0, answers, &reserved);
}

void emuv_pools_look(CUdevice device)
{
	emuv_pool_look_t looks[8];
	unsigned int next = 0;
	uint64_t reserved;
	size_t n;

	while ((n = emuv_account_pools(device, &next, looks, sizeof looks / sizeof *looks)))
		for (size_t i = 0; i < n; i++) {
			bool known = reserved_by(looks[i].handle, &reserved);

			emuv_account_pool_seen(&looks[i], known ? &reserved : NULL);
		}
	look_at_graphs(device);
}

/* ---- giving it back ---- */

/* Has pools release `wanted` bytes, or what they can.  A trim waits for nothing. */
static void trim_pools(CUdevice device, uint64_t wanted)
{
	emuv_pool_look_t looks[8];
	unsigned int next = 0;
	uint64_t reserved;
	size_t n;

	while ((n = emuv_account_pools(device, &next, looks, sizeof looks / sizeof *looks)))
		for (size_t i = 0; i < n; i++) {
			emuv_pool_look_t *look = &looks[i];
			CUmemoryPool pool = (CUmemoryPool)(uintptr_t)look->handle;
			uint64_t give = wanted < look->reserved ? wanted : look->reserved;
			bool known = false;

			if (wanted && look->kept) {
				g_real.cuMemPoolTrimTo(pool, look->reserved - give);
				known = reserved_by(look->handle, &reserved);
			}
			if (known && reserved < look->reserved)
				wanted -= look->reserved - reserved < wanted ?
						  look->reserved - reserved : wanted;
			emuv_account_pool_seen(look, known ? &reserved : NULL);
		}
}

/* What is wanted: an allocation, or (grant NULL) memory for a graph. */
static bool reserve(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	if (!grant)
		return emuv_account_graph_reserve(device, bytes);
	how |= EMUV_BEFORE_SPILL;
	return emuv_account_reserve(device, bytes, how, grant) ||
	       (how >> EMUV_POOL_SHIFT &&
		emuv_account_reserve(device, bytes, how | EMUV_ESTIMATE, grant));
}

/* What the program has freed and streams have not come to yet, by the driver's word. */
static uint64_t pending(CUdevice device)
{
	emuv_pool_look_t looks[8];
	unsigned int next = 0;
	uint64_t sum = 0;
	size_t n;

	while ((n = emuv_account_pools(device, &next, looks, sizeof looks / sizeof *looks)))
		for (size_t i = 0; i < n; i++) {
			uint64_t live = looks[i].reserved - looks[i].kept;
			cuuint64_t used = 0;

			if (looks[i].kept &&
			    !g_real.cuMemPoolGetAttribute((CUmemoryPool)(uintptr_t)looks[i].handle,
							  CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) &&
			    used > live)
				sum += used - live;
			emuv_account_pool_seen(&looks[i], NULL);
		}
	return sum;
}

#define PENDING_TRIES 10000 /* of 100 µs */

/* Waits for frees that will make room, as a driver does when it is full, but not for ever. */
static bool wait_for_frees(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	for (int i = 0; i < PENDING_TRIES; i++) {
		emuv_report_t report;
		uint64_t need;

		emuv_account_report(device, &report);
		need = emuv_account_excess(device) + (bytes > report.room ? bytes - report.room : 0);
		if (!need || pending(device) < need)
			break;
		emuv_pause_us(100);
		trim_pools(device, need);
		if (reserve(device, bytes, how, grant))
			return true;
	}
	/* The last of them may have come to pass between the last trim and the last look. */
	trim_pools(device, bytes);
	return reserve(device, bytes, how, grant);
}

static bool make_room(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	emuv_report_t report;
	bool spills;

	emuv_pools_look(device);
	if (reserve(device, bytes, how, grant))
		return true;
	emuv_account_report(device, &report);
	/* Of no use where all of that would be too little. */
	if (bytes > report.vram || (report.visible != EMUV_UNLIMITED && bytes > report.free &&
				    bytes - report.free > emuv_account_graph(device)))
		return false;
	trim_pools(device, emuv_account_excess(device) +
			   (bytes > report.room ? bytes - report.room : bytes));
	if (reserve(device, bytes, how, grant))
		return true;
	/*
	 * The last resort, as graphs that are launched again must have it mapped again:
	 * a spill comes before what graphs that live are associated with.
	 */
	spills = how & EMUV_MAY_SPILL && report.policy == EMUV_POLICY_SPILL && bytes <= report.free;
	if (emuv_account_graph(device) && (!spills || graphs_spare(device)) &&
	    !g_real.cuDeviceGraphMemTrim(device)) {
		emuv_graphs_trimmed(device);
		look_at_graphs(device);
		if (reserve(device, bytes, how, grant))
			return true;
	}
	return !spills && wait_for_frees(device, bytes, how, grant);
}

bool emuv_pools_make_room(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	int mode = emuv_relaxed_enter();
	bool granted = make_room(device, bytes, how, grant);

	emuv_relaxed_leave(mode);
	return granted;
}

bool emuv_pools_make_graph_room(CUdevice device, uint64_t bytes)
{
	return emuv_account_graph_reserve(device, bytes) ||
	       emuv_pools_make_room(device, bytes, 0, NULL);
}

/* Whether all is within vram, once pools have released what is beyond it. */
static bool trimmed_to_fit(CUdevice device)
{
	int mode;

	emuv_pools_look(device);
	if (!emuv_account_excess(device))
		return true;
	mode = emuv_relaxed_enter();
	trim_pools(device, emuv_account_excess(device));
	emuv_relaxed_leave(mode);
	return !emuv_account_excess(device);
}

bool emuv_pools_fits(CUdevice device, emuv_grant_t *grant)
{
	bool fits;

	emuv_account_pool_grown(grant);
	/* It may have grown although it kept enough; what it keeps elsewhere makes up for that. */
	fits = trimmed_to_fit(device);
	if (!fits)
		__atomic_fetch_or(&owing, 1u << device, __ATOMIC_RELAXED);
	return fits;
}

void emuv_pools_settle(void)
{
	uint32_t devices = __atomic_load_n(&owing, __ATOMIC_RELAXED);

	if (__builtin_expect(!devices, 1))
		return;
	/* Those that another thread finds from here on are not these. */
	devices = __atomic_exchange_n(&owing, 0, __ATOMIC_RELAXED);
	for (CUdevice i = 0; i < EMUV_MAX_DEVICES; i++)
		/* Where no stream has a free to come to, nothing is to be expected. */
		if (devices >> i & 1 && !trimmed_to_fit(i) && pending(i))
			__atomic_fetch_or(&owing, 1u << i, __ATOMIC_RELAXED);
}
