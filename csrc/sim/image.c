/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading an image: what is it, where does it end, what names are in it.
 *
 * Where the size is not known it comes from the image's own headers, and every offset
 * in them is checked against it before it is followed.  ELF and fat binary layouts
 * are little-endian, as is every machine that this runs on.  Cubins: cubin.c; fat
 * binaries: fatbin.c; text: ptx.c.
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "ptx/ptx.h"

#define FATBIN_WRAPPER 0x466243b1u
#define FATBIN 0xba55ed50u

CUresult sim_image_fail(char why[SIM_WHY_BYTES], const char *text)
{
	snprintf(why, SIM_WHY_BYTES, "%s", text);
	return CUDA_ERROR_INVALID_IMAGE;
}

static char *copy_name(const char *name, size_t length)
{
	char *copy = malloc(length + 1);

	if (copy) {
		memcpy(copy, name, length);
		copy[length] = '\0';
	}
	return copy;
}

sim_entry_t *sim_image_add_entry(sim_image_t *image, const char *name, size_t length)
{
	sim_entry_t *more = realloc(image->entries, (image->entry_count + 1) * sizeof(*more));

	if (!more)
		return NULL;
	image->entries = more;
	more += image->entry_count;
	memset(more, 0, sizeof(*more));
	more->name = copy_name(name, length);
	if (!more->name)
		return NULL;
	image->entry_count++;
	return more;
}

sim_variable_t *sim_image_add_variable(sim_image_t *image, const char *name, size_t length)
{
	sim_variable_t *more =
		realloc(image->variables, (image->variable_count + 1) * sizeof(*more));

	if (!more)
		return NULL;
	image->variables = more;
	more += image->variable_count;
	memset(more, 0, sizeof(*more));
	more->name = copy_name(name, length);
	if (!more->name)
		return NULL;
	image->variable_count++;
	return more;
}

sim_image_t *sim_image_share(sim_image_t *image)
{
	atomic_fetch_add(&image->references, 1);
	return image;
}

void sim_image_drop(sim_image_t *image)
{
	if (!image || atomic_fetch_sub(&image->references, 1) != 1)
		return;
	for (unsigned int i = 0; i < image->entry_count; i++) {
		free(image->entries[i].name);
		free(image->entries[i].parameters);
		sim_entry_code_drop(image->entries[i].code);
	}
	for (unsigned int i = 0; i < image->variable_count; i++) {
		free(image->variables[i].name);
		free(image->variables[i].initial);
	}
	free(image->entries);
	free(image->variables);
	ptx_module_drop(image->ptx);
	free(image->data);
	free(image);
}

const sim_entry_t *sim_image_entry(const sim_image_t *image, const char *name)
{
	for (unsigned int i = 0; i < image->entry_count; i++)
		if (strcmp(image->entries[i].name, name) == 0)
			return &image->entries[i];
	return NULL;
}

const sim_variable_t *sim_image_variable(const sim_image_t *image, const char *name)
{
	for (unsigned int i = 0; i < image->variable_count; i++)
		if (strcmp(image->variables[i].name, name) == 0)
			return &image->variables[i];
	return NULL;
}

/* ---- any ---- */

static size_t text_size(const unsigned char *data, size_t known)
{
	return known ? strnlen((const char *)data, known)
		     : strnlen((const char *)data, SIM_IMAGE_BYTES_MOST);
}

/* Is the text's beginning text?  Else it is no image at all. */
static bool looks_like_text(const unsigned char *data, size_t size)
{
	for (size_t i = 0; i < size && i < 64; i++)
		if (data[i] < 9 || (data[i] > 13 && data[i] < 32) || data[i] == 127)
			return false;
	return size > 0;
}

/* Reads the names in; `code` is the image's from here on, with a NUL behind it. */
static CUresult read_code(sim_image_kind_t kind, unsigned char *code, size_t size, bool fat,
			  bool part, sim_image_t **answer, char why[SIM_WHY_BYTES])
{
	sim_image_t *image = calloc(1, sizeof(*image));
	CUresult result = CUDA_SUCCESS;

	if (!image) {
		free(code);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	image->references = 1;
	image->kind = kind;
	image->data = code;
	image->size = size;
	image->fat = fat;
	if (kind == SIM_IMAGE_PTX)
		result = sim_image_read_ptx(image, !part, why);
	else if (kind == SIM_IMAGE_CUBIN)
		result = sim_cubin_read(image, part, why);
	else
		image->open = true;
	if (result != CUDA_SUCCESS) {
		sim_image_drop(image);
		return result;
	}
	*answer = image;
	return CUDA_SUCCESS;
}

static CUresult read_fat(const unsigned char *data, size_t size, bool part, sim_image_t **answer,
			 char why[SIM_WHY_BYTES])
{
	unsigned char *code = NULL;
	size_t code_bytes = 0;
	CUresult result;
	bool ptx = false;

	result = sim_fat_take(data, size, &code, &code_bytes, &ptx, why);
	if (result != CUDA_SUCCESS)
		return result;
	if (!code) {
		result = read_code(SIM_IMAGE_FAT, NULL, 0, true, part, answer, why);
		if (result == CUDA_SUCCESS)
			memcpy((*answer)->why, why, SIM_WHY_BYTES);
		why[0] = '\0';
		return result;
	}
	if (!ptx && !sim_cubin_size(code, code_bytes, why)) {
		free(code);
		return CUDA_ERROR_INVALID_IMAGE;
	}
	if (ptx)
		code_bytes = strlen((char *)code);
	return read_code(ptx ? SIM_IMAGE_PTX : SIM_IMAGE_CUBIN, code, code_bytes, true, part,
			 answer, why);
}

CUresult sim_image_read(const void *data, size_t size, bool part, sim_image_t **answer,
			char why[SIM_WHY_BYTES])
{
	sim_image_kind_t kind;
	unsigned char *code;
	uint32_t magic = 0;

	why[0] = '\0';
	if (!data)
		return CUDA_ERROR_INVALID_VALUE;
	if (size == 0 || size >= 4) {
		/* A text may be shorter than a magic number: no byte behind its NUL is read. */
		const char *bytes = data;

		for (int i = 0; i < 4 && (i == 0 || bytes[i - 1]); i++)
			memcpy((char *)&magic + i, bytes + i, 1);
	}
	/* magic, version, pointer to the fat binary: a thing of memory, not of files */
	if (magic == FATBIN_WRAPPER && size == 0) {
		memcpy(&data, (const char *)data + 8, sizeof(data));
		if (!data)
			return sim_image_fail(why, "the fat binary's wrapper is empty");
		memcpy(&magic, data, sizeof(magic));
		if (magic != FATBIN)
			return sim_image_fail(why, "the fat binary's wrapper leads to none");
	}
	if (magic == FATBIN) {
		size = sim_fat_size(data, size, why);
		return size ? read_fat(data, size, part, answer, why) : CUDA_ERROR_INVALID_IMAGE;
	}
	if (memcmp(&magic, ELFMAG, SELFMAG) == 0) {
		kind = SIM_IMAGE_CUBIN;
		size = sim_cubin_size(data, size, why);
	} else {
		kind = SIM_IMAGE_PTX;
		size = text_size(data, size);
		if (!looks_like_text(data, size))
			sim_image_fail(why, "neither PTX text, a cubin nor a fat binary");
	}
	if (why[0])
		return CUDA_ERROR_INVALID_IMAGE;
	code = malloc(size + 1);
	if (!code)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(code, data, size);
	code[size] = '\0';
	return read_code(kind, code, size, false, part, answer, why);
}

CUresult sim_image_read_file(const char *path, bool part, sim_image_t **image,
			     char why[SIM_WHY_BYTES])
{
	CUresult result = CUDA_ERROR_FILE_NOT_FOUND;
	unsigned char *data = NULL;
	FILE *file = fopen(path, "re");
	long size;

	why[0] = '\0';
	if (file && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) > 0 &&
	    (size_t)size <= SIM_IMAGE_BYTES_MOST && fseek(file, 0, SEEK_SET) == 0) {
		data = malloc((size_t)size);
		if (data && fread(data, 1, (size_t)size, file) == (size_t)size)
			result = sim_image_read(data, (size_t)size, part, image, why);
	} else if (file) {
		result = sim_image_fail(why, "the file is empty");
	} else {
		snprintf(why, SIM_WHY_BYTES, "%.100s: %s", path, strerror(errno));
	}
	free(data);
	if (file)
		fclose(file);
	return result;
}

/* ---- the options of loading and linking ---- */

enum { JIT_MAX_REGISTERS = 0 };
enum { JIT_INFO_LOG = 3, JIT_INFO_LOG_BYTES = 4, JIT_ERROR_LOG = 5, JIT_ERROR_LOG_BYTES = 6 };

CUresult sim_jit_check(unsigned int count, const int *options, void **values)
{
	return count && (!options || !values) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

unsigned int sim_jit_registers(unsigned int count, const int *options, void **values)
{
	for (unsigned int i = 0; i < count; i++)
		if (options[i] == JIT_MAX_REGISTERS)
			return (unsigned int)(uintptr_t)values[i];
	return 0;
}

void sim_jit_answer(unsigned int count, const int *options, void **values, const char *text)
{
	char *buffers[2] = { NULL, NULL };
	size_t sizes[2] = { 0, 0 }, used;

	for (unsigned int i = 0; i < count; i++) {
		if (options[i] == JIT_INFO_LOG || options[i] == JIT_ERROR_LOG)
			buffers[options[i] == JIT_ERROR_LOG] = values[i];
		if (options[i] == JIT_INFO_LOG_BYTES || options[i] == JIT_ERROR_LOG_BYTES)
			sizes[options[i] == JIT_ERROR_LOG_BYTES] =
				(unsigned int)(uintptr_t)values[i];
	}
	for (int error = 0; error < 2; error++) {
		if (!buffers[error] || !sizes[error])
			used = 0;
		else
			used = (size_t)snprintf(buffers[error], sizes[error], "%s",
						error ? text : "");
		if (used >= sizes[error] && sizes[error])
			used = sizes[error] - 1;
		for (unsigned int i = 0; i < count; i++)
			if (options[i] == (error ? JIT_ERROR_LOG_BYTES : JIT_INFO_LOG_BYTES))
				values[i] = (void *)(uintptr_t)used;
	}
}
