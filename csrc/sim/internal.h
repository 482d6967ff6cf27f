/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the simulated GPU's infrastructure shares among its own files (entry.c,
 * config.c, object.c, device.c, context.c, stream.c, event.c, stubs.c, …) and the
 * memory side has no need of.
 */
#ifndef EMUV_SIM_INTERNAL_H
#define EMUV_SIM_INTERNAL_H

#include "sim.h"

/* ---- config.c: the environment, read once at the first call ---- */
typedef struct {
	bool verbose;
	uint64_t card_bytes;
	uint64_t context_bytes;
	int devices;         /* before CUDA_VISIBLE_DEVICES */
	unsigned int wait_ms; /* how long a wait for a held stream may last */
	char error[256];     /* what is wrong with the environment, or "" */
	char report[1024];   /* EMUV_SIM_REPORT, %p replaced by the process id, or "" */
} sim_config_t;
extern sim_config_t sim_config;
void sim_configure(void);
/*
 * Fills `visible` with the physical indices that CUDA_VISIBLE_DEVICES leaves of
 * `count` devices, in its order; returns how many.
 */
int sim_visible_devices(const char *value, int count, int visible[SIM_MAX_DEVICES]);

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

/* ---- order.c ---- */
/* A function of the program that runs in a stream's order; one of the two is set. */
typedef struct {
	void (*function)(void *data);
	void (*callback)(CUstream stream, CUresult status, void *data);
	void *data;
	CUstream handle; /* what the program called the stream */
} sim_host_t;
/* sim_lock held for all of these. */
bool sim_stream_done(sim_stream_t *stream, uint64_t number);
/* Later work in `stream` waits for `other`'s work up to `number`. */
bool sim_stream_after(sim_stream_t *stream, sim_stream_t *other, uint64_t number);
/* Waits until `done` says so; CUDA_ERROR_LAUNCH_TIMEOUT after sim_config.wait_ms. */
CUresult sim_wait_until(bool (*done)(void *argument), void *argument);
CUresult sim_stream_hold(sim_stream_t *stream, bool hold);
CUresult sim_host_submit(sim_stream_t *stream, const sim_host_t *host);
/* The stream ends, its work with it.  True: sim_order_settle is due when it is gone. */
bool sim_order_forget(sim_stream_t *stream);
void sim_order_settle(void);
CUresult sim_streams_wait_context(sim_context_t *context);
/* The event captures all streams of the context; all of them wait for the event. */
CUresult sim_streams_record_context(sim_context_t *context, CUevent event);
CUresult sim_streams_wait_event(sim_context_t *context, CUevent event);

/* ---- event.c ---- */
/* sim_lock held.  Stamps what has finished; of a `gone` stream, everything. */
void sim_events_settle(sim_stream_t *gone);
void sim_events_drop_context(sim_context_t *context);
/* sim_lock held.  A record of everything that is in the stream now. */
CUresult sim_event_record(CUevent handle, sim_stream_t *stream);
CUresult sim_event_wait(sim_stream_t *stream, CUevent handle);

/* ---- module.c ---- */
/* sim_lock held. */
void sim_modules_drop_context(sim_context_t *context);

/* CLOCK_MONOTONIC, nanoseconds. */
uint64_t sim_now(void);

#endif
