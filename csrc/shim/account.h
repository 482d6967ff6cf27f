/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The books of the process: the ledger, the budget of every device, and the
 * segment that publishes them, changed together under the one lock of the shim.
 *
 * An allocation goes  reserve -> driver call -> commit or roll back,
 * a free goes         take -> driver call -> freed or restore.
 * The lock is held in each step and never across the driver call between them;
 * nothing here calls the driver.
 */
#ifndef EMUV_ACCOUNT_H
#define EMUV_ACCOUNT_H

#include "budget.h"
#include "config.h"
#include "cuda_abi.h"
#include "ledger.h"

/* Where a call acts. */
typedef struct {
	CUdevice device;
	CUcontext context;
} emuv_where_t;

/*
 * Reserves `bytes` for the device.  False: refused (the caller may make room and
 * try again, then tells emuv_account_denied).
 */
bool emuv_account_reserve(CUdevice device, uint64_t bytes, unsigned int how, emuv_grant_t *grant);
void emuv_account_denied(CUdevice device, uint64_t bytes);
/* The allocation is there: enters it.  `entry` needs key, kind, context, flags (link, references). */
void emuv_account_commit(CUdevice device, const emuv_grant_t *grant, emuv_entry_t *entry,
			 bool card_full);
void emuv_account_roll_back(CUdevice device, const emuv_grant_t *grant);

/* Takes an entry out of the ledger; it stays charged until freed or restored. */
bool emuv_account_take(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry);
void emuv_account_freed(const emuv_entry_t *entry);
void emuv_account_restore(const emuv_entry_t *entry);
/*
 * A spilled range that was taken for a free, and is charged still, may be allocated anew
 * instead: it would be spilled again, and the budget is not over (it may have been lowered).
 * `reused` is as restore.
 */
bool emuv_account_may_reuse(CUdevice device, uint64_t bytes);
void emuv_account_reused(const emuv_entry_t *entry);
/* A copy of an entry that stays. */
bool emuv_account_look(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry);
/* The memory that an address is inside of, by looking at all there is. */
bool emuv_account_inside(uint64_t address, emuv_entry_t *entry);
/* Enters what is charged nothing (a pool, a VMM handle); -ENOMEM. */
int emuv_account_note(const emuv_entry_t *entry);
/* The same; false also where its key is known. */
bool emuv_account_note_once(const emuv_entry_t *entry);
/*
 * A module or library is gone, and its managed variables with it, as far as they were
 * entered up to `mark` (emuv_account_mark): its handle may be another's already.
 */
void emuv_account_variables_gone(uint64_t owner, uint64_t mark);
/*
 * What is charged nothing and told all the same (EMUV_ENTRY_IMPORTED, _PINNED), with one
 * reference; where the key is known, one more.  `untally` takes one, and the entry with
 * the last, as emuv_account_take does: then `freed` or `restore`; else the driver's
 * refusal is told by `tally` again.  `grow`: it turned out to be at least that large.
 */
void emuv_account_tally(const emuv_entry_t *entry);
bool emuv_account_untally(enum emuv_kind kind, uint64_t key, emuv_entry_t *entry, bool *last);
void emuv_account_grow(enum emuv_kind kind, uint64_t key, uint64_t bytes);
/* More of a device grant, for what turned out larger than asked for; false: no room. */
bool emuv_account_extend(CUdevice device, emuv_grant_t *grant, uint64_t bytes);
/*
 * VMM handles, in one step each.  `more`: one more reference to the handle of
 * allocation `id`, which is entered if need be.  `less`: one less; the last takes
 * the entry out, as emuv_account_take does.  *entry is a copy.
 */
void emuv_account_handle_more(uint64_t handle, uint64_t id, CUdevice device);
bool emuv_account_handle_less(uint64_t handle, emuv_entry_t *entry, bool *last);
/* Adds to an entry's references and returns the sum; 0 takes the entry and frees its charge. */
uint32_t emuv_account_refer(enum emuv_kind kind, uint64_t key, int change);
/* A copy of the VMM allocation behind a handle, or mapped at an address; false: not known. */
bool emuv_account_handle(uint64_t handle, emuv_entry_t *memory);
bool emuv_account_mapped(uint64_t address, emuv_entry_t *memory);
/* What hooks_vmm_spill.c has found out about a device, in one word of its own; 0: nothing yet. */
uint64_t emuv_account_vmm_home(CUdevice device);
void emuv_account_set_vmm_home(CUdevice device, uint64_t home);

/*
 * The context is gone and with it all it owned, but nothing of pools and VMM, which
 * belong to the device.  Only what was entered up to `mark`, an earlier
 * emuv_account_mark(): the driver may have given the handle to a new context since.
 */
uint64_t emuv_account_mark(void);
void emuv_account_context_gone(CUcontext context, uint64_t mark);
/* Charges a context's own bytes; false: vram cannot hold them, unless they are owed. */
bool emuv_account_overhead(CUdevice device, uint64_t bytes, uint64_t flags, bool owed);
void emuv_account_overhead_gone(CUdevice device, uint64_t bytes);

/* Hints were issued for this many bytes. */
void emuv_account_hints(CUdevice device, uint64_t advised, uint64_t to_device, uint64_t to_host);

/* ---- what of spilled ranges is on the device: account_residency.c, account_moves.c ---- */

/*
 * A piece of a range that is to leave the device.  `charged` may be more than `bytes`:
 * a whole block, where the range ends within it.
 */
typedef struct {
	uint64_t key, serial; /* the range */
	CUdevice device;
	uint64_t address, bytes, charged;
} emuv_piece_t;
/*
 * Picks up to `max` pieces until vram has room for what stays and `want` bytes more, and
 * notes them as leaving; each then goes to emuv_account_demoted, which uncharges it or,
 * where the driver did not move it, gives it back to its range.
 */
size_t emuv_account_demote(CUdevice device, uint64_t want, emuv_piece_t *pieces, size_t max);
void emuv_account_demoted(const emuv_piece_t *piece, bool moved);
/*
 * After vram was lowered: the program's own managed memory, which migrates as it likes and
 * is charged as device memory, becomes spilled, wholly resident.  Picks up to `max` until
 * nothing of what they hold is over; each is then pinned to the host by the caller and
 * goes to emuv_account_pinned, which undoes it where that failed.
 */
size_t emuv_account_unfree(CUdevice device, emuv_entry_t *ranges, size_t max);
void emuv_account_pinned(const emuv_entry_t *range, bool pinned);
/*
 * Takes up what a controller wrote; true where a lowered vram leaves managed memory of
 * the device over it.  Two atomic loads where nothing happened.
 */
bool emuv_account_over(CUdevice device);

/*
 * The program's own prefetches of a spilled range.  To the device:
 *     arrive -> driver calls, one a run -> arrived -> (an event in the stream) -> settled
 * to the host:
 *     version -> driver call -> leave -> (an event in the stream) -> settled
 * Blocks are charged from `arrive` until they are known to have left: between a call
 * and its event nobody may take them away, but for what follows in the same stream.
 */
#define EMUV_MOVE_RUNS 16
typedef struct {
	uint64_t key, serial; /* the range */
	CUdevice device;
	uint64_t ticket, owner; /* owner: the stream */
	uint64_t leaving;       /* bytes charged that go when the event has come to pass */
	uint64_t clipped;       /* bytes asked for that stay where they are */
	unsigned int n_runs;
	struct {
		uint64_t address, bytes;
	} runs[EMUV_MOVE_RUNS]; /* what may be prefetched */
} emuv_move_t;
/*
 * Reserves room for what is asked of the range, as far as there is any, in whole blocks
 * from the start.  False: the range is gone, or there is no memory to note it.
 */
bool emuv_account_arrive(const emuv_entry_t *range, uint64_t address, uint64_t bytes,
			 uint64_t owner, emuv_move_t *move);
/* The driver took the first `n_done` runs and refused the others. */
void emuv_account_arrived(const emuv_move_t *move, unsigned int n_done);
/* Changes whenever a prefetch of the range to the device begins or ends. */
uint64_t emuv_account_version(const emuv_entry_t *range);
/*
 * The driver has taken a prefetch to the host.  What blocks it covers whole and nothing
 * else keeps will go with its event: false, none.  `version`: from before the call.
 */
bool emuv_account_leave(const emuv_entry_t *range, uint64_t address, uint64_t bytes,
			uint64_t owner, uint64_t version, emuv_move_t *move);
enum emuv_move_end {
	EMUV_MOVE_DONE,  /* its event has come to pass */
	EMUV_MOVE_ENDED, /* its context is gone: what was leaving may be there still */
	EMUV_MOVE_LOST,  /* it has no event: what was arriving may arrive at any time */
};
void emuv_account_settled(const emuv_move_t *move, enum emuv_move_end how);
/* The program's own hints, of which so many bytes were left where they are. */
void emuv_account_clipped(CUdevice device, const char *what, uint64_t bytes);

/*
 * Memory pools, by their number in the books (0: none; account_pools.c).  `new` answers 0
 * where the table is full: what such a pool keeps is not counted.  Around a pool's
 * destruction: `leaves` (false: somebody asks the driver about it, ask again), then
 * `gone` or `stays`.
 */
unsigned int emuv_account_pool_new(uint64_t handle, CUdevice device);
bool emuv_account_pool_leaves(unsigned int slot);
void emuv_account_pool_stays(unsigned int slot);
void emuv_account_pool_gone(unsigned int slot);
/* Others who share the budget would miss what this process is not sure of: look. */
bool emuv_account_pools_unsure(CUdevice device);
/*
 * Up to `max` pools of a device, from *next (0 at first) on; none of them is destroyed
 * before it was handed to emuv_account_pool_seen with what the driver has reserved for
 * it, NULL: not known.
 */
typedef struct {
	uint64_t handle, asked, begun, reserved, kept, unsure;
	unsigned int slot;
	uint32_t answers; /* that had come in before */
} emuv_pool_look_t;
size_t emuv_account_pools(CUdevice device, unsigned int *next, emuv_pool_look_t *looks, size_t max);
void emuv_account_pool_seen(const emuv_pool_look_t *look, const uint64_t *reserved);
/* The driver has made the allocation of a grant: what the pool grew by for it is there. */
void emuv_account_pool_grown(emuv_grant_t *grant);
/* The pool grew beyond the room that is now, and was undone. */
void emuv_account_pool_refused(unsigned int slot);
/* Of its allocations: bytes in managed memory now and at most since the last reset. */
void emuv_account_pool_spilled(unsigned int slot, uint64_t *now, uint64_t *high, bool reset);
/* Bytes by which a device is, or may be, over its vram. */
uint64_t emuv_account_excess(CUdevice device);

/*
 * Graphs' memory: `reserve` for a launch (false: no room), which ends by `seen` with the
 * same bytes and what the driver has reserved now, NULL: not known; `answers` is what
 * emuv_account_graph_answers said before the driver was asked.
 */
bool emuv_account_graph_reserve(CUdevice device, uint64_t bytes);
uint32_t emuv_account_graph_answers(CUdevice device);
void emuv_account_graph_seen(CUdevice device, uint64_t ended, uint32_t answers,
			     const uint64_t *reserved);
uint64_t emuv_account_graph(CUdevice device);

/* What the reports say of a device. */
typedef struct {
	uint64_t visible; /* EMUV_UNLIMITED: the driver's own answer stands */
	uint64_t free;
	uint64_t vram;
	uint64_t room; /* for plain device memory */
	bool there;    /* the process has such a device */
	uint32_t policy;
} emuv_report_t;
void emuv_account_report(CUdevice device, emuv_report_t *report);
/*
 * Bytes charged as being on the device.  *version changes whenever any charge does;
 * true where nothing is between a reservation or a taking and its end.
 */
bool emuv_account_physical(CUdevice device, uint64_t *bytes, uint64_t *version);
/* Counts a call of a hooked function. */
void emuv_account_call(CUdevice device, int function);
void emuv_account_uncounted(CUdevice device);
bool emuv_account_eager(void);

/*
 * Start of a process's books; `segment` carries header and control, `share` (or NULL)
 * is the process's part in a budget of the whole run.
 */
struct emuv_share;
void emuv_account_start(const emuv_config_t *config, emuv_segment_t *segment, int n_devices,
			struct emuv_share *share);
void emuv_account_card(CUdevice device, uint64_t card_bytes, uint64_t pci, bool can_spill);
/* A forked child knows nothing. */
void emuv_account_fork_child(void);
/* The segment in use (a private one where no file could be made). */
emuv_segment_t *emuv_account_segment(void);

#endif
