/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies of boxes (box.h).
 *
 * A copy is checked when it is submitted, and both ends are found anew when it runs:
 * managed blocks move then, and memory that is gone by then is an error of the context.
 * Bytes move without sim_lock.
 */
#include <stdlib.h>
#include <string.h>

#include "box.h"

#define STAGED_BYTES ((size_t)64 << 10) /* of pageable memory, at most; more is waited for */
#define MAX_PITCH ((size_t)2147483647) /* CU_DEVICE_ATTRIBUTE_MAX_PITCH */

/* One end of a copy, found and checked. */
typedef struct {
	char *first; /* byte of the box */
	size_t pitch, slice; /* bytes from row to row, from slice to slice */
	size_t span;         /* bytes from the first to the last; 0: of an array */
} place_t;

static CUresult wrong(const char *what, const char *why)
{
	return sim_fail(CUDA_ERROR_INVALID_VALUE, "copy %s: %s", what, why);
}

/* a * b + c where all is sane; false beyond SIM_MAX_BYTES. */
static bool times_plus(size_t a, size_t b, size_t c, size_t *result)
{
	return !__builtin_mul_overflow(a, b, result) && !__builtin_add_overflow(*result, c, result) &&
	       *result <= SIM_MAX_BYTES;
}

static CUresult place_in_array(const sim_side_t *side, const sim_box_t *box, const char *what,
			       place_t *place)
{
	const char *why = NULL;
	const sim_array_t *array = sim_object_get(side->array, SIM_ARRAY);
	if (!array)
		why = "no such array";
	else if (side->x % array->element_bytes || box->width % array->element_bytes)
		why = "x or width is no multiple of the array's element";
	else if (side->x > array->row_bytes || box->width > array->row_bytes - side->x ||
		 side->y > array->rows || box->height > array->rows - side->y ||
		 side->z > array->slices || box->depth > array->slices - side->z)
		why = "beyond the array";
	else
		*place = (place_t){
			.first = array->data + (side->z * array->rows + side->y) * array->row_bytes +
				 side->x,
			.pitch = array->row_bytes,
			.slice = array->row_bytes * array->rows,
		};
	return !array ? CUDA_ERROR_INVALID_HANDLE : why ? wrong(what, why) : CUDA_SUCCESS;
}

static CUresult place_in_memory(const sim_context_t *context, const sim_side_t *side,
				const sim_box_t *box, sim_use_t use, const char *what,
				place_t *place)
{
	size_t row, rows, offset, span;
	if (!times_plus(side->x, 1, box->width, &row) || !times_plus(side->y, 1, box->height, &rows))
		return wrong(what, "too large");
	size_t pitch = side->pitch ? side->pitch : row;
	size_t height = side->height ? side->height : rows;
	if (pitch < row || (pitch > MAX_PITCH && (side->pitch || box->height * box->depth > 1)))
		return wrong(what, "pitch is less than x + width, or more than a device's");
	if (height < rows)
		return wrong(what, "slice height is less than y + height");
	if (!times_plus(side->z, height, side->y, &offset) ||
	    !times_plus(offset, pitch, side->x, &offset) ||
	    !times_plus(box->depth - 1, height, box->height - 1, &span) ||
	    !times_plus(span, pitch, box->width, &span))
		return wrong(what, "too large");

	sim_address_t kind = side->type == CU_MEMORYTYPE_HOST   ? SIM_ADDRESS_HOST :
			     side->type == CU_MEMORYTYPE_DEVICE ? SIM_ADDRESS_DEVICE :
								  SIM_ADDRESS_ANY;
	if (!side->address)
		return wrong(what, "NULL");
	CUresult result = sim_check(context, side->address + offset, span, use, kind, what);
	*place = (place_t){
		.first = (char *)(uintptr_t)side->address + offset,
		.pitch = pitch,
		.slice = pitch * height,
		.span = span,
	};
	return result;
}

static CUresult find(const sim_context_t *context, const sim_side_t *side, const sim_box_t *box,
		     sim_use_t use, const char *what, place_t *place)
{
	switch (side->type) {
	case CU_MEMORYTYPE_ARRAY:
		return place_in_array(side, box, what, place);
	case CU_MEMORYTYPE_HOST:
	case CU_MEMORYTYPE_DEVICE:
	case CU_MEMORYTYPE_UNIFIED:
		return place_in_memory(context, side, box, use, what, place);
	default:
		return wrong(what, "no such memory type");
	}
}

static bool same_elements(const sim_box_t *box)
{
	if (box->from.type != CU_MEMORYTYPE_ARRAY || box->to.type != CU_MEMORYTYPE_ARRAY)
		return true;
	const sim_array_t *from = sim_object_get(box->from.array, SIM_ARRAY);
	const sim_array_t *to = sim_object_get(box->to.array, SIM_ARRAY);
	return !from || !to || from->element_bytes == to->element_bytes;
}

static CUresult find_both(const sim_context_t *context, const sim_box_t *box, place_t *from,
			  place_t *to)
{
	CUresult result = find(context, &box->from, box, SIM_USE_READ, "source", from);
	if (result == CUDA_SUCCESS)
		result = find(context, &box->to, box, SIM_USE_WRITE, "destination", to);
	if (result == CUDA_SUCCESS && !same_elements(box))
		result = wrong("source and destination", "elements of different sizes");
	return result;
}

CUresult sim_box_check(const sim_context_t *context, const sim_box_t *box)
{
	place_t from, to;
	return find_both(context, box, &from, &to);
}

static void move(const sim_box_t *box, const place_t *to, const place_t *from)
{
	/* Last row first where the destination lies higher: overlapping boxes come out right. */
	bool backwards = to->first > from->first;
	size_t rows = box->height * box->depth;
	for (size_t i = 0; i < rows; i++) {
		size_t at = backwards ? rows - 1 - i : i;
		size_t z = at / box->height, y = at % box->height;
		memmove(to->first + z * to->slice + y * to->pitch,
			from->first + z * from->slice + y * from->pitch, box->width);
	}
}

static sim_memory_t memory_of(const sim_side_t *side)
{
	return side->type == CU_MEMORYTYPE_ARRAY ? SIM_MEMORY_DEVICE : sim_memory_at(side->address);
}

static bool is_host(sim_memory_t memory)
{
	return memory == SIM_MEMORY_PAGEABLE || memory == SIM_MEMORY_PINNED;
}

/* ---- as a piece of work ---- */

static void touch(const sim_context_t *context, const place_t *place, uint64_t bytes, sim_use_t use,
		  sim_cost_t *cost)
{
	if (place->span)
		sim_touch(context, (uintptr_t)place->first, place->span, bytes, use, cost);
	else
		cost->vram_bytes += bytes; /* an array */
}

static CUresult run(sim_work_t *work, sim_cost_t *cost)
{
	sim_copy_work_t *copy = (sim_copy_work_t *)work;
	const sim_box_t *box = &copy->box;
	uint64_t bytes = (uint64_t)box->width * box->height * box->depth;
	place_t from, to;
	sim_lock_take();
	CUresult result = find_both(work->context, box, &from, &to);
	/* From host to host, the CPU copies. */
	if (result == CUDA_SUCCESS &&
	    !(is_host(memory_of(&box->from)) && is_host(memory_of(&box->to)))) {
		touch(work->context, &from, bytes, SIM_USE_READ, cost);
		touch(work->context, &to, bytes, SIM_USE_WRITE, cost);
	}
	if (result == CUDA_SUCCESS) {
		copy->pinned[0] = from.span ? sim_pin((uintptr_t)from.first) : NULL;
		copy->pinned[1] = to.span ? sim_pin((uintptr_t)to.first) : NULL;
	}
	sim_lock_drop();
	if (result != CUDA_SUCCESS)
		return sim_fail(CUDA_ERROR_ILLEGAL_ADDRESS,
				"a copy's memory was freed before the copy was done");
	move(box, &to, &from);
	return CUDA_SUCCESS;
}

static bool copied(sim_work_t *work)
{
	sim_copy_work_t *copy = (sim_copy_work_t *)work;
	size_t bytes = copy->box.width * copy->box.height * copy->box.depth;
	void *staged = copy->staged ? malloc(bytes) : NULL;
	if (!copy->staged)
		return true;
	if (!staged)
		return false;
	copy->staged = memcpy(staged, copy->staged, bytes);
	copy->box.from.address = (uintptr_t)staged;
	return true;
}

static void done(sim_work_t *work)
{
	sim_unpin(((sim_copy_work_t *)work)->pinned[0]);
	sim_unpin(((sim_copy_work_t *)work)->pinned[1]);
}

static void drop(sim_work_t *work)
{
	free(((sim_copy_work_t *)work)->staged);
}

const sim_work_kind_t sim_copy_kind = {
	.name = "copy",
	.bytes = sizeof(sim_copy_work_t),
	.node_type = 1, /* CU_GRAPH_NODE_TYPE_MEMCPY */
	.run = run,
	.copied = copied,
	.drop = drop,
	.done = done,
};

/* The bytes are taken now; the piece copies from where they were put. */
static bool stage(sim_copy_work_t *copy, const place_t *from)
{
	sim_box_t *box = &copy->box;
	place_t staged = { .pitch = box->width, .slice = box->width * box->height };
	copy->staged = malloc(box->width * box->height * box->depth);
	if (!copy->staged)
		return false;
	staged.first = copy->staged;
	move(box, &staged, from);
	box->from = (sim_side_t){
		.type = CU_MEMORYTYPE_HOST,
		.address = (uintptr_t)copy->staged,
		.pitch = box->width,
		.height = box->height,
	};
	return true;
}

typedef enum { RETURN_AT_ONCE, RETURN_STAGED, RETURN_DONE } return_t;

static return_t when(const sim_box_t *box, const sim_stream_t *stream, bool synchronous)
{
	sim_memory_t from = memory_of(&box->from), to = memory_of(&box->to);
	size_t bytes = box->width * box->height * box->depth;
	if (stream->capture)
		return RETURN_AT_ONCE;
	if (synchronous) {
		if (from == SIM_MEMORY_DEVICE && to == SIM_MEMORY_DEVICE)
			return sim_stream_quiet(stream) ? RETURN_DONE : RETURN_AT_ONCE;
		return RETURN_DONE;
	}
	if (to == SIM_MEMORY_PAGEABLE || (is_host(from) && is_host(to)))
		return RETURN_DONE;
	if (from == SIM_MEMORY_PAGEABLE)
		return bytes <= STAGED_BYTES ? RETURN_STAGED : RETURN_DONE;
	return RETURN_AT_ONCE;
}

/* sim_lock held. */
static CUresult submit(sim_stream_t *stream, const sim_box_t *box, bool synchronous)
{
	place_t from, to;
	CUresult result = find_both(stream->object.context, box, &from, &to);
	if (result != CUDA_SUCCESS)
		return result;
	sim_work_t *work = sim_work_new(&sim_copy_kind, stream->object.context);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_copy_work_t *copy = (sim_copy_work_t *)work;
	copy->box = *box;
	return_t returns = when(box, stream, synchronous);
	if (returns == RETURN_STAGED && !stage(copy, &from)) {
		sim_work_drop(work);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	return returns == RETURN_DONE ? sim_stream_run(stream, work) :
					sim_stream_submit(stream, work);
}

static CUresult begin(const sim_box_t *box, CUstream handle, bool per_thread, bool synchronous)
{
	SIM_NEED_CONTEXT(context);
	(void)context;
	CUresult result = CUDA_SUCCESS;
	sim_lock_take();
	sim_stream_t *stream = sim_stream_get(handle, per_thread, &result);
	if (stream && box->width && box->height && box->depth)
		result = submit(stream, box, synchronous);
	sim_lock_drop();
	return result;
}

CUresult sim_box_now(const sim_box_t *box, bool per_thread)
{
	return begin(box, NULL, per_thread, true);
}

CUresult sim_box_async(const sim_box_t *box, CUstream stream, bool per_thread)
{
	return begin(box, stream, per_thread, false);
}
