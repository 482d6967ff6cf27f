/* SPDX-License-Identifier: GPL-2.0-only */
/* What other files ask of captures: capture.c.  sim_lock held. */
#ifndef EMUV_SIM_CAPTURE_H
#define EMUV_SIM_CAPTURE_H

#include "graph.h"

typedef struct capture capture_t;
typedef struct sim_capture sim_capture_t; /* of a stream */

/* What an event was recorded after, while its stream was captured. */
typedef struct {
	uint64_t id; /* of the capture; 0: none */
	sim_links_t last;
} sim_captured_t;

/*
 * Calls that may not be made now; each invalidates the capture in whose way it is.
 * Callers ask only while sim_captures is not 0.
 *   refuse    of a stream that captures
 *   unsafe    in this thread, by the modes of the captures and its own
 *   implicit  in the NULL stream, which blocking streams would wait for
 *   context   of a whole context
 */
CUresult sim_capture_refuse(const sim_stream_t *stream);
CUresult sim_capture_unsafe(void);
CUresult sim_capture_implicit(const sim_stream_t *legacy);
CUresult sim_capture_context(const sim_context_t *context);
void sim_capture_invalidate(const sim_stream_t *stream);

/* A stream that captures is destroyed. */
void sim_capture_forget(sim_stream_t *stream);

/* An event's record in a stream that captures; a wait for an event (NULL: of outside). */
CUresult sim_capture_record(sim_stream_t *stream, sim_captured_t *captured);
CUresult sim_capture_wait(sim_stream_t *stream, const sim_captured_t *captured);
/* Was it recorded in a capture that goes on? */
bool sim_captured_lives(const sim_captured_t *captured);
/* CUDA_ERROR_CAPTURED_EVENT; the capture is invalid from then on. */
CUresult sim_captured_refuse(const sim_captured_t *captured);
void sim_captured_drop(sim_captured_t *captured);

#endif
