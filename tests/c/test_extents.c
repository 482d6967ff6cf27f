// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/extents.c
/* The map of runs against an array with a tag for each block, under random changes. */
#include "check.h"
#include "extents.h"

#define BLOCKS 96

static uint64_t tags[BLOCKS];

/* Sorted, disjoint, nothing empty, neighbours of one tag joined; and as the array says. */
static void check_same(const emuv_extents_t *map)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < map->count; i++) {
		CHECK(map->at[i].start < map->at[i].end);
		CHECK(map->at[i].tag);
		if (i) {
			CHECK(map->at[i - 1].end <= map->at[i].start);
			CHECK(map->at[i - 1].end < map->at[i].start ||
			      map->at[i - 1].tag != map->at[i].tag);
		}
		CHECK_EQ(map->at[i].owner, map->at[i].tag * 10);
		for (uint32_t block = map->at[i].start; block < map->at[i].end; block++)
			CHECK_EQ(tags[block], map->at[i].tag);
		n += map->at[i].end - map->at[i].start;
	}
	for (uint32_t block = 0; block < BLOCKS; block++)
		n -= tags[block] != 0;
	CHECK_EQ(n, 0);
}

static void check_runs(const emuv_extents_t *map, uint32_t from, uint32_t limit)
{
	emuv_extent_t run = emuv_extents_run(map, from, limit);

	CHECK_EQ(run.start, from);
	CHECK(run.end > from && run.end <= limit);
	for (uint32_t block = run.start; block < run.end; block++)
		CHECK_EQ(tags[block], run.tag);
	if (run.end < limit)
		CHECK(tags[run.end] != run.tag);
}

static void by_hand(void)
{
	emuv_extents_t *map = emuv_extents_new(4);

	CHECK(map);
	CHECK_EQ(emuv_extents_run(map, 3, 9).end, 9);
	emuv_extents_set(map, 0, 10, 1, 10);
	emuv_extents_set(map, 3, 5, 0, 0); /* a hole */
	CHECK_EQ(map->count, 2);
	CHECK_EQ(map->at[0].end, 3);
	CHECK_EQ(map->at[1].start, 5);
	emuv_extents_set(map, 3, 5, 1, 10); /* and filled */
	CHECK_EQ(map->count, 1);
	emuv_extents_replace(map, 2, 4, 1, 2, 20);
	CHECK_EQ(map->count, 3);
	CHECK(!emuv_extents_vacant(map, EMUV_EXTENTS_CHANGE));
	emuv_extents_replace(map, 0, UINT32_MAX, 2, 0, 0);
	CHECK_EQ(map->count, 2);
	emuv_extents_set(map, 7, 7, 3, 30); /* nothing */
	CHECK_EQ(map->count, 2);
	emuv_extents_set(map, 0, UINT32_MAX, 0, 0);
	CHECK_EQ(map->count, 0);
	free(map);
}

int main(void)
{
	uint64_t seed = 0x5eed;
	emuv_extents_t *map = emuv_extents_new(4);

	alarm(50);
	by_hand();
	for (int step = 0; step < 200000; step++) {
		uint32_t start = (uint32_t)random_below(&seed, BLOCKS);
		uint32_t end = start + 1 + (uint32_t)random_below(&seed, BLOCKS - start);
		uint64_t tag = random_below(&seed, 4), old = 1 + random_below(&seed, 3);
		uint32_t before = map->count;

		if (step % 7 == 0) /* small changes make many runs */
			end = start + 1;
		if (!emuv_extents_vacant(map, EMUV_EXTENTS_CHANGE)) {
			emuv_extents_t *more = emuv_extents_new(map->capacity + 2);

			emuv_extents_copy(more, map);
			free(map);
			map = more;
		}
		if (random_below(&seed, 3)) {
			emuv_extents_set(map, start, end, tag, tag * 10);
			for (uint32_t block = start; block < end; block++)
				tags[block] = tag;
		} else {
			emuv_extents_replace(map, start, end, old, tag, tag * 10);
			for (uint32_t block = start; block < end; block++)
				if (tags[block] == old)
					tags[block] = tag;
		}
		CHECK(map->count <= before + EMUV_EXTENTS_CHANGE);
		check_same(map);
		check_runs(map, start, end);
		check_runs(map, 0, BLOCKS);
	}
	free(map);
	return 0;
}
