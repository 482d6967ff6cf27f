/* SPDX-License-Identifier: GPL-2.0-only */
/* Copies of boxes (box.h). */
#include <string.h>

#include "box.h"

#define MAX_PITCH ((size_t)2147483647) /* CU_DEVICE_ATTRIBUTE_MAX_PITCH */

/* One end of a copy, found and checked. */
typedef struct {
	char *first; /* byte of the box */
	size_t pitch, slice; /* bytes from row to row, from slice to slice */
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
	sim_lock_take();
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
	sim_lock_drop();
	return !array ? CUDA_ERROR_INVALID_HANDLE : why ? wrong(what, why) : CUDA_SUCCESS;
}

static CUresult place_in_memory(sim_context_t *context, const sim_side_t *side,
				const sim_box_t *box, sim_use_t use, const char *what,
				place_t *place)
{
	size_t row, rows, offset, span;
	if (!times_plus(side->x, 1, box->width, &row) || !times_plus(side->y, 1, box->height, &rows))
		return wrong(what, "too large");
	size_t pitch = side->pitch ? side->pitch : row;
	size_t height = side->height ? side->height : rows;
	if (pitch < row || pitch > MAX_PITCH)
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
	};
	return result;
}

static CUresult find(sim_context_t *context, const sim_side_t *side, const sim_box_t *box,
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
	sim_lock_take();
	const sim_array_t *from = sim_object_get(box->from.array, SIM_ARRAY);
	const sim_array_t *to = sim_object_get(box->to.array, SIM_ARRAY);
	bool same = !from || !to || from->element_bytes == to->element_bytes;
	sim_lock_drop();
	return same;
}

CUresult sim_box_copy(sim_context_t *context, const sim_box_t *box)
{
	if (!box->width || !box->height || !box->depth)
		return CUDA_SUCCESS;
	place_t from, to;
	CUresult result = find(context, &box->from, box, SIM_USE_READ, "source", &from);
	if (result == CUDA_SUCCESS)
		result = find(context, &box->to, box, SIM_USE_WRITE, "destination", &to);
	if (result == CUDA_SUCCESS && !same_elements(box))
		result = wrong("source and destination", "elements of different sizes");
	if (result != CUDA_SUCCESS)
		return result;

	/* Last row first where the destination lies higher: overlapping boxes come out right. */
	bool backwards = to.first > from.first;
	size_t rows = box->height * box->depth;
	for (size_t i = 0; i < rows; i++) {
		size_t at = backwards ? rows - 1 - i : i;
		size_t z = at / box->height, y = at % box->height;
		memmove(to.first + z * to.slice + y * to.pitch,
			from.first + z * from.slice + y * from.pitch, box->width);
	}
	return CUDA_SUCCESS;
}

CUresult sim_box_now(const sim_box_t *box, bool per_thread)
{
	SIM_NEED_CONTEXT(context);
	CUresult result = sim_box_copy(context, box);
	return result == CUDA_SUCCESS ? sim_finish(per_thread) : result;
}

CUresult sim_box_async(const sim_box_t *box, CUstream stream, bool per_thread)
{
	SIM_NEED_CONTEXT(context);
	CUresult result = sim_submit(stream, per_thread);
	return result == CUDA_SUCCESS ? sim_box_copy(context, box) : result;
}
