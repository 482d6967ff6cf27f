/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An image of PTX text: its texts are parsed, linked, and asked for their names.
 *
 * image->data holds one text, or several (what cuLinkComplete made), each with a NUL
 * behind it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "ptx/ptx.h"

#define MOST_TEXTS 4096

static CUresult answer(ptx_status_t status)
{
	switch (status) {
	case PTX_OK: return CUDA_SUCCESS;
	case PTX_BAD_VERSION: return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
	case PTX_UNSUPPORTED: return CUDA_ERROR_NOT_SUPPORTED;
	case PTX_NO_MEMORY: return CUDA_ERROR_OUT_OF_MEMORY;
	case PTX_BAD_SYNTAX:
	case PTX_UNRESOLVED: break;
	}
	return CUDA_ERROR_INVALID_PTX;
}

static CUresult add_entry(sim_image_t *image, const ptx_function_t *function)
{
	sim_entry_t *entry = sim_image_add_entry(image, function->name, strlen(function->name));
	unsigned int count = 0;

	if (!entry)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (const ptx_variable_t *one = function->parameters; one; one = one->next)
		count++;
	entry->parameters = calloc(count + 1, sizeof(*entry->parameters));
	entry->code = sim_entry_code_new();
	if (!entry->parameters || !entry->code)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (const ptx_variable_t *one = function->parameters; one; one = one->next)
		entry->parameters[entry->parameter_count++] =
			(sim_parameter_t){ (unsigned int)one->offset, (unsigned int)one->bytes };
	entry->max_threads = function->required_threads ? function->required_threads
							: function->max_threads;
	return CUDA_SUCCESS;
}

static CUresult add_variable(sim_image_t *image, const ptx_variable_t *from)
{
	sim_variable_t *variable = sim_image_add_variable(image, from->name, strlen(from->name));

	if (!variable)
		return CUDA_ERROR_OUT_OF_MEMORY;
	variable->bytes = from->bytes;
	variable->align = from->align;
	variable->constant = from->space == PTX_SPACE_CONST;
	variable->managed = from->managed;
	variable->ptx = from;
	if (!from->initial)
		return CUDA_SUCCESS;
	variable->initial = malloc(from->bytes + 1);
	if (!variable->initial)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(variable->initial, from->initial, from->bytes);
	return CUDA_SUCCESS;
}

/* Entries and variables; a variable's place in the image is its index in the module. */
static CUresult add_names(sim_image_t *image)
{
	const ptx_module_t *module = image->ptx;
	CUresult result = CUDA_SUCCESS;

	image->ptx_version = module->version;
	image->target = module->target;
	for (const ptx_variable_t *one = module->variables; one && result == CUDA_SUCCESS;
	     one = one->next)
		if (one->space == PTX_SPACE_GLOBAL || one->space == PTX_SPACE_CONST)
			result = add_variable(image, one);
	for (const ptx_function_t *one = module->functions; one && result == CUDA_SUCCESS;
	     one = one->next)
		if (one->entry && one->defined)
			result = add_entry(image, one);
	return result;
}

CUresult sim_image_read_ptx(sim_image_t *image, bool link, char why[SIM_WHY_BYTES])
{
	const char *text = (const char *)image->data, *end = text + image->size;
	ptx_module_t **modules = NULL;
	ptx_status_t status = PTX_OK;
	unsigned int count = 0;

	_Static_assert(SIM_WHY_BYTES >= PTX_WHY_BYTES, "messages are the parser's own");
	for (; text < end && status == PTX_OK; text += strlen(text) + 1) {
		ptx_module_t **more;

		if (!*text) /* what was linked before ends with a NUL of its own */
			continue;
		more = count < MOST_TEXTS ? realloc(modules, (count + 1) * sizeof(ptx_module_t *))
					  : NULL;
		if (!more) {
			status = PTX_NO_MEMORY;
			break;
		}
		modules = more;
		status = ptx_parse(text, &modules[count], why);
		count += status == PTX_OK;
	}
	if (status == PTX_OK && !count) {
		snprintf(why, SIM_WHY_BYTES, "there is no PTX text");
		status = PTX_BAD_SYNTAX;
	}
	if (status == PTX_OK && link) {
		status = ptx_link(modules, count, &image->ptx, why);
	} else {
		for (unsigned int i = 0; i < count; i++)
			ptx_module_drop(modules[i]);
	}
	free(modules);
	if (status != PTX_OK || !link)
		return answer(status);
	return add_names(image);
}
