/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Slots of the shared ledger: taking one, clearing those of the dead, summing.
 * emuv_shared.h says why this needs no lock.
 *
 * Invariants:
 *   - Only a slot's owner writes its rows, and zeroes them before it counts.
 *   - A slot is cleared by one compare-and-swap of its owner word, and only where
 *     that owner is surely dead: what cannot be found out is taken for alive.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "emuv_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PID_BITS 22 /* the kernel's limit, PID_MAX_LIMIT */
#define TICK_BITS 31
#define PLACE_AT (PID_BITS + TICK_BITS)
#define PID_MASK ((UINT64_C(1) << PID_BITS) - 1)
#define TICK_MASK ((UINT64_C(1) << TICK_BITS) - 1)
#define PLACE_MASK ((UINT64_C(1) << 10) - 1)

/* ---- who numbers processes how ---- */

/* How many numbers this process has, from /proc's pid namespace down to its own. */
static int count_numbers(void)
{
	char text[4096];
	const char *at;
	ssize_t got;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC), n = 0;

	if (fd < 0)
		return 0;
	do {
		got = read(fd, text, sizeof text - 1);
	} while (got < 0 && errno == EINTR);
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	at = strstr(text, "\nNSpid:");
	for (at = at ? at + 7 : ""; *at == '\t'; n++)
		at += 1 + strspn(at + 1, "0123456789");
	return n;
}

/*
 * Two processes with the same numbering see each other in /proc under the same pid and
 * start time: /proc is of their own pid namespace, or is the same mount of another's.
 * 0: there is no /proc.
 */
static uint64_t numbering(void)
{
	struct stat pids, times;

	if (stat(count_numbers() == 1 ? "/proc/self/ns/pid" : "/proc/.", &pids))
		return 0;
	if (stat("/proc/self/ns/time", &times))
		times.st_ino = 0; /* before Linux 5.6 there is one time for all */
	if (count_numbers() == 1)
		return (uint64_t)times.st_ino << 32 | (pids.st_ino & UINT32_MAX);
	return (uint64_t)times.st_ino << 32 | (pids.st_dev & 0x0fffffff);
}

/* Numbers of namespaces begin far above those of mounts. */
static int is_own_numbering(uint64_t place)
{
	return (place & UINT32_MAX) > 0x0fffffff;
}

/* The index of the caller's numbering; 0: none, and not to be entered. */
static uint64_t place_of(emuv_shared_t *shared, int enter)
{
	uint64_t mine = numbering();

	for (uint64_t i = 1; mine && i < EMUV_SHARED_PLACES; i++) {
		uint64_t found = __atomic_load_n(&shared->place[i], __ATOMIC_ACQUIRE);

		if (!found && enter &&
		    __atomic_compare_exchange_n(&shared->place[i], &found, mine, 0,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return i;
		if (found == mine)
			return i;
	}
	return 0;
}

static int32_t pid_of(uint64_t owner)
{
	return (int32_t)(owner & PID_MASK);
}

static uint64_t ticks_of(uint64_t owner)
{
	return owner >> PID_BITS & TICK_MASK;
}

static uint64_t place_index(uint64_t owner)
{
	return owner >> PLACE_AT & PLACE_MASK;
}

uint64_t emuv_shared_self(emuv_shared_t *shared, int enter)
{
	int32_t pid = emuv_own_pid();
	uint64_t ticks = emuv_start_ticks(pid);
	uint64_t place = ticks ? place_of(shared, enter) : 0;

	if (!place)
		return 0;
	return place << PLACE_AT | (ticks & TICK_MASK) << PID_BITS | ((uint64_t)pid & PID_MASK);
}

/* Whether /proc shows us as it did: after chroot(2) it may be another one, or none. */
static int can_judge(uint64_t self)
{
	uint64_t ticks;

	return self && emuv_process_look(pid_of(self), &ticks) == 1 &&
	       (ticks & TICK_MASK) == ticks_of(self);
}

/* By a process that can judge. */
static int is_dead(const emuv_shared_t *shared, uint64_t owner, uint64_t self)
{
	uint64_t ticks;
	int found;

	if (!owner || place_index(owner) != place_index(self))
		return 0;
	found = emuv_process_look(pid_of(owner), &ticks);
	if (found == 1)
		return (ticks & TICK_MASK) != ticks_of(owner);
	/* /proc may hide what others run (hidepid). */
	if (found == -ENOENT)
		return !is_own_numbering(shared->place[place_index(self) % EMUV_SHARED_PLACES]) ||
		       (kill(pid_of(owner), 0) < 0 && errno == ESRCH);
	return found == 0; /* a zombie; else it could not be looked at */
}

/*
 * A quick look, a tenth of what /proc costs: 1 where the process of that pid lives, or
 * another by now.  0: it does not, or that cannot be told in this way (before Linux
 * 5.3, of another numbering).
 */
static int seems_alive(int32_t pid)
{
	struct pollfd ended = { .events = POLLIN };
	int ready;

	ended.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (ended.fd < 0)
		return 0;
	ready = poll(&ended, 1, 0);
	close(ended.fd);
	return ready == 0;
}

int emuv_shared_all_dead(emuv_shared_t *shared)
{
	uint64_t self = emuv_shared_self(shared, 0);

	if (shared->leader && (!can_judge(self) || !is_dead(shared, shared->leader, self)))
		return 0;
	for (unsigned int i = 0; i < EMUV_SHARED_SLOTS; i++) {
		uint64_t owner = __atomic_load_n(&shared->owner[i], __ATOMIC_ACQUIRE);

		if (owner && (!can_judge(self) || !is_dead(shared, owner, self)))
			return 0;
	}
	return 1;
}

/* ---- taking and clearing slots ---- */

uint64_t emuv_shared_image(void)
{
	/* The kernel gives every image sixteen random bytes; they are others' secrets. */
	const unsigned char *random = (const unsigned char *)getauxval(AT_RANDOM);
	uint64_t mixed;

	if (!random)
		return 1;
	memcpy(&mixed, random + 4, sizeof mixed);
	for (int i = 0; i < 3; i++) {
		mixed ^= mixed >> 31;
		mixed *= UINT64_C(0x7fb5d329728ea185);
	}
	return mixed >> 16 | 1;
}

static uint64_t high_of(const emuv_shared_t *shared)
{
	uint64_t high = __atomic_load_n(&shared->high, __ATOMIC_SEQ_CST);

	return high < EMUV_SHARED_SLOTS ? high : EMUV_SHARED_SLOTS;
}

static int clear(emuv_shared_t *shared, unsigned int slot, uint64_t owner)
{
	int cleared = __atomic_compare_exchange_n(&shared->owner[slot], &owner, 0, 0,
						  __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);

	EMUV_STEP(REAPED);
	return cleared;
}

unsigned int emuv_shared_reap(emuv_shared_t *shared, uint64_t self, int thorough)
{
	int quick = !thorough && is_own_numbering(shared->place[place_index(self) %
								EMUV_SHARED_PLACES]);
	int judge = -1; /* whether we can: not yet asked */
	unsigned int n = 0;

	for (unsigned int i = 0; i < high_of(shared); i++) {
		uint64_t owner = __atomic_load_n(&shared->owner[i], __ATOMIC_ACQUIRE);

		if (!owner || owner == self || place_index(owner) != place_index(self) ||
		    (quick && seems_alive(pid_of(owner))))
			continue;
		if (judge < 0)
			judge = can_judge(self);
		if (!judge || !is_dead(shared, owner, self))
			continue;
		EMUV_STEP(REAP_JUDGED);
		n += (unsigned int)clear(shared, i, owner);
	}
	return n;
}

/* What this process held before it called exec is gone.  A slot that was only being
 * joined holds nothing, and may be another copy of emuV's in this very image. */
static void give_up_former(emuv_shared_t *shared, uint64_t self, uint64_t image)
{
	for (unsigned int i = 0; i < high_of(shared); i++)
		if (__atomic_load_n(&shared->owner[i], __ATOMIC_ACQUIRE) == self &&
		    __atomic_load_n(&shared->image[i], __ATOMIC_RELAXED) != image)
			clear(shared, i, self);
}

static void raise_high(emuv_shared_t *shared, uint64_t to)
{
	uint64_t high = __atomic_load_n(&shared->high, __ATOMIC_SEQ_CST);

	while (high < to &&
	       !__atomic_compare_exchange_n(&shared->high, &high, to, 0, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST))
		;
	EMUV_STEP(JOIN_HIGH);
}

static void zero_rows(emuv_shared_row_t *rows)
{
	uint64_t *words = (uint64_t *)rows;

	for (size_t i = 0; i < EMUV_MAX_DEVICES * sizeof *rows / sizeof *words; i++)
		__atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);
}

int emuv_shared_take_slot(emuv_shared_t *shared, uint64_t self, unsigned int *slot)
{
	uint64_t image = emuv_shared_image();

	give_up_former(shared, self, image);
	emuv_shared_reap(shared, self, 1); /* low numbers keep the sums short */
	for (unsigned int i = 0; i < EMUV_SHARED_SLOTS; i++) {
		uint64_t owner = __atomic_load_n(&shared->owner[i], __ATOMIC_ACQUIRE);

		if (owner)
			continue;
		/* Whoever owns a slot is seen by everybody who sums after it. */
		raise_high(shared, i + 1);
		if (!__atomic_compare_exchange_n(&shared->owner[i], &owner,
						 self | EMUV_OWNER_JOINING, 0, __ATOMIC_SEQ_CST,
						 __ATOMIC_RELAXED))
			continue;
		EMUV_STEP(JOIN_TAKEN);
		zero_rows(shared->row[i]);
		__atomic_store_n(&shared->image[i], image, __ATOMIC_RELAXED);
		EMUV_STEP(JOIN_ZEROED);
		__atomic_store_n(&shared->owner[i], self, __ATOMIC_SEQ_CST);
		EMUV_STEP(JOIN_OWNED);
		*slot = i;
		return 0;
	}
	return -EUSERS;
}

void emuv_shared_leave(emuv_shared_t *shared, unsigned int slot)
{
	__atomic_store_n(&shared->owner[slot], 0, __ATOMIC_SEQ_CST);
}

int emuv_shared_column(emuv_shared_t *shared, uint64_t card)
{
	for (int i = 0; i < EMUV_MAX_DEVICES; i++) {
		uint64_t found = __atomic_load_n(&shared->card[i], __ATOMIC_ACQUIRE);

		if (!found && __atomic_compare_exchange_n(&shared->card[i], &found, card, 0,
							  __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return i;
		if (found == card)
			return i;
	}
	return -1;
}

/* ---- sums ---- */

static inline void add(uint64_t *sum, uint64_t bytes)
{
	if (__builtin_add_overflow(*sum, bytes, sum))
		*sum = UINT64_MAX;
}

void emuv_shared_sum(const emuv_shared_t *shared, unsigned int but, unsigned int column,
		     emuv_shared_sum_t *sum)
{
	uint64_t high = high_of(shared);

	*sum = (emuv_shared_sum_t){ 0 };
	for (unsigned int i = 0; i < high; i++) {
		const emuv_shared_row_t *row = &shared->row[i][column];
		uint64_t owner = __atomic_load_n(&shared->owner[i], __ATOMIC_SEQ_CST);
		uint64_t claimed_physical, claimed_used, physical, used;

		if (i == but || !owner || owner & EMUV_OWNER_JOINING)
			continue;
		/* Claims before what is held, and `used` first: the reverse of their writing. */
		claimed_used = __atomic_load_n(&row->claimed_used, __ATOMIC_SEQ_CST);
		claimed_physical = __atomic_load_n(&row->claimed_physical, __ATOMIC_ACQUIRE);
		used = __atomic_load_n(&row->held_used, __ATOMIC_ACQUIRE);
		physical = __atomic_load_n(&row->held_physical, __ATOMIC_ACQUIRE);
		add(&sum->used, used);
		add(&sum->physical, physical);
		if (claimed_used > used)
			add(i < but ? &sum->before_used : &sum->after_used, claimed_used - used);
		if (claimed_physical > physical)
			add(i < but ? &sum->before_physical : &sum->after_physical,
			    claimed_physical - physical);
		add(&sum->leaving, __atomic_load_n(&row->leaving, __ATOMIC_RELAXED));
	}
}
