/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The arena: one stretch of address space that holds all that a kernel may address.
 *
 * Reserved once, at cuInit, without access and without memory; its length is a power of
 * two and its start a multiple of that, so that generated code tests an address by one
 * mask (kernel/abi.h).  Given out in blocks of 2 MiB, which two bitmaps describe:
 *
 *   taken    given out
 *   shut     free, and without access: a stale pointer faults
 *
 * A block that is neither is free but was left accessible (empty of memory): each free
 * hole costs the process two kernel mappings, and a process that runs out of those can
 * not even start a thread.  So beyond SHUT_HOLES a hole is left as it is.
 *
 * The search goes on where the last one ended (next fit), so that a freed address is
 * not given out again soon, and leaves a block free behind each piece while there are
 * few holes: a kernel that runs past the end of one then faults, too.
 *
 * The lock is a leaf: it is taken with and without sim_lock.
 */
#define _GNU_SOURCE /* MAP_FIXED_NOREPLACE */
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "memory.h"
#include "paging.h"

#define LEAST_BYTES ((uint64_t)16 << 30)
#define PLACES 64       /* to try for each length */
#define SHUT_HOLES 16384 /* of 65,530 mappings that a process usually may have */
#define GUARDED_HOLES 4096
/* Memory of this much and more is given back before the lock is taken. */
#define LARGE_BYTES ((size_t)8 << 20)
#define WORD_BITS 64
#define RESERVED (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

#ifdef __SANITIZE_THREAD__
#define MOST_BYTES ((uint64_t)256 << 30) /* of what its run time lets a program map */
#else
#define MOST_BYTES SIM_ARENA_BYTES
#endif

uintptr_t sim_arena_base;
uint64_t sim_arena_bytes;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *taken, *shut; /* a bit a block; one block more at each end: `taken` */
static size_t blocks, cursor, holes; /* runs of shut blocks */
static size_t page_bytes;

/* ---- bits ---- */

static bool bit(const uint64_t *map, size_t index)
{
	return map[index / WORD_BITS] >> index % WORD_BITS & 1;
}

static void fill(uint64_t *map, size_t from, size_t end, bool value)
{
	while (from < end) {
		size_t in_word = from % WORD_BITS;
		size_t count = WORD_BITS - in_word < end - from ? WORD_BITS - in_word : end - from;
		uint64_t mask = (count == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << count) - 1) << in_word;
		if (value)
			map[from / WORD_BITS] |= mask;
		else
			map[from / WORD_BITS] &= ~mask;
		from += count;
	}
}

/* The first block from `from` on whose bit is `value`, or `end`. */
static size_t next(const uint64_t *map, size_t from, size_t end, bool value)
{
	while (from < end) {
		uint64_t word = map[from / WORD_BITS] ^ (value ? 0 : UINT64_MAX);
		word >>= from % WORD_BITS;
		if (word) {
			from += (size_t)__builtin_ctzll(word);
			return from < end ? from : end;
		}
		from += WORD_BITS - from % WORD_BITS;
	}
	return end;
}

/* How many runs of set bits begin in [from, end). */
static size_t runs(const uint64_t *map, size_t from, size_t end)
{
	size_t count = 0;
	bool inside = from && bit(map, from - 1);
	if (inside)
		from = next(map, from, end, false);
	for (from = next(map, from, end, true); from < end; count++)
		from = next(map, next(map, from, end, false), end, true);
	return count;
}

/* Sets `shut` of [from, end) and keeps the count of holes right. */
static void set_shut(size_t from, size_t end, bool value)
{
	size_t around = end + 1 < blocks ? end + 1 : blocks;
	holes -= runs(shut, from, around);
	fill(shut, from, end, value);
	holes += runs(shut, from, around);
}

static char *address_of(size_t block)
{
	return (char *)sim_arena_base + block * SIM_BLOCK_BYTES;
}

static size_t blocks_in(size_t bytes)
{
	return sim_round_up(bytes, SIM_BLOCK_BYTES) / SIM_BLOCK_BYTES;
}

/* ---- the reservation ---- */

static void *reserve_at(uintptr_t place, uint64_t bytes)
{
	void *start = mmap((void *)place, bytes, PROT_NONE, RESERVED | MAP_FIXED_NOREPLACE, -1, 0);
	if (start == (void *)place || start == MAP_FAILED)
		return start == MAP_FAILED ? NULL : start;
	munmap(start, bytes);
	return NULL;
}

static void *reserve(uint64_t bytes)
{
	/* Where the kernel would put it, free places lie below; under valgrind, above. */
	char *probe = mmap(NULL, bytes, PROT_NONE, RESERVED, -1, 0);
	if (probe == MAP_FAILED)
		return NULL;
	munmap(probe, bytes);
	uintptr_t place = (uintptr_t)probe & ~(bytes - 1);
	void *start = NULL;
	for (int i = 0; i < PLACES && place >= bytes && !start; i++, place -= bytes)
		start = reserve_at(place, bytes);
	return start ? start : reserve_at(sim_round_up((uintptr_t)probe, bytes), bytes);
}

bool sim_arena_init(void)
{
	uint64_t bytes = MOST_BYTES;
	struct rlimit limit;
	/* The program wants some of a limited address space, too. */
	if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY)
		while (bytes > LEAST_BYTES && bytes > limit.rlim_cur / 2)
			bytes /= 2;
	void *start;
	while (!(start = reserve(bytes)))
		if ((bytes /= 2) < LEAST_BYTES)
			return false;
	blocks = bytes / SIM_BLOCK_BYTES;
	size_t map_bytes = blocks / 8;
	uint64_t *maps = mmap(NULL, 2 * map_bytes, PROT_READ | PROT_WRITE,
			      RESERVED, -1, 0);
	if (maps == MAP_FAILED) {
		munmap(start, bytes);
		return false;
	}
	taken = maps;
	shut = maps + map_bytes / sizeof(*maps);
	fill(shut, 0, blocks, true);
	holes = 1;
	/* Nothing is at its first and last block: what runs out of the arena faults inside. */
	fill(taken, 0, 1, true);
	fill(taken, blocks - 1, blocks, true);
	cursor = 1;
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	sim_arena_bytes = bytes;
	sim_arena_base = (uintptr_t)start;
	return true;
}

bool sim_arena_holds(uintptr_t address)
{
	return address - sim_arena_base < sim_arena_bytes;
}

/* ---- places ---- */

/* The first free run of `count` blocks in [from, end) at a multiple of `align` blocks; `end`: none. */
static size_t search(size_t from, size_t end, size_t count, size_t align)
{
	while (from < end) {
		from = next(taken, from, end, false);
		from = (from + align - 1) / align * align;
		if (from >= end || end - from < count)
			return end;
		size_t stop = next(taken, from, from + count, true);
		if (stop == from + count)
			return from;
		from = stop;
	}
	return end;
}

/* The start of `count` blocks for the caller, or 0. */
static size_t place(size_t count, size_t align, uintptr_t hint)
{
	if (hint && sim_arena_holds(hint) && hint % (align * SIM_BLOCK_BYTES) == 0) {
		size_t at = (hint - sim_arena_base) / SIM_BLOCK_BYTES;
		if (count <= blocks - at && next(taken, at, at + count, true) == at + count)
			return at;
	}
	size_t at = search(cursor, blocks, count, align);
	if (at == blocks)
		at = search(0, blocks, count, align);
	if (at == blocks)
		return 0;
	cursor = at + count + (holes < GUARDED_HOLES);
	return at;
}

/* Free blocks without access, whatever was there.  False: the kernel has no mapping to spare. */
static bool close_blocks(size_t from, size_t end)
{
	return mmap(address_of(from), (end - from) * SIM_BLOCK_BYTES, PROT_NONE,
		    RESERVED | MAP_FIXED, -1, 0) != MAP_FAILED;
}

/*
 * Makes `bytes` from the block on accessible: to the page where what follows has no
 * access either, else to the end of the block (neighbours share one kernel mapping).
 */
static bool open_blocks(size_t at, size_t count, size_t bytes)
{
	bool exact = holes < GUARDED_HOLES && bit(shut, at + count);
	size_t size = exact ? sim_round_up(bytes, page_bytes) : count * SIM_BLOCK_BYTES;
	return !mprotect(address_of(at), size, PROT_READ | PROT_WRITE);
}

/* `access`: the caller wants the bytes accessible; else they are made to be not. */
static void *take(size_t bytes, size_t align, uintptr_t hint, bool access)
{
	size_t count = blocks_in(bytes);
	void *start = NULL;
	if (!count || bytes > sim_arena_bytes || align > sim_arena_bytes)
		return NULL;
	pthread_mutex_lock(&lock);
	size_t at = place(count, align > SIM_BLOCK_BYTES ? align / SIM_BLOCK_BYTES : 1, hint);
	bool is_shut = at && next(shut, at, at + count, false) == at + count;
	if (at && (access ? open_blocks(at, count, bytes)
			  : is_shut || close_blocks(at, at + count))) {
		fill(taken, at, at + count, true);
		set_shut(at, at + count, false);
		start = address_of(at);
	}
	pthread_mutex_unlock(&lock);
	return start;
}

void *sim_arena_take(size_t bytes, size_t align, uintptr_t hint)
{
	return take(bytes, align, hint, false);
}

void sim_arena_give(void *address, size_t bytes)
{
	size_t from = ((uintptr_t)address - sim_arena_base) / SIM_BLOCK_BYTES;
	size_t end = from + blocks_in(bytes);
	if (bytes >= LARGE_BYTES)
		madvise(address, bytes, MADV_DONTNEED);
	pthread_mutex_lock(&lock);
	fill(taken, from, end, false);
	/* Free neighbours that were left open go along. */
	size_t low = from, high = end;
	while (!bit(taken, low - 1) && !bit(shut, low - 1))
		low--;
	while (!bit(taken, high) && !bit(shut, high))
		high++;
	bool joins = bit(shut, low - 1) || bit(shut, high);
	if ((joins || holes < SHUT_HOLES) && close_blocks(low, high)) {
		set_shut(low, high, true);
	} else if (mmap(address, (end - from) * SIM_BLOCK_BYTES, PROT_READ | PROT_WRITE,
			RESERVED | MAP_FIXED, -1, 0) ==
		   MAP_FAILED) {
		madvise(address, (end - from) * SIM_BLOCK_BYTES, MADV_DONTNEED);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- pieces with memory ---- */

void *sim_map(size_t bytes)
{
	return take(bytes, SIM_BLOCK_BYTES, 0, true);
}

void sim_unmap(void *address, size_t bytes)
{
	if (sim_arena_holds((uintptr_t)address))
		sim_arena_give(address, bytes);
	else
		munmap(address, sim_round_up(bytes, SIM_BLOCK_BYTES));
}
