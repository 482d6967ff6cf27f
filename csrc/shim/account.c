/* SPDX-License-Identifier: GPL-2.0-only */
#include "account.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "emuv_segment_file.h"
#include "message.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static emuv_ledger_t ledger;
static emuv_budget_device_t devices[EMUV_MAX_DEVICES];
static uint64_t applied_generation;
static uint32_t allocation;
static uint64_t last_serial; /* of entries, in the order of entering */
static uint32_t over; /* atomic; bit i: device i's resident heads exceed its vram */
static uint64_t leaving[EMUV_MAX_DEVICES]; /* charged as resident, on their way to the host */
static bool said_spill, said_denial;

/* Publishing goes here until the process has a segment file, and if it never gets one. */
static emuv_segment_t private_segment;
static emuv_segment_t *segment = &private_segment;

/* ---- publishing; lock held ---- */

/* Copies the device's counters out, but for calls[], which is counted in place. */
static void publish(CUdevice device)
{
	const uint64_t *from = (const uint64_t *)&devices[device].counters;
	uint64_t *to = (uint64_t *)&segment->device[device];
	uint64_t seq = segment->counters_seq;

	__atomic_store_n(&segment->counters_seq, seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (size_t i = 0; i < offsetof(emuv_device_counters_t, reserved) / sizeof *from; i++)
		__atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
	__atomic_store_n(&segment->applied_generation, applied_generation, __ATOMIC_RELAXED);
	__atomic_store_n(&segment->counters_seq, seq + 2, __ATOMIC_RELEASE);
}

/* What is charged as being on the device and not on its way to the host. */
static uint64_t staying(CUdevice device)
{
	return emuv_budget_physical(&devices[device]) - leaving[device];
}

/* After vram fell or a head came back: does some of the heads have to leave? */
static void weigh(CUdevice device)
{
	const emuv_budget_device_t *d = &devices[device];

	if (d->counters.resident_bytes > leaving[device] && staying(device) > d->vram)
		__atomic_fetch_or(&over, 1u << device, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&over, ~(1u << device), __ATOMIC_RELAXED);
}

static void apply(const emuv_control_t *control)
{
	for (int i = 0; i < EMUV_MAX_DEVICES; i++) {
		emuv_budget_device_t *d = &devices[i];

		d->vram = control->budget[i].vram_bytes;
		d->virtual_bytes = control->budget[i].virtual_bytes;
		d->policy = control->policy;
		weigh(i);
	}
	__atomic_store_n(&allocation, control->allocation, __ATOMIC_RELAXED);
}

/* Takes up what a controller wrote; one atomic load when it wrote nothing. */
static void refresh(CUdevice device)
{
	uint64_t generation = __atomic_load_n(&segment->control.generation, __ATOMIC_ACQUIRE);
	emuv_control_t control;

	if (generation == applied_generation)
		return;
	/* A controller in the middle of writing is looked at again at the next call. */
	if (emuv_control_read(&segment->control, &control))
		return;
	/* Bytes from outside: what makes no sense is not taken up. */
	if (control.policy > EMUV_POLICY_SPILL || control.allocation > EMUV_ALLOCATION_EAGER)
		return;
	apply(&control);
	__atomic_store_n(&applied_generation, control.generation, __ATOMIC_RELAXED);
	publish(device);
}

/* ---- allocations ---- */

bool emuv_account_reserve(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant)
{
	bool granted = false;

	pthread_mutex_lock(&lock);
	refresh(device);
	if (!emuv_ledger_promise(&ledger)) {
		granted = emuv_budget_reserve(&devices[device], bytes, how, grant);
		if (granted)
			publish(device);
		else
			emuv_ledger_unpromise(&ledger);
	}
	pthread_mutex_unlock(&lock);
	return granted;
}

void emuv_account_denied(CUdevice device, uint64_t bytes)
{
	char asked[32], free_text[32], vram[32];
	uint64_t free_bytes, vram_bytes;
	bool first;

	pthread_mutex_lock(&lock);
	emuv_budget_denied(&devices[device], bytes);
	publish(device);
	free_bytes = emuv_budget_free(&devices[device]);
	vram_bytes = devices[device].vram;
	first = !said_denial;
	said_denial = true;
	pthread_mutex_unlock(&lock);
	if (first)
		emuv_say("device %d: refused %s, %s left of the budget (vram %s); "
			 "counted from here on", device, emuv_size_text(bytes, asked),
			 emuv_size_text(free_bytes, free_text), emuv_size_text(vram_bytes, vram));
}

static emuv_grant_t grant_of(const emuv_entry_t *entry)
{
	return (emuv_grant_t){ entry->placement, entry->bytes, entry->resident };
}

/* Lock held.  The driver gave out a key that was still on the books: the old
 * entry is gone (freed in a way emuV does not see), and so is its charge. */
static void enter(emuv_entry_t *entry)
{
	emuv_entry_t old;

	/* What is restored keeps its age: it is as old as its context's other memory. */
	if (!entry->serial)
		entry->serial = ++last_serial;
	if (emuv_ledger_insert(&ledger, entry, &old)) {
		emuv_grant_t gone = grant_of(&old);

		emuv_budget_release(&devices[old.device], &gone);
		if (old.placement != EMUV_PLACED_NOWHERE)
			devices[old.device].counters.live_allocations--;
		if (old.device != entry->device)
			publish(old.device);
	}
	/* vram may have been lowered while this head was not on the books. */
	if (entry->resident)
		weigh(entry->device);
}

void emuv_account_commit(CUdevice device, const emuv_grant_t *grant, emuv_entry_t *entry,
			 bool card_full)
{
	bool spilled = grant->placement == EMUV_PLACED_MANAGED;
	bool first;

	entry->bytes = grant->bytes;
	entry->resident = grant->resident;
	entry->placement = (uint8_t)grant->placement;
	entry->device = (int16_t)device;
	pthread_mutex_lock(&lock);
	enter(entry);
	devices[device].counters.live_allocations++;
	emuv_budget_held(&devices[device]);
	if (spilled)
		emuv_budget_spilled(&devices[device], grant, card_full);
	first = spilled && !said_spill;
	said_spill |= spilled;
	publish(device);
	pthread_mutex_unlock(&lock);
	if (first) {
		char bytes[32], resident[32];

		emuv_say("device %d: first spill: %s go to host memory (%s of it kept on the "
			 "device); counted from here on", device,
			 emuv_size_text(grant->bytes, bytes),
			 emuv_size_text(grant->resident, resident));
	}
}

void emuv_account_roll_back(CUdevice device, const emuv_grant_t *grant)
{
	pthread_mutex_lock(&lock);
	emuv_ledger_unpromise(&ledger);
	emuv_budget_release(&devices[device], grant);
	publish(device);
	pthread_mutex_unlock(&lock);
}

/* ---- frees ---- */

bool emuv_account_take(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry)
{
	bool found;

	pthread_mutex_lock(&lock);
	found = emuv_ledger_take(&ledger, kind, key, entry);
	/* The room stays promised: a restore cannot fail. */
	if (found)
		ledger.promised++;
	pthread_mutex_unlock(&lock);
	return found;
}

/* Lock held: uncharges an entry that has left the ledger. */
static void uncharge(const emuv_entry_t *entry)
{
	emuv_budget_device_t *d = &devices[entry->device];
	emuv_grant_t grant = grant_of(entry);

	emuv_budget_release(d, &grant);
	if (entry->placement != EMUV_PLACED_NOWHERE)
		d->counters.live_allocations--;
	publish(entry->device);
}

void emuv_account_freed(const emuv_entry_t *entry)
{
	pthread_mutex_lock(&lock);
	emuv_ledger_unpromise(&ledger);
	uncharge(entry);
	pthread_mutex_unlock(&lock);
}

void emuv_account_restore(const emuv_entry_t *entry)
{
	emuv_entry_t copy = *entry;

	pthread_mutex_lock(&lock);
	enter(&copy);
	pthread_mutex_unlock(&lock);
}

bool emuv_account_extend(CUdevice device, emuv_grant_t *grant, uint64_t bytes)
{
	emuv_grant_t more;
	bool granted;

	pthread_mutex_lock(&lock);
	granted = emuv_budget_reserve(&devices[device], bytes, 0, &more);
	if (granted)
		grant->bytes += bytes;
	publish(device);
	pthread_mutex_unlock(&lock);
	return granted;
}

void emuv_account_handle_more(uint64_t handle, uint64_t id, CUdevice device)
{
	emuv_entry_t fresh = {
		.kind = EMUV_KIND_VMM_HANDLE, .key = handle, .link = id,
		.device = (int16_t)device, .placement = EMUV_PLACED_NOWHERE,
	};
	emuv_entry_t *found;

	pthread_mutex_lock(&lock);
	found = emuv_ledger_find(&ledger, EMUV_KIND_VMM_HANDLE, handle);
	if (found && found->link == id)
		found->references++;
	else if (!emuv_ledger_promise(&ledger))
		enter(&fresh);
	/* Else the handle stays unknown and its memory charged: too much, never too little. */
	pthread_mutex_unlock(&lock);
}

bool emuv_account_handle_less(uint64_t handle, emuv_entry_t *entry, bool *last)
{
	emuv_entry_t *found;

	pthread_mutex_lock(&lock);
	found = emuv_ledger_find(&ledger, EMUV_KIND_VMM_HANDLE, handle);
	if (found) {
		*entry = *found;
		*last = found->references == 0;
		if (*last) {
			emuv_ledger_take(&ledger, EMUV_KIND_VMM_HANDLE, handle, entry);
			ledger.promised++;
		} else {
			found->references--;
		}
	}
	pthread_mutex_unlock(&lock);
	return found != NULL;
}

bool emuv_account_look(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry)
{
	const emuv_entry_t *found;

	pthread_mutex_lock(&lock);
	found = emuv_ledger_find(&ledger, kind, key);
	if (found)
		*entry = *found;
	pthread_mutex_unlock(&lock);
	return found != NULL;
}

int emuv_account_note(const emuv_entry_t *entry)
{
	emuv_entry_t copy = *entry;
	int error;

	copy.placement = EMUV_PLACED_NOWHERE;
	pthread_mutex_lock(&lock);
	error = emuv_ledger_promise(&ledger);
	if (!error)
		enter(&copy);
	pthread_mutex_unlock(&lock);
	return error;
}

uint32_t emuv_account_refer(enum emuv_kind kind, uint64_t key, int change)
{
	emuv_entry_t *found, gone;
	uint32_t left = 0;

	pthread_mutex_lock(&lock);
	found = emuv_ledger_find(&ledger, kind, key);
	if (found) {
		found->references += (uint32_t)change;
		left = found->references;
		if (!left && emuv_ledger_take(&ledger, kind, key, &gone))
			uncharge(&gone);
	}
	pthread_mutex_unlock(&lock);
	return left;
}

uint64_t emuv_account_mapping(uint64_t address)
{
	uint64_t id = 0;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < ledger.n_entries && !id; i++) {
		const emuv_entry_t *entry = &ledger.entries[i];

		if (entry->kind == EMUV_KIND_VMM_MAPPING && address >= entry->key &&
		    address - entry->key < entry->bytes)
			id = entry->link;
	}
	pthread_mutex_unlock(&lock);
	return id;
}

/* ---- contexts ---- */

typedef struct {
	uint64_t context, mark;
} owner_t;

static bool owned_by(const emuv_entry_t *entry, const void *argument)
{
	const owner_t *owner = argument;

	return entry->context == owner->context && entry->serial <= owner->mark &&
	       !(entry->flags & EMUV_ENTRY_STREAM_ORDER);
}

static void uncharge_each(const emuv_entry_t *entry, void *state)
{
	(void)state;
	uncharge(entry);
}

uint64_t emuv_account_mark(void)
{
	uint64_t mark;

	pthread_mutex_lock(&lock);
	mark = last_serial;
	pthread_mutex_unlock(&lock);
	return mark;
}

void emuv_account_context_gone(CUcontext context, uint64_t mark)
{
	const owner_t owner = { (uint64_t)(uintptr_t)context, mark };

	if (!context)
		return;
	pthread_mutex_lock(&lock);
	emuv_ledger_take_all(&ledger, owned_by, uncharge_each, &owner, NULL);
	pthread_mutex_unlock(&lock);
}

bool emuv_account_overhead(CUdevice device, uint64_t bytes, uint64_t flags, bool owed)
{
	emuv_budget_device_t *d = &devices[device];
	bool fits;

	pthread_mutex_lock(&lock);
	refresh(device);
	fits = emuv_budget_overhead(d, bytes);
	if (!fits && owed) {
		fits = true;
		d->counters.overhead_bytes += bytes;
		emuv_budget_held(d);
		weigh(device); /* heads make room for it */
	}
	d->counters.flags |= flags;
	publish(device);
	pthread_mutex_unlock(&lock);
	return fits;
}

void emuv_account_overhead_gone(CUdevice device, uint64_t bytes)
{
	pthread_mutex_lock(&lock);
	devices[device].counters.overhead_bytes -= bytes;
	publish(device);
	pthread_mutex_unlock(&lock);
}

/* ---- residency ---- */

void emuv_account_hints(CUdevice device, uint64_t advised, uint64_t to_device, uint64_t to_host)
{
	emuv_device_counters_t *c = &devices[device].counters;

	pthread_mutex_lock(&lock);
	c->advised_bytes += advised;
	c->prefetch_device_bytes += to_device;
	c->prefetch_host_bytes += to_host;
	publish(device);
	pthread_mutex_unlock(&lock);
}

bool emuv_account_over(CUdevice device)
{
	if (__atomic_load_n(&segment->control.generation, __ATOMIC_ACQUIRE) !=
	    __atomic_load_n(&applied_generation, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&lock);
		refresh(device);
		pthread_mutex_unlock(&lock);
	}
	return __atomic_load_n(&over, __ATOMIC_RELAXED) & (1u << device);
}

size_t emuv_account_demote(CUdevice device, emuv_entry_t *pieces, size_t max)
{
	emuv_budget_device_t *d = &devices[device];
	uint64_t excess;
	size_t n = 0;

	pthread_mutex_lock(&lock);
	excess = staying(device) > d->vram ? staying(device) - d->vram : 0;
	for (size_t i = 0; i < ledger.n_entries && n < max && excess; i++) {
		emuv_entry_t *entry = &ledger.entries[i];
		uint64_t give;

		if (entry->kind != EMUV_KIND_MEMORY || entry->device != device || !entry->resident)
			continue;
		/* The tail of the head goes first, in whole blocks. */
		give = (excess + EMUV_BLOCK_BYTES - 1) / EMUV_BLOCK_BYTES * EMUV_BLOCK_BYTES;
		if (give > entry->resident)
			give = entry->resident;
		entry->resident -= give;
		leaving[device] += give;
		pieces[n] = *entry;
		pieces[n].link = entry->key;
		pieces[n].key += entry->resident;
		pieces[n++].bytes = give;
		excess -= give < excess ? give : excess;
	}
	if (n < max)
		__atomic_fetch_and(&over, ~(1u << device), __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
	return n;
}

void emuv_account_demoted(const emuv_entry_t *piece, bool moved)
{
	emuv_device_counters_t *c = &devices[piece->device].counters;
	emuv_entry_t *entry;

	pthread_mutex_lock(&lock);
	leaving[piece->device] -= piece->bytes;
	entry = emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, piece->link);
	if (!moved && entry && entry->serial == piece->serial)
		entry->resident += piece->bytes;
	else
		/* Moved, or freed meanwhile, which a driver answers with an error too. */
		c->resident_bytes -= piece->bytes;
	if (moved)
		c->prefetch_host_bytes += piece->bytes;
	else
		weigh(piece->device); /* the next call tries again */
	publish(piece->device);
	pthread_mutex_unlock(&lock);
}

/* ---- reports ---- */

void emuv_account_report(CUdevice device, emuv_report_t *report)
{
	emuv_budget_device_t *d = &devices[device];

	pthread_mutex_lock(&lock);
	refresh(device);
	*report = (emuv_report_t){
		.visible = emuv_budget_visible(d),
		.free = emuv_budget_free(d),
		.vram = d->vram,
		.room = emuv_budget_room(d),
		.policy = d->policy,
	};
	pthread_mutex_unlock(&lock);
}

bool emuv_account_physical(CUdevice device, uint64_t *bytes, uint64_t *version)
{
	bool quiet;

	pthread_mutex_lock(&lock);
	*bytes = emuv_budget_physical(&devices[device]);
	*version = segment->counters_seq; /* every change is published */
	quiet = ledger.promised == 0;
	pthread_mutex_unlock(&lock);
	return quiet;
}

void emuv_account_call(CUdevice device, int function)
{
	__atomic_fetch_add(&segment->device[device].calls[function], 1, __ATOMIC_RELAXED);
}

void emuv_account_uncounted(CUdevice device)
{
	pthread_mutex_lock(&lock);
	devices[device].counters.uncounted_calls++;
	publish(device);
	pthread_mutex_unlock(&lock);
}

bool emuv_account_eager(void)
{
	return __atomic_load_n(&allocation, __ATOMIC_RELAXED) == EMUV_ALLOCATION_EAGER;
}

/* ---- start and fork ---- */

void emuv_account_start(const emuv_config_t *config, emuv_segment_t *shared, int n_devices)
{
	pthread_mutex_lock(&lock);
	segment = shared ? shared : &private_segment;
	if (!shared)
		segment->control = config->control;
	/* What a controller has written since the file got its name counts as news. */
	applied_generation = config->control.generation;
	apply(&config->control);
	for (int i = 0; i < n_devices; i++)
		publish(i);
	pthread_mutex_unlock(&lock);
}

void emuv_account_card(CUdevice device, uint64_t card_bytes, uint64_t pci, bool can_spill)
{
	pthread_mutex_lock(&lock);
	devices[device].counters.card_bytes = card_bytes;
	devices[device].counters.pci = pci;
	devices[device].counters.flags |= EMUV_DEVICE_SEEN;
	devices[device].can_spill = can_spill;
	publish(device);
	pthread_mutex_unlock(&lock);
}

/*
 * The child holds nothing: CUDA does not survive fork.  What the parent's table
 * occupies is leaked (copy-on-write, never touched), and the parent's segment
 * must not be written again; lifecycle.c unmaps it.
 */
void emuv_account_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	memcpy(&lock, &fresh, sizeof lock);
	emuv_ledger_forget(&ledger);
	memset(devices, 0, sizeof devices);
	memset(leaving, 0, sizeof leaving);
	memset(&private_segment, 0, sizeof private_segment);
	segment = &private_segment;
	applied_generation = 0;
	over = 0;
	said_spill = said_denial = false;
}

emuv_segment_t *emuv_account_segment(void)
{
	return segment;
}
