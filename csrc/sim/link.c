/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cuLink*: what was added, made into one image.
 *
 * PTX is linked, to find what is wrong with it, and not compiled: the result is an ELF
 * file for an NVIDIA GPU whose section .emuv.ptx holds the texts one after another, as
 * cuModuleLoadData of this driver reads and links them again.  One cubin, or one fat
 * binary, comes out as it went in.  A library (an archive of code for a card) gives
 * nothing: what programs want of the one that CUDA has, grid synchronisation, is built
 * in, and what is wanted of others stays unresolved, which linking says by name.  What
 * else would need a linker (objects, several cubins) is refused.
 */
#include <ar.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "internal.h"

enum { INPUT_CUBIN = 0, INPUT_PTX = 1, INPUT_FATBINARY = 2, INPUT_LIBRARY = 4, INPUT_TYPES = 6 };

typedef struct {
	sim_object_t object;
	/* The arrays of the options are the program's, which keeps them until the end. */
	unsigned int option_count;
	int *options;
	void **values;
	sim_image_t **inputs;
	unsigned int input_count;
	unsigned char *output;
} link_t;

static link_t *get(CUlinkState handle, CUresult *why)
{
	link_t *state = sim_object_get(handle, SIM_LINK);

	if (!state)
		*why = sim_fail(CUDA_ERROR_INVALID_HANDLE, "%p is no link", (void *)handle);
	return state;
}

static CUresult create(unsigned int count, int *options, void **values, CUlinkState *handle)
{
	sim_context_t *context = sim_current();
	link_t *state;

	if (!handle || sim_jit_check(count, options, values) != CUDA_SUCCESS)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return sim_no_context();
	sim_lock_take();
	state = sim_object_new(SIM_LINK, sizeof(*state), NULL);
	sim_lock_drop();
	if (!state)
		return CUDA_ERROR_OUT_OF_MEMORY;
	state->option_count = count;
	state->options = options;
	state->values = values;
	*handle = (CUlinkState)state;
	return CUDA_SUCCESS;
}

SIM_API(cuLinkCreate, unsigned int count, int *options, void **values, CUlinkState *handle)
{
	SIM_ENTER(cuLinkCreate);
	return create(count, options, values, handle);
}

SIM_API(cuLinkCreate_v2, unsigned int count, int *options, void **values, CUlinkState *handle)
{
	SIM_ENTER(cuLinkCreate_v2);
	return create(count, options, values, handle);
}

/* Takes the image over. */
static CUresult add(CUlinkState handle, int type, sim_image_t *image, CUresult result,
		    const char *why)
{
	int kind = !image ? -1 : image->fat ? INPUT_FATBINARY
				: image->kind == SIM_IMAGE_PTX ? INPUT_PTX : INPUT_CUBIN;
	sim_image_t **more;
	link_t *state;

	sim_lock_take();
	state = get(handle, &result);
	if (state && state->output) {
		result = CUDA_ERROR_INVALID_HANDLE; /* complete: nothing can be added */
	} else if (state && result != CUDA_SUCCESS) {
		sim_jit_answer(state->option_count, state->options, state->values, why);
		sim_fail(result, "cuLinkAdd: %s", why);
	} else if (state && kind != type) {
		/* A linked PTX text is a cubin to the program. */
		if (kind != INPUT_PTX || type != INPUT_CUBIN)
			result = CUDA_ERROR_INVALID_IMAGE;
	}
	if (state && result == CUDA_SUCCESS) {
		more = realloc(state->inputs, (state->input_count + 1) * sizeof(*more));
		if (more) {
			state->inputs = more;
			more[state->input_count++] = image;
			image = NULL;
		} else {
			result = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	sim_lock_drop();
	sim_image_drop(image);
	return result;
}

static CUresult type_check(int type)
{
	if (type < 0 || type >= INPUT_TYPES)
		return CUDA_ERROR_INVALID_VALUE;
	if (type > INPUT_FATBINARY && type != INPUT_LIBRARY)
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED,
				"cuLinkAdd: the simulated GPU links PTX, a cubin or a fat binary");
	return CUDA_SUCCESS;
}

static CUresult add_library(CUlinkState handle, const void *data, size_t size)
{
	CUresult result = CUDA_SUCCESS;
	link_t *state;

	sim_lock_take();
	state = get(handle, &result);
	if (state && state->output)
		result = CUDA_ERROR_INVALID_HANDLE;
	else if (state && (size < SARMAG || memcmp(data, ARMAG, SARMAG) != 0))
		result = sim_fail(CUDA_ERROR_INVALID_IMAGE, "cuLinkAdd: a library is an archive");
	sim_lock_drop();
	return result;
}

static CUresult add_data(CUlinkState handle, int type, void *data, size_t size, unsigned int count,
			 int *options, void **values)
{
	char why[SIM_WHY_BYTES] = "";
	sim_image_t *image = NULL;
	CUresult result = type_check(type);

	if (result != CUDA_SUCCESS)
		return result;
	if (!data || !size || sim_jit_check(count, options, values) != CUDA_SUCCESS)
		return CUDA_ERROR_INVALID_VALUE;
	if (type == INPUT_LIBRARY)
		return add_library(handle, data, size);
	result = sim_image_read(data, size, true, &image, why);
	return add(handle, type, image, result, why);
}

SIM_API(cuLinkAddData, CUlinkState handle, int type, void *data, size_t size, const char *name,
	unsigned int count, int *options, void **values)
{
	SIM_ENTER(cuLinkAddData);
	(void)name;
	return add_data(handle, type, data, size, count, options, values);
}

SIM_API(cuLinkAddData_v2, CUlinkState handle, int type, void *data, size_t size, const char *name,
	unsigned int count, int *options, void **values)
{
	SIM_ENTER(cuLinkAddData_v2);
	(void)name;
	return add_data(handle, type, data, size, count, options, values);
}

static CUresult add_file(CUlinkState handle, int type, const char *path, unsigned int count,
			 int *options, void **values)
{
	char why[SIM_WHY_BYTES] = "";
	sim_image_t *image = NULL;
	CUresult result = type_check(type);

	if (result != CUDA_SUCCESS)
		return result;
	if (!path || sim_jit_check(count, options, values) != CUDA_SUCCESS)
		return CUDA_ERROR_INVALID_VALUE;
	if (type == INPUT_LIBRARY) {
		char magic[SARMAG];
		FILE *file = fopen(path, "re");
		size_t size = file ? fread(magic, 1, sizeof(magic), file) : 0;

		if (file)
			fclose(file);
		return file ? add_library(handle, magic, size) : CUDA_ERROR_FILE_NOT_FOUND;
	}
	result = sim_image_read_file(path, true, &image, why);
	return add(handle, type, image, result, why);
}

SIM_API(cuLinkAddFile, CUlinkState handle, int type, const char *path, unsigned int count,
	int *options, void **values)
{
	SIM_ENTER(cuLinkAddFile);
	return add_file(handle, type, path, count, options, values);
}

SIM_API(cuLinkAddFile_v2, CUlinkState handle, int type, const char *path, unsigned int count,
	int *options, void **values)
{
	SIM_ENTER(cuLinkAddFile_v2);
	return add_file(handle, type, path, count, options, values);
}

/* An ELF file of two sections: the texts, and the sections' names. */
static CUresult wrap(link_t *state, size_t *size)
{
	static const char names[] = "\0" SIM_ELF_PTX_SECTION "\0.shstrtab";
	const size_t name_shstrtab = sizeof("\0" SIM_ELF_PTX_SECTION);
	size_t text = 0, sections, at = sizeof(Elf64_Ehdr);
	Elf64_Shdr section = { 0 };
	Elf64_Ehdr header = { 0 };

	for (unsigned int i = 0; i < state->input_count; i++)
		text += state->inputs[i]->size + 1;
	sections = (at + text + sizeof(names) + 7) / 8 * 8;
	*size = sections + 3 * sizeof(section);
	state->output = calloc(1, *size);
	if (!state->output)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (unsigned int i = 0; i < state->input_count; i++) {
		memcpy(state->output + at, state->inputs[i]->data, state->inputs[i]->size);
		at += state->inputs[i]->size;
		state->output[at++] = '\0';
	}
	memcpy(state->output + at, names, sizeof(names));
	memcpy(header.e_ident, ELFMAG, SELFMAG);
	header.e_ident[EI_CLASS] = ELFCLASS64;
	header.e_ident[EI_DATA] = ELFDATA2LSB;
	header.e_ident[EI_VERSION] = EV_CURRENT;
	header.e_type = ET_EXEC;
	header.e_machine = SIM_ELF_MACHINE;
	header.e_version = EV_CURRENT;
	/* The rest of what was asked for; the texts say themselves what they are for. */
	header.e_flags = sim_jit_registers(state->option_count, state->options, state->values);
	header.e_shoff = sections;
	header.e_ehsize = sizeof(header);
	header.e_shentsize = sizeof(section);
	header.e_shnum = 3;
	header.e_shstrndx = 2;
	memcpy(state->output, &header, sizeof(header));
	section.sh_name = 1;
	section.sh_type = SHT_PROGBITS;
	section.sh_offset = sizeof(header);
	section.sh_size = text;
	section.sh_addralign = 1;
	memcpy(state->output + sections + sizeof(section), &section, sizeof(section));
	section.sh_name = (Elf64_Word)name_shstrtab;
	section.sh_type = SHT_STRTAB;
	section.sh_offset = sizeof(header) + text;
	section.sh_size = sizeof(names);
	memcpy(state->output + sections + 2 * sizeof(section), &section, sizeof(section));
	return CUDA_SUCCESS;
}

/* Sees that the texts go together; on failure nothing is kept. */
static CUresult try_output(link_t *state, size_t size)
{
	char why[SIM_WHY_BYTES];
	sim_image_t *image;
	CUresult result = sim_image_read(state->output, size, false, &image, why);

	if (result == CUDA_SUCCESS) {
		sim_image_drop(image);
		return result;
	}
	free(state->output);
	state->output = NULL;
	sim_jit_answer(state->option_count, state->options, state->values, why);
	return sim_fail(result, "cuLinkComplete: %s", why);
}

static CUresult complete(link_t *state, size_t *size)
{
	bool all_ptx = true;
	CUresult result;

	if (!state->input_count)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < state->input_count; i++)
		all_ptx &= state->inputs[i]->kind == SIM_IMAGE_PTX;
	if (all_ptx) {
		result = wrap(state, size);
		return result == CUDA_SUCCESS ? try_output(state, *size) : result;
	}
	if (state->input_count > 1)
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED,
				"cuLinkComplete: the simulated GPU does not link cubins");
	if (state->inputs[0]->kind == SIM_IMAGE_FAT)
		return sim_fail(CUDA_ERROR_NOT_SUPPORTED, "cuLinkComplete: the fat binary: %s",
				state->inputs[0]->why);
	*size = state->inputs[0]->size;
	state->output = malloc(*size);
	if (!state->output)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(state->output, state->inputs[0]->data, *size);
	return CUDA_SUCCESS;
}

SIM_API(cuLinkComplete, CUlinkState handle, void **output, size_t *size)
{
	CUresult result = CUDA_SUCCESS;
	size_t bytes = 0;
	link_t *state;

	SIM_ENTER(cuLinkComplete);
	if (!output)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	state = get(handle, &result);
	if (state && state->output)
		result = CUDA_ERROR_INVALID_HANDLE;
	else if (state)
		result = complete(state, &bytes);
	if (result == CUDA_SUCCESS) {
		sim_jit_answer(state->option_count, state->options, state->values, "");
		*output = state->output;
		if (size)
			*size = bytes;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuLinkDestroy, CUlinkState handle)
{
	CUresult result = CUDA_SUCCESS;
	link_t *state;

	SIM_ENTER(cuLinkDestroy);
	sim_lock_take();
	state = get(handle, &result);
	if (state) {
		for (unsigned int i = 0; i < state->input_count; i++)
			sim_image_drop(state->inputs[i]);
		free(state->inputs);
		free(state->output);
		sim_object_delete(state);
	}
	sim_lock_drop();
	return result;
}
