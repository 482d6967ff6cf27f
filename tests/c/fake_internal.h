/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the fake driver share.  State is read and written under LOCK. */
#ifndef EMUV_TEST_FAKE_INTERNAL_H
#define EMUV_TEST_FAKE_INTERNAL_H

#include <pthread.h>
#include <string.h>

#include "check.h"
#include "fake_driver.h"
#include "real.h"

#define FAKE_OBJECTS 8192

typedef struct {
	enum fake_kind kind;
	CUdevice device;
	uint64_t bytes, resident;
	uint64_t blocks[8];    /* managed: a bit for each block that is on the device */
	CUcontext context;
	uint64_t link;         /* mapping: slot of its memory */
	uint64_t address;      /* mapping: where */
	unsigned int handles, mappings;
	bool prefers_host, accessed;
	bool on_host; /* a handle of host memory */
} fake_object_t;

typedef struct {
	pthread_mutex_t lock;
	fake_object_t objects[FAKE_OBJECTS];
	uint64_t card_bytes, context_bytes, pitch_alignment;
	uint64_t limits[FAKE_DEVICES], physical[FAKE_DEVICES];
	CUcontext primary[FAKE_DEVICES];
	unsigned int primary_references[FAKE_DEVICES];
	bool held, capturing; /* atomic */
	fake_host_t host;
} fake_t;
extern fake_t fake;
extern _Thread_local CUcontext fake_stack[8];
extern _Thread_local int fake_depth;

#define LOCK() pthread_mutex_lock(&fake.lock)
#define UNLOCK() pthread_mutex_unlock(&fake.lock)

/* Every call begins here, under no lock of the fake's. */
CUresult fake_begin(const char *name);
#define BEGIN()                                       \
	do {                                          \
		CUresult why_ = fake_begin(__func__); \
		if (why_)                             \
			return why_;                  \
	} while (0)

/* All of these with LOCK. */
fake_object_t *fake_object(uint64_t handle, enum fake_kind kind);
#define OBJECT(handle, kind) fake_object((uint64_t)(uintptr_t)(handle), kind)
/* The lowest free slot: what was freed last is soon somebody else's. */
uint64_t fake_make(enum fake_kind kind, CUdevice device, uint64_t bytes, CUcontext context);
/* The same for memory on a card. */
CUresult fake_place(enum fake_kind kind, CUdevice device, uint64_t bytes, CUcontext context,
		    uint64_t *handle);
void fake_drop(fake_object_t *object);
void fake_add_physical(CUdevice device, uint64_t bytes);
/* The device of the current context. */
bool fake_here(CUdevice *device);

/* Of the managed range that the address is in. */
bool fake_managed_start(uint64_t address, uint64_t *start, uint64_t *bytes);

/* Without LOCK. */
CUcontext fake_current(void);
uint64_t fake_handle(size_t slot);
CUresult fake_destroy(uint64_t handle, enum fake_kind kind);

/* Each file's functions into g_real. */
void fake_install_memory(void);
void fake_install_vmm(void);
void fake_install_contexts(void);

#endif
