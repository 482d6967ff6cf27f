/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The segment: the shared-memory file through which one process under emuV and
 * the controllers talk.
 *
 * One file per process, `<pid>-<start time>.seg`, mode 0600, in a directory of
 * the user's own (mode 0700).  Three parts, in this order:
 *
 *   header    written once by the process when it first uses CUDA, before the
 *             file gets its name; constant afterwards, except `state`.
 *   control   written by controllers, read by the process (one atomic load of
 *             `generation` a hook; the rest only when it changed).
 *   counters  written by the process under its own lock, read by anyone
 *             through the seqlock `counters_seq` (odd = a write is under way).
 *
 * Every field has a fixed width and every offset is asserted below, because two
 * builds of emuV may look at the same file.  What a reader finds in the file is
 * data from a stranger: see emuv_segment_file.h for the checks.
 *
 * All sizes are bytes, all times nanoseconds unless the name says otherwise.
 */
#ifndef EMUV_SEGMENT_H
#define EMUV_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#define EMUV_SEGMENT_MAGIC UINT64_C(0x31474553556d6545) /* "EemUSEG1" */
#define EMUV_SEGMENT_VERSION 2u
#define EMUV_MAX_DEVICES 32
#define EMUV_MAX_FUNCTIONS 224 /* slots for per-function call counts */
#define EMUV_TEXT_BYTES 64    /* name, run id, version: NUL-terminated */
#define EMUV_COMMAND_BYTES 256

#define EMUV_UNLIMITED UINT64_MAX

enum emuv_policy { EMUV_POLICY_CAP = 0, EMUV_POLICY_SPILL = 1 };
enum emuv_allocation { EMUV_ALLOCATION_LAZY = 0, EMUV_ALLOCATION_EAGER = 1 };
enum emuv_state { EMUV_STATE_RUNNING = 1, EMUV_STATE_EXITED = 2 };

/* flags of emuv_device_counters_t */
#define EMUV_DEVICE_SEEN 1u           /* the process has asked about the device */
#define EMUV_DEVICE_OVERHEAD_KNOWN 2u /* context overhead could be measured */
#define EMUV_DEVICE_OVERHEAD_UPPER 4u /* ... but only as an upper bound */
#define EMUV_DEVICE_SHARED 8u          /* the budget is the whole run's (emuv_shared.h) */

typedef struct {
	uint64_t vram_bytes;    /* physical budget; EMUV_UNLIMITED: none */
	uint64_t virtual_bytes; /* extra bytes backed by host memory */
} emuv_budget_t;

typedef struct {
	uint64_t generation; /* even: stable; odd: a controller is writing */
	uint32_t policy;     /* enum emuv_policy */
	uint32_t allocation; /* enum emuv_allocation */
	emuv_budget_t budget[EMUV_MAX_DEVICES];
} emuv_control_t;

typedef struct {
	uint64_t flags;
	uint64_t card_bytes;     /* the card's own memory; 0 until asked */
	uint64_t device_bytes;   /* charged, plain device memory */
	uint64_t managed_bytes;  /* charged, spilled (whole size of managed ranges) */
	uint64_t resident_bytes; /* of managed_bytes: what emuV made resident */
	uint64_t overhead_bytes; /* contexts and their modules */
	uint64_t peak_physical_bytes; /* most of what is on the device */
	uint64_t peak_used_bytes;     /* most of what is used */
	uint64_t live_allocations;
	uint64_t spills;        /* allocations placed in managed memory */
	uint64_t spilled_bytes; /* ... their bytes, over the process's life */
	uint64_t driver_oom_spills; /* ... of spills: the card was full below budget */
	uint64_t denials;           /* allocations refused by emuV */
	uint64_t denied_bytes;
	uint64_t advised_bytes;         /* bytes of cuMemAdvise hints issued */
	uint64_t prefetch_device_bytes; /* bytes of prefetches to the device */
	uint64_t prefetch_host_bytes;   /* bytes of prefetches to the host */
	uint64_t uncounted_calls;       /* calls that emuV could not charge */
	uint64_t pci; /* 1 + (domain << 16 | bus << 8 | slot << 3); 0 until asked */
	uint64_t kept_bytes;     /* freed into memory pools, which keep them on the device */
	uint64_t graph_bytes;    /* reserved on the device for graphs' memory nodes */
	uint64_t imported_bytes; /* statistic: opened from other processes and APIs */
	uint64_t pinned_bytes;   /* statistic: pinned or registered host memory */
	uint64_t clipped_calls;  /* the program's own hints that would have broken the budget */
	uint64_t clipped_bytes;  /* ... their bytes that were left where they are */
	uint64_t movable_bytes;  /* of device_bytes: the program's own managed memory */
	uint64_t others_physical_bytes; /* the run's other processes, where the budget is shared, */
	uint64_t others_used_bytes;     /* ... as this one last saw them */
	uint64_t reserved[4];
	uint64_t calls[EMUV_MAX_FUNCTIONS]; /* by index into hooks.def */
} emuv_device_counters_t;

typedef struct {
	/* header */
	uint64_t magic;
	uint32_t version;
	uint32_t size; /* sizeof(emuv_segment_t) of the writer */
	int32_t pid;   /* in the writer's pid namespace; never signalled */
	uint32_t uid;
	uint64_t start_ticks; /* /proc/PID/stat field 22, clock ticks since boot */
	uint64_t created_ns;  /* CLOCK_REALTIME */
	uint32_t state;       /* enum emuv_state; atomic */
	uint32_t is_sim;      /* 1: the driver is emuV's simulated GPU */
	uint32_t n_devices;
	uint32_t driver_version; /* cuDriverGetVersion: 13000 is CUDA 13.0 */
	uint32_t n_functions;    /* rows of calls[] in use */
	uint32_t keep;           /* 1: the launcher removes the file, not the process */
	char emuv_version[EMUV_TEXT_BYTES];
	char name[EMUV_TEXT_BYTES];
	char run_id[EMUV_TEXT_BYTES];
	char command[EMUV_COMMAND_BYTES];

	/* control */
	emuv_control_t control;

	/* counters */
	uint64_t counters_seq;
	uint64_t applied_generation; /* last control generation the process took up */
	emuv_device_counters_t device[EMUV_MAX_DEVICES];
} emuv_segment_t;

#define EMUV_AT(type, field, at) \
	_Static_assert(offsetof(type, field) == (at), #type "." #field " moved")

EMUV_AT(emuv_segment_t, magic, 0);
EMUV_AT(emuv_segment_t, version, 8);
EMUV_AT(emuv_segment_t, size, 12);
EMUV_AT(emuv_segment_t, pid, 16);
EMUV_AT(emuv_segment_t, uid, 20);
EMUV_AT(emuv_segment_t, start_ticks, 24);
EMUV_AT(emuv_segment_t, created_ns, 32);
EMUV_AT(emuv_segment_t, state, 40);
EMUV_AT(emuv_segment_t, is_sim, 44);
EMUV_AT(emuv_segment_t, n_devices, 48);
EMUV_AT(emuv_segment_t, driver_version, 52);
EMUV_AT(emuv_segment_t, n_functions, 56);
EMUV_AT(emuv_segment_t, keep, 60);
EMUV_AT(emuv_segment_t, emuv_version, 64);
EMUV_AT(emuv_segment_t, name, 128);
EMUV_AT(emuv_segment_t, run_id, 192);
EMUV_AT(emuv_segment_t, command, 256);
EMUV_AT(emuv_segment_t, control, 512);
EMUV_AT(emuv_control_t, policy, 8);
EMUV_AT(emuv_control_t, allocation, 12);
EMUV_AT(emuv_control_t, budget, 16);
EMUV_AT(emuv_segment_t, counters_seq, 1040);
EMUV_AT(emuv_segment_t, applied_generation, 1048);
EMUV_AT(emuv_segment_t, device, 1056);
EMUV_AT(emuv_device_counters_t, flags, 0);
EMUV_AT(emuv_device_counters_t, card_bytes, 8);
EMUV_AT(emuv_device_counters_t, device_bytes, 16);
EMUV_AT(emuv_device_counters_t, managed_bytes, 24);
EMUV_AT(emuv_device_counters_t, resident_bytes, 32);
EMUV_AT(emuv_device_counters_t, overhead_bytes, 40);
EMUV_AT(emuv_device_counters_t, peak_physical_bytes, 48);
EMUV_AT(emuv_device_counters_t, peak_used_bytes, 56);
EMUV_AT(emuv_device_counters_t, live_allocations, 64);
EMUV_AT(emuv_device_counters_t, spills, 72);
EMUV_AT(emuv_device_counters_t, spilled_bytes, 80);
EMUV_AT(emuv_device_counters_t, driver_oom_spills, 88);
EMUV_AT(emuv_device_counters_t, denials, 96);
EMUV_AT(emuv_device_counters_t, denied_bytes, 104);
EMUV_AT(emuv_device_counters_t, advised_bytes, 112);
EMUV_AT(emuv_device_counters_t, prefetch_device_bytes, 120);
EMUV_AT(emuv_device_counters_t, prefetch_host_bytes, 128);
EMUV_AT(emuv_device_counters_t, uncounted_calls, 136);
EMUV_AT(emuv_device_counters_t, pci, 144);
EMUV_AT(emuv_device_counters_t, kept_bytes, 152);
EMUV_AT(emuv_device_counters_t, graph_bytes, 160);
EMUV_AT(emuv_device_counters_t, imported_bytes, 168);
EMUV_AT(emuv_device_counters_t, pinned_bytes, 176);
EMUV_AT(emuv_device_counters_t, clipped_calls, 184);
EMUV_AT(emuv_device_counters_t, clipped_bytes, 192);
EMUV_AT(emuv_device_counters_t, movable_bytes, 200);
EMUV_AT(emuv_device_counters_t, others_physical_bytes, 208);
EMUV_AT(emuv_device_counters_t, others_used_bytes, 216);
EMUV_AT(emuv_device_counters_t, calls, 256);
_Static_assert(sizeof(emuv_device_counters_t) == 2048, "emuv_device_counters_t grew");
_Static_assert(sizeof(emuv_segment_t) == 66592, "emuv_segment_t grew");

#endif
