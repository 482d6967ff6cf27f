/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cubins: ELF files with machine code of an NVIDIA GPU.  The names in them, how their
 * kernels take parameters, what their variables start with; the code is never looked at.
 *
 * Every offset in the file is checked against its size before it is followed
 * (sim_cubin_size checks headers and sections, and comes first).
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

/* st_other of a kernel's symbol. */
#define ENTRY_MARK 0x10

typedef struct {
	const unsigned char *data;
	Elf64_Shdr *sections; /* a copy: in the file they lie at any address */
	unsigned int count;
	unsigned int *entry;  /* by section: which entry's code it is, from 1; 0: none's */
	const char *names;
	size_t names_size;
} elf_t;

/* A string of a string table, or NULL where it does not end inside. */
static const char *string_at(const char *table, size_t size, uint64_t offset)
{
	return offset < size && memchr(table + offset, '\0', size - offset) ? table + offset : NULL;
}

/* Whether a section has bytes in the file; where they are is checked of no other. */
static bool has_bytes(const Elf64_Shdr *section)
{
	return section->sh_type != SHT_NOBITS && section->sh_type != SHT_NULL;
}

size_t sim_cubin_size(const unsigned char *data, size_t known, char why[SIM_WHY_BYTES])
{
	size_t limit = known ? known : SIM_IMAGE_BYTES_MOST, end;
	Elf64_Ehdr header;

	if (known && known < sizeof(header)) {
		sim_image_fail(why, "the ELF header is cut short");
		return 0;
	}
	memcpy(&header, data, sizeof(header));
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    header.e_machine != SIM_ELF_MACHINE) {
		sim_image_fail(why, "an ELF file, but not for an NVIDIA GPU");
		return 0;
	}
	if (!header.e_shnum || header.e_shentsize != sizeof(Elf64_Shdr) ||
	    !sim_image_inside(header.e_shoff, (uint64_t)header.e_shnum * sizeof(Elf64_Shdr), limit) ||
	    !sim_image_inside(header.e_phoff, (uint64_t)header.e_phnum * header.e_phentsize, limit) ||
	    header.e_shstrndx >= header.e_shnum) {
		sim_image_fail(why, "the ELF header points outside of the image");
		return 0;
	}
	end = header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr);
	if (header.e_phoff + (size_t)header.e_phnum * header.e_phentsize > end)
		end = header.e_phoff + (size_t)header.e_phnum * header.e_phentsize;
	for (unsigned int i = 0; i < header.e_shnum; i++) {
		Elf64_Shdr section;

		memcpy(&section, data + header.e_shoff + i * sizeof(section), sizeof(section));
		if (!has_bytes(&section))
			continue;
		if (!sim_image_inside(section.sh_offset, section.sh_size, limit)) {
			sim_image_fail(why, "an ELF section lies outside of the image");
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
	if (symbol->st_shndx < elf->count) {
		entry->registers = elf->sections[symbol->st_shndx].sh_info >> 24;
		elf->entry[symbol->st_shndx] = image->entry_count; /* from 1 */
	}
	return CUDA_SUCCESS;
}

/*
 * What sections say of kernels: .nv.info.<name> and .nv.shared.<name>, which are linked
 * to the kernel's code by sh_info.
 */
static void read_kernel_sections(sim_image_t *image, const elf_t *elf)
{
	for (unsigned int i = 0; i < elf->count; i++) {
		const Elf64_Shdr *section = &elf->sections[i];
		const char *name = section_name(elf, i);
		bool info = strncmp(name, ".nv.info.", 9) == 0;
		sim_entry_t *entry;

		if ((!info && strncmp(name, ".nv.shared.", 11) != 0) ||
		    section->sh_info >= elf->count || !elf->entry[section->sh_info])
			continue;
		entry = &image->entries[elf->entry[section->sh_info] - 1];
		if (info && has_bytes(section))
			kernel_info(elf, section, entry);
		else if (!info)
			entry->shared_bytes = (unsigned int)section->sh_size;
	}
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
	if (!sim_image_inside(symbol->st_value, symbol->st_size, home->sh_size))
		return CUDA_ERROR_INVALID_IMAGE;
	variable = sim_image_add_variable(image, name, strlen(name));
	if (!variable)
		return CUDA_ERROR_OUT_OF_MEMORY;
	variable->bytes = symbol->st_size;
	variable->align = home->sh_addralign;
	variable->constant = strcmp(section, ".nv.constant3") == 0;
	if (!has_bytes(home))
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
	memcpy(&image->max_registers, image->data + offsetof(Elf64_Ehdr, e_flags),
	       sizeof(image->max_registers));
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
	if (result == CUDA_SUCCESS)
		read_kernel_sections(image, elf);
	return result == CUDA_ERROR_INVALID_IMAGE ? sim_image_fail(why, "the ELF symbols are damaged")
						  : result;
}

CUresult sim_cubin_read(sim_image_t *image, bool part, char why[SIM_WHY_BYTES])
{
	elf_t elf = { .data = image->data };
	const Elf64_Shdr *names;
	Elf64_Ehdr header;
	CUresult result;

	memcpy(&header, image->data, sizeof(header));
	elf.count = header.e_shnum;
	elf.sections = malloc(elf.count * sizeof(*elf.sections));
	elf.entry = calloc(elf.count, sizeof(*elf.entry));
	if (!elf.sections || !elf.entry) {
		free(elf.sections);
		free(elf.entry);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	memcpy(elf.sections, image->data + header.e_shoff, elf.count * sizeof(*elf.sections));
	names = &elf.sections[header.e_shstrndx];
	/* The architecture sits in the flags: bits 8 to 15 of newer files, 0 to 7 of older. */
	image->target = (header.e_ident[EI_ABIVERSION] >= 8 ? header.e_flags >> 8
							    : header.e_flags) & 0xff;
	if (names->sh_type == SHT_STRTAB) { /* so its place has been checked */
		elf.names = (const char *)image->data + names->sh_offset;
		elf.names_size = names->sh_size;
		result = read_sections(image, &elf, part, why);
	} else {
		result = sim_image_fail(why, "the ELF section names are no string table");
	}
	free(elf.sections);
	free(elf.entry);
	return result;
}
