/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The address space: which live range contains an address?
 *
 * A treap: a binary search tree by address that is also a heap by a random number
 * each range draws, which keeps it balanced in expectation whatever the order of
 * allocations and frees.  Ranges never overlap.
 *
 * Invariants: left < range < right by address; range.order >= that of its children.
 */
#include <stdlib.h>

#include "memory.h"

#define RECORDS 256 /* taken from the C library at a time, never given back */

static sim_range_t *root;
static sim_range_t *spare; /* unused records, linked by `right` */
static uint64_t last_id;

static uint32_t draw(void)
{
	static uint32_t state = 0x9e3779b9;
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static sim_range_t *record_new(void)
{
	if (!spare) {
		sim_range_t *records = calloc(RECORDS, sizeof(*records));
		if (!records)
			return NULL;
		for (size_t i = 0; i < RECORDS; i++) {
			records[i].right = spare;
			spare = &records[i];
		}
	}
	sim_range_t *range = spare;
	spare = range->right;
	return range;
}

sim_range_t *sim_range_find(uintptr_t address)
{
	sim_range_t *range = root;
	while (range) {
		if (address < range->start)
			range = range->left;
		else if (address - range->start >= range->bytes)
			range = range->right;
		else
			return range;
	}
	return NULL;
}

sim_range_t *sim_range_overlap(uintptr_t start, size_t bytes)
{
	sim_range_t *first = NULL; /* lowest range that ends after `start` */
	for (sim_range_t *range = root; range;) {
		if (range->start + range->bytes > start) {
			first = range;
			range = range->left;
		} else {
			range = range->right;
		}
	}
	return first && (first->start < start || first->start - start < bytes) ? first : NULL;
}

sim_range_t *sim_range_add(sim_range_kind_t kind, uintptr_t start, size_t bytes)
{
	sim_range_t *range = record_new();
	if (!range)
		return NULL;
	*range = (sim_range_t){
		.kind = kind, .start = start, .bytes = bytes, .order = draw(), .id = ++last_id,
	};

	/* Down to where the heap order puts it, then split what hangs there around it. */
	sim_range_t **link = &root;
	while (*link && (*link)->order >= range->order)
		link = start < (*link)->start ? &(*link)->left : &(*link)->right;
	sim_range_t *rest = *link, **left = &range->left, **right = &range->right;
	*link = range;
	while (rest) {
		if (rest->start < start) {
			*left = rest;
			left = &rest->right;
			rest = rest->right;
		} else {
			*right = rest;
			right = &rest->left;
			rest = rest->left;
		}
	}
	*left = *right = NULL;
	return range;
}

void sim_range_remove(sim_range_t *range)
{
	sim_range_t **link = &root;
	while (*link != range)
		link = range->start < (*link)->start ? &(*link)->left : &(*link)->right;

	/* Merge its two subtrees where it was. */
	sim_range_t *left = range->left, *right = range->right;
	while (left && right) {
		if (left->order >= right->order) {
			*link = left;
			link = &left->right;
			left = left->right;
		} else {
			*link = right;
			link = &right->left;
			right = right->left;
		}
	}
	*link = left ? left : right;

	range->kind = 0;
	range->right = spare;
	spare = range;
}

static void visit_tree(sim_range_t *range, void (*visit)(sim_range_t *, void *), void *argument)
{
	while (range) {
		visit_tree(range->left, visit, argument);
		visit(range, argument);
		range = range->right;
	}
}

void sim_range_each(void (*visit)(sim_range_t *range, void *argument), void *argument)
{
	visit_tree(root, visit, argument);
}
