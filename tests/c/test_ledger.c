// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/ledger.c
/*
 * The ledger against a plain array that says the same: random operations, keys
 * that all want the same slots, deletion across the end of the table, take_all.
 */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ledger.h"

#define FIRST_CAPACITY 256 /* as ledger.c begins */
#define N_KEYS 3000

typedef struct {
	bool there;
	uint64_t bytes;
} model_t;

/* Where ledger.c wants a key to be: only to make keys that get in each other's way. */
static size_t wanted_slot(uint8_t kind, uint64_t key, size_t capacity)
{
	uint64_t h = (key ^ ((uint64_t)kind << 56)) * UINT64_C(0x9e3779b97f4a7c15);

	return (size_t)(h >> 32) & (capacity - 1);
}

static emuv_entry_t entry_of(enum emuv_kind kind, uint64_t key, uint64_t bytes)
{
	return (emuv_entry_t){ .kind = (uint8_t)kind, .key = key, .bytes = bytes };
}

static void put(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key, uint64_t bytes)
{
	emuv_entry_t entry = entry_of(kind, key, bytes);

	CHECK_EQ(emuv_ledger_promise(ledger), 0);
	CHECK(!emuv_ledger_insert(ledger, &entry, NULL));
}

static void agrees(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key, const model_t *model)
{
	const emuv_entry_t *found = emuv_ledger_find(ledger, kind, key);

	CHECK_EQ(found != NULL, model->there);
	if (found) {
		CHECK_EQ(found->key, key);
		CHECK_EQ(found->kind, kind);
		CHECK_EQ(found->bytes, model->bytes);
	}
}

/* Addresses as allocators give them out: `stride` apart, in two kinds at once. */
static void random_operations(uint64_t stride)
{
	static const enum emuv_kind kinds[2] = { EMUV_KIND_MEMORY, EMUV_KIND_ARRAY };
	static model_t model[2][N_KEYS];
	emuv_ledger_t ledger = { 0 };
	uint64_t random = stride | 1;
	size_t live = 0, scanned = 0;

	memset(model, 0, sizeof model);
	for (int step = 0; step < 120000; step++) {
		size_t k = random_below(&random, 2), i = random_below(&random, N_KEYS);
		uint64_t key = UINT64_C(0x7f0000000000) + i * stride;
		model_t *known = &model[k][i];
		emuv_entry_t entry = entry_of(kinds[k], key, (uint64_t)step), old;

		switch (random_below(&random, 4)) {
		case 0:
		case 1: /* known keys are replaced, and the old entry comes back */
			CHECK_EQ(emuv_ledger_promise(&ledger), 0);
			CHECK_EQ(emuv_ledger_insert(&ledger, &entry, &old), known->there);
			if (known->there)
				CHECK_EQ(old.bytes, known->bytes);
			else
				live++;
			*known = (model_t){ true, (uint64_t)step };
			break;
		case 2:
			CHECK_EQ(emuv_ledger_take(&ledger, kinds[k], key, &old), known->there);
			if (known->there) {
				CHECK_EQ(old.bytes, known->bytes);
				live--;
			}
			known->there = false;
			break;
		default:
			agrees(&ledger, kinds[k], key, known);
		}
		CHECK_EQ(ledger.count, live);
		CHECK_EQ(ledger.promised, 0);
		/* Vacated entries are used again: the array never runs over its half. */
		CHECK(ledger.n_entries <= ledger.capacity / 2);
	}
	/* Who scans the entries meets each live one once. */
	for (size_t i = 0; i < ledger.n_entries; i++)
		scanned += ledger.entries[i].kind != 0;
	CHECK_EQ(scanned, live);
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < N_KEYS; i++)
			agrees(&ledger, kinds[k], UINT64_C(0x7f0000000000) + i * stride, &model[k][i]);
	emuv_ledger_free(&ledger);
	CHECK_EQ(ledger.capacity, 0);
}

/* The n-th key of a kind that wants one of `slots` slots from `first` on, going round. */
static uint64_t next_key_for(uint64_t after, size_t first, size_t slots)
{
	for (uint64_t key = after + 1;; key++) {
		size_t wants = wanted_slot(EMUV_KIND_MEMORY, key, FIRST_CAPACITY);

		if (((wants - first) & (FIRST_CAPACITY - 1)) < slots)
			return key;
	}
}

/*
 * One cluster that starts at the table's last slots and goes on at its first; every
 * key of it deleted once, in random order, and put back: no neighbour is lost.
 */
static void wrap_around(void)
{
	enum { N = 40 };
	emuv_ledger_t ledger = { 0 };
	uint64_t keys[N], random = 7, key = 0;
	emuv_entry_t taken;

	for (int i = 0; i < N; i++)
		keys[i] = key = next_key_for(key, FIRST_CAPACITY - 3, 5);
	for (int i = 0; i < N; i++)
		put(&ledger, EMUV_KIND_MEMORY, keys[i], keys[i]);
	CHECK_EQ(ledger.capacity, FIRST_CAPACITY);
	CHECK(ledger.slots[FIRST_CAPACITY - 1].tag != 0); /* it does go round */
	CHECK(ledger.slots[0].tag != 0);
	CHECK(ledger.slots[20].tag != 0);
	for (int round = 0; round < 2000; round++) {
		size_t n_out = 1 + random_below(&random, 5), out[5];

		for (size_t j = 0; j < n_out; j++) {
			out[j] = random_below(&random, N);
			if (emuv_ledger_take(&ledger, EMUV_KIND_MEMORY, keys[out[j]], &taken))
				CHECK_EQ(taken.bytes, keys[out[j]]);
		}
		for (size_t i = 0; i < N; i++) {
			bool away = false;

			for (size_t j = 0; j < n_out; j++)
				away |= out[j] == i;
			CHECK_EQ(emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, keys[i]) != NULL, !away);
		}
		for (size_t j = 0; j < n_out; j++)
			if (!emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, keys[out[j]]))
				put(&ledger, EMUV_KIND_MEMORY, keys[out[j]], keys[out[j]]);
		CHECK_EQ(ledger.count, N);
	}
	emuv_ledger_free(&ledger);
}

static bool is_owned(const emuv_entry_t *entry, const void *context)
{
	return entry->context == *(const uint64_t *)context;
}

static void count_key(const emuv_entry_t *entry, void *seen)
{
	((unsigned char *)seen)[entry->link]++;
}

/* take_all hands out each of its entries once, and no other, wherever they lie. */
static void take_all(bool crowded)
{
	enum { N = 160 };
	static const uint64_t mine = 1, nobody = 9;
	uint64_t random = 11;

	for (int round = 0; round < 300; round++) {
		emuv_ledger_t ledger = { 0 };
		unsigned char seen[N] = { 0 };
		uint64_t keys[N], owner[N], key = random_below(&random, 1 << 20);

		for (uint64_t i = 0; i < N; i++) {
			emuv_entry_t entry;

			key = crowded && i < 60 ? next_key_for(key, FIRST_CAPACITY - 4, 8) :
						  key + 1 + random_below(&random, 4096);
			owner[i] = 1 + random_below(&random, 2);
			keys[i] = key;
			entry = entry_of(EMUV_KIND_MEMORY, key, 1);
			entry.context = owner[i];
			entry.link = i;
			CHECK_EQ(emuv_ledger_promise(&ledger), 0);
			CHECK(!emuv_ledger_insert(&ledger, &entry, NULL));
		}
		emuv_ledger_take_all(&ledger, is_owned, count_key, &nobody, seen);
		CHECK_EQ(ledger.count, N);
		emuv_ledger_take_all(&ledger, is_owned, count_key, &mine, seen);
		for (size_t i = 0; i < N; i++) {
			CHECK_EQ(seen[i], owner[i] == mine);
			CHECK_EQ(emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, keys[i]) != NULL,
				 owner[i] != mine);
		}
		emuv_ledger_free(&ledger);
	}
}

/* What was promised is there: no insert moves the table or fails. */
static void promises(void)
{
	emuv_ledger_t ledger = { 0 };
	const emuv_slot_t *before;

	for (int i = 0; i < 5000; i++)
		CHECK_EQ(emuv_ledger_promise(&ledger), 0);
	before = ledger.slots;
	for (uint64_t i = 1; i <= 4000; i++) {
		emuv_entry_t entry = entry_of(EMUV_KIND_MEMORY, i << 21, i);

		CHECK(!emuv_ledger_insert(&ledger, &entry, NULL));
	}
	CHECK(ledger.slots == before);
	CHECK_EQ(ledger.promised, 1000);
	for (int i = 0; i < 1000; i++)
		emuv_ledger_unpromise(&ledger);
	CHECK_EQ(ledger.promised, 0);
	CHECK_EQ(ledger.count, 4000);
	/* Probes stay short: never more than half full. */
	CHECK(ledger.count * 2 <= ledger.capacity);
	emuv_ledger_free(&ledger);
}

typedef struct {
	uint32_t tag;
	uint64_t key;
} tagged_t;

static int by_tag(const void *a, const void *b)
{
	uint32_t x = ((const tagged_t *)a)->tag, y = ((const tagged_t *)b)->tag;

	return (x > y) - (x < y);
}

/* Two keys whose slots look alike (31 bits of hash): each finds its own entry. */
static void same_tag(void)
{
	enum { N = 1 << 18 };
	static tagged_t all[N];
	emuv_ledger_t ledger = { 0 };
	emuv_entry_t taken;
	uint64_t random = 13;
	size_t twins = 0;

	for (uint64_t i = 0; i < N; i++) {
		all[i].key = random_below(&random, UINT64_C(1) << 47);
		all[i].tag = (uint32_t)wanted_slot(EMUV_KIND_MEMORY, all[i].key, (size_t)1 << 31);
	}
	qsort(all, N, sizeof *all, by_tag);
	for (size_t i = 0; i + 1 < N; i++) {
		if (all[i].tag != all[i + 1].tag || all[i].key == all[i + 1].key)
			continue;
		twins++;
		put(&ledger, EMUV_KIND_MEMORY, all[i].key, 1);
		put(&ledger, EMUV_KIND_MEMORY, all[i + 1].key, 2);
		CHECK_EQ(emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, all[i].key)->bytes, 1);
		CHECK_EQ(emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, all[i + 1].key)->bytes, 2);
		CHECK(emuv_ledger_take(&ledger, EMUV_KIND_MEMORY, all[i].key, &taken));
		CHECK_EQ(taken.bytes, 1);
		CHECK(!emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, all[i].key));
		CHECK(emuv_ledger_take(&ledger, EMUV_KIND_MEMORY, all[i + 1].key, &taken));
		CHECK_EQ(taken.bytes, 2);
	}
	CHECK(twins > 0);
	emuv_ledger_free(&ledger);
}

static void kinds_do_not_collide(void)
{
	emuv_ledger_t ledger = { 0 };
	emuv_entry_t taken;

	CHECK(!emuv_ledger_find(&ledger, EMUV_KIND_MEMORY, 42)); /* an empty table too */
	CHECK(!emuv_ledger_take(&ledger, EMUV_KIND_MEMORY, 42, &taken));
	for (int kind = EMUV_KIND_MEMORY; kind <= EMUV_KIND_POOL; kind++)
		put(&ledger, (enum emuv_kind)kind, 42, (uint64_t)kind);
	CHECK(emuv_ledger_take(&ledger, EMUV_KIND_VMM_HANDLE, 42, &taken));
	CHECK_EQ(taken.bytes, EMUV_KIND_VMM_HANDLE);
	for (int kind = EMUV_KIND_MEMORY; kind <= EMUV_KIND_POOL; kind++)
		CHECK_EQ(emuv_ledger_find(&ledger, (enum emuv_kind)kind, 42) != NULL,
			 kind != EMUV_KIND_VMM_HANDLE);
	emuv_ledger_free(&ledger);
}

/* Mappings of several sizes, in and out at random, with gaps: every address finds its own. */
static void mappings_by_address(void)
{
	enum { PLACES = 4000 };
	static uint64_t sizes[PLACES]; /* in units of the stride; 0: nothing is there */
	const uint64_t base = UINT64_C(0x7f0000000000), stride = MIB(2);
	emuv_ledger_t ledger = { 0 };
	uint64_t random = 99;

	CHECK(!emuv_ledger_mapping(&ledger, base));
	for (int step = 0; step < 60000; step++) {
		size_t i = random_below(&random, PLACES);
		uint64_t key = base + i * stride;
		emuv_entry_t entry = entry_of(EMUV_KIND_VMM_MAPPING, key, 0);
		const emuv_entry_t *found;
		size_t own = i;

		/* Other kinds at the same addresses are in nobody's way. */
		if (step % 7 == 0 && !emuv_ledger_find(&ledger, EMUV_KIND_ARRAY, key))
			put(&ledger, EMUV_KIND_ARRAY, key, stride);
		if (sizes[i]) {
			CHECK(emuv_ledger_take(&ledger, EMUV_KIND_VMM_MAPPING, key, &entry));
			CHECK_EQ(entry.bytes, sizes[i] * stride);
			sizes[i] = 0;
		} else if (step < 50000) {
			bool room = true;

			/* A mapping lies over nobody's. */
			sizes[i] = 1 + random_below(&random, 3);
			for (size_t k = i < 3 ? 0 : i - 3; k < i; k++)
				room = room && k + sizes[k] <= i;
			for (size_t k = i + 1; k < i + sizes[i]; k++)
				room = room && k < PLACES && !sizes[k];
			if (!room) {
				sizes[i] = 0;
				continue;
			}
			put(&ledger, EMUV_KIND_VMM_MAPPING, key, sizes[i] * stride);
		}
		i = own = random_below(&random, PLACES);
		while (own && i - own < 3 && !(sizes[own] && own + sizes[own] > i))
			own--;
		/* Now and then where one may just have ended. */
		found = emuv_ledger_mapping(&ledger, base + i * stride +
						     (step % 3 ? random_below(&random, stride) : 0));
		CHECK_EQ(found != NULL, sizes[own] && own + sizes[own] > i);
		if (found)
			CHECK_EQ(found->key, base + own * stride);
	}
	CHECK(!emuv_ledger_mapping(&ledger, base - 1));
	CHECK(!emuv_ledger_mapping(&ledger, base + PLACES * stride + MIB(8)));
	emuv_ledger_free(&ledger);
}

int main(void)
{
	static const uint64_t strides[] = { 1, 16, 512, 4096, MIB(2), UINT64_C(1) << 32 };

	alarm(50);
	for (size_t i = 0; i < sizeof strides / sizeof *strides; i++)
		random_operations(strides[i]);
	wrap_around();
	take_all(false);
	take_all(true);
	promises();
	same_tag();
	kinds_do_not_collide();
	mappings_by_address();
	return 0;
}
