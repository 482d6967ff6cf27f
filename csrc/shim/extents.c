/* SPDX-License-Identifier: GPL-2.0-only */
#include "extents.h"

#include <stdlib.h>
#include <string.h>

emuv_extents_t *emuv_extents_new(uint32_t capacity)
{
	emuv_extents_t *map = malloc(sizeof *map + capacity * sizeof *map->at);

	if (map) {
		memset(map, 0, sizeof *map);
		map->capacity = capacity;
	}
	return map;
}

void emuv_extents_copy(emuv_extents_t *to, const emuv_extents_t *from)
{
	to->version = from->version;
	to->count = from->count;
	memcpy(to->at, from->at, from->count * sizeof *from->at);
}

/* The first run that ends after `block`; count: none. */
static uint32_t first_after(const emuv_extents_t *map, uint32_t block)
{
	uint32_t low = 0, high = map->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (map->at[middle].end > block)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

emuv_extent_t emuv_extents_run(const emuv_extents_t *map, uint32_t from, uint32_t limit)
{
	uint32_t i = first_after(map, from);
	emuv_extent_t run = { .start = from, .end = limit };

	if (i == map->count)
		return run;
	if (map->at[i].start > from) {
		run.end = map->at[i].start < limit ? map->at[i].start : limit;
		return run;
	}
	run = map->at[i];
	run.start = from;
	if (run.end > limit)
		run.end = limit;
	return run;
}

/* Takes n_old runs from index i out and puts n_new in their place. */
static void splice(emuv_extents_t *map, uint32_t i, uint32_t n_old, const emuv_extent_t *new,
		   uint32_t n_new)
{
	memmove(&map->at[i + n_new], &map->at[i + n_old],
		(map->count - i - n_old) * sizeof *map->at);
	memcpy(&map->at[i], new, n_new * sizeof *new);
	map->count += n_new - n_old;
}

void emuv_extents_set(emuv_extents_t *map, uint32_t start, uint32_t end, uint64_t tag,
		      uint64_t owner)
{
	emuv_extent_t new[3], middle = { start, end, tag, owner };
	uint32_t n_new = 0, first, last;

	if (start >= end)
		return;
	/* What it touches or borders on: [first, last). */
	first = first_after(map, start ? start - 1 : 0);
	for (last = first; last < map->count && map->at[last].start <= end; last++)
		;
	if (first < last && map->at[first].start < start) {
		emuv_extent_t before = map->at[first];

		if (before.tag == tag) {
			middle.start = before.start;
		} else {
			before.end = before.end < start ? before.end : start;
			new[n_new++] = before;
		}
	}
	if (first < last && map->at[last - 1].end > end) {
		emuv_extent_t after = map->at[last - 1];

		if (after.tag == tag)
			middle.end = after.end;
		if (tag)
			new[n_new++] = middle;
		if (after.tag != tag) {
			after.start = after.start > end ? after.start : end;
			new[n_new++] = after;
		}
	} else if (tag) {
		new[n_new++] = middle;
	}
	splice(map, first, last - first, new, n_new);
}

void emuv_extents_replace(emuv_extents_t *map, uint32_t start, uint32_t end, uint64_t old,
			  uint64_t tag, uint64_t owner)
{
	while (start < end) {
		emuv_extent_t run = emuv_extents_run(map, start, end);

		if (run.tag == old)
			emuv_extents_set(map, run.start, run.end, tag, owner);
		start = run.end;
	}
}
