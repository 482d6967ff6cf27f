/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stream capture: work that is submitted becomes nodes of a graph.
 *
 * A capture begins in one stream, its origin; other streams join it by waiting for an
 * event that was recorded in it, and must be joined back before it ends.  What is
 * illegal meanwhile invalidates it: it then ends without a graph.
 *
 * Invariants
 *   - A stream that captures has a sim_capture_t: the capture, and the nodes that the
 *     next one comes after.  Each capture is in the list `captures`; sim_captures counts
 *     them, so that whoever never captures pays one comparison.
 *   - An event that was recorded while capturing keeps those nodes and the capture's id;
 *     when the capture is over it counts as never recorded.
 *   - sim_lock guards all of it.
 */
#include <stdlib.h>

#include "capture.h"
#include "graph_nodes.h"

struct sim_capture {
	capture_t *of;
	sim_links_t last; /* the next node comes after these */
	CUgraphNode *told; /* what a query was last answered with */
	CUgraphEdgeData *told_data;
};

struct capture {
	capture_t *next;
	uint64_t id;
	sim_graph_t *graph;
	bool own_graph;  /* made for it: dropped where it fails */
	size_t from;     /* its first node's index */
	int mode;
	const void *thread;
	bool invalid;
	sim_stream_t *origin;
};

unsigned int sim_captures;
static capture_t *captures;
static uint64_t capture_ids;
static _Thread_local int thread_mode; /* CUstreamCaptureMode */
static _Thread_local char thread_self; /* its address names the thread */

/* ---- what must not be done now ---- */

void sim_capture_invalidate(const sim_stream_t *stream)
{
	if (stream->capture)
		stream->capture->of->invalid = true;
}

CUresult sim_capture_refuse(const sim_stream_t *stream)
{
	sim_capture_invalidate(stream);
	return sim_fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
			"the call cannot be captured; the capture is invalid now");
}

/* Does the capture forbid this thread calls that are not safe? */
static bool forbids(const capture_t *capture)
{
	bool mine = capture->thread == &thread_self;

	if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED ||
	    capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED)
		return false;
	return mine || (thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
			capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
}

CUresult sim_capture_unsafe(void)
{
	CUresult result = CUDA_SUCCESS;

	for (capture_t *capture = captures; capture; capture = capture->next)
		if (forbids(capture)) {
			capture->invalid = true;
			result = sim_fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
					  "the call is not safe while a stream captures; the "
					  "capture is invalid now");
		}
	return result;
}

/* A capture in a stream that the NULL stream waits for. */
static bool blocks(const capture_t *capture, const sim_stream_t *legacy)
{
	return capture->origin->object.context == legacy->object.context &&
	       !(capture->origin->flags & CU_STREAM_NON_BLOCKING);
}

CUresult sim_capture_implicit(const sim_stream_t *legacy)
{
	CUresult result = CUDA_SUCCESS;

	for (capture_t *capture = captures; capture; capture = capture->next)
		if (blocks(capture, legacy)) {
			capture->invalid = true;
			result = sim_fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
					  "the NULL stream would wait for a stream that captures; "
					  "the capture is invalid now");
		}
	return result;
}

CUresult sim_capture_context(const sim_context_t *context)
{
	CUresult result = CUDA_SUCCESS;

	for (capture_t *capture = captures; capture; capture = capture->next)
		if (capture->origin->object.context == context) {
			capture->invalid = true;
			result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
		}
	return result;
}

/* ---- streams that capture ---- */

/* Nodes that the program destroyed meanwhile are no dependencies. */
static void prune(sim_links_t *links)
{
	size_t kept = 0;

	for (size_t i = 0; i < links->count; i++)
		if (sim_object_get(links->link[i].node, SIM_NODE))
			links->link[kept++] = links->link[i];
	links->count = kept;
}

static bool links_copy(sim_links_t *to, const sim_links_t *from)
{
	for (size_t i = 0; i < from->count; i++)
		if (!sim_links_find(to, from->link[i].node) &&
		    !sim_links_add(to, from->link[i].node, from->link[i].data))
			return false;
	return true;
}

static void leave(sim_stream_t *stream)
{
	free(stream->capture->last.link);
	free(stream->capture->told);
	free(stream->capture->told_data);
	free(stream->capture);
	stream->capture = NULL;
}

static CUresult join(sim_stream_t *stream, capture_t *capture)
{
	stream->capture = calloc(1, sizeof(*stream->capture));
	if (!stream->capture)
		return CUDA_ERROR_OUT_OF_MEMORY;
	stream->capture->of = capture;
	return CUDA_SUCCESS;
}

static void leave_if_of(void *object, void *capture)
{
	sim_stream_t *stream = object;

	if (stream->capture && stream->capture->of == capture)
		leave(stream);
}

static void end(capture_t *capture)
{
	sim_object_each(SIM_STREAM, leave_if_of, capture);
	for (capture_t **at = &captures; *at; at = &(*at)->next)
		if (*at == capture) {
			*at = capture->next;
			break;
		}
	free(capture);
	sim_captures--;
}

void sim_capture_forget(sim_stream_t *stream)
{
	capture_t *capture = stream->capture->of;

	/* What a stream that joined has added stays, and must be joined back. */
	leave(stream);
	if (capture->origin != stream)
		return;
	/* Nobody can end it any more. */
	if (capture->own_graph)
		sim_graph_delete(capture->graph);
	end(capture);
}

CUresult sim_capture_add(sim_stream_t *stream, CUgraphNodeType type, sim_work_t *work,
			 sim_graph_t *child)
{
	sim_capture_t *here = stream->capture;
	CUresult result = here->of->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
	sim_node_t *node;

	if (result != CUDA_SUCCESS) {
		if (work)
			sim_work_drop(work);
		if (child)
			sim_graph_delete(child);
		return result;
	}
	if (child)
		child->owned = true;
	prune(&here->last);
	node = sim_graph_add(here->of->graph, type, work, child, here->last.link, here->last.count,
			     &result);
	if (!node)
		return result;
	here->last.count = 0;
	return sim_links_add(&here->last, node, (CUgraphEdgeData){ 0 }) ? CUDA_SUCCESS
									: CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- events ---- */

static capture_t *capture_of(uint64_t id)
{
	for (capture_t *capture = captures; capture; capture = capture->next)
		if (capture->id == id)
			return capture;
	return NULL;
}

bool sim_captured_lives(const sim_captured_t *captured)
{
	return captured->id && capture_of(captured->id);
}

CUresult sim_captured_refuse(const sim_captured_t *captured)
{
	capture_of(captured->id)->invalid = true;
	return sim_fail(CUDA_ERROR_CAPTURED_EVENT, "the event was recorded in a capture");
}

void sim_captured_drop(sim_captured_t *captured)
{
	free(captured->last.link);
	*captured = (sim_captured_t){ 0 };
}

CUresult sim_capture_record(sim_stream_t *stream, sim_captured_t *captured)
{
	if (stream->capture->of->invalid)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	sim_captured_drop(captured);
	prune(&stream->capture->last);
	if (!links_copy(&captured->last, &stream->capture->last))
		return CUDA_ERROR_OUT_OF_MEMORY;
	captured->id = stream->capture->of->id;
	return CUDA_SUCCESS;
}

CUresult sim_capture_wait(sim_stream_t *stream, const sim_captured_t *captured)
{
	capture_t *capture = captured ? capture_of(captured->id) : NULL;
	CUresult result = CUDA_SUCCESS;

	if (!capture) {
		/* Work that is no part of the capture. */
		sim_capture_invalidate(stream);
		return sim_fail(CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
				"a stream that captures cannot wait for an event of outside");
	}
	if (capture->invalid)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (stream->capture && stream->capture->of != capture) {
		capture->invalid = stream->capture->of->invalid = true;
		return sim_fail(CUDA_ERROR_STREAM_CAPTURE_MERGE,
				"the event belongs to another capture");
	}
	if (stream->legacy) {
		capture->invalid = true;
		return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
	}
	if (!stream->capture)
		result = join(stream, capture);
	if (result == CUDA_SUCCESS && !links_copy(&stream->capture->last, &captured->last))
		result = CUDA_ERROR_OUT_OF_MEMORY;
	return result;
}

/* ---- beginning and ending ---- */

static CUresult begin(CUstream handle, bool per_thread, int mode, CUgraph into,
		      const CUgraphNode *nodes, const CUgraphEdgeData *data, size_t count)
{
	CUresult result = CUDA_SUCCESS;
	capture_t *capture = NULL;
	sim_graph_t *graph = NULL;
	sim_stream_t *stream;

	if (mode < 0 || mode > CU_STREAM_CAPTURE_MODE_RELAXED || (count && !nodes))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (!stream) {
		sim_lock_drop();
		return result;
	}
	if (stream->legacy)
		result = sim_fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
				  "the NULL stream cannot be captured");
	else if (stream->capture)
		result = sim_fail(CUDA_ERROR_ILLEGAL_STATE, "the stream captures already");
	if (result == CUDA_SUCCESS && into)
		graph = sim_graph_get(into, &result);
	if (result == CUDA_SUCCESS) {
		capture = calloc(1, sizeof(*capture));
		if (!graph)
			graph = sim_graph_new(true);
		result = capture && graph ? join(stream, capture) : CUDA_ERROR_OUT_OF_MEMORY;
	}
	for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) {
		sim_node_t *node = sim_node_get(nodes[i], &result);

		if (node && (node->graph != graph ||
			     !sim_links_add(&stream->capture->last, node,
					    data ? data[i] : (CUgraphEdgeData){ 0 })))
			result = CUDA_ERROR_INVALID_VALUE;
	}
	if (result != CUDA_SUCCESS) {
		if (stream->capture && capture && stream->capture->of == capture)
			leave(stream);
		if (graph && !into)
			sim_graph_delete(graph);
		free(capture);
	} else {
		*capture = (capture_t){
			.next = captures, .id = ++capture_ids, .graph = graph, .own_graph = !into,
			.from = graph->count, .mode = mode, .thread = &thread_self,
			.origin = stream,
		};
		graph->owned |= !into;
		captures = capture;
		sim_captures++;
	}
	sim_lock_drop();
	return result;
}

SIM_BOTH(cuStreamBeginCapture, (CUstream handle),
     return begin(handle, per_thread, CU_STREAM_CAPTURE_MODE_GLOBAL, NULL, NULL, NULL, 0);)
SIM_BOTH(cuStreamBeginCapture_v2, (CUstream handle, int mode),
     return begin(handle, per_thread, mode, NULL, NULL, NULL, 0);)
SIM_BOTH(cuStreamBeginCaptureToGraph,
     (CUstream handle, CUgraph graph, const CUgraphNode *nodes, const CUgraphEdgeData *data,
      size_t count, int mode),
     if (!graph) return CUDA_ERROR_INVALID_VALUE;
     return begin(handle, per_thread, mode, graph, nodes, data, count);)

/* Is there work in the capture that the origin's last nodes do not come after? */
static bool unjoined(const capture_t *capture)
{
	const sim_links_t *last = &capture->origin->capture->last;

	for (size_t i = capture->from; i < capture->graph->count; i++) {
		const sim_node_t *node = capture->graph->nodes[i];

		if (!node->after.count && !sim_links_find(last, node))
			return true;
	}
	return false;
}

static CUresult finish(CUstream handle, bool per_thread, CUgraph *graph)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *stream;
	capture_t *capture;

	if (!graph)
		return CUDA_ERROR_INVALID_VALUE;
	*graph = NULL;
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	capture = stream && stream->capture ? stream->capture->of : NULL;
	if (stream && !capture)
		result = sim_fail(CUDA_ERROR_ILLEGAL_STATE, "the stream does not capture");
	if (!capture) {
		sim_lock_drop();
		return result;
	}
	if (capture->origin != stream) {
		capture->invalid = true;
		sim_lock_drop();
		return sim_fail(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
				"the capture began in another stream");
	}
	if (capture->thread != &thread_self && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
		sim_lock_drop();
		return sim_fail(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
				"the capture began in another thread");
	}
	prune(&stream->capture->last);
	if (capture->invalid)
		result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	else if (unjoined(capture))
		result = sim_fail(CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
				  "a stream that joined the capture was not joined back");
	if (result == CUDA_SUCCESS) {
		*graph = (CUgraph)capture->graph;
		capture->graph->owned &= !capture->own_graph;
	} else if (capture->own_graph) {
		sim_graph_delete(capture->graph);
	}
	end(capture);
	sim_lock_drop();
	sim_user_objects_end();
	return result;
}
SIM_BOTH(cuStreamEndCapture, (CUstream handle, CUgraph *graph),
     return finish(handle, per_thread, graph);)

/* ---- questions ---- */

typedef struct {
	cuuint64_t *id;
	CUgraph *graph;
	const CUgraphNode **nodes;
	const CUgraphEdgeData **data;
	size_t *count;
} question_t;

static CUresult tell(sim_capture_t *here, const question_t *question)
{
	size_t count;

	prune(&here->last);
	count = here->last.count;
	if (question->id)
		*question->id = here->of->id;
	if (question->graph)
		*question->graph = (CUgraph)here->of->graph;
	if (question->count)
		*question->count = count;
	free(here->told);
	free(here->told_data);
	here->told = calloc(count + 1, sizeof(*here->told));
	here->told_data = calloc(count + 1, sizeof(*here->told_data));
	if (!here->told || !here->told_data)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < count; i++) {
		here->told[i] = (CUgraphNode)here->last.link[i].node;
		here->told_data[i] = here->last.link[i].data;
	}
	if (question->nodes)
		*question->nodes = here->told;
	if (question->data)
		*question->data = here->told_data;
	return CUDA_SUCCESS;
}

static CUresult info(CUstream handle, bool per_thread, CUstreamCaptureStatus *status,
		     question_t question)
{
	CUresult result = CUDA_SUCCESS;
	sim_stream_t *stream;

	if (!status)
		return CUDA_ERROR_INVALID_VALUE;
	*status = CU_STREAM_CAPTURE_STATUS_NONE;
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	/* Asking does not invalidate, as documented. */
	for (capture_t *capture = captures; stream && stream->legacy && capture;
	     capture = capture->next)
		if (blocks(capture, stream))
			result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
	if (stream && stream->capture) {
		*status = stream->capture->of->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
						       : CU_STREAM_CAPTURE_STATUS_ACTIVE;
		if (*status == CU_STREAM_CAPTURE_STATUS_ACTIVE)
			result = tell(stream->capture, &question);
	}
	sim_lock_drop();
	return result;
}

SIM_BOTH(cuStreamIsCapturing, (CUstream handle, CUstreamCaptureStatus *status),
     return info(handle, per_thread, status, (question_t){ 0 });)
/* The other outputs say something only while a capture goes on: they are left alone. */
SIM_BOTH(cuStreamGetCaptureInfo, (CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id),
     return info(handle, per_thread, status, (question_t){ .id = id });)
SIM_BOTH(cuStreamGetCaptureInfo_v2,
     (CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
      const CUgraphNode **nodes, size_t *count),
     return info(handle, per_thread, status,
		 (question_t){ .id = id, .graph = graph, .nodes = nodes, .count = count });)
SIM_BOTH(cuStreamGetCaptureInfo_v3,
     (CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
      const CUgraphNode **nodes, const CUgraphEdgeData **data, size_t *count),
     return info(handle, per_thread, status,
		 (question_t){ .id = id, .graph = graph, .nodes = nodes, .data = data,
			       .count = count });)

static CUresult redepend(CUstream handle, bool per_thread, const CUgraphNode *nodes,
			 const CUgraphEdgeData *data, size_t count, unsigned int flags)
{
	CUresult result = CUDA_SUCCESS;
	sim_links_t links = { 0 };
	sim_stream_t *stream;

	if (flags > 1 || (count && !nodes))
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	stream = sim_stream_get(handle, per_thread, &result);
	if (!stream) {
		sim_lock_drop();
		return result;
	}
	if (!stream->capture)
		result = CUDA_ERROR_ILLEGAL_STATE;
	else if (stream->capture->of->invalid)
		result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) {
		sim_node_t *node = sim_node_get(nodes[i], &result);

		if (node && node->graph != stream->capture->of->graph)
			result = CUDA_ERROR_INVALID_VALUE;
		else if (node && !sim_links_add(&links, node,
						data ? data[i] : (CUgraphEdgeData){ 0 }))
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result == CUDA_SUCCESS) {
		if (flags) /* set, not add */
			stream->capture->last.count = 0;
		if (!links_copy(&stream->capture->last, &links))
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	free(links.link);
	sim_lock_drop();
	return result;
}
SIM_BOTH(cuStreamUpdateCaptureDependencies,
     (CUstream handle, CUgraphNode *nodes, size_t count, unsigned int flags),
     return redepend(handle, per_thread, nodes, NULL, count, flags);)
SIM_BOTH(cuStreamUpdateCaptureDependencies_v2,
     (CUstream handle, CUgraphNode *nodes, const CUgraphEdgeData *data, size_t count,
      unsigned int flags),
     return redepend(handle, per_thread, nodes, data, count, flags);)

SIM_API(cuThreadExchangeStreamCaptureMode, int *mode)
{
	int wanted;

	SIM_ENTER(cuThreadExchangeStreamCaptureMode);
	if (!mode || *mode < 0 || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;
	wanted = *mode;
	*mode = thread_mode;
	thread_mode = wanted;
	return CUDA_SUCCESS;
}
