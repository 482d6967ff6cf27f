/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory that another process of the same user may map: files without a name in any
 * folder (memfd), each known by a random key, which stands in the name that
 * /proc/PID/fd/N shows.  Who opens one checks that name before opening, and then that
 * the file cannot be made shorter: so no handle, however it was made up, opens anything
 * else, and no process can be faulted by another's file.
 */
#ifndef EMUV_SIM_SHARE_H
#define EMUV_SIM_SHARE_H

#include "internal.h"
#include "memory.h"

/* What a file is for; another's is refused. */
typedef enum { SIM_SHARE_MEMORY = 1, SIM_SHARE_EVENT, SIM_SHARE_VMM, SIM_SHARE_POOL } sim_share_kind_t;

/* Another number for it, out of the way of programs that count theirs; `fd`: there is none. */
int sim_share_high(int fd);
/* A new file of zeros and that length, its key in *key; -1: cannot be had. */
int sim_share_new(sim_share_kind_t kind, size_t bytes, uint64_t *key);
/* Is this descriptor, of the process itself, such a file?  Its key and length. */
bool sim_share_is(int fd, sim_share_kind_t kind, uint64_t *key, size_t *bytes);
/* Opens what process `pid` has as `fd`; -1: it is not there, or is no such file. */
int sim_share_open(int pid, int fd, sim_share_kind_t kind, uint64_t key, size_t *bytes);
/* This process, as /proc knows it. */
int sim_share_self(void);
/* The visible device with that physical index, or -1. */
CUdevice sim_share_device(unsigned int physical);

/*
 * What a handle is made of, for all that goes through one (CUipcMemHandle,
 * CUipcEventHandle, CUmemPoolPtrExportData).  A handle is a stranger's word.
 */
typedef struct {
	uint64_t magic;
	uint64_t key;  /* of the file */
	uint64_t id;   /* of the allocation: the same address may be another's later */
	uint64_t offset, bytes;
	uint64_t pool; /* key of the pool it is of, or 0 */
	int32_t pid, fd;
	uint32_t physical; /* device */
	uint32_t kind;
} sim_handle_t;
_Static_assert(sizeof(sim_handle_t) == 64, "CUDA's handles are 64 bytes");
#define SIM_HANDLE_MAGIC UINT64_C(0x63706976756d6565) /* "eemuvipc" */

/* ---- ipc.c ---- */
/* Makes the range one that other processes can map, and a handle for it.  sim_lock held,
 * dropped while what runs comes to its end. */
CUresult sim_share_range(uintptr_t address, uint64_t id, sim_handle_t *handle);
/* Maps what a handle says, as a range of that kind.  sim_lock held. */
CUresult sim_share_map(const sim_handle_t *handle, sim_range_kind_t kind, sim_range_t **range);

/* ---- ipc_event.c: the part of an event that processes share ---- */
typedef struct sim_shared_event sim_shared_event_t;
void sim_shared_event_keep(sim_shared_event_t *shared);
void sim_shared_event_drop(sim_shared_event_t *shared);
/* The exporter's event is gone: its handle opens no more. */
void sim_shared_event_retire(sim_shared_event_t *shared);
/* A record is submitted; its serial. */
uint64_t sim_shared_event_issue(sim_shared_event_t *shared);
void sim_shared_event_reach(sim_shared_event_t *shared, uint64_t serial);
uint64_t sim_shared_event_latest(const sim_shared_event_t *shared);
/* CUDA_ERROR_NOT_READY; CUDA_ERROR_LAUNCH_TIMEOUT where who recorded it lives no more. */
CUresult sim_shared_event_ask(sim_shared_event_t *shared, uint64_t serial);
/* The stream waits for that record. */
CUresult sim_shared_event_wait(sim_stream_t *stream, sim_shared_event_t *shared, uint64_t serial);

/* ---- event.c.  sim_lock held ---- */
/* Where the shared part of an event is kept; NULL: it is none that can be shared, *why. */
sim_shared_event_t **sim_event_shared(CUevent handle, CUresult *why);
/* It has just been given one: what is pending is told to it. */
void sim_event_becomes_shared(CUevent handle);
/* An event over another process's; takes `shared` over unless it fails. */
CUresult sim_event_import(sim_context_t *context, sim_shared_event_t *shared, CUevent *handle);

#endif
