// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/sim/image.c csrc/sim/image_ptx.c csrc/sim/cubin.c csrc/sim/fatbin.c csrc/sim/ptx/*.c
// corpus: tests/fuzz/corpus/image
/*
 * Device code in every form: fat binaries, cubins (ELF), what cuLinkComplete made, PTX text.
 * It is read, with sound names and sizes, or refused in one line.
 */
#include <string.h>

#include "fuzz.h"
#include "image.h"

const char *const fuzz_words[] = {
	"\x7f" "ELF\x02\x01\x01", "\x50\xed\x55\xba", ".nv.info.", ".text.", ".nv.shared.", ".nv.global",
	".nv.constant0.", ".emuv.ptx", ".version 8.0\n.target sm_80\n.address_size 64\n", "\x04\x17\x0c",
	"\x04\x12", "\x04\x11", "\x28\xb5\x2f\xfd", ".strtab", ".symtab", NULL,
};

/* What kernel/code.c keeps of an entry: nothing here. */
struct sim_entry_code *sim_entry_code_new(void)
{
	return calloc(1, 1);
}

void sim_entry_code_drop(struct sim_entry_code *code)
{
	free(code);
}

/* The sanitizer speaks where one of them is none of ours. */
static void touch(const void *data, size_t bytes)
{
	const volatile unsigned char *at = data;

	for (size_t i = 0; i < bytes; i++)
		(void)at[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int part = 0; part < 2; part++) {
		char why[SIM_WHY_BYTES] = "";
		sim_image_t *image = NULL;
		CUresult result;

		if (!size)
			return 0; /* 0: as much as the headers say, and the program vouches for them */
		result = sim_image_read(data, size, part, &image, why);
		CHECK(memchr(why, 0, sizeof(why)));
		CHECK((result == CUDA_SUCCESS) == (image != NULL));
		CHECK(result == CUDA_SUCCESS || !strchr(why, '\n'));
		if (!image)
			continue;
		for (unsigned int i = 0; i < image->entry_count; i++) {
			const sim_entry_t *entry = &image->entries[i];

			touch(entry->parameters, entry->parameter_count * sizeof(*entry->parameters));
			CHECK(sim_image_entry(image, entry->name));
		}
		for (unsigned int i = 0; i < image->variable_count; i++) {
			const sim_variable_t *variable = &image->variables[i];

			CHECK(sim_image_variable(image, variable->name));
			if (variable->initial)
				touch(variable->initial, variable->bytes);
		}
		if (image->data)
			touch(image->data, image->size + 1);
		sim_image_drop(image);
	}
	return 0;
}
