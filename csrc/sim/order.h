/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What order.c (queues) and executor.c (threads, waiting) say to each other.
 * sim_lock is held for everything here.
 */
#ifndef EMUV_SIM_ORDER_H
#define EMUV_SIM_ORDER_H

#include "internal.h"
#include "work.h"

/* ---- order.c ---- */
extern sim_stream_t *sim_busy_streams; /* those with unfinished work, by busy_next */
extern unsigned int sim_held_streams;
/*
 * The virtual moment that the host has seen, by waiting: work that is submitted later
 * does not start before it.
 */
extern uint64_t sim_order_moment;

/* Something about the stream changed: sim_order_go is due. */
void sim_order_look(sim_stream_t *stream);
/*
 * Draws the conclusions of what changed: wakes executors for what is ready, but for
 * `own`, which the caller is going to run (NULL: none), unless its first piece is not
 * the caller's to run.
 */
void sim_order_go(const sim_stream_t *own);
/* May the stream's first piece run now?  (Not a question but with EMUV_SIM_ORDER=submission.) */
bool sim_order_turn(const sim_stream_t *stream);
/* Is something ready that may have to wait for its turn? */
bool sim_order_kept(void);
/* The stream that should go next, of those that are ready; *polling: it only asks again. */
sim_stream_t *sim_order_next(bool *polling);
/* Is all that is left held, or waits for what is? */
bool sim_order_settled(void);
/*
 * Nothing begins from here to sim_order_resume, which is due whatever the result.  True:
 * nothing runs any more, either; false: something went on running for EMUV_SIM_WAIT_MS.
 */
bool sim_order_pause(void); /* executor.c; sim_lock is dropped while it waits */
void sim_order_resume(void);
extern unsigned int sim_order_pauses;
/* Number of the latest piece of any stream. */
uint64_t sim_order_number(void);
/* Nobody waits for the stream any more: it may be due to go. */
void sim_stream_release(sim_stream_t *stream);
/* Runs the first piece of a stream that is ready; sim_order_go() is due.  Drops the lock. */
void sim_order_run(sim_stream_t *stream);
/* Does the stream wait, for all that it could do, for one that is held? */
bool sim_stream_blocked(const sim_stream_t *stream);

/* To the end of the queue, whole batches at a time: sim_order_go is due, no capture is asked. */
CUresult sim_stream_append(sim_stream_t *stream, sim_work_t *work);
/* The lock is dropped where the queue is full. */
void sim_stream_room(sim_stream_t *stream);

/* ---- executor.c ---- */
/* There is a thread to run what is ready. */
CUresult sim_executor_start(void);
/* At least `needed` threads look for work. */
void sim_executor_wake(unsigned int needed);
void sim_waiters_tell(void);
/* Waits, and helps, until at most `most` pieces are queued, or the stream is held up. */
void sim_stream_thin_out(sim_stream_t *stream, unsigned int most);

#endif
