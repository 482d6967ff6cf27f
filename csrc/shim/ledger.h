/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ledger: what the process holds, by address or handle.
 *
 * The entries lie dense in an array; beside it an open-addressing hash table with
 * linear probing and backward-shift deletion says where: no tombstones, so a look-up
 * costs the same at ten and at a million entries, and a deletion cannot lose its
 * neighbours.  Eight bytes a slot, so that probing stays in the cache when the
 * entries have outgrown it; and the entry vacated last is the next one used.  Not
 * thread-safe (account.c has the lock); never calls the driver.
 *
 * Mappings are also in a search tree by address (a treap, whose priorities are hashes
 * of the keys), so that an address inside of one is found among thousands.  Its nodes
 * lie beside the entries and grow with them: a promise holds for both.
 *
 * A free is taken out before the driver frees, and put back if the driver
 * refuses: the driver may hand the address out again the moment it is free.
 */
#ifndef EMUV_LEDGER_H
#define EMUV_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a key is; keys of different kinds never collide. */
enum emuv_kind {
	EMUV_KIND_MEMORY = 1, /* address: cuMemAlloc, pitch, stream-ordered, managed; spilled
				 -> link: 0 or the map of its blocks, books.h */
	EMUV_KIND_ARRAY,      /* CUarray */
	EMUV_KIND_MIPMAP,     /* CUmipmappedArray */
	EMUV_KIND_VMM_HANDLE, /* CUmemGenericAllocationHandle -> link: allocation id */
	EMUV_KIND_VMM_MEMORY, /* allocation id: the bytes behind handles and mappings */
	EMUV_KIND_VMM_MAPPING, /* address of a mapping -> link: allocation id */
	EMUV_KIND_POOL,       /* CUmemoryPool -> device */
	EMUV_KIND_IMPORT,     /* address: cuIpcOpenMemHandle; references: how often opened */
	EMUV_KIND_EXTERNAL,   /* CUexternalMemory */
	EMUV_KIND_HOST,       /* address of pinned or registered host memory */
	EMUV_KIND_CODE,       /* CUmodule, CUlibrary; bytes: of the device's overhead */
	EMUV_KIND_VARIABLE,   /* address of a managed variable -> link: its module or library */
};

enum emuv_placement {
	EMUV_PLACED_DEVICE = 1, /* plain device memory */
	EMUV_PLACED_MANAGED,    /* spilled */
	EMUV_PLACED_NOWHERE,    /* known, charged nothing */
};

/* emuv_entry_t.flags */
#define EMUV_ENTRY_OWN_MANAGED 1u  /* the program itself asked for managed memory */
#define EMUV_ENTRY_STREAM_ORDER 2u /* from a pool: outlives its context */
#define EMUV_ENTRY_PINNING 4u /* not yet pinned to the host: nothing of it may leave */
#define EMUV_ENTRY_POOL 256u       /* asked of a pool: `references` is its number */
/* Of what is charged nothing: its bytes are in a statistic. */
#define EMUV_ENTRY_IMPORTED 8u /* another process's or API's */
#define EMUV_ENTRY_PINNED 16u  /* pinned host memory */

/* In the upper half: bytes charged beyond the end, of a page that managed memory does not fill. */
#define EMUV_ENTRY_SLACK_SHIFT 16

typedef struct {
	uint64_t key;
	uint64_t bytes;    /* charged */
	uint64_t resident; /* of a managed range: charged as resident */
	uint64_t context;  /* owner, 0: none */
	uint64_t link;     /* see emuv_kind */
	uint64_t serial;   /* when it was entered; account.c */
	uint32_t references; /* VMM: handles plus mappings; of a pool: its number */
	int16_t device;
	uint8_t kind;
	uint8_t placement;
	uint32_t flags;
} emuv_entry_t;

/* What an entry's memory holds, from its key on. */
static inline uint64_t emuv_entry_span(const emuv_entry_t *entry)
{
	return entry->bytes - (entry->flags >> EMUV_ENTRY_SLACK_SHIFT);
}

typedef struct {
	uint32_t tag;   /* hash of kind and key, never 0; 0: empty */
	uint32_t entry; /* index into entries */
} emuv_slot_t;

typedef struct {
	uint32_t less, more; /* one more than an index into entries, 0: none */
} emuv_node_t;

typedef struct {
	emuv_entry_t *entries; /* kind 0: vacant, `link` is one more than the next vacant */
	emuv_slot_t *slots;
	emuv_node_t *nodes; /* of mappings; nodes[i] is of entries[i] */
	uint32_t root;
	size_t capacity;  /* of slots, a power of two, or 0; half as many entries */
	size_t n_entries; /* entries from here on were never used */
	size_t vacant;    /* one more than the entry vacated last, 0: none */
	size_t count;
	size_t promised; /* inserts that emuv_ledger_promise has made room for */
} emuv_ledger_t;

/*
 * Makes room for one more insert, which then cannot fail; -ENOMEM.  Every promise
 * is used up by emuv_ledger_insert or given back by emuv_ledger_unpromise.
 */
int emuv_ledger_promise(emuv_ledger_t *ledger);
void emuv_ledger_unpromise(emuv_ledger_t *ledger);
/* Inserts or, where the key is known, replaces; *replaced gets the old entry. */
bool emuv_ledger_insert(emuv_ledger_t *ledger, const emuv_entry_t *entry, emuv_entry_t *replaced);
/* NULL where there is none.  Valid until the next insert or take. */
emuv_entry_t *emuv_ledger_find(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key);
/* The mapping that `address` is in, NULL where there is none.  Logarithmic. */
const emuv_entry_t *emuv_ledger_mapping(const emuv_ledger_t *ledger, uint64_t address);
bool emuv_ledger_take(emuv_ledger_t *ledger, enum emuv_kind kind, uint64_t key, emuv_entry_t *taken);
/*
 * Takes every entry for which `match` says so and hands it to `each`.  Neither
 * may touch the ledger.
 */
void emuv_ledger_take_all(emuv_ledger_t *ledger,
			  bool (*match)(const emuv_entry_t *entry, const void *argument),
			  void (*each)(const emuv_entry_t *entry, void *state),
			  const void *argument, void *state);
/* Forgets everything without freeing (a forked child's fresh start). */
void emuv_ledger_forget(emuv_ledger_t *ledger);
/* Frees the table itself. */
void emuv_ledger_free(emuv_ledger_t *ledger);

#endif
