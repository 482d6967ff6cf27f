/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which blocks of one range are in which state: sorted, disjoint runs of blocks,
 * each with a tag.  A block in no run has tag 0.  Neighbours of one tag are one run.
 *
 * Pure, and no memory is taken but in emuv_extents_new: who changes a map under a
 * lock makes room before.  A change of a stretch of blocks needs two vacant places.
 */
#ifndef EMUV_EXTENTS_H
#define EMUV_EXTENTS_H

#include <stdbool.h>
#include <stdint.h>

#define EMUV_EXTENTS_CHANGE 2 /* vacant places that one change may take */

typedef struct {
	uint32_t start, end; /* blocks [start, end) */
	uint64_t tag;        /* not 0 */
	uint64_t owner;      /* of a tag; whoever gives one its tag says whose it is */
} emuv_extent_t;

typedef struct emuv_extents {
	struct emuv_extents *next; /* for who keeps them in a list */
	uint64_t version;          /* for who looks whether something has happened since */
	uint32_t count, capacity;
	emuv_extent_t at[];
} emuv_extents_t;

/* Room for `capacity` runs; NULL: no memory.  Freed by free(). */
emuv_extents_t *emuv_extents_new(uint32_t capacity);
/* What `from` holds, into a larger one. */
void emuv_extents_copy(emuv_extents_t *to, const emuv_extents_t *from);
static inline bool emuv_extents_vacant(const emuv_extents_t *map, uint32_t places)
{
	return map->capacity - map->count >= places;
}

/* The blocks from `from` to where the tag changes, or to `limit`: never empty if from < limit. */
emuv_extent_t emuv_extents_run(const emuv_extents_t *map, uint32_t from, uint32_t limit);
/* Gives [start, end) the tag, 0: none. */
void emuv_extents_set(emuv_extents_t *map, uint32_t start, uint32_t end, uint64_t tag,
		      uint64_t owner);
/*
 * Gives every block of [start, end) that has the tag `old`, which is not 0, another.  In
 * a stretch that no run of that tag crosses the end of, no vacant place is needed.
 */
void emuv_extents_replace(emuv_extents_t *map, uint32_t start, uint32_t end, uint64_t old,
			  uint64_t tag, uint64_t owner);

#endif
