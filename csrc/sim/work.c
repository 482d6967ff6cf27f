/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pieces of work: made, copied, dropped; kept for the next one by size, since a launch
 * makes one and another thread gives it back.
 */
#include <stdlib.h>
#include <string.h>

#include "work.h"

#define CLASS_BYTES ((size_t)64)
#define CLASSES 16
#define KEPT 512 /* of a class */

static pthread_mutex_t pieces_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	sim_work_t *first;
	unsigned int count;
} kept[CLASSES];

static size_t class_of(const sim_work_kind_t *kind)
{
	return (kind->bytes + CLASS_BYTES - 1) / CLASS_BYTES - 1;
}

static sim_work_t *piece_take(const sim_work_kind_t *kind)
{
	size_t class = class_of(kind);
	sim_work_t *work = NULL;

	if (class < CLASSES) {
		pthread_mutex_lock(&pieces_lock);
		work = kept[class].first;
		if (work) {
			kept[class].first = work->next;
			kept[class].count--;
		}
		pthread_mutex_unlock(&pieces_lock);
	}
	return work ? work : malloc((class + 1) * CLASS_BYTES);
}

static void piece_give(sim_work_t *work)
{
	size_t class = class_of(work->kind);
	bool keep = false;

	if (class < CLASSES) {
		pthread_mutex_lock(&pieces_lock);
		keep = kept[class].count < KEPT;
		if (keep) {
			work->next = kept[class].first;
			kept[class].first = work;
			kept[class].count++;
		}
		pthread_mutex_unlock(&pieces_lock);
	}
	if (!keep)
		free(work);
}

sim_work_t *sim_work_new(const sim_work_kind_t *kind, sim_context_t *context)
{
	sim_work_t *work = piece_take(kind);

	if (work) {
		memset(work, 0, kind->bytes);
		work->kind = kind;
		work->context = context;
	}
	return work;
}

sim_work_t *sim_work_copy(const sim_work_t *work)
{
	sim_work_t *copy = piece_take(work->kind);

	if (!copy)
		return NULL;
	memcpy(copy, work, work->kind->bytes);
	copy->next = NULL;
	copy->stream = NULL;
	copy->after = NULL;
	copy->unmet = 0;
	copy->start = 0;
	if (copy->kind->copied && !copy->kind->copied(copy)) {
		piece_give(copy);
		return NULL;
	}
	return copy;
}

void sim_work_drop(sim_work_t *work)
{
	if (work->kind->drop)
		work->kind->drop(work);
	piece_give(work);
}
