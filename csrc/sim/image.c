/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading an image: what is it, where does it end, what names are in it.
 *
 * Where the size is not known it comes from the image's own headers, and every offset
 * in them is checked against it before it is followed.  ELF and fat binary layouts
 * are little-endian, as is every machine that this runs on.
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "ptx/ptx.h"

#define MAX_IMAGE_BYTES ((size_t)1 << 31)
#define FATBIN_WRAPPER 0x466243b1u
#define FATBIN 0xba55ed50u
/* st_other of a kernel's symbol. */
#define ENTRY_MARK 0x10

static CUresult fail(char why[SIM_WHY_BYTES], const char *text)
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

/* ---- cubins ---- */

typedef struct {
	const unsigned char *data;
	Elf64_Shdr *sections; /* a copy: in the file they lie at any address */
	unsigned int count;
	const char *names;
	size_t names_size;
} elf_t;

static bool inside(uint64_t offset, uint64_t bytes, size_t size)
{
	return offset <= size && bytes <= size - offset;
}

/* A string of a string table, or NULL where it does not end inside. */
static const char *string_at(const char *table, size_t size, uint64_t offset)
{
	return offset < size && memchr(table + offset, '\0', size - offset) ? table + offset : NULL;
}

/* The size that the headers say; 0: these are no headers of a cubin. */
static size_t elf_size(const unsigned char *data, size_t known, char why[SIM_WHY_BYTES])
{
	size_t limit = known ? known : MAX_IMAGE_BYTES, end;
	Elf64_Ehdr header;

	if (known && known < sizeof(header)) {
		fail(why, "the ELF header is cut short");
		return 0;
	}
	memcpy(&header, data, sizeof(header));
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    header.e_machine != SIM_ELF_MACHINE) {
		fail(why, "an ELF file, but not for an NVIDIA GPU");
		return 0;
	}
	if (!header.e_shnum || header.e_shentsize != sizeof(Elf64_Shdr) ||
	    !inside(header.e_shoff, (uint64_t)header.e_shnum * sizeof(Elf64_Shdr), limit) ||
	    !inside(header.e_phoff, (uint64_t)header.e_phnum * header.e_phentsize, limit) ||
	    header.e_shstrndx >= header.e_shnum) {
		fail(why, "the ELF header points outside of the image");
		return 0;
	}
	end = header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr);
	if (header.e_phoff + (size_t)header.e_phnum * header.e_phentsize > end)
		end = header.e_phoff + (size_t)header.e_phnum * header.e_phentsize;
	for (unsigned int i = 0; i < header.e_shnum; i++) {
		Elf64_Shdr section;

		memcpy(&section, data + header.e_shoff + i * sizeof(section), sizeof(section));
		if (section.sh_type == SHT_NOBITS || section.sh_type == SHT_NULL)
			continue;
		if (!inside(section.sh_offset, section.sh_size, limit)) {
			fail(why, "an ELF section lies outside of the image");
			return 0;
		}
		if (section.sh_offset + section.sh_size > end)
			end = section.sh_offset + section.sh_size;
	}
	return end;
}

static const char *section_name(const elf_t *elf, unsigned int index)
{
	const char *name =
		string_at(elf->names, elf->names_size, elf->sections[index].sh_name);

	return name ? name : "";
}

/*
 * .nv.info.<kernel>: records of (format, attribute, 16 bits: a value, or, format 4, a
 * length before that many bytes).  0x17 is a parameter: its ordinal and offset are 16
 * bits each, its size sits above bit 18 of the word after them.
 */
static void kernel_info(const elf_t *elf, const Elf64_Shdr *section, sim_entry_t *entry)
{
	const unsigned char *at = elf->data + section->sh_offset, *end = at + section->sh_size;

	while (end - at >= 4) {
		unsigned int format = at[0], attribute = at[1];
		uint16_t value, ordinal, offset;
		uint32_t packed;

		memcpy(&value, at + 2, 2);
		at += 4;
		if (format != 4)
			continue;
		if (end - at < value)
			return;
		if (attribute == 0x17 && value >= 12) {
			memcpy(&ordinal, at + 4, 2);
			memcpy(&offset, at + 6, 2);
			memcpy(&packed, at + 8, 4);
			if (ordinal >= entry->parameter_count) {
				sim_parameter_t *more = realloc(
					entry->parameters, (ordinal + 1u) * sizeof(*more));

				if (!more)
					return;
				memset(more + entry->parameter_count, 0,
				       (ordinal + 1u - entry->parameter_count) * sizeof(*more));
				entry->parameters = more;
				entry->parameter_count = ordinal + 1u;
			}
			entry->parameters[ordinal] = (sim_parameter_t){ offset, packed >> 18 };
		}
		at += value;
	}
}

static CUresult add_kernel(sim_image_t *image, const elf_t *elf, const Elf64_Sym *symbol,
			   const char *name)
{
	sim_entry_t *entry = sim_image_add_entry(image, name, strlen(name));

	if (!entry)
		return CUDA_ERROR_OUT_OF_MEMORY;
	/* The register count is the top byte of the code section's sh_info. */
	if (symbol->st_shndx < elf->count)
		entry->registers = elf->sections[symbol->st_shndx].sh_info >> 24;
	for (unsigned int i = 0; i < elf->count; i++) {
		const char *section = section_name(elf, i);

		if (strncmp(section, ".nv.info.", 9) == 0 && strcmp(section + 9, name) == 0)
			kernel_info(elf, &elf->sections[i], entry);
		if (strncmp(section, ".nv.shared.", 11) == 0 && strcmp(section + 11, name) == 0)
			entry->shared_bytes = (unsigned int)elf->sections[i].sh_size;
	}
	return CUDA_SUCCESS;
}

static CUresult add_object(sim_image_t *image, const elf_t *elf, const Elf64_Sym *symbol,
			   const char *name)
{
	const Elf64_Shdr *home;
	sim_variable_t *variable;
	const char *section;

	if (!symbol->st_shndx || symbol->st_shndx >= elf->count || !symbol->st_size)
		return CUDA_SUCCESS;
	home = &elf->sections[symbol->st_shndx];
	section = section_name(elf, symbol->st_shndx);
	if (strncmp(section, ".nv.global", 10) != 0 && strcmp(section, ".nv.constant3") != 0)
		return CUDA_SUCCESS;
	if (!inside(symbol->st_value, symbol->st_size, home->sh_size))
		return CUDA_ERROR_INVALID_IMAGE;
	variable = sim_image_add_variable(image, name, strlen(name));
	if (!variable)
		return CUDA_ERROR_OUT_OF_MEMORY;
	variable->bytes = symbol->st_size;
	variable->align = home->sh_addralign;
	variable->constant = strcmp(section, ".nv.constant3") == 0;
	if (home->sh_type == SHT_NOBITS)
		return CUDA_SUCCESS;
	variable->initial = malloc(variable->bytes);
	if (!variable->initial)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(variable->initial, elf->data + home->sh_offset + symbol->st_value, variable->bytes);
	return CUDA_SUCCESS;
}

static CUresult read_symbols(sim_image_t *image, const elf_t *elf, const Elf64_Shdr *table)
{
	const Elf64_Shdr *strings;

	if (table->sh_entsize != sizeof(Elf64_Sym) || table->sh_link >= elf->count)
		return CUDA_ERROR_INVALID_IMAGE;
	strings = &elf->sections[table->sh_link];
	if (strings->sh_type != SHT_STRTAB)
		return CUDA_ERROR_INVALID_IMAGE;
	for (uint64_t i = 0; i < table->sh_size / sizeof(Elf64_Sym); i++) {
		CUresult result = CUDA_SUCCESS;
		Elf64_Sym symbol;
		const char *name;

		memcpy(&symbol, elf->data + table->sh_offset + i * sizeof(symbol), sizeof(symbol));
		name = string_at((const char *)elf->data + strings->sh_offset, strings->sh_size,
				 symbol.st_name);
		if (!name)
			return CUDA_ERROR_INVALID_IMAGE;
		if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_other & ENTRY_MARK)
			result = add_kernel(image, elf, &symbol, name);
		else if (ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT)
			result = add_object(image, elf, &symbol, name);
		if (result != CUDA_SUCCESS)
			return result;
	}
	return CUDA_SUCCESS;
}

/* What cuLinkComplete made: the text becomes the image. */
static CUresult unwrap_ptx(sim_image_t *image, const elf_t *elf, const Elf64_Shdr *section,
			   bool part, char why[SIM_WHY_BYTES])
{
	size_t size = section->sh_size;
	unsigned char *text = malloc(size + 1);

	if (!text)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(text, elf->data + section->sh_offset, size);
	text[size] = '\0';
	free(image->data);
	image->data = text;
	image->size = size;
	image->kind = SIM_IMAGE_PTX;
	return sim_image_read_ptx(image, !part, why);
}

static CUresult read_sections(sim_image_t *image, const elf_t *elf, bool part,
			      char why[SIM_WHY_BYTES])
{
	CUresult result = CUDA_SUCCESS;

	for (unsigned int i = 0; i < elf->count; i++)
		if (elf->sections[i].sh_type == SHT_PROGBITS &&
		    strcmp(section_name(elf, i), SIM_ELF_PTX_SECTION) == 0)
			return unwrap_ptx(image, elf, &elf->sections[i], part, why);
	/* Code runs on the major version it was made for, of no older minor version. */
	if (image->target / 10 != SIM_CC_MAJOR || image->target % 10 > SIM_CC_MINOR) {
		snprintf(why, SIM_WHY_BYTES, "a cubin for sm_%d, on a device of sm_%d%d",
			 image->target, SIM_CC_MAJOR, SIM_CC_MINOR);
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	}
	for (unsigned int i = 0; i < elf->count && result == CUDA_SUCCESS; i++)
		if (elf->sections[i].sh_type == SHT_SYMTAB)
			result = read_symbols(image, elf, &elf->sections[i]);
	return result == CUDA_ERROR_INVALID_IMAGE ? fail(why, "the ELF symbols are damaged")
						  : result;
}

static CUresult read_cubin(sim_image_t *image, bool part, char why[SIM_WHY_BYTES])
{
	elf_t elf = { .data = image->data };
	const Elf64_Shdr *names;
	Elf64_Ehdr header;
	CUresult result;

	memcpy(&header, image->data, sizeof(header));
	elf.count = header.e_shnum;
	elf.sections = malloc(elf.count * sizeof(*elf.sections));
	if (!elf.sections)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(elf.sections, image->data + header.e_shoff, elf.count * sizeof(*elf.sections));
	names = &elf.sections[header.e_shstrndx];
	elf.names = (const char *)image->data + names->sh_offset;
	elf.names_size = names->sh_size;
	/* The architecture sits in the flags: bits 8 to 15 of newer files, 0 to 7 of older. */
	image->target = (header.e_ident[EI_ABIVERSION] >= 8 ? header.e_flags >> 8
							    : header.e_flags) & 0xff;
	result = names->sh_type == SHT_STRTAB
			 ? read_sections(image, &elf, part, why)
			 : fail(why, "the ELF section names are no string table");
	free(elf.sections);
	return result;
}

/* ---- fat binaries ---- */

typedef struct {
	uint32_t magic;
	uint16_t version;
	uint16_t header_bytes;
	uint64_t bytes; /* behind the header */
} fat_header_t;

static size_t fat_size(const unsigned char *data, size_t known, char why[SIM_WHY_BYTES])
{
	size_t limit = known ? known : MAX_IMAGE_BYTES;
	fat_header_t header;

	if (limit < sizeof(header)) {
		fail(why, "the fat binary's header is cut short");
		return 0;
	}
	memcpy(&header, data, sizeof(header));
	if (header.header_bytes < sizeof(header) || !header.bytes ||
	    !inside(header.header_bytes, header.bytes, limit)) {
		fail(why, "the fat binary's header makes no sense");
		return 0;
	}
	return header.header_bytes + header.bytes;
}

/* ---- any ---- */

static size_t text_size(const unsigned char *data, size_t known)
{
	return known ? strnlen((const char *)data, known)
		     : strnlen((const char *)data, MAX_IMAGE_BYTES);
}

/* Is the text's beginning text?  Else it is no image at all. */
static bool looks_like_text(const unsigned char *data, size_t size)
{
	for (size_t i = 0; i < size && i < 64; i++)
		if (data[i] < 9 || (data[i] > 13 && data[i] < 32) || data[i] == 127)
			return false;
	return size > 0;
}

CUresult sim_image_read(const void *data, size_t size, bool part, sim_image_t **answer,
			char why[SIM_WHY_BYTES])
{
	sim_image_kind_t kind;
	sim_image_t *image;
	CUresult result = CUDA_SUCCESS;
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
	if (magic == FATBIN_WRAPPER) {
		/* magic, version, pointer to the fat binary */
		const void *inner;

		memcpy(&inner, (const char *)data + 8, sizeof(inner));
		return inner ? sim_image_read(inner, 0, part, answer, why)
			     : fail(why, "the fat binary's wrapper is empty");
	}
	if (magic == FATBIN) {
		kind = SIM_IMAGE_FAT;
		size = fat_size(data, size, why);
	} else if (memcmp(&magic, ELFMAG, SELFMAG) == 0) {
		kind = SIM_IMAGE_CUBIN;
		size = elf_size(data, size, why);
	} else {
		kind = SIM_IMAGE_PTX;
		size = text_size(data, size);
		if (!looks_like_text(data, size))
			fail(why, "neither PTX text, a cubin nor a fat binary");
	}
	if (why[0])
		return CUDA_ERROR_INVALID_IMAGE;
	image = calloc(1, sizeof(*image));
	if (!image)
		return CUDA_ERROR_OUT_OF_MEMORY;
	image->references = 1;
	image->kind = kind;
	image->size = size;
	image->data = malloc(size + 1);
	if (!image->data) {
		free(image);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	memcpy(image->data, data, size);
	image->data[size] = '\0';
	if (kind == SIM_IMAGE_PTX)
		result = sim_image_read_ptx(image, !part, why);
	else if (kind == SIM_IMAGE_CUBIN)
		result = read_cubin(image, part, why);
	else
		image->open = true;
	if (result != CUDA_SUCCESS) {
		sim_image_drop(image);
		return result;
	}
	*answer = image;
	return CUDA_SUCCESS;
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
	    (size_t)size <= MAX_IMAGE_BYTES && fseek(file, 0, SEEK_SET) == 0) {
		data = malloc((size_t)size);
		if (data && fread(data, 1, (size_t)size, file) == (size_t)size)
			result = sim_image_read(data, (size_t)size, part, image, why);
	} else if (file) {
		result = fail(why, "the file is empty");
	} else {
		snprintf(why, SIM_WHY_BYTES, "%.100s: %s", path, strerror(errno));
	}
	free(data);
	if (file)
		fclose(file);
	return result;
}

/* ---- the options of loading and linking ---- */

enum { JIT_INFO_LOG = 3, JIT_INFO_LOG_BYTES = 4, JIT_ERROR_LOG = 5, JIT_ERROR_LOG_BYTES = 6 };

CUresult sim_jit_check(unsigned int count, const int *options, void **values)
{
	return count && (!options || !values) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
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
		used = error ? strlen(text) : 0;
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
