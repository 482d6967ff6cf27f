/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the simulated GPU's infrastructure shares among its own files (entry.c,
 * config.c, object.c, device.c, context.c, stream.c, event.c, stubs.c, …) and the
 * memory side has no need of.
 */
#ifndef EMUV_SIM_INTERNAL_H
#define EMUV_SIM_INTERNAL_H

#include <stdio.h>

#include "sim.h"

/* ---- config.c: the environment, read once at the first call ---- */
typedef struct {
	bool verbose;
	bool touch_unknown; /* EMUV_SIM_UNKNOWN_KERNELS=touch */
	uint64_t card_bytes;
	uint64_t context_bytes;
	uint64_t module_bytes;
	uint64_t pool_bytes; /* that a pool reserves at a time */
	int devices;         /* before CUDA_VISIBLE_DEVICES */
	unsigned int wait_ms; /* how long a wait for a held stream may last */
	unsigned int end_ms;  /* how long work may take when its context or the process ends */
	char error[256];     /* what is wrong with the environment, or "" */
	char report[1024];   /* EMUV_SIM_REPORT, %p replaced by the process id, or "" */
	int workers;         /* threads that run one kernel; 0: as many as there are CPUs */
	unsigned int kernel_ms; /* how long a kernel may run; 0: as long as it likes */
	char cache[960];     /* EMUV_SIM_CACHE: a folder, "off", or "" */
	char compiler[512];  /* EMUV_SIM_CC, or "" */
	char stats[1024];    /* EMUV_SIM_STATS, likewise */
	uint64_t stats_launches; /* to tell one by one */
	int track;           /* EMUV_SIM_TRACK; -1: not set */
	bool in_order;       /* EMUV_SIM_ORDER=submission */
} sim_config_t;
extern sim_config_t sim_config;
void sim_configure(void);

/* ---- entry.c ---- */
extern _Thread_local bool sim_in_callback;
/* The counter of an exported function; NULL where the driver has no such function. */
sim_call_t *sim_call_find(const char *name);
/*
 * The n-th call of `name`, from now or of all, fails with `code`.
 * CUDA_ERROR_NOT_FOUND: no such function.
 */
CUresult sim_fault_arm(const char *name, uint64_t n, bool from_now, CUresult code);
bool sim_forked(void);

/* ---- stubs.c ---- */
typedef struct {
	const char *name;           /* as cuGetProcAddress knows it */
	CUresult (*address)(void);  /* of the export, whatever its type */
	CUresult (*stub)(void);     /* the same where the function is not simulated */
	int version, flag;
	int call;                   /* index in sim_calls[] */
} sim_export_t;
extern const sim_export_t sim_exports[];
extern const int sim_export_count;

/* ---- object.c ---- */
/* sim_lock held.  Makes a known object of memory that is the caller's to keep. */
bool sim_object_enter(void *object);
/* sim_lock held.  Forgets an object without freeing it. */
void sim_object_leave(void *object);

/* ---- device.c ---- */
CUresult sim_devices_init(void); /* sim_lock held */
/* "GPU-…" of the physical device. */
void sim_device_uuid(int physical, unsigned char uuid[16]);
void sim_device_uuid_text(int physical, char text[48]);
#define SIM_DEVICE_CHECK(name, device)                                             \
	do {                                                                       \
		if ((device) < 0 || (device) >= sim_device_count)                  \
			return sim_fail(CUDA_ERROR_INVALID_DEVICE,                 \
					#name ": there is no device %d", device);  \
	} while (0)

/* ---- context.c ---- */
/* sim_lock held.  The live context of that handle, NULL where there is none. */
sim_context_t *sim_context_get(CUcontext handle);
/* The calling thread has something to give back when it ends. */
void sim_thread_note(void);
/* The library goes: threads that end later find nothing of it to call. */
void sim_threads_forget(void);
void sim_context_default_limits(sim_context_t *context); /* context_state.c */

/* ---- stream.c ---- */
#define SIM_PRIORITY_LEAST 0
#define SIM_PRIORITY_GREATEST (-5)
/* sim_lock held. */
sim_stream_t *sim_stream_make(sim_context_t *context, unsigned int flags, int priority);
void sim_streams_drop_context(sim_context_t *context);
/* Of the calling thread, which ends. */
void sim_stream_thread_end(void);

/* ---- order.c: more in order.h and work.h.  sim_lock held for all of these ---- */
CUresult sim_stream_hold(sim_stream_t *stream, bool hold);
void sim_stream_set_priority(sim_stream_t *stream, int priority);
/* The handle is dead; what is queued is done all the same. */
void sim_stream_delete(sim_stream_t *stream);
/* A place behind all that is in the stream; behind all that is in the context. */
CUresult sim_stream_place(sim_stream_t *stream);
CUresult sim_stream_place_after_all(sim_context_t *context);
/* The virtual moment at which work that is submitted to it now may start, at the earliest. */
uint64_t sim_stream_moment(const sim_stream_t *stream);
/* sim_context_poison; sim_order_go is due. */
void sim_context_fail(sim_context_t *context, CUresult code);
/* What runs should end, what is queued is passed over. */
void sim_context_stop(sim_context_t *context);

/* ---- executor.c ---- */
extern _Atomic bool sim_exiting; /* functions of the program are not called any more */
void sim_executor_init(void);
void sim_executor_end(void); /* without sim_lock: the library goes */
/* sim_lock held, dropped while waiting.  Waits for the stream's work up to a number. */
CUresult sim_stream_wait_for(sim_stream_t *stream, uint64_t number);
/* For tests: waits a while until nothing goes on that is not held. */
void sim_order_settle(void);
/* The same.  The context ends: its work has a short time for it. */
void sim_context_drain(sim_context_t *context);
/* Waits while another thread drains it; NULL: none. */
void sim_context_drain_end(const sim_context_t *context);

/* ---- event.c ---- */
/* sim_lock held. */
void sim_events_drop_context(sim_context_t *context);
/* sim_lock held.  A record of everything that is in the stream now. */
/* `external`: where the stream is captured, a node of its own. */
CUresult sim_event_record(CUevent handle, sim_stream_t *stream, bool external);
CUresult sim_event_wait(sim_stream_t *stream, CUevent handle, bool external);
/* A record of everything that is in the context; all its streams wait for the event. */
CUresult sim_event_record_context(CUevent handle, sim_context_t *context);
CUresult sim_event_wait_context(sim_context_t *context, CUevent handle);

/* ---- module.c ---- */
/* sim_lock held. */
void sim_modules_drop_context(sim_context_t *context);

/* ---- report.c: files that are written at exit ---- */
typedef struct {
	const char *variable, *path;
	char beside[1024 + 16]; /* beside.h */
	int pid;
	FILE *file;
} sim_report_file_t;
/* Takes sim_lock.  False: not asked for, or cannot be, which has been said. */
bool sim_report_open(sim_report_file_t *report, const char *variable, const char *path);
void sim_report_close(sim_report_file_t *report); /* drops it */

/* CLOCK_MONOTONIC, nanoseconds. */
uint64_t sim_now(void);

#endif
