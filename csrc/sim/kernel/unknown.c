/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernels without PTX: refused, or, where it is asked for, their memory is touched.
 *
 * EMUV_SIM_UNKNOWN_KERNELS=touch is for studying what a program does to memory: a launch
 * reads and writes all of every allocation of which an address stands in the parameters
 * (an 8-byte word at a multiple of 8 bytes, structures of pointers included).  Blocks
 * move and are counted as for a kernel that did that; no byte changes, nothing is
 * computed, and every place that reports says so.
 */
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "internal.h"
#include "memory.h"
#include "unknown.h"

/* ---- what was not computed ---- */

typedef struct seen {
	struct seen *next;
	uint64_t touched, refused;
	char name[];
} seen_t;
static seen_t *all_seen; /* under sim_lock; never shrinks */

/* NULL: no memory. */
static seen_t *seen_of(const char *name)
{
	seen_t *seen;

	for (seen = all_seen; seen; seen = seen->next)
		if (strcmp(seen->name, name) == 0)
			return seen;
	seen = calloc(1, sizeof(*seen) + strlen(name) + 1);
	if (!seen)
		return NULL;
	strcpy(seen->name, name);
	seen->next = all_seen;
	all_seen = seen;
	return seen;
}

void sim_unknown_list(FILE *file)
{
	const char *separator = "";

	fprintf(file, "  \"kernels_not_computed\": {");
	for (const seen_t *seen = all_seen; seen; seen = seen->next) {
		fprintf(file, "%s\n    \"", separator);
		for (const char *at = seen->name; *at; at++)
			fputc(*at < 32 || *at == 127 || *at == '"' || *at == '\\' ? '?' : *at, file);
		fprintf(file, "\": {\"touched\": %llu, \"refused\": %llu}",
			(unsigned long long)seen->touched, (unsigned long long)seen->refused);
		separator = ",";
	}
	fprintf(file, "%s},\n", *separator ? "\n  " : "");
}

static CUresult refuse(const sim_function_t *function, const char *why)
{
	seen_t *seen = seen_of(function->name);

	if (!seen || !seen->refused++)
		sim_say("error: kernel \"%.120s\" was not run: %s", function->name, why);
	return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

CUresult sim_unknown_allow(const sim_function_t *function, bool parameters_known, const char **name)
{
	const sim_image_t *image = function->module->image;
	char text[SIM_WHY_BYTES + 100];
	seen_t *seen;

	if (image->open && !(sim_config.touch_unknown && parameters_known)) {
		snprintf(text, sizeof(text), "%s%s",
			 sim_config.touch_unknown ? "its parameters are not known: " : "",
			 "it is in a fat binary that cannot be read: ");
		strncat(text, image->why, sizeof(text) - strlen(text) - 1);
		return refuse(function, text);
	}
	if (!sim_config.touch_unknown)
		return refuse(function,
			      "it is machine code of an NVIDIA GPU, and simulated ones run PTX; "
			      "hint: build it with PTX for compute_80 or older, or study its "
			      "memory alone, without results, by EMUV_SIM_UNKNOWN_KERNELS=touch");
	seen = seen_of(function->name);
	if (!seen)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!seen->touched++)
		sim_say("kernel \"%.200s\" computes nothing: its memory is touched "
			"(EMUV_SIM_UNKNOWN_KERNELS=touch), and what it should have written is not "
			"there", seen->name);
	*name = seen->name;
	return CUDA_SUCCESS;
}

/* ---- touching ---- */

typedef struct {
	uintptr_t start;
	size_t bytes;
} piece_t;

/* sim_lock held.  The allocation around an address; false: there is none. */
static bool piece_at(uint64_t address, CUdevice device, piece_t *piece)
{
	const sim_range_t *range = sim_range_find((uintptr_t)address);
	sim_mapping_t mapping;

	if (!range)
		return false;
	*piece = (piece_t){ range->start, range->bytes };
	if (range->kind != SIM_RANGE_RESERVED)
		return true;
	if (!sim_vmm_mapping(range, (uintptr_t)address, device, &mapping))
		return false;
	*piece = (piece_t){ mapping.start, mapping.bytes };
	return true;
}

/* The allocations that the parameters point into, each once; how many. */
static uint32_t find_pieces(const sim_kernel_launch_t *launch, piece_t *pieces)
{
	uint32_t count = 0;

	sim_lock_take();
	for (uint32_t at = 0; at + 8 <= launch->parameter_bytes; at += 8) {
		uint64_t address;
		uint32_t i = 0;
		piece_t piece;

		memcpy(&address, launch->parameters + at, 8);
		if (!piece_at(address, launch->context->device, &piece))
			continue;
		while (i < count && pieces[i].start != piece.start)
			i++;
		if (i == count)
			pieces[count++] = piece;
	}
	sim_lock_drop();
	return count;
}

CUresult sim_unknown_run(const sim_kernel_launch_t *launch, sim_cost_t *cost)
{
	sim_launch_info_t info = { .kernel = launch->name, .computed = false };
	piece_t *pieces = malloc((launch->parameter_bytes / 8 + 1) * sizeof(*pieces));
	sim_paging_t *paging;
	uint32_t count;

	memcpy(info.grid, launch->grid, sizeof(info.grid));
	memcpy(info.block, launch->block, sizeof(info.block));
	count = pieces ? find_pieces(launch, pieces) : 0;
	paging = pieces ? sim_paging_begin(launch->context, &info) : NULL;
	if (!paging) {
		free(pieces);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	for (uint32_t i = 0; i < count; i++) {
		uintptr_t end = pieces[i].start + pieces[i].bytes;

		for (uintptr_t at = pieces[i].start, next; at < end; at = next) {
			next = (at / SIM_BLOCK_BYTES + 1) * SIM_BLOCK_BYTES;
			if (next > end)
				next = end;
			/* What may not be reached is not touched: no kernel has read it. */
			if (sim_paging_access(paging, at, (uint32_t)(next - at),
					      EMUV_READ | EMUV_WRITE) == CUDA_SUCCESS)
				cost->vram_bytes += 2 * (next - at); /* read, and written */
		}
	}
	sim_paging_end(paging, cost);
	free(pieces);
	return CUDA_SUCCESS;
}
