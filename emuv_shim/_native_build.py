# SPDX-License-Identifier: GPL-2.0-only
"""Describes ``emuv_shim._native``, the compiled accessors of the segment, to cffi.

Run by the build only.  Every struct ends in ``...;``: the compiler supplies
sizes and offsets from csrc/common/emuv_segment.h, and Python has no copy of
them that could go wrong.  The names of the hooked functions come from the one
list, csrc/shim/hooks.def, in the order in which the shim counts their calls.

Paths are relative to the root of the source tree, where the build runs.
"""

from __future__ import annotations

from cffi import FFI

CDEF = """
#define EMUV_SEGMENT_MAGIC ...
#define EMUV_SEGMENT_VERSION ...
#define EMUV_MAX_DEVICES ...
#define EMUV_MAX_FUNCTIONS ...
#define EMUV_TEXT_BYTES ...
#define EMUV_COMMAND_BYTES ...
#define EMUV_UNLIMITED ...
#define EMUV_POLICY_CAP ...
#define EMUV_POLICY_SPILL ...
#define EMUV_ALLOCATION_LAZY ...
#define EMUV_ALLOCATION_EAGER ...
#define EMUV_STATE_RUNNING ...
#define EMUV_STATE_EXITED ...
#define EMUV_DEVICE_SEEN ...
#define EMUV_DEVICE_OVERHEAD_KNOWN ...
#define EMUV_DEVICE_OVERHEAD_UPPER ...
#define EMUV_DEVICE_SHARED ...
#define EMUV_ERROR_BYTES ...
#define EMUV_CONTROL_WAIT_MS ...

typedef struct {
    uint64_t vram_bytes;
    uint64_t virtual_bytes;
    ...;
} emuv_budget_t;

typedef struct {
    uint64_t generation;
    uint32_t policy;
    uint32_t allocation;
    emuv_budget_t budget[...];
    ...;
} emuv_control_t;

typedef struct {
    uint64_t flags;
    uint64_t card_bytes;
    uint64_t device_bytes;
    uint64_t managed_bytes;
    uint64_t resident_bytes;
    uint64_t overhead_bytes;
    uint64_t peak_physical_bytes;
    uint64_t peak_used_bytes;
    uint64_t live_allocations;
    uint64_t spills;
    uint64_t spilled_bytes;
    uint64_t driver_oom_spills;
    uint64_t denials;
    uint64_t denied_bytes;
    uint64_t advised_bytes;
    uint64_t prefetch_device_bytes;
    uint64_t prefetch_host_bytes;
    uint64_t uncounted_calls;
    uint64_t pci;
    uint64_t kept_bytes;
    uint64_t graph_bytes;
    uint64_t imported_bytes;
    uint64_t pinned_bytes;
    uint64_t clipped_calls;
    uint64_t clipped_bytes;
    uint64_t movable_bytes;
    uint64_t others_physical_bytes;
    uint64_t others_used_bytes;
    uint64_t calls[...];
    ...;
} emuv_device_counters_t;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t size;
    int32_t pid;
    uint32_t uid;
    uint64_t start_ticks;
    uint64_t created_ns;
    uint32_t state;
    uint32_t is_sim;
    uint32_t n_devices;
    uint32_t driver_version;
    uint32_t n_functions;
    uint32_t keep;
    char emuv_version[...];
    char name[...];
    char run_id[...];
    char command[...];
    emuv_control_t control;
    uint64_t counters_seq;
    uint64_t applied_generation;
    emuv_device_counters_t device[...];
    ...;
} emuv_segment_t;

typedef struct { char text[...]; ...; } emuv_error_t;
typedef struct emuv_segment_view emuv_segment_view_t;

int emuv_segment_directory(char *path, size_t path_bytes, int create, emuv_error_t *error);
int emuv_segment_directory_check(const char *path, emuv_error_t *error);
int emuv_segment_create(const char *directory, const emuv_segment_t *initial,
                        emuv_segment_t **mapped, char *path, size_t path_bytes,
                        emuv_error_t *error);
int emuv_segment_open(const char *path, int writable, emuv_segment_view_t **view,
                      emuv_error_t *error);
void emuv_segment_close(emuv_segment_view_t *view);
int emuv_segment_snapshot(emuv_segment_view_t *view, emuv_segment_t *copy, emuv_error_t *error);
int emuv_segment_alive(const emuv_segment_t *copy);
uint64_t emuv_start_ticks(int32_t pid);
int emuv_segment_set_control(emuv_segment_view_t *view, const emuv_control_t *control,
                             emuv_error_t *error);
int emuv_segment_replace_control(emuv_segment_view_t *view, const emuv_control_t *control,
                                 emuv_error_t *error);
int emuv_control_read(const emuv_control_t *shared, emuv_control_t *copy);

#define EMUV_SHARED_SLOTS ...
#define EMUV_OWNER_JOINING ...

typedef struct {
    uint64_t claimed_physical;
    uint64_t claimed_used;
    uint64_t held_physical;
    uint64_t held_used;
    uint64_t leaving;
    ...;
} emuv_shared_row_t;

typedef struct {
    uint64_t leader;
    char run_id[...];
    char name[...];
    emuv_control_t control;
    uint64_t card[...];
    uint64_t high;
    uint64_t owner[...];
    emuv_shared_row_t row[...][...];
    ...;
} emuv_shared_t;

typedef struct {
    char run_id[...];
    char name[...];
    emuv_control_t control;
    ...;
} emuv_shared_start_t;

int emuv_shared_make(const char *directory, const emuv_shared_start_t *start,
                     emuv_error_t *error);
int emuv_shared_sweep(const char *path, emuv_error_t *error);
int emuv_shared_open(const char *path, int writable, emuv_segment_view_t **view,
                     emuv_error_t *error);
int emuv_shared_snapshot(emuv_segment_view_t *view, emuv_shared_t *copy, emuv_error_t *error);

const char *emuv_function_name(uint32_t i);
uint32_t emuv_function_count(void);
"""

SOURCE = """
#include "emuv_shared.h"

/* Only the names of the hooks are wanted; rows of other kinds vanish by themselves. */
#define EMUV_HOOK(export, ...) #export,
static const char *const function_names[] = {
#include "hooks.def"
};

static uint32_t emuv_function_count(void)
{
    return (uint32_t)(sizeof(function_names) / sizeof(function_names[0]));
}

static const char *emuv_function_name(uint32_t i)
{
    return i < emuv_function_count() ? function_names[i] : NULL;
}
"""

ffibuilder = FFI()
ffibuilder.cdef(CDEF)
ffibuilder.set_source(
    "emuv_shim._native",
    SOURCE,
    sources=[
        "csrc/common/emuv_environ.c",
        "csrc/common/emuv_segment_control.c",
        "csrc/common/emuv_segment_create.c",
        "csrc/common/emuv_segment_file.c",
        "csrc/common/emuv_shared.c",
        "csrc/common/emuv_shared_file.c",
    ],
    include_dirs=["csrc/common", "csrc/shim"],
    extra_compile_args=["-std=gnu17", "-fvisibility=hidden"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
