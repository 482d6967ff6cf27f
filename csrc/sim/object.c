/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The handle table: which pointers are live objects, and of what kind.
 *
 * Invariants
 *   - A set of addresses (open addressing, linear probing, at most half full, NULL
 *     free, deletion by moving later entries up): a handle is looked up before it
 *     is ever dereferenced.
 *   - sim_lock guards all of it.
 */
#include <stdlib.h>

#include "internal.h"

static sim_object_t **slots;
static size_t slot_count, live; /* slot_count: 0 or a power of two */

static size_t home(const void *object)
{
	/* Fibonacci hashing; allocations differ in the bits above 4. */
	return (size_t)(((uintptr_t)object >> 4) * 0x9e3779b97f4a7c15ULL >> 20) & (slot_count - 1);
}

static void put(sim_object_t *object)
{
	size_t at = home(object);

	while (slots[at])
		at = (at + 1) & (slot_count - 1);
	slots[at] = object;
}

static bool grow(void)
{
	size_t old_count = slot_count;
	sim_object_t **old = slots, **bigger = calloc(old_count ? old_count * 2 : 256, sizeof(*old));

	if (!bigger)
		return false;
	slots = bigger;
	slot_count = old_count ? old_count * 2 : 256;
	for (size_t i = 0; i < old_count; i++)
		if (old[i])
			put(old[i]);
	free(old);
	return true;
}

bool sim_object_enter(void *object)
{
	if (live * 2 >= slot_count && !grow())
		return false;
	put(object);
	live++;
	return true;
}

void *sim_object_new(sim_kind_t kind, size_t bytes, struct sim_context *context)
{
	sim_object_t *object = calloc(1, bytes);

	if (!object)
		return NULL;
	object->kind = kind;
	object->context = context;
	if (!sim_object_enter(object)) {
		free(object);
		return NULL;
	}
	return object;
}

void sim_object_leave(void *object)
{
	size_t at = home(object), next;

	while (slots[at] != object) {
		if (!slots[at])
			return;
		at = (at + 1) & (slot_count - 1);
	}
	live--;
	/* Close the gap: an entry may move to `at` unless its home lies behind it. */
	for (next = at;;) {
		next = (next + 1) & (slot_count - 1);
		if (!slots[next])
			break;
		if (((next - home(slots[next])) & (slot_count - 1)) >=
		    ((next - at) & (slot_count - 1))) {
			slots[at] = slots[next];
			at = next;
		}
	}
	slots[at] = NULL;
}

void sim_object_delete(void *object)
{
	sim_object_leave(object);
	free(object);
}

void *sim_object_get(const void *handle, sim_kind_t kind)
{
	if (!handle || !slot_count)
		return NULL;
	for (size_t at = home(handle); slots[at]; at = (at + 1) & (slot_count - 1))
		if (slots[at] == handle)
			return slots[at]->kind == kind ? slots[at] : NULL;
	return NULL;
}

/*
 * Deletion moves entries, so the walk is over a copy; an object that an earlier
 * visit deleted is no longer in the table and is passed over.
 */
void sim_object_each(sim_kind_t kind, void (*visit)(void *object, void *argument), void *argument)
{
	sim_object_t **copy = live ? malloc(live * sizeof(sim_object_t *)) : NULL;
	size_t count = 0;

	if (!copy)
		return;
	for (size_t i = 0; i < slot_count; i++)
		if (slots[i] && slots[i]->kind == kind)
			copy[count++] = slots[i];
	for (size_t i = 0; i < count; i++)
		if (sim_object_get(copy[i], kind))
			visit(copy[i], argument);
	free(copy);
}
